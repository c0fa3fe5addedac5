"""Events of objects in their annotations, where a request asks for it."""

from __future__ import annotations

import json
from typing import Any
from urllib.parse import quote

import pytest

from deltalog.wire.subjects import SYNCED, TYPE
from query.objects.injected_events import MOST
from tests.materializer.conftest import made_delta
from tests.query.access.guarded import DISCOVERY, KINDS, World, rule
from tests.query.scene import Scene
from tests.query.test_collections import ROOT, Several

ANNOTATION = "shadow.clusterpedia.io/events"
PODS = "/api/v1/pods"
ASKED = "injectEvents=true"


class Eventful(Several):
    """Objects, and Events about them."""

    def __init__(self) -> None:
        super().__init__()
        for cluster in ("alpha", "bravo"):
            self.control(TYPE, cluster, "events", data={"kind": "Event", "version": "v1", "namespaced": True})
            self.control(SYNCED, cluster, "events", data={"version": "1"})

    def event(
        self, name: str, uid: str, type_: str = "ADDED", *, cluster: str = "alpha", version: int | None = None
    ) -> None:
        self.put(
            name,
            {"involvedObject": {"uid": uid}, "message": f'of "{name}"'},
            type_,
            uid=f"event-{name}",
            member_version=str(self.index + 1 if version is None else version),
            cluster=cluster,
            resource="events",
            kind="Event",
            namespace="web",
            fields={"involvedObject.uid": uid},
        )


def scene() -> Eventful:
    made = Eventful()
    for resource in ("pods", "ships"):
        for cluster in ("alpha", "bravo"):
            made.one(resource, "one", cluster=cluster, namespace="web", body={"spec": {"n": 1}})
    made.one("pods", "quiet", namespace="web")
    made.event("late", "pods-alpha-one-1")
    made.event("early", "pods-alpha-one-1")
    # Of another cluster's object that has the same uid.
    made.event("other", "pods-alpha-one-1", cluster="bravo")
    made.event("ship", "ships-alpha-one-1")
    return made


def events(item: dict[str, Any]) -> list[str]:
    found = json.loads(item["metadata"]["annotations"][ANNOTATION])
    assert all((one["kind"], one["apiVersion"]) == ("Event", "v1") for one in found)
    assert all(one["message"] == f'of "{one["metadata"]["name"]}"' for one in found)
    return [one["metadata"]["name"] for one in found]


@pytest.mark.parametrize("scope", ["", "/clusters/alpha", "/int", "/apis/clusterpedia.io/v1beta1/resources"])
async def test_of_a_list_by_query_and_by_label(scope: str) -> None:
    made = scene()
    async with made.serving() as ask:
        plain = await ask.json(f"{scope}{PODS}")
        assert ANNOTATION not in json.dumps(plain)
        found = await ask.json(f"{scope}{PODS}?{ASKED}")
        label = quote("search.clusterpedia.io/inject-events=true")
        assert await ask.json(f"{scope}{PODS}?labelSelector={label}") == found
        first = {item["metadata"]["uid"]: events(item) for item in found["items"]}
        wanted = {"pods-alpha-one-1": ["late", "early"], "pods-alpha-quiet-1": []}
        assert first == (wanted if "alpha" in scope else wanted | {"pods-bravo-one-1": []})
        for item in found["items"]:
            # All else is as it was.
            del item["metadata"]["annotations"][ANNOTATION]
            if not item["metadata"]["annotations"]:
                del item["metadata"]["annotations"]
        assert found == plain
        page = await ask.json(f"{scope}{PODS}?{ASKED}&limit=1&names=one")
        assert events(page["items"][0]) == ["late", "early"]
        assert ANNOTATION in (await ask.text(f"{scope}{PODS}?{ASKED}", "application/yaml"))[1].decode()


