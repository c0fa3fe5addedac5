"""The endpoints that read: GET of an object, LIST and WATCH."""

from __future__ import annotations

import asyncio
import random

import structlog
from aiohttp import web

from simulation.api import lists
from simulation.api.list_responses import ListSender
from simulation.api.options import ListOptions, parse_options
from simulation.api.paths import ResourcePath
from simulation.api.presentation import presentation_for
from simulation.api.responses import JSON, NOT_KEPT, not_acceptable, object_response, set_date
from simulation.api.watches import SimulatedWatch
from simulation.faults import Faults
from simulation.registry import Registry
from simulation.status import StatusError, invalid_list_options, too_large_resource_version, unknown_path
from simulation.storage import Collection

__all__ = ["ReadHandlers"]

log = structlog.get_logger(__name__)

# How long a watch lasts whose request does not say, in seconds: between the two, by chance, as with kube-apiserver's
# --min-request-timeout 1800.
_LIFETIME = (1800.0, 3600.0)


class ReadHandlers:
    """GET, LIST and WATCH on one cluster.

    `bookmark_interval` and `version_wait` (how long a read waits for a version that is not reached) are in seconds.
    """

    def __init__(
        self,
        registry: Registry,
        faults: Faults,
        sender: ListSender,
        *,
        bookmark_interval: float,
        version_wait: float,
        seed: int | str,
    ) -> None:
        self._registry = registry
        self._storage = registry.storage
        self._faults = faults
        self._sender = sender
        self._bookmark_interval = bookmark_interval
        self._version_wait = version_wait
        self._random = random.Random(seed)

    def get(self, request: web.BaseRequest, path: ResourcePath) -> web.StreamResponse:
        """An object.

        Raises:
            StatusError: 404, or 406 where only the form of a list is acceptable.
        """
        presentation = presentation_for(request, path)
        if presentation.form == "metadata_list":
            raise not_acceptable("PartialObjectMetadataList")
        return object_response(presentation.single(self._registry.get(path.type, path.namespace, path.name)))

    async def list(self, request: web.BaseRequest, path: ResourcePath) -> web.StreamResponse:
        """A page of a LIST.

        Raises:
            StatusError: 400, 406, 410 (the version is no longer kept), 422 or 504 (it is not reached).
        """
        options = parse_options(path.type, path.namespace, request.query, watch=False)
        presentation = presentation_for(request, path)
        if presentation.form == "metadata":
            raise not_acceptable("PartialObjectMetadata")
        wanted = options.version if options.continued is None else options.continued.rv
        await self._reach(self._collection(path), wanted or 0)
        page = lists.page(self._storage, self._collection(path), options)
        return await self._sender.send(request, presentation, page.objects, page.metadata)

    async def watch(self, request: web.BaseRequest, path: ResourcePath) -> web.StreamResponse:
        """A WATCH, until its time is up, the client has left, or a fault ends it.

        Raises:
            StatusError: 400, 406, 422, or 500 for a version that is none.
        """
        support = self._faults.initial_events
        query: dict[str, str] = dict(request.query)
        if support == "refused" and query.get("sendInitialEvents"):
            message = "Forbidden: sendInitialEvents is forbidden for watch unless the WatchList feature gate is enabled"
            raise invalid_list_options([("FieldValueForbidden", message, "sendInitialEvents")])
        options = parse_options(path.type, path.namespace, query, watch=True, name=path.name, initial_events=support)
        # A stream of initial events has no table: test/e2e/apimachinery/watchlist.go of Kubernetes.
        presentation = presentation_for(request, path, tables=not (options.initial_events and options.bookmarks))
        watch = SimulatedWatch(
            self._storage,
            self._collection(path),
            options,
            presentation,
            self._faults,
            self._bookmark_interval,
            self._lifetime(options),
        )
        try:
            if options.initial_events:
                await self._reach(self._collection(path), options.version or 0)
            watch.begin()
        except StatusError as error:
            # Behind the checks of a request every error is an event (`newErrWatcher`).
            watch.error = error
        response = web.StreamResponse(headers={"Content-Type": JSON, "Cache-Control": NOT_KEPT})
        response.enable_chunked_encoding()
        transport = request.transport
        if transport is None:
            raise ConnectionResetError("the client has left")
        self._faults.watches[key := object()] = transport
        try:
            set_date(response, self._faults.clock)
            await response.prepare(request)
            await watch.run(response.write)
            await self._faults.flowing.wait()
            await response.write_eof()
        except ConnectionError:
            # The client has left, or a fault has cut the connection.
            log.debug("watch broken", resource=path.type.qualified)
        finally:
            self._faults.watches.pop(key, None)
        return response

    def _lifetime(self, options: ListOptions) -> float:
        # As a kube-apiserver: without timeoutSeconds, or with 0, a length of its choice; a negative one ends at once.
        lifetime = float(max(options.timeout, 0)) if options.timeout else self._random.uniform(*_LIFETIME)
        shorter = self._faults.lifetime()
        return lifetime if shorter is None else min(lifetime, shorter)

    def _collection(self, path: ResourcePath) -> Collection:
        found = self._storage.collections.get(path.type.key)
        if found is None:
            # Removed while the request waited.
            raise unknown_path()
        return found

    async def _reach(self, collection: Collection, wanted: int) -> None:
        """Wait until the storage has reached a version.

        Raises:
            StatusError: 504 if it does not in time.
        """
        if self._storage.version >= wanted:
            return
        changed = asyncio.Event()
        collection.listeners.add(changed.set)
        try:
            async with asyncio.timeout(self._version_wait):
                while self._storage.version < wanted:
                    changed.clear()
                    await changed.wait()
        except TimeoutError:
            if self._storage.version < wanted:
                raise too_large_resource_version(wanted, self._storage.version) from None
        finally:
            collection.listeners.discard(changed.set)
