"""Definitions of custom types, kept current by a watch: a list of them is megabytes, and seldom says what is new."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable

import msgspec
import structlog

from deltalog.jetstream.backoff import Backoff
from deltalog.wire.delta import UNDECODABLE
from deltalog.wire.kubernetes import GroupResource
from producers.errors import ClusterUnavailable
from producers.flag import Flag
from producers.upstream.apiserver import ApiServer, RequestRefused
from producers.upstream.custom_resources import CRDS, CustomDefinition, custom_definitions, read_definition
from producers.upstream.objects import Unusable, identify
from producers.upstream.watching import Target, Watch, WatchEvent, version_of

log = structlog.get_logger("producers.upstream.definitions")


class Definitions:
    """The custom types of one cluster. One task runs `run`, others ask for `current`.

    `changed` is called when a definition is another one, was added or has gone.
    """

    def __init__(self, server: ApiServer, changed: Callable[[], None]) -> None:
        self._server = server
        self._changed = changed
        # By the names of their objects; None: not followed now, the next question takes a list.
        self._found: dict[str, tuple[GroupResource, CustomDefinition]] | None = None
        self._version = ""
        self._listed = Flag()
        self._watch: Watch | None = None

    @property
    def followed(self) -> bool:
        """Whether they are watched, so that `changed` tells of all changes."""
        return self._found is not None

    async def current(self) -> dict[GroupResource, CustomDefinition]:
        """The definitions by group and plural, by a list where they are not followed; empty where they may not be read.

        Raises ClusterUnavailable, and what is in UNDECODABLE.
        """
        if self._found is None:
            listed = await custom_definitions(self._server)
            if not listed.version:
                return dict(listed.found.values())
            self._found, self._version = listed.found, listed.version
            self._listed.set()
        return dict(self._found.values())

    def forget(self) -> None:
        """The cluster's name leads to another server: versions of the one before mean nothing."""
        self._found, self._version = None, ""
        self._listed.clear()
        if self._watch is not None:
            self._watch.end()

    async def run(self) -> None:
        """Follows what was listed, until cancelled."""
        timing = self._server.timing
        backoff = Backoff(*timing.list_backoff)
        while True:
            await self._listed.wait()
            started = time.monotonic()
            try:
                await self._follow()
            except RequestRefused as refused:
                # The version has expired, or they may be listed only: the next look at the types takes a list.
                if refused.expired or refused.code in (403, 404, 405):
                    self.forget()
                    if refused.expired:
                        self._changed()
                reason = str(refused)
            except ClusterUnavailable as cause:
                reason = str(cause)
            else:
                reason = ""
            if reason:
                log.debug("definitions are not watched", cluster=self._server.access.name, reason=reason)
            if time.monotonic() - started >= timing.stable:
                backoff.reset()
            await backoff.wait()

    async def _follow(self) -> None:
        """One watch, to its end."""
        self._watch = Watch(self._server, Target(CRDS), self._version)
        try:
            async with contextlib.aclosing(self._watch.events()) as events:
                async for event in events:
                    if self._found is None:
                        return
                    self._take_in(event, self._found)
        finally:
            self._watch = None

    def _take_in(self, event: WatchEvent, found: dict[str, tuple[GroupResource, CustomDefinition]]) -> None:
        """Raises BadAnswer."""
        self._version = version_of(event).resource_version or self._version
        if event.type not in ("ADDED", "MODIFIED", "DELETED"):
            return
        try:
            name = identify(event.object).name
        except Unusable:
            return
        before = found.pop(name, None)
        if event.type != "DELETED":
            # One that cannot be read defines nothing.
            with contextlib.suppress(*UNDECODABLE):
                found[name] = read_definition(msgspec.json.encode(event.object))
        if found.get(name) != before:
            self._changed()
