"""The course of the differential test: seeded writes to a member, and what is watched and listed meanwhile.

The same seed is the same course. Writes come without a pause, so that many states of an object are gone before a
reader that is slow could have seen them.
"""

from __future__ import annotations

import random
import secrets
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from tests.conformance.endpoint import Endpoint, Refused
from tests.conformance.test_custom_resources import Definition

__all__ = ["BURST", "Course", "Selection", "pod_spec"]

# Patches of one object in a row.
BURST = 60
PHASES = ("Pending", "Running", "Succeeded")
PARTIAL = "application/json;as=PartialObjectMetadata;v=v1;g=meta.k8s.io"


class Nodes(NamedTuple):
    """Names of nodes, none of which exists.

    They are new ones each time: a cluster's garbage collector remembers for a while that a node is missing, and deletes
    pods on it, at the earliest 40 s after it has seen the first.
    """

    a: str
    b: str
    none: str

    @classmethod
    def anew(cls) -> Nodes:
        suffix = secrets.token_hex(4)
        return cls(*(f"node-{name}-{suffix}" for name in ("a", "b", "none")))


@dataclass(frozen=True)
class Selection:
    """What one watch or list asks for. `mark` writes an object last of which the watch shows ADDED.

    `age`: the row of `AGES` that it is about, if any.
    """

    kind: str
    query: dict[str, str]
    mark: dict[str, Any]
    accept: str = "application/json"
    phase: str = ""
    name: str = ""
    labels: dict[str, str] = field(default_factory=dict)
    age: str | None = None

    @property
    def custom(self) -> bool:
        """Whether objects are written as maps; metadata of custom resources is typed as all metadata is."""
        return self.kind == "noxus"

    def __str__(self) -> str:
        form = " as metadata" if self.accept == PARTIAL else ""
        return f"{self.kind} {self.query}{form}"


def selections(nodes: Nodes) -> list[Selection]:
    """Selectors of all kinds: none, labels in each operator, fields that change and that do not, both, one name."""

    def labelled(kind: str, selector: str, **labels: str) -> Selection:
        return Selection(kind, {"labelSelector": selector}, {}, labels=labels)

    def pods(selector: str, *, phase: str = "", labels: dict[str, str] | None = None, **mark: Any) -> Selection:
        return Selection("pods", {"fieldSelector": selector}, mark, phase=phase, labels=labels or {})

    def noxus(selector: str, **mark: str) -> Selection:
        return Selection("noxus", {"fieldSelector": selector}, mark, age="selectable fields")

    return [
        Selection("configmaps", {}, {}),
        Selection("configmaps", {}, {}, accept=PARTIAL),
        labelled("configmaps", "app=a", app="a"),
        labelled("configmaps", "app in (a,b)", app="b"),
        labelled("configmaps", "app notin (a)", app="c"),
        labelled("configmaps", "!app"),
        labelled("configmaps", "app,app!=b", app="c"),
        Selection("configmaps", {"fieldSelector": "metadata.name=m3"}, {}, name="m3"),
        Selection(
            "configmaps",
            {"fieldSelector": "metadata.name!=m3", "labelSelector": "app=a"},
            {},
            labels={"app": "a"},
        ),
        Selection("pods", {}, {}),
        pods(f"spec.nodeName={nodes.a}", nodeName=nodes.a),
        pods(f"spec.nodeName={nodes.none}", nodeName=nodes.none),
        pods(f"spec.nodeName!={nodes.a}"),
        pods("spec.nodeName="),
        pods("status.phase=Running", phase="Running", nodeName=nodes.b),
        pods("status.phase!=Pending,status.phase!=Succeeded", phase="Running", nodeName=nodes.b),
        pods(f"spec.nodeName={nodes.a},status.phase=Running", phase="Running", nodeName=nodes.a),
        Selection("pods", {"fieldSelector": "status.phase=Running"}, {"nodeName": nodes.b}, PARTIAL, "Running"),
        Selection(
            "pods",
            {"fieldSelector": "status.phase=Running", "labelSelector": "app=a"},
            {"nodeName": nodes.b},
            phase="Running",
            labels={"app": "a"},
        ),
        labelled("pods", "app=b", app="b"),
        Selection("noxus", {}, {}),
        noxus("host=host1", host="host1"),
        noxus("host=host1,port!=80", host="host1", port="81"),
        labelled("noxus", "app=a", app="a"),
    ]