async def test_of_one_object_of_custom_resources_and_of_collections() -> None:
    made = scene()
    async with made.serving() as ask:
        one = await ask.json(f"/clusters/alpha/api/v1/namespaces/web/pods/one?{ASKED}")
        assert events(one) == ["late", "early"]
        assert ANNOTATION not in json.dumps(await ask.json("/clusters/alpha/api/v1/namespaces/web/pods/one"))
        await ask.json("/clusters/alpha/api/v1/namespaces/web/pods/one?injectEvents=maybe", code=400)
        ships = await ask.json(f"/apis/sea.example.io/v2/ships?{ASKED}")
        assert [events(item) for item in ships["items"]] == [["ship"], []]
        found = await ask.json(f"{ROOT}/any?groups=sea.example.io&resources=pods&{ASKED}")
        assert [events(item) for item in found["items"]] == [["late", "early"], [], [], ["ship"], []]
        only = await ask.json(f"{ROOT}/any?resources=pods&onlyMetadata=true&{ASKED}")
        assert [events(item) for item in only["items"]] == [["late", "early"], [], []]


async def test_they_are_bounded_and_go_with_the_events() -> None:
    made = scene()
    for at in range(MOST + 5):
        made.event(f"many-{at}", "pods-alpha-quiet-1")
    made.event("late", "pods-alpha-one-1", "DELETED")
    async with made.serving() as ask:
        quiet = await ask.json(f"/clusters/alpha/api/v1/namespaces/web/pods/quiet?{ASKED}")
        assert events(quiet) == [f"many-{at}" for at in range(5, MOST + 5)]
        assert events(await ask.json(f"/clusters/alpha/api/v1/namespaces/web/pods/one?{ASKED}")) == ["early"]
        made.one("pods", "one", "DELETED", namespace="web")
        found = await ask.json(f"{PODS}?{ASKED}")
        assert [events(item) for item in found["items"]] == [events(quiet), []]


async def test_the_newest_are_those_of_the_clusters_latest_versions() -> None:
    """A first list brings them in the order of their names."""
    made = scene()
    for at in range(MOST + 5):
        made.event(f"listed-{at:03}", "pods-alpha-quiet-1", version=1050 - at)
    async with made.serving() as ask:
        quiet = await ask.json(f"/clusters/alpha/api/v1/namespaces/web/pods/quiet?{ASKED}")
    assert events(quiet) == [f"listed-{at:03}" for at in reversed(range(MOST))]


async def test_where_no_events_are_synced_there_are_none() -> None:
    made = Scene()
    made.delta("one", namespace="web")
    async with made.serving() as ask:
        found = await ask.json(f"{PODS}?{ASKED}")
    assert [events(item) for item in found["items"]] == [[]]


async def test_only_events_that_may_be_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(KINDS, ("", "events"), ("Event", True))
    made = World("alpha", "bravo")
    for cluster in ("alpha", "bravo"):
        made.cluster_role(cluster, "discovery", DISCOVERY, to="group:system:authenticated")
        made.cluster_role(cluster, "pods", rule("pods"), to="user:jane")
        made.pod(cluster, "web", "one")
        made.index += 1
        made.store.apply_delta(about(cluster, made.index), made.index, 0)
    made.cluster_role("alpha", "events", rule("events"), to="user:jane")
    async with made.serving() as as_user:
        found = await as_user("jane").json(f"{PODS}?{ASKED}")
        assert [len(json.loads(item["metadata"]["annotations"][ANNOTATION])) for item in found["items"]] == [1, 0]
        for cluster, number in (("alpha", 1), ("bravo", 0)):
            one = await as_user("jane").json(f"/clusters/{cluster}/api/v1/namespaces/web/pods/one?{ASKED}")
            assert len(json.loads(one["metadata"]["annotations"][ANNOTATION])) == number


def about(cluster: str, index: int) -> Any:
    return made_delta(
        "event",
        uid=f"event-{cluster}",
        member_version=str(index),
        cluster=cluster,
        resource="events",
        kind="Event",
        namespace="web",
        fields={"involvedObject.uid": f"{cluster}-web-one"},
    )
