"""Groups: serving instances behind a router, looked at regularly: which are ready, and what they have."""

from __future__ import annotations

import asyncio
import contextlib
import random
import zlib
from collections.abc import AsyncIterator, Iterable, Iterator, Mapping, Sequence
from typing import Any
from urllib.parse import urlsplit

import aiohttp
import msgspec
import structlog

from kubebraid.route.instance_tls import InstanceTls
from query.http.health import Check, failed, passed, warning
from query.http.passthrough import PassThrough, Upstream, one_line

log = structlog.get_logger("kubebraid.route.groups")

# Seconds between two looks at an instance, for its answer, and to connect to it.
_EVERY = 2.0
ANSWER_PATIENCE = 5.0
CONNECT_PATIENCE = 3.0
# How long the first looks at all instances may take before requests are answered without them, in seconds.
_FIRST = 3.0
# Looks in a row without an answer after which requests do not wait for an instance any more.
_HANGS = 2
_SILENT = "does not answer"
_UNKNOWN = "--proxy-client-cert-file has to be of its --requestheader-client-ca-file"
# Answers of instances that are about to serve.
NOT_YET = frozenset({429, 503})


class InstanceCluster(msgspec.Struct):
    """A cluster as /clusters of an instance tells of it, see `query.discovery.readiness.ClusterReadiness`."""

    name: str
    known: bool = False
    missing: tuple[str, ...] = ()
    stale: str | None = None
    producer: str = ""
    epoch: int = 0
    types: dict[str, dict[str, Any]] = {}


class InstanceDocument(msgspec.Struct):
    """What /clusters of an instance answers."""

    ready: bool
    index: int = 0
    prefix: str = ""
    outage: float | None = None
    clusters: tuple[InstanceCluster, ...] = ()


class Instance:
    """One serving instance.

    `why_not_ready`: why it is not asked now, None if it is. `document`: what it last said, None if it never did.
    """

    def __init__(self, url: str) -> None:
        self.url = url.rstrip("/")
        self.why_not_ready: str | None = "not seen yet"
        self.document: InstanceDocument | None = None
        self.looked = asyncio.Event()
        self._limits: set[asyncio.Timeout] = set()

    @contextlib.asynccontextmanager
    async def asked(self) -> AsyncIterator[None]:
        """While it is being asked: a TimeoutError ends the block if the instance turns out to hang."""
        async with asyncio.timeout(None) as limit:
            self._limits.add(limit)
            try:
                yield
            finally:
                self._limits.discard(limit)

    def leave(self) -> None:
        """Ends what waits for it: a process that hangs, or a host that is gone, would never say so itself."""
        now = asyncio.get_running_loop().time()
        for limit in tuple(self._limits):
            limit.reschedule(now)


class Group:
    """Serving instances of the same log, any of which answers."""

    def __init__(self, name: str, urls: Sequence[str]) -> None:
        self.name = name
        self.instances = [Instance(url) for url in urls]

    @property
    def ready(self) -> bool:
        """Whether any instance is."""
        return any(one.why_not_ready is None for one in self.instances)

    @property
    def document(self) -> InstanceDocument | None:
        """What the group has, as the instance that is furthest said; None if none was ever seen."""
        seen = [(one.why_not_ready is None, one.document) for one in self.instances if one.document is not None]
        return max(seen, key=lambda one: (one[0], one[1].index))[1] if seen else None

    def chosen(self, client: str) -> list[Instance]:
        """The instances in the order to ask them in for a client, by its address. O(n log n).

        The same client asks the same instance first, by rendezvous hashing, as the pages of a list are kept at the
        instance that began it. Instances that are not ready come last.
        """
        ranked = sorted(self.instances, key=lambda one: zlib.crc32(f"{client} {one.url}".encode()))
        ready = [one for one in ranked if one.why_not_ready is None]
        return ready + [one for one in ranked if one.why_not_ready is not None]


