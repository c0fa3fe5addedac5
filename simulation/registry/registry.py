"""The registry: create, update, patch and delete of one cluster's objects, as a kube-apiserver does them.

Synchronous, over one `ClusterStorage`. Every method either does the whole write or raises StatusError.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from simulation.aggregation import API_SERVICES, Aggregation
from simulation.registry import patches
from simulation.registry.defaults import set_defaults
from simulation.registry.definitions import check_registration, defined_type, established_status
from simulation.registry.garbage import GarbageCollector
from simulation.registry.managed_fields import record_write
from simulation.registry.options import DeleteOptions, WriteOptions
from simulation.registry.selectors import ObjectSelector
from simulation.registry.validation import checked_body, mapping, validate_name
from simulation.resources import BUILT_IN, CUSTOM_RESOURCE_DEFINITIONS, NAMESPACES, PODS, SimulatedType
from simulation.status import already_exists, bad_request, conflict, forbidden, invalid, not_found
from simulation.storage import ClusterStorage, Collection, StoredObject, encode_object
from simulation.times import later, timestamp

__all__ = ["SUFFIX_ALPHABET", "Registry"]

# What the suffix of a generated name is made of (k8s.io/apimachinery pkg/util/rand: no vowels, nothing that looks
# like another character).
SUFFIX_ALPHABET = "bcdfghjklmnpqrstvwxz2456789"
# Fields of metadata that an update cannot change.
_KEPT = (
    "name",
    "namespace",
    "uid",
    "creationTimestamp",
    "generation",
    "deletionTimestamp",
    "deletionGracePeriodSeconds",
    "generateName",
)
_PROTECTED_NAMESPACES = ("default", "kube-system", "kube-public")


class Registry:
    """The writes of one cluster, and the controllers whose effects a client sees at once: garbage collection, namespace
    deletion, the names and APIs of CustomResourceDefinitions, and APIServices.

    No controller creates pods: a Deployment that is applied stays without them. `now` gives the times that are written.
    """

    def __init__(self, storage: ClusterStorage, *, now: Callable[[], str] = timestamp) -> None:
        self.storage = storage
        self.now = now
        for type in BUILT_IN:
            storage.add_type(type)
        self.aggregation = Aggregation(storage, now)
        self._garbage = GarbageCollector(
            storage, lambda type, namespace, name: self.delete(type, namespace, name, DeleteOptions())
        )

    # Reading

    def collection(self, key: tuple[str, str]) -> Collection:
        """The collection of a type that is known to be served."""
        return self.storage.collections[key]

    def get(self, type: SimulatedType, namespace: str, name: str) -> StoredObject:
        """The object.

        Raises:
            StatusError: 404 if there is none.
        """
        stored = self.storage.get(type.key, namespace, name)
        if stored is None:
            raise not_found(type.group, type.resource, name)
        return stored

    # Create

    def create(self, type: SimulatedType, namespace: str, body: dict[str, Any], options: WriteOptions) -> StoredObject:
        """Create an object from a client's body.

        Raises:
            StatusError: 400, 403, 404 (the namespace), 409 (it exists already) or 422.
        """
        body = checked_body(type, namespace, body, options)
        metadata = body["metadata"]
        if metadata.get("resourceVersion"):
            raise bad_request("resourceVersion should not be set on objects to be created")
        name = metadata.get("name") or self._generate_name(type, metadata)
        validate_name(type, name)
        if type.namespaced:
            self._check_namespace(type, namespace, name)
        if self.storage.get(type.key, namespace, name) is not None:
            raise already_exists(type.group, type.resource, name)
        metadata["uid"] = self.storage.new_uid()
        metadata["creationTimestamp"] = self.now()
        for field in ("deletionTimestamp", "deletionGracePeriodSeconds", "generation", "selfLink"):
            metadata.pop(field, None)
        if type.generation:
            metadata["generation"] = 1
        if type.has_status:
            body.pop("status", None)
        set_defaults(type, body)
        defined = self._defined(body) if type.key == CUSTOM_RESOURCE_DEFINITIONS else None
        if type.key == API_SERVICES:
            check_registration(body)
        record_write(type, body, None, options, self.now())
        if options.dry_run:
            return encode_object(type, body, None)
        stored = self.storage.put(self.collection(type.key), body)
        if defined is not None:
            return self._establish(stored, defined)
        return self._registered(stored) if type.key == API_SERVICES else stored

    def _generate_name(self, type: SimulatedType, metadata: dict[str, Any]) -> str:
        prefix = metadata.get("generateName")
        if not prefix:
            message = "Required value: name or generateName is required"
            raise invalid(type.group, type.kind, "", [("FieldValueRequired", message, "metadata.name")])
        suffix = "".join(self.storage.random.choice(SUFFIX_ALPHABET) for _ in range(5))
        name: str = f"{prefix[:58]}{suffix}"
        metadata["name"] = name
        return name

    def _check_namespace(self, type: SimulatedType, namespace: str, name: str) -> None:
        found = self.storage.get(NAMESPACES, "", namespace)
        if found is None:
            raise not_found("", "namespaces", namespace)
        if found.fields.get("status.phase") == "Terminating":
            why = f"unable to create new content in namespace {namespace} because it is being terminated"
            raise forbidden(type.group, type.resource, name, why)

    # Update

    def update(
        self,
        type: SimulatedType,
        namespace: str,
        name: str,
        body: dict[str, Any],
        options: WriteOptions,
        subresource: str = "",
    ) -> StoredObject:
        """Replace an object, or with subresource `status` its status.

        Raises:
            StatusError: 400, 404, 409 (another version or uid than the stored one) or 422.
        """
        current = self.get(type, namespace, name)
        body = checked_body(type, namespace, body, options, name)
        if type.custom and not body["metadata"].get("resourceVersion"):
            message = "Invalid value: 0: must be specified for an update"
            causes = [("FieldValueInvalid", message, "metadata.resourceVersion")]
            raise invalid(type.group, type.resource, name, causes)
        return self._replace(type, current, body, options, subresource)

    def patch(
        self,
        type: SimulatedType,
        namespace: str,
        name: str,
        content_type: str,
        patch: Any,
        options: WriteOptions,
        subresource: str = "",
    ) -> tuple[StoredObject, bool]:
        """Patch an object as the patch's content type says: the object, and whether apply has created it.

        Raises:
            StatusError: 400, 404, 409, 415 (no such patch for this type) or 422.
        """
        applying = content_type.startswith(patches.APPLY_PREFIX)
        if applying:
            if not isinstance(patch, dict):
                raise bad_request("error decoding YAML: the configuration is not an object")
            if not options.manager:
                message = "Required value: is required for apply patch"
                raise invalid("meta.k8s.io", "PatchOptions", "", [("FieldValueRequired", message, "fieldManager")])
            if mapping(patch, "metadata").get("managedFields") is not None:
                raise bad_request("metadata.managedFields must be nil")
            if self.storage.get(type.key, namespace, name) is None:
                if subresource:
                    raise not_found(type.group, type.resource, name)
                created = checked_body(type, namespace, patch, options, name)
                created["metadata"]["name"] = name
                return self.create(type, namespace, created, options), True
        current = self.get(type, namespace, name)
        before = {"kind": type.kind, "apiVersion": type.api_version(options.version), **current.body()}
        after = patches.patched(content_type, before, patch, custom=type.custom)
        if not isinstance(after, dict):
            raise bad_request("the patched object is not an object")
        if isinstance(after.get("metadata"), dict) and "managedFields" not in after["metadata"]:
            known = before["metadata"].get("managedFields", [])
            after["metadata"] = {**after["metadata"], "managedFields": known}
        after = checked_body(type, namespace, after, options, name)
        return self._replace(type, current, after, options, subresource, applying=applying), False

    def _replace(
        self,
        type: SimulatedType,
        current: StoredObject,
        body: dict[str, Any],
        options: WriteOptions,
        subresource: str,
        *,
        applying: bool = False,
    ) -> StoredObject:
        before = current.body()
        old, given = before["metadata"], body["metadata"]
        version = given.get("resourceVersion") or ""
        if version and version != str(current.version):
            raise conflict(type.group, type.resource, current.name)
        if given.get("uid") and given["uid"] != current.uid:
            why = f"Precondition failed: UID in precondition: {given['uid']}, UID in object meta: {current.uid}"
            raise conflict(type.group, type.resource, current.name, why)
        if subresource == "status":
            body = {**before, "status": body.get("status", {})}
        elif type.has_status:
            body = {key: value for key, value in body.items() if key != "status"}
            if "status" in before:
                body["status"] = before["status"]
        metadata = {key: value for key, value in given.items() if value not in (None, {}, [])}
        for field in _KEPT:
            metadata.pop(field, None)
            if field in old:
                metadata[field] = old[field]
        if "managedFields" in old:
            metadata["managedFields"] = old["managedFields"]
        body = {**body, "metadata": metadata}
        body.pop("kind", None)
        body.pop("apiVersion", None)
        set_defaults(type, body)
        if _same(before, body):
            return current
        if type.generation and _spec(type, before) != _spec(type, body):
            metadata["generation"] = int(old.get("generation", 0)) + 1
        defining = type.key == CUSTOM_RESOURCE_DEFINITIONS and subresource != "status"
        defined = self._defined(body) if defining else None
        record_write(type, body, before, options, self.now(), subresource=subresource, applying=applying)
        emptied = metadata.get("deletionTimestamp") and not metadata.get("finalizers") and old.get("finalizers")
        if options.dry_run or emptied:
            shown = encode_object(type, body, current.version)
            if emptied and not options.dry_run:
                # What is written is not stored any more: watches see the deletion of what was (`Store.Update` of
                # k8s.io/apiserver pkg/registry/generic/registry).
                self._remove(type, current)
            return shown
        stored = self.storage.put(self.collection(type.key), body)
        if defined is not None:
            established = self._establish(stored, defined)
            if before["spec"] != body["spec"]:
                # A server sets up the storage of a changed definition anew: its watches end, its history is lost.
                self.storage.end_watches(self.collection(defined.key))
            return established
        return self._registered(stored) if type.key == API_SERVICES else stored

    # Delete

    def delete(
        self, type: SimulatedType, namespace: str, name: str, options: DeleteOptions
    ) -> tuple[StoredObject, bool]:
        """Delete an object: its last form, and whether it is removed (finalizers keep it).

        A pod and a namespace first get a deletionTimestamp, as a kubelet and the namespace controller would see them.
        A pod that has time left is deleted once more without any, as by its kubelet, and then removed: three versions;
        one that has none (grace period 0, no node, or ended) is marked and removed: two.

        Raises:
            StatusError: 403 (a namespace that stays), 404, or 409 where a precondition does not hold.
        """
        current = self.get(type, namespace, name)
        if options.uid and options.uid != current.uid:
            why = f"Precondition failed: UID in precondition: {options.uid}, UID in object meta: {current.uid}"
            raise conflict(type.group, type.resource, name, why)
        if options.resource_version and options.resource_version != str(current.version):
            why = (
                f"Precondition failed: ResourceVersion in precondition: {options.resource_version}, "
                f"ResourceVersion in object meta: {current.version}"
            )
            raise conflict(type.group, type.resource, name, why)
        if type.key == NAMESPACES and name in _PROTECTED_NAMESPACES:
            raise forbidden("", "namespaces", name, "this namespace may not be deleted")
        if options.dry_run:
            return current, True
        if options.propagation == "Foreground":
            self._garbage.cascade(current.uid)
        elif options.propagation == "Orphan":
            self._garbage.orphan(current.uid)
        current = self.get(type, namespace, name)
        body = current.body()
        metadata = body["metadata"]
        grace = _grace_period(type, body, options)
        if grace is not None or type.key == NAMESPACES or metadata.get("finalizers"):
            if not metadata.get("deletionTimestamp"):
                metadata["deletionTimestamp"] = later(self.now(), grace or 0)
                if grace is not None:
                    metadata["deletionGracePeriodSeconds"] = grace
                if type.generation:
                    metadata["generation"] = int(metadata.get("generation", 0)) + 1
                if type.key == NAMESPACES:
                    body["status"] = {**body.get("status", {}), "phase": "Terminating"}
                current = self.storage.put(self.collection(type.key), body)
            shown = current
            left = metadata.get("deletionGracePeriodSeconds", 0)
            if grace is not None and left:
                metadata["deletionTimestamp"] = later(metadata["deletionTimestamp"], -left)
                metadata["deletionGracePeriodSeconds"] = 0
                current = self.storage.put(self.collection(type.key), body)
            if metadata.get("finalizers"):
                return shown, False
            removed = self._remove(type, current)
            if grace or type.key == NAMESPACES:
                return shown, False
            return removed or current, True
        return self._remove(type, current) or current, True

    def delete_collection(
        self, type: SimulatedType, selector: ObjectSelector, options: DeleteOptions, limit: int = 0
    ) -> list[StoredObject]:
        """Delete all selected objects, at most `limit` unless that is 0: their last forms.

        Raises:
            StatusError: as `delete` does; what was deleted before stays deleted.
        """
        chosen = [stored for stored in self.collection(type.key).in_order() if selector.matches(stored)]
        deleted: list[StoredObject] = []
        for stored in chosen[: limit or None]:
            # A cascade may have taken it already.
            if self.storage.get(type.key, stored.namespace, stored.name) is not None:
                last, _ = self.delete(type, stored.namespace, stored.name, options)
                deleted.append(last)
        return deleted

    def _remove(self, type: SimulatedType, stored: StoredObject) -> StoredObject | None:
        if type.key == NAMESPACES:
            self._garbage.empty_namespace(stored.name)
        removed = self.storage.remove(self.collection(type.key), stored.namespace, stored.name)
        if type.key == CUSTOM_RESOURCE_DEFINITIONS:
            spec = stored.body()["spec"]
            self.storage.remove_type((str(spec["group"]), str(spec["names"]["plural"])))
        elif type.key == API_SERVICES:
            self.aggregation.reconcile()
        self._garbage.cascade(stored.uid)
        return removed

    # Types that come with objects

    def _defined(self, body: dict[str, Any]) -> SimulatedType:
        type = defined_type(body)
        known = self.storage.collections.get(type.key)
        if known is not None and not known.type.custom:
            name = body["metadata"]["name"]
            raise forbidden(*CUSTOM_RESOURCE_DEFINITIONS, name, "the API is served by the cluster itself")
        return type

    def _establish(self, stored: StoredObject, type: SimulatedType) -> StoredObject:
        self.storage.add_type(type)
        body = stored.body()
        status = established_status(body, type, self.now())
        if (body.get("status") or {}) == status:
            return stored
        body["status"] = status
        return self.storage.put(self.collection(CUSTOM_RESOURCE_DEFINITIONS), body)

    def _registered(self, stored: StoredObject) -> StoredObject:
        self.aggregation.reconcile()
        return self.storage.get(API_SERVICES, "", stored.name) or stored


def _grace_period(type: SimulatedType, body: dict[str, Any], options: DeleteOptions) -> int | None:
    """The seconds that a pod has to end; None for other types (`podStrategy.CheckGracefulDelete`)."""
    if type.key != PODS:
        return None
    spec = body.get("spec") or {}
    if not spec.get("nodeName") or (body.get("status") or {}).get("phase") in ("Failed", "Succeeded"):
        return 0
    grace = spec.get("terminationGracePeriodSeconds") if options.grace_seconds is None else options.grace_seconds
    if not isinstance(grace, int):
        return 30
    return grace if grace >= 0 else 1


def _spec(type: SimulatedType, body: dict[str, Any]) -> Any:
    """What `generation` follows."""
    if type.custom:
        left_out = ("metadata", "status") if type.has_status else ("metadata",)
        return {key: value for key, value in body.items() if key not in (*left_out, "kind", "apiVersion")}
    return body.get("spec")


def _same(before: dict[str, Any], after: dict[str, Any]) -> bool:
    """Whether a write changes nothing: versions and managedFields aside."""

    def content(body: dict[str, Any]) -> dict[str, Any]:
        ignored = ("resourceVersion", "managedFields")
        metadata = {key: value for key, value in body["metadata"].items() if key not in ignored}
        return {**body, "metadata": metadata}

    return content(before) == content(after)
