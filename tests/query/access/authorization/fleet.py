"""A fleet: a store of several clusters' roles and bindings that a test writes by hand; the log itself is away."""

from __future__ import annotations

import json
from typing import Any

import msgspec

from deltalog import DELETED
from deltalog.wire.subjects import CLUSTER, SYNCED, TYPE
from materializer.materializer import Materializer
from materializer.store import Store
from query.access.authorization.members import MembersRbac
from query.access.authorization.rbac import GROUP
from tests.materializer.conftest import made_control, made_delta
from tests.query.scene import away

KINDS = {
    "clusterroles": "ClusterRole",
    "roles": "Role",
    "clusterrolebindings": "ClusterRoleBinding",
    "rolebindings": "RoleBinding",
}
READER = {"rules": [{"verbs": ["get", "list"], "apiGroups": [""], "resources": ["pods"]}]}


class Fleet:
    """A store of several clusters' RBAC, written by hand; the log itself is away."""

    def __init__(self, *clusters: str) -> None:
        self.materializer = Materializer(away("abcdefgh"))
        self.index = 0
        self.now = 0.0
        for cluster in clusters:
            self.join(cluster)
        self.store.finish_loading(0)
        self.store.window.open(self.index)
        self.materializer.ready.set()

    @property
    def store(self) -> Store:
        return self.materializer.store

    def join(self, cluster: str, **of_type: Any) -> None:
        for resource, kind in KINDS.items():
            data = {"kind": kind, "version": "v1", "namespaced": not resource.startswith("cluster"), **of_type}
            self.control(TYPE, cluster, resource, data=data)
        self.control(CLUSTER, cluster, data={"version": {"major": "1"}})
        self.sync(cluster)

    def sync(self, cluster: str, *resources: str) -> None:
        for resource in resources or KINDS:
            self.control(SYNCED, cluster, resource, data={"version": "1"})

    def control(self, record: str, cluster: str, resource: str = "", **given: Any) -> None:
        self.index += 1
        time = given.pop("at", self.materializer.log.now())
        group = GROUP if resource else ""
        self.store.apply_control(made_control(record, cluster, group, resource, **given), self.index, time)

    def put(
        self, cluster: str, resource: str, name: str, content: dict[str, Any], namespace: str = "", **given: Any
    ) -> None:
        self.index += 1
        delta = made_delta(
            name,
            cluster=cluster,
            group=GROUP,
            resource=resource,
            namespace=namespace,
            kind=KINDS[resource],
            uid=given.pop("uid", f"{cluster}/{resource}/{namespace}/{name}"),
            member_version=str(self.index),
            **given,
        )
        rest = json.dumps({key: value for key, value in content.items() if key != "metadata"}).encode()[1:]
        delta = msgspec.structs.replace(delta, object=delta.object[: delta.metadata_end] + b"," + rest)
        self.store.apply_delta(delta, self.index, self.materializer.log.now())

    def drop(self, cluster: str, resource: str, name: str, namespace: str = "") -> None:
        self.put(cluster, resource, name, {"rules": []}, namespace, type=DELETED)

    def grant(
        self, cluster: str, name: str, subject: dict[str, str], namespace: str = "", role: str = "reader"
    ) -> None:
        self.put(cluster, "clusterroles", role, READER)
        content = {"roleRef": {"kind": "ClusterRole", "name": role}, "subjects": [subject]}
        self.put(cluster, "rolebindings" if namespace else "clusterrolebindings", name, content, namespace)

    def rbac(self, **given: Any) -> MembersRbac:
        return MembersRbac(self.materializer, clock=lambda: self.now, **given)

    def tell(self) -> None:
        self.materializer._waiting.schedule_flush()
