"""`kubebraid search`: objects of all types in all clusters, by words, for people."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Annotated, Any
from urllib.parse import urlencode

import msgspec
import typer

from kubebraid.command.asking import BrokenOff, ServerRefused, Service, unanswered
from kubebraid.command.options.service import with_service
from kubebraid.command.settings import BadSetting
from kubebraid.command.status import Unanswered
from kubebraid.command.tables import rendered, row, table
from query.tables.ages import human_duration, seconds_since_epoch

_ROOT = "/apis/clusterpedia.io/v1beta1/collectionresources/any"
_CLUSTER = "shadow.clusterpedia.io/cluster-name"
# Seconds to wait for an answer; and without a byte of a watch, in which bookmarks come about once a minute.
_PATIENCE = 60.0
_SILENCE = 150.0
# A watch that breaks off is begun again after so many seconds, twice as many each time that it does not begin, as long
# as that is not for so many in all.
_PAUSES = (0.5, 5.0)
_ENOUGH = 60.0
# What a service answers that is about to serve.
_NOT_YET = (429, 503, 504)
_PAGE = 500
_ALL = 1_000_000
# A filter has at most 500 operands, of some five characters each.
_LONGEST = 2000
# How many hops below an owner are looked at: CronJob, Job, Pod is 1 beyond what it owns itself.
_HOPS = 3

# Where objects have containers.
_CONTAINERS = (
    "spec.?containers",
    "spec.?initContainers",
    "spec.?template.?spec.?containers",
    "spec.?template.?spec.?initContainers",
    "spec.?jobTemplate.?spec.?template.?spec.?containers",
)
# Where they have one name or address of a host, several, and members with some.
_HOST_TEXTS = ("spec.?nodeName", "spec.?externalName", "spec.?clusterIP", "status.?podIP", "status.?hostIP")
_HOST_LISTS = ("spec.?hostnames", "spec.?externalIPs", "spec.?dnsNames")
_HOST_MEMBERS = ("spec.?rules", "status.?loadBalancer.?ingress", "status.?addresses")
_OF_MEMBERS = ("host", "hostname", "ip", "address")


def _lists(paths: Sequence[str]) -> str:
    return "(" + " + ".join(f"object.?{path}.orValue([])" for path in paths) + ")"


# By the names of parts: what is true where a part has the word `w` in it.
_IMAGE = f"{_lists(_CONTAINERS)}.exists(c, c.?image.orValue('').contains(w))"
_HOST = " || ".join(
    (
        "[" + ", ".join(f"object.?{path}.orValue('')" for path in _HOST_TEXTS) + "].exists(h, h.contains(w))",
        f"{_lists(_HOST_LISTS)}.exists(h, h.contains(w))",
        f"{_lists(_HOST_MEMBERS)}.exists(m, "
        + " || ".join(f"m.?{name}.orValue('').contains(w)" for name in _OF_MEMBERS)
        + ")",
    )
)
_LABEL = "object.metadata.?labels.orValue({}).exists(k, (k + '=' + object.metadata.labels[k]).contains(w))"
_NAME = "object.metadata.name.contains(w)"
_OWNER = "object.metadata.?ownerReferences.orValue([]).exists(o, o.name.contains(w))"
_PARTS = {"image": _IMAGE, "host": _HOST, "label": _LABEL, "name": _NAME}
_ANY = " || ".join((*_PARTS.values(), _OWNER))


def expressions_of(words: Sequence[str]) -> tuple[list[str], tuple[str, ...]]:
    """The filters that words stand for, each of them bounded as the service bounds them, and
    the names of owners among them.

    `image=nginx:1.25 web` is what has an image with this in its name, and `web` in its name, its labels, images, hosts
    or the names of its owners; all of them have to hold. `owner=web` is left to the search for owners.

    Raises:
        BadSetting: a word is empty, or names no part of an object.
    """
    wanted: dict[str, list[str]] = {}
    for text in words:
        part, equals, value = text.partition("=")
        known = equals and (part in _PARTS or part == "owner")
        word = value if known else text
        if not word:
            raise BadSetting(f"{text!r}: nothing to search for")
        wanted.setdefault(part if known else "", []).append(word)
    owners = tuple(wanted.pop("owner", ()))
    # Not in a loop over the words: of large objects so deep a one has no value.
    terms = [
        f"({_PARTS.get(part, _ANY).replace('(w)', f'({json.dumps(word)})')})"
        for part, some in wanted.items()
        for word in some
    ]
    filters: list[str] = []
    for term in terms:
        if filters and len(filters[-1]) + len(term) < _LONGEST:
            filters[-1] += f" && {term}"
        else:
            filters.append(term)
    return filters, owners


class _Asking:
    """Asks one service for what a search finds. `pauses`: seconds before a watch begins again, first and longest."""

    def __init__(self, service: Service, parameters: Mapping[str, str], pauses: tuple[float, float] = _PAUSES) -> None:
        self._service = service
        self._parameters = parameters
        self._pauses = pauses

    def get(self, **more: str) -> bytes:
        """The answer. Raises Unanswered, BadSetting."""
        query = urlencode({**self._parameters, **more})
        try:
            return self._service.get(f"{_ROOT}?{query}", _PATIENCE)[0]
        except ServerRefused as refused:
            raise Unanswered(str(refused)) from None
        except OSError as cause:
            raise Unanswered(unanswered(cause)) from None

    def found(self, limit: int, **more: str) -> tuple[list[dict[str, Any]], str]:
        """So many objects at most, page by page, and the version that they are of."""
        items: list[dict[str, Any]] = []
        token = ""
        while True:
            after = {"continue": token} if token else {}
            page = json.loads(self.get(limit=str(min(_PAGE, limit - len(items))), **more, **after))
            items += page["items"]
            token = page.get("continue", "")
            if not token or len(items) >= limit:
                return items, page["metadata"]["resourceVersion"]

    def watch(self, version: str, show: Callable[[dict[str, Any]], None]) -> None:
        """Shows what changes from a version on, for ever: one watch after the other. Raises Unanswered."""
        pause, longest = self._pauses
        failing_since: float | None = None

        def take(line: bytes) -> None:
            nonlocal version, pause, failing_since
            event = json.loads(line)
            if event["type"] == "ERROR":
                raise Unanswered(f"the watch ends: {event['object'].get('message', '')}; search again")
            version = event["object"]["metadata"]["resourceVersion"]
            pause, failing_since = self._pauses[0], None
            if event["type"] != "BOOKMARK":
                show(event)

        while True:
            more = {"watch": "1", "resourceVersion": version, "allowWatchBookmarks": "true"}
            try:
                self._service.follow(f"{_ROOT}?{urlencode({**self._parameters, **more})}", _SILENCE, take)
                failing_since = None
            except (BrokenOff, ServerRefused) as cause:
                passes = isinstance(cause, BrokenOff) or cause.code in _NOT_YET
                failing_since = time.monotonic() if failing_since is None else failing_since
                if not passes or time.monotonic() - failing_since > _ENOUGH:
                    raise Unanswered(str(cause)) from None
            # Also where it ended in order: a service that is about to end would end the next one, too.
            time.sleep(pause)
            pause = min(pause * 2, longest)


def _resources(service: Service, kinds: Sequence[str]) -> str:
    """The types that are called so: by kind, resource, or resource and group. Raises BadSetting, Unanswered."""
    types = json.loads(_Asking(service, {"groups": "*"}).get(limit="1", onlyMetadata="true"))["resourceTypes"]
    found: dict[str, None] = {}
    for kind in kinds:
        wanted = kind.lower()
        some = [one for one in types if wanted in _called(one)]
        if not some:
            raise BadSetting(f"--kind {kind}: no cluster has such a type that is synced and may be seen")
        found |= dict.fromkeys(f"{one['group'] or 'core'}/{one['resource']}" for one in some)
    return ",".join(found)


def _called(one: Mapping[str, str]) -> tuple[str, ...]:
    group, resource, kind = one["group"], one["resource"], one["kind"].lower()
    return kind, resource, f"{kind}.{group}", f"{resource}.{group}", f"{group}/{resource}"


def _place(item: Mapping[str, Any]) -> tuple[str, str, str, str]:
    metadata = item["metadata"]
    cluster = metadata.get("annotations", {}).get(_CLUSTER, "")
    return cluster, metadata.get("namespace", ""), item["kind"], metadata["name"]


def _age(item: Mapping[str, Any]) -> str:
    since = seconds_since_epoch(item["metadata"].get("creationTimestamp"))
    return "<unknown>" if since is None else human_duration(datetime.now(UTC).timestamp() - since)


def _cells(item: Mapping[str, Any], *, wide: bool) -> list[str]:
    labels = ",".join(f"{name}={value}" for name, value in item["metadata"].get("labels", {}).items())
    more = [item["apiVersion"], labels or "<none>"] if wide else []
    return [*_place(item), _age(item), *more]


def _name(item: Mapping[str, Any]) -> str:
    cluster, namespace, kind, name = _place(item)
    group, _, _ = item["apiVersion"].rpartition("/")
    return "/".join(
        [cluster, *([namespace] if namespace else []), f"{kind.lower()}{'.' if group else ''}{group}", name]
    )


def _shown(items: Sequence[Mapping[str, Any]], output: str, events: Sequence[str] = ()) -> list[str]:
    """The lines of a result; `events`: what became of each, of a watch."""
    if output == "name":
        return [_name(item) for item in items]
    columns = ["cluster", "namespace", "kind", "name", "age", *(["version", "labels"] if output == "wide" else [])]
    rows = table(*(["event"] if events else []), *columns)
    for at, item in enumerate(items):
        row(rows, *([events[at]] if events else []), *_cells(item, wide=output == "wide"))
    return rendered(rows)


@with_service
def command(
    service: Service,
    words: Annotated[
        list[str],
        typer.Argument(
            metavar="WORD...",
            help="In names, labels, images, hosts, names of owners; name=, label=, image=, host=, owner=: in that.",
        ),
    ],
    kind: Annotated[
        list[str] | None, typer.Option("--kind", metavar="KIND", help="Of this type: pods, Deployment, jobs.batch.")
    ] = None,
    cluster: Annotated[list[str] | None, typer.Option("--cluster", metavar="NAME", help="In this cluster.")] = None,
    namespace: Annotated[
        list[str] | None, typer.Option("--namespace", "-n", metavar="NAME", help="In this namespace.")
    ] = None,
    output: Annotated[str, typer.Option("--output", "-o", metavar="FORM", help="table, wide, name or json.")] = "table",
    watch: Annotated[bool, typer.Option("--watch", "-w", help="Then show what changes.")] = False,
    limit: Annotated[int, typer.Option("--limit", min=1, metavar="N", help="So many at most.")] = 1000,
) -> None:
    """Search for objects of all types in all clusters. Code 1: nothing is found."""
    if output not in ("table", "wide", "name", "json"):
        raise BadSetting(f"--output {output!r}: table, wide, name or json")
    filters, owners = expressions_of(words)
    if watch and owners:
        raise BadSetting("--watch: what an owner controls is searched for once; leave out owner=")
    if watch and len(filters) > 1:
        raise BadSetting("--watch: too many words to be watched; say in what they are, as name=web")
    parameters = {"resources": _resources(service, kind)} if kind else {"groups": "*"}
    if len(filters) == 1:
        parameters["filter"] = filters.pop()
    if cluster:
        parameters["clusters"] = ",".join(cluster)
    if namespace:
        parameters["namespaces"] = ",".join(namespace)
    if output != "json":
        parameters["onlyMetadata"] = "true"
    asking = _Asking(service, parameters)
    items, version = _searched(asking, filters, owners, limit)
    if output == "json":
        if not watch:
            document = {"kind": "List", "apiVersion": "v1", "items": items}
            typer.echo(msgspec.json.format(msgspec.json.encode(document), indent=2).decode())
        else:
            for item in items:
                typer.echo(json.dumps({"type": "ADDED", "object": item}))
    elif items:
        for line in _shown(items, output, ["ADDED"] * len(items) if watch and output != "name" else ()):
            typer.echo(line)
    if not watch:
        if len(items) >= limit:
            typer.echo(f"there may be more: --limit {limit}", err=True)
        if not items:
            raise typer.Exit(1)
        return

    def show(event: dict[str, Any]) -> None:
        if output == "json":
            typer.echo(json.dumps(event))
        elif output == "name":
            typer.echo(f"{event['type']} {_name(event['object'])}")
        else:
            # Without a head: it stands above, or nothing was there.
            typer.echo(_shown([event["object"]], output, [event["type"]])[-1])

    asking.watch(version, show)


def _searched(
    asking: _Asking, filters: Sequence[str], owners: Sequence[str], limit: int
) -> tuple[list[dict[str, Any]], str]:
    """What is found, and the version that it is of: what meets all filters, and is controlled by all owners.

    Of an owner that is what it controls itself, and what that controls, over several hops.
    """
    if not filters and not owners:
        return asking.found(limit)
    ways = [[{"filter": one}] for one in filters]
    ways += [[{"ownerName": owner, "ownerSeniority": str(hops)} for hops in range(_HOPS)] for owner in owners]
    common: dict[tuple[str, ...], dict[str, Any]] | None = None
    version = ""
    for way in ways:
        found: dict[tuple[str, ...], dict[str, Any]] = {}
        for more in way:
            # Each of them as a whole: what one has behind its first ones, another may have among them.
            items, version = asking.found(_ALL, **more)
            found |= {_identity(item): item for item in items}
        common = found if common is None else {key: item for key, item in common.items() if key in found}
    return list((common or {}).values())[:limit], version


def _identity(item: Mapping[str, Any]) -> tuple[str, ...]:
    group, _, _ = item["apiVersion"].rpartition("/")
    return (group, *_place(item))
