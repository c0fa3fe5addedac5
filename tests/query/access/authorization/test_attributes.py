"""What a request does: examples, and random paths against requestinfo.go transcribed."""

from __future__ import annotations

from random import Random

import pytest
from multidict import MultiDict

from query.access.authorization.attributes import Attributes, SelectionRequirement, attributes_of
from query.discovery.paths import split


def of(method: str, path: str, **query: str) -> Attributes:
    return attributes_of(method, split(path), query, trailing_slash=path.endswith("/"))


@pytest.mark.parametrize(
    ("method", "path", "expected"),
    [
        ("GET", "/api/v1/pods", Attributes("list", "", "v1", "pods")),
        ("HEAD", "/api/v1/pods", Attributes("list", "", "v1", "pods")),
        ("GET", "/api/v1/namespaces/web/pods", Attributes("list", "", "v1", "pods", "", "web")),
        ("GET", "/api/v1/namespaces/web/pods/p", Attributes("get", "", "v1", "pods", "", "web", "p")),
        ("HEAD", "/api/v1/namespaces/web/pods/p", Attributes("get", "", "v1", "pods", "", "web", "p")),
        ("GET", "/api/v1/namespaces/web/pods/p/log", Attributes("get", "", "v1", "pods", "log", "web", "p")),
        ("POST", "/api/v1/namespaces/web/pods/p/exec", Attributes("create", "", "v1", "pods", "exec", "web", "p")),
        ("GET", "/api/v1/namespaces/web/pods/p/proxy/a/b", Attributes("get", "", "v1", "pods", "proxy", "web", "p")),
        ("PUT", "/api/v1/namespaces/web/pods/p", Attributes("update", "", "v1", "pods", "", "web", "p")),
        ("PATCH", "/api/v1/namespaces/web/pods/p", Attributes("patch", "", "v1", "pods", "", "web", "p")),
        ("DELETE", "/api/v1/namespaces/web/pods/p", Attributes("delete", "", "v1", "pods", "", "web", "p")),
        ("DELETE", "/api/v1/namespaces/web/pods", Attributes("deletecollection", "", "v1", "pods", "", "web")),
        ("OPTIONS", "/api/v1/pods", Attributes("", "", "v1", "pods")),
        # Slashes at the ends do not count there, encoded or not.
        ("GET", "/%2Fapi/v1/pods%2F", Attributes("list", "", "v1", "pods")),
        ("GET", "/%2F%2Fapis/apps/v1/deployments", Attributes("list", "apps", "v1", "deployments")),
        ("GET", "/api/v1/namespaces", Attributes("list", "", "v1", "namespaces")),
        ("GET", "/api/v1/namespaces/web", Attributes("get", "", "v1", "namespaces", "", "web", "web")),
        ("PUT", "/api/v1/namespaces/w/finalize", Attributes("update", "", "v1", "namespaces", "finalize", "w", "w")),
        ("GET", "/api/v1/namespaces/web/status", Attributes("get", "", "v1", "namespaces", "status", "web", "web")),
        ("GET", "/apis/apps/v1/namespaces/web/deployments/d/scale",
         Attributes("get", "apps", "v1", "deployments", "scale", "web", "d")),
        ("GET", "/api/v1/watch/pods", Attributes("watch", "", "v1", "pods")),
        ("GET", "/api/v1/watch/namespaces/web/pods/p", Attributes("watch", "", "v1", "pods", "", "web", "p")),
        ("GET", "/api/v1/proxy/namespaces/web/pods/p/x", Attributes("proxy", "", "v1", "pods", "", "web", "p")),
        # A slash that was encoded parts names, as it does where a request is passed on to.
        ("GET", "/api/v1/namespaces/web%2Fpods", Attributes("list", "", "v1", "pods", "", "web")),
        ("GET", "/", Attributes("get", path="/")),
        ("GET", "/healthz", Attributes("get", path="/healthz")),
        ("HEAD", "/healthz", Attributes("head", path="/healthz")),
        ("POST", "/logs/x", Attributes("post", path="/logs/x")),
        ("GET", "/api", Attributes("get", path="/api")),
        ("GET", "/api/", Attributes("get", path="/api/")),
        ("GET", "/api/v1", Attributes("get", path="/api/v1")),
        ("GET", "/apis/apps/v1", Attributes("get", path="/apis/apps/v1")),
        ("GET", "/version/", Attributes("get", path="/version/")),
        ("GET", "/a%20b", Attributes("get", path="/a b")),
    ],
)  # fmt: skip
def test_paths(method: str, path: str, expected: Attributes) -> None:
    assert of(method, path) == expected


@pytest.mark.parametrize(
    ("watch", "verb"),
    [("1", "watch"), ("true", "watch"), ("", "watch"), ("no", "watch"), ("0", "list"), ("FALSE", "list")],
)
def test_watch(watch: str, verb: str) -> None:
    assert of("GET", "/api/v1/pods", watch=watch).verb == verb
    assert of("GET", "/api/v1/namespaces/web/pods/p", watch=watch).verb == "get"
    assert of("GET", "/api/v1/watch/pods", watch=watch).verb == "watch"


def test_of_repeated_parameters_the_first_counts() -> None:
    query = MultiDict([("watch", "0"), ("watch", "1"), ("fieldSelector", "metadata.name=a"), ("fieldSelector", "b=c")])
    found = attributes_of("GET", ["api", "v1", "pods"], query)
    assert (found.verb, found.name) == ("list", "a")


