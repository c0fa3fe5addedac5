"""Entry: one object of one cluster as the store holds it: what is hot in slots, all else packed into its record."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from deltalog.wire.delta import Delta, Replaced, UnreadableRecord
from deltalog.wire.kubernetes import CLUSTER_ANNOTATION, GroupResource
from deltalog.wire.kubernetes import ObjectKey as ObjectKey
from deltalog.wire.kubernetes import object_key as object_key
from materializer import record as packed
from materializer.bodies import Dictionary
from materializer.record import (
    BEHIND_METADATA,
    CREATED,
    FINAL,
    FIRST_IS_OWN,
    FIRST_KNOWN,
    FLAGS,
    HEAD_BYTES,
    NO_TEXTS,
    OBSERVED_FROM,
    OLDEST_UID_INDEX,
    REST_SIZE,
    SELECTABLE_SINCE,
    SIZE,
    TIME,
    UID_INDEX,
    UUID,
    VALUES_AT,
    OutOfRange,
    encode_texts,
    ends_of_values,
    head_of,
    index_at,
    length_at,
    pack_head,
    signed_at,
    texts_of,
    uid_bytes,
)

METADATA = b'"metadata":{'
"""How the content of every entry begins (docs/log.md: `object`); its version stands right behind."""

VERSION_OFFSET = len(METADATA)


class Envelope(msgspec.Struct, frozen=True):
    """What all entries of one type, version and history have in common, once in memory.

    - `type_meta`: how their JSON begins, `{"kind":"Pod","apiVersion":"v1",`. `prefix`: of the history.
    - `field_names`: which selectable fields have a value, in the order of the values in the record.
    """

    key: GroupResource
    prefix: str
    type_meta: bytes
    field_names: tuple[str, ...]


# Every envelope, once. There are as many as there are kinds in versions, and sets of fields that have a value.
_envelopes: dict[tuple[object, ...], Envelope] = {}
_MOST_ENVELOPES = 1 << 14


def envelope_of(key: GroupResource, prefix: str, type_meta: bytes, field_names: tuple[str, ...]) -> Envelope:
    """The one envelope with these values. O(number of fields)."""
    at = (type_meta, field_names, key, prefix)
    found = _envelopes.get(at)
    if found is None:
        if len(_envelopes) > _MOST_ENVELOPES:
            _envelopes.clear()
        found = _envelopes[at] = Envelope(key, prefix, type_meta, field_names)
    return found


class Past(msgspec.Struct, gc=False, eq=False):
    """What selectors look at, as it was in an earlier state: from `selectable_since` on, up to that of the next state.

    Shared by all later entries of the object, so that forgetting it once frees it everywhere.
    """

    selectable_since: int
    labels: Mapping[str, str]
    fields: Mapping[str, str]
    controller_uid: str
    before: Past | None = None
    forgotten: bool = False

    def forget(self) -> None:
        """Frees this state and all before it; from here on what they were counts as unknown. O(1)."""
        self.forgotten = True
        self.labels = self.fields = {}
        self.before = None


class Remembered(msgspec.Struct, gc=False, eq=False, frozen=True):
    """What few entries have: `past` and `replaced`, see `Entry`."""

    past: Past | None
    replaced: Entry | None


class Entry(msgspec.Struct, gc=False, eq=False):
    """One state of one object. Never changed once it is in the store, except for what it remembers of the past, and
    that its body is packed later.

    What is asked for often is a field:

    - `index`: sequence of this state's message in the log.
    - `deleted`: this is a tombstone: the body is the last known one, with the version of the deletion.
    - `key`: its name within the cluster and the type. `version`: the API version that the body is in.
    - `labels`: one object for all that have equal ones. `controller_uid`: empty if there is no controlling owner.
    - `envelope`: what it has in common with the others of its type.
    - `dictionary`: under which the body in `record` is packed; None: it is plain. The two are replaced together, on the
      event loop: whoever reads in a thread takes both there first.
    - `record`: all else, see `materializer.record`. `remembered`: None for most.

    Properties read the rest out of the record:

    - `uid_index`: sequence of the uid's first message.
    - `observed_from`: index at which this process first saw the uid. Later than `uid_index` where what came before was
      superseded in the log unread.
    - `first_known_version`: the cluster's resourceVersion of the uid's first state; "" if this process has not seen it.
    - `selectable_since`: index from which on labels, fields and owner are as they are now; what they were before is in
      `past`, as far as this process knows.
    - `member_version`: the object's resourceVersion in its cluster.
    - `type_meta`: the beginning of its JSON; `content`: the rest, with its served resourceVersion,
      `"metadata":{"resourceVersion":"...",...},...}`. They are apart since lists are joins of stored bytes, and items
      of built-in types have no `type_meta` there. `size`: bytes of `content`.
    - `rest`: what stands behind the version in `content`, whatever the index and the history.
    - `behind_metadata`: how many bytes of `content`, at its end, stand behind metadata.
    - `created`: creationTimestamp, in seconds since 1970; `time`: when the log stored it, in nanoseconds since 1970.
    - `final`: of a tombstone: that is the object's last state, as the cluster sent it with the deletion.
    - `replaced`: the tombstone, or last state, of the uid that had the name before; kept as long as a watcher may hold
      it. `oldest_uid_index`: where the oldest uid of the name began that such a watcher may hold, as far as known.

    Example: an object created at 5, relabelled at 8 and changed again at 9 has `index` 9, `uid_index` 5,
    `selectable_since` 8, and a `past` with the labels from 5 on.
    """

    index: int
    deleted: bool
    cluster: str
    namespace: str
    key: ObjectKey
    version: str
    labels: Mapping[str, str]
    controller_uid: str
    envelope: Envelope
    dictionary: Dictionary | None
    record: bytes
    remembered: Remembered | None = None

    # -- what it is ------------------------------------------------------------------------------------------------

    @property
    def name(self) -> str:
        """metadata.name. O(its length)."""
        return self.key[len(self.namespace) + 1 :]

    @property
    def uid(self) -> str:
        """metadata.uid. O(its length)."""
        return packed.uid_in(self.record)

    @property
    def member_version(self) -> str:
        """The object's resourceVersion in its cluster. O(its length)."""
        return packed.member_version_in(self.record)

    @property
    def first_known_version(self) -> str:
        """The cluster's resourceVersion of the uid's first state; "" if this process has not seen it."""
        return packed.first_known_in(self.record)

    @property
    def fields(self) -> Mapping[str, str]:
        """The type's selectable fields that have a value, by their labels. O(fields)."""
        return dict(zip(self.envelope.field_names, texts_of(packed.values_in(self.record)), strict=True))

    def field(self, name: str) -> str:
        """The value of one selectable field; "" if it has none, as selectors read it. O(fields)."""
        names = self.envelope.field_names
        if name not in names:
            return ""
        record = self.record
        values_at, more_at = ends_of_values(record, VALUES_AT)
        return texts_of(record[values_at:more_at])[names.index(name)]

    @property
    def type_meta(self) -> bytes:
        """How its JSON begins. O(1)."""
        return self.envelope.type_meta

    @property
    def uid_index(self) -> int:
        """Sequence of the uid's first message. O(1)."""
        return index_at(self.record, UID_INDEX)

    @property
    def selectable_since(self) -> int:
        """Index from which on labels, fields and owner are as they are now. O(1)."""
        return index_at(self.record, SELECTABLE_SINCE)

    @property
    def observed_from(self) -> int:
        """Index at which this process first saw the uid. O(1)."""
        return index_at(self.record, OBSERVED_FROM)

    @property
    def oldest_uid_index(self) -> int:
        """Where the oldest uid of the name began that a watcher may hold. O(1)."""
        return index_at(self.record, OLDEST_UID_INDEX)

    @property
    def time(self) -> int:
        """When the log stored it, in nanoseconds since 1970. O(1)."""
        return signed_at(self.record, TIME)

    @property
    def created(self) -> int:
        """creationTimestamp, in seconds since 1970; 0: none. O(1)."""
        return signed_at(self.record, CREATED)

    @property
    def final(self) -> bool:
        """Of a tombstone: whether the body is the state that the cluster sent with the deletion. O(1)."""
        return bool(self.record[FLAGS] & FINAL)

    @property
    def past(self) -> Past | None:
        """What selectors saw before `selectable_since`. O(1)."""
        return None if self.remembered is None else self.remembered.past

    @property
    def replaced(self) -> Entry | None:
        """What had the name before, as long as a watcher may hold it. O(1)."""
        return None if self.remembered is None else self.remembered.replaced

    def remember(self, past: Past | None, replaced: Entry | None) -> None:
        """Sets what it remembers; other states that remembered the same go on doing so. O(1)."""
        self.remembered = None if past is None and replaced is None else Remembered(past, replaced)

    # -- its JSON --------------------------------------------------------------------------------------------------

    @property
    def size(self) -> int:
        """Bytes of `content`, known without reading it. O(1)."""
        return length_at(self.record, SIZE)

    @property
    def rest(self) -> bytes:
        """What stands behind the version in `content`. O(size). Raises CorruptFrame."""
        body = packed.body_in(self.record)
        return body if self.dictionary is None else self.dictionary.unpack(body)

    @property
    def behind_metadata(self) -> int:
        """How many bytes of `content` stand behind metadata's closing brace. O(1)."""
        return length_at(self.record, BEHIND_METADATA)

    def opening(self, index: int | None = None, member_version: str | None = None) -> bytes:
        """What stands before `rest` in `content`, with the version of another index or state if that is given."""
        if member_version is None:
            member_version = packed.member_version_in(self.record)
        return METADATA + version_member(self.envelope.prefix, index or self.index, member_version)

    @property
    def content(self) -> bytes:
        """The object as JSON behind `type_meta`. O(size)."""
        return self.opening() + self.rest

    @property
    def body(self) -> bytes:
        """The object as JSON, with its served resourceVersion. O(size)."""
        return b"%b%b%b" % (self.envelope.type_meta, self.opening(), self.rest)

    def content_at(self, index: int, member_version: str | None = None) -> bytes:
        """`content` with the version it has at another index than its own (see `ShownChange`). O(size)."""
        return self.opening(index, member_version) + self.rest

    def metadata(self) -> bytes:
        """The JSON of metadata, with the served version. O(size)."""
        return self.content[VERSION_OFFSET - 1 : -self.behind_metadata]

    # -- other entries of it -----------------------------------------------------------------------------------------

    def is_of(self, uid_packed: bytes, uid: str) -> bool:
        """Whether this is a state of the object with a uid, given as `uid_bytes` and as text. O(1) for UUIDs."""
        return packed.is_of(self.record, uid_packed, uid)

    def same_uid(self, other: Entry) -> bool:
        """Whether the two are states of one object. O(1)."""
        return packed.identity_in(self.record) == packed.identity_in(other.record)


