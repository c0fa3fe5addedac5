"""`python -m kubebraid`: the command line."""

from kubebraid.cli import main

main()
