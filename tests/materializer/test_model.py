"""The ordered store against a naive model: every state of every object in a list, looked up at any index.

A seeded generator writes what a producer would write (`first` and `replaced` as producers/follow/writer.py does), with
noise no producer should make: redeliveries, stale versions, fenced epochs. Watchers and resuming clients read
by cursor; what they then hold has to be what the model says.
"""

from __future__ import annotations

import random
from bisect import bisect_right
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import msgspec
import pytest

from deltalog import ADDED, DELETED, MODIFIED, ControlRecord, Delta, Replaced
from deltalog.wire.delta import UNCHANGED, Selectables
from deltalog.wire.kubernetes import GroupResource
from deltalog.wire.selectors import parse_fields, parse_labels
from deltalog.wire.subjects import CLUSTER, OWNER, REMOVED, SYNCED
from materializer import indexes as indexes_module
from materializer import store as store_module
from materializer.burying import bury, forget_through
from materializer.cursor import Cursor, ShownChange, changes, initial
from materializer.entry import Entry, object_key
from materializer.filter import Filter
from materializer.store import Outcome, Store
from tests.materializer.renewing import Renewing

SECOND = 1_000_000_000
TTL = 100
EVERYTHING = 10**9
# After so many steps the invariants are checked.
CHECKED = 5
TYPES: tuple[GroupResource, ...] = (GroupResource("", "pods"), GroupResource("apps", "deployments"))
CLUSTERS = ("alpha", "beta")
NAMESPACES = ("x", "x-y", "")
NAMES = ("m", "n")

Name = tuple[str, str, str]
"""(cluster, namespace, name) within a type."""
View = dict[Name, tuple[str, int]]
"""What a client holds: uid and index by name."""
Make = Callable[..., Any]


class State(NamedTuple):
    """An object as it is from `index` on."""

    index: int  # type: ignore[assignment]  # it hides tuple.index
    uid: str
    labels: dict[str, str]
    fields: dict[str, str]
    owner: str
    created: int


class Lens(NamedTuple):
    """One selection, said twice: as the product's filter and as plain Python."""

    filter: Filter
    holds: Callable[[Name, State], bool]


def fields_of(text: str) -> tuple[Any, ...]:
    return parse_fields(text, lambda key: key == "node")


LENSES = (
    Lens(Filter(), lambda name, state: True),
    Lens(Filter(labels=parse_labels("app=a")), lambda name, state: state.labels.get("app") == "a"),
    Lens(
        Filter(labels=parse_labels("app!=a,tier")),
        lambda name, state: state.labels.get("app") != "a" and "tier" in state.labels,
    ),
    Lens(Filter(fields=fields_of("node=1")), lambda name, state: state.fields.get("node") == "1"),
    Lens(Filter(fields=fields_of("node!=1")), lambda name, state: state.fields.get("node") != "1"),
    Lens(Filter(namespaces=frozenset({"x"})), lambda name, state: name[1] == "x"),
    Lens(Filter(namespaces=frozenset({"x"}), names=frozenset({"m"})), lambda name, state: name[1:] == ("x", "m")),
    Lens(Filter(controller_uids=frozenset({"o1", "o2"})), lambda name, state: state.owner in ("o1", "o2")),
    Lens(
        Filter(not_names=frozenset({"m"}), since=2, before=5),
        lambda name, state: name[2] != "m" and 2 <= state.created < 5,
    ),
    Lens(
        Filter(not_namespaces=frozenset({"x", ""}), names=frozenset({"m", "n"})), lambda name, state: name[1] == "x-y"
    ),
    Lens(Filter(clusters=frozenset(["alpha"])), lambda name, state: name[0] == "alpha"),
    Lens(
        Filter(clusters=frozenset(["beta", "nowhere"]), labels=parse_labels("app in (a, b)")),
        lambda name, state: name[0] == "beta" and state.labels.get("app") in ("a", "b"),
    ),
)


class Forgotten(NamedTuple):
    """The record that deletions up to an index are forgotten, whoever found that there were too many."""

    through: int


class Message(NamedTuple):
    """What the log keeps of one append."""

    index: int  # type: ignore[assignment]  # it hides tuple.index
    time: int
    record: Delta | ControlRecord | Forgotten
    expires: int | None


