"""Images: a store made of one is the store that it is of, and answers and goes on as that does."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from copy import deepcopy
from typing import Any

import msgspec
import pytest

from deltalog.wire.kubernetes import GroupResource
from deltalog.wire.parts import Assembler
from deltalog.wire.records import DocumentName
from deltalog.wire.subjects import (
    CLUSTER,
    DISCOVERY,
    HEALTH,
    OPENAPI,
    STATUS,
    SYNCED,
    TYPE,
    control_subject,
    object_subject,
    type_prefix,
)
from materializer import image as image_module
from materializer import store as store_module
from materializer.burying import bury
from materializer.cursor import Cursor
from materializer.entry import Entry, Past
from materializer.filter import Filter
from materializer.image import Image
from materializer.image_records import NotAnImage, Piece, PieceType
from materializer.integrity import Counts, Integrity
from materializer.order import Removal
from materializer.restoration import Restoration
from materializer.store import Store
from materializer.window import Event
from tests.materializer.test_model import (
    Client,
    World,
    every_client,
    feed,
    warm_store,
)

Make = Callable[..., Any]
SECOND = 1_000_000_000


def pieces_of(store: Store, integrity: Integrity | None = None, parts: Assembler | None = None) -> list[Piece]:
    return list(Image(store, integrity or Integrity(store), parts or Assembler()).pieces())


def made_of(pieces: list[Piece]) -> tuple[Store, Counts, Assembler]:
    restoration = Restoration()
    for piece_type, text in pieces:
        restoration.take(piece_type, text)
    for _ in restoration.finish():
        pass
    return restoration.restored()


def again(store: Store) -> Store:
    made = made_of(pieces_of(store))[0]
    made.window.resize(store.window.limit)
    return made


# -- what a store is, as plain values ----------------------------------------------------------------------------------


def pasts(past: Past | None) -> Iterator[Any]:
    while past is not None and not past.forgotten:
        yield past.selectable_since, dict(past.labels), dict(past.fields), past.controller_uid
        past = past.before


# All that is not of how it is held.
PLAIN = [
    *(name for name in Entry.__struct_fields__ if name not in ("dictionary", "record", "remembered")),
    *(name for name, one in vars(Entry).items() if isinstance(one, property) and name not in ("past", "replaced")),
]


# What `state` has read of a store so far, by id; the entry stands with it, so that no other gets its id.
_read: dict[int, tuple[Entry, dict[str, Any]]] = {}


def values_of(entry: Entry) -> dict[str, Any]:
    if id(entry) not in _read:
        _read[id(entry)] = (entry, {name: getattr(entry, name) for name in PLAIN})
    return _read[id(entry)][1]


def plain(entry: Entry | None) -> Any:
    if entry is None:
        return None
    return {**values_of(entry), "past": list(pasts(entry.past)), "replaced": plain(entry.replaced)}


def plain_item(item: Entry | Removal) -> Any:
    if isinstance(item, Removal):
        return item.index, {key: plain(entry) for key, entry in item.entries.items()}
    return plain(item)


def plain_event(event: Event) -> Any:
    # What a state remembers of its past is asked of what stands in the order alone.
    removed = [plain_state(entry) for entry in event.removed]
    item = event.index if isinstance(event.item, Removal) else plain_state(event.item)
    return event.index, item, event.before and plain_state(event.before), removed


def plain_state(entry: Entry) -> Any:
    return {**values_of(entry), "past": None, "replaced": None}


def faded(store: Store) -> Iterator[Any]:
    """What becomes of each when it fades."""
    for time, index, key, item in store.fading:
        type_store = store.types[key]
        if isinstance(item, Removal):
            yield time, index, key, "removal", item.index
            continue
        place = (item.cluster, item.key)
        live = type_store.get(item.cluster, item.key)
        if item.deleted:
            buried = type_store.tombstones.get(item.cluster, {}).get(item.key) is item
            yield time, index, key, "grave", place if buried else None
        else:
            yield time, index, key, "replaced", place if live is not None and live.uid_index == item.uid_index else None


def state(store: Store) -> Any:
    _read.clear()
    types = {}
    for key, type_store in store.types.items():
        types[key] = {
            "live": {
                cluster: {name: plain(entry) for name, entry in objects.items()}
                for cluster, objects in type_store.clusters.items()
                if objects
            },
            "graves": {
                cluster: {name: plain(entry) for name, entry in graves.items()}
                for cluster, graves in type_store.tombstones.items()
                if graves
            },
            "buried": list(type_store.graves.entries()),
            "order": [plain_item(item) for item in type_store.order.items if item is not None],
            "floors": dict(type_store.floors),
            "forgotten": type_store.forgotten,
            "version_since": dict(type_store.version_since),
            "gap": type_store.unread_through,
        }
    numbers = (
        "prefix",
        "tombstone_ttl",
        "applied",
        "applied_time",
        "floor",
        "unread_through",
        "caught_up_at",
        "catalogue",
    )
    return {
        **{name: deepcopy(getattr(store, name)) for name in (*numbers, "documents", "controls", "removed", "loading")},
        "types": types,
        "clusters": {name: deepcopy(vars(cluster)) for name, cluster in store.clusters.items()},
        "fading": list(faded(store)),
        "faded": list(store.faded.values()),
        "sizes": dict(store.deletion_sizes),
        "window": (store.window.start, len(store.window)),
        "events": {key: [plain_event(one) for one in of.events.after(0)] for key, of in store.types.items()},
        "removals": [removal.index for removal in store.removals],
    }


def assert_same(one: Store, *others: Store) -> None:
    one.check()
    expected = state(one)
    for other in others:
        other.check()
        assert state(other) == expected


# -- the tests ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("window", [0, 20_000, 1 << 30])
@pytest.mark.parametrize("seed", range(6))
def test_a_store_of_an_image_is_the_same_and_stays_it(
    seed: int, window: int, delta: Make, control: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Any history, with removals, replaced uids, noise and forgetting; restored again and again on the way."""
    monkeypatch.setattr(image_module, "_ENTRIES", 3)
    monkeypatch.setattr(image_module, "_THINGS", 2)
    world = World(seed, delta, control)
    # How far a window goes back that has not room for all depends on what was packed when.
    store = warm_store(window, packs=window != 20_000)
    restored: list[Store] = []
    for step in range(900):
        message = world.step()
        for one in (store, *restored):
            feed(one, message)
        if world.random.random() < 0.3:
            world.now += int(world.random.random() * 8 * SECOND)
        if world.random.random() < 0.1:
            for one in (store, *restored):
                one.forget(world.now)
        if world.random.random() < 0.1:
            before = world.now - world.random.randrange(80 * SECOND)
            for one in (store, *restored):
                while bury(one, before):
                    pass
        if step % 60 == 59:
            made = again(store)
            assert_same(made, store, again(made))
            restored = [*restored[-2:], made]
    assert_same(store, *restored)


