"""Collections: which types one has for a request, what of each may be seen, and lists and watches of it."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import NamedTuple

from aiohttp import web

from deltalog.wire.kubernetes import GroupResource
from materializer.filter import Filter
from materializer.materializer import Materializer
from materializer.visible import Visible
from query.access.authorization.attributes import Attributes, attributes_of
from query.access.authorization.denied import forbidden
from query.access.gate import LEFT_OUT, Gate, Permit
from query.discovery.catalogue import ServedType
from query.discovery.clusterpedia import COLLECTIONS, GROUP
from query.discovery.endpoints import Discovery
from query.discovery.followed import SeveralFollowed
from query.discovery.paths import RequestTarget
from query.http.accept import Form
from query.http.request import Request
from query.http.status import ApiError, not_found
from query.objects.collection_encoder import CollectionEncoder
from query.objects.consistency import Consistency
from query.objects.lists import Lists
from query.objects.options import asks_watch, parse_options
from query.objects.requests import CollectionRequest, SeenOwners, limited
from query.objects.selection import selection_of
from query.objects.versions import seen_versions_of, versions_for
from query.search.collection_list import answer_collections
from query.search.collections import CollectedTypes, ResourceCollection, patterns_of
from query.search.order import type_text
from query.search.terms import parse_search


class _Type(NamedTuple):
    """One type of a collection. `what`: what reading it is to authorizers; `version`: None for any."""

    served: ServedType
    version: str | None
    what: Attributes
    visible: Visible


class Collections:
    """Answers for collections of several types.

    - `named`: those that there are, by name. `owners`: which owners a request may see on the way to what they control.
    - `serve_watch`: sends what a watch shows.
    """

    def __init__(
        self,
        materializer: Materializer,
        gate: Gate,
        discovery: Discovery,
        consistency: Consistency,
        lists: Lists,
        named: Mapping[str, ResourceCollection],
        owners: Callable[[Request], Awaitable[SeenOwners | None]],
        serve_watch: Callable[[Request, CollectionRequest, Permit], Awaitable[web.StreamResponse]],
    ) -> None:
        self._materializer = materializer
        self._gate = gate
        self._discovery = discovery
        self._consistency = consistency
        self._lists = lists
        self._named = named
        self._owners = owners
        self._serve_watch = serve_watch

    async def answer(self, request: Request, name: str) -> web.StreamResponse:
        """The collection of a name, or a watch of it; "" for the list of all.

        Raises:
            ApiError: 400, 406, 422, what is asked for; 403, nothing of it may be seen; 404, there is none of that name;
                410, 429, 504, as lists and watches.
        """
        request.resource = f"{COLLECTIONS}.{GROUP}"
        request.watching = asks_watch(request.http.query)
        if not name:
            if request.watching:
                raise ApiError(
                    400, f"the list of {COLLECTIONS} does not change: watch one of them (its name, ?watch=1)"
                )
            return answer_collections(request, self._named.values())
        collection = self._named.get(name)
        if collection is None:
            raise not_found(GROUP, COLLECTIONS, name)
        patterns = patterns_of(request.http.query) if collection.patterns is None else collection.patterns
        types = await self._types(request, patterns)
        if not types:
            request.warnings.append("no type that discovery shows you here is of this collection")
        if types and not self._gate.open and all(one.visible.empty for one in types):
            undecided = any(one.visible.undecided for one in types)
            raise forbidden(request.who, types[0].what, LEFT_OUT if undecided else "")
        asked = await self._asked(request, name, patterns, types)
        if not request.watching:
            return await self._lists.answer(request, asked)
        with contextlib.ExitStack() as stack:
            whole = Permit(request.who, None, types[0].what, request.visible) if types else None
            for one in types:
                # Also those of which nothing may be seen yet.
                permit = stack.enter_context(self._gate.watching(request.who, None, one.what, one.visible))
                assert whole is not None
                permit.on_end = whole.end
            return await self._serve_watch(request, asked, whole or Permit(request.who, None, _NOTHING, Visible()))

    async def _types(self, request: Request, patterns: Sequence[CollectedTypes]) -> list[_Type]:
        """The types that there are of these, by what they are sorted by, with what may be seen of each."""
        query = request.http.query
        found: list[_Type] = []
        for served, version in self._matching(request, patterns):
            group, resource = served.resource
            root = ["apis", group] if group else ["api"]
            # As of a list of this type: what its selectors say counts as it does there.
            what = attributes_of("GET", [*root, version or served.versions[0], resource], query)
            visible = await self._gate.visible(request.who, what)
            if visible.undecided and LEFT_OUT not in request.warnings:
                request.warnings.append(LEFT_OUT)
            found.append(_Type(served, version, what, visible))
        return found

    def _matching(self, request: Request, patterns: Sequence[CollectedTypes]) -> list[tuple[ServedType, str | None]]:
        """The types as they are served now, and in which version each is asked for: None for several, or for any."""
        found = []
        for key, served in self._discovery.catalogue(request).types.items():
            asked = {one.version for one in patterns if one.matches(key)}
            if asked := asked & {None, *served.versions}:
                found.append((served, next(iter(asked)) if len(asked) == 1 else None))
        return sorted(found, key=lambda one: type_text(one[0].resource))

    async def _asked(
        self, request: Request, name: str, patterns: Sequence[CollectedTypes], types: Sequence[_Type]
    ) -> CollectionRequest:
        query = request.http.query
        options, search = parse_options(query, watch=request.watching), parse_search(query)
        options, search = limited(options, search)
        if search.with_remaining_count is None:
            search = dataclasses.replace(search, with_remaining_count=True)
        search = dataclasses.replace(search, order=search.order.of_types())
        representation = request.accept.objects(listing=True, streaming=request.watching)
        own_kinds = search.only_metadata and representation.form is Form.OBJECT
        if own_kinds:
            representation = dataclasses.replace(representation, form=Form.METADATA)
        request.in_yaml = representation.in_yaml
        seen = [one for one in types if not one.visible.empty]
        encoder = CollectionEncoder(
            name,
            [_described(one) for one in seen],
            representation,
            versions_for(self._materializer, request),
            include=query.get("includeObject") or "Metadata",
            own_kinds=own_kinds,
        )
        whole = CollectionRequest(
            key=GroupResource(GROUP, COLLECTIONS),
            options=options,
            member_versions=seen_versions_of(options.version, request) if options.version not in ("", "0") else None,
            search=search,
            selection=Filter(),
            encoder=encoder,
            followed=SeveralFollowed(
                lambda: {served.resource: served.versions for served, _ in self._matching(request, patterns)}
            ),
            owners=await self._owners(request) if search.sees_others else None,
        )
        parts = []
        before = len(request.warnings)
        for one in seen:
            target = RequestTarget(*_versioned(one))
            selection = selection_of(target, one.served, options, search, None, one.visible)
            selection = dataclasses.replace(selection, version=one.version)
            self._consistency.warn(request, one.served, one.version, selection.clusters)
            parts.append(dataclasses.replace(whole, key=one.served.resource, selection=selection))
        # Of types in several versions each object is there, unless one is asked for; clusters are stale once.
        request.warnings[before:] = dict.fromkeys(request.warnings[before:])
        gone = await self._gone(request, patterns, {one.served.resource for one in types}) if request.watching else ()
        return dataclasses.replace(whole, parts=tuple(parts), gone=gone)

    async def _gone(
        self, request: Request, patterns: Sequence[CollectedTypes], there: set[GroupResource]
    ) -> tuple[GroupResource, ...]:
        """Types of the collection that no cluster has any more, of which the log may have deletions."""
        store = self._materializer.store
        gone: list[GroupResource] = []
        had = {key for facts in store.clusters.values() for key in facts.types}
        for key in store.types.keys() - had - there:
            if any(one.matches(key) for one in patterns):
                what = Attributes("watch", group=key.group, resource=key.resource)
                if not (await self._gate.visible(request.who, what)).empty:
                    gone.append(key)
        return tuple(gone)


_NOTHING = Attributes("watch")


def _versioned(one: _Type) -> tuple[str, str, str]:
    return one.served.resource.group, one.version or one.served.versions[0], one.served.resource.resource


def _described(one: _Type) -> dict[str, str]:
    group, version, resource = _versioned(one)
    return {"group": group, "version": version, "kind": one.served.info.kind, "resource": resource}
