"""The journal: what a cluster has acknowledged, in a file, so that a killed process can continue as the same cluster.

One JSON line for each write, handed to the kernel before a client sees the write: it outlives the process (SIGKILL),
not the machine. Each start begins a new file with the state of that moment. The objects and the version counter are
kept; event history is not, as the watch cache of a restarted kube-apiserver has none. Objects of aggregated APIs are
not kept either.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import msgspec

from simulation.resources import BUILT_IN, CUSTOM_RESOURCE_DEFINITIONS, custom_type
from simulation.storage import ClusterStorage, StoredObject

__all__ = ["Journal"]


class _Line(msgspec.Struct):
    """`op`: `version` (the counter alone), `put`, `remove` (namespace and name), `type-gone`."""

    op: str
    version: int
    group: str = ""
    resource: str = ""
    namespace: str = ""
    name: str = ""
    object: dict[str, Any] | None = None


_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(_Line).decode


class Journal:
    """The file of one cluster, a `WriteLog`. `begin` attaches it to a storage, which from then on writes to it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file: int | None = None

    def exists(self) -> bool:
        """Whether there is the file of an earlier run."""
        return self.path.exists()

    def restore(self, storage: ClusterStorage) -> None:
        """Fill a storage that has only the built-in types. A last line that is cut off was never acknowledged.

        Raises:
            OSError: the file cannot be read.
            msgspec.MsgspecError: a whole line of it is not one of a journal.
        """
        whole, _, _ = self.path.read_bytes().rpartition(b"\n")
        for raw in whole.split(b"\n"):
            line = _decode(raw)
            key = (line.group, line.resource)
            if line.op == "put" and line.object is not None:
                if (collection := storage.collections.get(key)) is not None:
                    storage.restore(collection, line.object, line.version)
                if key == CUSTOM_RESOURCE_DEFINITIONS:
                    storage.add_type(custom_type(line.object))
            elif line.op == "remove":
                if (collection := storage.collections.get(key)) is not None:
                    storage.remove(collection, line.namespace, line.name)
            elif line.op == "type-gone":
                storage.remove_type(key)
            storage.version = line.version
        storage.compact()

    def begin(self, storage: ClusterStorage) -> None:
        """Replace the file by the present state of a storage, and take every later write of it.

        Raises:
            OSError: the file cannot be written.
        """
        self.path.parent.mkdir(parents=True, exist_ok=True)
        draft = self.path.with_name(f"{self.path.name}.{os.getpid()}.new")
        built_in = [type.key for type in BUILT_IN]
        # Definitions first: the objects of a custom type need it.
        order = sorted(storage.collections, key=lambda key: (key != CUSTOM_RESOURCE_DEFINITIONS, key not in built_in))
        with draft.open("wb") as file:
            for key in order:
                for stored in storage.collections[key].in_order():
                    file.write(_put(key, stored))
            file.write(_line(_Line("version", storage.version)))
        draft.replace(self.path)
        self._file = os.open(self.path, os.O_WRONLY | os.O_APPEND)
        storage.journal = self

    def put(self, key: tuple[str, str], stored: StoredObject) -> None:
        """Append an object's new state. Raises OSError."""
        self._append(_put(key, stored))

    def remove(self, key: tuple[str, str], namespace: str, name: str, version: int) -> None:
        """Append the removal of an object. Raises OSError."""
        self._append(_line(_Line("remove", version, *key, namespace, name)))

    def type_removed(self, key: tuple[str, str], version: int) -> None:
        """Append that a type is no longer served. Raises OSError."""
        self._append(_line(_Line("type-gone", version, *key)))

    def close(self) -> None:
        """Close the file; later writes are not kept."""
        if self._file is not None:
            os.close(self._file)
            self._file = None

    def _append(self, line: bytes) -> None:
        if self._file is not None:
            os.write(self._file, line)


def _line(line: _Line) -> bytes:
    return _encode(line) + b"\n"


def _put(key: tuple[str, str], stored: StoredObject) -> bytes:
    head = _encode({"op": "put", "version": stored.version, "group": key[0], "resource": key[1]})
    return head[:-1] + b',"object":{' + stored.tail + b"}\n"
