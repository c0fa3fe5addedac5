"""CustomResourceDefinitions: which type one defines, and the status that the server gives it.

Also APIServices, as far as their bodies are checked; what they register is `simulation.aggregation`.
"""

from __future__ import annotations

import re
from typing import Any

from simulation.aggregation import API_SERVICES
from simulation.registry.validation import LABEL, SUBDOMAIN, mapping
from simulation.resources import CUSTOM_RESOURCE_DEFINITIONS, SimulatedType, custom_type
from simulation.status import bad_request, invalid

__all__ = ["check_registration", "defined_type", "established_status"]

_KIND = re.compile(r"[A-Za-z]([-A-Za-z0-9]*[A-Za-z0-9])?\Z")
_GROUP = CUSTOM_RESOURCE_DEFINITIONS[0]


def defined_type(body: dict[str, Any]) -> SimulatedType:
    """The type that a CustomResourceDefinition defines.

    Raises:
        StatusError: 422 if the definition lacks what it must have, or its names are not valid.
    """
    name = body["metadata"]["name"]
    try:
        type = custom_type(body)
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        causes = [("FieldValueRequired", f"Required value: {error}", "spec")]
        raise invalid(_GROUP, "CustomResourceDefinition", name, causes) from error
    if name != f"{type.resource}.{type.group}" or not SUBDOMAIN.match(type.group) or "." not in type.group:
        message = f'Invalid value: "{name}": must be spec.names.plural+"."+spec.group'
        raise invalid(_GROUP, "CustomResourceDefinition", name, [("FieldValueInvalid", message, "metadata.name")])
    kinds = [type.kind, type.list_kind or type.kind]
    if not all(_KIND.match(kind) for kind in kinds) or not all(map(LABEL.match, type.versions)):
        message = "Invalid value: kinds and versions must be DNS labels"
        raise invalid(_GROUP, "CustomResourceDefinition", name, [("FieldValueInvalid", message, "spec")])
    return type


def established_status(body: dict[str, Any], type: SimulatedType, now: str) -> dict[str, Any]:
    """The status of a definition whose type is served; conditions that it has already, stay.

    `storedVersions` grows by each version that was the storage version once.
    """
    spec = body["spec"]
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
    return {
        "conditions": conditions,
        "acceptedNames": {"singular": type.singular, "listKind": f"{type.kind}List", **spec["names"]},
        "storedVersions": list(dict.fromkeys([*(known.get("storedVersions") or ()), *storing])),
    }


def check_registration(body: dict[str, Any]) -> None:
    """Check an APIService.

    Raises:
        StatusError: 422 if it is not named after its version and group, 400 if its spec has a wrong type.
    """
    spec, name = mapping(body, "spec"), body["metadata"]["name"]
    if name != f"{spec.get('version')}.{spec.get('group')}":
        message = f'Invalid value: "{name}": must be `spec.version+"."+spec.group`'
        raise invalid(API_SERVICES[0], "APIService", name, [("FieldValueInvalid", message, "metadata.name")])
    if not isinstance(spec.get("service"), dict | None):
        raise bad_request("spec.service: must be an object")
