"""Collections through a router: which there are in all groups, and which group answers for one of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from aiohttp import web

from deltalog.wire.kubernetes import GroupResource
from kubebraid.route.documents import GroupDocuments, instance_documents
from kubebraid.route.groups import Group, Groups, InstanceDocument
from kubebraid.route.request import RoutedRequest
from query.discovery.clusterpedia import COLLECTIONS, GROUP, VERSION
from query.http.status import ApiError, not_found
from query.search.collection_list import answer_collections, collections_in
from query.search.collections import CollectedTypes, ResourceCollection, patterns_of
from query.search.order import type_text

_PATH = f"/apis/{GROUP}/{VERSION}/{COLLECTIONS}"
# So many types are named of each group.
_NAMED = 3

# The clusters that have a type, by group.
_Holders = dict[Group, set[str]]


class GroupCollections:
    """Collections of several groups. `guarded`: whether instances have to know who asks."""

    def __init__(self, groups: Groups, documents: GroupDocuments, *, guarded: bool) -> None:
        self._groups = groups
        self._documents = documents
        self._guarded = guarded

    async def listed(self, request: RoutedRequest) -> web.Response:
        """Which there are: each once, with the types that it has in any group.

        Raises:
            ApiError: 406; 503, what one group has is not known.
        """
        known = await self._known(request)
        if isinstance(known, web.Response):
            return known
        found: dict[str, tuple[CollectedTypes, ...] | None] = {}
        for of_group in known.values():
            for name, one in of_group.items():
                before = found.setdefault(name, one.patterns)
                if before is not None and one.patterns is not None:
                    found[name] = tuple(dict.fromkeys([*before, *one.patterns]))
        return answer_collections(request, [ResourceCollection(name, types) for name, types in found.items()])

    async def group_of(self, request: RoutedRequest, name: str) -> Group | web.Response:
        """The group that has all types of a collection, in all clusters that have them; or why an instance refuses.

        Where none has any of them, the first that knows the collection.

        Raises:
            ApiError: 400, several groups would have to be asked; 404, there is no such collection; 503.
        """
        known = await self._known(request)
        if isinstance(known, web.Response):
            return known
        own = {group: of_group[name] for group, of_group in known.items() if name in of_group}
        if not own:
            raise not_found(GROUP, COLLECTIONS, name)
        patterns = {
            group: patterns_of(request.http.query) if one.patterns is None else one.patterns
            for group, one in own.items()
        }
        wanted = _holders(await self._seen(request), {one for some in patterns.values() for one in some})
        for group, types in patterns.items():
            if all(_answers(group, types, key, holders) for key, holders in wanted.items()):
                return group
        raise ApiError(400, f"collection {name}: {self._why_not(wanted, patterns)}")

    async def _known(self, request: RoutedRequest) -> dict[Group, dict[str, ResourceCollection]] | web.Response:
        """The collections that each group has, for who asks; or what an instance says instead."""
        answers = await self._documents.of(
            list(self._groups), request.caller, request.place, _PATH, "application/json", request.forwarded
        )
        if (first := answers[0][1]).status != 200:
            return request.relayed(first)
        try:
            return {group: collections_in(said.body) for group, said in answers}
        except ValueError:
            raise ApiError(503, "an instance says nothing of collections") from None

    async def _seen(self, request: RoutedRequest) -> Sequence[tuple[Group, InstanceDocument]]:
        """What groups have, as far as who asks may know."""
        if not self._guarded:
            return [(group, group.document) for group in self._groups if group.document is not None]
        answers = await self._documents.clusters(self._groups, request.caller, request.place, request.forwarded)
        return instance_documents(answers)

    def _why_not(
        self, wanted: Mapping[GroupResource, _Holders], patterns: Mapping[Group, Sequence[CollectedTypes]]
    ) -> str:
        """What to ask instead of a collection that no group answers alone."""
        shared = [key for key, holders in wanted.items() if not _whole(holders)]
        if shared:
            return (
                f"{shared[0]} are in several logs, by cluster, which have no version in common: ask for its types one "
                "by one below /clusters/<cluster>"
            )
        by_group: dict[Group, list[GroupResource]] = {}
        for key, holders in wanted.items():
            by_group.setdefault(_whole(holders)[0], []).append(key)
        if len(by_group) == 1:
            [group] = by_group
            text = "of the instances that have its types" if self._guarded else f"of group {group.name}"
            return f"the configuration {text} has others: start all instances with the same --collections"
        some = next(iter(by_group.values()))
        way = ",".join(f"{key.group or 'core'}/{key.resource}" for key in some[:_NAMED])
        where = "" if self._guarded else f" ({', '.join(f'{_few(of)} in {one.name}' for one, of in by_group.items())})"
        return (
            f"its types are in several logs, which have no version in common{where}: ask for those of one, as "
            f"{_PATH}/any?resources={way}"
        )


def _holders(
    seen: Sequence[tuple[Group, InstanceDocument]], patterns: set[CollectedTypes]
) -> dict[GroupResource, _Holders]:
    """Of each type that patterns match: which groups have it, in which clusters. O(types * patterns)."""
    found: dict[GroupResource, _Holders] = {}
    for group, document in seen:
        for cluster in document.clusters:
            for text in cluster.types:
                found.setdefault(GroupResource.parse(text), {}).setdefault(group, set()).add(cluster.name)
    matching = sorted((key for key in found if any(one.matches(key) for one in patterns)), key=type_text)
    return {key: found[key] for key in matching}


def _whole(holders: _Holders) -> list[Group]:
    """The groups that have a type in each cluster in which any has it."""
    everywhere = set[str]().union(*holders.values())
    return [group for group, clusters in holders.items() if clusters == everywhere]


def _answers(group: Group, types: Sequence[CollectedTypes], key: GroupResource, holders: _Holders) -> bool:
    """Whether a group's collection of these has all there is of a type."""
    return group in _whole(holders) and any(one.matches(key) for one in types)


def _few(keys: Sequence[GroupResource]) -> str:
    more = len(keys) - _NAMED
    return ", ".join(map(str, keys[:_NAMED])) + (f" and {more} more" if more > 0 else "")
