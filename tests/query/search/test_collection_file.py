"""Files of collections: what they say, in each form, and one line for each thing that cannot be."""

from __future__ import annotations

from pathlib import Path

import pytest

from query.search.collection_file import BadCollections, load_collections, read_collections
from query.search.collections import COLLECTIONS, CollectedTypes, ResourceCollection, with_configured

EDGE = ResourceCollection(
    "edge", (CollectedTypes("networking.k8s.io", "ingresses"), CollectedTypes("", "services", "v1"))
)
OURS = """
- name: edge
  resourceTypes:
  - {group: networking.k8s.io, resource: ingresses}
  - {group: "", version: v1, kind: Service, resource: services}
  - {group: networking.k8s.io, resource: ingresses}
"""
MANIFEST = """
apiVersion: clusterpedia.io/v1beta1
kind: CollectionResource
metadata: {name: edge, creationTimestamp: null}
resourceTypes:
- {group: networking.k8s.io, version: "", resource: ingresses}
- {group: core, version: v1, resource: services}
"""
# As `kubectl get collectionresources edge -o yaml` has it, with what it found.
SHOWN = MANIFEST + "items: [{kind: Service}]\ncontinue: abc\nremainingItemCount: 3\n"
ITEM = "- " + MANIFEST.strip().replace("\n", "\n  ")
LIST = f"kind: List\napiVersion: v1\nmetadata: {{resourceVersion: ''}}\nitems:\n{ITEM}"
# As a server sends it, where items do not say what they are.
TYPED = LIST.replace("kind: List\napiVersion: v1", "kind: CollectionResourceList\napiVersion: clusterpedia.io/v1beta1")
TYPED = TYPED.replace("- apiVersion: clusterpedia.io/v1beta1\n  kind: CollectionResource\n  ", "- ")


@pytest.mark.parametrize("text", [OURS, MANIFEST, SHOWN, LIST, TYPED, ITEM])
def test_each_form_says_the_same(text: str) -> None:
    assert read_collections(text.encode()) == (EDGE,)


def test_several_documents_and_wildcards() -> None:
    text = (
        f"{MANIFEST}---\n---\n- name: all-apps\n  resourceTypes: [{{group: apps, resource: '*'}}, {{group: batch}}]\n"
    )
    text += "- name: x.y\n  resourceTypes: [{group: '*', resource: pods}, {resource: '*'}, {group: '*'}]\n"
    found = read_collections(text.encode())
    assert [one.name for one in found] == ["edge", "all-apps", "x.y"]
    assert found[1].patterns == (CollectedTypes("apps"), CollectedTypes("batch"))
    assert found[2].patterns == (CollectedTypes(None, "pods"), CollectedTypes(""), CollectedTypes(None))
    assert list(with_configured(found)) == [*COLLECTIONS, "edge", "all-apps", "x.y"]


PODS = "resourceTypes: [{resource: pods}]"
SECOND = f"- {{name: a, {PODS}}}\n- "


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "no collection stands there; write a list"),
        ("[]", "no collection stands there"),
        ("name: a", "no list; write a list"),
        ("a: [", "no YAML that can be used: "),
        ("- a", "[0]: no collection; write a name and resourceTypes"),
        (f"- {{{PODS}}}", "[0]: name is needed"),
        (f"- {{name: Edge, {PODS}}}", "[0].name: 'Edge' is no name; write lower-case letters"),
        (f"- {{name: a/b, {PODS}}}", "[0].name: 'a/b' is no name"),
        (f"- {{name: any, {PODS}}}", "[0].name: any is always there; leave this one out, or name it otherwise"),
        (f"{SECOND}{{name: a, {PODS}}}", "[1].name: a stands twice; put its types into one"),
        (f"{SECOND}{{name: b}}", "[1].resourceTypes: b has no types; write {group: apps, resource: deployments}"),
        ("- {name: a, resourceTypes: []}", "[0].resourceTypes: a has no types"),
        (f"- {{name: a, types: 1, {PODS}}}", "[0]: unknown field types"),
        ("- {name: a, resourceTypes: [{resources: pods}]}", "[0].resourceTypes[0]: unknown field resources"),
        ("- {name: a, resourceTypes: [{resource: 3}]}", "[0].resourceTypes[0].resource: Expected `str`, got `int`"),
        ("- {name: a, resourceTypes: [{}]}", "[0].resourceTypes[0]: no type; write a resource, as pods"),
        ("- {name: a, resourceTypes: [{resource: Pod}]}", "[0].resourceTypes[0].resource: 'Pod' is no resource"),
        ("- {name: a, resourceTypes: [{resource: pods/log}]}", "'pods/log' is a subresource; write pods"),
        ("- {name: a, resourceTypes: [{group: apps/v1}]}", "'apps/v1' has a version; write group: apps, version: v1"),
        ("- {name: a, resourceTypes: [{group: Apps}]}", "[0].resourceTypes[0].group: 'Apps' is no group"),
        ("- {name: a, resourceTypes: [{group: apps, version: V 1}]}", ".version: 'V 1' is no version; write v1"),
        (MANIFEST.replace("v1beta1", "v1"), "apiVersion: 'clusterpedia.io/v1'; write clusterpedia.io/v1beta1"),
        (MANIFEST.replace("CollectionResource", "Collection"), "kind: 'Collection'; write CollectionResource"),
        (MANIFEST.replace("name: edge", "name: E"), "metadata.name: 'E' is no name"),
        (MANIFEST.replace("name: edge, ", ""), "metadata: name is needed"),
        (f"{MANIFEST}---{MANIFEST}", "document 2: metadata.name: edge stands twice"),
        (LIST.replace("edge", "workloads"), "items[0].metadata.name: workloads is always there"),
        ("{kind: List, items: 3}", "items: a list of manifests is needed"),
    ],
)
def test_what_cannot_be_is_one_line(tmp_path: Path, text: str, said: str) -> None:
    path = tmp_path / "collections.yaml"
    path.write_text(text)
    with pytest.raises(BadCollections) as problem:
        load_collections(path)
    message = str(problem.value)
    assert message.startswith(f"{path}: ")
    assert said in message
    assert "\n" not in message


def test_a_file_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(BadCollections, match="No such file or directory"):
        load_collections(tmp_path / "none.yaml")
    with pytest.raises(BadCollections, match="Is a directory"):
        load_collections(tmp_path)
