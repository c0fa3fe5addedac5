"""Whatever is sent, the answer is a Status object and never a 500."""

from __future__ import annotations

import json
import random
from typing import Any

import pytest

from tests.simulation.conftest import Client

PATHS = (
    "/api/v1/namespaces/default/configmaps",
    "/api/v1/namespaces/default/configmaps/a",
    "/api/v1/namespaces/default/pods",
    "/api/v1/namespaces/default/pods/a",
    "/api/v1/namespaces/default/pods/a/status",
    "/api/v1/namespaces/default/pods/a/log",
    "/api/v1/namespaces/default/services/a",
    "/api/v1/namespaces/default/services",
    "/api/v1/namespaces",
    "/api/v1/namespaces/x/finalize",
    "/apis/apps/v1/namespaces/default/deployments",
    "/apis/apps/v1/namespaces/default/deployments/a",
    "/apis/apps/v1/namespaces/default/deployments/a/scale",
    "/apis/certs.example.io/v1/namespaces/default/certificates",
    "/apis/certs.example.io/v1/namespaces/default/certificates/a",
    "/apis/apiextensions.k8s.io/v1/customresourcedefinitions",
    "/apis/apiextensions.k8s.io/v1/customresourcedefinitions/as.b.c",
    "/api/v1/%2e%2e/%00/%ff",
    "/apis//v1",
    "/api/v1/namespaces//pods",
    "/openapi/v3/apis/x/y",
    "/_simulation/faults",
)
WORDS = (
    "metadata",
    "name",
    "namespace",
    "labels",
    "annotations",
    "ownerReferences",
    "uid",
    "resourceVersion",
    "generateName",
    "finalizers",
    "spec",
    "status",
    "replicas",
    "template",
    "containers",
    "kind",
    "apiVersion",
    "group",
    "names",
    "plural",
    "versions",
    "served",
    "storage",
    "scope",
    "schema",
    "managedFields",
    "conditions",
    "type",
    "nodeName",
    "podIPs",
    "op",
    "path",
    "value",
    "from",
    "test",
    "add",
    "remove",
    "/spec/a",
    "/metadata/name",
    "a",
    "b",
    "ConfigMap",
    "Pod",
    "Deployment",
    "Certificate",
    "v1",
    "apps/v1",
    "certs.example.io/v1",
    "$patch",
    "delete",
    "propagationPolicy",
    "selector",
    "matchLabels",
    "data",
    "preconditions",
    "gracePeriodSeconds",
    "creationTimestamp",
    "deletionTimestamp",
    "generation",
)
SCALARS: tuple[Any, ...] = (None, True, False, 0, -1, 2**63, 2**70, 1.5, "", "a", "é\x00", "x" * 300, [], {}, "\ud800")
CONTENT = (
    "application/json",
    "application/yaml",
    "application/json-patch+json",
    "application/merge-patch+json",
    "application/strategic-merge-patch+json",
    "application/apply-patch+yaml",
    "application/vnd.kubernetes.protobuf",
    "text/odd; charset=none",
)
QUERIES = (
    ("resourceVersion", ("0", "1", "abc", "-1", "9" * 30, "٣")),
    ("resourceVersionMatch", ("Exact", "NotOlderThan", "x")),
    ("limit", ("1", "-5", "x", "99999999999999999999", "²")),
    ("continue", ("x", "e30", "eyJ2IjoibWV0YS5rOHMuaW8vdjEiLCJydiI6MSwic3RhcnQiOiJhXHUwMDAwIn0", "é")),
    ("labelSelector", ("a", "a in (", "!", "a=b,,", "a>x", "((", "é=1", "a notin ()", ",")),
    ("fieldSelector", ("metadata.name=a", "x", "=", "a=b", "metadata.name!=\\,")),
    ("timeoutSeconds", ("1", "-1", "x")),
    ("watch", ("0",)),
    ("dryRun", ("All", "x")),
    ("fieldManager", ("me", "")),
    ("includeObject", ("None", "Object", "x")),
    ("propagationPolicy", ("Orphan", "Foreground", "x")),
    ("gracePeriodSeconds", ("0", "x", "-1")),
    ("tailLines", ("0", "²")),
)
ACCEPTS = (
    "application/json",
    "*/*",
    "",
    "text/html",
    ";;;",
    "application/json;as=Table;v=v1;g=meta.k8s.io",
    "application/json;as=PartialObjectMetadata;v=v1;g=meta.k8s.io",
    "application/json;as=PartialObjectMetadataList;v=v1;g=meta.k8s.io",
    "application/json;as",
)


