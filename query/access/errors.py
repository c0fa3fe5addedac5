"""The errors of access: what an operator has to correct, what a client is refused for, what does not answer."""

from __future__ import annotations

from collections.abc import Iterable

from query.errors import QueryError, UnusableSetting


class AccessError(QueryError):
    """Something about who asks, or about what they may do, that did not go as it should; one line that says why."""


class BadAccessFile(AccessError, UnusableSetting):
    """A file that says who may ask or see what cannot be used.

    One line: the file, the path of the field in it, and what to write instead. Never a token, a key or a password.
    `field`: that path, as `jwt[0].issuer.url`; "" while it is not known, or of the file as a whole.
    """

    def __init__(self, text: str, field: str = "") -> None:
        super().__init__(f"{field}: {text}" if field else text)
        self.text, self.field = text, field

    def below(self, field: str) -> BadAccessFile:
        """The same of a field that is below another one."""
        dot = "." if self.field and not self.field.startswith("[") else ""
        return BadAccessFile(self.text, f"{field}{dot}{self.field}")


class AccessUnavailable(AccessError):
    """A server that is asked about a token or about access does not answer, or not as it should; it may pass."""


def aggregate(errors: Iterable[str]) -> str:
    """Several errors as one text, equal ones once; "" for none (apimachinery pkg/util/errors: Aggregate.Error)."""
    unique = list(dict.fromkeys(error for error in errors if error))
    return unique[0] if len(unique) == 1 else f"[{', '.join(unique)}]" if unique else ""