@pytest.mark.parametrize("window", [0, 20_000, 1 << 30])
@pytest.mark.parametrize("seed", range(4))
def test_an_image_keeps_still_while_the_store_goes_on(
    seed: int, window: int, delta: Make, control: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(image_module, "_ENTRIES", 1)
    world = World(seed, delta, control)
    # How far a window goes back that has not room for all depends on what was packed when.
    store = warm_store(window, packs=window != 20_000)
    for _ in range(12):
        for _ in range(60):
            feed(store, world.step())
            world.now += int(world.random.random() * 4 * SECOND)
        store.forget(world.now)
        bury(store, world.now - world.random.randrange(80 * SECOND))
        before = state(store)
        # While an image is written nothing is forgotten (`materializer.forgetting`).
        world.forgets = False
        restoration = Restoration()
        for piece in Image(store, Integrity(store), Assembler()).pieces():
            restoration.take(*piece)
            feed(store, world.step())
        for _ in restoration.finish():
            feed(store, world.step())
        world.forgets = True
        made = restoration.restored()[0]
        made.check()
        assert state(made) == before


@pytest.mark.parametrize("seed", range(8))
def test_clients_go_on_at_an_instance_that_started_from_a_snapshot(seed: int, delta: Make, control: Make) -> None:
    """It was away for a while and reads what the log still has: lists are right, and each resume it does not refuse."""
    world = World(seed, delta, control)
    store = warm_store()
    served = refused = 0
    for _ in range(25):
        for _ in range(world.random.randint(1, 30)):
            feed(store, world.step())
            world.now += int(world.random.random() * world.random.choice((0, 3, 30)) * SECOND)
        if world.random.random() < 0.5:
            store.forget(world.now)
        pieces = pieces_of(store)
        away = world.now
        for _ in range(world.random.randint(0, 40)):
            world.step()
            if world.now - away < 80 * SECOND:
                world.now += int(world.random.random() * 5 * SECOND)
        for subject, message in list(world.log.items()):
            if message.expires is not None and message.expires <= world.now:
                del world.log[subject]
        store = made_of(pieces)[0]
        store = world.catch_up(store)
        store.forget(world.now)
        store.check()
        for client in every_client():
            target = world.view_at(client.kind, client.lens, store.applied)
            client.relist(store)
            assert client.view == target
            for _ in range(8):
                client.at = Cursor(world.random.randint(max(0, world.index - 60), world.index))
                if client.refused(store):
                    refused += 1
                    continue
                served += 1
                held = world.view_at(client.kind, client.lens, client.cursor)
                came = Client(client.kind, client.lens, Cursor(client.cursor, 0), dict(held))
                came.pull(store)
                assert came.view == target, (client.cursor, store.floor, client.kind, client.lens.filter)
    assert served > 1000
    assert refused > 0


def test_a_label_that_changed_for_ever_is_no_deep_chain(delta: Make) -> None:
    store = warm_store()
    for number in range(1, 3000):
        store.apply_delta(
            delta("n", member_version=str(number), uid_index=1, labels={"at": str(number)}), number, number
        )
    made = again(store)
    assert_same(made, store)
    assert len(made.pasts) == len(store.pasts)


def test_old_states_are_forgotten_in_the_same_order(delta: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store_module, "_PAST_LIMIT", 20)
    chance = random.Random(1)
    store = warm_store()
    stores = [store]
    for index in range(1, 300):
        name = chance.choice("abcde")
        for one in stores:
            one.apply_delta(delta(name, uid=name, member_version=str(index), labels={"at": str(index)}), index, index)
        if index == 150:
            stores.append(again(store))
    assert_same(*stores)


def test_control_records_documents_and_equal_texts(delta: Make, control: Make) -> None:
    store = warm_store()
    integrity = Integrity(store)
    index = 0

    def take(record: str, cluster: str = "alpha", group: str = "", resource: str = "", **data: Any) -> None:
        nonlocal index
        index += 1
        made = control(record, cluster, group, resource, data=data, epoch=1)
        store.apply_control(made, index, index)
        integrity.take_control(made, control_subject(cluster, record, group, resource), index, index)

    for cluster in ("alpha", "beta"):
        take(CLUSTER, cluster, version={"major": "1", "extra": {"of": [1, None, "x"]}})
        columns = ({"name": "Age", "jsonPath": ".a", "priority": 0},)
        take(TYPE, cluster, "apps", "deployments", version="v1", kind="Deployment", columns=columns)
        take(SYNCED, cluster, "apps", "deployments", version="9")
        take(HEALTH, cluster, "apps", "deployments", healthy=False, reason="no")
        take(HEALTH, cluster, healthy=True)
        take(STATUS, cluster, types={"pods": {"objects": 1, "version": "7"}}, every=30000)
        take(OPENAPI, cluster, "v3", "api/v1", hash="h", body=b"\x1f\x8b document", size=3, paths=2)
        take(DISCOVERY, cluster, hash="d", body=b"\x1f\x8b all", size=4)
    take(DISCOVERY, "gamma", hash="e", body=b"\x1f\x8b another", size=5)
    take(DISCOVERY, "delta")
    for name in ("a", "b"):
        index += 1
        labels, fields = {"app": "one"}, {"spec.nodeName": "node"}
        one = delta(name, uid=name, namespace="far", controller_uid="o", labels=labels, fields=fields)
        store.apply_delta(one, index, index)
        integrity.take_delta(one, object_subject(type_prefix("alpha", "", "v1", "pods"), "far", name))
    integrity.take_unreadable("kb.somebody.else.s")
    parts = Assembler()
    parts.hold(7, b"seven")
    made, counts, held = made_of(pieces_of(store, integrity, parts))
    assert_same(made, store)
    assert msgspec.structs.astuple(counts) == msgspec.structs.astuple(integrity.counts())
    assert held.held() == [(7, b"seven")]
    one, other = made.types[GroupResource("", "pods")].select(Filter())
    assert one.labels is other.labels
    assert one.namespace is other.namespace
    assert one.envelope is other.envelope
    alpha, beta, third, last = made.clusters.values()
    document = DocumentName("v3", "api/v1")
    assert alpha.documents[document] is beta.documents[document]
    assert alpha.discovery is beta.discovery
    assert alpha.discovery is not None
    assert third.discovery is not None
    assert (alpha.discovery.body, third.discovery.body) == (b"\x1f\x8b all", b"\x1f\x8b another")
    assert last.discovery is None


def test_pieces_in_disorder_are_no_image(delta: Make, control: Make) -> None:
    world = World(1, delta, control)
    store = warm_store()
    for _ in range(100):
        feed(store, world.step())
    pieces = pieces_of(store)
    with pytest.raises(NotAnImage):
        made_of(pieces[1:])
    with pytest.raises(NotAnImage):
        made_of([one for one in pieces if one[0] != PieceType.TYPE])
    with pytest.raises(NotAnImage):
        made_of([*pieces, (77, b"")])
    for piece_type in PieceType:
        with pytest.raises(NotAnImage):
            made_of([*pieces, (piece_type, b"\xc1")])
