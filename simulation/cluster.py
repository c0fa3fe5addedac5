"""A simulated cluster: storage, API, faults and churn behind one port."""

from __future__ import annotations

import asyncio
import ssl
import time
from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path
from typing import Any

import structlog
from aiohttp import web

from simulation.access.guard import Guard
from simulation.access.users import ADMINISTRATOR, ClusterUser
from simulation.aggregation import API_SERVICES, registration
from simulation.api import MAX_BODY, Api
from simulation.churn import Churn
from simulation.content import Variety, populate
from simulation.faults import Faults
from simulation.journal import Journal
from simulation.registry import DeleteOptions, Registry, WriteOptions
from simulation.resources import VERBS, SimulatedType
from simulation.status import bad_request
from simulation.storage import DEFAULT_HISTORY, ClusterStorage
from simulation.times import timestamp, utc_now

__all__ = ["SimulatedCluster", "first_version"]

log = structlog.get_logger(__name__)

# 2025-01-01, from which resourceVersions count, so that they stay readable.
_EPOCH = 1_735_689_600
# More versions than a cluster writes in a second, its first content included.
_VERSIONS_PER_SECOND = 50_000


def first_version(name: str) -> int:
    """A resourceVersion to start from, above all that an earlier run under the same address can have given out.

    It is the time since 2025 in steps of 20 microseconds: no cluster writes faster, so the counter of an earlier
    run cannot have passed it (as long as the clock is not set back). 2026-01-01 is about 1,576,800,000,000. `name`
    shifts it by at most a second, so that clusters started together have different versions.
    """
    shift = sum(name.encode()) * 7919 % _VERSIONS_PER_SECOND
    return int((time.time() - _EPOCH) * _VERSIONS_PER_SECOND) + shift


