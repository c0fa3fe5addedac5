"""Collections: several types in one list, in pages, as a table, and in one watch that goes on at any of its indexes."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import AsyncIterator
from random import Random
from typing import Any

import pytest

from deltalog.wire.subjects import REMOVED, SYNCED, TYPE
from query.objects import lists, turns
from query.search.collection_file import read_collections
from tests.materializer.conftest import made_delta, with_body
from tests.query.scene import Answers, Scene

ROOT = "/apis/clusterpedia.io/v1beta1/collectionresources"
TABLE = "application/json;as=Table;v=v1;g=meta.k8s.io"
METADATA = "application/json;as=PartialObjectMetadataList;v=v1;g=meta.k8s.io"
TYPES = {
    "pods": ("", "Pod", "v1"),
    "deployments": ("apps", "Deployment", "v1"),
    "statefulsets": ("apps", "StatefulSet", "v1"),
    "ships": ("sea.example.io", "Ship", "v2"),
}

CLUSTERS, NAMES = ("alpha", "bravo"), ("one", "two")


class Several(Scene):
    """A store of several types."""

    def __init__(self) -> None:
        super().__init__()
        for cluster in ("alpha", "bravo"):
            for resource, (group, kind, version) in TYPES.items():
                if resource != "pods":
                    data = {"kind": kind, "version": version, "namespaced": True}
                    self.control(TYPE, cluster, resource, group, data=data)
                    self.control(SYNCED, cluster, resource, group, data={"version": "1"})
        self.uids: Counter[str] = Counter()

    def uid(self, *place: str) -> str:
        """Another one for each time that an object of a place is created."""
        *where, type_ = place
        self.uids.update({str(where): 1} if type_ == "ADDED" else {})
        return f"{'-'.join(where)}-{self.uids[str(where)]}"

    def one(self, resource: str, name: str, type_: str = "ADDED", *, cluster: str = "alpha", **given: Any) -> int:
        group, kind, version = TYPES[resource]
        body, labels = given.pop("body", {}), {"cluster": cluster, **given.pop("labels", {})}
        delta = made_delta(
            name,
            type_,
            cluster=cluster,
            group=group,
            resource=resource,
            kind=kind,
            version=version,
            labels=labels,
            member_version=str(self.index + 1),
            uid=self.uid(resource, cluster, name, type_),
            **given,
        )
        self.index += 1
        self.store.apply_delta(with_body(delta, body) if body else delta, self.index, 0)
        return self.index


def fleet() -> Several:
    made = Several()
    for resource in ("ships", "pods", "statefulsets", "deployments"):
        for cluster in ("bravo", "alpha"):
            for name in ("one", "two"):
                labels = {"app": name, "of": resource}
                made.one(resource, name, cluster=cluster, namespace="web", labels=labels, body={"spec": {"n": 1}})
    return made


def place(item: dict[str, Any]) -> tuple[str, str, str]:
    metadata = item["metadata"]
    return item["kind"], metadata["labels"]["cluster"], metadata["name"]


ALL = [
    (kind, cluster, name)
    for kind in ("Pod", "Deployment", "StatefulSet", "Ship")
    for cluster in ("alpha", "bravo")
    for name in ("one", "two")
]


async def test_what_collections_there_are() -> None:
    async with fleet().serving() as ask:
        found = await ask.json(ROOT)
        assert found["kind"] == "CollectionResourceList"
        assert [one["metadata"]["name"] for one in found["items"]] == ["any", "workloads", "kuberesources"]
        assert {one["resource"] for one in found["items"][1]["resourceTypes"]} == {
            "deployments",
            "daemonsets",
            "statefulsets",
        }
        table = await ask.json(ROOT, TABLE)
        assert [row["cells"] for row in table["rows"]][:2] == [
            ["any", "*"],
            ["workloads", "apps.deployments,apps.daemonsets,apps.statefulsets"],
        ]
        missing = await ask.json(f"{ROOT}/nothing", code=404)
        assert missing["message"] == 'collectionresources.clusterpedia.io "nothing" not found'
        await ask.json(f"{ROOT}?watch=1", code=400)
        await ask.json(f"{ROOT}/any/status", code=404)
        async with ask.session.post(f"{ask.url}{ROOT}/any") as answer:
            assert answer.status == 405


@pytest.mark.parametrize(
    ("path", "kinds"),
    [
        ("workloads", {"Deployment", "StatefulSet"}),
        ("kuberesources", {"Pod", "Deployment", "StatefulSet"}),
        ("any?groups=*", {"Pod", "Deployment", "StatefulSet", "Ship"}),
        ("any?groups=apps", {"Deployment", "StatefulSet"}),
        ("any?groups=core,sea.example.io/v2", {"Pod", "Ship"}),
        ("any?groups=sea.example.io/v1", set()),
        ("any?resources=pods,apps/deployments", {"Pod", "Deployment"}),
        ("any?resources=v1/pods,sea.example.io/v2/ships", {"Pod", "Ship"}),
        ("any?resources=ships.sea.example.io,apps/v2/deployments", {"Ship"}),
        ("any?groups=core&resources=apps/statefulsets", {"Pod", "StatefulSet"}),
        ("any?resources=nothings", set()),
    ],
)
async def test_which_types_one_has(path: str, kinds: set[str]) -> None:
    async with fleet().serving() as ask:
        found = await ask.json(f"{ROOT}/{path}")
        async with ask.session.get(f"{ask.url}{ROOT}/{path}") as answer:
            assert ("no type that discovery shows" in str(answer.headers.getall("Warning", ()))) is (not kinds)
    assert (found["kind"], found["apiVersion"]) == ("CollectionResource", "clusterpedia.io/v1beta1")
    assert found["metadata"]["name"] == path.partition("?")[0]
    assert {one["kind"] for one in found["resourceTypes"]} == kinds
    assert [place(item) for item in found["items"]] == [one for one in ALL if one[0] in kinds]
    assert {item["apiVersion"] for item in found["items"]} <= {"v1", "apps/v1", "sea.example.io/v2"}


@pytest.mark.parametrize(
    "query", ["", "?groups=", "?groups=/v1", "?groups=a/b/c", "?resources=a/b/c/d", "?resources=/"]
)
async def test_types_that_are_none(query: str) -> None:
    async with fleet().serving() as ask:
        assert (await ask.json(f"{ROOT}/any{query}", code=400))["reason"] == "BadRequest"


async def test_those_of_the_configuration_are_as_the_others() -> None:
    [fleet_, of_one] = read_collections(
        b"""
