"""Discovery documents: which versions come first, and what a cluster itself says of what it serves."""

from __future__ import annotations

import gzip
import json
from typing import Any

import pytest

from deltalog.wire.records import ClusterDocument, DocumentName
from deltalog.wire.resource_type import ResourceType
from kubebraid.route.merging import merge
from materializer.cluster_facts import ClusterFacts
from materializer.store import Store
from query.discovery.catalogue import Catalogue, Catalogues
from query.discovery.openapi import OpenApiByScope
from query.http.status import ApiError


def catalogue(**clusters: list[str]) -> Catalogue:
    made = []
    for name, types in clusters.items():
        cluster = ClusterFacts(name, 1)
        for one in types:
            resource, version = one.split("/")
            info = ResourceType(group="example.com", resource=resource, version=version, kind=resource.title())
            cluster.types[info.group_resource] = info
        made.append(cluster)
    return Catalogue(made)


def test_a_group_prefers_what_is_stable_and_new_however_many_types_have_it() -> None:
    found = catalogue(
        alpha=["a/v1alpha1", "b/v1alpha1", "c/v1alpha1", "d/v1", "e/v1beta1", "f/v2", "g/v10", "h/v1beta2", "i/other"],
    ).document("apis/example.com")
    assert found is not None
    group = json.loads(found[0])
    order = ["v10", "v2", "v1", "v1beta2", "v1beta1", "v1alpha1", "other"]
    assert [one["version"] for one in group["versions"]] == order
    assert group["preferredVersion"] == {"groupVersion": "example.com/v10", "version": "v10"}


def test_a_type_is_there_in_all_versions_that_clusters_have_it_in() -> None:
    made = catalogue(alpha=["a/v1"], bravo=["a/v1beta1"], charlie=["a/v1beta1"])
    for version in ("v1", "v1beta1"):
        found = made.document(f"apis/example.com/{version}")
        assert found is not None
        assert [one["name"] for one in json.loads(found[0])["resources"]] == ["a"]
        assert made.find("example.com", version, "a") is not None
    assert made.document("apis/example.com/v2") is None
    aggregated = made.document("apis", aggregated="v2")
    assert aggregated is not None
    [group] = json.loads(aggregated[0])["items"]
    assert [one["version"] for one in group["versions"]] == ["v1", "v1beta1"]


# -- what a cluster says itself ----------------------------------------------------------------------------------------


def told(name: str, **versions: str) -> dict[str, Any]:
    """A group by its versions and their types; what is stale begins with `!`."""
    return {
        "metadata": {"name": name} if name else {},
        "versions": [
            {
                "version": version.replace("_", "/"),
                "resources": [
                    {
                        "resource": one,
                        "responseKind": {"group": name, "version": version, "kind": one.title()},
                        "scope": "Namespaced",
                        "singularResource": "",
                        "verbs": ["create", "get"],
                    }
                    for one in types.strip("!").split()
                ],
                "freshness": "Stale" if types.startswith("!") else "Current",
            }
            for version, types in versions.items()
        ],
    }


def cluster(*groups: dict[str, Any], name: str = "alpha", **synced: str) -> ClusterFacts:
    """One that serves groups, and of whose `example.com` types are synced in a version each."""
    made = ClusterFacts(name, 1)
    for resource, version in synced.items():
        info = ResourceType(group="example.com", resource=resource, version=version, kind=resource.title())
        made.types[info.group_resource] = info
    if groups:
        body = gzip.compress(json.dumps(groups).encode(), mtime=0)
        made.discovery = ClusterDocument(hash=str(hash(body)), body=body)
    return made


def document(made: Catalogue, name: str, **more: Any) -> Any:
    found = made.document(name, **more)
    return None if found is None else json.loads(found[0])


def versions(made: Catalogue, group: str = "example.com") -> list[str]:
    return [one["version"] for one in document(made, f"apis/{group}")["versions"]]


def resources(made: Catalogue, version: str) -> dict[str, list[str]]:
    return {one["name"]: one["verbs"] for one in document(made, f"apis/example.com/{version}")["resources"]}


