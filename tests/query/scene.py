"""A store of one type that a test writes by hand, and what asks it: requests as values, or a whole service by HTTP."""

from __future__ import annotations

import contextlib
import json
from collections.abc import AsyncIterator, Iterable
from typing import Any

from aiohttp import ClientSession
from aiohttp.test_utils import TestServer, make_mocked_request

from deltalog import Log
from deltalog.wire.subjects import CLUSTER, SYNCED, TYPE
from materializer.filter import Filter
from materializer.materializer import Materializer
from materializer.store import Store
from query.discovery.catalogue import Catalogue, ServedType
from query.discovery.followed import Followed
from query.discovery.paths import RequestTarget
from query.forward.forwarding import Upstreams
from query.http.accept import OBJECTS
from query.http.request import Request
from query.objects.consistency import Consistency
from query.objects.options import parse_options
from query.objects.representations import encoder_for
from query.objects.requests import CollectionRequest
from query.objects.versions import seen_versions_of, versions_for
from query.search.collections import ResourceCollection, with_configured
from query.search.terms import Search
from query.service import QueryService
from query.timing import QueryTiming
from tests.materializer.conftest import made_control, made_delta, with_body

TARGET = RequestTarget("", "v1", "pods")
QUICK = QueryTiming(version_wait=0.01)


def away(prefix: str) -> Log:
    return Log.unreached("nats://127.0.0.1:1", "log", created="2026", prefix=prefix, tombstone_ttl=60)


class Answers:
    """What a service answers to GETs."""

    def __init__(self, session: ClientSession, url: str) -> None:
        self.session = session
        self.url = url

    async def text(self, path: str, accept: str = "application/json", **headers: str) -> tuple[int, bytes]:
        """Status and body."""
        async with self.session.get(self.url + path, headers={"Accept": accept, **headers}) as answer:
            return answer.status, await answer.read()

    async def json(self, path: str, accept: str = "application/json", *, code: int = 200) -> Any:
        """The body; the status must be `code`."""
        status, body = await self.text(path, accept)
        assert status == code, body
        return json.loads(body)

    async def events(self, path: str, accept: str = "application/json") -> list[dict[str, Any]]:
        """The events of a watch that ends."""
        status, body = await self.text(path, accept)
        assert status == 200, body
        return [json.loads(line) for line in body.splitlines()]


class Scene:
    """A store of one type, written by hand; the log itself is away."""

    def __init__(self) -> None:
        self.materializer = Materializer(away("abcdefgh"))
        self.index = 0
        for cluster in ("alpha", "bravo"):
            self.control(TYPE, cluster, "pods", data={"kind": "Pod", "version": "v1", "namespaced": True})
            self.control(CLUSTER, cluster, data={"version": {"major": "1"}})
            self.control(SYNCED, cluster, "pods", data={"version": "1"})
        self.store.finish_loading(0)
        self.store.window.open(self.index)
        self.materializer.ready.set()
        self.consistency = Consistency(self.materializer, QUICK)

    @property
    def store(self) -> Store:
        return self.materializer.store

    def control(self, record: str, cluster: str, resource: str = "", group: str = "", **given: Any) -> None:
        self.index += 1
        self.store.apply_control(made_control(record, cluster, group, resource, **given), self.index, 0)

    def delta(self, name: str, *arguments: Any, **given: Any) -> int:
        self.index += 1
        self.store.apply_delta(made_delta(name, *arguments, **given), self.index, 0)
        return self.index

    def put(self, name: str, body: dict[str, Any], *arguments: Any, **given: Any) -> int:
        """A state of an object with a body: what it has beside its metadata."""
        self.index += 1
        self.store.apply_delta(with_body(made_delta(name, *arguments, **given), body), self.index, 0)
        return self.index

    def tell(self) -> None:
        """Wakes who waits for what was written, as behind messages of a log."""
        self.materializer._waiting.schedule_flush()

    def replace(self) -> None:
        """Another history takes the place of this one."""
        served = self.materializer._served
        served.log = away("ijklmnop")
        served.begin_anew()
        served.ready.set()

    def custom(self, resource: str, kind: str, version: str = "v1", **given: Any) -> None:
        """A type that a CustomResourceDefinition defines, of cluster alpha."""
        data = {"kind": kind, "version": version, "namespaced": True, "custom": True, **given}
        self.control(TYPE, "alpha", resource, "sea.example.io", data=data)

    @contextlib.asynccontextmanager
    async def serving(
        self, upstreams: Upstreams | None = None, collections: Iterable[ResourceCollection] = ()
    ) -> AsyncIterator[Answers]:
        """The whole service by HTTP. `upstreams`: where requests for one cluster are passed on to.

        `collections`: those of the configuration.
        """
        service = QueryService(
            self.materializer, "test", upstreams=upstreams, timing=QUICK, collections=with_configured(collections)
        )
        async with TestServer(service.application()) as server, ClientSession() as session:
            yield Answers(session, str(server.make_url("/")).rstrip("/"))
            service.close()

    @property
    def served(self) -> ServedType:
        served = Catalogue(list(self.store.clusters.values())).find("", "v1", "pods")
        assert served is not None
        return served

    def request(self, **query: str) -> Request:
        text = "&".join(f"{name}={value}" for name, value in query.items())
        return Request(make_mocked_request("GET", f"/api/v1/pods?{text}"))

    def asked(self, request: Request, **given: Any) -> CollectionRequest:
        options = parse_options(request.http.query, watch=given.pop("watch", False))
        versions = versions_for(self.materializer, request)
        fixed: dict[str, Any] = {
            "key": self.served.resource,
            "options": options,
            "member_versions": seen_versions_of(options.version, request),
            "selection": Filter(),
            "search": Search(),
            "encoder": encoder_for(request, TARGET, self.served, OBJECTS, versions),
            "followed": Followed(lambda: self.served, "v1"),
        }
        return CollectionRequest(**(fixed | given))
