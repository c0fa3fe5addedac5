"""Validation: what a body of a request must have before the registry looks at its content.

Pure functions; each raises StatusError with Kubernetes' text for what it refuses.
"""

from __future__ import annotations

import re
from typing import Any

from simulation.registry.options import WriteOptions
from simulation.resources import NAMESPACES, SERVICES, SimulatedType
from simulation.status import bad_request, invalid

__all__ = ["LABEL", "SUBDOMAIN", "checked_body", "mapping", "validate_name"]

# RFC 1123, as k8s.io/apimachinery pkg/util/validation has it.
LABEL = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?\Z")
SUBDOMAIN = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*\Z")
# What may be a segment of a path, which is all that names of RBAC objects have to be.
_PATH_SEGMENT = re.compile(r"(?!\.\.?\Z)[^/%\x00-\x1f]+\Z")


def checked_body(
    type: SimulatedType, namespace: str, body: Any, options: WriteOptions, name: str = ""
) -> dict[str, Any]:
    """The body of a write to `namespace` (and `name`, where the path has one), verified.

    A shallow copy with a metadata of its own, in which namespace and name are set and empty labels and annotations
    are left out.

    Raises:
        StatusError: 400 if kind, apiVersion, name or namespace differ from the path, or a field has a wrong type.
    """
    if not isinstance(body, dict):
        raise bad_request("the object provided is unrecognized: it is not an object")
    kind, api_version = body.get("kind"), body.get("apiVersion")
    if kind is None and api_version is None and type.custom:
        raise bad_request("Object 'Kind' is missing in the body of the request")
    if kind is not None and kind != type.kind:
        raise bad_request(f"{kind} in version {api_version!r} cannot be handled as a {type.kind}: it has another kind")
    wanted = type.api_version(options.version)
    if api_version is not None and api_version != wanted:
        raise bad_request(
            f"the API version in the data ({api_version}) does not match the expected API version ({wanted})"
        )
    for field in ("spec", "status"):
        if field in body and body[field] is None:
            body = {key: value for key, value in body.items() if key != field}
        mapping(body, field)
    metadata = dict(mapping(body, "metadata"))
    _check_metadata(metadata)
    if name and metadata.get("name") not in (None, "", name):
        raise bad_request(f"the name of the object ({metadata['name']}) does not match the name on the URL ({name})")
    given = metadata.get("namespace")
    if type.namespaced:
        if given not in (None, "", namespace):
            raise bad_request("the namespace of the provided object does not match the namespace sent on the request")
        metadata["namespace"] = namespace
    elif given:
        raise bad_request("namespace is not allowed on this type")
    if name:
        metadata["name"] = name
    return {**body, "metadata": metadata}


def _check_metadata(metadata: dict[str, Any]) -> None:
    for field in ("name", "generateName", "namespace", "uid", "resourceVersion"):
        if not isinstance(metadata.get(field, ""), str | None):
            raise bad_request(f"json: cannot unmarshal into Go struct field ObjectMeta.metadata.{field} of type string")
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


def mapping(body: dict[str, Any], field: str) -> dict[str, Any]:
    """The object in a field; empty if the field is missing or null.

    Raises:
        StatusError: 400 if the field holds something else.
    """
    value = body.get(field)
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise bad_request(f"json: cannot unmarshal into Go struct field .{field}: it is not an object")
    return value


def validate_name(type: SimulatedType, name: str) -> None:
    """Check the name of an object that is to be created.

    Raises:
        StatusError: 422 if the resource does not allow such a name.
    """
    if type.group == "rbac.authorization.k8s.io":
        valid = bool(_PATH_SEGMENT.match(name))
    elif type.key in (NAMESPACES, SERVICES):
        valid = bool(LABEL.match(name)) and len(name) <= 63
    else:
        valid = bool(SUBDOMAIN.match(name)) and len(name) <= 253
    if not valid:
        message = (
            f'Invalid value: "{name}": a lowercase RFC 1123 subdomain must consist of lower case alphanumeric '
            "characters, '-' or '.', and must start and end with an alphanumeric character"
        )
        raise invalid(type.group, type.kind, name, [("FieldValueInvalid", message, "metadata.name")])