class Life(msgspec.Struct, gc=False):
    """What an entry in the making is to know of its object beside the state itself; see `Entry` for the values.

    `field_names`, `field_values`: as in the envelope and packed as in the record.
    """

    uid_index: int
    selectable_since: int
    observed_from: int
    oldest_uid_index: int
    first_known_version: str
    labels: Mapping[str, str]
    field_names: tuple[str, ...]
    field_values: bytes
    controller_uid: str
    past: Past | None
    replaced: Entry | None

    def go_on(self, current: Entry, *, knows: bool) -> Past | None:
        """Takes over what is known of a live object in the state before; `knows`: that is the one right before.

        Returns that state as a past one, if selectors saw it differently. O(labels, fields).
        """
        record = current.record
        _, _, first, since, observed, oldest, _, _, _, values_at, more_at, _, flags, _ = head_of(record)
        self.uid_index, self.observed_from, self.oldest_uid_index = first, observed, oldest
        if flags & FIRST_KNOWN:
            self.first_known_version = packed.first_known_in(record)
        elif flags & FIRST_IS_OWN:
            self.first_known_version = record[HEAD_BYTES:values_at].decode()
        past = None
        if (remembered := current.remembered) is not None:
            past, self.replaced = remembered.past, remembered.replaced
        else:
            self.replaced = None
        if not knows:
            # What selectors saw in the state before, or in those before that, was superseded unread.
            return None
        if (
            (self.labels is current.labels or self.labels == current.labels)
            and self.field_values == record[values_at:more_at]
            and self.field_names == current.envelope.field_names
            and self.controller_uid == current.controller_uid
        ):
            self.labels = current.labels
            self.field_names = current.envelope.field_names
            self.controller_uid = current.controller_uid
            self.selectable_since = since
            self.past = past
            return None
        self.past = Past(since, current.labels, current.fields, current.controller_uid, past)
        return self.past

    def take_selectables(self, of: Entry) -> None:
        """Takes over what selectors look at from another entry of the object, and since when that is so."""
        self.labels = of.labels
        self.field_names, self.field_values = of.envelope.field_names, packed.values_in(of.record)
        self.controller_uid = of.controller_uid
        self.selectable_since, self.past = of.selectable_since, of.past