class Groups:
    """All groups of a router, looked after while `run` runs.

    `tls`: how instances are connected to over https, None: as the system has it. `itself`: headers that name the
    router, where it has a certificate.
    """

    def __init__(
        self,
        urls: Mapping[str, Sequence[str]],
        pass_through: PassThrough,
        tls: InstanceTls | None = None,
        itself: Iterable[tuple[str, str]] = (),
    ) -> None:
        self._groups = [Group(name, of) for name, of in urls.items()]
        self._pass_through = pass_through
        self._tls = tls
        self._itself = tuple(itself) if tls is not None and tls.identified else ()

    def __iter__(self) -> Iterator[Group]:
        return iter(self._groups)

    @property
    def ready(self) -> bool:
        """Whether all groups are."""
        return all(group.ready for group in self._groups)

    async def upstream(self, one: Instance, *, named: bool) -> Upstream:
        """Where an instance is asked; `named`: over the router's certificate, as it says who asks."""
        return Upstream(one.url, tls=None if self._tls is None else await self._tls.context(named=named))

    async def run(self) -> None:
        """Looks after the instances until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            for group in self._groups:
                for one in group.instances:
                    tasks.create_task(self._look_after(group, one), name=f"look after {one.url}")

    async def first_looks(self) -> None:
        """Returns when all instances have been looked at once, or that takes too long."""
        looks = [asyncio.ensure_future(one.looked.wait()) for group in self._groups for one in group.instances]
        try:
            await asyncio.wait(looks, timeout=_FIRST)
        finally:
            for look in looks:
                look.cancel()

    async def _look_after(self, group: Group, one: Instance) -> None:
        silent = 0
        while True:
            before = one.why_not_ready
            one.why_not_ready = await self._look(one)
            hangs = one.why_not_ready is not None and one.why_not_ready.startswith(_SILENT)
            silent = silent + 1 if hangs else 0
            if silent >= _HANGS:
                one.leave()
            if one.why_not_ready != before:
                log.info("instance", group=group.name, url=one.url, state=one.why_not_ready or "ready")
            one.looked.set()
            await asyncio.sleep(_EVERY * random.uniform(0.8, 1.2))

    async def _look(self, one: Instance) -> str | None:
        """Why an instance cannot be asked; None if it can."""
        timeout = aiohttp.ClientTimeout(total=ANSWER_PATIENCE, sock_connect=CONNECT_PATIENCE)
        headers = [("Accept", "application/json"), ("Accept-Encoding", "identity"), *self._itself]
        try:
            upstream = await self.upstream(one, named=bool(self._itself))
            async with self._pass_through.session.get(
                f"{one.url}/clusters", timeout=timeout, headers=headers, ssl=upstream.tls or True
            ) as response:
                body = await response.read()
                if response.status in (401, 403):
                    return f"answers {response.status}: {_UNKNOWN}"
                if response.status != 200:
                    return "being started" if response.status in NOT_YET else f"answers {response.status}"
                one.document = msgspec.json.decode(body, type=InstanceDocument)
        except (aiohttp.ClientError, OSError, TimeoutError) as cause:
            return f"{_SILENT}: {one_line(cause)}"
        except (msgspec.MsgspecError, UnicodeDecodeError):
            return "is no kubebraid"
        return None if one.document.ready else "not ready"

    # -- what they have ----------------------------------------------------------------------------------------------

    def clusters(self) -> set[str]:
        """Names of the clusters of all groups."""
        return {cluster.name for _, document in self._seen() for cluster in document.clusters}

    def having(self, cluster: str | None, resource: str | None = None) -> list[Group]:
        """The groups that have a cluster (None: any), and a type in it, written as `deployments.apps` (None: any)."""
        return [group for group, document in self._seen() if clusters_having(document, cluster, resource)]

    def whole(self, resource: str) -> Group | None:
        """The first group that has a type in each cluster in which any has it; None: they share the clusters out.

        Types of access rules are in all groups that are guarded by clusters' own rules.
        """
        having = [(group, clusters_having(document, None, resource)) for group, document in self._seen()]
        everywhere = set[str]().union(*(clusters for _, clusters in having))
        return next((group for group, clusters in having if clusters == everywhere), None)

    def unseen(self) -> list[Group]:
        """The groups none of whose instances was ever seen."""
        return [group for group in self._groups if group.document is None]

    def checks(self) -> list[Check]:
        """What /readyz tells of them."""
        checks = []
        for group in self._groups:
            count = sum(one.why_not_ready is None for one in group.instances)
            text = f"group {group.name}: {count} of {len(group.instances)} ready"
            checks.append(passed(text) if count else failed(text))
            checks += [
                warning(f"{one.url} {one.why_not_ready}") for one in group.instances if one.why_not_ready is not None
            ]
        return checks

    def document(self) -> dict[str, Any]:
        """What an instance that had all of it would answer for /clusters, and each group's position."""
        return merged_documents(list(self._seen()), ready=self.ready)

    def _seen(self) -> Iterator[tuple[Group, InstanceDocument]]:
        for group in self._groups:
            if (document := group.document) is not None:
                yield group, document


def clusters_having(document: InstanceDocument, cluster: str | None, resource: str | None) -> set[str]:
    """The clusters of a document, or the one of this name, that have a type (None: any)."""
    return {
        one.name
        for one in document.clusters
        if cluster in (None, one.name) and (resource is None or resource in one.types)
    }


def merged_documents(
    seen: Sequence[tuple[Group, InstanceDocument]], *, ready: bool, told: bool = True
) -> dict[str, Any]:
    """What an instance that had all of it would answer for /clusters.

    `told`: also where each group is in its log.
    """
    clusters: dict[str, dict[str, Any]] = {}
    for _, document in seen:
        for one in document.clusters:
            known = clusters.setdefault(one.name, {**msgspec.to_builtins(one), "types": {}, "missing": []})
            known["types"].update(one.types)
            known["missing"] += one.missing
            known["stale"] = known["stale"] or one.stale
            known["known"] = known["known"] and one.known
    groups = {group.name: {"index": of.index, "prefix": of.prefix, "ready": group.ready} for group, of in seen}
    return {
        "ready": ready,
        "outage": max((of.outage for _, of in seen if of.outage is not None), default=None),
        "index": max((of.index for _, of in seen), default=0),
        "prefix": "",
        **({"groups": groups} if told else {}),
        "clusters": [clusters[name] for name in sorted(clusters)],
    }


def parse_groups(texts: Iterable[str]) -> dict[str, list[str]]:
    """The URLs of groups, each given as NAME=URL[,URL...].

    `pods=http://10.0.0.1:8001,http://10.0.0.2:8001` is the group `pods` of two instances.

    Raises:
        ValueError: one is written otherwise, or given twice; the message says how to write it.
    """
    groups: dict[str, list[str]] = {}
    for text in texts:
        name, equals, urls = text.partition("=")
        found = [url.strip() for url in urls.split(",") if url.strip()]
        if not equals or not name or not found:
            raise ValueError(f"{text!r}: write NAME=URL[,URL...], as in pods=http://10.0.0.1:8001,http://10.0.0.2:8001")
        for url in found:
            try:
                parts = urlsplit(url)
                good = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
            except ValueError:
                good = False
            if not good:
                raise ValueError(f"{url!r} is no URL of an instance, as in http://10.0.0.1:8001")
        if name in groups:
            raise ValueError(f"group {name!r} is there twice: write all its URLs at once, with commas")
        groups[name] = found
    return groups
