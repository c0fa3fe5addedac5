"""A server that stood still: once it answers a question as things were before, until it hears of its successor."""

from __future__ import annotations

from typing import Any

import msgspec

from deltalog import Connection
from deltalog.jetstream.connection import JetStreamRefused


class StoodStill:
    """Answers questions over one connection as they were answered at the time of `note`; `told` counts such answers.

    A real one does so after SIGSTOP and SIGCONT, in a cluster that has another leader meanwhile; which question it then
    gets to answer before it hears of that is chance.
    """

    def __init__(self, connection: Connection) -> None:
        self.told = 0
        self._api = connection.api
        self._held: dict[tuple[str, bytes], list[msgspec.Raw | JetStreamRefused]] = {}
        connection.api = self._answer  # type: ignore[method-assign]

    async def note(self, verb: str, request: object = None, *, times: int = 1) -> None:
        """The next so many times the question is answered as it is answered now."""
        answer: msgspec.Raw | JetStreamRefused
        try:
            answer = await self._api(verb, request)
        except JetStreamRefused as refused:
            answer = refused
        self._held[verb, msgspec.json.encode(request)] = [answer] * times

    async def _answer(self, verb: str, request: object = None, *given: Any, **options: Any) -> msgspec.Raw:
        if held := self._held.get((verb, msgspec.json.encode(request))):
            self.told += 1
            answer = held.pop()
            if isinstance(answer, JetStreamRefused):
                raise answer
            return answer
        return await self._api(verb, request, *given, **options)
