"""`python -m kubebraid`: the command line."""

from kubebraid.command.cli import main

main()