@dataclass
class Known:
    """What the producer remembers of a name (producers/follow/writer.py: Known)."""

    delta: Delta
    first: int
    oldest: int
    gone_at: int | None = None
    gone_index: int = 0
    replaced: Replaced | None = None


class World:
    """The producers, the compacted log, and the model: `history` has every state of every name."""

    def __init__(self, seed: int, delta: Make, control: Make) -> None:
        self.random = random.Random(seed)
        self.delta = delta
        self.control = control
        self.index = 0
        self.now = 1_000_000 * SECOND
        self.uids = 0
        self.versions = 0
        self.epochs = dict.fromkeys(CLUSTERS, 0)
        self.log: dict[tuple[object, ...], Message] = {}
        self.sent: list[Message] = []
        # Where objects were removed with their type or cluster.
        self.removals: set[int] = set()
        # Whether there are ever too many deletions; and up to where they are forgotten.
        self.forgets = True
        self.forgotten = 0
        self.known: dict[tuple[GroupResource, Name], Known] = {}
        self.history: dict[tuple[GroupResource, Name], list[tuple[int, State | None]]] = {}

    # -- the model ---------------------------------------------------------------------------------------------

    def state_at(self, kind: GroupResource, name: Name, index: int) -> State | None:
        states = self.history.get((kind, name), [])
        at = bisect_right(states, index, key=lambda one: one[0])
        return states[at - 1][1] if at else None

    def view_at(self, kind: GroupResource, lens: Lens, index: int) -> View:
        view: View = {}
        for at, name in self.history:
            if at == kind and (state := self.state_at(kind, name, index)) is not None and lens.holds(name, state):
                view[name] = (state.uid, state.index)
        return view

    def lives_begun(self, kind: GroupResource, name: Name, after: int) -> int:
        """How many uids of a name came into being past an index."""
        count, uid = 0, None
        for index, state in self.history.get((kind, name), []):
            if state is not None and state.uid != uid and index > after:
                count += 1
            uid = None if state is None else state.uid
        return count

    # -- the producers -----------------------------------------------------------------------------------------

    def append(
        self, subject: tuple[object, ...], record: Delta | ControlRecord | Forgotten, expires: bool = False
    ) -> Message:
        self.index += 1
        message = Message(self.index, self.now, record, self.now + TTL * SECOND if expires else None)
        self.log[subject] = message
        self.sent.append(message)
        return message

    def _subject(self, delta: Delta) -> tuple[object, ...]:
        return ("kb", delta.cluster, delta.group, delta.resource, delta.namespace, delta.name)

    def _delta(self, kind: GroupResource, name: Name, **given: Any) -> Delta:
        self.versions += 1
        # As a creation time does, it belongs to the uid.
        given.setdefault("created", 1 + sum(map(ord, given["uid"])) % 6)
        cluster, namespace, short = name
        made: Delta = self.delta(
            short,
            cluster=cluster,
            namespace=namespace,
            group=kind[0],
            resource=kind[1],
            epoch=self.epochs[cluster],
            member_version=given.pop("member_version", str(self.versions)),
            **given,
        )
        return made

    def _content(self) -> dict[str, Any]:
        labels = self.random.choice(({}, {"app": "a"}, {"app": "b", "tier": "1"}, {"app": "a", "tier": "1"}))
        return {
            "labels": labels,
            "fields": self.random.choice(({}, {"node": "1"}, {"node": "2"})),
            "controller_uid": self.random.choice(("", "o1", "o2", "o3")),
        }

    @staticmethod
    def _same(known: Known) -> dict[str, Any]:
        return {
            "labels": known.delta.labels,
            "fields": known.delta.fields,
            "controller_uid": known.delta.controller_uid,
        }

    @staticmethod
    def _was(known: Known, content: dict[str, Any]) -> Selectables:
        last = known.delta
        if (last.labels, last.fields, last.controller_uid) == tuple(content.values()):
            return UNCHANGED
        return Selectables(last.labels, last.fields, last.controller_uid)

    def _record(self, kind: GroupResource, name: Name, message: Message) -> None:
        delta = message.record
        assert isinstance(delta, Delta)
        state = None
        if delta.type != DELETED:
            state = State(
                message.index, delta.uid, dict(delta.labels), dict(delta.fields), delta.controller_uid, delta.created
            )
        self.history.setdefault((kind, name), []).append((message.index, state))

    def _fade(self, known: Known) -> None:
        if known.replaced is not None and known.replaced.time < (self.now - TTL * SECOND) // 1_000_000:
            known.replaced = None

    def add(self, kind: GroupResource, name: Name, uid: str | None = None) -> Message:
        """An object nobody lives under the name of, or one that takes the place of another uid."""
        known = self.known.get((kind, name))
        replaced = None
        if known is not None:
            gone = self.now if known.gone_at is None else known.gone_at
            if gone >= self.now - TTL * SECOND:
                last = known.delta
                replaced = Replaced(
                    uid=last.uid,
                    uid_index=known.first,
                    oldest_uid_index=known.oldest or known.first,
                    time=gone // 1_000_000,
                    member_version=last.member_version,
                    labels=last.labels,
                    fields=last.fields,
                    controller_uid=last.controller_uid,
                    created=last.created,
                    deletion_index=known.gone_index,
                )
        if uid is None:
            self.uids += 1
            uid = f"u{self.uids}"
        delta = self._delta(kind, name, type=ADDED, uid=uid, replaced=replaced, **self._content())
        message = self.append(self._subject(delta), delta)
        oldest = replaced.oldest_uid_index if replaced else message.index
        self.known[kind, name] = Known(delta, message.index, oldest, replaced=replaced)
        self._record(kind, name, message)
        return message

    def modify(self, kind: GroupResource, name: Name) -> Message:
        known = self.known[kind, name]
        self._fade(known)
        content = self._same(known)
        if self.random.random() < 0.4:
            content = self._content()
        delta = self._delta(
            kind,
            name,
            type=MODIFIED,
            uid=known.delta.uid,
            uid_index=known.first,
            replaced=known.replaced,
            was=self._was(known, content),
            **content,
        )
        known.delta = delta
        message = self.append(self._subject(delta), delta)
        self._record(kind, name, message)
        return message

    def delete(self, kind: GroupResource, name: Name) -> Message:
        known = self.known[kind, name]
        self._fade(known)
        final = self.random.random() < 0.6
        content = self._same(known)
        if final and self.random.random() < 0.2:
            content = self._content()
        delta = self._delta(
            kind,
            name,
            type=DELETED,
            uid=known.delta.uid,
            uid_index=known.first,
            replaced=known.replaced,
            final=final,
            was=self._was(known, content),
            **content,
        )
        known.delta = delta
        known.gone_at = self.now
        message = self.append(self._subject(delta), delta, expires=True)
        known.gone_index = message.index
        self._record(kind, name, message)
        return message

    def remove(self, cluster: str, kind: GroupResource | None) -> Message:
        """A type of a cluster, or all of it, goes: one record, then the purge of what it speaks of."""
        group, resource = kind or ("", "")
        record = self.control(REMOVED, cluster, group, resource, epoch=self.epochs[cluster])
        message = self.append(("kbc", cluster, REMOVED, group, resource), record, expires=True)
        self.removals.add(message.index)
        for subject, older in list(self.log.items()):
            mine = subject[0] == "kb" and subject[1] == cluster and kind in (None, subject[2:4])
            other_control = kind is None and subject[0] == "kbc" and subject[1] == cluster and subject[2] != OWNER
            if (mine or other_control) and older.index < message.index:
                del self.log[subject]
        for (type_key, name), states in self.history.items():
            if name[0] == cluster and kind in (None, type_key):
                self.known.pop((type_key, name), None)
                if states[-1][1] is not None:
                    states.append((message.index, None))
        return message

    def forget(self) -> Message:
        """Somebody decides up to where deletions are forgotten; then their messages are taken out of the state."""
        through = self.random.randrange(self.index - 60, self.index + 1)
        message = self.append(("kbc", "forgotten"), Forgotten(max(through, self.forgotten)))
        self.forgotten = max(through, self.forgotten)
        for subject, older in list(self.log.items()):
            record = older.record
            if isinstance(record, Delta) and record.type == DELETED and older.index <= self.forgotten:
                del self.log[subject]
        for key, known in list(self.known.items()):
            if known.gone_at is not None and known.gone_index <= self.forgotten:
                del self.known[key]
        return message

    def step(self) -> Message:
        """One thing that happens in some cluster, as the log has it."""
        roll = self.random.random()
        if self.forgets and roll > 0.99:
            return self.forget()
        kind = self.random.choice(TYPES)
        cluster = self.random.choice(CLUSTERS)
        if roll < 0.01:
            return self.remove(cluster, kind)
        if roll < 0.014:
            return self.remove(cluster, None)
        if roll < 0.03:
            self.epochs[cluster] += 1
            return self.append(("kbc", cluster, OWNER), self.control(OWNER, cluster, epoch=self.epochs[cluster]))
        if roll < 0.05:
            record = self.random.choice((CLUSTER, SYNCED))
            of = kind if record == SYNCED else ("", "")
            return self.append(
                ("kbc", cluster, record, *of), self.control(record, cluster, *of, epoch=self.epochs[cluster])
            )
        name = (cluster, self.random.choice(NAMESPACES), self.random.choice(NAMES))
        known = self.known.get((kind, name))
        if known is None:
            return self.add(kind, name)
        if known.gone_at is not None:
            if known.gone_at < self.now - 2 * TTL * SECOND:
                # producers/follow/known.py: forget_deleted.
                del self.known[kind, name]
            returns = not known.delta.final and self.random.random() < 0.3
            return self.add(kind, name, known.delta.uid if returns else None)
        what = self.random.random()
        if what < 0.65:
            return self.modify(kind, name)
        if what < 0.9:
            return self.delete(kind, name)
        return self.add(kind, name)

    def noise(self, store: Store) -> None:
        """What must change nothing: handed to the store at once, and not kept by the log."""
        what = self.random.randrange(4)
        if not self.sent:
            return
        if what == 0:
            old = self.random.choice(self.sent)
            assert feed(store, old) is Outcome.REDELIVERED
            return
        lively = [(at, known) for at, known in self.known.items() if known.delta.type != DELETED or known.delta.final]
        if not lively:
            return
        (kind, name), known = self.random.choice(lively)
        last = known.delta
        if last.type == DELETED and store.types[kind].tombstones.get(name[0], {}).get(object_key(*name[1:])) is None:
            return
        index = self.index = self.index + 1
        if what == 1:
            original = str(int(last.member_version) - self.random.choice((0, 1)))
            stale = self._delta(
                kind,
                name,
                type=MODIFIED,
                uid=last.uid,
                uid_index=known.first,
                member_version=original,
                **self._content(),
            )
            assert store.apply_delta(stale, index, self.now) is Outcome.NOT_NEWER
        elif what == 2 and self.epochs[name[0]] > 0 and name[0] in store.clusters and store.clusters[name[0]].epoch:
            fenced = self._delta(kind, name, type=ADDED, uid="ghost", **self._content())
            fenced = msgspec.structs.replace(fenced, epoch=store.clusters[name[0]].epoch - 1)
            assert store.apply_delta(fenced, index, self.now) is Outcome.FENCED
        elif what == 3 and last.type == DELETED:
            again = self._delta(
                kind, name, type=DELETED, uid=last.uid, uid_index=known.first, member_version=last.member_version
            )
            assert store.apply_delta(again, index, self.now) is Outcome.NOT_NEWER
        elif what == 3:
            foreign = self._delta(kind, name, type=DELETED, uid="someone else", uid_index=known.first)
            assert store.apply_delta(foreign, index, self.now) is Outcome.NOT_NEWER
        else:
            store.skip(index, self.now)

    def catch_up(self, store: Store) -> Store:
        """A reader that was away reads what the log has past what it knows: the last of each subject.

        Where deletions past that are forgotten it begins anew (`deltalog.reader`); the store that goes on is returned.
        """
        if self.forgotten > store.applied:
            return self.cold_store()
        for message in sorted(self.log.values(), key=lambda one: one.index):
            if message.index > store.applied:
                feed(store, message)
        return store

    def later_store(self, begin: int) -> Store:
        """What an instance that starts now makes of the state up to `begin` and of every event past it."""
        mark = self.control(SYNCED, "alpha", "", "pods", epoch=self.epochs["alpha"])
        self.append(("kbc", "alpha", SYNCED, "", "pods"), mark)
        store = Store("h", TTL, 1 << 30, Renewing(begin))
        store.window.close()
        for message in sorted(self.log.values(), key=lambda one: one.index):
            if message.index <= begin and (message.expires is None or message.expires > self.now):
                feed(store, message)
        store.note_compacted(begin)
        for message in self.sent[bisect_right(self.sent, begin, key=lambda one: one.index) :]:
            feed(store, message)
        store.settle()
        store.finish_loading(self.now)
        store.check()
        return store

    def catch_up_later(self, store: Store, begin: int) -> None:
        """What a reader gets that comes back: the state up to `begin`, and every event past it."""
        for message in sorted(self.log.values(), key=lambda one: one.index):
            if store.applied < message.index <= begin and (message.expires is None or message.expires > self.now):
                feed(store, message)
        for message in self.sent[bisect_right(self.sent, max(begin, store.applied), key=lambda one: one.index) :]:
            feed(store, message)

    def cold_store(self) -> Store:
        """What an instance that starts now makes of the compacted log."""
        mark = self.control(SYNCED, "alpha", "", "pods", epoch=self.epochs["alpha"])
        self.append(("kbc", "alpha", SYNCED, "", "pods"), mark)
        store = Store("h", TTL, 0, Renewing(self.index))
        for subject, message in sorted(self.log.items(), key=lambda one: one[1].index):
            if message.expires is not None and message.expires <= self.now:
                del self.log[subject]
                continue
            feed(store, message)
        store.finish_loading(self.now)
        store.check()
        return store


