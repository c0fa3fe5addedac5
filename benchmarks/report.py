"""Reports: a benchmark's figures as a small table, as lines of ratios, and as data."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

Cell = str | int | float | None


def shown(value: Cell) -> str:
    """A figure with the digits that mean something."""
    if value is None:
        return "-"
    if isinstance(value, str):
        return value
    if isinstance(value, int) or abs(value) >= 1000:
        return f"{round(value):,}"
    return f"{value:.3f}" if abs(value) < 1 else f"{value:.2f}" if abs(value) < 100 else f"{value:.0f}"


@dataclass
class Report:
    """What one benchmark found.

    `failures` are wrong results (an event lost, a delta too many), not slow ones: a machine's noise is no failure.
    """

    name: str
    title: str
    columns: tuple[str, ...]
    rows: list[tuple[Cell, ...]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    ratios: dict[str, float] = field(default_factory=dict)
    verdicts: list[str] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)
    seconds: float = 0.0

    def row(self, *cells: Cell) -> None:
        assert len(cells) == len(self.columns), cells
        self.rows.append(cells)

    def ratio(self, key: str, value: float, text: str, goal: float | None = None) -> None:
        """A line such as `list/json: 0.83 of a bare join`; `goal` is the least it is to reach."""
        self.ratios[key] = round(value, 4)
        judged = "" if goal is None else f" (goal {goal:.2f}: {'reached' if value >= goal else 'missed'})"
        self.verdicts.append(f"{self.name}/{key}: {value:.2f} {text}{judged}")

    def text(self) -> str:
        table = [self.columns, *[tuple(shown(cell) for cell in row) for row in self.rows]]
        widths = [max(len(row[at]) for row in table) for at in range(len(self.columns))]
        lines = [f"{self.name}: {self.title} ({self.seconds:.0f} s)"]
        for row in table:
            cells = [row[0].ljust(widths[0]), *[cell.rjust(width) for cell, width in zip(row, widths, strict=True)][1:]]
            lines.append("  " + "  ".join(cells).rstrip())
        lines += [f"  {note}" for note in self.notes]
        lines += [f"  FAILED: {failure}" for failure in self.failures]
        return "\n".join([*lines, *self.verdicts]) + "\n"

    def data(self) -> dict[str, Any]:
        return {
            "benchmark": self.name,
            "title": self.title,
            "rows": [dict(zip(self.columns, row, strict=True)) for row in self.rows],
            "notes": self.notes,
            "ratios": self.ratios,
            "failures": self.failures,
            "seconds": self.seconds,
        }


def median(values: Sequence[float]) -> float:
    return statistics.median(values) if values else 0.0


def percentile(ordered: Sequence[float], part: float) -> float:
    """The value below which `part` (0 to 1) of the ascending values lie."""
    return ordered[min(int(len(ordered) * part), len(ordered) - 1)] if ordered else 0.0
