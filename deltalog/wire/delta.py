"""Delta: what an object's message says, and its codec.

A payload is one msgpack map whose first key is the version of the format, `v`. Readers ignore keys that they do not
know, and refuse a payload of a higher version than `WIRE_VERSION`. `docs/log.md` is the contract. Sequences are those
of the stream's messages, which are the indexes of changes everywhere in kubebraid.
"""

from __future__ import annotations

from typing import Any

import msgspec

from deltalog.wire.errors import DeltalogError

WIRE_VERSION = 1

ADDED = "ADDED"
MODIFIED = "MODIFIED"
DELETED = "DELETED"


class UnreadableRecord(DeltalogError):
    """A message of the log is not in the format of `docs/log.md`, or in a newer version of it."""


# The keys of format 1, where a field's name says more than they do.
_REPLACED_KEYS = {
    "uid_index": "first",
    "oldest_uid_index": "oldest",
    "deletion_index": "gone",
    "member_version": "original",
    "controller_uid": "controller",
}
_DELTA_KEYS = {
    "uid_index": "first",
    "member_version": "original",
    "controller_uid": "owner",
    "version_offset": "gap",
    "metadata_end": "meta_end",
}


class Replaced(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, rename=_REPLACED_KEYS):
    """The uid that had an object's name before the present one: what a watcher that resumes may still hold.

    Deltas carry it until the tombstone time has passed, because a log with one message per subject has forgotten the
    deletion itself. A Pod web-0 that a StatefulSet made at sequence 640, again with another uid at 700 and again at
    812, has in the last one's deltas `uid_index=700, oldest_uid_index=640`: a watcher that comes from 650 may hold the
    first one, one that comes from 750 the second one, one that comes from 600 neither.

    - `uid`: the one before. `uid_index`: sequence at which it entered the log.
    - `oldest_uid_index`: sequence from which on the name has been in use, by it or by others before it.
    - `deletion_index`: sequence of its deletion; 0: it went with the message that has the present uid's ADDED.
    - `time`: when it went, in milliseconds since 1970 by the producer's clock.
    - `member_version`, `labels`, `fields`, `controller_uid`, `created`: those of its last state, as in `Delta`.
    """

    uid: str
    uid_index: int
    oldest_uid_index: int
    time: int
    deletion_index: int = 0
    member_version: str = ""
    labels: dict[str, str] = {}
    fields: dict[str, str] = {}
    controller_uid: str = ""
    created: int = 0


class Selectables(msgspec.Struct, frozen=True, omit_defaults=True, gc=False, rename={"controller_uid": "controller"}):
    """What selectors look at, of one state of an object: `labels`, `fields` and `controller_uid` as in `Delta`.

    `controller_uid` None stands in `UNCHANGED` only: an object without a controller has the empty text.
    """

    labels: dict[str, str] = {}
    fields: dict[str, str] = {}
    controller_uid: str | None = None


UNCHANGED = Selectables()
"""As `Delta.was`: the state before had the labels, fields and controller that the delta has. Compared by `is`."""


class Delta(msgspec.Struct, frozen=True, kw_only=True, gc=False, rename=_DELTA_KEYS):
    """One change of one object of one cluster: the object's state after it.

    Where a key on the wire is another than the field's name, it stands in brackets.

    - `v`: version of the format. `type`: ADDED, MODIFIED or DELETED, as the producer saw it.
    - `group`, `namespace`: empty for the core group and for cluster-scoped objects. `version`: the API version that the
      object is in, `v1`.
    - `member_version` (`original`): the cluster's own resourceVersion of this state; for DELETED, of the deletion.
    - `time`: when the producer saw it, in milliseconds since 1970. `created`: creationTimestamp, in seconds since 1970;
      0: none.
    - `producer`, `epoch`: who appended it, and in which ownership of the cluster (`OwnerChanged` in wire/records.py).
    - `uid_index` (`first`): sequence at which this uid entered the log; 0: with this very message.
    - `final`: of DELETED: the object is its last state, since a watch brought the deletion. False: it is what was last
      known of its metadata, since a later list lacked the object.
    - `restored`: this state counts although `member_version` is not newer than the one before: the cluster was restored
      from a backup, or the object is pruned in another way now.
    - `in_order`: a watch brought it, after all that the cluster had before `member_version`; lists come by names.
    - `labels`, `fields` (`deltalog.wire.selectable_fields`), `controller_uid` (`owner`: uid of the ownerReference with
      `controller: true`): copied out of the object, so that a reader selects without parsing.
    - `replaced`: the object that had the name before this uid; None once no watcher can hold it.
    - `compression`: `zlib` or empty, of `object`. `parts`: sequences of the messages that have the object, which is
      empty here then (`deltalog.wire.parts`).
    - `object`: the object as JSON without `metadata.resourceVersion`: `{"kind":"Pod","apiVersion":"v1","metadata":{`
      and so on.
    - `was`: what selectors look at, as it was in the state of this uid before: a Pod that was labelled `app: web` and
      is labelled `app: api` now has `was.labels == {"app": "web"}`, so that it leaves the selection `app=web` with this
      very message. `UNCHANGED`: as it is now. None: not known (an ADDED, a delta of an older release).
    - `version_offset` (`gap`): bytes of the uncompressed object up to behind `"metadata":{`, 44 here: where a reader
      puts `"resourceVersion":"...",`. `metadata_end` (`meta_end`): up to behind metadata's closing brace.
    """

    v: int = WIRE_VERSION
    type: str
    cluster: str
    group: str
    version: str
    resource: str
    namespace: str
    name: str
    uid: str
    member_version: str
    time: int
    producer: str
    epoch: int
    uid_index: int = 0
    created: int = 0
    final: bool = True
    restored: bool = False
    in_order: bool = False
    controller_uid: str = ""
    labels: dict[str, str] = {}
    fields: dict[str, str] = {}
    replaced: Replaced | None = None
    compression: str = ""
    parts: tuple[int, ...] = ()
    version_offset: int
    metadata_end: int
    object: bytes
    was: Selectables | None = None