- name: fleet
  resourceTypes: [{group: sea.example.io, version: v2, resource: ships}, {resource: pods}, {group: none.example.io}]
- name: old-ships
  resourceTypes: [{group: sea.example.io, version: v1, resource: ships}]
"""
    )
    made = fleet()
    async with made.serving(collections=[fleet_, of_one]) as ask:
        listed = (await ask.json(ROOT))["items"]
        assert [one["metadata"]["name"] for one in listed] == [
            "any",
            "workloads",
            "kuberesources",
            "fleet",
            "old-ships",
        ]
        assert listed[3]["resourceTypes"] == [
            {"group": "sea.example.io", "version": "v2", "resource": "ships"},
            {"group": "", "version": "", "resource": "pods"},
            {"group": "none.example.io", "version": "", "resource": ""},
        ]
        rows = (await ask.json(ROOT, TABLE))["rows"]
        assert rows[3]["cells"] == ["fleet", "sea.example.io.ships,.pods,none.example.io.*"]
        wanted = [one for one in ALL if one[0] in ("Pod", "Ship")]
        found = await ask.json(f"{ROOT}/fleet")
        assert (found["metadata"]["name"], [place(item) for item in found["items"]]) == ("fleet", wanted)
        assert (await ask.json(f"{ROOT}/old-ships"))["items"] == []
        first = await ask.json(f"{ROOT}/fleet?limit=3&onlyMetadata=true&orderby=name")
        rest = await ask.json(f"{ROOT}/fleet?limit=9&onlyMetadata=true&orderby=name&continue={first['continue']}")
        assert (first["remainingItemCount"], rest["remainingItemCount"], len(rest["items"])) == (5, 0, 5)
        assert sorted(place(item) for item in first["items"] + rest["items"]) == sorted(wanted)
        table = await ask.json(f"{ROOT}/fleet?names=two", TABLE)
        assert [row["cells"][3] for row in table["rows"]] == ["Pod", "Pod", "Ship", "Ship"]
        begin = made.index
        made.one("deployments", "new", namespace="web")
        made.one("ships", "new", namespace="web")
        made.tell()
        watched = await ask.events(f"{ROOT}/fleet?watch=1&timeoutSeconds=1&resourceVersion=abcdefgh.{begin}")
        assert [told(one) for one in watched] == [("ADDED", "Ship", "alpha", "new")]


async def test_searches_and_forms() -> None:
    async with fleet().serving() as ask:
        root = f"{ROOT}/any?groups=*"

        async def places(query: str) -> list[tuple[str, str, str]]:
            return [place(item) for item in (await ask.json(f"{root}&{query}"))["items"]]

        assert await places("labelSelector=app%3Done,search.clusterpedia.io/clusters%3Dbravo") == [
            one for one in ALL if one[1:] == ("bravo", "one")
        ]
        assert await places("filter=object.kind%20==%20%22Ship%22") == [one for one in ALL if one[0] == "Ship"]
        assert await places("fieldSelector=spec.n%3E0&names=two") == [one for one in ALL if one[2] == "two"]
        assert await places("fieldSelector=spec.n%3E1") == []
        assert await places("namespaces=db") == []
        table = await ask.json(root, TABLE)
        assert [one["name"] for one in table["columnDefinitions"]] == [
            "Cluster",
            "Group",
            "Version",
            "Kind",
            "Namespace",
            "Name",
            "Age",
        ]
        assert table["rows"][4]["cells"][:6] == ["alpha", "apps", "v1", "Deployment", "web", "one"]
        assert table["rows"][4]["object"]["kind"] == "PartialObjectMetadata"
        only = await ask.json(f"{root}&onlyMetadata=true")
        assert [place(item) for item in only["items"]] == ALL
        assert {frozenset(item) for item in only["items"]} == {frozenset({"kind", "apiVersion", "metadata"})}
        partial = await ask.json(root, METADATA)
        assert partial["kind"] == "PartialObjectMetadataList"
        assert {item["kind"] for item in partial["items"]} == {"PartialObjectMetadata"}
        status, body = await ask.text(root, "application/yaml")
        assert (status, body.count(b"\n- ") + body.count(b"\n  - ")) >= (200, 16)
        numbered = await ask.json(f"/int{root}")
        assert all(item["metadata"]["resourceVersion"].isdigit() for item in numbered["items"])


@pytest.mark.parametrize("order", ["", "name desc", "created_at,cluster desc", "resource_version desc"])
async def test_pages_are_one_state_with_exact_counts(order: str) -> None:
    made = fleet()
    async with made.serving() as ask:
        root = f"{ROOT}/any?groups=*&limit=3" + (f"&orderby={order.replace(' ', '%20')}" if order else "")
        whole = [place(item) for item in (await ask.json(root.replace("limit=3", "limit=0")))["items"]]
        assert sorted(whole) == sorted(ALL)
        if order == "name desc":
            assert [one[2] for one in whole] == ["two"] * 8 + ["one"] * 8
        found: list[tuple[str, str, str]] = []
        versions, token = set(), ""
        while True:
            page = await ask.json(root + (f"&continue={token}" if token else ""))
            found += [place(item) for item in page["items"]]
            versions.add(page["metadata"]["resourceVersion"])
            assert page["remainingItemCount"] == len(whole) - len(found)
            if not (token := page.get("continue", "")):
                break
            made.one("pods", f"new-{len(found)}", namespace="web")
            made.one("ships", "one", "DELETED", namespace="web")
        assert (found, len(versions)) == (whole, 1)
        wrong = await ask.json(f"{ROOT}/any?groups=*&limit=1")
        await ask.json(f"{ROOT}/any?groups=*&orderby=uid&continue={wrong['continue']}", code=400)
        offset = await ask.json(f"{ROOT}/any?groups=*&limit=2&continue=5")
        again = await ask.json(f"{ROOT}/any?groups=*")
        assert offset["items"] == again["items"][5:7]


@pytest.mark.parametrize("remembered", [True, False])
async def test_a_list_is_of_one_index_though_types_change_while_it_is_made(
    monkeypatch: pytest.MonkeyPatch, remembered: bool
) -> None:
    """A turn of the loop between any two types, in which some of them change; with no window, too."""
    monkeypatch.setattr(lists, "STEP", 1)
    monkeypatch.setattr(turns, "_SLICE_SECONDS", 0.0)
    made = fleet()
    chance = Random(1)
    state = {(TYPES[resource][1], cluster, name) for resource in TYPES for cluster in CLUSTERS for name in NAMES}
    states = {made.index: frozenset(state)}
    if not remembered:
        made.store.window.resize(0)
    done = asyncio.Event()

    async def write() -> None:
        while not done.is_set():
            resource, cluster, name = chance.choice(list(TYPES)), chance.choice(CLUSTERS), f"n{chance.randrange(4)}"
            place_ = (TYPES[resource][1], cluster, name)
            type_ = "DELETED" if place_ in state else "ADDED"
            (state.discard if type_ == "DELETED" else state.add)(place_)
            made.one(resource, name, type_, cluster=cluster, namespace="web", labels={"of": resource})
            states[made.index] = frozenset(state)
            await asyncio.sleep(0)

    async with made.serving() as ask:
        writing = asyncio.create_task(write())
        indexes = set()
        for query in ["groups=*", "groups=*&labelSelector=of", "groups=*&orderby=name&limit=500"] * 8:
            found = await ask.json(f"{ROOT}/any?{query}")
            index = int(found["metadata"]["resourceVersion"].split(".")[1])
            places = [place(item) for item in found["items"]]
            assert len(places) == len(set(places))
            assert set(places) == states[index], query
            if "orderby" not in query:
                kinds = [one[0] for one in places]
                assert kinds == sorted(kinds, key=["Pod", "Deployment", "StatefulSet", "Ship"].index)
                assert places == sorted(places, key=lambda one: (kinds.index(one[0]), one[1:]))
            indexes.add(index)
        done.set()
        await writing
    assert len(indexes) > 10


# -- watches -----------------------------------------------------------------------------------------------------------


async def lines(ask: Answers, path: str) -> AsyncIterator[dict[str, Any]]:
    async with ask.session.get(ask.url + path) as answer:
        assert answer.status == 200, await answer.text()
        async for line in answer.content:
            yield json.loads(line)


def told(event: dict[str, Any]) -> tuple[str, str, str, str]:
    return (event["type"], *place(event["object"]))


async def test_a_watch_begins_with_the_state_of_all_types() -> None:
    made = fleet()
    async with made.serving() as ask:
        query = "groups=*&watch=1&timeoutSeconds=1&sendInitialEvents=true&resourceVersionMatch=NotOlderThan"
        events = await ask.events(f"{ROOT}/any?{query}&allowWatchBookmarks=true")
        assert [told(one) for one in events[:16]] == [("ADDED", *one) for one in ALL]
        mark = events[16]["object"]["metadata"]
        assert mark["annotations"] == {"k8s.io/initial-events-end": "true"}
        assert mark["resourceVersion"] == f"abcdefgh.{made.index}"
        rows = await ask.events(f"{ROOT}/any?{query}&labelSelector=app%3Done", TABLE)
        assert [len(one["object"]["rows"]) for one in rows] == [1] * 8
        assert rows[2]["object"]["rows"][0]["cells"][3] == "Deployment"
        only = await ask.events(f"{ROOT}/any?{query}&onlyMetadata=true")
        assert [told(one) for one in only] == [("ADDED", *one) for one in ALL]
        assert all("spec" not in one["object"] for one in only)


async def test_a_watch_is_in_the_order_of_the_log() -> None:
    made = fleet()
    begin = made.index
    wanted = []
    for at, resource in enumerate(("ships", "pods", "deployments", "pods", "statefulsets", "ships", "deployments")):
        made.one(resource, f"new-{at}", namespace="web", cluster=("alpha", "bravo")[at % 2])
        wanted.append((TYPES[resource][1], f"new-{at}"))
    async with made.serving() as ask:
        events = await ask.events(f"{ROOT}/any?groups=*&watch=1&timeoutSeconds=1&resourceVersion=abcdefgh.{begin}")
        assert [(one["object"]["kind"], one["object"]["metadata"]["name"]) for one in events] == wanted
        versions = [int(one["object"]["metadata"]["resourceVersion"].split(".")[1]) for one in events]
        assert versions == sorted(versions)
        # Of a foreign history, and of clusters' own versions.
        [gone] = await ask.events(f"{ROOT}/any?groups=*&watch=1&resourceVersion=ijklmnop.4")
        assert gone["object"]["code"] == 410
        status, _ = await ask.text(f'{ROOT}/any?groups=*&watch=1&resourceVersion={{"alpha":"1"}}')
        assert status == 400


@pytest.mark.slow
async def test_a_removal_of_a_cluster_is_shown_again_to_who_is_cut_off_within_it() -> None:
    made = fleet()
    begin = made.index
    made.one("ships", "late", namespace="web", cluster="bravo")
    made.control(REMOVED, "alpha")
    async with made.serving() as ask:
        path = f"{ROOT}/any?groups=*&watch=1&timeoutSeconds=1&resourceVersion="
        events = await ask.events(f"{path}abcdefgh.{begin}")
        removed = [told(one) for one in events[1:]]
        assert told(events[0]) == ("ADDED", "Ship", "bravo", "late")
        assert sorted(removed) == sorted(("DELETED", *one) for one in ALL if one[1] == "alpha")
        for at in range(1, len(events)):
            version = events[at]["object"]["metadata"]["resourceVersion"]
            rest = [told(one) for one in await ask.events(path + version)]
            if at < len(events) - 1:
                assert sorted(rest) == sorted(removed), at
            else:
                assert rest == []


@pytest.mark.parametrize("seed", range(6))
async def test_watches_that_are_cut_anywhere_lose_nothing_and_repeat_nothing(seed: int) -> None:
    """Two watchers, one cut off and resumed at random, through random changes of all types."""
    chance = Random(seed)
    made = fleet()
    begin = made.index
    happened: list[tuple[str, str, str]] = []
    live: set[tuple[str, str, str]] = {
        (resource, cluster, name) for resource in TYPES for cluster in ("alpha", "bravo") for name in ("one", "two")
    }

    def change() -> None:
        resource, cluster = chance.choice(list(TYPES)), chance.choice(("alpha", "bravo"))
        name = chance.choice(("one", "two", "three"))
        known = (resource, cluster, name) in live
        kind = "ADDED" if not known else chance.choice(("MODIFIED", "DELETED"))
        (live.discard if kind == "DELETED" else live.add)((resource, cluster, name))
        index = made.one(resource, name, kind, cluster=cluster, namespace="web")
        happened.append((kind, f"{resource}/{cluster}/{name}", str(index)))

    def said(event: dict[str, Any]) -> tuple[str, str, str]:
        kind, cluster, name = place(event["object"])
        resource = next(one for one, of in TYPES.items() if of[1] == kind)
        version = event["object"]["metadata"]["resourceVersion"].split(".")[1]
        return event["type"], f"{resource}/{cluster}/{name}", version

    async with made.serving() as ask:

        async def follow(cut: bool) -> list[tuple[str, str, str]]:
            seen: list[tuple[str, str, str]] = []
            version = f"abcdefgh.{begin}"
            for _ in range(300):
                most = chance.randrange(1, 40) if cut else 300
                stream = lines(ask, f"{ROOT}/any?groups=*&watch=1&timeoutSeconds=6&resourceVersion={version}")
                async for event in stream:
                    seen.append(said(event))
                    version = event["object"]["metadata"]["resourceVersion"]
                    most -= 1
                    if not most or len(seen) == 300:
                        break
                await stream.aclose()  # type: ignore[attr-defined]
                if len(seen) == 300 or not cut:
                    break
            return seen

        async def write() -> None:
            while len(happened) < 300:
                for _ in range(min(chance.randrange(1, 25), 300 - len(happened))):
                    change()
                made.tell()
                await asyncio.sleep(0.001)

        first, second, _ = await asyncio.gather(follow(True), follow(False), write())
    assert first == happened
    assert second == happened


async def test_a_watch_ends_with_its_set_of_types() -> None:
    made = fleet()
    async with made.serving() as ask:
        stream = lines(ask, f"{ROOT}/any?groups=sea.example.io&watch=1&timeoutSeconds=6")
        seen = [told(await anext(stream)) for _ in range(4)]
        assert {one[1] for one in seen} == {"Ship"}
        data = {"kind": "Port", "version": "v1", "namespaced": True}
        made.control(TYPE, "alpha", "ports", "sea.example.io", data=data)
        made.tell()
        # Without an error, so that a client goes on from its version, with the new type.
        assert [one async for one in stream] == []


@pytest.mark.parametrize("seed", range(4))
async def test_a_watch_from_before_the_window_ends_up_with_what_there_is(seed: int) -> None:
    """Each object once, in the order of the log, to one that is cut off anywhere, too."""
    chance = Random(seed)
    made = fleet()
    begin = made.index
    live = dict.fromkeys(ALL, f"abcdefgh.{begin}")
    for _ in range(200):
        resource, cluster, name = chance.choice(list(TYPES)), chance.choice(("alpha", "bravo")), chance.choice("abc")
        place_ = (TYPES[resource][1], cluster, name)
        gone = place_ in live and chance.random() < 0.4
        type_ = "DELETED" if gone else "MODIFIED" if place_ in live else "ADDED"
        index = made.one(resource, name, type_, cluster=cluster, namespace="web")
        if gone:
            del live[place_]
        else:
            live[place_] = f"abcdefgh.{index}"
    made.store.window.open(made.index)
    held = set(ALL)
    version, last = f"abcdefgh.{begin}", 0
    async with made.serving() as ask:
        for _ in range(30):
            stream = lines(ask, f"{ROOT}/any?groups=*&watch=1&timeoutSeconds=1&resourceVersion={version}")
            most = chance.randrange(1, 12)
            async for event in stream:
                kind, *where = told(event)
                version = event["object"]["metadata"]["resourceVersion"]
                index = int(version.split(".")[1])
                assert index >= last
                last = index
                (held.discard if kind == "DELETED" else held.add)((where[0], where[1], where[2]))
                most -= 1
                if not most:
                    break
            await stream.aclose()  # type: ignore[attr-defined]
            if most:
                break
    assert held == set(live)
