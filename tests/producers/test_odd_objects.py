"""Odd objects: without versions, with halves of surrogate pairs, too deep, too large: each alone, and by its name."""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
from collections.abc import AsyncIterator, Callable
from functools import partial
from typing import Any

import pytest
from structlog.testing import capture_logs

from deltalog.jetstream.making import find_stream
from deltalog.wire.kubernetes import GroupResource
from materializer.entry import Entry, object_key
from materializer.materializer import Materializer
from producers.producer import Producer
from producers.timing import ProducerTiming
from producers.upstream.apiserver import ApiServer
from query.discovery.readiness import Readiness
from simulation.faults import InitialEvents
from simulation.kubeconfig import kubeconfig
from tests.patience import PATIENCE
from tests.producers.conftest import Rig
from tests.producers.odd_front import front
from tests.producers.test_large_objects import noise

PATH = "/api/v1/namespaces/default/configmaps"
KEY = GroupResource("", "configmaps")


@pytest.fixture
def pods() -> int:
    return 3


def config_map(name: str, text: str = "", **metadata: Any) -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": name, "namespace": "default", **metadata},
        "data": {"text": text},
    }


class Scene:
    """A cluster whose answers are changed on their way, a producer and a store."""

    def __init__(self, rig: Rig) -> None:
        self.rig = rig

    async def start(self) -> tuple[Producer, Materializer]:
        self.rig.timing = ProducerTiming(
            status_every=0.2,
            first_status=0.05,
            list_backoff=(0.02, 0.1),
            look_at_history_every=0.1,
            log_backoff=(0.05, 0.1),
        )
        warm = await self.rig.materializer()
        producer, _ = await self.rig.produce("configmaps")
        return producer, warm

    async def apply(self, body: dict[str, Any]) -> None:
        name = body["metadata"]["name"]
        exists = any(one["metadata"]["name"] == name for one in (await self.rig.request("GET", PATH))["items"])
        await self.rig.request("PUT" if exists else "POST", f"{PATH}/{name}" if exists else PATH, body)

    async def delete(self, name: str) -> None:
        await self.rig.request("DELETE", f"{PATH}/{name}")


@contextlib.asynccontextmanager
async def scene(rig: Rig, change: Callable[[bytes], bytes]) -> AsyncIterator[Scene]:
    async with front(rig.cluster, change) as url:
        document = kubeconfig([rig.cluster])
        document["clusters"][0]["cluster"] = {"server": url}
        rig.kubeconfig.write_text(json.dumps(document))
        yield Scene(rig)


def held(warm: Materializer) -> dict[str, Entry]:
    kind = warm.store.types.get(KEY)
    found = {} if kind is None else kind.objects("alpha")
    return {entry.name: entry for entry in found.values() if entry.namespace == "default"}


def text_of(entry: Entry) -> str:
    return str(json.loads(entry.body)["data"]["text"])


async def until(holds: Callable[[], bool], what: Callable[[], object] = lambda: "") -> None:
    loop = asyncio.get_running_loop()
    limit = loop.time() + PATIENCE
    while not holds():
        assert loop.time() < limit, what()
        await asyncio.sleep(0.02)


def said(warm: Materializer) -> str:
    return Readiness(warm).probe("readyz", verbose=True)[1]


# -- texts and nesting -----------------------------------------------------------------------------------------------

_DEEP = b"[" * 5000 + b"]" * 5000
_MADE = {
    b'"HALF"': b'"a\\ud800b"',
    b'"LOW"': b'"\\udc00"',
    b'"BACKSLASH"': b'"\\\\ud800 \\ud83d\\ude00"',
    b'"BYTES"': b'"\xff\xfe"',
    b'"DEEP"': _DEEP,
    b'"LABEL"': b"7",
    b'"TWICE"': b'"first","text":"second"',
}


def _odd(text: bytes) -> bytes:
    for mark, odd in _MADE.items():
        text = text.replace(mark, odd)
    return text


