"""The golden lines, as values."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import pytest

DIRECTORY = Path(__file__).parent


class Line(dict[str, Any]):
    """One line of a file in wire1/; its keys are those of README.md."""

    @property
    def payload(self) -> bytes:
        return base64.b64decode(self["payload"])

    @property
    def decoded(self) -> Any:
        """What the payload holds, binary data as bytes."""
        return _values(self["decoded"])


def _values(readable: Any) -> Any:
    if isinstance(readable, list):
        return [_values(one) for one in readable]
    if not isinstance(readable, dict):
        return readable
    if list(readable) == ["text"]:
        return readable["text"].encode()
    if list(readable) == ["base64"]:
        return base64.b64decode(readable["base64"])
    return {key: _values(value) for key, value in readable.items()}


def lines(name: str) -> list[Line]:
    """The lines of `wire1/<name>.jsonl`, and of what later releases added: `wire1/<name>-<release>.jsonl`."""
    found: list[Line] = []
    for path in (DIRECTORY / "wire1" / f"{name}.jsonl", *sorted((DIRECTORY / "wire1").glob(f"{name}-*.jsonl"))):
        with path.open(encoding="utf-8") as file:
            found.extend(Line(json.loads(line)) for line in file)
    return found


def each(name: str) -> pytest.MarkDecorator:
    """Runs a test for each line of a file, as its parameter `line`."""
    return pytest.mark.parametrize("line", [pytest.param(line, id=line["case"]) for line in lines(name)])