class SimulatedCluster:
    """One member cluster over real HTTP. As a context manager it is started and stopped.

    `pods` is how many it has at first, `variety` how different from each other (mixed, as in a real cluster, or
    uniform), `churn` how many writes it makes per second. `token` is the bearer token that
    requests need, if any. With `users`, by their bearer tokens, everyone is let in, and may do what the RBAC objects in
    the cluster allow: those as these users, who has `token` as an administrator (system:masters), who has no token as
    system:anonymous; without, who is let in may do everything. With `tls` it is https: clients need `authority`, PEM,
    and are users by their certificates where the context asks for those.

    Port 0 takes a free port and keeps it across `stop` and `start`. `history` is the number of
    events kept per type, `bookmark_interval` the seconds between bookmarks of a watch, `version_wait` those that a read
    waits for a version that is not reached.

    State is in memory, from construction on: `stop` and `start` are an outage of the same cluster, with nothing lost.
    With a directory `state` it also outlives the process: a cluster made from it again has all that it acknowledged
    (see `journal`), and `seed` and `pods` only say what it began with. Without one, a new instance with the same seed
    is such a cluster rebuilt: the same names, new uids, and resourceVersions above all earlier ones. `version` fixes
    the first resourceVersion and with it the uids, for tests that want them equal in each run.
    """

    def __init__(
        self,
        name: str,
        *,
        seed: int = 0,
        pods: int = 0,
        variety: Variety = "mixed",
        churn: float = 0.0,
        host: str = "127.0.0.1",
        port: int = 0,
        token: str = "",
        users: Mapping[str, ClusterUser] | None = None,
        tls: ssl.SSLContext | None = None,
        authority: str = "",
        gzip: bool = True,
        history: int = DEFAULT_HISTORY,
        bookmark_interval: float = 60.0,
        version_wait: float = 3.0,
        version: int | None = None,
        state: Path | None = None,
    ) -> None:
        self.name = name
        self.seed = seed
        self.pods = pods
        self.host = host
        self.port = port
        self.token = token
        self.authority = authority
        self._tls = tls
        own = f"{seed}/{name}"
        start = first_version(name) if version is None else version
        self.storage = ClusterStorage(seed=f"{own}/{start}", first_version=start, history=history)
        self.faults = Faults(seed=own)
        self.registry = Registry(self.storage, now=self._now)
        journal = Journal(state / f"{name}.journal") if state is not None else None
        if journal is not None and journal.exists():
            journal.restore(self.storage)
            self.registry.aggregation.reconcile()
            # With the same seed, churn would generate the names that it generated before.
            own = f"{own}/{start}"
        else:
            populate(self.registry, name=name, pods=pods, seed=own, variety=variety)
        if journal is not None:
            journal.begin(self.storage)
        self.registry.aggregation.away = self.faults.is_away
        self.faults.attach(self._gate, self.storage.compact, self.registry.aggregation.reconcile)
        self.churn = Churn(self.registry, pods=pods, rate=churn, seed=own, variety=variety)
        guard = None
        if users is not None:
            guard = Guard(self.storage, {**users, token: ADMINISTRATOR} if token else users)
        self.api = Api(
            self.registry,
            self.faults,
            token=token,
            guard=guard,
            gzip=gzip,
            bookmark_interval=bookmark_interval,
            version_wait=version_wait,
            seed=own,
            controls={
                "faults": self._control_faults,
                "churn": self._control_churn,
                "compact": self._control_compact,
                "state": self._control_state,
                "apis": self._control_apis,
            },
        )
        self._web: web.Server | None = None
        self._listener: asyncio.Server | None = None

    @property
    def url(self) -> str:
        """Where the API is, as `http://127.0.0.1:40123`, or https. The port is known once the cluster has started."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"http{'s' if self._tls is not None else ''}://{host}:{self.port}"

    async def start(self) -> None:
        """Open the port and start the churn.

        Raises:
            OSError: the port cannot be opened.
        """
        if self._web is None:
            self._web = web.Server(
                self.api.handle,
                request_factory=_request,
                handler_cancellation=True,
                access_log=None,
                keepalive_timeout=3630.0,
            )
        await self._gate(True)
        self.churn.start()
        log.info("simulated cluster started", cluster=self.name, url=self.url, pods=self.pods)

    async def stop(self) -> None:
        """Stop the churn, close the port and break all connections. The state stays."""
        await self.churn.stop()
        await self._gate(False)
        if self._web is not None:
            await self._web.shutdown(timeout=1.0)
            self._web = None

    async def __aenter__(self) -> SimulatedCluster:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()

    async def _gate(self, opened: bool) -> None:
        if opened:
            if self._listener is None and self._web is not None:
                loop = asyncio.get_running_loop()
                self._listener = await loop.create_server(
                    self._web, self.host, self.port, reuse_address=True, backlog=1024, ssl=self._tls
                )
                self.port = self._listener.sockets[0].getsockname()[1]
            return
        if self._listener is not None:
            self._listener.close()
            self._listener = None
        if self._web is not None:
            for connection in list(self._web.connections):
                if connection.transport is not None:
                    connection.transport.abort()

    def _now(self) -> str:
        return timestamp(utc_now() + timedelta(seconds=self.faults.clock))

    # Aggregated APIs

    def aggregate(self, type: SimulatedType) -> None:
        """Serve a type as a server behind an APIService does, and register those of its versions that are not yet."""
        self.registry.aggregation.offered[type.key] = type
        services = self.registry.collection(API_SERVICES)
        for version in type.versions:
            if ("", f"{version}.{type.group}") not in services.objects:
                self.registry.create(services.type, "", registration(type.group, version), WriteOptions())
        self.registry.aggregation.reconcile()

    def retire(self, group: str) -> None:
        """Delete the APIServices of a group. Its objects are kept, and served again once it is registered again."""
        services = self.registry.collection(API_SERVICES)
        for version in self.registry.aggregation.registered().get(group, ()):
            self.registry.delete(services.type, "", f"{version}.{group}", DeleteOptions())

    # /_simulation

    async def _control_faults(self, wanted: Any) -> Any:
        return self.faults.state() if wanted is None else await self.faults.change(wanted)

    async def _control_churn(self, wanted: Any) -> Any:
        if wanted is not None:
            rate, now = (wanted.get("rate"), wanted.get("now", 0)) if isinstance(wanted, dict) else (None, 0)
            if rate is None and now:
                rate = self.churn.rate
            if not isinstance(rate, int | float) or isinstance(rate, bool) or not 0 <= rate <= 100_000:
                raise bad_request("churn: rate is a number from 0 to 100000")
            if not isinstance(now, int) or isinstance(now, bool) or not 0 <= now <= 1000:
                raise bad_request("churn: now is a number of writes up to 1000, to be made at once")
            self.churn.rate = float(rate)
            if now:
                self.churn.step(now)
        return {"rate": self.churn.rate, "writes": self.churn.writes, "counts": dict(self.churn.counts)}

    async def _control_compact(self, wanted: Any) -> Any:
        if wanted is not None:
            self.storage.compact()
        return {"resourceVersion": str(self.storage.version)}

    async def _control_apis(self, wanted: Any) -> Any:
        """Aggregated APIs. A POST names one to serve and register (`group`, `resource`, `kind`, and where they are not
        as usual `versions`, `namespaced`, `verbs`), or in `retire` a group to delete the APIServices of."""
        aggregation = self.registry.aggregation
        if wanted is not None:
            try:
                if "retire" in wanted:
                    self.retire(str(wanted["retire"]))
                else:
                    verbs, versions = wanted.get("verbs", VERBS), wanted.get("versions", ("v1",))
                    self.aggregate(
                        SimulatedType(
                            group=str(wanted["group"]),
                            versions=tuple(map(str, versions)),
                            resource=str(wanted["resource"]),
                            kind=str(wanted["kind"]),
                            namespaced=bool(wanted.get("namespaced", True)),
                            verbs=tuple(map(str, verbs)),
                        )
                    )
            except (KeyError, TypeError, AttributeError) as error:
                raise bad_request(f"apis: group, resource and kind are needed, or retire: {error}") from error
        return {
            "registered": aggregation.registered(),
            "offered": [type.qualified for type in aggregation.offered.values()],
            "unavailable": sorted(
                f"{version}.{group}"
                for group, versions in aggregation.registered().items()
                for version in versions
                if not aggregation.answers(group, version)
            ),
        }

    async def _control_state(self, wanted: Any) -> Any:
        return {
            "name": self.name,
            "resourceVersion": str(self.storage.version),
            "objects": {
                collection.type.qualified: len(collection.objects) for collection in self.storage.collections.values()
            },
        }


def _request(message: Any, payload: Any, protocol: Any, writer: Any, task: Any) -> web.BaseRequest:
    return web.BaseRequest(
        message, payload, protocol, writer, task, asyncio.get_running_loop(), client_max_size=MAX_BODY
    )
