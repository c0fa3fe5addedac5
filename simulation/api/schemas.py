"""Schemas: the structural schemas of the types that a simulated cluster serves, trimmed by hand.

Fields and descriptions are a small selection of Kubernetes' own ("Kubernetes API Reference Docs"). What has no entry
here is an object with metadata whose other fields are not described.
"""

from __future__ import annotations

from typing import Any, NamedTuple

__all__ = ["DEFINITIONS", "Definition", "generic", "schemas"]

_CORE = "io.k8s.api.core.v1."
_APPS = "io.k8s.api.apps.v1."
_META = "io.k8s.apimachinery.pkg.apis.meta.v1."


class Definition(NamedTuple):
    """An object's schema. `fields`: by name, type and description.

    Types are `string`, `integer/int32`, `boolean`, `object`, `date`, the name of a definition, `[...]` for a list of
    them and `{...}` for a map. `kind`: (group, version, kind) of a type of its own.
    """

    description: str
    fields: dict[str, tuple[str, str]]
    required: tuple[str, ...] = ()
    kind: tuple[str, str, str] | None = None


_KIND = {
    "apiVersion": ("string", "APIVersion defines the versioned schema of this representation of an object."),
    "kind": ("string", "Kind is a string value representing the REST resource this object represents."),
    "metadata": (f"{_META}ObjectMeta", "Standard object's metadata."),
}


def _type(group: str, version: str, kind: str, description: str, **fields: tuple[str, str]) -> Definition:
    return Definition(description, {**_KIND, **fields}, kind=(group, version, kind))


