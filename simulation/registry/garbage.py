"""Garbage collection: what becomes of the dependents of a deleted object, and of what is in a deleted namespace."""

from __future__ import annotations

from collections.abc import Callable

from simulation.resources import SimulatedType
from simulation.storage import ClusterStorage, Collection, StoredObject

__all__ = ["GarbageCollector"]


class GarbageCollector:
    """Follows `metadata.ownerReferences` at once, as the garbage collector of a real cluster does a moment later.

    `delete` deletes one object of a type by namespace and name, with whatever that brings; it may call back here.
    """

    def __init__(self, storage: ClusterStorage, delete: Callable[[SimulatedType, str, str], object]) -> None:
        self._storage = storage
        self._delete = delete

    def cascade(self, uid: str) -> None:
        """Delete the dependents of an owner. One with another living owner stays, without this reference."""
        for collection, stored in self._storage.dependents(uid):
            if collection.objects.get(stored.key) is not stored:
                continue
            living = [owner for owner in stored.owners if owner != uid and self._exists(owner)]
            if living:
                self._disown(collection, stored, uid)
            else:
                self._delete(collection.type, *stored.key)

    def orphan(self, uid: str) -> None:
        """Take an owner out of the references of its dependents, which stay."""
        for collection, stored in self._storage.dependents(uid):
            self._disown(collection, stored, uid)

    def empty_namespace(self, namespace: str) -> None:
        """Remove everything in a namespace, whatever finalizers say, and the dependents of that."""
        for collection in list(self._storage.collections.values()):
            if not collection.type.namespaced:
                continue
            for key in [key for key in collection.objects if key[0] == namespace]:
                stored = collection.objects.get(key)
                if stored is not None:
                    removed = self._storage.remove(collection, *key)
                    if removed is not None:
                        self.cascade(removed.uid)

    def _exists(self, uid: str) -> bool:
        return any(
            stored.uid == uid
            for collection in self._storage.collections.values()
            for stored in collection.objects.values()
        )

    def _disown(self, collection: Collection, stored: StoredObject, uid: str) -> None:
        body = stored.body()
        references = body["metadata"].get("ownerReferences", [])
        body["metadata"]["ownerReferences"] = [owner for owner in references if owner["uid"] != uid]
        self._storage.put(collection, body)