def life_of(delta: Delta, index: int, prefix: str, key: GroupResource) -> Life:
    """What the log alone says of the object of a delta that it stored at `index`. O(fields, labels)."""
    first = delta.uid_index or index
    replaced = None
    oldest = first
    if delta.replaced is not None:
        replaced = _entry_of_replaced(delta, delta.replaced, prefix, key, first)
        oldest = delta.replaced.oldest_uid_index
    fields = delta.fields
    return Life(
        first,
        index,
        index,
        oldest,
        "",
        delta.labels,
        tuple(fields),
        encode_texts(list(fields.values())),
        delta.controller_uid,
        None,
        replaced,
    )


def check_numbers(delta: Delta) -> None:
    """Raises UnreadableRecord where `entry_of` would, for who changes something before the entry is made. O(1)."""
    if (
        not -NEVER <= delta.created < NEVER
        or not 0 <= delta.uid_index < 2 * NEVER
        or delta.metadata_end > len(delta.object)
    ):
        raise UnreadableRecord("a number is out of range")


def life_in(entry: Entry) -> Life:
    """What an entry knows of its object."""
    _, _, first, since, observed, oldest, *_ = head_of(entry.record)
    values = packed.values_in(entry.record)
    return Life(
        first,
        since,
        observed,
        oldest,
        entry.first_known_version,
        entry.labels,
        entry.envelope.field_names,
        values,
        entry.controller_uid,
        entry.past,
        entry.replaced,
    )