def feed(store: Store, message: Message) -> Outcome:
    if isinstance(store.packing, Renewing):
        store.packing.at_random(store)
    if isinstance(message.record, Delta):
        return store.apply_delta(message.record, message.index, message.time, 1000)
    if isinstance(message.record, Forgotten):
        if message.index <= store.applied:
            return Outcome.REDELIVERED
        forget_through(store, message.record.through)
        store.skip(message.index, message.time)
        return Outcome.APPLIED
    return store.apply_control(message.record, message.index, message.time)


def name_of(entry: Entry) -> Name:
    return (entry.cluster, entry.namespace, entry.name)


def take_in(view: View, events: list[ShownChange]) -> None:
    """What a client does that knows nothing of indexes: Kubernetes' reflector."""
    for event in events:
        if event.type == DELETED:
            view.pop(name_of(event.entry), None)
        else:
            view[name_of(event.entry)] = (event.entry.uid, event.entry.index)


def take_in_strictly(view: View, event: ShownChange) -> None:
    """What a client does that takes ADDED and MODIFIED at their word."""
    name = name_of(event.entry)
    if event.type == ADDED:
        assert name not in view, event
    elif event.type == MODIFIED:
        assert view.get(name, ("", 0))[0] == event.entry.uid, event
    take_in(view, [event])


