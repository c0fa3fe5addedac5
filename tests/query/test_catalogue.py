"""Discovery documents: which versions come first."""

from __future__ import annotations

import json

from materializer.store import Cluster, TypeInfo
from query.catalogue import Catalogue


def catalogue(**clusters: list[str]) -> Catalogue:
    made = []
    for name, types in clusters.items():
        cluster = Cluster(name, 1)
        for one in types:
            resource, version = one.split("/")
            info = TypeInfo(group="example.com", resource=resource, version=version, kind=resource.title())
            cluster.types[info.key] = info
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
