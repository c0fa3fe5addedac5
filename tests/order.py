"""The order of tests: `--shuffle SEED` shuffles those within each file, and says the seed; files keep their order.

pytest-randomly shuffles files, too: what takes longest would begin last (see the lanes of the Makefile).
"""

from __future__ import annotations

import random
from pathlib import Path

import pytest

# A seed that is chosen by the plugin's user once for all workers of xdist: they have to agree on the order.
_OPTION = "--shuffle"


def add_option(parser: pytest.Parser) -> None:
    parser.addoption(_OPTION, metavar="SEED", help="shuffles the tests within each file")


def header(config: pytest.Config) -> str | None:
    seed = config.getoption(_OPTION)
    return None if seed is None else f"order within files: --shuffle {seed}"


def shuffle(config: pytest.Config, items: list[pytest.Item]) -> None:
    """The same order for the same seed, whichever other files are chosen."""
    seed = config.getoption(_OPTION)
    if seed is None:
        return
    by_file: dict[Path, list[pytest.Item]] = {}
    for item in items:
        by_file.setdefault(item.path, []).append(item)
    for file, of_file in by_file.items():
        random.Random(f"{seed} {file.name}").shuffle(of_file)
    items[:] = [item for of_file in by_file.values() for item in of_file]
