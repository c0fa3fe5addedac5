"""What the materializer's tests share: a cluster's deltas made by hand, without a broker."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import msgspec
import pytest

from deltalog import ADDED, ControlRecord, Delta, decode_control

SECOND = 1_000_000_000


def made_delta(name: str = "n", type: str = ADDED, uid: str = "u", member_version: str = "1", **given: Any) -> Delta:
    """A delta of a pod-like object in cluster alpha, namespace x, its body as a producer splits it."""
    fixed: dict[str, Any] = {
        "cluster": "alpha",
        "group": "",
        "version": "v1",
        "resource": "pods",
        "namespace": "x",
        "time": 0,
        "producer": "p",
        "epoch": 0,
        "labels": {},
        "fields": {},
    }
    kind = given.pop("kind", "Pod")
    fixed.update(given)
    group_version = f"{fixed['group']}/{fixed['version']}" if fixed["group"] else fixed["version"]
    head = f'{{"kind":"{kind}","apiVersion":"{group_version}","metadata":{{'.encode()
    metadata: dict[str, Any] = {"name": name, "uid": uid}
    if fixed["namespace"]:
        metadata["namespace"] = fixed["namespace"]
    if fixed["labels"]:
        metadata["labels"] = fixed["labels"]
    inner = json.dumps(metadata, separators=(",", ":")).encode()[1:]
    rest = json.dumps({"spec": {"of": member_version}}, separators=(",", ":")).encode()[1:]
    return Delta(
        type=type,
        name=name,
        uid=uid,
        member_version=member_version,
        version_offset=len(head),
        metadata_end=len(head) + len(inner),
        object=head + inner + b"," + rest,
        **fixed,
    )


def with_body(delta: Delta, body: dict[str, Any]) -> Delta:
    """The delta of an object that has this beside its metadata, and of metadata what is in the body's."""
    body = dict(body)
    metadata = {**msgspec.json.decode(delta.object)["metadata"], **body.pop("metadata", {})}
    head = delta.object[: delta.version_offset]
    inner = msgspec.json.encode(metadata)[1:]
    rest = b"," + msgspec.json.encode(body)[1:] if body else b"}"
    return msgspec.structs.replace(delta, metadata_end=len(head) + len(inner), object=head + inner + rest)


def made_control(
    record: str, cluster: str = "alpha", group: str = "", resource: str = "", **given: Any
) -> ControlRecord:
    """A control record as it is read from a message with these keys; `epoch` and `data` as given."""
    message: dict[str, Any] = {"v": 1, "record": record, "cluster": cluster, "group": group, "resource": resource}
    message |= {"time": 0, "producer": "p", "epoch": 0, **given}
    return decode_control(msgspec.msgpack.encode(message))


@pytest.fixture(name="delta", scope="session")
def delta_fixture() -> Callable[..., Delta]:
    """Makes a delta (a conftest cannot be imported)."""
    return made_delta


@pytest.fixture(name="control", scope="session")
def control_fixture() -> Callable[..., ControlRecord]:
    """Makes a control record."""
    return made_control
