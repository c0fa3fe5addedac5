"""Paths: what a URL names, with empty segments and in the form that watches had before they were a parameter."""

from __future__ import annotations

import pytest

from query.discovery.paths import RequestTarget, cluster_scope, resource_target, split
from query.http.status import ApiError


@pytest.mark.parametrize(
    "path",
    [
        "/api/v1/../v1/pods",
        "/clusters/a/../b/version",
        "/clusters/a/%2e%2E/b/version",
        "/clusters/a/./version",
        "/clusters/a/api/v1/namespaces/x/pods/..%2f..%2fb",
        "/clusters/a/api/v1/namespaces/x/pods/a%2f.",
        "/clusters/a/api/v1/namespaces/x/services/y/proxy/../../b",
    ],
)
def test_no_segment_leads_elsewhere(path: str) -> None:
    with pytest.raises(ApiError) as error:
        split(path)
    assert error.value.code == 404


def test_dots_in_names_are_no_steps() -> None:
    assert split("/a/..b/c../.d/...") == ["a", "..b", "c..", ".d", "..."]


@pytest.mark.parametrize(
    ("path", "target"),
    [
        ("/api/v1/pods", RequestTarget("", "v1", "pods")),
        ("/api/v1/namespaces/x/pods/a/", RequestTarget("", "v1", "pods", "x", "a")),
        ("/api/v1/namespaces/x", RequestTarget("", "v1", "namespaces", "", "x")),
        ("/api/v1/namespaces/x/status", RequestTarget("", "v1", "namespaces", "", "x", "status")),
        ("/apis/apps/v1/deployments", RequestTarget("apps", "v1", "deployments")),
        ("/api/v1/watch/pods", RequestTarget("", "v1", "pods", watch=True)),
        ("/api/v1/watch/namespaces", RequestTarget("", "v1", "namespaces", watch=True)),
        ("/api/v1/watch/namespaces/x", RequestTarget("", "v1", "namespaces", "", "x", watch=True)),
        ("/api/v1/watch/namespaces/x/pods", RequestTarget("", "v1", "pods", "x", watch=True)),
        (
            "/apis/apps/v1/watch/namespaces/x/deployments/a",
            RequestTarget("apps", "v1", "deployments", "x", "a", watch=True),
        ),
        # A type may have that name, too.
        ("/apis/example.io/v1/watch", RequestTarget("example.io", "v1", "watch")),
        ("/api/v1/namespaces/x/pods/a/proxy", RequestTarget("", "v1", "pods", "x", "a", "proxy")),
        ("/api/v1/namespaces/x/pods/a/proxy/b//c/", RequestTarget("", "v1", "pods", "x", "a", "proxy/b//c")),
        ("/api/v1/namespaces/x/pods/a/proxy//b", RequestTarget("", "v1", "pods", "x", "a", "proxy//b")),
    ],
)
def test_targets(path: str, target: RequestTarget) -> None:
    assert resource_target(split(path)) == target


@pytest.mark.parametrize("path", ["/api/v1//pods", "/api//v1/namespaces/x/pods/a/proxy/b", "/clusters//api/v1/pods"])
def test_empty_segments_are_for_proxies_alone(path: str) -> None:
    with pytest.raises(ApiError) as told:
        split(path)
    assert told.value.code == 404


def test_names_of_clusters_may_hold_slashes() -> None:
    known = ["alpha", "arn:aws:eks:eu:1:cluster/prod"]
    for path in ("/clusters/arn:aws:eks:eu:1:cluster/prod/api/v1", "/clusters/arn:aws:eks:eu:1:cluster%2Fprod/api/v1"):
        assert cluster_scope(split(path), known) == (known[1], ["api", "v1"])
    assert cluster_scope(split("/clusters"), known) == (None, ["clusters"])
    with pytest.raises(ApiError):
        cluster_scope(split("/clusters/bravo/api"), known)


@pytest.mark.parametrize("slash", ["/", "%2F"])
def test_of_names_that_fit_one_is_meant_behind_which_a_path_begins(slash: str) -> None:
    """As k3s and `oc login` name contexts."""
    longest = "default/api-host:6443/me"
    known = ["default", "default/api-host:6443", longest, "other/default"]
    for name in (longest, "default/api-host:6443", "default", "other/default"):
        path = name.replace("/", slash)
        assert cluster_scope(split(f"/clusters/{path}/api/v1/namespaces/x/pods"), known) == (
            name,
            ["api", "v1", "namespaces", "x", "pods"],
        )
        assert cluster_scope(split(f"/clusters/{path}"), known) == (name, [])
    assert cluster_scope(split("/clusters/default/api-host:6443/you/api"), known)[0] == "default/api-host:6443"
    assert cluster_scope(split("/clusters/other/default/custom"), known) == ("other/default", ["custom"])
    assert cluster_scope(split("/clusters/default/api/v1"), known) == ("default", ["api", "v1"])
    with pytest.raises(ApiError):
        cluster_scope(split("/clusters/other/api"), known)


@pytest.mark.parametrize(
    "path",
    [
        "api",
        "api/v1/nodes",
        "api/v1/namespaces/default/configmaps",
        "api/v1/namespaces/default/pods/x/eviction",
        "api/v1/namespaces/default/pods/x/proxy/api/v1/secrets",
        "apis/apps/v1/deployments",
        "version",
        "openapi/v3/api/v1",
    ],
)
def test_no_name_takes_paths_of_another_cluster(path: str) -> None:
    """With them would go what clients send there, their tokens too."""
    segments = path.split("/")
    named = ["/".join(segments[:end]) for end in range(1, len(segments) + 1)]
    known = ["default", *(f"default/{one}" for one in named)]
    assert cluster_scope(split(f"/clusters/default/{path}"), known) == ("default", segments)
    # Those are asked for by names in one segment.
    for one in named:
        encoded = f"default/{one}".replace("/", "%2F")
        assert cluster_scope(split(f"/clusters/{encoded}/{path}"), known) == (f"default/{one}", segments)