@pytest.mark.parametrize("support", ["supported", "refused"])
async def test_one_odd_object_is_mended_or_left_out_alone(rig: Rig, support: InitialEvents) -> None:
    """In a list by stream or by pages, and in a watch; what is well is there, and /readyz names the others."""
    rig.cluster.faults.initial_events = support
    async with scene(rig, _odd) as here:
        await here.apply(config_map("plain", "plain"))
        for text in ("HALF", "BYTES", "DEEP", "BACKSLASH", "TWICE"):
            await here.apply(config_map(f"listed-{text.lower()}", text))
        await here.apply(config_map("listed-label", "x", labels={"a": "LABEL"}))
        producer, warm = await here.start()
        assert {"plain", "listed-half", "listed-bytes", "listed-backslash", "listed-twice"} <= set(held(warm))
        assert not {"listed-deep", "listed-label"} & set(held(warm))
        shown = {name: text_of(entry) for name, entry in held(warm).items() if name.startswith("listed")}
        assert shown == {
            "listed-half": "a\ufffdb",
            "listed-bytes": "\ufffd\ufffd",
            "listed-backslash": "\\ud800 \U0001f600",
            "listed-twice": "second",
        }
        await until(lambda: "default/listed-deep: left out: nested too deeply" in said(warm), lambda: said(warm))
        assert "[!]cluster alpha: configmaps: " in said(warm)
        assert "and 1 more" in said(warm)
        assert "default/listed-bytes: mended" in said(warm)
        assert said(warm).endswith("readyz check passed\n")

        # By the watch, which goes on.
        relists = producer.clusters["alpha"].informers[KEY].relists
        await here.apply(config_map("watched-low", "LOW"))
        await here.apply(config_map("watched-deep", "DEEP"))
        await here.apply(config_map("plain", "DEEP"))
        await here.apply(config_map("last", "last"))
        await until(lambda: "last" in held(warm))
        assert text_of(held(warm)["watched-low"]) == "\ufffd"
        assert "watched-deep" not in held(warm)
        # The state that the log has stays.
        assert text_of(held(warm)["plain"]) == "plain"
        assert producer.clusters["alpha"].informers[KEY].relists == relists

        # Well again, or gone.
        await here.delete("plain")
        for name in ("listed-deep", "watched-deep", "listed-half", "watched-low", "listed-bytes", "listed-label"):
            await here.apply(config_map(name, "well"))
        await until(lambda: text_of(held(warm).get("listed-label", held(warm)["last"])) == "well")
        assert "plain" not in held(warm)
        await until(lambda: "left out" not in said(warm) and "mended" not in said(warm), lambda: said(warm))
        warm.store.check()


async def test_what_is_left_out_is_deleted_with_its_object(rig: Rig) -> None:
    async with scene(rig, _odd) as here:
        await here.apply(config_map("a", "DEEP"))
        await here.apply(config_map("b", "well"))
        _, warm = await here.start()
        await here.apply(config_map("b", "DEEP"))
        await until(lambda: "default/b: left out" in said(warm), lambda: said(warm))
        rig.cluster.faults.hang_watches()
        await here.delete("b")
        await here.delete("a")
        rig.cluster.faults.hang_watches(False)
        rig.cluster.faults.cut_watches()
        await until(lambda: "b" not in held(warm))
        await until(lambda: "left out" not in said(warm), lambda: said(warm))


async def test_names_that_no_subject_can_hold(rig: Rig) -> None:
    """A line of NATS' protocol has 4 KB at most: a longer one would cost the connection of all clusters."""

    def long(text: bytes) -> bytes:
        return text.replace(b'"longname"', b'"%b"' % (b"n" * 9000)).replace(b'"odd-name"', b'"a b.c>*\xc3\xa4\\n"')

    async with scene(rig, long) as here:
        await here.apply(config_map("longname"))
        await here.apply(config_map("odd-name"))
        await here.apply(config_map("plain"))
        producer, warm = await here.start()
        assert {"plain", "a b.c>*ä\n"} <= set(held(warm))
        await until(lambda: "its name has more than 320 characters" in said(warm), lambda: said(warm))
        await here.apply(config_map("later"))
        await until(lambda: "later" in held(warm))
        assert producer.clusters["alpha"].informers[KEY].relists == 1


# -- numbers where strings are due -----------------------------------------------------------------------------------


def _numbers(text: bytes) -> bytes:
    """Objects with a number for what their names say."""

    def odd(found: dict[str, Any]) -> None:
        metadata = found["metadata"]
        what = metadata.get("name", "").partition("-")[0]
        what = "resourceVersion" if what == "version" else what
        if what in ("name", "uid", "resourceVersion"):
            metadata[what] = 7 if what == "uid" else int(metadata["resourceVersion"])

    if b'"ConfigMap' not in text:
        return text
    found = json.loads(text)
    for holder in [found] if "object" in found else found.get("items", ()):
        if "metadata" in (one := holder.get("object", holder)):
            odd(one)
    return json.dumps(found, separators=(",", ":")).encode()


