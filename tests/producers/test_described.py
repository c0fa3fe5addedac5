"""Clusters that objects of a host cluster describe: what one object says is its own cluster's matter alone."""

from __future__ import annotations

import base64
from typing import Any

import pytest

from producers.kubeconfig.files import Files, inline_access
from producers.kubeconfig.in_cluster import in_cluster
from producers.kubeconfig.model import BadKubeconfig, ClusterAccess
from producers.kubeconfig.yaml_values import dump
from producers.members.described import Descriptions
from producers.members.host_cluster import host_access
from producers.rules.configuration import Host
from producers.rules.rules import Rule, Rules


def kubeconfig(server: str = "https://a.example.com", **user: object) -> str:
    return dump(
        {
            "clusters": [{"name": "c", "cluster": {"server": server}}],
            "users": [{"name": "u", "user": user}],
            "contexts": [{"name": "x", "context": {"cluster": "c", "user": "u"}}],
        }
    )


def encoded(text: str | bytes) -> str:
    return base64.b64encode(text if isinstance(text, bytes) else text.encode()).decode()


def secret(name: str, text: str | bytes, created: str = "2026-01-01T00:00:00Z", **labels: str) -> dict[str, Any]:
    return {
        "metadata": {"name": name, "labels": labels, "creationTimestamp": created},
        "data": {"kubeconfig": encoded(text)},
    }


