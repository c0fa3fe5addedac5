"""What a cluster serves as the log has it: kept where it is in doubt, appended only when it is another."""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import json
from typing import Any

import pytest

from deltalog import Appender, decode_control, open_log
from deltalog.jetstream.stream import Log
from deltalog.wire.kubernetes import GroupResource, GroupVersion
from deltalog.wire.records import DiscoveryDocument
from deltalog.wire.subjects import control_subject
from producers.follow.discovery_document import kept
from producers.follow.ownership import take
from producers.follow.recorded import Recorded
from producers.follow.removal import remove_cluster
from producers.kubeconfig.files import access_of
from producers.upstream.apiserver import ApiServer
from producers.upstream.definitions import Definitions
from producers.upstream.discovery import Discovered, discover
from simulation.aggregation import registration
from simulation.faults import AwayShown
from simulation.resources import SimulatedType
from tests.patience import PATIENCE, eventually
from tests.producers.conftest import Rig
from tests.producers.test_discovery import CRDS, SERVICES, answered, crd

REPORTS = SimulatedType("reports.example.io", ("v1",), "reports", "Report")


def group(name: str, **versions: str) -> dict[str, Any]:
    """A group by its versions and their types; one that begins with `!` is stale."""
    return {
        "metadata": {"name": name},
        "versions": [
            {
                "version": version,
                "resources": [{"resource": one, "verbs": ["get"]} for one in types.strip("!").split()],
                "freshness": "Stale" if types.startswith("!") else "Current",
            }
            for version, types in versions.items()
        ],
    }


def found(
    *stale: GroupVersion, away: frozenset[str] = frozenset(), missing: frozenset[GroupResource] = frozenset()
) -> Discovered:
    return Discovered((), frozenset(name for name, _ in stale) | away, stale=frozenset(stale), missing=missing)


A, B, C = group("a", v1="one"), group("b", v2="two", v1="two"), group("c", v1="three")


def test_what_is_not_in_doubt_is_as_it_is_now() -> None:
    assert kept([A, B, C], [C, B], found()) == [C, B]
    assert kept([], [A], found(GroupVersion("a", "v1"))) == [A]


def test_groups_and_versions_that_do_not_answer_stay() -> None:
    now = [A, group("b", v2="!", v1="two more"), C]
    assert kept([A, B, C], now, found(GroupVersion("b", "v2"))) == [A, group("b", v2="two", v1="two more"), C]
    # Nothing is known of it, or no more than that.
    assert kept([A], now, found(GroupVersion("b", "v2"))) == now
    assert kept([A, group("b", v2="!")], now, found(GroupVersion("b", "v2"))) == now
    # What a server shows as it knew it is no news.
    shown = [A, group("b", v2="!two", v1="two"), C]
    assert kept([A, B, C], shown, found(GroupVersion("b", "v2"))) == [A, B, C]
    assert kept([A, C], shown, found(GroupVersion("b", "v2"))) == shown


def test_groups_that_are_left_out_come_back_where_they_were() -> None:
    away = found(away=frozenset({"b"}))
    assert kept([A, B, C], [A, C], away) == [A, B, C]
    assert kept([A, B, C], [C, A], away) == [C, A, B]
    assert kept([B, A], [group("0", v1="new"), A], away) == [B, group("0", v1="new"), A]
    assert kept([A, B, C], [group("d", v1="four")], away) == [B, group("d", v1="four")]


def test_custom_types_that_are_to_come_stay_and_others_go() -> None:
    before = [A, group("b", v2="two other", v1="two"), C]
    missing = found(missing=frozenset({GroupResource("b", "two"), GroupResource("z", "never")}))
    assert kept(before, [A, C], missing) == [A, group("b", v2="two", v1="two"), C]
    assert kept(before, [A, group("b", v2="more")], missing) == [A, group("b", v2="more two", v1="two")]


async def test_groups_that_were_not_understood_are_left_out() -> None:
    items = (
        b'{"items":[{"metadata":{"name":"a"},"versions":[{"version":"v1"}]},{"metadata":{"name":"b"},"versions":7}]}'
    )
    told = await answered(
        ("/api", b'{"items":null}', "application/json;g=apidiscovery.k8s.io"),
        ("/apis", items, "application/json;g=apidiscovery.k8s.io"),
    )
    assert json.loads(told.document) == [group("a", v1="")]
    assert told.doubtful == {"b"}