_FIXED = len(METADATA + b'"resourceVersion":"..",')


def version_member(prefix: str, index: int, member_version: str) -> bytes:
    """`"resourceVersion":"<prefix>.<index>.<member_version>",` as it stands in metadata.

    A cluster's own version may be any text (Kubernetes API Concepts: opaque), so it is escaped where it has to be.
    """
    if member_version.isalnum() and member_version.isascii():
        return f'"resourceVersion":"{prefix}.{index}.{member_version}",'.encode()
    return b'"resourceVersion":%b,' % msgspec.json.encode(f"{prefix}.{index}.{member_version}")


def record_of(
    life: Life,
    prefix: str,
    index: int,
    time: int,
    created: int,
    uid: str,
    uid_packed: bytes,
    member_version: str,
    final: bool,
    rest: bytes | memoryview,
    behind_metadata: int,
    rest_size: int | None = None,
) -> bytes:
    """The record of an entry. O(size).

    `rest`: the body, plain unless `rest_size` says how many bytes it has when it is.

    Raises:
        UnreadableRecord: a number is out of the range that the log's numbers have.
    """
    flags = FINAL if final else 0
    more = None
    if uid_packed:
        flags |= UUID
    else:
        more = [uid]
    if known := life.first_known_version:
        if known == member_version:
            flags |= FIRST_IS_OWN
        else:
            flags |= FIRST_KNOWN
            more = [known] if more is None else [uid, known]
    texts = NO_TEXTS if more is None else encode_texts(more)
    version = member_version.encode()
    values = life.field_values
    values_at = HEAD_BYTES + len(version)
    more_at = values_at + len(values)
    body_at = more_at + len(texts)
    if version.isalnum():
        # As `version_member` writes it.
        length = _FIXED + len(prefix) + len(str(index)) + len(version)
    else:
        length = VERSION_OFFSET + len(version_member(prefix, index, member_version))
    if rest_size is None:
        rest_size = len(rest)
    try:
        head = pack_head(
            time,
            created,
            life.uid_index,
            life.selectable_since,
            life.observed_from,
            life.oldest_uid_index,
            length + rest_size,
            rest_size,
            behind_metadata,
            values_at,
            more_at,
            body_at,
            flags,
            uid_packed,
        )
    except OutOfRange as cause:
        raise UnreadableRecord(f"a number is out of range: {cause}") from None
    return b"".join((head, version, values, texts, rest))


