"""Delta: what an object's message says, and its codec.

A payload is one msgpack map whose first key is the version of the format, `v`. Readers ignore keys they don't
know; a payload of a higher version than `WIRE_VERSION` is refused. `docs/log.md` is the contract.
"""

from __future__ import annotations

import re
from typing import Any
from urllib.parse import quote, unquote

import msgspec

from deltalog.wire.errors import DeltalogError

WIRE_VERSION = 1

ADDED = "ADDED"
MODIFIED = "MODIFIED"
DELETED = "DELETED"

# Header of every object's message, for readers that take headers only: `TYPE uid version first oldest`.
SUMMARY_HEADER = "Kb"
# Header beside it where the delta carries a `Replaced`, as JSON.
REPLACED_HEADER = "Kb-Replaced"
# Header of a message whose object is in parts.
PARTS_HEADER = "Kb-Parts"
# Header that tells how the object was pruned, where that is not the usual way: 8 hexadecimal digits.
PRUNED_HEADER = "Kb-Pruned"


class UnreadableRecord(DeltalogError):
    """A message of the log is not in the format of `docs/log.md`, or in a newer version of it."""


# The keys of format 1, where a field's name says more than they do.
_REPLACED_KEYS = {
    "uid_index": "first",
    "oldest_uid_index": "oldest",
    "deletion_index": "gone",
    "member_version": "original",
}
_DELTA_KEYS = {
    "uid_index": "first",
    "member_version": "original",
    "controller_uid": "owner",
    "version_offset": "gap",
    "metadata_end": "meta_end",
}


class Replaced(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, rename=_REPLACED_KEYS):
    """The last object that had the same name before this uid: what a resuming watcher may still hold.

    It is carried until the tombstone time has passed, because a log that keeps one message per subject has
    forgotten the deletion itself.

    - `first`: sequence at which that uid entered the log.
    - `oldest`: sequence from which on the name was known under this uid or an older one (resume: at or past
      it, a watcher may hold some predecessor).
    - `gone`: sequence of its deletion; 0: it went with the message that carries this uid's ADDED.
    - `time`: when it went, in milliseconds since 1970.
    """

    uid: str
    uid_index: int
    oldest_uid_index: int
    time: int
    deletion_index: int = 0
    member_version: str = ""
    labels: dict[str, str] = {}
    fields: dict[str, str] = {}


class Delta(msgspec.Struct, frozen=True, kw_only=True, gc=False, rename=_DELTA_KEYS):
    """One change of one object of one cluster.

    - `original`: the cluster's own resourceVersion of this state (of the deletion, for DELETED).
    - `time`: when the producer saw it, in milliseconds since 1970; `created`: creationTimestamp, in seconds.
    - `first`: sequence at which this uid entered the log; 0: with this very message.
    - `final`: for DELETED, whether the object is its last state (a watch saw it go) or only what was last
      known of its metadata (a later list missed it).
    - `restored`: this state counts although `original` is not newer: the cluster was set back, or the object is pruned
      in another way than before.
    - `in_order`: a watch brought it, behind all that the cluster had before `original`; lists come by names.
    - `object`: the object as JSON, without `metadata.resourceVersion`, as `{"kind":..,"apiVersion":..,
      "metadata":{` + the rest. `gap` is the offset behind `"metadata":{`, where `"resourceVersion":"..",`
      belongs; `meta_end` is the offset behind metadata's closing brace.
    - `compression`, `parts`: of an object too large for a message as it is, see `deltalog.wire.parts`.
    - `labels`, `fields` (selectable fields of the type), `owner` (uid of the controller): copied out, so that
      a reader selects without parsing.
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


class _Version(msgspec.Struct):
    v: int


def newer(version: str, than: str) -> bool:
    """Whether a cluster's own resourceVersion is newer than another one of the same object.

    Integers of the same cluster compare as numbers (KEP-5504); versions of other forms are only equal or not.
    """
    if numeric(version) and numeric(than):
        return (len(version), version) > (len(than), than)
    return version != than


def numeric(version: str) -> bool:
    """Whether a version is a whole number in ASCII digits, as those of every kube-apiserver are."""
    return version.isascii() and version.isdigit()


# What msgspec raises for a payload: text that isn't UTF-8 and nesting without end have no msgspec error of their own.
UNDECODABLE = (msgspec.MsgspecError, UnicodeDecodeError, RecursionError)

_encoder = msgspec.msgpack.Encoder()
_delta_decoder = msgspec.msgpack.Decoder(Delta)
_version_decoder = msgspec.msgpack.Decoder(_Version)


def encode_delta(delta: Delta) -> bytes:
    return _encoder.encode(delta)


def refused(payload: bytes, cause: Exception) -> UnreadableRecord:
    try:
        version = _version_decoder.decode(payload).v
    except UNDECODABLE:
        return UnreadableRecord(f"not a record of this log: {cause}")
    if version > WIRE_VERSION:
        return UnreadableRecord(f"format version {version}; this reader knows up to {WIRE_VERSION}")
    return UnreadableRecord(f"malformed record of version {version}: {cause}")


def decode_delta(payload: bytes) -> Delta:
    """The delta of an object's message. Raises UnreadableRecord."""
    try:
        delta = _delta_decoder.decode(payload)
    except UNDECODABLE as cause:
        raise refused(payload, cause) from cause
    if delta.v > WIRE_VERSION:
        raise refused(payload, ValueError("newer version"))
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
    """Decodes deltas for who keeps many of them: equal texts and labels are one object.

    Siblings have their labels and owner in common, all objects of a cluster its name. Once too many texts are
    remembered they are forgotten at once: what belongs together stands close together in a log.
    """

    def __init__(self) -> None:
        self._texts: dict[str, str] = {}
        self._labels: dict[bytes, dict[str, str]] = {}

    def decode(self, payload: bytes) -> Delta:
        """The same as `decode_delta`, but for what is shared; the labels must not be changed."""
        try:
            delta = _kept_decoder.decode(payload)
            raw = bytes(delta.labels)
            labels = self._labels.get(raw)
            if labels is None:
                labels = _texts_decoder.decode(raw)
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
        delta.cluster = shared(delta.cluster, delta.cluster)
        delta.version = shared(delta.version, delta.version)
        delta.namespace = shared(delta.namespace, delta.namespace)
        delta.controller_uid = shared(delta.controller_uid, delta.controller_uid)
        fields = delta.fields
        for path, value in fields.items():
            fields[path] = shared(value, value)
        kept: Delta = delta
        return kept

    def forget(self) -> None:
        """Gives back what is remembered; what was shared stays so."""
        self._texts.clear()
        self._labels.clear()


