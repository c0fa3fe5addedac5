"""Accept: in which form an answer is wanted (RFC 9110 12.5.1; Kubernetes "Alternate representations of resources").

A request's header is parsed once, into `Accept`; what is then asked for of it is a look at its media ranges.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from functools import lru_cache
from typing import NamedTuple

from multidict import CIMultiDictProxy

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


@dataclass(frozen=True, slots=True)
class DocumentForm:
    """How a document that is no object is answered.

    `aggregated`: which version of aggregated discovery (`v2` or `v2beta1`), None for the unaggregated document.
    """

    in_yaml: bool = False
    aggregated: str | None = None


class MediaRange(NamedTuple):
    """One media range of an Accept header, in lower case, with its parameters but for the weight."""

    name: str
    parameters: Mapping[str, str]


OBJECTS = Representation(Form.OBJECT)
_PROTOBUF = "application/vnd.kubernetes.protobuf"
_DISCOVERY_GROUP = "apidiscovery.k8s.io"
# Whether a media range is answered in YAML; */* and application/* are answered in JSON.
_MEDIA = {"application/json": False, "application/*": False, "*/*": False, "application/yaml": True}


class Accept:
    """A parsed Accept header.

    `ranges`: what the client takes, the preferred one first, of equal weight in the order given. `any`: the header is
    absent or empty, which accepts everything.
    """

    __slots__ = ("any", "ranges")

    def __init__(self, text: str) -> None:
        self.any = not text.strip()
        self.ranges = _parsed(text)

    @staticmethod
    def of(headers: CIMultiDictProxy[str]) -> Accept:
        """That of a request, whose header may be given in several lines (RFC 9110 5.3)."""
        return _accept(",".join(headers.getall("Accept", ())))

    def prefers_yaml(self) -> bool:
        """Whether a document without other forms, such as an error, is wanted in YAML."""
        for media in self.ranges:
            if (in_yaml := _MEDIA.get(media.name)) is not None:
                return in_yaml
        return False

    def document(self, *, aggregated: bool = False, strict: bool = True) -> DocumentForm:
        """The form of discovery, reviews and the like (apiserver pkg/endpoints/handlers/negotiation).

        `aggregated`: whether the document has an aggregated form (KEP-3352). Not `strict`: parameters are ignored.

        Raises:
            ApiError: 406, none of the forms that are accepted can be given.
        """
        if self.any:
            return DocumentForm()
        for media, given in self.ranges:
            in_yaml = _MEDIA.get(media)
            wanted = given.get("as") if strict else None
            if wanted is None and (in_yaml is not None or media == _PROTOBUF):
                # A client that accepts protobuf alone also reads JSON where the Content-Type says that it is JSON.
                return DocumentForm(bool(in_yaml))
            version = given.get("v", "")
            group = given.get("g", _DISCOVERY_GROUP)
            known = wanted == "APIGroupDiscoveryList" and group == _DISCOVERY_GROUP and version in ("v2", "v2beta1")
            if known and aggregated and in_yaml is False:
                return DocumentForm(aggregated=version)
        raise ApiError(406, "only the following media types are accepted: application/json, application/yaml")

    def objects(self, *, listing: bool, streaming: bool = False) -> Representation:
        """The form of objects. `listing`: of LIST and WATCH, not of GET.

        `streaming`: of WATCH, which has no form in YAML (runtime/serializer: no StreamSerializer).

        Raises:
            ApiError: 406, none of the forms that are accepted can be given.
        """
        if self.any:
            return OBJECTS
        for media, given in self.ranges:
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
            # An event holds one object; the list's form is accepted as well, since clients send for a watch what they
            # send for its list.
            if (wanted == "PartialObjectMetadata" and (streaming or not listing)) or (
                wanted == "PartialObjectMetadataList" and listing
            ):
                return Representation(Form.METADATA, version, in_yaml)
        raise ApiError(
            406,
            "only the following media types are accepted: application/json, "
            f"{'' if streaming else 'application/yaml, '}application/json;as=Table;v=v1;g=meta.k8s.io, "
            f"application/json;as=PartialObjectMetadata{'List' if listing and not streaming else ''};"
            "v=v1;g=meta.k8s.io",
        )


def _parsed(text: str) -> tuple[MediaRange, ...]:
    ranges = []
    for part in text.split(","):
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
            ranges.append((quality, MediaRange(name.lower(), given)))
    return tuple(media for _, media in sorted(ranges, key=lambda one: -one[0]))


# Clients send the same few headers with all their requests.
_accept = lru_cache(256)(Accept)
