"""Tables of a command's output: columns aligned, one line for each row, however wide."""

from __future__ import annotations

from rich.console import Console
from rich.table import Table
from rich.text import Text

_NUMBERS = ("types", "objects")


def table(*columns: str) -> Table:
    """An empty table; columns of numbers are aligned to the right."""
    made = Table(box=None, pad_edge=False, header_style="bold")
    for column in columns:
        made.add_column(column.upper(), justify="right" if column in _NUMBERS else "left", no_wrap=True)
    return made


def printable(text: str) -> str:
    """Names and reasons are what clusters and their files say: none may move a terminal's cursor, or begin a line."""
    return text if text.isprintable() else text.encode("unicode_escape").decode("ascii")


def row(rows: Table, *cells: str) -> None:
    """Adds a row. Brackets in its cells are no markup."""
    rows.add_row(*(Text(printable(cell)) for cell in cells))


def rendered(rows: Table) -> list[str]:
    """Its lines, without colours."""
    console = Console(width=10_000, color_system=None)
    with console.capture() as captured:
        console.print(rows)
    return [line.rstrip() for line in captured.get().splitlines()]
