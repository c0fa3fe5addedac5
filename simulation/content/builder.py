"""The builder that all content is made with: stores an object as if a manager had made it some time ago."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from typing import Any, Literal, TypeVar

from simulation.registry import Registry
from simulation.registry.managed_fields import field_set, managed_fields_entry
from simulation.registry.registry import SUFFIX_ALPHABET
from simulation.storage import StoredObject
from simulation.times import timestamp, utc_now

__all__ = ["DAY", "ContentBuilder", "Variety", "owner_reference"]

# In seconds, as all ages are.
DAY = 86_400.0

# `mixed`: many teams that each write and install their applications their own way, as in a real cluster. Under a zstd
# dictionary trained on other pods of the cluster, pods shrink 6 to 7 times. `uniform`: all of one template;
# pods shrink 13 times.
Variety = Literal["mixed", "uniform"]

T = TypeVar("T")


class ContentBuilder:
    """Makes objects for one cluster.

    The shape of the content follows `seed`; uids are the storage's. Two builders with the same seed over storages with
    the same seed and version make the same bytes, but for the times, which count back from `clock`.
    `nodes` are the names of the cluster's nodes, in the order in which they were added.
    """

    def __init__(
        self,
        registry: Registry,
        cluster: str,
        seed: int | str,
        *,
        clock: Callable[[], datetime] = utc_now,
        variety: Variety = "mixed",
    ) -> None:
        self.registry = registry
        self.storage = registry.storage
        self.cluster = cluster
        self.random = random.Random(f"content/{seed}")
        self.clock = clock
        self.variety = variety
        self.start = clock()
        self.nodes: list[str] = []
        # The spec of a pod template, and the fields of it.
        self._spec: tuple[dict[str, Any], dict[str, Any]] = ({}, {})

    def put(
        self,
        group: str,
        resource: str,
        body: dict[str, Any],
        *,
        manager: str = "kube-controller-manager",
        age: float = 0.0,
    ) -> StoredObject:
        """Store an object as if `manager` had made it `age` seconds ago.

        `body` is without kind and apiVersion; it gets its uid, times and managedFields.
        """
        collection = self.storage.collections[(group, resource)]
        type = collection.type
        created = self.time(age)
        metadata = body["metadata"]
        metadata["uid"] = self.storage.new_uid()
        metadata["creationTimestamp"] = created
        if type.generation:
            metadata.setdefault("generation", 1)
        fields = self._fields({key: value for key, value in body.items() if key not in ("status", "metadata")})
        own = {key: metadata[key] for key in ("labels", "annotations", "ownerReferences") if key in metadata}
        if own:
            fields["f:metadata"] = field_set(own)
        entries = [managed_fields_entry(manager, type.api_version(), created, fields)] if fields else []
        if body.get("status") and type.has_status:
            status = {"f:status": field_set(body["status"])}
            entries.append(
                managed_fields_entry(
                    "kube-controller-manager", type.api_version(), created, status, subresource="status"
                )
            )
        # Without any, as the default service accounts of a real cluster.
        if entries:
            metadata["managedFields"] = entries
        return self.storage.put(collection, body)

    def _fields(self, body: dict[str, Any]) -> dict[str, Any]:
        fields = field_set({key: value for key, value in body.items() if key != "spec" or "template" not in value})
        if (spec := body.get("spec")) and (template := spec.get("template")):
            own = field_set({"metadata": template["metadata"]})
            whole = {".": {}, **own, "f:spec": {".": {}, **self.spec_fields(template["spec"])}}
            rest = field_set({key: value for key, value in spec.items() if key != "template"})
            fields["f:spec"] = {".": {}, **rest, "f:template": whole}
        return fields

    def spec_fields(self, spec: dict[str, Any]) -> dict[str, Any]:
        """`field_set` of the spec of a pod template: made once for a workload and its pods, which share the spec."""
        if self._spec[0] is not spec:
            self._spec = (spec, field_set(spec))
        return self._spec[1]

    def time(self, age: float = 0.0) -> str:
        """The time `age` seconds before this builder was made; without an age, the present time."""
        return timestamp(self.start - timedelta(seconds=age)) if age else timestamp(self.clock())

    def suffix(self, length: int) -> str:
        """Random characters, as generated names end in."""
        return "".join(self.random.choices(SUFFIX_ALPHABET, k=length))

    # Draws: as those of `random`, and quicker, since content is made of many.

    def pick(self, options: Sequence[T]) -> T:
        """One of `options`."""
        return options[int(self.random.random() * len(options))]

    def number(self, low: int, high: int) -> int:
        """A number from `low` to `high`, both included."""
        return low + int(self.random.random() * (high - low + 1))

    def hexadecimal(self, length: int) -> str:
        """So many random hexadecimal digits, as digests and ids of containers have."""
        return f"{self.random.getrandbits(4 * length):0{length}x}"

    def age(self) -> float:
        """A random age between an hour and 40 days, in seconds."""
        return self.random.uniform(3600, 40 * DAY)


def owner_reference(api_version: str, kind: str, name: str, uid: str, *, controller: bool = True) -> dict[str, Any]:
    """A metav1.OwnerReference; by default to the controller of the object that bears it."""
    owner: dict[str, Any] = {"apiVersion": api_version, "kind": kind, "name": name, "uid": uid}
    if controller:
        owner |= {"controller": True, "blockOwnerDeletion": True}
    return owner
