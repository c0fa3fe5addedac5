"""The parts of the API that need no server: paths, bodies, and the scale of an object."""

from __future__ import annotations

from typing import Any

import pytest

from simulation.api.bodies import json_body, object_body, yaml_body
from simulation.api.paths import parse_resource_path, verb_of
from simulation.api.scale import scale_of
from simulation.registry import Registry, WriteOptions
from simulation.resources import BUILT_IN
from simulation.status import StatusError
from simulation.storage import ClusterStorage

CORE = [type for type in BUILT_IN if not type.group]


@pytest.mark.parametrize(
    ("path", "named"),
    [
        ("pods", ("pods", "", "", "")),
        ("namespaces/shop/pods", ("pods", "shop", "", "")),
        ("namespaces/shop/pods/web-0", ("pods", "shop", "web-0", "")),
        ("namespaces/shop/pods/web-0/log", ("pods", "shop", "web-0", "log")),
        ("namespaces/shop", ("namespaces", "", "shop", "")),
        ("namespaces/shop/status", ("namespaces", "", "shop", "status")),
        ("namespaces/shop/finalize", ("namespaces", "", "shop", "finalize")),
        ("nodes/a/status", ("nodes", "", "a", "status")),
    ],
)
def test_what_a_path_names(path: str, named: tuple[str, str, str, str]) -> None:
    found = parse_resource_path(CORE, "v1", path.split("/"))
    assert (found.type.resource, found.namespace, found.name, found.subresource) == named
    assert (found.version, found.watch, found.beyond) == ("v1", False, "")


def test_paths_that_watch_and_that_go_on() -> None:
    watching = parse_resource_path(CORE, "v1", ["watch", "namespaces", "shop", "pods"])
    assert (watching.type.resource, watching.namespace, watching.watch) == ("pods", "shop", True)
    proxied = parse_resource_path(CORE, "v1", ["namespaces", "shop", "services", "web:80", "proxy", "a", "b"])
    assert (proxied.name, proxied.subresource, proxied.beyond) == ("web:80", "proxy", "a/b")


@pytest.mark.parametrize(
    "path",
    ["absent", "pods/web-0", "namespaces/shop/nodes", "namespaces/shop/pods/a/absent", "pods/", "nodes/a/b/c/d"],
)
def test_paths_that_name_nothing(path: str) -> None:
    with pytest.raises(StatusError) as refused:
        parse_resource_path(CORE, "v1", path.split("/"))
    assert refused.value.code == 404


@pytest.mark.parametrize(
    ("method", "path", "query", "verb"),
    [
        ("GET", "pods", {}, "list"),
        ("GET", "pods", {"watch": "1"}, "watch"),
        ("GET", "pods", {"watch": "false"}, "list"),
        ("GET", "watch/pods", {}, "watch"),
        ("GET", "nodes/a", {"watch": "1"}, "get"),
        ("GET", "watch/nodes/a", {}, "watch"),
        ("POST", "nodes", {}, "create"),
        ("DELETE", "nodes", {}, "deletecollection"),
        ("DELETE", "nodes/a", {}, "delete"),
        ("OPTIONS", "nodes", {}, ""),
    ],
)
def test_verbs(method: str, path: str, query: dict[str, Any] | dict[str, str], verb: str) -> None:
    assert verb_of(method, parse_resource_path(CORE, "v1", path.split("/")), query) == verb


def test_yaml_has_the_values_of_json() -> None:
    assert yaml_body("a: 2026-01-31T12:00:00Z\nb: [1, yes]\n") == {"a": "2026-01-31T12:00:00Z", "b": [1, True]}
    for text in ("a: [", "? [1]\n: 2\n", "a: .nan\n---\nb: 1\n"):
        with pytest.raises(StatusError) as refused:
            yaml_body(text)
        assert refused.value.code == 400


def test_bodies_by_content_type() -> None:
    assert object_body("application/json", b'{"a":1}') == {"a": 1}
    assert object_body("application/yaml", b"a: 1") == {"a": 1}
    for content_type, data, code in (
        ("application/json", b"[]", 400),
        ("application/json", b"{", 400),
        ("application/vnd.kubernetes.protobuf", b"k8s\x00", 415),
    ):
        with pytest.raises(StatusError) as refused:
            object_body(content_type, data)
        assert refused.value.code == code
    with pytest.raises(StatusError):
        json_body(b"\xff")


def test_the_scale_of_a_deployment() -> None:
    registry = Registry(ClusterStorage())
    [namespaces] = [type for type in BUILT_IN if type.resource == "namespaces"]
    [deployments] = [type for type in BUILT_IN if type.resource == "deployments"]
    registry.create(namespaces, "", {"metadata": {"name": "shop"}}, WriteOptions())
    spec = {"replicas": 3, "selector": {"matchLabels": {"app": "web", "tier": "a"}}}
    made = registry.create(deployments, "shop", {"metadata": {"name": "web"}, "spec": spec}, WriteOptions())
    scale = scale_of(made)
    assert (scale["kind"], scale["spec"]) == ("Scale", {"replicas": 3})
    assert scale["status"] == {"replicas": 0, "selector": "app=web,tier=a"}
    assert scale["metadata"]["resourceVersion"] == str(made.version)
