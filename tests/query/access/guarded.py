"""A guarded service over a store that a test writes by hand: two clusters with roles of their own."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Callable
from functools import partial
from typing import Any

import msgspec
from aiohttp import ClientSession, web
from aiohttp.test_utils import TestServer

from deltalog.wire.subjects import CLUSTER, SYNCED, TYPE
from materializer.materializer import Materializer
from query.access.authorization.attributes import Attributes
from query.access.authorization.chain import Authorizer, Chain
from query.access.authorization.members import MembersRbac
from query.access.gate import Caller, Gate, namespaced
from query.entrance import Entrance
from query.forward.forwarding import Upstreams
from query.identity import Identity
from query.service import QueryService
from tests.materializer.conftest import made_control, made_delta
from tests.query.scene import QUICK, Answers, away

RBAC = "rbac.authorization.k8s.io"
KINDS = {
    ("", "pods"): ("Pod", True),
    ("", "namespaces"): ("Namespace", False),
    ("apps", "replicasets"): ("ReplicaSet", True),
    (RBAC, "roles"): ("Role", True),
    (RBAC, "rolebindings"): ("RoleBinding", True),
    (RBAC, "clusterroles"): ("ClusterRole", False),
    (RBAC, "clusterrolebindings"): ("ClusterRoleBinding", False),
}
READ = ["get", "list", "watch"]


class ByHeader:
    """Says who asks by a header of tests: a name, and groups behind commas."""

    async def caller(self, http: web.Request, cluster: str | None, what: Attributes) -> Caller:
        name, *groups = http.headers.get("X-Test-User", "system:anonymous").split(",")
        return Caller(Identity(name, groups=tuple(groups)).authenticated())


class World:
    """Clusters, their objects and their rules."""

    def __init__(self, *clusters: str) -> None:
        self.materializer = Materializer(away("abcdefgh"))
        self.index = 0
        self._versions: dict[tuple[str, ...], int] = {}
        for cluster in clusters:
            self.add(cluster)
        self.store.finish_loading(0)
        self.store.window.open(self.index)
        self.materializer.ready.set()

    @property
    def store(self) -> Any:
        return self.materializer.store

    def add(self, cluster: str, *, synced: bool = True) -> None:
        for (group, resource), (kind, spaced) in KINDS.items():
            self.control(TYPE, cluster, resource, group, data={"kind": kind, "version": "v1", "namespaced": spaced})
        self.control(CLUSTER, cluster, data={"version": {"major": "1"}})
        if synced:
            self.sync(cluster)

    def sync(self, cluster: str) -> None:
        for group, resource in KINDS:
            self.control(SYNCED, cluster, resource, group, data={"version": "1"})

    def control(self, record: str, cluster: str, resource: str = "", group: str = "", **given: Any) -> None:
        self.index += 1
        self.store.apply_control(made_control(record, cluster, group, resource, **given), self.index, 0)

    def put(self, cluster: str, resource: str, name: str, namespace: str = "", group: str = "", **body: Any) -> None:
        """An object as it is now; `delete` with `gone=True`."""
        gone = body.pop("gone", False)
        place = (cluster, group, resource, namespace, name)
        before = self._versions.get(place, 0)
        self._versions[place] = self.index + 1
        delta = made_delta(
            name,
            "DELETED" if gone else "MODIFIED" if before else "ADDED",
            uid=f"{cluster}-{namespace}-{name}",
            member_version=str(self.index + 1),
            cluster=cluster,
            group=group,
            resource=resource,
            namespace=namespace,
            kind=KINDS[group, resource][0],
            **{key: body.pop(key) for key in ("controller_uid",) if key in body},
        )
        if body:
            head = json.loads(delta.object)
            head.pop("spec", None)
            inner = json.dumps({**head, **body}, separators=(",", ":")).encode()
            # Where the metadata ends stays where it was.
            delta = msgspec.structs.replace(delta, object=inner)
        self.index += 1
        self.store.apply_delta(delta, self.index, 0)
        self.materializer._waiting.schedule_flush()

    def pod(self, cluster: str, namespace: str, name: str, **body: Any) -> None:
        self.put(cluster, "pods", name, namespace, **body)

    def cluster_role(self, cluster: str, name: str, *rules: dict[str, Any], to: str = "") -> None:
        """A ClusterRole, bound as a whole to `user:jane` or `group:dev`."""
        self.put(cluster, "clusterroles", name, group=RBAC, rules=list(rules))
        if to:
            self.put(
                cluster,
                "clusterrolebindings",
                name,
                group=RBAC,
                roleRef={"apiGroup": RBAC, "kind": "ClusterRole", "name": name},
                subjects=[subject(to)],
            )

    def bind(self, cluster: str, namespace: str, role: str, to: str, *, gone: bool = False) -> None:
        """A ClusterRole bound within one namespace."""
        self.put(
            cluster,
            "rolebindings",
            f"{role}-{to.replace(':', '-')}",
            namespace,
            group=RBAC,
            roleRef={"apiGroup": RBAC, "kind": "ClusterRole", "name": role},
            subjects=[subject(to)],
            gone=gone,
        )

    def members(self) -> MembersRbac:
        return MembersRbac(self.materializer, stale_after=float("inf"))

    @contextlib.asynccontextmanager
    async def serving(
        self, *authorizers: Authorizer, upstreams: Upstreams | None = None
    ) -> AsyncIterator[Callable[..., Answers]]:
        """The guarded service by HTTP, as whom is said: `as_user("jane", "dev")`."""
        members = self.members()
        gate = Gate(
            lambda: self.store.clusters.keys(),
            ByHeader(),
            Chain(authorizers or (members,)),
            namespaced=partial(namespaced, self.materializer),
            members_decide=not authorizers,
            settle=0.01,
        )
        service = QueryService(
            self.materializer, "test", upstreams=upstreams, timing=QUICK, entrance=Entrance(gate=gate)
        )
        tasks = [asyncio.create_task(gate.run()), asyncio.create_task(members.run())]
        try:
            async with TestServer(service.application()) as server, contextlib.AsyncExitStack() as stack:
                url = str(server.make_url("/")).rstrip("/")
                sessions: dict[str, Answers] = {}

                async def made(who: str) -> None:
                    session = await stack.enter_async_context(ClientSession(headers={"X-Test-User": who}))
                    sessions[who] = Answers(session, url)

                for who in USERS:
                    await made(who)

                def as_user(*who: str) -> Answers:
                    return sessions[",".join(who)]

                yield as_user
                service.close()
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)


# As whom tests ask.
USERS = ("jane", "jane,dev", "root,system:masters", "mallory", "system:anonymous")


def subject(text: str) -> dict[str, str]:
    kind, _, name = text.partition(":")
    return {"kind": kind.capitalize(), "name": name, "apiGroup": RBAC}


def rule(*resources: str, verbs: list[str] = READ, groups: tuple[str, ...] = ("",), **more: Any) -> dict[str, Any]:
    return {"verbs": verbs, "apiGroups": list(groups), "resources": list(resources), **more}


DISCOVERY = {"verbs": ["get"], "nonResourceURLs": ["/api", "/api/*", "/apis", "/apis/*", "/openapi*", "/version"]}
