"""Graves: what is remembered of deletions, against a plain dict of them."""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import NamedTuple
from uuid import UUID

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from materializer.graves import BLOCK, Earlier, Grave, Graves, PackedBlock

Name = tuple[str, str, str]


class Scope(NamedTuple):
    """One of `materializer.graves.GraveScope`."""

    clusters: frozenset[str] | None = None
    namespaces: frozenset[str] | None = None
    names: frozenset[str] | None = None

    def has(self, grave: Grave) -> bool:
        """Whether a grave is in it, said in plain Python."""
        pairs = ((self.clusters, grave.cluster), (self.namespaces, grave.namespace), (self.names, grave.name))
        return all(wanted is None or value in wanted for wanted, value in pairs)


def grave(index: int, name: str = "", **values: object) -> Grave:
    """A pod's, of its own name unless that is given, of which the log has 1,000 bytes."""
    usual: dict[str, object] = {
        "index": index,
        "time": index * 10,
        "cluster": "alpha",
        "namespace": "shop",
        "name": name or f"n{index}",
        "version": "v1",
        "uid": str(UUID(int=index + 1)),
        "uid_index": max(index - 3, 0),
        "member_version": str(7000 + index),
        "size": 1000,
    }
    return Grave(**{**usual, **values})  # type: ignore[arg-type]


def buried(*graves: Grave) -> Graves:
    """All of them, buried at once."""
    made = Graves()
    made.bury(graves)
    made.check()
    return made


TEXTS = st.text(max_size=5)
MAPS = st.dictionaries(TEXTS, TEXTS, max_size=3)
INDEXES = st.integers(0, 2**64 - 1)


@st.composite
def odd_graves(draw: st.DrawFn, *, nested: bool = True) -> Grave:
    """Graves of whatever values: what a store has may come from any cluster, and from older releases."""
    uids = st.one_of(TEXTS, st.uuids().map(str), st.uuids().map(lambda uid: str(uid).upper()), st.just("0" * 36))
    versions = st.one_of(TEXTS, st.integers(0, 10**20).map(str), st.just("007"))
    return Grave(
        index=draw(st.integers(1, 2**40)),
        time=draw(st.integers(0, 2**62)),
        cluster=draw(TEXTS),
        namespace=draw(TEXTS),
        name=draw(TEXTS),
        version=draw(TEXTS),
        uid=draw(uids),
        uid_index=draw(INDEXES),
        member_version=draw(versions),
        labels=draw(MAPS),
        fields=draw(MAPS),
        controller_uid=draw(uids),
        created=draw(st.integers(-(2**63), 2**63 - 1)),
        type_meta=draw(st.binary(max_size=5)),
        selectable_since=draw(INDEXES),
        observed_from=draw(INDEXES),
        oldest_uid_index=draw(INDEXES),
        first_known_version=draw(versions),
        deleted=draw(st.booleans()),
        final=draw(st.booleans()),
        removal=draw(st.booleans()),
        size=draw(st.integers(0, 2**40)),
        replaced=draw(st.lists(odd_graves(nested=False), max_size=2)) if nested else [],
        pasts=[Earlier(*one) for one in draw(st.lists(st.tuples(INDEXES, MAPS, MAPS, TEXTS), max_size=2))],
    )


@pytest.mark.slow
@given(st.lists(odd_graves(), max_size=12))
def test_what_comes_out_is_what_was_put_in(graves: list[Grave]) -> None:
    graves = list({(one.cluster, one.namespace, one.name): one for one in graves}.values())
    graves.sort(key=lambda one: one.index)
    made = buried(*graves)
    assert list(made.after(-1)) == graves
    for one in graves:
        assert made.get(one.cluster, one.namespace, one.name) == one


# -- against a dict ----------------------------------------------------------------------------------------------------


