"""Groups of options that several commands share, as annotated types, and the settings that they make."""
