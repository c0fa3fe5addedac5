"""Odd objects: those of one type that the log cannot have as they are: left out, or mended, each by its name."""

from __future__ import annotations

import re

from deltalog.wire.kubernetes import ObjectKey, object_name
from producers.follow.nothing import NOTHING

LEFT_OUT = "left out: "
MENDED = "mended: a text in it had half a surrogate pair, or bytes that are no UTF-8"

# Objects that are held by name; beyond them it is only counted how many there are.
_HELD = 1000
# Of which the status says what is the matter; characters of a name there.
_SHOWN = 3
_LONGEST = 200
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")


class OddObjects:
    """What is the matter with objects of one type, by name; none with nearly all. Owned by the writer."""

    __slots__ = ("_noted", "_reasons")

    def __init__(self) -> None:
        self._reasons: dict[ObjectKey, str] = NOTHING
        # Those that were noted since a list began.
        self._noted: dict[ObjectKey, None] = NOTHING

    def __bool__(self) -> bool:
        return bool(self._reasons)

    def __len__(self) -> int:
        return len(self._reasons)

    def note(self, key: ObjectKey, reason: str) -> bool:
        """An object is odd; whether that is to be said, as it was not before."""
        self._noted = self._noted or {}
        self._noted[key] = None
        if self._reasons.get(key) == reason:
            return False
        if key in self._reasons or len(self._reasons) < _HELD:
            self._reasons = self._reasons or {}
            self._reasons[key] = reason
        return True

    def well(self, key: ObjectKey) -> None:
        """An object is as it should be, or gone."""
        self._reasons.pop(key, None)

    def left_out(self, key: ObjectKey) -> str:
        """Why an object is left out; empty: it is not."""
        reason = self._reasons.get(key, "")
        return reason if reason.startswith(LEFT_OUT) else ""

    def begin_list(self) -> None:
        """A list begins."""
        self._noted.clear()

    def end_list(self) -> None:
        """It is complete: what was not noted since it began is well, or gone."""
        for key in self._reasons.keys() - self._noted.keys():
            del self._reasons[key]

    def lines(self) -> tuple[str, ...]:
        """What is the matter, of a few of them: `shop/cart: left out: ...`."""
        some = sorted(self._reasons.items())[:_SHOWN]
        return tuple(f"{shown(key)}: {reason}" for key, reason in some)


def shown(key: ObjectKey) -> str:
    """An object's name with its namespace, as messages have it; not more of it than a line has room for."""
    text = "/".join(filter(None, object_name(key)))
    return _CONTROL.sub("?", text if len(text) <= _LONGEST else f"{text[:_LONGEST]}...")