class Model:
    """Graves, and beside them a dict that they have to agree with."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.graves = Graves()
        self.plain: dict[Name, Grave] = {}
        self.index = 0
        self.time = 1_000

    def place(self) -> Name:
        """One of 600 names."""
        chosen = self.random
        return (chosen.choice(("alpha", "beta", "gamma")), chosen.choice(("", "shop")), f"n{chosen.randrange(100)}")

    def bury(self) -> None:
        """Some deletions, some of them of one removal; of names that have no grave."""
        new: dict[Name, Grave] = {}
        for _ in range(self.random.choice((1, 2, 40, 300))):
            removal = self.random.random() < 0.3
            self.index += 0 if removal and new else self.random.randrange(1, 4)
            # The server's clock may be set back.
            self.time += self.random.randrange(-2, 8)
            name = self.place()
            if name not in self.plain and name not in new:
                size = 0 if removal else self.random.randrange(1, 5000)
                made = grave(self.index, time=self.time, removal=removal, size=size)
                new[name] = msgspec.structs.replace(made, cluster=name[0], namespace=name[1], name=name[2])
        self.graves.bury(new.values())
        self.plain |= new

    def discard(self) -> None:
        """Some names are created again."""
        for _ in range(self.random.choice((1, 5, 80))):
            name = self.place()
            assert self.graves.discard(*name) == self.plain.pop(name, None)

    def forget(self) -> None:
        """What is oldest, by time or by index."""
        before = self.time - self.random.randrange(2_000) if self.random.random() < 0.6 else 0
        through = self.index - self.random.randrange(600) if self.random.random() < 0.4 else 0
        gone: list[Grave] = []
        for one in self.ordered():
            if one.index > through and one.time >= before:
                break
            gone.append(one)
        found = self.graves.forget(before=before, through=through)
        assert found.graves == len(gone)
        assert list(found.messages) == [one.index for one in gone if not one.removal]
        assert found.through >= (gone[-1].index if gone else 0)
        for one in gone:
            del self.plain[one.cluster, one.namespace, one.name]

    def image(self) -> None:
        """Goes on with what an image of them has."""
        packed = msgspec.msgpack.decode(msgspec.msgpack.encode(self.graves.packed()), type=list[PackedBlock])
        self.graves = Graves()
        for block in packed:
            self.graves.restore(block)

    def ordered(self) -> list[Grave]:
        """As they were buried, which is by index."""
        return list(self.plain.values())

    def check(self) -> None:
        """All that can be asked."""
        self.graves.check()
        graves = self.ordered()
        assert len(self.graves) == len(graves)
        assert self.graves.size == sum(one.size for one in graves)
        assert self.graves.messages == sum(not one.removal for one in graves)
        assert sum(size.graves for size in self.graves.sizes()) == len(graves)
        assert sum(size.size for size in self.graves.sizes()) == self.graves.size
        assert self.graves.last >= max((one.index for one in graves), default=0)
        for name in [self.place() for _ in range(20)]:
            assert self.graves.get(*name) == self.plain.get(name)
        index = self.random.randrange(self.index + 2)
        assert list(self.graves.after(index)) == [one for one in graves if one.index > index]
        scope = Scope(*(self.subset(one) for one in (("alpha", "beta", "zeta"), ("", "web"), ("n1", "n2", "n3", "x"))))
        assert list(self.graves.after(index, scope)) == [one for one in graves if one.index > index and scope.has(one)]
        assert list(self.graves.entries("beta")) == [one for one in graves if one.cluster == "beta"]
        limit = self.time - self.random.randrange(1_000)
        assert self.graves.stored_before(limit) == sum(one.time < limit and not one.removal for one in graves)
        assert (self.graves.oldest_time is None) is (not graves)

    def subset(self, values: tuple[str, ...]) -> frozenset[str] | None:
        """Some of them; or None, which is all there are."""
        if self.random.random() < 0.5:
            return None
        return frozenset(self.random.sample(values, self.random.randrange(len(values) + 1)))


@pytest.mark.parametrize("seed", range(8))
def test_the_graves_are_a_dict_by_index(seed: int) -> None:
    model = Model(seed)
    steps = (model.bury, model.bury, model.discard, model.forget, model.image)
    for _ in range(60):
        model.random.choice(steps)()
        model.check()


# -- one thing at a time -----------------------------------------------------------------------------------------------


def test_none() -> None:
    none = buried()
    assert (len(none), none.messages, none.size, none.bytes, none.last, none.oldest_time) == (0, 0, 0, 0, 0, None)
    assert none.get("alpha", "shop", "n1") is none.discard("alpha", "shop", "n1") is None
    assert not [*none.after(0), *none.sizes(), *none.packed()]
    assert none.forget(before=10**20, through=10**9) == (0, 0, none.forget().messages)


def test_a_name_is_that_of_a_namespace_and_a_cluster() -> None:
    made = buried(grave(1, "n"), grave(2, "n", namespace="web"), grave(3, "n", cluster="beta"))
    assert [one.index for one in made.after(0)] == [1, 2, 3]
    assert (found := made.get("alpha", "web", "n")) is not None
    assert found.index == 2
    assert made.get("beta", "web", "n") is None
    made.discard("alpha", "shop", "n")
    assert [one.index for one in made.after(0)] == [2, 3]


def test_what_was_created_again_may_be_deleted_again() -> None:
    made = buried(*(grave(index) for index in range(1, 400)))
    for round_ in range(20):
        made.discard("alpha", "shop", "n7")
        made.bury([grave(1000 + round_, "n7")])
        made.check()
    assert (found := made.get("alpha", "shop", "n7")) is not None
    assert found.index == 1019
    assert len(made) == 399


def test_forgetting_ends_within_a_block() -> None:
    made = buried(*(grave(index) for index in range(1, 11)))
    found = made.forget(through=4)
    assert (found.through, found.graves, list(found.messages)) == (4, 4, [1, 2, 3, 4])
    assert made.get("alpha", "shop", "n4") is None
    assert [one.index for one in made.after(0)] == [5, 6, 7, 8, 9, 10]
    assert made.forget(before=70)[:2] == (6, 2)
    assert made.size == 4000
    made.check()


def test_what_a_removal_took_has_no_message() -> None:
    made = buried(grave(3), grave(5, "a", removal=True, size=0), grave(5, "b", removal=True, size=0), grave(6))
    assert (len(made), made.messages, made.size) == (4, 2, 2000)
    assert [one.name for one in made.after(3)] == ["a", "b", "n6"]
    assert made.stored_before(55) == 1
    found = made.forget(through=5)
    assert (found.graves, list(found.messages)) == (3, [3])


def test_few_at_a_time_share_a_block() -> None:
    """A quiet type buries one now and then, and takes no more than one that buries many at once."""
    many, few = buried(*(grave(index) for index in range(1, 200))), Graves()
    for index in range(1, 200):
        few.bury([grave(index)])
    few.check()
    assert list(few.after(0)) == list(many.after(0))
    assert len(list(few.sizes())) <= 2 * (200 // BLOCK + 1) + 1
    assert few.bytes < 1.5 * many.bytes


def busy(count: int) -> Iterator[Grave]:
    """Deleted pods: of 20 workloads in ten clusters, each with what a ReplicaSet's pod has."""
    chosen = random.Random(5)
    for index in range(1, count + 1):
        workload = chosen.randrange(20)
        yield grave(
            index * 7,
            f"web-{workload}-{chosen.randbytes(5).hex()}",
            time=1_790_000_000_000_000_000 + index * 20_000_000 + chosen.randrange(10_000_000),
            cluster=f"sim-{chosen.randrange(10):03}",
            uid=str(UUID(bytes=chosen.randbytes(16))),
            labels={"app": f"web-{workload}", "pod-template-hash": f"{workload:010x}"},
            fields={"spec.nodeName": f"node-{chosen.randrange(60)}", "status.podIP": f"10.1.2.{chosen.randrange(256)}"},
            controller_uid=str(UUID(int=workload)),
            created=1_790_000_000 - chosen.randrange(500_000),
        )


