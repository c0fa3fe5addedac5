"""Following one member cluster: ownership, informers, and what is appended."""
