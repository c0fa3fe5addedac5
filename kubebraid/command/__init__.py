"""The command line, and the assembly of what its commands run."""