def entry_of(
    delta: Delta,
    index: int,
    time: int,
    prefix: str,
    life: Life | None = None,
    resource: GroupResource | None = None,
    uid_packed: bytes | None = None,
    current: Entry | None = None,
) -> Entry:
    """The entry for a delta that the log stored at `index` and `time` (ns); O(size of the object).

    `life`: what is known of its object; None: what the log alone says. `resource` and `uid_packed` follow from the
    delta, for who has them already. `current`: the present state of the name, of which equal texts are shared.

    Raises:
        UnreadableRecord: a number in it is out of range.
    """
    if resource is None:
        resource = GroupResource(delta.group, delta.resource)
    if life is None:
        life = life_of(delta, index, prefix, resource)
    if uid_packed is None:
        uid_packed = uid_bytes(delta.uid)
    behind = delta.version_offset
    text = delta.object
    record = record_of(
        life,
        prefix,
        index,
        time,
        delta.created,
        delta.uid,
        uid_packed,
        delta.member_version,
        delta.final,
        memoryview(text)[behind:],
        len(text) - delta.metadata_end,
    )
    key: ObjectKey
    if current is None:
        key = f"{delta.namespace}\0{delta.name}"  # type: ignore[assignment]  # hot: no call
    else:
        key = current.key
    if (
        current is not None
        and life.field_names is (envelope := current.envelope).field_names
        and len(envelope.type_meta) == behind - VERSION_OFFSET
        and text.startswith(envelope.type_meta)
    ):
        # It is of the same kind and version.
        pass
    else:
        envelope = envelope_of(resource, prefix, text[: behind - VERSION_OFFSET], life.field_names)
    return Entry(
        index,
        delta.type == "DELETED",
        delta.cluster,
        delta.namespace,
        key,
        delta.version,
        life.labels,
        life.controller_uid,
        envelope,
        None,
        record,
        None if life.past is None and life.replaced is None else Remembered(life.past, life.replaced),
    )


def new_entry(
    delta: Delta,
    index: int,
    time: int,
    prefix: str,
    resource: GroupResource,
    uid_packed: bytes,
    like: Envelope | None = None,
) -> Entry:
    """`entry_of` for an object that was not there and replaced none: most of a first replay, so without a `Life`.

    What the log says of it is all that is known. `like`: the envelope of another entry of the type, maybe the same.
    O(size of the object).

    Raises:
        UnreadableRecord: as `entry_of`.
    """
    text, behind, fields = delta.object, delta.version_offset, delta.fields
    names, values = tuple(fields), encode_texts(list(fields.values()))
    first = delta.uid_index or index
    flags, texts = (UUID, NO_TEXTS) if uid_packed else (0, encode_texts([delta.uid]))
    if delta.final:
        flags |= FINAL
    member_version = delta.member_version
    if first == index and member_version:
        # It entered the log with this message.
        flags |= FIRST_IS_OWN
    version = member_version.encode()
    values_at = HEAD_BYTES + len(version)
    more_at = values_at + len(values)
    rest_size = len(text) - behind
    if version.isalnum():
        # As `version_member` writes it.
        length = _FIXED + len(prefix) + len(str(index)) + len(version)
    else:
        length = VERSION_OFFSET + len(version_member(prefix, index, member_version))
    try:
        head = pack_head(
            time,
            delta.created,
            first,
            index,
            index,
            first,
            length + rest_size,
            rest_size,
            len(text) - delta.metadata_end,
            values_at,
            more_at,
            more_at + len(texts),
            flags,
            uid_packed,
        )
    except OutOfRange as cause:
        raise UnreadableRecord(f"a number is out of range: {cause}") from None
    if (
        like is None
        or len(like.type_meta) != behind - VERSION_OFFSET
        or like.field_names != names
        or not text.startswith(like.type_meta)
    ):
        like = envelope_of(resource, prefix, text[: behind - VERSION_OFFSET], names)
    return Entry(
        index,
        delta.type == "DELETED",
        delta.cluster,
        delta.namespace,
        f"{delta.namespace}\0{delta.name}",  # type: ignore[arg-type]  # hot: no call
        delta.version,
        delta.labels,
        delta.controller_uid,
        like,
        None,
        b"".join((head, version, values, texts, memoryview(text)[behind:])),
        None,
    )


