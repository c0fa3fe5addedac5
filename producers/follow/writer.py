"""The writer of one type of one cluster: knows what the log holds of it, and appends only differences."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator

import msgspec
import structlog

from deltalog import (
    ADDED,
    DELETED,
    MODIFIED,
    UNCHANGED,
    Appender,
    AppendError,
    Conflict,
    Delta,
    LogUnavailable,
    Replaced,
    Selectables,
    encode_delta,
)
from deltalog.append import MessageTooLarge
from deltalog.jetstream.headers import header_lines
from deltalog.jetstream.stream import Log
from deltalog.wire.delta import UNDECODABLE
from deltalog.wire.kubernetes import ObjectKey, content_version, newer, object_key, object_name
from deltalog.wire.parts import fit, part_subject, parts_filter, payload_limit
from deltalog.wire.records import HealthChanged
from deltalog.wire.resource_type import ResourceType
from deltalog.wire.subjects import object_subject, type_prefix
from deltalog.wire.summary import DIGEST_HEADER, PRUNED_HEADER, SUMMARY_HEADER, summary_headers, summary_line
from producers.errors import UnusableInput
from producers.follow.before import Before, Look
from producers.follow.handed_over import HandedOver
from producers.follow.in_flight import InFlight
from producers.follow.known import (
    ForgottenNames,
    Known,
    KnownObjects,
    newer_version,
    packed_uid,
    packed_version,
)
from producers.follow.logged_type import LoggedType
from producers.follow.normalize import Normalized, Normalizer
from producers.follow.nothing import NOTHING
from producers.follow.odd_objects import LEFT_OUT, MENDED, OddObjects, shown
from producers.follow.ownership import Owner, append_control, deposed
from producers.metrics import StateCounts
from producers.timing import DEFAULT, ProducerTiming
from producers.upstream.objects import ObjectIdentity, RawObject, Unusable, identify, raw_object, readable_identity
from producers.upstream.odd_json import OddObject

log = structlog.get_logger("producers.follow.writer")

# How long a purge of parts may take, and until the next attempt, in seconds.
_PURGE_WITHIN = 2.0
_PURGE_AGAIN = 10.0
# Characters of what names an object and its state: a kube-apiserver's have 253 at most.
_LONGEST = 320
# Bytes of a subject, which is part of a line of NATS' protocol of 4 KB at most, as is that of its parts.
_LONGEST_SUBJECT = 2500
# As what objects are noted whose names cannot be read; no object has this one.
_UNNAMED = object_key("", "an object without a name")
# Bytes of a part's sequence, in the message that names it.
_SEQUENCE = 9

# Called when what was appended is acknowledged, with its sequence, or with the reason why it is not.
Stored = Callable[[int, AppendError | None], None]


class Unstorable(UnusableInput):
    """An object that no message of the log can hold, in parts or not."""


def _unstorable(subject: str, delta: Delta) -> str:
    """Why no message can have what names a state: that has to fit into subjects and headers; empty: one can."""
    named = {
        "name": delta.name,
        "namespace": delta.namespace,
        "uid": delta.uid,
        "resourceVersion": delta.member_version,
    }
    for what, text in named.items():
        if len(text) > _LONGEST:
            return f"its {what} has more than {_LONGEST} characters"
    return f"its subject has more than {_LONGEST_SUBJECT} bytes" if len(subject) > _LONGEST_SUBJECT else ""


def _check_key(state: Normalized) -> None:
    """Raises Unstorable for an object whose key could be another's: what parts namespace and name is in the first."""
    if "\0" in state.namespace:
        raise Unstorable("its namespace has a NUL")


def _version_of(state: Normalized) -> str:
    """The version of a state that has none: of its content, whatever the order of its members."""
    try:
        return content_version(msgspec.json.encode(msgspec.json.decode(state.object), order="deterministic"))
    except UNDECODABLE:
        return content_version(state.object)


