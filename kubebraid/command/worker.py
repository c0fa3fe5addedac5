"""One process of `kubebraid serve --workers N`: what it is to do comes by its standard input, from its parent."""

from __future__ import annotations

import pickle
import sys

from kubebraid.loading import loading

with loading():
    from kubebraid.command import assembly
    from kubebraid.command.reporting import reporting, run
    from kubebraid.command.settings import Settings
    from kubebraid.command.workers import Worker


def main() -> None:
    """The entry point: `python -m kubebraid.command.worker`."""
    worker: Worker
    settings: Settings
    worker, settings = pickle.load(sys.stdin.buffer)
    serving = assembly.run(settings, produce=False, serve=True, worker=worker)
    reporting(lambda: run(serving, worker.log_level, worker.log_json))


if __name__ == "__main__":
    main()