def changed_entry(
    entry: Entry,
    *,
    index: int | None = None,
    time: int | None = None,
    deleted: bool | None = None,
    life: Life | None = None,
    created: int | None = None,
    version: str | None = None,
    type_meta: bytes | None = None,
    rest: bytes | None = None,
    behind_metadata: int | None = None,
    final: bool | None = None,
    body_of: Entry | None = None,
) -> Entry:
    """Another entry that differs in what is given. O(size).

    The body is that of `body_of`, as it is held there, or else `rest`, or else the entry's own.
    """
    holder = body_of or entry
    if rest is None:
        dictionary, body = holder.dictionary, packed.body_in(holder.record)
        rest_size, behind = length_at(holder.record, REST_SIZE), holder.behind_metadata
    else:
        assert behind_metadata is not None
        dictionary, body = None, rest
        rest_size, behind = len(rest), behind_metadata
    life = life or life_in(entry)
    envelope = entry.envelope
    uid = entry.uid
    at = entry.index if index is None else index
    return Entry(
        at,
        entry.deleted if deleted is None else deleted,
        entry.cluster,
        entry.namespace,
        entry.key,
        entry.version if version is None else version,
        life.labels,
        life.controller_uid,
        envelope_of(envelope.key, envelope.prefix, type_meta or holder.type_meta, life.field_names),
        dictionary,
        record_of(
            life,
            envelope.prefix,
            at,
            entry.time if time is None else time,
            entry.created if created is None else created,
            uid,
            uid_bytes(uid),
            entry.member_version,
            entry.final if final is None else final,
            body,
            behind,
            rest_size,
        ),
        None if life.past is None and life.replaced is None else Remembered(life.past, life.replaced),
    )


def of_version(entry: Entry, group: str, version: str) -> Entry:
    """An object that is in another API version now, as a deletion from this one: its metadata, and no more is known.

    Example: the Ship of `sea.example.io/v2` as `{"kind":"Ship","apiVersion":"sea.example.io/v1","metadata":{...}}`.
    """
    kind = entry.type_meta.partition(b',"apiVersion":')[0]
    api_version = msgspec.json.encode(f"{group}/{version}" if group else version)
    return changed_entry(
        entry,
        version=version,
        type_meta=kind + b',"apiVersion":' + api_version + b",",
        rest=entry.rest[: -entry.behind_metadata] + b"}",
        behind_metadata=1,
        final=False,
    )


def _entry_of_replaced(delta: Delta, replaced: Replaced, prefix: str, key: GroupResource, first: int) -> Entry:
    """What is known of a predecessor from the log alone: its metadata's identity and labels.

    Its index is that of its deletion, or `first`, at which the uid began that took its place.
    """
    index = replaced.deletion_index or first
    metadata: dict[str, object] = {"name": delta.name}
    if delta.namespace:
        metadata["namespace"] = delta.namespace
    metadata["uid"] = replaced.uid
    if replaced.labels:
        metadata["labels"] = replaced.labels
    metadata["annotations"] = {CLUSTER_ANNOTATION: delta.cluster}
    rest = msgspec.json.encode(metadata)[1:]
    life = Life(
        replaced.uid_index,
        NEVER,
        0,
        replaced.oldest_uid_index,
        "",
        replaced.labels,
        tuple(replaced.fields),
        encode_texts(list(replaced.fields.values())),
        replaced.controller_uid,
        None,
        None,
    )
    return Entry(
        index,
        True,
        delta.cluster,
        delta.namespace,
        object_key(delta.namespace, delta.name),
        delta.version,
        replaced.labels,
        replaced.controller_uid,
        envelope_of(key, prefix, delta.object[: delta.version_offset - VERSION_OFFSET], life.field_names),
        None,
        record_of(
            life,
            prefix,
            index,
            replaced.time * 1_000_000,
            replaced.created,
            replaced.uid,
            uid_bytes(replaced.uid),
            replaced.member_version,
            False,
            rest + b"}",
            1,
        ),
    )


# The log keeps only the last labels of a predecessor: what a selector saw at any index before is unknown.
NEVER = 2**63
