"""What was written to NATS before, read there: the log by a consumer, streams as they were made, keys of buckets."""

from __future__ import annotations

import asyncio
import base64
import json
import zlib
from collections.abc import Iterable
from typing import Any

import msgspec
import pytest

from deltalog import (
    Appender,
    BadDurable,
    Change,
    Connection,
    Durable,
    Log,
    LogSettings,
    Place,
    Removed,
    open_log,
    select,
    subscribe,
)
from deltalog.history import History
from deltalog.jetstream.bucket import Bucket
from deltalog.jetstream.opening import open_copy
from deltalog.mirror import Mirror, MirrorSettings
from producers.follow.leases import holders
from tests.golden.lines import Line, lines
from tests.patience import PATIENCE

# Of the run that the line was written in, not of the stream that it is put into now.
_EXPECTED = "Nats-Expected-"
_KV = "$KV."


async def put(connection: Connection, messages: Iterable[Line]) -> None:
    """Stores messages as they were written, each at its own sequence; what stood between them is not there."""
    async with Appender(connection) as appender:
        at = 0
        for line in sorted(messages, key=lambda one: int(one["sequence"])):
            while at < line["sequence"] - 1:
                at = await appender.append_wait("kbc.alpha.between", b"")
            headers = {key: value for key, value in line["headers"].items() if not key.startswith(_EXPECTED)}
            at = await appender.append_wait(line["subject"], line.payload, headers)
            assert at == line["sequence"]


Key = tuple[str, ...]


def body(line: Line) -> dict[str, Any]:
    """The object of a message as a consumer is shown it, put together from nothing but the lines."""
    parts = {part["sequence"]: part.payload for part in lines("parts")}
    delta = line.decoded
    stored = b"".join(parts[one] for one in delta["parts"]) or delta["object"]
    found: dict[str, Any] = json.loads(zlib.decompress(stored) if delta["compression"] else stored)
    found["metadata"]["resourceVersion"] = f"golden.{line['sequence']}.{delta['original']}"
    return found


def living(messages: Iterable[Line]) -> dict[Key, dict[str, Any]]:
    """What there is once all of these are applied."""
    found = {}
    for line in messages:
        key = tuple(line["address"].values())
        found[key] = body(line)
        if line["decoded"]["type"] == "DELETED":
            del found[key]
    return found


async def test_a_consumer_reads_the_log(connection: Connection) -> None:
    """From its beginning and from each place in it: each object as it was written, and the same ones in the end."""
    log = await open_log(connection, LogSettings(prefix="golden"))
    deltas = {line["sequence"]: line for line in lines("deltas") if "foreign" not in line}
    owner = next(line for line in lines("controls") if line["case"] == "owner: first of a cluster")
    await put(connection, [owner, *deltas.values(), *lines("parts")])
    expected = living(deltas.values())
    assert len(expected) > 8
    for begin in (0, *list(deltas)[:-1]):
        held = living(line for sequence, line in deltas.items() if sequence <= begin)
        told = []
        async with asyncio.timeout(PATIENCE), subscribe(log, start=begin) as subscription:
            async for event in subscription:
                assert isinstance(event, Change)
                assert event.object == body(deltas[event.sequence])
                delta = event.delta
                key = (delta.cluster, delta.group, delta.version, delta.resource, delta.namespace, delta.name)
                held.pop(key, None)
                if event.type != "DELETED":
                    held[key] = event.object
                told.append(event.sequence)
                if event.sequence == max(deltas):
                    break
        assert told == [sequence for sequence in deltas if sequence > begin]
        assert held == expected, begin


async def test_a_consumer_is_told_of_removals(connection: Connection) -> None:
    log = await open_log(connection, LogSettings(prefix="golden"))
    removals = [line for line in lines("controls") if line["case"].startswith("removed: ")]
    await put(connection, removals)
    told = []
    async with asyncio.timeout(PATIENCE), subscribe(log, start="beginning") as subscription:
        async for event in subscription:
            assert isinstance(event, Removed)
            told.append(event)
            if len(told) == len(removals):
                break
    assert [one.sequence for one in told] == [line["sequence"] for line in removals]
    assert [one.cluster for one in told] == [line["address"]["cluster"] for line in removals]
    assert [(one.group, one.resource) for one in told] == [
        (line["address"]["group"], line["address"]["resource"]) for line in removals
    ]