@pytest.mark.parametrize(("support", "namespaces"), [("supported", ("def*",)), ("refused", ())])
async def test_an_identity_that_is_no_string_leaves_out_its_object_alone_and_is_said_once(
    rig: Rig, support: InitialEvents, namespaces: tuple[str, ...]
) -> None:
    rig.cluster.faults.initial_events = support
    rig.namespaces = namespaces
    names = ("version-listed", "uid-listed", "name-listed", "version-watched")
    async with scene(rig, _numbers) as here:
        with capture_logs() as lines:
            await here.apply(config_map("plain", "one"))
            for name in names[:3]:
                await here.apply(config_map(name, "one"))
            producer, warm = await here.start()
            assert "plain" in held(warm)
            for text in ("two", "three"):
                for name in names:
                    await here.apply(config_map(name, text))
                await here.apply(config_map("plain", text))
                await until(partial(_reads, warm, "plain", text))
            assert not set(names) & set(held(warm))
            await until(lambda: "version-listed: left out" in said(warm), lambda: said(warm))
            assert producer.clusters["alpha"].informers[KEY].relists == 1
            for name in names:
                await here.delete(name)
            await here.delete("plain")
            await until(lambda: "plain" not in held(warm))
        found = [(one.get("object"), one["problem"]) for one in lines if one["event"] == "object left out"]
        version = "its resourceVersion is a number, not a string"
        assert sorted(found, key=str) == [
            ("default/uid-listed", "its uid is a number, not a string"),
            ("default/version-listed", version),
            ("default/version-watched", version),
            (None, "its name is a number, not a string"),
        ]
        assert not [one for one in lines if one["event"] == "listing again"]
        warm.store.check()


# -- larger than any answer that is read -------------------------------------------------------------------------------

_HUGE = b'"' + b"h" * 600_000 + b'"'


def _huge(text: bytes) -> bytes:
    """Objects that are too large; the one that is called `unnamed` begins with what makes it so."""
    if b'"unnamed"' in text:
        found = json.loads(text)
        for holder in [found] if "object" in found else found.get("items", ()):
            one = holder.get("object", holder)
            if one["metadata"].get("name") == "unnamed":
                members = {"a": "HUGE", **one}
                one.clear()
                one.update(members)
        text = json.dumps(found, separators=(",", ":")).encode()
    return text.replace(b'"HUGE"', _HUGE)


@pytest.fixture
def small_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("producers.upstream.watching.LARGEST_ANSWER", 500_000)
    assert ApiServer.get.__kwdefaults__ is not None
    monkeypatch.setitem(ApiServer.get.__kwdefaults__, "most", 500_000)


@pytest.mark.parametrize("support", ["supported", "refused"])
@pytest.mark.usefixtures("small_answers")
async def test_an_object_larger_than_any_answer_is_left_out_alone(rig: Rig, support: InitialEvents) -> None:
    """In a list by stream or by pages, and in a watch, which goes on; /readyz names it."""
    rig.cluster.faults.initial_events = support
    async with scene(rig, _huge) as here:
        for name, content in (("a", "plain"), ("listed", "HUGE"), ("z", "plain")):
            await here.apply(config_map(name, content))
        producer, warm = await here.start()
        assert {"a", "z"} <= set(held(warm))
        assert "listed" not in held(warm)
        await until(lambda: "default/listed: left out: it has more than 0.476837 MiB" in said(warm), lambda: said(warm))
        informer = producer.clusters["alpha"].informers[KEY]
        relists = informer.relists
        await here.apply(config_map("a", "HUGE"))
        await here.apply(config_map("watched", "HUGE"))
        await here.apply(config_map("last", "last"))
        await until(lambda: "last" in held(warm))
        # The state that the log has stays.
        assert text_of(held(warm)["a"]) == "plain"
        await until(lambda: "default/a: left out" in said(warm), lambda: said(warm))
        # A watch that begins anew begins behind them.
        rig.cluster.faults.cut_watches()
        await here.apply(config_map("later", "later"))
        await until(lambda: "later" in held(warm))
        await here.delete("a")
        await until(lambda: "a" not in held(warm))
        assert informer.relists == relists
        for name in ("listed", "watched"):
            await here.apply(config_map(name, "well"))
        await until(lambda: {"listed", "watched"} <= set(held(warm)))
        await until(lambda: "left out" not in said(warm), lambda: said(warm))
        warm.store.check()


@pytest.mark.parametrize("support", ["supported", "refused"])
@pytest.mark.usefixtures("small_answers")
async def test_what_is_too_large_and_says_its_name_too_late_holds_up_nothing(rig: Rig, support: InitialEvents) -> None:
    """A watch cannot get past it: a list by pages does, and names that there is one."""
    rig.cluster.faults.initial_events = support
    async with scene(rig, _huge) as here:
        await here.apply(config_map("a", "plain"))
        _, warm = await here.start()
        await here.apply(config_map("unnamed", "x"))
        for name in ("b", "c"):
            await here.apply(config_map(name, "plain"))
            await until(partial(_reads, warm, name, "plain"), lambda: said(warm))
        await until(lambda: "an object without a name: left out: it has more than" in said(warm), lambda: said(warm))
        assert "unnamed" not in held(warm)
        await here.delete("unnamed")
        await here.apply(config_map("d", "plain"))
        await until(partial(_reads, warm, "d", "plain"), lambda: said(warm))
        await until(lambda: "left out" not in said(warm), lambda: said(warm))