def by_name(*objects: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {one["metadata"]["name"]: one for one in objects}


def test_one_bad_secret_is_its_own_clusters_matter() -> None:
    bad: dict[str, str | bytes] = {
        "token": kubeconfig(token="SECRET\n"),
        "exec": kubeconfig(exec={"command": "SECRET"}),
        "file": kubeconfig(tokenFile="/etc/SECRET"),
        "types": kubeconfig(token=5),
        "yaml": "users: [SECRET",
        "bytes": b"\x00SECRET",
        "deep": "[" * 100_000,
        "large": "x" * 3_000_000,
        "bomb": "\n".join(
            [
                "a: &a [x,x,x,x,x,x,x,x,x,x]",
                *(f"{b}: &{b} [{','.join([f'*{a}'] * 10)}]" for a, b in zip("abcdefgh", "bcdefghi", strict=True)),
            ]
        ),
        "empty": "",
        "list": "[SECRET]",
    }
    objects = [secret(f"{name}-kubeconfig", text) for name, text in bad.items()]
    objects += [{"metadata": {"name": "none"}}, {"metadata": {"name": "odd"}, "data": {"value": "SECRET!"}}]
    found = Descriptions().of_secrets(by_name(*objects, secret("good-kubeconfig", kubeconfig(token="SECRET"))))
    assert set(found.clusters) == {*bad, "none", "odd", "good"}
    for name, access in found.clusters.items():
        assert bool(access.problem) == (name != "good"), name
        assert "SECRET" not in access.problem
        assert "\n" not in access.problem
        assert access.problem.count(f"secret {name}") >= (name != "good"), access.problem
    assert found.clusters["good"].user.token == "SECRET"


def test_which_cluster_a_secret_is_of() -> None:
    found = Descriptions().of_secrets(
        by_name(
            secret("east-kubeconfig", kubeconfig()),
            secret("x", kubeconfig(), **{"cluster.x-k8s.io/cluster-name": "west"}),
            secret("z", kubeconfig(), **{"cluster.x-k8s.io/cluster-name": "a", "kubebraid.io/cluster-name": "north"}),
        )
    )
    assert set(found.clusters) == {"east", "west", "north"}


def test_a_new_secret_takes_no_cluster_away() -> None:
    old = secret("east-kubeconfig", kubeconfig("https://old"), "2026-01-01T00:00:00Z")
    new = secret("another", kubeconfig("https://new"), "2026-01-02T00:00:00Z", **{"kubebraid.io/cluster-name": "east"})
    for objects in ((old, new), (new, old)):
        found = Descriptions().of_secrets(by_name(*objects))
        assert found.clusters["east"].cluster.server == "https://old"
        assert list(found.problems.values()) == [
            "secret another names a cluster 'east' that secret east-kubeconfig names already: it is left out"
        ]


def test_a_text_is_read_once(monkeypatch: pytest.MonkeyPatch) -> None:
    reads: list[str] = []

    def counting(name: str, text: bytes, where: str) -> ClusterAccess:
        reads.append(name)
        return inline_access(name, text, where)

    monkeypatch.setattr("producers.members.described.inline_access", counting)
    descriptions = Descriptions()
    one, two = secret("one", kubeconfig("https://one")), secret("two", kubeconfig("https://two"))
    first = descriptions.of_secrets(by_name(one, two))
    again = descriptions.of_secrets(by_name(one, secret("two", kubeconfig("https://three"))))
    assert reads == ["one", "two", "two"]
    assert again.clusters["one"] is first.clusters["one"]


def pedia(name: str, **spec: object) -> dict[str, Any]:
    return {"metadata": {"name": name}, "spec": spec}


CORE = {"group": "", "versions": ["v1"], "resources": ["pods", "pods/status"]}


def test_pedia_clusters() -> None:
    shared = {
        "usual": pedia("usual", syncResources=[{"group": "apps", "resources": ["*"]}]),
        "odd": pedia("odd", syncResources=5),
    }
    found = Descriptions().of_pedia(
        by_name(
            pedia("one", kubeconfig=encoded(kubeconfig(token="t")), syncResources=[CORE]),
            pedia("two", apiserver="b.example.com", tokenData=encoded("t\n"), syncResourcesRefName="usual"),
            pedia("three", apiserver="https://c", caData=encoded("pem"), certData=encoded("c"), keyData=encoded("k")),
            pedia("none"),
            pedia("exec", kubeconfig=encoded(kubeconfig(exec={"command": "SECRET"}))),
            pedia("lost", apiserver="https://d", syncResourcesRefName="nowhere"),
            pedia("shared", apiserver="https://d", syncResourcesRefName="odd"),
            pedia("types", apiserver=5),
            pedia("data", apiserver="https://d", caData="SECRET"),
            pedia("list", apiserver="https://d", syncResources={"SECRET": 1}),
            {"metadata": {"name": "spec"}, "spec": ["SECRET"]},
        ),
        shared,
    )
    fine = {name: access for name, access in found.clusters.items() if not access.problem}
    assert set(fine) == {"one", "two", "three"}
    assert {name: access.cluster.server for name, access in fine.items()} == {
        "one": "https://a.example.com",
        "two": "https://b.example.com",
        "three": "https://c",
    }
    assert (fine["two"].user.token, fine["two"].cluster.insecure) == ("t", True)
    assert (fine["three"].cluster.authority_data, fine["three"].user.key_data) == (b"pem", b"k")
    assert found.rules["one"] == Rules((Rule(("pods./v1",)),))
    assert found.rules["two"] == Rules((Rule(("*.apps",)),))
    bad = {name: access.problem for name, access in found.clusters.items() if access.problem}
    assert set(bad) == {"none", "exec", "lost", "shared", "types", "data", "list", "spec"}
    assert not any("SECRET" in problem or "\n" in problem for problem in bad.values())
    assert "no ClusterSyncResources 'nowhere'" in bad["lost"]


def test_access_to_the_host(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """As clientcmd's libraries: in a pod only where no kubeconfig says another cluster."""
    inside = ClusterAccess("host cluster", where="pod")
    pod: list[ClusterAccess | None] = [None]
    monkeypatch.setattr("producers.members.host_cluster.in_cluster", lambda name: pod[0])
    path = tmp_path / "config"
    monkeypatch.setenv("KUBECONFIG", str(path))
    with pytest.raises(BadKubeconfig, match=r"no kubeconfig at .* and this is no pod"):
        host_access(Host(), Files())
    pod[0] = inside
    assert host_access(Host(), Files()) is inside
    # One without a current context says nothing, as there.
    path.write_text(kubeconfig())
    assert host_access(Host(), Files()) is inside
    path.write_text(f"{kubeconfig()}\ncurrent-context: x\n")
    assert host_access(Host(), Files()).cluster.server == "https://a.example.com"
    assert host_access(Host("", "x"), Files()).cluster.server == "https://a.example.com"
    with pytest.raises(BadKubeconfig, match="no context 'other'"):
        host_access(Host("", "other"), Files())
    named = tmp_path / "named"
    with pytest.raises(BadKubeconfig, match=r"no kubeconfig at .*named"):
        host_access(Host(str(named)), Files())
    named.write_text(kubeconfig("https://named"))
    assert host_access(Host(str(named)), Files()).cluster.server == "https://named"
    assert in_cluster("host cluster", str(tmp_path)) is None