# -- streams -----------------------------------------------------------------------------------------------------------

STREAMS = {line["case"]: line["config"] for line in lines("streams")}


async def made(connection: Connection, case: str) -> dict[str, Any]:
    """Makes a stream as one was made before."""
    config: dict[str, Any] = dict(STREAMS[case])
    if "metadata" in config:
        config["metadata"] = {key: value for key, value in config["metadata"].items() if not key.startswith("_nats.")}
    await connection.api(f"STREAM.CREATE.{config['name']}", config)
    return config


@pytest.mark.parametrize(("case", "ingest"), [("log", ""), ("log: a shard", "SHARD.")])
async def test_a_log_is_opened_as_it_was_made(connection: Connection, case: str, ingest: str) -> None:
    """But for a window: its events are kept for an hour, compressed, and its state beside them."""
    config = await made(connection, case)
    log = await open_log(connection, LogSettings(name=config["name"], prefix="another", tombstone_ttl=1), mend=True)
    assert log.prefix == config["metadata"]["kubebraid.io/prefix"]
    assert str(log.tombstone_ttl) == config["metadata"]["kubebraid.io/tombstone-ttl"]
    assert log.ingest == ingest
    limits: dict[str, Any] = {
        "max_msgs_per_subject": -1,
        "max_age": 3_600_000_000_000,
        "max_bytes": 2 * 1024**3,
        "discard": "old",
    }
    limits["compression"] = "s2"
    metadata = {**config["metadata"], "kubebraid.io/events-from": "0"}
    assert await config_of(connection, config["name"]) == {**config, **limits, "metadata": metadata}
    assert (await config_of(connection, f"{config['name']}_STATE"))["max_msgs_per_subject"] == 1
    async with Appender.to(log) as appender:
        assert await appender.append_wait("kb.alpha.core.v1.pods.shop.a", b"x") == 1


async def config_of(connection: Connection, name: str) -> dict[str, Any]:
    config: dict[str, Any] = json.loads(bytes(await connection.api(f"STREAM.INFO.{name}")))["config"]
    config["metadata"] = {
        key: value for key, value in config.get("metadata", {}).items() if not key.startswith("_nats.")
    }
    return config


async def test_a_copy_goes_on(connection: Connection) -> None:
    await made(connection, "log")
    config = await made(connection, "copy, as `replay` makes it")
    copied = await open_copy(connection, config["name"], await open_log(connection))
    assert copied.name == config["name"]
    assert await config_of(connection, config["name"]) == config


async def test_a_mirror_is_one(connection: Connection) -> None:
    """Its origin was made anew here, and so it is of another history: it is a mirror, which is made anew."""
    await made(connection, "log")
    config = await made(connection, "mirror")
    settings = LogSettings(name=config["name"])
    log = await open_log(connection, settings, make=False)
    assert (log.mirror, log.origin, log.prefix) == (True, "KUBEBRAID", "golden1a")
    assert log.created == config["metadata"]["kubebraid.io/created"]
    assert await Mirror(connection, MirrorSettings(name=config["name"])).make()
    again = await open_log(connection, settings, make=False)
    assert again.created == (await open_log(connection)).created


@pytest.mark.parametrize("case", [case for case in STREAMS if case.startswith("bucket of ")])
async def test_a_bucket_is_opened_as_it_was_made(connection: Connection, case: str) -> None:
    config = await made(connection, case)
    name = config["name"].removeprefix("KV_")
    opened = await Bucket.open(connection, name, "another description", marker_ttl=60)
    assert opened.stream.name == config["name"]
    assert await config_of(connection, opened.stream.name) == {"metadata": {}, **config}


# -- buckets -----------------------------------------------------------------------------------------------------------


async def bucket(connection: Connection, name: str, *cases: str) -> list[Line]:
    """A bucket with the keys of these cases, put in their order."""
    marker_ttl = 6 if name == "kubebraid-leases" else 0
    await Bucket.open(connection, name, "golden", marker_ttl=marker_ttl)
    found = {line["case"]: line for line in lines("buckets")}
    chosen = [found[case] for case in cases]
    async with Appender(connection) as appender:
        for line in chosen:
            assert line["subject"].startswith(f"{_KV}{name}.")
            assert line["value"] == (json.loads(line.payload) if line.payload else None)
            kept = ("KV-Operation", "Nats-Marker-Reason")
            headers = {key: value for key, value in line["headers"].items() if key in kept}
            await appender.append_wait(line["subject"], line.payload, headers)
    return chosen