# -- without versions --------------------------------------------------------------------------------------------------


def _versionless(text: bytes) -> bytes:
    return re.sub(rb'"resourceVersion":"[0-9]*",?|"uid":"[^"]*",?', b"", text).replace(b",}", b"}")


def _reads(warm: Materializer, name: str, text: str) -> bool:
    return name in held(warm) and text_of(held(warm)[name]) == text


@pytest.mark.parametrize("support", ["supported", "refused"])
async def test_objects_without_versions(rig: Rig, support: InitialEvents) -> None:
    """Other content is another state: by the watch, by a list, and of an object that is made again as it was."""
    rig.cluster.faults.initial_events = support
    async with scene(rig, _versionless) as here:
        await here.apply(config_map("a", "one"))
        await here.apply(config_map("b", "one"))
        producer, warm = await here.start()
        assert text_of(held(warm)["a"]) == "one"
        for text in ("two", "one", "two"):
            await here.apply(config_map("a", text))
            await until(partial(_reads, warm, "a", text))
        # What a watch did not bring.
        rig.cluster.faults.hang_watches()
        await here.apply(config_map("a", "three"))
        await here.delete("b")
        rig.cluster.faults.hang_watches(False)
        rig.cluster.faults.cut_watches()
        await until(lambda: text_of(held(warm)["a"]) == "three" and "b" not in held(warm))
        await here.apply(config_map("b", "one"))
        await until(lambda: "b" in held(warm) and text_of(held(warm)["b"]) == "one")
        await here.delete("b")
        await until(lambda: "b" not in held(warm))
        # What has not changed is not appended again.
        counts = producer.clusters["alpha"].informers[KEY].counts
        before = (counts.added, counts.modified, counts.deleted)
        index = warm.store.applied
        producer.clusters["alpha"].relist(lambda _: True)
        await here.apply(config_map("last", "x"))
        await until(lambda: "last" in held(warm))
        assert (counts.added, counts.modified, counts.deleted) == (before[0] + 1, *before[1:])
        assert warm.store.applied > index
        warm.store.check()


# -- what is too large -------------------------------------------------------------------------------------------------


async def limit_messages(warm: Materializer, size: int) -> None:
    """What an operator may do to the streams at any time."""
    log = warm.log
    for name in (log.name, f"{log.name}_STATE"):
        raw = await log.connection.api(f"STREAM.INFO.{name}")
        config = json.loads(bytes(raw))["config"]
        await log.connection.api(f"STREAM.UPDATE.{name}", {**config, "max_msg_size": size})
        assert (await find_stream(log.connection, name)).config.max_msg_size == size


async def test_a_stream_that_takes_less_than_the_server(rig: Rig) -> None:
    """Objects go into parts that fit; what fits in no way is left out alone, and nothing is listed again for it."""
    async with scene(rig, lambda text: text) as here:
        first = await rig.materializer()
        await limit_messages(first, 32 * 1024)
        await here.apply(config_map("large", noise(300_000, 1)))
        labels = {f"label-{number}": "x" * 60 for number in range(1500)}
        await here.apply(config_map("labels", "x", labels=labels))
        await here.apply(config_map("small", "x"))
        producer, warm = await here.start()
        assert text_of(held(warm)["large"]) == noise(300_000, 1)
        assert "labels" not in held(warm)
        assert "small" in held(warm)
        await until(lambda: "default/labels: left out: " in said(warm), lambda: said(warm))
        informer = producer.clusters["alpha"].informers[KEY]
        assert informer.relists == 1

        # Less than before, while it is followed.
        await limit_messages(warm, 12 * 1024)
        await here.apply(config_map("large", noise(200_000, 2)))
        await here.apply(config_map("other", noise(100_000, 3)))
        await until(lambda: "other" in held(warm) and text_of(held(warm)["large"]) == noise(200_000, 2))
        relists = informer.relists
        assert relists <= 3
        # What is said of the cluster fits, too.
        await until(lambda: warm.stale_reason(warm.store.clusters["alpha"]) is None)
        await here.apply(config_map("small", "y"))
        await until(lambda: text_of(held(warm)["small"]) == "y")
        await here.delete("large")
        await until(lambda: "large" not in held(warm))
        assert informer.relists == relists
        assert not producer.problems()
        assert (await rig.materializer()).store.types[KEY].get("alpha", object_key("default", "other")) is not None