def test_a_cluster_says_itself_what_it_serves_and_in_which_order() -> None:
    one = cluster(
        told("", v1="secrets"), told("zoo", v1=""), told("example.com", v1beta1="a b", v2="a", v1="a"), a="v2"
    )
    made = Catalogue([one], forwarding=True)
    assert document(made, "api")["versions"] == ["v1"]
    assert [group["name"] for group in document(made, "apis")["groups"]] == ["zoo", "example.com"]
    assert document(made, "apis/zoo/v1")["resources"] == []
    assert versions(made) == ["v1beta1", "v2", "v1"]
    assert document(made, "apis/example.com")["preferredVersion"]["version"] == "v1beta1"
    assert resources(made, "v1beta1") == {"a": ["create", "get"], "b": ["create", "get"]}
    assert resources(made, "v2") == {"a": ["create", "get", "list", "watch"]}
    assert made.find("example.com", "v1beta1", "a") is None
    assert made.find("", "v1", "secrets") is None
    # Only below the cluster, and only where requests are passed on to it.
    for catalogue in (Catalogue([one]), Catalogue([one, cluster(name="bravo")])):
        assert versions(catalogue) == ["v2"]
        assert document(catalogue, "api/v1") is None
        assert resources(catalogue, "v2") == {"a": ["get", "list", "watch"]}


def test_what_is_synced_is_there_however_old_the_document_is() -> None:
    old = told("example.com", v1="a", v1beta1="!", v1alpha1="other")
    made = Catalogue([cluster(old, a="v1", b="v1", c="v1beta1", d="v2", e="v1beta2")], forwarding=True)
    assert versions(made) == ["v2", "v1", "v1beta2", "v1beta1", "v1alpha1"]
    assert list(resources(made, "v1")) == ["a", "b"]
    for version, name in (("v2", "d"), ("v1", "b"), ("v1beta1", "c"), ("v1beta2", "e")):
        assert {"get", "list", "watch"} <= set(resources(made, version)[name])
    items = document(made, "apis", aggregated="v2")["items"]
    assert {one["freshness"] for one in items[0]["versions"]} == {"Current"}
    made = Catalogue([cluster(told("zoo", v1="z"), a="v1")], forwarding=True)
    assert [group["name"] for group in document(made, "apis")["groups"]] == ["zoo", "example.com"]


def test_of_a_document_that_cannot_be_read_what_is_synced_is_left() -> None:
    one = cluster(a="v1")
    for body in (b"", b"{}", gzip.compress(b"{}"), gzip.compress(b"[1]"), gzip.compress(b"\xff")):
        one.discovery = ClusterDocument(hash="h", body=body)
        assert versions(Catalogue([one], forwarding=True)) == ["v1"]


def test_of_what_the_cluster_does_not_know_nothing_is_said() -> None:
    made = Catalogue([cluster(told("away", v1="!", v2="!known"))], forwarding=True)
    [item] = document(made, "apis", aggregated="v2")["items"]
    assert [one["freshness"] for one in item["versions"]] == ["Stale", "Stale"]
    assert [one["name"] for one in document(made, "apis/away/v2")["resources"]] == ["known"]
    with pytest.raises(ApiError) as raised:
        made.document("apis/away/v1")
    assert raised.value.code == 503


def test_kinds_of_subresources_in_lists() -> None:
    group = told("example.com", v1="a b")
    first, second = group["versions"][0]["resources"]
    scale = {"group": "autoscaling", "version": "v1", "kind": "Scale"}
    first["subresources"] = [
        {"subresource": "scale", "responseKind": scale, "verbs": ["get"]},
        {"subresource": "status", "responseKind": first["responseKind"], "verbs": ["get"]},
    ]
    # Subresources of a type that is another API's.
    second |= {"responseKind": {"group": "", "version": "", "kind": ""}, "verbs": []}
    second["subresources"] = [{"subresource": "odd", "verbs": []}]
    made = Catalogue([cluster(group)], forwarding=True)
    listed = {one["name"]: one for one in document(made, "apis/example.com/v1")["resources"]}
    assert list(listed) == ["a", "a/scale", "a/status", "b/odd"]
    assert {key: listed["a/scale"][key] for key in scale} == scale
    assert (listed["a/status"]["kind"], "group" in listed["a/status"]) == ("A", False)
    assert listed["b/odd"]["kind"] == ""