@dataclass
class Client:
    """A watcher: a filter, a position and what it holds."""

    kind: GroupResource
    lens: Lens
    # After a cut nobody knows at which index the view was whole: 0.
    at: Cursor = field(default_factory=lambda: Cursor(0, 0))
    view: View = field(default_factory=dict)
    seen: dict[Name, int] = field(default_factory=dict)

    @property
    def cursor(self) -> int:
        return self.at.read_to

    def relist(self, store: Store) -> None:
        self.view.clear()
        self.seen.clear()
        if (kind := store.types.get(self.kind)) is not None:
            take_in(self.view, initial(store, kind, self.lens.filter))
        self.at = Cursor(store.applied)

    def behind(self, store: Store) -> bool:
        """Whether an open watch at this position is told 410 (query/objects/watches.py)."""
        kind = store.types.get(self.kind)
        return kind is not None and self.cursor < kind.forgotten

    def refused(self, store: Store) -> bool:
        """Whether a new watch from this position is told 410 (query/service.py)."""
        return self.cursor < store.floor_of(self.kind, self.lens.filter.clusters)

    def pull(self, store: Store, limit: int = EVERYTHING) -> tuple[list[ShownChange], bool]:
        """One read: its events, taken in, and whether that was all."""
        kind = store.types.get(self.kind)
        events, upto = ([], None) if kind is None else changes(kind, self.at.position(kind), self.lens.filter, limit)
        for event in events:
            # Read in an order that a client which stores each event's version could resume from.
            name = name_of(event.entry)
            assert event.at >= self.seen.get(name, 0), "an older state after a newer one"
            assert event.at > self.cursor or event.type == DELETED
            assert event.entry.index == event.at or event.type == DELETED
            self.seen[name] = event.at
        take_in(self.view, events)
        self.at.advance(store, upto)
        return events, upto is None