async def test_subresources_of_what_is_in_no_list() -> None:
    """As custom.metrics.k8s.io has them."""
    listed = {"resources": [{"name": "pods/http_requests", "namespaced": True, "kind": "Value", "verbs": ["get"]}]}
    groups = {"groups": [{"name": "m", "versions": [{"groupVersion": "m/v1", "version": "v1"}]}]}
    told = await answered(
        ("/api", b'{"versions":["v1"]}', ""),
        ("/api/v1", b'{"resources":[]}', ""),
        ("/apis", json.dumps(groups).encode(), ""),
        ("/apis/m/v1", json.dumps(listed).encode(), ""),
    )
    [_, metrics] = json.loads(told.document)
    assert metrics["versions"][0]["resources"] == [
        {
            "resource": "pods",
            "responseKind": {"kind": "", "group": "", "version": ""},
            "scope": "Namespaced",
            "singularResource": "",
            "verbs": [],
            "subresources": [
                {
                    "subresource": "http_requests",
                    "responseKind": {"kind": "Value", "group": "m", "version": "v1"},
                    "verbs": ["get"],
                }
            ],
        }
    ]


async def recorded(log: Log) -> tuple[int, list[dict[str, Any]]]:
    last = await log.last(control_subject("alpha", "discovery"))
    assert last is not None
    fact = decode_control(last[1]).fact
    assert isinstance(fact, DiscoveryDocument)
    assert fact.document is not None
    return last[0], json.loads(gzip.decompress(fact.document.body))


def names(groups: list[dict[str, Any]]) -> list[str]:
    return [one["metadata"].get("name", "") for one in groups]


@pytest.mark.parametrize("shown", ["empty", "cached", "missing"])
async def test_an_api_that_is_away_stays_as_it_was(rig: Rig, shown: AwayShown) -> None:
    rig.cluster.faults.away_shown = shown
    await rig.request("POST", SERVICES, registration("metrics.k8s.io", "v1beta1"))
    warm = await rig.materializer()
    _, task = await rig.produce("pods", "customresourcedefinitions.*")
    sequence, before = await recorded(warm.log)
    assert "metrics.k8s.io" in names(before)
    assert {key[1] for key in warm.store.clusters["alpha"].types} == {"pods", "customresourcedefinitions"}
    # It is away, and somebody looks; also a producer that begins only then.
    rig.cluster.faults.unavailable("metrics.k8s.io")
    await rig.request("POST", CRDS, crd("v1"))

    async def with_boats() -> list[dict[str, Any]]:
        async with asyncio.timeout(PATIENCE):
            while "sea.example.io" not in names(found := (await recorded(warm.log))[1]):
                await asyncio.sleep(0.05)
        return found

    after = await with_boats()
    assert [one for one in after if one["metadata"].get("name") != "sea.example.io"] == before
    sequence, _ = await recorded(warm.log)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    await rig.produce("pods")
    assert (await recorded(warm.log)) == (sequence, after), "the same is not told twice"
    assert warm.store.clusters["alpha"].discovery is not None


async def test_a_group_that_is_no_longer_registered_is_removed(rig: Rig) -> None:
    rig.cluster.aggregate(REPORTS)
    warm = await rig.materializer()
    producer, _ = await rig.produce("pods")
    assert "reports.example.io" in names((await recorded(warm.log))[1])
    rig.cluster.retire("reports.example.io")
    producer.clusters["alpha"].rediscover()
    async with asyncio.timeout(PATIENCE):
        while "reports.example.io" in names((await recorded(warm.log))[1]):
            await asyncio.sleep(0.05)


async def test_the_document_is_removed_with_its_cluster(rig: Rig) -> None:
    warm = await rig.materializer()
    _, task = await rig.produce("pods")
    await eventually(lambda: warm.store.clusters["alpha"].discovery)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    await remove_cluster(warm.log, "test", "alpha")
    assert await warm.log.last(control_subject("alpha", "discovery")) is None
    await eventually(lambda: "alpha" not in warm.store.clusters)
    assert (await rig.materializer()).store.clusters == {}


async def test_what_no_message_can_hold_is_left_out(rig: Rig) -> None:
    warm = await rig.materializer()
    server = ApiServer(access_of(str(rig.kubeconfig), "alpha"))
    writing = await open_log(await rig.connection("write"), rig.settings)
    async with contextlib.AsyncExitStack() as stack:
        stack.push_async_callback(server.close)
        appender = await stack.enter_async_context(Appender.to(writing))
        owner = await take(writing, appender, "alpha", "p")
        found = await discover(server, Definitions(server, lambda: None).current)
        small = Recorded(writing, appender, owner, limit=1000)
        await small.state_discovery(found)
        assert await writing.last(control_subject("alpha", "discovery")) is None
        await Recorded(writing, appender, owner).state_discovery(found)
    await eventually(lambda: "alpha" in warm.store.clusters and warm.store.clusters["alpha"].discovery)
