"""Bodies of requests: JSON, or YAML as Kubernetes reads it. Pure functions."""

from __future__ import annotations

from typing import Any

import msgspec
import yaml

from simulation.status import StatusError, bad_request

__all__ = ["json_body", "object_body", "yaml_body"]

_JSON_TYPES = ("application/json", "application/octet-stream", "text/plain")


class _Loader(yaml.SafeLoader):
    """Without times: what looks like one stays text, as in sigs.k8s.io/yaml."""


_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag != "tag:yaml.org,2002:timestamp"]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}


def json_body(data: bytes) -> Any:
    """A JSON document.

    Raises:
        StatusError: 400 if it is none.
    """
    try:
        return msgspec.json.decode(data)
    except (msgspec.MsgspecError, UnicodeError, RecursionError) as error:
        raise bad_request(f"couldn't get version/kind; json parse error: {error}") from error


def yaml_body(text: str) -> Any:
    """A YAML (or JSON) document with the values that JSON has.

    Raises:
        StatusError: 400 if it is none, or has what JSON cannot have.
    """
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


def object_body(content_type: str, data: bytes) -> dict[str, Any]:
    """The object in a body of a content type.

    Raises:
        StatusError: 400 if it is no object, 415 for another content type than those of JSON and YAML.
    """
    if content_type == "application/yaml":
        body = yaml_body(data.decode())
    elif content_type in _JSON_TYPES:
        body = json_body(data)
    else:
        raise StatusError(
            415,
            "the body of the request was in an unknown format - accepted media types include: "
            "application/json, application/yaml",
        )
    if not isinstance(body, dict):
        raise bad_request("the object provided is unrecognized: it is not an object")
    return body