class _Version(msgspec.Struct):
    v: int


# What msgspec raises for a payload: text that isn't UTF-8 and nesting without end have no msgspec error of their own.
UNDECODABLE = (msgspec.MsgspecError, UnicodeDecodeError, RecursionError)

_encoder = msgspec.msgpack.Encoder()
# How a delta begins that has all of its keys, and one without `was`; and how `was` stands at its end when it is None.
_HEAD = b"\xde" + len(msgspec.structs.fields(Delta)).to_bytes(2, "big")
_HEAD_WITHOUT_WAS = b"\xde" + (len(msgspec.structs.fields(Delta)) - 1).to_bytes(2, "big")
_NO_WAS = _encoder.encode("was") + _encoder.encode(None)
_delta_decoder = msgspec.msgpack.Decoder(Delta)
_version_decoder = msgspec.msgpack.Decoder(_Version)


def encode_delta(delta: Delta) -> bytes:
    """The payload of an object's message."""
    payload = _encoder.encode(delta)
    if delta.was is None:
        # The key is absent then. msgspec leaves out all defaults of a struct, or none.
        return _HEAD_WITHOUT_WAS + payload[len(_HEAD) : -len(_NO_WAS)]
    return payload


def refused(payload: bytes, cause: Exception) -> UnreadableRecord:
    """Why a payload that was not decoded is unreadable: of a later format, malformed, or no message of ours."""
    try:
        version = _version_decoder.decode(payload).v
    except UNDECODABLE:
        return UnreadableRecord(f"not a record of this log: {cause}")
    if version > WIRE_VERSION:
        return UnreadableRecord(f"format version {version}; this reader knows up to {WIRE_VERSION}")
    return UnreadableRecord(f"malformed record of version {version}: {cause}")


def decode_delta(payload: bytes) -> Delta:
    """The delta of an object's message.

    Raises:
        UnreadableRecord: it is none, or one of a later format.
    """
    try:
        delta = _delta_decoder.decode(payload)
    except UNDECODABLE as cause:
        raise refused(payload, cause) from cause
    if delta.v > WIRE_VERSION:
        raise refused(payload, ValueError("newer version"))
    if delta.was is not None and delta.was.controller_uid is None:
        msgspec.structs.force_setattr(delta, "was", UNCHANGED)
    return delta


# A delta that may still be changed, with its labels undecoded; made by a call because a type checker allows neither.
_Kept = msgspec.defstruct(
    "_Kept",
    [("labels", msgspec.Raw, msgspec.Raw(b"\x80"))],
    bases=(Delta,),
    frozen=False,
    kw_only=True,
    gc=False,
)
_kept_decoder: msgspec.msgpack.Decoder[Any] = msgspec.msgpack.Decoder(_Kept)
_texts_decoder = msgspec.msgpack.Decoder(dict[str, str])
# How many different texts, and label sets, are remembered.
_REMEMBERED = 4096


class SharingDecoder:
    """Decodes deltas for readers that keep many of them: equal texts and equal labels become one object in memory.

    Pods of one ReplicaSet have their labels and controller in common, all objects of a cluster its name. When more than
    4096 texts or label sets are remembered all are forgotten: what belongs together stands close together in a log.
    """

    def __init__(self) -> None:
        self._texts: dict[str, str] = {}
        self._labels: dict[bytes, dict[str, str]] = {}

    def decode(self, payload: bytes) -> Delta:
        """As `decode_delta`. The labels are shared with other deltas and must not be changed.

        Raises:
            UnreadableRecord: as `decode_delta`.
        """
        try:
            delta = _kept_decoder.decode(payload)
            raw = bytes(delta.labels)
            labels = self._labels.get(raw)
            if labels is None:
                # Other sets have most of the same texts: an application's name, its team, its tier.
                share = self._texts.setdefault
                labels = {share(key, key): share(value, value) for key, value in _texts_decoder.decode(raw).items()}
                if len(self._labels) >= _REMEMBERED:
                    self._labels.clear()
                self._labels[raw] = labels
        except UNDECODABLE as cause:
            raise refused(payload, cause) from cause
        if delta.v > WIRE_VERSION:
            raise refused(payload, ValueError("newer version"))
        if len(self._texts) >= _REMEMBERED:
            self._texts.clear()
        shared = self._texts.setdefault
        delta.labels = labels
        if delta.was is not None and delta.was.controller_uid is None:
            delta.was = UNCHANGED
        delta.cluster = shared(delta.cluster, delta.cluster)
        delta.version = shared(delta.version, delta.version)
        delta.namespace = shared(delta.namespace, delta.namespace)
        delta.controller_uid = shared(delta.controller_uid, delta.controller_uid)
        kept: Delta = delta
        return kept

    def forget(self) -> None:
        """Forgets the remembered texts and labels; deltas that share them go on sharing them."""
        self._texts.clear()
        self._labels.clear()