DEFINITIONS: dict[str, Definition] = {
    f"{_META}ObjectMeta": Definition(
        "ObjectMeta is metadata that all persisted resources must have.",
        {
            "annotations": ("{string}", "Annotations is an unstructured key value map stored with a resource."),
            "creationTimestamp": ("date", "CreationTimestamp is the server time when this object was created."),
            "deletionTimestamp": ("date", "DeletionTimestamp is the time at which this resource will be deleted."),
            "finalizers": ("[string]", "Must be empty before the object is deleted from the registry."),
            "generateName": ("string", "GenerateName is an optional prefix, used to generate a unique name."),
            "generation": ("integer/int64", "A sequence number of a specific generation of the desired state."),
            "labels": ("{string}", "Map of string keys and values that organize and categorize objects."),
            "name": ("string", "Name must be unique within a namespace."),
            "namespace": ("string", "Namespace defines the space within which each name must be unique."),
            "ownerReferences": (f"[{_META}OwnerReference]", "List of objects depended by this object."),
            "resourceVersion": ("string", "The internal version of this object, opaque to clients."),
            "uid": ("string", "UID is the unique in time and space value for this object."),
        },
    ),
    f"{_META}OwnerReference": Definition(
        "OwnerReference contains enough information to let you identify an owning object.",
        {
            "apiVersion": ("string", "API version of the referent."),
            "controller": ("boolean", "If true, this reference points to the managing controller."),
            "kind": ("string", "Kind of the referent."),
            "name": ("string", "Name of the referent."),
            "uid": ("string", "UID of the referent."),
        },
        ("apiVersion", "kind", "name", "uid"),
    ),
    f"{_META}LabelSelector": Definition(
        "A label selector is a label query over a set of resources.",
        {"matchLabels": ("{string}", "matchLabels is a map of {key,value} pairs.")},
    ),
    f"{_CORE}Pod": _type(
        "",
        "v1",
        "Pod",
        "Pod is a collection of containers that can run on a host.",
        spec=(f"{_CORE}PodSpec", "Specification of the desired behavior of the pod."),
        status=(f"{_CORE}PodStatus", "Most recently observed status of the pod."),
    ),
    f"{_CORE}PodSpec": Definition(
        "PodSpec is a description of a pod.",
        {
            "containers": (f"[{_CORE}Container]", "List of containers belonging to the pod."),
            "hostNetwork": ("boolean", "Host networking requested for this pod."),
            "initContainers": (f"[{_CORE}Container]", "List of initialization containers belonging to the pod."),
            "nodeName": ("string", "NodeName indicates in which node this pod is scheduled."),
            "nodeSelector": ("{string}", "NodeSelector is a selector which must be true for the pod to fit on a node."),
            "restartPolicy": ("string", "Restart policy for all containers within the pod."),
            "schedulerName": ("string", "If specified, the pod will be dispatched by specified scheduler."),
            "serviceAccountName": ("string", "The name of the ServiceAccount to use to run this pod."),
            "terminationGracePeriodSeconds": ("integer/int64", "Duration the pod needs to terminate gracefully."),
        },
        ("containers",),
    ),
    f"{_CORE}PodStatus": Definition(
        "PodStatus represents information about the status of a pod.",
        {
            "hostIP": ("string", "The IP address of the host to which the pod is assigned."),
            "phase": ("string", "A simple, high-level summary of where the Pod is in its lifecycle."),
            "podIP": ("string", "The IP address allocated to the pod."),
            "startTime": ("date", "Date and time at which the object was acknowledged by the Kubelet."),
        },
    ),
    f"{_CORE}Container": Definition(
        "A single application container that you want to run within a pod.",
        {
            "args": ("[string]", "Arguments to the entrypoint."),
            "command": ("[string]", "Entrypoint array. Not executed within a shell."),
            "env": (f"[{_CORE}EnvVar]", "List of environment variables to set in the container."),
            "image": ("string", "Container image name."),
            "imagePullPolicy": ("string", "Image pull policy. One of Always, Never, IfNotPresent."),
            "name": ("string", "Name of the container specified as a DNS_LABEL."),
            "ports": (f"[{_CORE}ContainerPort]", "List of ports to expose from the container."),
            "resources": ("object", "Compute Resources required by this container."),
        },
        ("name",),
    ),
    f"{_CORE}ContainerPort": Definition(
        "ContainerPort represents a network port in a single container.",
        {
            "containerPort": ("integer/int32", "Number of port to expose on the pod's IP address."),
            "name": ("string", "If specified, this must be an IANA_SVC_NAME and unique within the pod."),
            "protocol": ("string", "Protocol for port. Must be UDP, TCP, or SCTP."),
        },
        ("containerPort",),
    ),
    f"{_CORE}EnvVar": Definition(
        "EnvVar represents an environment variable present in a Container.",
        {
            "name": ("string", "Name of the environment variable."),
            "value": ("string", "Variable references $(VAR_NAME) are expanded."),
        },
        ("name",),
    ),
    f"{_CORE}PodTemplateSpec": Definition(
        "PodTemplateSpec describes the data a pod should have when created from a template.",
        {
            "metadata": (f"{_META}ObjectMeta", "Standard object's metadata."),
            "spec": (f"{_CORE}PodSpec", "Specification of the desired behavior of the pod."),
        },
    ),
    f"{_CORE}ConfigMap": _type(
        "",
        "v1",
        "ConfigMap",
        "ConfigMap holds configuration data for pods to consume.",
        binaryData=("{string}", "BinaryData contains the binary data."),
        data=("{string}", "Data contains the configuration data."),
        immutable=("boolean", "Immutable, if set to true, ensures that data stored cannot be updated."),
    ),
    f"{_CORE}Service": _type(
        "",
        "v1",
        "Service",
        "Service is a named abstraction of software service consisting of a local port that the proxy listens on.",
        spec=(f"{_CORE}ServiceSpec", "Spec defines the behavior of a service."),
        status=("object", "Most recently observed status of the service."),
    ),
    f"{_CORE}ServiceSpec": Definition(
        "ServiceSpec describes the attributes that a user creates on a service.",
        {
            "clusterIP": ("string", "clusterIP is the IP address of the service."),
            "ports": (f"[{_CORE}ServicePort]", "The list of ports that are exposed by this service."),
            "selector": ("{string}", "Route service traffic to pods with matching label keys and values."),
            "type": ("string", "type determines how the Service is exposed."),
        },
    ),
    f"{_CORE}ServicePort": Definition(
        "ServicePort contains information on service's port.",
        {
            "name": ("string", "The name of this port within the service."),
            "port": ("integer/int32", "The port that will be exposed by this service."),
            "protocol": ("string", "The IP protocol for this port."),
        },
        ("port",),
    ),
    f"{_APPS}Deployment": _type(
        "apps",
        "v1",
        "Deployment",
        "Deployment enables declarative updates for Pods and ReplicaSets.",
        spec=(f"{_APPS}DeploymentSpec", "Specification of the desired behavior of the Deployment."),
        status=(f"{_APPS}DeploymentStatus", "Most recently observed status of the Deployment."),
    ),
    f"{_APPS}DeploymentSpec": Definition(
        "DeploymentSpec is the specification of the desired behavior of the Deployment.",
        {
            "paused": ("boolean", "Indicates that the deployment is paused."),
            "replicas": ("integer/int32", "Number of desired pods. Defaults to 1."),
            "revisionHistoryLimit": ("integer/int32", "The number of old ReplicaSets to retain to allow rollback."),
            "selector": (f"{_META}LabelSelector", "Label selector for pods."),
            "strategy": ("object", "The deployment strategy to use to replace existing pods with new ones."),
            "template": (f"{_CORE}PodTemplateSpec", "Template describes the pods that will be created."),
        },
        ("selector", "template"),
    ),
    f"{_APPS}DeploymentStatus": Definition(
        "DeploymentStatus is the most recently observed status of the Deployment.",
        {
            "availableReplicas": ("integer/int32", "Total number of available pods targeted by this deployment."),
            "readyReplicas": ("integer/int32", "Number of pods targeted by this Deployment with a Ready Condition."),
            "replicas": ("integer/int32", "Total number of non-terminated pods targeted by this deployment."),
        },
    ),
}