def test_a_grave_takes_a_hundred_bytes() -> None:
    made = buried(*busy(20_000))
    assert made.bytes / len(made) < 110
    assert made.size / len(made) == 1000


def test_what_was_forgotten_takes_no_memory() -> None:
    """However many have come and gone, names too: a run of these goes when all that it speaks of is forgotten."""
    made = Graves()
    most = 0
    waiting = list(busy(60_000))
    for begin in range(0, len(waiting), 500):
        made.bury(waiting[begin : begin + 500])
        if len(made) > 3000:
            made.forget(through=waiting[begin + 499 - 3000].index)
            most = max(most, made.bytes)
    assert len(made) == 3000
    assert most < 3500 * 110 + 60_000 * 8 // 2
    made.forget(through=10**9)
    assert made.bytes < 60_000 * 8


def test_a_name_that_is_deleted_again_and_again_takes_no_more_each_time() -> None:
    made = Graves()
    sizes = []
    for round_ in range(1, 3001):
        made.bury([grave(round_, "n7", time=round_)])
        assert made.discard("alpha", "shop", "n7") is not None
        if round_ % 1000 == 0:
            words = sum(map(len, made._names._newest.values())) + sum(len(run.words) for run in made._names._runs)
            sizes.append(words)
    assert max(sizes) < 300


@pytest.mark.parametrize("data", [b"", b"nonsense", Graves.__name__.encode() * 20])
def test_no_block_of_graves(data: bytes) -> None:
    with pytest.raises(ValueError, match=r"^no block of graves"):
        Graves().restore(PackedBlock(data, b""))