NAMES = {
    "": "",
    "metadata.name=a": "a",
    "metadata.name==a": "a",
    "metadata.name!=a": "",
    "metadata.name=": "",
    "metadata.name=b,metadata.name=a": "a",
    "metadata.name==b,metadata.name=a": "b",
    "status.phase=Running,metadata.name=a": "a",
    "metadata.namespace=web": "",
    "metadata.name=a\\,b": "a,b",
    "metadata.name=..": "",
    "metadata.name=a/b": "",
    "metadata.name=a%b": "",
    "metadata.name=a=b": "",
    "metadata.name": "",
    "metadata.name=a\\b": "",
}


@pytest.mark.parametrize(("selector", "name"), NAMES.items())
def test_the_name_that_a_field_selector_is_for(selector: str, name: str) -> None:
    assert of("GET", "/api/v1/pods", fieldSelector=selector).name == name
    assert of("GET", "/api/v1/pods", fieldSelector=selector, watch="1").name == name
    assert of("DELETE", "/api/v1/namespaces/web/pods", fieldSelector=selector).name == ""
    assert of("GET", "/api/v1/watch/pods", fieldSelector=selector).name == ""
    assert of("GET", "/api/v1/namespaces/web/pods/p", fieldSelector=selector).name == "p"


@pytest.mark.parametrize(
    ("parameter", "text"),
    [("limit", "x"), ("limit", ""), ("timeoutSeconds", "1.5"), ("limit", str(2**63)), ("labelSelector", "a b")],
)
def test_options_that_cannot_be_decoded_name_nothing(parameter: str, text: str) -> None:
    query = {"fieldSelector": "metadata.name=a", "watch": "1"}
    assert of("GET", "/api/v1/pods", **query, **{parameter: text}).name == ""
    assert of("GET", "/api/v1/pods", **query, **{parameter: text}).verb == "watch"
    assert of("GET", "/api/v1/pods", **query, limit=f"-{2**63}").name == "a"


def test_selectors_as_requirements() -> None:
    query = {"fieldSelector": "spec.nodeName=n,status.phase!=Running", "labelSelector": "app in (b,a),!x,y,z>3,w!=1"}
    found = of("GET", "/api/v1/pods", **query)
    assert found.fields == (
        SelectionRequirement("spec.nodeName", "In", ("n",)),
        SelectionRequirement("status.phase", "NotIn", ("Running",)),
    )
    assert found.labels == (
        SelectionRequirement("app", "In", ("a", "b")),
        SelectionRequirement("w", "NotIn", ("1",)),
        SelectionRequirement("x", "DoesNotExist"),
        SelectionRequirement("y", "Exists"),
    )
    assert of("DELETE", "/api/v1/namespaces/web/pods", **query).labels == found.labels
    assert not of("GET", "/api/v1/watch/pods", **query).labels
    assert not of("GET", "/api/v1/namespaces/web/pods/p", **query).fields
    assert not of("GET", "/api/v1/pods", fieldSelector="x", labelSelector="a b").fields


@pytest.mark.parametrize("path", ["/api/v1/watch", "/apis/apps/v1/proxy"])
def test_a_word_that_is_a_verb_needs_a_resource(path: str) -> None:
    found = of("GET", path)
    assert (found.is_resource, found.resource, found.name) == (True, "", "")


def plain(method: str, path: str) -> Attributes | None:
    """requestinfo.go: NewRequestInfo, of a decoded path without a query. None: an error."""
    parts = path.strip("/").split("/") if path.strip("/") else []
    info = Attributes(method.lower(), path=path)
    if len(parts) < 3:
        return info
    if parts[0] not in {"api", "apis"}:
        return info
    prefix, parts = parts[0], parts[1:]
    group = ""
    if prefix != "api":
        if len(parts) < 3:
            return info
        group, parts = parts[0], parts[1:]
    version, parts = parts[0], parts[1:]
    if parts[0] in {"proxy", "watch"}:
        if len(parts) < 2:
            return None
        verb, parts = parts[0], parts[1:]
    else:
        match method:
            case "POST":
                verb = "create"
            case "GET" | "HEAD":
                verb = "get"
            case "PUT":
                verb = "update"
            case "PATCH":
                verb = "patch"
            case "DELETE":
                verb = "delete"
            case _:
                verb = ""
    namespace = ""
    if parts[0] == "namespaces" and len(parts) > 1:
        namespace = parts[1]
        if len(parts) > 2 and parts[2] not in {"status", "finalize"}:
            parts = parts[2:]
    subresource = name = ""
    if len(parts) >= 3 and verb != "proxy":
        subresource = parts[2]
    if len(parts) >= 2:
        name = parts[1]
    if name == "" and verb == "get":
        verb = "list"
    if name == "" and verb == "delete":
        verb = "deletecollection"
    return Attributes(verb, group, version, parts[0], subresource, namespace, name)


def test_random_paths_mean_what_they_mean_to_a_kube_apiserver() -> None:
    random = Random(7)
    words = ("api", "apis", "v1", "apps", "watch", "proxy", "namespaces", "pods", "status", "finalize", "web", "log")
    resources = 0
    for _ in range(20_000):
        method = random.choice(("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE"))
        beginning = random.choice(([], ["api", "v1"], ["apis", "apps", "v1"]))
        path = "/" + "/".join([*beginning, *(random.choice(words) for _ in range(random.randint(0, 6)))])
        path += random.choice(("", "", "/")) if len(path) > 1 else ""
        expected = plain(method, path)
        found = of(method, path)
        assert found == expected or (expected is None and not found.resource), (method, path)
        resources += found.is_resource
    assert resources > 10_000