class Course:
    """Writes objects of three kinds into a namespace of a member; what there is, it knows itself."""

    def __init__(self, member: Endpoint, namespace: str, definition: Definition, seed: int) -> None:
        self.member = member
        self.random = random.Random(seed)
        self.definition = definition
        self.nodes = Nodes.anew()
        # Those that a member of its age knows.
        self.selections = [one for one in selections(self.nodes) if one.age is None or member.does(one.age)]
        self.paths = {
            "configmaps": f"/api/v1/namespaces/{namespace}/configmaps",
            "pods": f"/api/v1/namespaces/{namespace}/pods",
            "noxus": definition.objects.replace("noxus", f"namespaces/{namespace}/noxus"),
        }
        self.existing: dict[str, list[str]] = {kind: [] for kind in self.paths}
        self.written = 0
        self._number = 0

    def _labels(self) -> dict[str, str]:
        app = self.random.choice(("a", "b", "c", ""))
        return {"app": app} if app else {}

    async def step(self) -> None:
        """One write, or a burst of them."""
        kind = self.random.choice(tuple(self.paths))
        known = self.existing[kind]
        if not known or (len(known) < 8 and self.random.random() < 0.3):
            await self._create(kind)
            return
        name = self.random.choice(known)
        steps: list[tuple[float, Callable[[str, str], Awaitable[None]]]] = [
            (0.30, self._relabel),
            (0.30, self._change),
            (0.15, self._delete),
            (0.05, self._recreate),
            (0.03, self._burst),
        ]
        if kind == "pods":
            steps.append((0.25, self._phase))
        weights, choices = zip(*steps, strict=True)
        await self.random.choices(choices, weights)[0](kind, name)

    async def _create(self, kind: str, name: str = "") -> None:
        if not name:
            free = [f"m{number}" for number in range(10) if f"m{number}" not in self.existing[kind]]
            name = self.random.choice(free)
        body: dict[str, Any] = {"metadata": {"name": name, "labels": self._labels()}}
        if self.random.random() < 0.3:
            body["metadata"]["annotations"] = {"text": 'with "quotes", <tags> & ümlauts \u2028'}
        if kind == "pods":
            body["spec"] = pod_spec(self.random.choice((*self.nodes, "")))
        elif kind == "noxus":
            body = self.definition.instance(name, host=self.random.choice(("host1", "host2")), port="80") | body
        await self.member.create(self.paths[kind], body)
        self.existing[kind].append(name)
        self.written += 1

    async def _relabel(self, kind: str, name: str) -> None:
        labels = {"app": self._labels().get("app")}
        await self._patch(kind, name, {"metadata": {"labels": labels}})

    async def _change(self, kind: str, name: str) -> None:
        self._number += 1
        if kind == "configmaps":
            await self._patch(kind, name, {"data": {"number": str(self._number), "text": "<&>"}})
        elif kind == "pods":
            await self._patch(kind, name, {"metadata": {"annotations": {"number": str(self._number)}}})
        else:
            changes = {"host": self.random.choice(("host1", "host2")), "port": self.random.choice(("80", "81"))}
            await self._patch(kind, name, {**changes, "dummy": str(self._number)})

    async def _burst(self, kind: str, name: str) -> None:
        for _ in range(BURST):
            await self._change(kind, name)

    async def _phase(self, kind: str, name: str) -> None:
        await self.phase(name, self.random.choice(PHASES))

    async def phase(self, name: str, phase: str) -> None:
        await self.member.patch(f"{self.paths['pods']}/{name}/status", {"status": {"phase": phase}})
        self.written += 1

    async def _delete(self, kind: str, name: str) -> None:
        options = {"gracePeriodSeconds": 0} if kind == "pods" else {}
        await self.member.delete(f"{self.paths[kind]}/{name}", **options)
        self.existing[kind].remove(name)
        self.written += 1

    async def _recreate(self, kind: str, name: str) -> None:
        """Another object of the same name at once."""
        await self._delete(kind, name)
        await self._create(kind, name)

    async def _patch(self, kind: str, name: str, patch: Any) -> None:
        await self.member.patch(f"{self.paths[kind]}/{name}", patch)
        self.written += 1

    async def mark(self, number: int, selection: Selection) -> None:
        """Write the object whose ADDED is the last event of a watch of `selection` that is compared."""
        path = self.paths[selection.kind]
        name = selection.name or f"zz-mark-{number:03d}"
        if selection.name:
            try:
                await self.member.delete(f"{path}/{name}")
            except Refused as refused:
                assert refused.code == 404  # noqa: PT017 - it need not be there
        body: dict[str, Any] = {
            "metadata": {"name": name, "labels": selection.labels, "annotations": {"mark": str(number)}}
        }
        if selection.kind == "pods":
            body["spec"] = pod_spec(selection.mark.get("nodeName", ""))
        elif selection.kind == "noxus":
            body = {**self.definition.instance(name), **selection.mark, **body}
        await self.member.create(path, body)
        if selection.phase:
            await self.phase(name, selection.phase)


def pod_spec(node: str) -> dict[str, Any]:
    """The spec of a pod on a node; "" is on none."""
    spec: dict[str, Any] = {"containers": [{"name": "a", "image": "registry.k8s.io/pause:3.10"}]}
    return {**spec, "nodeName": node} if node else spec
