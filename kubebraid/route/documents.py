"""Documents of groups: what their instances answer to a caller, read as a whole, to be put together.

Each is asked for as its caller, and what is remembered of them is that caller's own.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple
from urllib.parse import quote

import aiohttp
import msgspec
from yarl import URL

from kubebraid.errors import KubebraidError
from kubebraid.route.callers import ProxiedCaller
from kubebraid.route.groups import (
    ANSWER_PATIENCE,
    CONNECT_PATIENCE,
    NOT_YET,
    Group,
    Groups,
    InstanceDocument,
)
from kubebraid.route.remembered import DocumentKey, RememberedDocuments
from query.http.passthrough import PassThrough, one_line
from query.http.status import ApiError

_REFUSED = (401, 403)


class InstanceAnswer(NamedTuple):
    """An instance's answer, with its whole body. `live`: whether it was given now, and is not remembered."""

    status: int
    content_type: str
    body: bytes
    live: bool = True


class NotAnswered(KubebraidError):
    """No instance of a group answered; one line that says why, for operators."""


class GroupDocuments:
    """Reads documents of groups. `guarded`: whether instances have to know who asks."""

    def __init__(self, groups: Groups, pass_through: PassThrough, *, guarded: bool) -> None:
        self._groups = groups
        self._pass_through = pass_through
        self._guarded = guarded
        self._remembered = RememberedDocuments()

    async def ask(
        self,
        group: Group,
        caller: ProxiedCaller,
        client: str,
        path: str,
        headers: Iterable[tuple[str, str]],
        *,
        method: str = "GET",
        body: bytes | None = None,
        unless: frozenset[int] = NOT_YET,
    ) -> InstanceAnswer:
        """What the first instance of a group says that can be asked.

        `path`: with its query, encoded. `client`: as for `Group.chosen`. `unless`: answers for which the next one is
        asked. What is asked may be asked twice.

        Raises:
            NotAnswered: none can be.
        """
        timeout = aiohttp.ClientTimeout(total=ANSWER_PATIENCE, sock_connect=CONNECT_PATIENCE)
        # Bodies are read here: as they are.
        sent = [*headers, ("Accept-Encoding", "identity"), *caller.said]
        problem = "it has no instance"
        for one in group.chosen(client):
            upstream = await self._groups.upstream(one, named=caller.named)
            try:
                async with self._pass_through.session.request(
                    method,
                    URL(one.url + path, encoded=True),
                    headers=sent,
                    data=body,
                    timeout=timeout,
                    ssl=upstream.tls or True,
                    allow_redirects=False,
                ) as found:
                    text = await found.read()
                    if found.status not in unless:
                        return InstanceAnswer(found.status, found.headers.get("Content-Type", "application/json"), text)
                    problem = f"{one.url} answers {found.status}"
            except (aiohttp.ClientError, OSError, TimeoutError) as cause:
                problem = f"{one.url}: {one_line(cause)}"
        raise NotAnswered(problem)

    async def of(
        self,
        groups: Sequence[Group],
        caller: ProxiedCaller,
        client: str,
        path: str,
        accept: str,
        headers: Sequence[tuple[str, str]] = (),
    ) -> list[tuple[Group, InstanceAnswer]]:
        """A document of each group that has it and lets the caller have it; of one that is down as it was before.

        `path`: encoded as in a request. Where no group has it: the refusals, or if there are none, the 404s.

        Raises:
            ApiError: 503, a group's is not known.
        """
        quoted = quote(path, safe="/%:@!$&'()*+,;=~")
        asked = await asyncio.gather(*(self._one(group, caller, client, quoted, accept, headers) for group in groups))
        found = [(group, one) for group, one in zip(groups, asked, strict=True) if isinstance(one, InstanceAnswer)]
        refused = [one for one in found if one[1].status in _REFUSED]
        if unknown := [one for one in refused if one[1].status == 401]:
            return unknown
        admitted = any(one.live and one.status not in _REFUSED for _, one in found)
        if self._guarded and refused and not admitted:
            # Who was known when a document was remembered, need not be known any more.
            return refused
        for one in asked:
            if isinstance(one, ApiError):
                raise one
        if self._guarded and not admitted:
            raise ApiError(503, "no instance answers", retry_after=1)
        return [one for one in found if one[1].status == 200] or refused or found

    async def clusters(
        self, groups: Iterable[Group], caller: ProxiedCaller, client: str, headers: Sequence[tuple[str, str]]
    ) -> list[tuple[Group, InstanceAnswer]]:
        """What each group says of its clusters, as `of`."""
        return await self.of(list(groups), caller, client, "/clusters", "application/json", headers)

    async def _one(
        self,
        group: Group,
        caller: ProxiedCaller,
        client: str,
        path: str,
        accept: str,
        headers: Sequence[tuple[str, str]],
    ) -> InstanceAnswer | ApiError:
        """An answer; or, where there is none, not even a remembered one, why."""
        key = DocumentKey(caller.key, group.name, path, accept)
        try:
            answer = await self.ask(group, caller, client, path, [("Accept", accept), *headers])
        except NotAnswered as cause:
            problem = str(cause)
        else:
            if answer.status in (200, 404):
                self._remembered.note(key, answer.status, answer.body)
                return answer
            if answer.status in _REFUSED:
                return answer
            problem = f"an instance answers {answer.status}"
        if (remembered := self._remembered.of(key)) is not None:
            return InstanceAnswer(remembered[0], "application/json", remembered[1], live=False)
        if self._guarded:
            return ApiError(503, "the types of some clusters are not known: no instance answers", retry_after=1)
        return ApiError(503, f"the types of group {group.name} are not known: {problem}", retry_after=1)


def decoded(answers: Iterable[tuple[Group, InstanceAnswer]]) -> list[Any]:
    """Documents as what they say. Raises ApiError 503."""
    try:
        return [msgspec.json.decode(answer.body) for _, answer in answers]
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        raise ApiError(503, "an instance answers with what is no JSON") from None


def instance_documents(answers: Iterable[tuple[Group, InstanceAnswer]]) -> list[tuple[Group, InstanceDocument]]:
    """What those groups that answered say of their clusters. Raises ApiError 503."""
    try:
        return [
            (group, msgspec.json.decode(answer.body, type=InstanceDocument))
            for group, answer in answers
            if answer.status == 200
        ]
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        raise ApiError(503, "an instance says nothing of clusters") from None
