"""The registry: what a write means - validation, versions, generations, graceful deletion, cascades, CRDs.

Synchronous, over one `Storage`. Every function either does the whole write or raises `ApiError`.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import msgspec
import yaml

from simulation import patches
from simulation.aggregation import API_SERVICES, Aggregation
from simulation.resources import BUILT_IN, ResourceType, custom_type
from simulation.selectors import Selector
from simulation.status import (
    ApiError,
    already_exists,
    bad_request,
    conflict,
    forbidden,
    invalid,
    not_found,
)
from simulation.storage import Collection, Storage, Stored, encode_object

__all__ = ["DeleteOptions", "Registry", "WriteOptions", "timestamp"]

CRDS = ("apiextensions.k8s.io", "customresourcedefinitions")
NAMESPACES = ("", "namespaces")
PODS = ("", "pods")

_SUBDOMAIN = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*\Z")
_LABEL = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?\Z")
_KIND = re.compile(r"[A-Za-z]([-A-Za-z0-9]*[A-Za-z0-9])?\Z")
_PATH_SEGMENT = re.compile(r"(?!\.\.?\Z)[^/%\x00-\x1f]+\Z")
_SUFFIX = "bcdfghjklmnpqrstvwxz2456789"


def timestamp(when: datetime | None = None) -> str:
    """A time as Kubernetes writes it: UTC, whole seconds. Now by default."""
    return (when or datetime.now(UTC)).strftime("%Y-%m-%dT%H:%M:%SZ")


@dataclass(frozen=True, slots=True)
class WriteOptions:
    """How a write is to be done: `manager` is the field manager, `dry_run` computes it and stores nothing."""

    manager: str = "unknown"
    dry_run: bool = False
    version: str = ""


@dataclass(frozen=True, slots=True)
class DeleteOptions:
    """The options of a deletion, as `DeleteOptions` of the API."""

    dry_run: bool = False
    propagation: str = "Background"
    grace_seconds: int | None = None
    uid: str = ""
    resource_version: str = ""


def managed_fields(value: Any) -> dict[str, Any]:
    """The FieldsV1 of a tree: every field of it is owned."""
    owned: dict[str, Any] = {}
    for name, inner in value.items():
        owned[f"f:{name}"] = _owned(name, inner)
    return owned


def _owned(name: str, value: Any) -> dict[str, Any]:
    if isinstance(value, dict):
        inner = managed_fields(value)
        return {".": {}, **inner} if inner else {}
    if isinstance(value, list) and value:
        for key in patches.MERGE_KEYS.get(name, ()):
            if all(isinstance(item, dict) and isinstance(item.get(key), str | int) for item in value):
                items = {}
                for item in value:
                    text = f'"{item[key]}"' if isinstance(item[key], str) else str(item[key])
                    items[f'k:{{"{key}":{text}}}'] = {".": {}, **managed_fields(item)}
                return {".": {}, **items}
    return {}


class Registry:
    """The writes of one cluster and the controllers that a client sees at once: garbage collection, namespace
    deletion, names and APIs of CustomResourceDefinitions. No controller creates pods: a Deployment that is
    applied stays without them."""

    def __init__(self, storage: Storage, *, now: Callable[[], str] = timestamp) -> None:
        self.storage = storage
        self.now = now
        for type in BUILT_IN:
            storage.add_type(type)
        self.aggregation = Aggregation(storage, now)

    # Reading

    def collection(self, key: tuple[str, str]) -> Collection:
        """The collection of a type that is known to exist."""
        return self.storage.collections[key]

    def get(self, type: ResourceType, namespace: str, name: str) -> Stored:
        """The object. Raises ApiError 404."""
        stored = self.storage.get(type.key, namespace, name)
        if stored is None:
            raise not_found(type.group, type.resource, name)
        return stored

    # Create

    def create(self, type: ResourceType, namespace: str, body: dict[str, Any], options: WriteOptions) -> Stored:
        """Create an object from a client's body. Raises ApiError (400, 403, 404, 409, 422)."""
        body = self._checked(type, namespace, body, options)
        metadata = body["metadata"]
        if metadata.get("resourceVersion"):
            raise bad_request("resourceVersion should not be set on objects to be created")
        name = metadata.get("name")
        if not name:
            prefix = metadata.get("generateName")
            if not prefix:
                raise invalid(
                    type.group,
                    type.kind,
                    "",
                    [
                        (
                            "FieldValueRequired",
                            "Required value: name or generateName is required",
                            "metadata.name",
                        )
                    ],
                )
            suffix = "".join(self.storage.random.choice(_SUFFIX) for _ in range(5))
            name = metadata["name"] = f"{prefix[:58]}{suffix}"
        self._validate_name(type, name)
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
        _default(type, body)
        definition = self._definition(body) if type.key == CRDS else None
        if type.key == API_SERVICES:
            _check_registration(body)
        self._manage(type, body, None, options)
        if options.dry_run:
            return encode_object(type, body, None)
        stored = self.storage.put(self.collection(type.key), body)
        if definition is not None:
            return self._establish(stored, definition)
        return self._registered(stored) if type.key == API_SERVICES else stored

    # Update

    def update(
        self,
        type: ResourceType,
        namespace: str,
        name: str,
        body: dict[str, Any],
        options: WriteOptions,
        subresource: str = "",
    ) -> Stored:
        """Replace an object, or its status. Raises ApiError (400, 404, 409, 422)."""
        current = self.get(type, namespace, name)
        body = self._checked(type, namespace, body, options, name)
        if type.custom and not body["metadata"].get("resourceVersion"):
            message = "Invalid value: 0: must be specified for an update"
            causes = [("FieldValueInvalid", message, "metadata.resourceVersion")]
            raise invalid(type.group, type.resource, name, causes)
        return self._replace(type, current, body, options, subresource)

    def patch(
        self,
        type: ResourceType,
        namespace: str,
        name: str,
        content_type: str,
        patch: Any,
        options: WriteOptions,
        subresource: str = "",
    ) -> tuple[Stored, bool]:
        """Patch an object by the patch's content type; the object and whether it was created (by apply).

        Raises ApiError (400, 404, 409, 415, 422).
        """
        applying = content_type.startswith("application/apply-patch")
        if applying:
            if not isinstance(patch, dict):
                raise bad_request("error decoding YAML: the configuration is not an object")
            if not options.manager:
                message = "Required value: is required for apply patch"
                raise invalid("meta.k8s.io", "PatchOptions", "", [("FieldValueRequired", message, "fieldManager")])
            if _mapping(patch, "metadata").get("managedFields") is not None:
                raise bad_request("metadata.managedFields must be nil")
            if self.storage.get(type.key, namespace, name) is None:
                if subresource:
                    raise not_found(type.group, type.resource, name)
                created = self._checked(type, namespace, patch, options, name)
                created["metadata"]["name"] = name
                return self.create(type, namespace, created, options), True
        current = self.get(type, namespace, name)
        before = current.body()
        before = {"kind": type.kind, "apiVersion": type.api_version(options.version), **before}
        if content_type == "application/json-patch+json":
            after = patches.json_patch(before, patch)
        elif not isinstance(patch, dict):
            raise bad_request("error decoding patch: the patch is not an object")
        elif content_type == "application/merge-patch+json":
            after = patches.merge_patch(before, patch)
        elif content_type == "application/strategic-merge-patch+json" and not type.custom:
            after = patches.strategic_merge_patch(before, patch)
        elif applying:
            after = patches.apply(before, patch)
        else:
            accepted = ["application/json-patch+json", "application/merge-patch+json"]
            if not type.custom:
                accepted.append("application/strategic-merge-patch+json")
            accepted.append("application/apply-patch+yaml")
            raise ApiError(
                415,
                "the body of the request was in an unknown format - accepted media types include: "
                + ", ".join(accepted),
            )
        if not isinstance(after, dict):
            raise bad_request("the patched object is not an object")
        if isinstance(after.get("metadata"), dict) and "managedFields" not in after["metadata"]:
            after["metadata"] = {
                **after["metadata"],
                "managedFields": before["metadata"].get("managedFields", []),
            }
        after = self._checked(type, namespace, after, options, name)
        return self._replace(type, current, after, options, subresource, applying=applying), False

    def _replace(
        self,
        type: ResourceType,
        current: Stored,
        body: dict[str, Any],
        options: WriteOptions,
        subresource: str,
        *,
        applying: bool = False,
    ) -> Stored:
        before = current.body()
        old, given = before["metadata"], body["metadata"]
        version = given.get("resourceVersion") or ""
        if version and version != str(current.version):
            raise conflict(type.group, type.resource, current.name)
        if given.get("uid") and given["uid"] != current.uid:
            why = f"Precondition failed: UID in precondition: {given['uid']}, UID in object meta: {current.uid}"
            raise conflict(type.group, type.resource, current.name, why)
        if subresource == "status":
            kept = {**before, "status": body.get("status", {})}
            body, given = kept, {**given}
        elif type.has_status:
            body = {key: value for key, value in body.items() if key != "status"}
            if "status" in before:
                body["status"] = before["status"]
        metadata = {key: value for key, value in given.items() if value not in (None, {}, [])}
        for field in (
            "name",
            "namespace",
            "uid",
            "creationTimestamp",
            "generation",
            "deletionTimestamp",
            "deletionGracePeriodSeconds",
            "generateName",
        ):
            metadata.pop(field, None)
            if field in old:
                metadata[field] = old[field]
        if "managedFields" in old:
            metadata["managedFields"] = old["managedFields"]
        body = {**body, "metadata": metadata}
        body.pop("kind", None)
        body.pop("apiVersion", None)
        _default(type, body)
        if _same(before, body):
            return current
        if type.generation and _spec(type, before) != _spec(type, body):
            metadata["generation"] = int(old.get("generation", 0)) + 1
        definition = self._definition(body) if type.key == CRDS and subresource != "status" else None
        self._manage(type, body, before, options, subresource, applying=applying)
        if options.dry_run:
            return encode_object(type, body, current.version)
        stored = self.storage.put(self.collection(type.key), body)
        if metadata.get("deletionTimestamp") and not metadata.get("finalizers") and old.get("finalizers"):
            return self._remove(type, stored) or stored
        if definition is not None:
            established = self._establish(stored, definition)
            if before["spec"] != body["spec"]:
                # A server sets up the storage of a changed definition anew: its watches end, its history is gone.
                self.storage.end_watches(self.collection(definition.key))
            return established
        return self._registered(stored) if type.key == API_SERVICES else stored

    # Delete

    def delete(self, type: ResourceType, namespace: str, name: str, options: DeleteOptions) -> tuple[Stored, bool]:
        """Delete an object; its last form and whether it is gone (finalizers keep it).

        A pod and a namespace are first seen with a deletionTimestamp, as a kubelet and the namespace controller
        would let them be seen, and are gone with the next version. Raises ApiError (404, 409).
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
        if type.key == NAMESPACES and name in ("default", "kube-system", "kube-public"):
            raise forbidden("", "namespaces", name, "this namespace may not be deleted")
        if options.dry_run:
            return current, True
        if options.propagation == "Foreground":
            self._cascade(current.uid)
        elif options.propagation == "Orphan":
            self._orphan(current.uid)
        current = self.get(type, namespace, name)
        body = current.body()
        metadata = body["metadata"]
        graceful = type.key == PODS and options.grace_seconds != 0 and bool(body.get("spec", {}).get("nodeName"))
        if graceful or type.key == NAMESPACES or metadata.get("finalizers"):
            if not metadata.get("deletionTimestamp"):
                metadata["deletionTimestamp"] = self.now()
                if graceful:
                    grace = body["spec"].get("terminationGracePeriodSeconds", 30)
                    metadata["deletionGracePeriodSeconds"] = (
                        grace if options.grace_seconds is None else options.grace_seconds
                    )
                if type.generation:
                    metadata["generation"] = int(metadata.get("generation", 0)) + 1
                if type.key == NAMESPACES:
                    body["status"] = {**body.get("status", {}), "phase": "Terminating"}
                current = self.storage.put(self.collection(type.key), body)
            if metadata.get("finalizers"):
                return current, False
        gone = self._remove(type, current)
        if graceful or type.key == NAMESPACES:
            return current, False
        return gone or current, True

    def delete_collection(
        self, type: ResourceType, selector: Selector, options: DeleteOptions, limit: int = 0
    ) -> list[Stored]:
        """Delete all selected objects; their last forms."""
        chosen = [stored for stored in self.collection(type.key).in_order() if selector.matches(stored)]
        deleted: list[Stored] = []
        for stored in chosen[: limit or None]:
            # A cascade may have taken it already.
            if self.storage.get(type.key, stored.namespace, stored.name) is not None:
                last, _ = self.delete(type, stored.namespace, stored.name, options)
                deleted.append(last)
        return deleted

    def _remove(self, type: ResourceType, stored: Stored) -> Stored | None:
        if type.key == NAMESPACES:
            self._empty_namespace(stored.name)
        gone = self.storage.remove(self.collection(type.key), stored.namespace, stored.name)
        if type.key == CRDS:
            spec = stored.body()["spec"]
            self.storage.remove_type((str(spec["group"]), str(spec["names"]["plural"])))
        elif type.key == API_SERVICES:
            self.aggregation.reconcile()
        self._cascade(stored.uid)
        return gone

    def _empty_namespace(self, namespace: str) -> None:
        for collection in list(self.storage.collections.values()):
            if not collection.type.namespaced:
                continue
            for key in [key for key in collection.objects if key[0] == namespace]:
                stored = collection.objects.get(key)
                if stored is not None:
                    gone = self.storage.remove(collection, *key)
                    if gone is not None:
                        self._cascade(gone.uid)

    def _cascade(self, uid: str) -> None:
        for collection, stored in self.storage.dependents(uid):
            if collection.objects.get(stored.key) is not stored:
                continue
            living = [owner for owner in stored.owners if owner != uid and self._exists(owner)]
            if living:
                self._disown(collection, stored, uid)
            else:
                self.delete(collection.type, *stored.key, DeleteOptions())

    def _exists(self, uid: str) -> bool:
        return any(
            stored.uid == uid
            for collection in self.storage.collections.values()
            for stored in collection.objects.values()
        )

    def _orphan(self, uid: str) -> None:
        for collection, stored in self.storage.dependents(uid):
            self._disown(collection, stored, uid)

    def _disown(self, collection: Collection, stored: Stored, uid: str) -> None:
        body = stored.body()
        references = body["metadata"].get("ownerReferences", [])
        body["metadata"]["ownerReferences"] = [owner for owner in references if owner["uid"] != uid]
        self.storage.put(collection, body)

    # CustomResourceDefinitions

    def _definition(self, body: dict[str, Any]) -> ResourceType:
        name = body["metadata"]["name"]
        try:
            type = custom_type(body)
        except (KeyError, TypeError, AttributeError, ValueError) as error:
            causes = [("FieldValueRequired", f"Required value: {error}", "spec")]
            raise invalid(CRDS[0], "CustomResourceDefinition", name, causes) from error
        if name != f"{type.resource}.{type.group}" or not _SUBDOMAIN.match(type.group) or "." not in type.group:
            message = f'Invalid value: "{name}": must be spec.names.plural+"."+spec.group'
            raise invalid(CRDS[0], "CustomResourceDefinition", name, [("FieldValueInvalid", message, "metadata.name")])
        words = [type.kind, type.list_kind or type.kind]
        if not all(_KIND.match(word) for word in words) or not all(map(_LABEL.match, type.versions)):
            message = "Invalid value: kinds and versions must be DNS labels"
            raise invalid(CRDS[0], "CustomResourceDefinition", name, [("FieldValueInvalid", message, "spec")])
        known = self.storage.collections.get(type.key)
        if known is not None and not known.type.custom:
            raise forbidden(CRDS[0], CRDS[1], name, "the API is served by the cluster itself")
        return type

    def _establish(self, stored: Stored, type: ResourceType) -> Stored:
        self.storage.add_type(type)
        body = stored.body()
        spec = body["spec"]
        now = self.now()
        names = {"singular": type.singular, "listKind": f"{type.kind}List", **spec["names"]}
        known = body.get("status") or {}
        conditions = known.get("conditions") or [
            {
                "type": "NamesAccepted",
                "status": "True",
                "lastTransitionTime": now,
                "reason": "NoConflicts",
                "message": "no conflicts found",
            },
            {
                "type": "Established",
                "status": "True",
                "lastTransitionTime": now,
                "reason": "InitialNamesAccepted",
                "message": "the initial names have been accepted",
            },
        ]
        storing = [version["name"] for version in spec["versions"] if version.get("storage")]
        status = {
            "conditions": conditions,
            "acceptedNames": names,
            "storedVersions": list(dict.fromkeys([*(known.get("storedVersions") or ()), *storing])),
        }
        if known == status:
            return stored
        body["status"] = status
        return self.storage.put(self.collection(CRDS), body)

    # APIServices

    def _registered(self, stored: Stored) -> Stored:
        self.aggregation.reconcile()
        return self.storage.get(API_SERVICES, "", stored.name) or stored

    # What all writes share

    def _checked(
        self, type: ResourceType, namespace: str, body: Any, options: WriteOptions, name: str = ""
    ) -> dict[str, Any]:
        """The body with its envelope verified; a shallow copy with its own metadata."""
        if not isinstance(body, dict):
            raise bad_request("the object provided is unrecognized: it is not an object")
        kind, api_version = body.get("kind"), body.get("apiVersion")
        if kind is None and api_version is None and type.custom:
            raise bad_request("Object 'Kind' is missing in the body of the request")
        if kind is not None and kind != type.kind:
            raise bad_request(
                f"{kind} in version {api_version!r} cannot be handled as a {type.kind}: it has another kind"
            )
        wanted = type.api_version(options.version)
        if api_version is not None and api_version != wanted:
            raise bad_request(
                f"the API version in the data ({api_version}) does not match the expected API version ({wanted})"
            )
        for field in ("spec", "status"):
            if field in body and body[field] is None:
                body = {key: value for key, value in body.items() if key != field}
            _mapping(body, field)
        metadata = dict(_mapping(body, "metadata"))
        self._validate_metadata(type, metadata)
        if name and metadata.get("name") not in (None, "", name):
            raise bad_request(
                f"the name of the object ({metadata['name']}) does not match the name on the URL ({name})"
            )
        given = metadata.get("namespace")
        if type.namespaced:
            if given not in (None, "", namespace):
                raise bad_request(
                    "the namespace of the provided object does not match the namespace sent on the request"
                )
            metadata["namespace"] = namespace
        elif given:
            raise bad_request("namespace is not allowed on this type")
        if name:
            metadata["name"] = name
        return {**body, "metadata": metadata}

    def _validate_metadata(self, type: ResourceType, metadata: dict[str, Any]) -> None:
        for field in ("name", "generateName", "namespace", "uid", "resourceVersion"):
            if not isinstance(metadata.get(field, ""), str | None):
                raise bad_request(
                    f"json: cannot unmarshal into Go struct field ObjectMeta.metadata.{field} of type string"
                )
        for field in ("labels", "annotations"):
            value = metadata.get(field) or {}
            if not isinstance(value, dict) or not all(isinstance(text, str) for text in value.values()):
                raise bad_request(
                    f"json: cannot unmarshal into Go struct field ObjectMeta.metadata.{field} of type map[string]string"
                )
            if value:
                metadata[field] = value
            else:
                metadata.pop(field, None)
        owners = metadata.get("ownerReferences") or []
        if not isinstance(owners, list) or not all(
            isinstance(owner, dict) and isinstance(owner.get("uid"), str) for owner in owners
        ):
            raise bad_request("metadata.ownerReferences: every owner needs apiVersion, kind, name and uid")
        finalizers = metadata.get("finalizers") or []
        if not isinstance(finalizers, list) or not all(isinstance(text, str) for text in finalizers):
            raise bad_request("metadata.finalizers: must be a list of strings")

    def _validate_name(self, type: ResourceType, name: str) -> None:
        if type.group == "rbac.authorization.k8s.io":
            valid = bool(_PATH_SEGMENT.match(name))
        elif type.key in (NAMESPACES, ("", "services")):
            valid = bool(_LABEL.match(name)) and len(name) <= 63
        else:
            valid = bool(_SUBDOMAIN.match(name)) and len(name) <= 253
        if not valid:
            message = (
                f'Invalid value: "{name}": a lowercase RFC 1123 subdomain must consist of lower case alphanumeric '
                "characters, '-' or '.', and must start and end with an alphanumeric character"
            )
            raise invalid(type.group, type.kind, name, [("FieldValueInvalid", message, "metadata.name")])

    def _check_namespace(self, type: ResourceType, namespace: str, name: str) -> None:
        found = self.storage.get(NAMESPACES, "", namespace)
        if found is None:
            raise not_found("", "namespaces", namespace)
        if found.fields.get("status.phase") == "Terminating":
            why = f"unable to create new content in namespace {namespace} because it is being terminated"
            raise forbidden(type.group, type.resource, name, why)

    def _manage(
        self,
        type: ResourceType,
        body: dict[str, Any],
        before: dict[str, Any] | None,
        options: WriteOptions,
        subresource: str = "",
        *,
        applying: bool = False,
    ) -> None:
        """Record the write in managedFields: the manager's entry owns the parts that it wrote, whole."""
        metadata = body["metadata"]
        written = (
            {"status": body.get("status", {})}
            if subresource == "status"
            else {
                key: value
                for key, value in body.items()
                if key not in ("kind", "apiVersion", "metadata") and not (key == "status" and type.has_status)
            }
        )
        own = {key: metadata[key] for key in ("labels", "annotations", "ownerReferences") if metadata.get(key)}
        fields = managed_fields({"metadata": own, **written} if own else written)
        entry: dict[str, Any] = {
            "manager": options.manager,
            "operation": "Apply" if applying else "Update",
            "apiVersion": type.api_version(options.version),
            "time": self.now(),
            "fieldsType": "FieldsV1",
            "fieldsV1": fields,
        }
        if subresource:
            entry["subresource"] = subresource
        known = before["metadata"].get("managedFields", []) if before else []
        same = (entry["manager"], entry["operation"], subresource)
        others = [
            other
            for other in known
            if (other.get("manager"), other.get("operation"), other.get("subresource", "")) != same
        ]
        metadata["managedFields"] = [*others, entry]


