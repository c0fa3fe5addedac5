"""Accept: in which form an answer is wanted (RFC 9110 12.5.1; Kubernetes "Alternate representations")."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from query.http.status import ApiError


class Form(StrEnum):
    """Whole objects, their metadata alone, or rows of a table."""

    OBJECT = "object"
    METADATA = "metadata"
    TABLE = "table"


@dataclass(frozen=True, slots=True)
class Representation:
    """A negotiated form; `api_version` of the Table or PartialObjectMetadata: `meta.k8s.io/v1` or `.../v1beta1`."""

    form: Form
    api_version: str = "meta.k8s.io/v1"
    in_yaml: bool = False


OBJECTS = Representation(Form.OBJECT)
# What */* and application/* are taken for comes first.
_PROTOBUF = "application/vnd.kubernetes.protobuf"
_DISCOVERY_GROUP = "apidiscovery.k8s.io"
_MEDIA = {"application/json": False, "application/*": False, "*/*": False, "application/yaml": True}


def _parsed(accept: str) -> list[tuple[float, str, dict[str, str]]]:
    """Media ranges with their parameters, best first, equal ones in the order given."""
    ranges = []
    for part in accept.split(","):
        name, *parameters = (piece.strip() for piece in part.split(";"))
        if not name:
            continue
        given = {}
        for parameter in parameters:
            key, _, value = parameter.partition("=")
            given[key.strip().lower()] = value.strip().strip('"')
        try:
            quality = float(given.pop("q", "1"))
        except ValueError:
            quality = 0.0
        if quality > 0:
            ranges.append((quality, name.lower(), given))
    return sorted(ranges, key=lambda one: -one[0])


def media_ranges(accept: str) -> list[str]:
    """The media ranges of an Accept header without their parameters, best first."""
    return [media for _, media, _ in _parsed(accept)]


def prefers_yaml(accept: str) -> bool:
    """Whether a document without other forms is wanted in YAML."""
    known = (_MEDIA[media] for _, media, _ in _parsed(accept) if media in _MEDIA)
    return next(known, False)


@dataclass(frozen=True, slots=True)
class Document:
    """How a document that is no object is answered; `aggregated`: which version of aggregated discovery, if any."""

    in_yaml: bool = False
    aggregated: str | None = None


def negotiate_document(accept: str, *, aggregated: bool = False, strict: bool = True) -> Document:
    """For discovery, reviews and the like. Raises ApiError 406 if nothing that is asked for can be had.

    `aggregated`: whether there is an aggregated form of it (KEP-3352). Not `strict`: parameters are not looked at.
    """
    if not accept.strip():
        return Document()
    for _, media, given in _parsed(accept):
        in_yaml = _MEDIA.get(media)
        wanted = given.get("as") if strict else None
        if wanted is None and (in_yaml is not None or media == _PROTOBUF):
            # Who takes protobuf alone is a client that reads JSON, too, as long as it is told that it is.
            return Document(bool(in_yaml))
        version = given.get("v", "")
        group = given.get("g", _DISCOVERY_GROUP)
        known = wanted == "APIGroupDiscoveryList" and group == _DISCOVERY_GROUP and version in ("v2", "v2beta1")
        if known and aggregated and in_yaml is False:
            return Document(aggregated=version)
    raise ApiError(406, "only the following media types are accepted: application/json, application/yaml")


def negotiate(accept: str, *, listing: bool, streaming: bool = False) -> Representation:
    """The representation to answer with. Raises ApiError 406 if none of those asked for can be had.

    `streaming`: for a watch, of which there is no YAML (runtime/serializer: no StreamSerializer).
    """
    if not accept.strip():
        return OBJECTS
    for _, media, given in _parsed(accept):
        in_yaml = _MEDIA.get(media)
        if in_yaml is None or (in_yaml and streaming):
            continue
        wanted = given.get("as")
        if wanted is None:
            return Representation(Form.OBJECT, in_yaml=in_yaml)
        if given.get("g") != "meta.k8s.io" or given.get("v") not in ("v1", "v1beta1"):
            continue
        version = f"meta.k8s.io/{given['v']}"
        if wanted == "Table":
            return Representation(Form.TABLE, version, in_yaml)
        # An event holds one object; that a watch is a list's is taken, too, as clients say what they say for its list.
        if (wanted == "PartialObjectMetadata" and (streaming or not listing)) or (
            wanted == "PartialObjectMetadataList" and listing
        ):
            return Representation(Form.METADATA, version, in_yaml)
    raise ApiError(
        406,
        f"only the following media types are accepted: application/json, {'' if streaming else 'application/yaml, '}"
        "application/json;as=Table;v=v1;g=meta.k8s.io, "
        f"application/json;as=PartialObjectMetadata{'List' if listing and not streaming else ''};v=v1;g=meta.k8s.io",
    )
