"""The configuration file: all of it read, and what is wrong said in one line."""

from __future__ import annotations

from pathlib import Path

import pytest

from producers.rules.configuration import (
    BadConfiguration,
    Directory,
    Host,
    Kubeconfig,
    PediaClusters,
    Secrets,
    duration,
    load,
)
from producers.rules.rules import Rule

WHOLE = """
clusters:
- kubeconfig: clusters.kubeconfig
  contexts: [prod-*]
- directory: /etc/kubebraid/clusters
  exclude: [noise]
- secrets: {namespace: fleet, labelSelector: kubebraid.io/cluster}
  host: {kubeconfig: /etc/host.kubeconfig, context: hub}
- pediaClusters: {}
sync:
- types: [pods, deployments.apps]
  namespaces: [shop, team-*]
  labelSelector: tier in (web, api)
- "*"
exclude: [custom]
prune:
  lastApplied: true
  fields:
  - types: [secrets]
    pointers: [/data]
relistEvery: 1h30m
whenRemoved: keep
"""


def test_the_whole_of_it(tmp_path: Path) -> None:
    file = tmp_path / "kubebraid.yaml"
    file.write_text(WHOLE)
    found = load(file)
    places = [source.origin for source in found.sources]
    assert places == [
        Kubeconfig(str(tmp_path / "clusters.kubeconfig"), ("prod-*",)),
        Directory("/etc/kubebraid/clusters"),
        Secrets(Host("/etc/host.kubeconfig", "hub"), "fleet", "kubebraid.io/cluster"),
        PediaClusters(Host()),
    ]
    assert found.sources[0].rules.include == (
        Rule(("pods", "deployments.apps"), ("shop", "team-*"), "tier in (web, api)"),
        Rule(("*",)),
    )
    assert found.sources[0].rules.exclude == ("custom",)
    assert found.sources[1].rules.exclude == ("noise",)
    assert found.sources[1].rules.include == found.sources[0].rules.include
    assert found.pruning.last_applied
    assert found.pruning.pointers == (("secrets", ("/data",)),)
    assert (found.relist_every, found.remove) == (5400.0, False)


def test_an_empty_file_means_the_default_kubeconfig(tmp_path: Path) -> None:
    file = tmp_path / "kubebraid.yaml"
    file.write_text("# nothing yet\n")
    found = load(file)
    assert [source.origin for source in found.sources] == [Kubeconfig()]
    assert (found.relist_every, found.remove, found.pruning.managed_fields) == (1800.0, True, True)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("clusters: [{kubeconfig: a, directory: b}]", r"clusters\[0\]: one of .* kubeconfig and directory given"),
        ("clusters: [{exclude: [a]}]", r"clusters\[0\]: one of .* none given"),
        ("clusters: [{directory: b, host: {}}]", "host belongs to"),
        ("clusters: [{directory: b, contexts: [c]}]", "contexts belong to"),
        ("clusters: [{secrets: {}}]", "namespace"),
        ("clusters: [{kubeconfig: 3}]", r"Expected `str`.*clusters\[0\].kubeconfig|clusters.*kubeconfig"),
        ("cluster: []", "unknown field `cluster`"),
        ("sync: [Pods]", "names no resource type"),
        ("sync: [{types: [pods], labelSelector: '='}]", "no label selector"),
        ("exclude: ['?']", "names no resource type"),
        ("prune: {fields: [{types: [pods], pointers: [data]}]}", "no JSON pointer"),
        ("prune: {fields: [{types: [pods], pointers: [/metadata/name]}]}", "would prune what identifies"),
        ("relistEvery: soon", "no duration"),
        ("relistEvery: 1s", "too often"),
        ("whenRemoved: forget", "write remove or keep"),
        ("- a\n- b", "Expected `object`"),
        ("a: [", "no YAML"),
    ],
)
def test_what_cannot_be(tmp_path: Path, text: str, said: str) -> None:
    file = tmp_path / "kubebraid.yaml"
    file.write_text(text)
    with pytest.raises(BadConfiguration, match=said) as caught:
        load(file)
    assert str(caught.value).startswith(str(file))
    assert "\n" not in str(caught.value)


def test_no_file(tmp_path: Path) -> None:
    with pytest.raises(BadConfiguration, match="No such file"):
        load(tmp_path / "none.yaml")


def test_durations() -> None:
    assert [duration(text) for text in ("90s", "30m", "1h30m", "1.5h", "1d", "0")] == [90, 1800, 5400, 5400, 86400, 0]
    for text in ("", "30", "m", "1h 30m", "-1s", "1w"):
        with pytest.raises(BadConfiguration):
            duration(text)