class Writer:
    """Appends the differences of one type of one cluster, or of one namespace of it. Owned by its reflector.

    An append that fails makes what the log holds uncertain: from then on `observe` raises, and only
    `read_back` makes the writer usable again.
    """

    __slots__ = (
        "_appender", "_before", "_blank", "_failed", "_handed_over", "_in_flight", "_known", "_last_for", "_lines",
        "_log", "_logged", "_normalize", "_obsolete", "_owner", "_prefix", "_purge_at", "_turn", "counts",
        "lacking", "last_version", "odd", "on_failure", "resource",
    )  # fmt: skip

    def __init__(
        self,
        log_: Log,
        appender: Appender,
        owner: Owner,
        resource: ResourceType,
        normalizer: Normalizer,
        counts: StateCounts | None = None,
        *,
        namespace: str | None = None,
        timing: ProducerTiming = DEFAULT,
    ) -> None:
        self.resource = resource
        self.counts = StateCounts() if counts is None else counts
        # The cluster's version of the object last taken in; empty if it had none.
        self.last_version = ""
        # Called when an append has failed that was on its way already: there may be no further `observe` to raise.
        self.on_failure: Callable[[], None] | None = None
        self._log = log_
        self._appender = appender
        self._owner = owner
        self._normalize = normalizer
        self._prefix = type_prefix(owner.cluster, resource.group, resource.version, resource.resource)
        # Header lines that all of its messages have, beside the fence.
        self._lines = header_lines({PRUNED_HEADER: normalizer.mark} if normalizer.mark else {})
        self._last_for = header_lines({"Nats-TTL": f"{log_.tombstone_ttl}s"})
        self._known = KnownObjects(resource.version, normalizer.mark)
        self._logged = LoggedType(log_, owner.cluster, resource.group_resource, resource.version, namespace)
        self._before = Before(self._logged, normalizer, appender.window)
        self._in_flight = InFlight()
        self._handed_over = HandedOver(timing.handed_over)
        # Objects that exist and that the log has lost, as `find_lacking` found: the next list appends them again.
        self.lacking: dict[ObjectKey, None] = NOTHING
        # Whether the log had nothing of the type: then the first list is not compared with it.
        self._blank = False
        self._failed: AppendError | None = None
        # Patterns of parts that no message names any more, with the sequence below which they are, and when they may be
        # purged next (time.monotonic).
        self._obsolete: dict[str, int] = NOTHING
        self._purge_at = 0.0
        # Objects that the log has not as they are.
        self.odd = OddObjects()
        # One state is taken in at a time, from lists, watches and handovers.
        self._turn = asyncio.Lock()

    def __len__(self) -> int:
        """Objects that exist, as far as the log knows. O(objects)."""
        return len(self._known)

    # -- what the log holds ----------------------------------------------------------------------------------------

    async def read_back(self) -> None:
        """Learns from the log, by headers only, what it holds of this type.

        Raises HistoryChanged, and ends only when the log can be read.
        """
        await self._in_flight.none()
        if self._failed is not None and not isinstance(self._failed, Conflict):
            # What was sent and not acknowledged may still be on its way. It is not, once a record that was
            # appended behind it on the same connection is in the log.
            health = HealthChanged(resource=self.resource.group_resource, reason=f"reading back: {self._failed}")
            await append_control(self._appender, self._owner, self._owner.control(health))
        if isinstance(self._failed, MessageTooLarge):
            # The streams take less than they did.
            await self._log.learn_limits()
        self._known.clear()
        self.lacking.clear()
        self._handed_over.clear()
        self._before.clear()
        self._in_flight.forget_objects()
        await self._logged.read(self._known)
        self._blank = self._known.empty
        self._failed = None

    async def find_lacking(self) -> None:
        """Learns which objects the log has lost, of those that it had: the next list appends these again.

        They are repetitions, the same uid at the same version, which readers that have them pass over.
        Raises HistoryChanged, AppendError.
        """
        async with self._turn:
            await self._in_flight.none()
            self.check()
            held = KnownObjects(self.resource.version, self._normalize.mark)
            await self._logged.read(held)
            self.lacking = dict.fromkeys(self._known.missing(frozenset(held)))

    # -- what the cluster has --------------------------------------------------------------------------------------

    async def observe(self, raw: bytes | RawObject, *, listed: bool, stored: Stored | None = None) -> ObjectKey | None:
        """Takes in an object's present state (uses members up); appends it if the log has another. Returns its key.

        A watch event of a version that is not newer is a repetition. What a list has counts, even if it is
        older (a cluster restored from a backup). `stored` is called once what was appended is acknowledged.
        """
        async with self._turn:
            return await self._observe(raw, listed=listed, in_order=not listed, stored=stored)

    async def _observe(
        self, raw: bytes | RawObject, *, listed: bool, in_order: bool, stored: Stored | None = None
    ) -> ObjectKey | None:
        self.check()
        if self._obsolete:
            await self._purge_obsolete()
        self.last_version = ""
        metadata: msgspec.Raw | None = None
        is_odd = False
        try:
            found = raw if isinstance(raw, dict) else raw_object(raw)
            metadata = found.get("metadata")
            if type(found) is OddObject:
                if found.problem:
                    return self._leave_out(found, found.problem)
                is_odd = True
                self._mended(found)
            if listed and not self._blank:
                # Most of a later list is known: that is seen without normalising it.
                identity = identify(found)
                key = object_key(identity.namespace or "", identity.name)
                self.last_version = identity.resource_version or ""
                uid, version = packed_uid(identity.uid or ""), packed_version(self.last_version)
                if self._handed_over.versions and self._outranked(key, self.last_version):
                    return key
                if (
                    self.last_version
                    and self._known.lives_at(key, uid, version)
                    and key not in self._known.otherwise_pruned
                    and key not in self.lacking
                ):
                    self.counts.suppressed += 1
                    return key
            state = self._normalize(found)
        except Unusable as problem:
            return self._leave_out({} if metadata is None else {"metadata": metadata}, str(problem))
        self.last_version = state.member_version
        key = object_key(state.namespace, state.name)
        if not state.member_version:
            # Some aggregated APIs have none: other content is another state.
            state = msgspec.structs.replace(state, member_version=_version_of(state))
        uid, version = packed_uid(state.uid), packed_version(state.member_version)
        if self._handed_over.versions and self._outranked(key, state.member_version):
            return key
        known = self._known.get(key)
        try:
            if known is None:
                _check_key(state)
                look = self._before.look_at(key, state, None)
                delta = self._delta(ADDED, state, in_order=in_order)
                entered = Known(uid, look.digest, version, 0)
                await self._append(key, entered, delta, look, entering=True, stored=stored)
                self.counts.added += 1
            elif not known.deleted_at and known.packed_uid == uid:
                held = known.packed_member_version
                # A list of what the log has counts where that was pruned otherwise, or the log has lost it.
                again = listed and (key in self._known.otherwise_pruned or key in self.lacking)
                if not again and (held == version or not (listed or newer_version(version, held))):
                    self.counts.suppressed += 1
                    return key
                if known.uid_index == 0:
                    known = await self._acknowledged(key, known)
                look = self._before.look_at(key, state, known)
                was: Selectables | None = UNCHANGED
                if known.digest != look.digest:
                    was = await self._before.was(key, known, look, self._known.other_versions)
                # To readers, what is at the same version and yet not the same is as if the cluster had been set back.
                repeated = version == held and key in self.lacking
                restored = not repeated and not newer_version(version, held)
                known.digest, known.packed_member_version = look.digest, version
                delta = self._delta(
                    MODIFIED,
                    state,
                    first=known.uid_index,
                    replaced=None if known.replaced is None else self._unfaded(known),
                    restored=restored,
                    in_order=in_order,
                    was=was,
                )
                await self._append(key, known, delta, look, stored=stored)
                self.counts.modified += 1
            else:
                _check_key(state)
                known = await self._acknowledged(key, known)
                replaced = await self._replaced(key, known)
                look = self._before.look_at(key, state, None)
                entered = Known(uid, look.digest, version, 0, in_parts=known.in_parts)
                if replaced is not None:
                    entered.oldest_uid_index, entered.replaced = replaced.oldest_uid_index, replaced
                # Without uids and versions of its own, what is made again as it was is no repetition of what was
                # deleted.
                again = known.packed_uid == uid and not newer_version(version, known.packed_member_version)
                delta = self._delta(ADDED, state, replaced=replaced, restored=again, in_order=in_order)
                await self._append(key, entered, delta, look, entering=True, stored=stored)
                self.counts.added += 1
        except Unstorable as problem:
            # Nothing of it was sent: what is known of the log is as it was.
            return self._leave_out({} if metadata is None else {"metadata": metadata}, str(problem))
        if self.odd and not is_odd:
            self.odd.well(key)
        return key

    async def observe_deleted(self, raw: bytes | RawObject, *, stored: Stored | None = None) -> None:
        """Takes in an object's last state, sent as DELETED (uses members up). `stored` as for `observe`."""
        async with self._turn:
            await self._observe_deleted(raw, in_order=True, stored=stored)

    async def _observe_deleted(self, raw: bytes | RawObject, *, in_order: bool, stored: Stored | None = None) -> None:
        self.check()
        self.last_version = ""
        metadata: msgspec.Raw | None = None
        try:
            last = raw if isinstance(raw, dict) else raw_object(raw)
            metadata = last.get("metadata")
            if type(last) is OddObject and last.problem:
                raise Unusable(last.problem)
            found = self._normalize(last)
        except Unusable as problem:
            await self._delete_named({} if metadata is None else {"metadata": metadata}, problem)
            return
        self.last_version = found.member_version
        if not found.member_version:
            found = msgspec.structs.replace(found, member_version=_version_of(found))
        key = object_key(found.namespace, found.name)
        known = self._known.get(key)
        if known is None or not known.lives_as(packed_uid(found.uid)):
            self.counts.suppressed += 1
            return
        await self._append_deletion(key, known, found, final=True, in_order=in_order, stored=stored)

    async def _delete_named(self, found: RawObject, problem: Unusable) -> None:
        """Takes in that an object is deleted of whose last state but the name can be read."""
        try:
            identity = readable_identity(found)
        except Unusable:
            identity = ObjectIdentity()
        if not identity.name:
            self._leave_out_unnamed(str(problem))
            return
        self.last_version = version = identity.resource_version or ""
        key = object_key(identity.namespace or "", identity.name)
        self.odd.well(key)
        known = self._known.get(key)
        if known is not None and not known.deleted_at and known.packed_uid == packed_uid(identity.uid or ""):
            await self._delete_by_log(key, known, version)

    async def hand_over(self, found: RawObject, *, deleted: bool) -> asyncio.Future[int]:
        """Takes in a state that did not come by list or watch (uses members up).

        The future has the state's sequence, 0 if the log had it already, or what appending it failed with. Raises as
        `observe` does, and Unusable.
        """
        identity = identify(found)
        key = object_key(identity.namespace or "", identity.name)
        version = identity.resource_version or ""
        if not identity.name or not identity.uid or not version:
            raise Unusable("an object without a name, uid or resourceVersion")
        future: asyncio.Future[int] = asyncio.get_running_loop().create_future()

        def stored(sequence: int, error: AppendError | None) -> None:
            if future.done():
                return
            if error is None:
                future.set_result(sequence)
            else:
                future.set_exception(error)

        async with self._turn:
            self.check()
            known = self._known.get(key)
            if known is not None and known.packed_uid == packed_uid(identity.uid or ""):
                behind = not newer(version, known.member_version)
            else:
                # Of another object of the name, either may be the newer one.
                behind = known is not None and not newer(version, known.member_version) and version.isdigit()
            sent = self._in_flight.sent
            if not behind:
                if deleted:
                    await self._observe_deleted(found, in_order=False, stored=stored)
                else:
                    await self._observe(found, listed=False, in_order=False, stored=stored)
                    if self.odd and (problem := self.odd.left_out(key)):
                        raise Unusable(problem)
                self._handed_over.note(key, version)
            if self._in_flight.sent == sent:
                await self._in_flight.all_sent()
                future.set_result(0)
        return future

    def _outranked(self, key: ObjectKey, version: str) -> bool:
        """Whether a newer state than this one was handed over lately; counts it then."""
        outranked = self._handed_over.outranks(key, version)
        self.counts.suppressed += outranked
        return outranked

    async def delete_all_but(self, seen: set[ObjectKey], version: str) -> None:
        """After a complete list at `version`: objects that exist by the log and were not `seen` are deleted."""
        async with self._turn:
            await self._delete_all_but(seen, version)

    async def _delete_all_but(self, seen: set[ObjectKey], version: str) -> None:
        # What was handed over while the list was taken cannot be in it.
        for key in self._known.missing(seen | self._handed_over.names()):
            self.check()
            if (known := self._known.get(key)) is not None:
                await self._delete_by_log(key, known, version)
        await self._prune_tombstones()

    async def _delete_by_log(self, key: ObjectKey, known: Known, version: str) -> None:
        """Appends that an object is deleted, with its metadata as the log has them. `version`: empty: not known."""
        if known.uid_index == 0:
            known = await self._acknowledged(key, known)
        last = await self._logged.last_delta(key, self._known.other_versions)
        if last is not None:
            state = self._metadata_of(last, version or last.member_version)
        elif key in self.lacking:
            state = self._bare(key, known, version or known.member_version)
        else:
            self._known.drop(key)
            return
        await self._append_deletion(key, known, state, final=False)

    async def _prune_tombstones(self) -> None:
        """Replaces tombstones that hold what is to be pruned now; of those of an object that lives, nothing is left."""
        for key in self._known.tombstones_otherwise_pruned():
            self.check()
            last = await self._logged.last_delta(key, self._known.other_versions)
            known = self._known.get(key)
            if last is not None and last.type == DELETED and known is not None:
                state = self._metadata_of(last, last.member_version)
                await self._append_deletion(key, known, state, final=False)
        self._known.otherwise_pruned.clear()

    def _metadata_of(self, last: Delta, version: str) -> Normalized:
        """The object of a delta of the log at `version`, as far as its end is known: its metadata, pruned."""
        body, gap, meta_end = last.object[: last.metadata_end] + b"}", last.version_offset, last.metadata_end
        if self._normalize.mark:
            # It may have been pruned in another way, or not at all.
            pruned = self._normalize(body)
            body, gap, meta_end = pruned.object, pruned.version_offset, pruned.metadata_end
        return Normalized(
            namespace=last.namespace,
            name=last.name,
            uid=last.uid,
            member_version=version,
            created=last.created,
            controller_uid=last.controller_uid,
            labels=last.labels,
            fields=self._normalize.visible(last.fields),
            object=body,
            version_offset=gap,
            metadata_end=meta_end,
        )

    def _bare(self, key: ObjectKey, known: Known, version: str) -> Normalized:
        """An object of which the log has lost everything, as far as it is known here."""
        namespace, name = object_name(key)
        metadata = {"name": name, **({"namespace": namespace} if namespace else {}), "uid": known.uid}
        found = self._normalize(msgspec.json.encode({"metadata": metadata}))
        return msgspec.structs.replace(found, member_version=version)

    async def delete_outside(self, namespaces: frozenset[str]) -> None:
        """Whatever lives in the log in other namespaces is not wanted any more."""
        await self.delete_all_but({key for key in self._known if object_name(key)[0] in namespaces}, "")

    async def settle(self) -> None:
        """Waits until all that was observed is in the log. Raises as `observe` does."""
        await self._in_flight.none()
        self.check()
        self._blank = False
        await self._purge_obsolete()

    async def purge_other_versions(self) -> None:
        """Removes what the log holds of this type in versions that are no longer the synced one."""
        if self._known.other_versions:
            await self._logged.purge_versions(self._known.other_versions)
            self._known.other_versions.clear()

    # -- appending -------------------------------------------------------------------------------------------------

    async def _append_deletion(
        self,
        key: ObjectKey,
        known: Known,
        found: Normalized,
        *,
        final: bool,
        in_order: bool = False,
        stored: Stored | None = None,
    ) -> None:
        if known.uid_index == 0:
            known = await self._acknowledged(key, known)
        look = self._before.look_at(key, found, known)
        was: Selectables | None = UNCHANGED
        if known.digest != look.digest:
            was = await self._before.was(key, known, look, self._known.other_versions)
        known.deleted_at, known.deletion_index = self._seconds(), 0
        known.digest, known.packed_member_version = look.digest, packed_version(found.member_version)
        replaced = self._unfaded(known)
        self.counts.deleted += 1
        delta = self._delta(
            DELETED, found, first=known.uid_index, replaced=replaced, final=final, in_order=in_order, was=was
        )
        try:
            await self._append(key, known, delta, look, stored=stored)
        except Unstorable:
            # Whoever follows it learns that it is gone all the same.
            found = self._bare(key, known, found.member_version)
            delta = self._delta(DELETED, found, first=known.uid_index, final=False, in_order=in_order)
            await self._append(key, known, delta, look, stored=stored)

    def _delta(
        self,
        event: str,
        found: Normalized,
        *,
        first: int = 0,
        replaced: Replaced | None = None,
        final: bool = True,
        restored: bool = False,
        in_order: bool = False,
        was: Selectables | None = None,
    ) -> Delta:
        return Delta(
            type=event,
            cluster=self._owner.cluster,
            group=self.resource.group,
            version=self.resource.version,
            resource=self.resource.resource,
            namespace=found.namespace,
            name=found.name,
            uid=found.uid,
            member_version=found.member_version,
            time=time.time_ns() // 1_000_000,
            producer=self._owner.producer,
            epoch=self._owner.epoch,
            uid_index=first,
            created=found.created,
            final=final,
            restored=restored,
            in_order=in_order,
            controller_uid=found.controller_uid,
            labels=found.labels,
            fields=found.fields,
            replaced=replaced,
            version_offset=found.version_offset,
            metadata_end=found.metadata_end,
            object=found.object,
            was=was,
        )

    async def _acknowledged(self, key: ObjectKey, known: Known) -> Known:
        """What is known of an object once what is on its way of it is in the log. Raises as `observe` does."""
        await self._in_flight.sequence_of(key)
        self.check()
        return self._known.get(key) or known

    async def _append(
        self,
        key: ObjectKey,
        known: Known,
        delta: Delta,
        look: Look,
        *,
        entering: bool = False,
        stored: Stored | None = None,
    ) -> None:
        """Sends a delta; `known`: what is known of its object once it is sent. Raises Unstorable, AppendError."""
        subject = object_subject(self._prefix, delta.namespace, delta.name)
        if len(subject) + len(delta.uid) + len(delta.member_version) > _LONGEST and (
            problem := _unstorable(subject, delta)
        ):
            raise Unstorable(problem)
        limit = self._limit()
        if delta.replaced is not None and len(header_lines(summary_headers(delta))) > limit // 4:
            # Headers are not cut up; what selectors saw of the object before is what there may be much of.
            replaced = msgspec.structs.replace(delta.replaced, labels={}, fields={})
            delta = msgspec.structs.replace(delta, replaced=replaced)
        delta, payload, pieces = fit(delta, limit)
        if pieces and len(encode_delta(delta)) + len(pieces) * _SEQUENCE > limit:
            raise Unstorable(f"beside its content it has more than the {limit} bytes of a message")
        if pieces:
            delta = await self._append_parts(subject, delta, pieces)
            payload = encode_delta(delta)
        had_parts = known.in_parts
        known.in_parts = bool(pieces)
        self._known.put(key, known)
        if self._known.otherwise_pruned:
            self._known.otherwise_pruned.pop(key, None)
        if delta.replaced is None and not delta.parts:
            # Nearly all; a dict and its checks would cost as much as the rest of the headers.
            summary = f"{SUMMARY_HEADER}: {summary_line(delta)}\r\n{DIGEST_HEADER}: {look.digest.hex()}\r\n"
            lines = self._lines + summary.encode()
        else:
            lines = self._lines + header_lines(summary_headers(delta, digest=look.digest))
        if delta.type == DELETED:
            lines += self._last_for
        awaited = key if entering or delta.type == DELETED else None

        def acknowledged(sequence: int, error: AppendError | None) -> None:
            if had_parts and error is None:
                # Parts of the state before; those of this one begin with the first it names.
                self._obsolete = self._obsolete or {}
                self._obsolete[parts_filter(subject)] = delta.parts[0] if delta.parts else sequence
            if error is not None:
                first, self._failed = self._failed is None, self._failed or error
                if first and self.on_failure is not None:
                    self.on_failure()
                if isinstance(error, Conflict):
                    self.counts.refused += 1
                else:
                    self.counts.failed += 1
            elif delta.type == DELETED:
                self._known.deletion_acknowledged(key, sequence)
            elif entering:
                self._known.acknowledged(key, sequence)
            if stored is not None:
                stored(sequence, error)
            self._in_flight.end(awaited)

        self._before.note(key, look)
        if self.lacking:
            self.lacking.pop(key, None)
        self._in_flight.begin(awaited)
        try:
            await self._appender.append(subject, payload, acknowledged, lines, self._owner.fence)
        except AppendError as error:
            acknowledged(0, error)
            raise

    def _limit(self) -> int:
        return payload_limit(self._log.message_limit)

    async def _append_parts(self, subject: str, delta: Delta, pieces: list[bytes]) -> Delta:
        sequences = []
        for number, piece in enumerate(pieces):
            part = part_subject(subject, delta.member_version, number)
            try:
                sequences.append(await self._appender.append_wait(part, piece, fence=self._owner.fence))
            except Conflict as conflict:
                self._failed = conflict
                self.check()
            except AppendError as error:
                self._failed = error
                raise
        return msgspec.structs.replace(delta, parts=tuple(sequences))

    async def _purge_obsolete(self) -> None:
        """Purges parts from the state, as far as that has come; what is left is purged later."""
        if time.monotonic() < self._purge_at:
            return
        for pattern, below in list(self._obsolete.items()):
            try:
                async with asyncio.timeout(_PURGE_WITHIN):
                    await self._log.purge_state(pattern, below)
            except (LogUnavailable, TimeoutError) as cause:
                # Parts that stay take room only: not worth that what happens waits.
                log.debug("parts are not purged yet", parts=pattern, reason=str(cause))
                self._purge_at = time.monotonic() + _PURGE_AGAIN
                return
            if self._obsolete.get(pattern) == below:
                del self._obsolete[pattern]

    def check(self) -> None:
        """Raises AppendError, or Deposed, if an append has failed since `read_back`."""
        if isinstance(self._failed, Conflict):
            raise deposed(self._owner)
        if self._failed is not None:
            raise self._failed

    def _mended(self, found: OddObject) -> None:
        """An object is taken in as it was mended."""
        identity = identify(found)
        key = object_key(identity.namespace or "", identity.name)
        if self.odd.note(key, MENDED):
            log.warning("object mended", **self._named(key), problem=MENDED)

    def _leave_out(self, found: RawObject, problem: str) -> ObjectKey | None:
        """An object is not taken in; what the log has of it stays, and its key is returned, unless it is another's."""
        try:
            identity = readable_identity(found)
        except Unusable:
            identity = ObjectIdentity()
        if not identity.name:
            self._leave_out_unnamed(problem)
            return None
        self.counts.unusable += 1
        self.last_version = identity.resource_version or ""
        key = object_key(identity.namespace or "", identity.name)
        if self.odd.note(key, f"{LEFT_OUT}{problem}"):
            log.error("object left out", **self._named(key), problem=problem)
        known = self._known.get(key)
        return key if known is not None and known.packed_uid == packed_uid(identity.uid or "") else None

    def _named(self, key: ObjectKey) -> dict[str, str]:
        """An object as log lines name it."""
        return {
            "cluster": self._owner.cluster,
            "type": str(self.resource.group_resource),
            "object": shown(key),
        }

    def _leave_out_unnamed(self, problem: str) -> None:
        """Objects whose names cannot be read count as one: which of them it is cannot be told."""
        self.counts.unusable += 1
        if self.odd.note(_UNNAMED, f"{LEFT_OUT}{problem}"):
            log.error(
                "object left out", cluster=self._owner.cluster, type=str(self.resource.group_resource), problem=problem
            )

    def _seconds(self) -> float:
        """Now, by the log's clock, which tombstones go by."""
        return self._log.now() / 1e9

    def _unfaded(self, known: Known) -> Replaced | None:
        """What it replaced, unless that is too long ago for a resume from before."""
        replaced = known.replaced
        if replaced is not None and replaced.time < (self._seconds() - self._log.tombstone_ttl) * 1000:
            replaced = known.replaced = None
        return replaced

    async def _replaced(self, key: ObjectKey, known: Known) -> Replaced | None:
        """What a new uid carries along of the last holder of its name."""
        deleted = known.deleted_at or self._seconds()
        if deleted < self._seconds() - self._log.tombstone_ttl:
            return None
        last = await self._logged.last_delta(key, self._known.other_versions)
        return Replaced(
            uid=known.uid,
            uid_index=known.uid_index,
            oldest_uid_index=known.first_uid_index,
            time=int(deleted * 1000),
            deletion_index=known.deletion_index,
            member_version=known.member_version,
            labels=last.labels if last else {},
            fields=self._normalize.visible(last.fields) if last else {},
            controller_uid=last.controller_uid if last else "",
            created=last.created if last else 0,
        )

    def forget_deleted(self, through: int = 0) -> ForgottenNames:
        """Drops objects that were deleted longer ago than tombstones are kept, or at a sequence up to `through`."""
        return self._known.forget_deleted(self._seconds() - self._log.tombstone_ttl, through)

    def deletions(self) -> Iterator[int]:
        """The sequences of the deletions that are remembered, in no particular order. O(objects)."""
        return self._known.deletions()