async def last(connection: Connection, name: str, line: Line) -> bytes:
    """What a bucket has now at the key of a line."""
    raw = await connection.api(f"STREAM.MSG.GET.KV_{name}", {"last_by_subj": line["subject"]})
    return base64.b64decode(json.loads(bytes(raw))["message"]["data"])


async def test_leases_say_who_has_which_cluster(connection: Connection) -> None:
    name = "kubebraid-leases"
    await bucket(
        connection,
        name,
        "leases: a producer is there",
        "leases: who has a cluster",
        "leases: of a cluster whose name is percent-encoded",
    )
    assert await holders(connection, name) == {"bravo": "golden-producer", "odd ä.": "someone-else"}
    await bucket(connection, name, "leases: given back")
    assert await holders(connection, name) == {"odd ä.": "someone-else"}


async def test_leases_that_ran_out_are_free(connection: Connection) -> None:
    name = "kubebraid-leases"
    await bucket(connection, name, "leases: of a cluster whose name is percent-encoded", "leases: ran out")
    assert await holders(connection, name) == {}


async def golden_log(connection: Connection) -> Log:
    await made(connection, "log")
    return await open_log(connection)


async def test_the_mark_of_a_history(connection: Connection) -> None:
    log = await golden_log(connection)
    (line,) = await bucket(connection, "kubebraid-history", "history: a mark")
    history = History(log)
    (mark,) = await history.marks()
    assert msgspec.json.decode(msgspec.json.encode(mark)) == line["value"]
    # It tells that this stream is another one of the same name.
    assert "made anew" in (await history.why_not_served() or "")
    # And it is written as it was.
    await connection.api("STREAM.PURGE.KV_kubebraid-history")
    await history.mark(mark)
    raw = json.loads(
        bytes(await connection.api("STREAM.MSG.GET.KV_kubebraid-history", {"last_by_subj": line["subject"]}))
    )
    assert raw["message"]["data"] == line["payload"]


async def test_a_rotation_that_has_begun_is_finished(connection: Connection) -> None:
    """Whoever finds it gives the log the name that it says; of one that is done, that the name was given up."""
    log = await golden_log(connection)
    history = History(log)
    assert await history.why_not_served() is None
    for case in ("history: a rotation has begun", "history: a rotation is done"):
        (line,) = [one for one in lines("buckets") if one["case"] == case]
        value = {**line["value"], "created": log.created}
        async with Appender(connection) as appender:
            await appender.append_wait(line["subject"], json.dumps(value).encode())
        if value["done"]:
            assert "given up" in (await History(log).why_not_served() or "")
        else:
            assert await history.why_not_served() is None
            await history.rotate("golden1a")
            assert log.prefix == value["to"]
            await log.rename("golden1a")


@pytest.mark.parametrize(
    ("case", "name", "selection"),
    [
        ("consumers: plain", "plain", select()),
        (
            "consumers: odd name ä.*",
            "odd name ä.*",
            select(cluster="alpha", type=("pods", "deployments.apps"), namespace="shop", labels="app=web"),
        ),
    ],
)
async def test_a_durable_consumer_goes_on(connection: Connection, case: str, name: str, selection: object) -> None:
    log = await golden_log(connection)
    (line,) = await bucket(connection, "kubebraid-consumers", case)
    assert str(selection) == line["value"]["selection"]
    with pytest.raises(BadDurable, match="selects"):
        await Durable(log, name, "another").open()
    durable = Durable(log, name, str(selection))
    value = line["value"]
    assert await durable.open() == Place(value["prefix"], value["sequence"], value["time"])
    # And it is written as it was, but for who holds it.
    raw = json.loads(
        bytes(await connection.api("STREAM.MSG.GET.KV_kubebraid-consumers", {"last_by_subj": line["subject"]}))
    )
    kept = json.loads(base64.b64decode(raw["message"]["data"]))
    assert {**kept, "holder": ""} == {**value, "holder": ""}
    assert list(kept) == list(value)