class Summary(msgspec.Struct, frozen=True, gc=False):
    """What a headers-only reader learns of an object's last message."""

    type: str
    uid: str
    member_version: str
    uid_index: int
    oldest_uid_index: int
    replaced: Replaced | None = None
    parts: int = 0
    pruned: str = ""


_PLAIN = re.compile(r"[0-9A-Za-z][0-9A-Za-z-]*").fullmatch


def _word(text: str) -> str:
    """A word of the summary: what a cluster gives as uid or version is seldom more than that, but may be anything."""
    if _PLAIN(text):
        return text
    if text == "-":
        return "%2D"
    return quote(text, safe="-:._/+=") or "-"


def _unword(word: str) -> str:
    if word == "-":
        return ""
    return unquote(word) if "%" in word else word


def summary_line(delta: Delta) -> str:
    """What the summary's header says; it cannot break out of its line, whatever the cluster's words are."""
    oldest = delta.replaced.oldest_uid_index if delta.replaced else delta.uid_index
    return f"{delta.type} {_word(delta.uid)} {_word(delta.member_version)} {delta.uid_index} {oldest}"


def summary_headers(delta: Delta, pruned: str = "") -> dict[str, str]:
    """The headers that let a producer read back what it last appended, without the payloads."""
    headers = {SUMMARY_HEADER: summary_line(delta)}
    if pruned:
        headers[PRUNED_HEADER] = pruned
    if delta.replaced is not None:
        headers[REPLACED_HEADER] = msgspec.json.encode(delta.replaced).decode()
    if delta.parts:
        headers[PARTS_HEADER] = str(len(delta.parts))
    return headers


def parse_summary(headers: dict[str, str]) -> Summary | None:
    """The summary in a message's headers; None if it bears none (a server's marker, a foreign message)."""
    line = headers.get(SUMMARY_HEADER)
    if line is None:
        return None
    try:
        kind, uid, original, first, oldest = line.split(" ")
        replaced = None
        if (text := headers.get(REPLACED_HEADER)) is not None:
            replaced = msgspec.json.decode(text, type=Replaced)
        return Summary(
            kind,
            _unword(uid),
            _unword(original),
            int(first),
            int(oldest),
            replaced,
            int(headers.get(PARTS_HEADER, "0")),
            headers.get(PRUNED_HEADER, ""),
        )
    except (ValueError, msgspec.MsgspecError) as cause:
        raise UnreadableRecord(f"header {SUMMARY_HEADER}: {line!r}: {cause}") from cause