def every_client() -> list[Client]:
    return [Client(kind, lens) for kind in TYPES for lens in LENSES]


def run(world: World, store: Store, steps: int, each: Callable[[Store], None], *, noise: bool = True) -> None:
    """Steps of the world into one warm store; `each` reads from it.

    The store's invariants, of all that it holds, take as long as ten steps: what breaks one is seen some steps later.
    """
    for step in range(steps):
        feed(store, world.step())
        if noise and world.random.random() < 0.15:
            world.noise(store)
        if world.random.random() < 0.3:
            world.now += int(world.random.random() * 8 * SECOND)
        if world.random.random() < 0.1:
            store.forget(world.now)
        if world.random.random() < 0.1:
            bury(store, world.now - world.random.randrange(TTL * SECOND))
        if step % CHECKED == CHECKED - 1 or step == steps - 1:
            store.check()
        each(store)


def warm_store(window: int = 0, *, packs: bool = True) -> Store:
    store = Store("h", TTL, window, Renewing(window) if packs else None)
    store.finish_loading(0)
    return store


@pytest.mark.parametrize("indexed", [False, True], ids=["scanned", "indexed"])
@pytest.mark.parametrize("seed", range(4))
def test_lists_are_the_state_at_the_applied_index(
    seed: int, indexed: bool, delta: Make, control: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    if indexed:
        # `store.check` compares each index with one made anew.
        monkeypatch.setattr(indexes_module, "WORTHWHILE", -1)
    world = World(seed, delta, control)

    def each(store: Store) -> None:
        for kind in TYPES:
            lens = world.random.choice(LENSES)
            listed: View = {}
            if kind in store.types:
                found = store.types[kind].select(lens.filter)
                assert [name_of(entry) for entry in found] == sorted(name_of(entry) for entry in found)
                listed = {name_of(entry): (entry.uid, entry.index) for entry in found}
            assert listed == world.view_at(kind, lens, store.applied)

    store = warm_store()
    run(world, store, 1500, each)
    assert any(kind.indexes for kind in store.types.values()) is indexed


@pytest.mark.parametrize("seed", range(6))
def test_watchers_see_exactly_what_changed(seed: int, delta: Make, control: Make) -> None:
    """Full reads at random moments on a warm store: no event too many, none too few, none false."""
    world = World(seed, delta, control)
    clients = every_client()

    def each(store: Store) -> None:
        for client in clients:
            if world.random.random() > 0.12:
                continue
            if client.behind(store):
                client.relist(store)
            after, held = client.cursor, dict(client.view)
            events, _ = client.pull(store)
            for event in events:
                name = name_of(event.entry)
                if event.type == DELETED and world.lives_begun(client.kind, name, after) < 2:
                    # With several lives of a name past the position, a deletion too many is allowed.
                    assert held.get(name, ("", 0))[0] == event.entry.uid, (after, event)
                take_in_strictly(held, event)
            assert client.view == world.view_at(client.kind, client.lens, store.applied)

    run(world, warm_store(), 1500, each)


@pytest.mark.parametrize("seed", range(4))
def test_unselective_watchers_that_read_in_small_pieces_converge(seed: int, delta: Make, control: Make) -> None:
    pieces(World(seed, delta, control), [c for c in every_client() if not c.lens.filter.selective])


@pytest.mark.parametrize("seed", range(4))
def test_selective_watchers_that_read_in_small_pieces_converge(seed: int, delta: Make, control: Make) -> None:
    pieces(World(seed, delta, control), [c for c in every_client() if c.lens.filter.selective])


def pieces(world: World, clients: list[Client], window: int = 0) -> None:
    """Reads limited to a few events, at random moments: the state changes between the pieces of one pass."""

    def each(store: Store) -> None:
        for client in clients:
            if world.random.random() > 0.3:
                continue
            if client.behind(store):
                client.relist(store)
            if client.pull(store, world.random.randint(1, 3))[1]:
                assert client.view == world.view_at(client.kind, client.lens, store.applied)

    run(world, warm_store(window), 1200, each)


@pytest.mark.parametrize("cold", [False, True], ids=["warm", "cold"])
@pytest.mark.parametrize("seed", range(4))
def test_pieces_between_which_nothing_happens_are_exact(seed: int, cold: bool, delta: Make, control: Make) -> None:
    """A watcher that comes back reads all that it missed in pieces: what it does not hold is ADDED, and that only."""
    world = World(seed, delta, control)
    warm = warm_store()
    several = 0
    for _ in range(60):
        for _ in range(world.random.randint(1, 30)):
            feed(warm, world.step())
            world.now += int(world.random.random() * world.random.choice((0, 3)) * SECOND)
        store = world.cold_store() if cold else warm
        for client in every_client():
            client.at = Cursor(world.random.randint(max(0, world.index - 60), world.index))
            if client.lens.filter.selective or client.refused(store):
                continue
            client.view = world.view_at(client.kind, client.lens, client.cursor)
            held = dict(client.view)
            pieces, complete = 0, False
            while not complete:
                events, complete = client.pull(store, world.random.randint(1, 3))
                pieces += 1
                for event in events:
                    take_in_strictly(held, event)
            assert client.view == held == world.view_at(client.kind, client.lens, store.applied)
            several += pieces > 1
    assert several > 200


@pytest.mark.parametrize("seed", range(4))
def test_unselective_clients_cut_off_within_a_read_resume(seed: int, delta: Make, control: Make) -> None:
    cuts(World(seed, delta, control), [c for c in every_client() if not c.lens.filter.selective])


@pytest.mark.parametrize("seed", range(4))
def test_selective_clients_cut_off_within_a_read_resume(seed: int, delta: Make, control: Make) -> None:
    cuts(World(seed, delta, control), [c for c in every_client() if c.lens.filter.selective])


def cuts(world: World, clients: list[Client]) -> None:
    """Clients cut off behind any event of a read come back with that event's version, at once or later."""
    away: list[Client] = []

    def come_back(client: Client, store: Store) -> None:
        if client.refused(store):
            return
        client.pull(store)
        assert client.view == world.view_at(client.kind, client.lens, store.applied)

    def each(store: Store) -> None:
        for client in clients:
            if world.random.random() > 0.06:
                continue
            if client.behind(store):
                client.relist(store)
            held = dict(client.view)
            events, _ = client.pull(store)
            for at in range(len(events)):
                cut = Client(client.kind, client.lens, Cursor(events[at].at, 0), dict(held))
                take_in(cut.view, events[: at + 1])
                if world.random.random() < 0.1:
                    away.append(Client(cut.kind, cut.lens, Cursor(cut.cursor, 0), dict(cut.view)))
                come_back(cut, store)
        if away and world.random.random() < 0.5:
            come_back(away.pop(world.random.randrange(len(away))), store)

    run(world, warm_store(), 1200, each)


@pytest.mark.parametrize("seed", range(4))
def test_with_little_memory_of_past_labels_watchers_still_converge(
    seed: int, delta: Make, control: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store_module, "_PAST_LIMIT", 3)
    world = World(seed, delta, control)
    clients = [client for client in every_client() if client.lens.filter.selective]

    def each(store: Store) -> None:
        for client in clients:
            if world.random.random() > 0.1:
                continue
            if client.behind(store):
                client.relist(store)
            client.pull(store)
            assert client.view == world.view_at(client.kind, client.lens, store.applied)

    run(world, warm_store(), 1000, each)


@pytest.mark.parametrize("seed", range(8))
def test_a_cold_store_serves_every_resume_above_its_floor(seed: int, delta: Make, control: Make) -> None:
    """An instance started on the compacted log: lists are right, and so is each resume it does not refuse."""
    world = World(seed, delta, control)
    served = refused = 0
    for _ in range(40):
        for _ in range(world.random.randint(1, 30)):
            world.step()
            world.now += int(world.random.random() * world.random.choice((0, 3, 30)) * SECOND)
        store = world.cold_store()
        assert store.applied == world.index
        for client in every_client():
            target = world.view_at(client.kind, client.lens, store.applied)
            client.relist(store)
            assert client.view == target
            for _ in range(12):
                client.at = Cursor(world.random.randint(max(0, world.index - 60), world.index))
                if client.refused(store):
                    refused += 1
                    continue
                served += 1
                held = world.view_at(client.kind, client.lens, client.cursor)
                came = Client(client.kind, client.lens, Cursor(client.cursor), dict(held))
                events, _ = came.pull(store)
                assert came.view == target, (client.cursor, store.floor, client.kind, client.lens.filter, events)
    assert served > 1000
    assert refused > 0


@pytest.mark.parametrize("seed", range(4))
def test_watchers_move_between_instances(seed: int, delta: Make, control: Make) -> None:
    """Two instances of different age behind one address: a client goes on at either, or is told 410."""
    world = World(seed, delta, control)
    stores = [warm_store(), warm_store()]
    clients = every_client()

    for step in range(900):
        message = world.step()
        for store in stores:
            feed(store, message)
            if step % CHECKED == 0:
                store.check()
        if world.random.random() < 0.3:
            world.now += int(world.random.random() * 8 * SECOND)
        if world.random.random() < 0.1:
            world.random.choice(stores).forget(world.now)
        if step % 60 == 59:
            stores[1] = world.cold_store()
            for message in [one for one in world.sent if one.index > stores[0].applied]:
                feed(stores[0], message)
            assert stores[0].applied == stores[1].applied
        for client in clients:
            if world.random.random() > 0.1:
                continue
            store = world.random.choice(stores)
            # A watch of its own: that store knows only what the client says.
            client.at = Cursor(client.cursor)
            if client.refused(store):
                client.relist(store)
            client.pull(store)
            assert client.view == world.view_at(client.kind, client.lens, store.applied)


@pytest.mark.parametrize("seed", range(4))
def test_an_instance_that_missed_superseded_messages_is_right(seed: int, delta: Make, control: Make) -> None:
    """The server sends a lagging reader only what is still the last of its subject."""
    world = World(seed, delta, control)
    store = warm_store()
    clients = every_client()
    begun = 0
    for _ in range(250):
        for _ in range(world.random.choice((1, 2, 5, 20))):
            world.step()
            if world.random.random() < 0.3:
                world.now += int(world.random.random() * 4 * SECOND)
        if world.random.random() < 0.1:
            world.forget()
        before, store = store, world.catch_up(store)
        store.check()
        if world.random.random() < 0.2:
            store.forget(world.now)
            store.check()
        if store is not before:
            begun += 1
            for client in clients:
                if client.refused(store):
                    client.relist(store)
                client.at = Cursor(client.cursor, 0)
        if world.random.random() < 0.2:
            bury(store, world.now - world.random.randrange(TTL * SECOND))
        for client in clients:
            if world.random.random() > 0.4:
                continue
            if client.behind(store):
                client.relist(store)
            client.pull(store)
            target = world.view_at(client.kind, client.lens, store.applied)
            assert client.view == target
            client.relist(store)
            assert client.view == target
    assert begun > 3


@pytest.mark.parametrize("selective", [False, True], ids=["unselective", "selective"])
@pytest.mark.parametrize("seed", range(4))
def test_watchers_move_to_an_instance_that_missed_superseded_messages(
    seed: int, selective: bool, delta: Make, control: Make
) -> None:
    """One instance saw every message; the other one some of them. Both are the same history."""
    world = World(seed, delta, control)
    complete, lagging = warm_store(), warm_store()
    clients = [client for client in every_client() if client.lens.filter.selective is selective]
    for _ in range(250):
        for _ in range(world.random.choice((1, 2, 5, 20))):
            feed(complete, world.step())
            if world.random.random() < 0.3:
                world.now += int(world.random.random() * 4 * SECOND)
            for client in clients:
                if world.random.random() < 0.2 and client.cursor <= complete.applied:
                    if client.refused(complete):
                        client.relist(complete)
                    client.pull(complete)
        lagging = world.catch_up(lagging)
        if world.random.random() < 0.3:
            bury(world.random.choice((complete, lagging)), world.now - world.random.randrange(TTL * SECOND))
        if world.random.random() < 0.2:
            world.random.choice((complete, lagging)).forget(world.now)
        for client in clients:
            if world.random.random() < 0.5:
                if client.refused(lagging):
                    client.relist(lagging)
                # Another instance: what this one showed it, and what not, this one does not know.
                client.at = Cursor(client.cursor, 0)
                client.pull(lagging)
                assert client.view == world.view_at(client.kind, client.lens, lagging.applied)