def generic(group: str, version: str, kind: str) -> Definition:
    """The definition of a type that has none in DEFINITIONS: an object with metadata."""
    return _type(group, version, kind, "", spec=("object", ""), status=("object", ""))


def schemas(definitions: dict[str, Definition], place: str) -> dict[str, dict[str, Any]]:
    """The schemas of definitions, by name, and of all definitions that they refer to.

    References begin with `place`, as `#/components/schemas/`.
    """
    made: dict[str, dict[str, Any]] = {}
    waiting = dict(definitions)
    while waiting:
        name, definition = waiting.popitem()
        properties = {}
        for field, (text, description) in sorted(definition.fields.items()):
            properties[field] = {**_schema(text, place), **({"description": description} if description else {})}
            if (inner := text.strip("[{}]")) in DEFINITIONS and inner not in made and inner != name:
                waiting[inner] = DEFINITIONS[inner]
        schema: dict[str, Any] = {"type": "object", "properties": properties}
        if definition.description:
            schema["description"] = definition.description
        if definition.required:
            schema["required"] = list(definition.required)
        if definition.kind is not None:
            schema["x-kubernetes-group-version-kind"] = [
                dict(zip(("group", "version", "kind"), definition.kind, strict=True))
            ]
        made[name] = schema
    return dict(sorted(made.items()))


def _schema(text: str, place: str) -> dict[str, Any]:
    if text.startswith("["):
        return {"type": "array", "items": _schema(text[1:-1], place)}
    if text.startswith("{"):
        return {"type": "object", "additionalProperties": _schema(text[1:-1], place)}
    if text in DEFINITIONS:
        # OpenAPI 3.0 takes no description beside a reference (OpenAPI 3.0.3, "Reference Object").
        reference = {"$ref": f"{place}{text}"}
        return {"allOf": [reference]} if place.startswith("#/components/") else reference
    if text == "date":
        return {"type": "string", "format": "date-time"}
    name, _, format = text.partition("/")
    return {"type": name, "format": format} if format else {"type": name}
