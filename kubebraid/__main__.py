"""`python -m kubebraid`, and the command `kubebraid`: the command line."""

from kubebraid.loading import loading

with loading():
    from kubebraid.command.cli import main

if __name__ == "__main__":
    main()