class Fuzz:
    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)

    def value(self, depth: int = 0) -> Any:
        drawn = self.random.random()
        if depth > 4 or drawn < 0.35:
            return self.random.choice((*SCALARS, *WORDS))
        if drawn < 0.55:
            return [self.value(depth + 1) for _ in range(self.random.randint(0, 3))]
        return {self.random.choice(WORDS): self.value(depth + 1) for _ in range(self.random.randint(0, 4))}

    def method_and_path(self) -> tuple[str, str]:
        path = self.random.choice(PATHS)
        if self.random.random() < 0.15:
            return self.random.choice(("GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "HEAD")), path
        whole = path.rpartition("/")[2] in (
            "configmaps",
            "pods",
            "services",
            "namespaces",
            "deployments",
        ) or path[-5:] in ("cates", "tions")
        methods = ("GET", "POST", "POST", "DELETE") if whole else ("GET", "PUT", "PATCH", "PATCH", "PATCH", "DELETE")
        return self.random.choice(methods), path

    def headers(self, method: str) -> dict[str, str]:
        content, accept = self.random.choice(CONTENT), self.random.choice(ACCEPTS)
        if self.random.random() < 0.8:
            content = self.random.choice(CONTENT[2:6]) if method == "PATCH" else CONTENT[self.random.random() < 0.2]
        if self.random.random() < 0.8:
            accept = self.random.choice(ACCEPTS[:3])
        return {"Content-Type": content, "Accept": accept, "Accept-Encoding": "identity"}

    def body(self) -> bytes:
        drawn = self.random.random()
        if drawn < 0.05:
            return self.random.randbytes(20)
        if drawn < 0.08:
            return b"[" * 5000
        value = self.value()
        if drawn < 0.7:
            metadata = {"name": self.random.choice(("a", "b", "as.b.c"))}
            if self.random.random() < 0.5:
                metadata[self.random.choice(WORDS)] = self.value(2)
            value = {"metadata": metadata, self.random.choice(WORDS): self.value(1), "spec": self.value(1)}
        return json.dumps(value).encode()


@pytest.mark.slow
async def test_nothing_makes_a_500(client: Client, caplog: pytest.LogCaptureFixture) -> None:
    fuzz = Fuzz(7)
    seen = set()
    await client.create("/api/v1/namespaces/default/pods", {"metadata": {"name": "a"}, "spec": {}})
    await client.create("/apis/apps/v1/namespaces/default/deployments", {"metadata": {"name": "a"}})
    for number in range(900):
        method, path = fuzz.method_and_path()
        params = {}
        for _ in range(fuzz.random.randint(0, 2)):
            name, values = fuzz.random.choice(QUERIES)
            params[name] = fuzz.random.choice(values)
        headers = fuzz.headers(method)
        body = fuzz.body() if method in ("POST", "PUT", "PATCH", "DELETE") else None
        if path.startswith("/_simulation"):
            body = None
        status, answer = await client.request(method, path, body, params=params, headers=headers)
        seen.add(status)
        assert status < 500 or (status == 504), (number, method, path, params, headers, body, answer)
        if status >= 400 and method != "HEAD":
            assert (answer["kind"], answer["code"]) == ("Status", status)
    client.cluster.storage.check()
    assert {200, 201, 400, 404, 405, 406, 409, 415, 422} <= seen
    assert not [record for record in caplog.records if record.levelname in ("ERROR", "CRITICAL")]