def test_documents_are_made_anew_when_a_cluster_says_something_else() -> None:
    store = Store("p", 60)
    one, other = cluster(told("zoo", v1="z"), a="v1"), cluster(told("zoo", v1="z"), name="bravo")
    store.clusters = {"alpha": one, "bravo": other}
    forwarded = {"alpha", "bravo"}
    catalogues = Catalogues(lambda name: name in forwarded)
    before = {name: catalogues.of(0, store, name) for name in (None, "alpha", "bravo")}
    assert all(catalogues.of(0, store, name) is made for name, made in before.items())
    one.discovery = cluster(told("park", v1="p")).discovery
    assert catalogues.of(0, store, None) is before[None]
    assert catalogues.of(0, store, "bravo") is before["bravo"]
    assert document(catalogues.of(0, store, "alpha"), "apis/park") is not None
    forwarded.remove("alpha")
    assert document(catalogues.of(0, store, "alpha"), "apis/park") is None
    assert resources(catalogues.of(0, store, "alpha"), "v1") == {"a": ["get", "list", "watch"]}


def test_documents_of_another_store_are_made_anew_though_its_address_and_index_come_back() -> None:
    """A store that takes another's place may get its address: only the generation tells them apart."""
    store = Store("p", 60)
    store.clusters = {"alpha": cluster(a="v1")}
    catalogues = Catalogues(lambda name: False)
    assert resources(catalogues.of(0, store, None), "v1") == {"a": ["get", "list", "watch"]}
    store.clusters = {"bravo": cluster(name="bravo", b="v1")}
    assert resources(catalogues.of(1, store, None), "v1") == {"b": ["get", "list", "watch"]}
    assert resources(catalogues.of(1, store, "bravo"), "v1") == {"b": ["get", "list", "watch"]}


def test_openapi_of_another_store_is_put_together_anew_though_its_address_and_index_come_back() -> None:
    store = Store("p", 60)
    one, other = cluster(), cluster(name="bravo")
    one.documents = {DocumentName("v3", "api/v1"): ClusterDocument(hash="1", body=b"")}
    other.documents = {DocumentName("v3", "apis/apps/v1"): ClusterDocument(hash="2", body=b"")}
    documents = OpenApiByScope()
    store.clusters = {"alpha": one}
    before = documents.of(0, store, None)
    assert before is not None
    assert documents.of(0, store, None) is before
    store.clusters = {"bravo": other}
    after = documents.of(1, store, None)
    assert after is not None
    assert set(after.version3) == {"apis/apps/v1"}


# -- merged by a router -----------------------------------------------------------------------------------------------


def test_merged_the_one_that_has_more_leads() -> None:
    whole = Catalogue([cluster(told("zoo", v1=""), told("example.com", v1beta1="a b", v1="!a b"))], forwarding=True)
    reading = Catalogue([cluster(a="v1")])
    for name, more in (
        ("apis", {}),
        ("apis/example.com", {}),
        ("apis/example.com/v1", {}),
        ("apis", {"aggregated": "v2"}),
    ):
        one, other = document(whole, name, **more), document(reading, name, **more)
        merged = merge([other, one])
        assert merged == merge([one, other])
        if "preferredVersion" in one:
            assert merged == one
    both = merge([document(reading, "apis", aggregated="v2"), document(whole, "apis", aggregated="v2")])
    assert [(one["version"], one["freshness"]) for one in both["items"][1]["versions"]] == [
        ("v1beta1", "Current"),
        ("v1", "Current"),
    ]


def test_merged_subresources_of_the_same_kind_stay_apart() -> None:
    scale = {"kind": "Scale", "group": "autoscaling", "version": "v1", "verbs": ["get"]}
    listed = [{"name": "deployments/scale", **scale}, {"name": "replicasets/scale", **scale}]
    found = {"kind": "APIResourceList", "resources": listed}
    assert merge([found, found]) == found