def _mapping(body: dict[str, Any], field: str) -> dict[str, Any]:
    value = body.get(field)
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise bad_request(f"json: cannot unmarshal into Go struct field .{field}: it is not an object")
    return value


def _check_registration(body: dict[str, Any]) -> None:
    spec, name = _mapping(body, "spec"), body["metadata"]["name"]
    if name != f"{spec.get('version')}.{spec.get('group')}":
        message = f'Invalid value: "{name}": must be `spec.version+"."+spec.group`'
        raise invalid(API_SERVICES[0], "APIService", name, [("FieldValueInvalid", message, "metadata.name")])
    if not isinstance(spec.get("service"), dict | None):
        raise bad_request("spec.service: must be an object")


def _spec(type: ResourceType, body: dict[str, Any]) -> Any:
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


def _default(type: ResourceType, body: dict[str, Any]) -> None:
    """The few defaults that clients look at."""
    metadata = body["metadata"]
    spec = body.get("spec")
    if type.key == NAMESPACES:
        labels = metadata.get("labels") or {}
        metadata["labels"] = {**labels, "kubernetes.io/metadata.name": metadata["name"]}
        body.setdefault("spec", {"finalizers": ["kubernetes"]})
        body.setdefault("status", {"phase": "Active"})
    elif type.key == PODS:
        body.setdefault("status", {"phase": "Pending", "qosClass": "BestEffort"})
        if isinstance(spec, dict):
            body["spec"] = {
                "restartPolicy": "Always",
                "terminationGracePeriodSeconds": 30,
                "dnsPolicy": "ClusterFirst",
                "serviceAccountName": "default",
                "schedulerName": "default-scheduler",
                **spec,
            }
    elif type.key == ("", "services") and isinstance(spec, dict):
        body["spec"] = {"type": "ClusterIP", "sessionAffinity": "None", **spec}
        body.setdefault("status", {"loadBalancer": {}})
    elif type.group == "apps" and isinstance(spec, dict):
        if type.resource != "daemonsets":
            body["spec"] = {"replicas": 1, **spec}
        body.setdefault("status", {})


class _Loader(yaml.SafeLoader):
    """YAML as Kubernetes reads it: a time stays the text that it is."""


_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag != "tag:yaml.org,2002:timestamp"]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}


def parse_yaml(text: str) -> Any:
    """A YAML (or JSON) document of a request, as JSON would have it. Raises ApiError 400."""
    try:
        loaded = yaml.load(text, Loader=_Loader)
        return msgspec.json.decode(msgspec.json.encode(loaded))
    except (
        yaml.YAMLError,
        msgspec.MsgspecError,
        ValueError,
        TypeError,
        OverflowError,
        RecursionError,
    ) as error:
        raise bad_request(f"error decoding YAML: {error}") from error
