"""Supervision: work of a member that fails with what nothing in it expects ends that work alone, and is begun again.

What is expected has a type of ours (`producers.errors`, `deltalog.wire.errors`) and is handled where it occurs. All
else is a mistake, of ours or of a library, that one member brought to light: the others must not feel it.
"""

from __future__ import annotations

import asyncio
import traceback
from collections.abc import Awaitable
from typing import Any, Never, TypeVar

import structlog

from deltalog.jetstream.backoff import Once
from deltalog.wire.errors import DeltalogError
from producers.errors import ProducersError

T = TypeVar("T")

# What reads credentials, and what sends them: the text of an error from there may have one in it.
_SECRETS_AT_HAND = ("producers.kubeconfig", "producers.credentials", "producers.upstream", "producers.members")
# Characters of an error's text.
_LONGEST = 300
CANCELLED = "cancelled by what it waited for"
BY_ITSELF = "ended by itself"


class WorkEnded(ProducersError):
    """Work that has no end has ended, or was cancelled by something it waited for."""


async def endless(work: Awaitable[T]) -> Never:
    """Does work that only its caller ends, by cancelling it. Raises what it raises, and WorkEnded if it ends by itself.

    A library that cancels what it is waited for with would otherwise end a task without a word.
    """
    # As `not_cancelled_within`, which is not called: of what there is very much, a frame more would be felt.
    try:
        await work
    except asyncio.CancelledError:
        if being_cancelled():
            raise
        raise WorkEnded(CANCELLED) from None
    raise WorkEnded(BY_ITSELF)


async def not_cancelled_within(work: Awaitable[T]) -> T:
    """The result of work; WorkEnded where it is cancelled though its task is not."""
    try:
        return await work
    except asyncio.CancelledError:
        if being_cancelled():
            raise
    raise WorkEnded(CANCELLED)


def being_cancelled() -> bool:
    """Whether the task that asks is to end: what fails meanwhile must not keep it from that."""
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0


def reason_of(error: BaseException) -> str:
    """Why work failed, in one line: the text of an error of ours; of any other its type, its place, its text.

    Example: `unexpected KeyError in producers.follow.writer:_observe, line 214: 'uid'`. The text is left out where the
    error may speak of credentials. Of a group it is the first one's.
    """
    error = _first(error)
    if isinstance(error, ProducersError | DeltalogError):
        return _one_line(str(error)) or type(error).__name__
    place = ""
    frames = [frame for frame, _ in traceback.walk_tb(error.__traceback__)]
    names = [str(frame.f_globals.get("__name__", "")) for frame in frames]
    ours = [index for index, name in enumerate(names) if name.startswith(("producers.", "deltalog.", "kubebraid."))]
    if ours:
        at = frames[ours[-1]]
        place = f" in {names[ours[-1]]}:{at.f_code.co_name}, line {_line(error, at)}"
    text = "" if _speaks_of_credentials(names) else _one_line(str(error))
    return f"unexpected {type(error).__name__}{place}{': ' if text else ''}{text}"


def traceback_of(error: BaseException) -> str:
    """An error's traceback; without the texts of errors where these may speak of credentials."""
    shown: list[str] = []
    seen: set[int] = set()
    following: BaseException | None = _first(error)
    while following is not None and id(following) not in seen:
        seen.add(id(following))
        names = [str(frame.f_globals.get("__name__", "")) for frame, _ in traceback.walk_tb(following.__traceback__)]
        text = "" if _speaks_of_credentials(names) else f": {_one_line(str(following))}"
        shown.append("".join(traceback.format_tb(following.__traceback__)) + f"{type(following).__name__}{text}")
        following = following.__cause__ or following.__context__
    return "\n".join(reversed(shown))


def beyond(error: Exception, *expected: type[Exception]) -> Exception | None:
    """What of an error, or of a group of errors, is none of the kinds `expected`; None if all of it is."""
    if isinstance(error, ExceptionGroup):
        _, rest = error.split(expected)
        return rest
    return None if isinstance(error, expected) else error


class Complaints:
    """Logs what a piece of work fails with: each reason once, until it works again; at debug with its traceback.

    `what`: key words of the log line, e.g. `cluster="alpha"`.
    """

    def __init__(self, log: structlog.typing.FilteringBoundLogger, event: str, **what: Any) -> None:
        self._log = log
        self._event = event
        self._what = what
        self._once = Once(self._say)
        self._error: BaseException | None = None

    def __call__(self, error: BaseException) -> str:
        """Logs a failure; returns its reason."""
        reason = reason_of(error)
        self._error = error
        self._once(reason)
        self._error = None
        return reason

    def clear(self) -> None:
        """It works again: the next failure is logged, whatever its reason."""
        self._once.clear()

    def _say(self, reason: str) -> None:
        self._log.error(self._event, reason=reason, **self._what)
        if self._error is not None:
            self._log.debug(self._event, **self._what, exception=traceback_of(self._error))


def _first(error: BaseException) -> BaseException:
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error


def _line(error: BaseException, frame: Any) -> int:
    return next((line for at, line in traceback.walk_tb(error.__traceback__) if at is frame), 0)


def _speaks_of_credentials(modules: list[str]) -> bool:
    return any(name.startswith(_SECRETS_AT_HAND) for name in modules)


def _one_line(text: str) -> str:
    """Without line feeds and what UTF-8 cannot have, and not too long."""
    line = " ".join(text.encode(errors="replace").decode().split())
    return line if len(line) <= _LONGEST else f"{line[:_LONGEST]}..."
