"""The producer of one member cluster: ownership, discovery, health, and an informer for each type."""

from __future__ import annotations

import asyncio
import contextlib
import random
import time
from collections.abc import Awaitable, Callable
from typing import Any, NamedTuple

import msgspec
import structlog
from nats.aio.msg import Msg

from deltalog import (
    Appender,
    BrokerUnavailable,
    HistoryChanged,
    HistoryEnded,
    LogUnavailable,
    Record,
    UnreadableRecord,
)
from deltalog.handover import Taken, decode_offer, encode_answer, offer_subject
from deltalog.history import History
from deltalog.jetstream.backoff import Backoff
from deltalog.jetstream.connection import TRANSPORT_ERRORS, JetStreamRefused
from deltalog.jetstream.stream import STREAM_NOT_FOUND, Log
from deltalog.reader import read_to_end
from deltalog.wire import subjects
from deltalog.wire.kubernetes import GroupResource
from deltalog.wire.parts import payload_limit
from deltalog.wire.records import (
    ClusterRegistered,
    ControlRecord,
    DiscoveryDocument,
    HealthChanged,
    OpenApiDocument,
    StatusReport,
    TypeStatus,
    TypeSynced,
    decode_control,
)
from deltalog.wire.resource_type import ResourceType
from deltalog.wire.subjects import CONTROL, control_subject, encode_token
from producers.follow.discovery_document import Offered
from producers.follow.documents import fits
from producers.follow.normalize import Normalizer
from producers.follow.openapi_documents import Documents, OpenApi
from producers.follow.ownership import Deposed, Owner, append_control, take
from producers.follow.removal import append_removed_type
from producers.follow.type_informer import TypeInformer
from producers.members.membership import Member
from producers.metrics import ClusterReading, Counts, ProducerMetrics, TypeReading
from producers.rules.configuration import RELIST_EVERY
from producers.rules.pruning import Pruning
from producers.rules.rules import Chosen
from producers.timing import DEFAULT, Timing
from producers.upstream.apiserver import ApiServer, Refused, Unreachable
from producers.upstream.discovery import Discovered, discover, registered, streams_lists
from producers.upstream.objects import UNDECODABLE, Unusable, raw_object

log = structlog.get_logger("producers.follow.cluster_producer")

# Offers that may wait for their turn.
_OFFERS = 1024


class _Recorded:
    """What the log's control records say of the cluster; kept current with what we append."""

    def __init__(self) -> None:
        self.types: dict[GroupResource, ResourceType] = {}
        self.synced: set[GroupResource] = set()
        self.unhealthy: set[GroupResource] = set()
        self.cluster: ClusterRegistered | None = None
        self.documents = Documents()
        self.offered = Offered()

    def take_in(self, record: Record) -> None:
        try:
            fact = decode_control(record.data).fact
        except UnreadableRecord as problem:
            # As if it were not there: what it should say is recorded anew.
            log.warning("unreadable record", subject=record.subject, sequence=record.sequence, problem=str(problem))
            return
        match fact:
            case ResourceType():
                self.types[fact.group_resource] = fact
            case TypeSynced():
                self.synced.add(fact.resource)
            case ClusterRegistered():
                self.cluster = fact
            case HealthChanged(resource=GroupResource() as resource, healthy=False):
                self.unhealthy.add(resource)
            case OpenApiDocument():
                self.documents.take_in(fact)
            case DiscoveryDocument():
                self.offered.take_in(fact.document)


class Treatment(NamedTuple):
    """What is done with all objects alike. `relist_every` in seconds, 0: never."""

    pruning: Pruning = Pruning()
    relist_every: float = RELIST_EVERY


class ClusterProducer:
    """Keeps the log's view of one cluster current for as long as it owns the cluster.

    `informers` are those running now, by type; `unreachable` is why the cluster cannot be read, None if it can.
    `counts` are what became of the states it told, by type, since this process began. `holding`: it runs.
    `on_synced` is told whenever a type's complete list is in the log.
    """

    def __init__(
        self,
        name: str,
        member: Member,
        open_log: Callable[[], Awaitable[Log]],
        producer: str,
        treatment: Treatment,
        metrics: ProducerMetrics | None = None,
        timing: Timing = DEFAULT,
    ) -> None:
        self.on_synced: Callable[[ClusterProducer, TypeInformer], None] | None = None
        self.name = name
        self.informers: dict[GroupResource, TypeInformer] = {}
        self.counts: dict[str, Counts] = {}
        self.holding = False
        self.unreachable: str | None = None
        self.undiscovered: str | None = None
        self.discovered = asyncio.Event()
        self.down = asyncio.Event()
        self.member = member
        self.treatment = treatment
        self.server = ApiServer(member.access, timing)
        self.timing = timing
        self.metrics = metrics
        self._open_log = open_log
        self._producer = producer
        self._rediscover = asyncio.Event()

    async def change(self, member: Member, treatment: Treatment) -> None:
        """Goes on under another configuration; what it leaves as it was runs on."""
        before, self.member = self.member, member
        rules_differ = before.rules != member.rules or treatment != self.treatment
        self.treatment = treatment
        if before.access != member.access:
            await self.server.change(member.access)
        if rules_differ:
            self._rediscover.set()

    def reading(self) -> ClusterReading:
        """What metrics say of the cluster now."""
        types = [
            TypeReading(str(one.kind.group_resource), one.objects, one.synced.is_set(), one.last_event)
            for one in self.informers.values()
        ]
        return ClusterReading(self.name, self.holding, self.unreachable is None, types, self.counts)

    def relist(self, title: Callable[[str], bool]) -> int:
        """Compares the lists of the types that `title` names with the log now. Returns how many."""
        named = [informer for informer in self.informers.values() if title(str(informer.kind.group_resource))]
        for informer in named:
            informer.relist()
        return len(named)

    async def run(self) -> None:
        """Produces until cancelled. Raises Deposed when another producer takes the cluster over."""
        backoff = Backoff(*self.timing.log_backoff)
        owner: Owner | None = None
        prefix = said = ""
        self.discovered.clear()
        self.down.clear()
        self.holding = True
        try:
            while True:
                try:
                    owner = None
                    log_ = await self._open_log()
                    prefix = log_.prefix
                    async with Appender.to(log_) as appender:
                        owner = await take(log_, appender, self.name, self._producer)
                        said = ""
                        backoff.reset()
                        await self._own(log_, appender, owner)
                except ExceptionGroup as group:
                    if await self._is_over(group, owner, prefix):
                        raise Deposed(f"cluster {self.name} was taken over by another producer") from None
                except (LogUnavailable, HistoryEnded) as cause:
                    if said != str(cause):
                        said = str(cause)
                        log.warning("the log cannot be written", cluster=self.name, reason=said)
                await backoff.wait()
        finally:
            self.holding = False
            await self.server.close()

    async def _is_over(self, group: ExceptionGroup[Exception], owner: Owner | None, prefix: str) -> bool:
        """Whether the failures mean that somebody else owns the cluster; raises those nobody foresaw."""
        expected = (Deposed, LogUnavailable, HistoryEnded)
        _, rest = group.split(expected)
        if rest is not None:
            raise rest
        if group.subgroup(Deposed) is None:
            log.warning("starting anew", cluster=self.name, reason=_first(group))
            return False
        try:
            log_ = await self._open_log()
            last = await log_.last(control_subject(self.name, subjects.OWNER))
            if last is None or (owner is not None and last[0] < owner.sequence):
                # Not another's record came after ours, but ours is gone: the log was cut, set back or made anew.
                log.warning("the log has lost who owns the cluster", cluster=self.name)
                await History(log_).rotate(prefix)
                return False
        except LogUnavailable:
            return False
        return decode_control(last[1]).producer != self._producer

    async def _own(self, log_: Log, appender: Appender, owner: Owner) -> None:
        recorded = _Recorded()
        await read_to_end(log_, recorded.take_in, subjects=(f"{CONTROL}.{encode_token(self.name)}.>",))
        log.info("producing", cluster=self.name, epoch=owner.epoch)
        tenure = _Tenure(self, log_, appender, owner, recorded)
        # A task of its own: a group whose tasks fail while it is cancelled tells of the failures only, and one whose
        # tasks fail leaves its task marked as cancelled (both until Python 3.13).
        task = asyncio.create_task(tenure.run(), name=f"{self.name}: tenure")
        try:
            await asyncio.wait((task,))
        finally:
            if not task.done():
                task.cancel()
                await asyncio.wait((task,))
                if not task.cancelled():
                    task.exception()
            self.informers.clear()
        task.result()

    async def first_lists(self) -> None:
        """Returns when the first lists of all types are in the log, or the cluster cannot be read."""
        discovered = asyncio.ensure_future(self.discovered.wait())
        down = asyncio.ensure_future(self.down.wait())
        try:
            await asyncio.wait((discovered, down), return_when=asyncio.FIRST_COMPLETED)
            for informer in list(self.informers.values()):
                synced = asyncio.ensure_future(informer.synced.wait())
                await asyncio.wait((synced, down), return_when=asyncio.FIRST_COMPLETED)
                synced.cancel()
        finally:
            discovered.cancel()
            down.cancel()

    def changed(self, kind: ResourceType) -> None:
        """A CRD or aggregated API came, changed or went: types may have."""
        if kind.group in ("apiextensions.k8s.io", "apiregistration.k8s.io"):
            self._rediscover.set()

    def rediscover(self) -> None:
        self._rediscover.set()

    async def version(self) -> dict[str, Any]:
        body, _ = await self.server.get("/version")
        version = dict(msgspec.json.decode(body, type=dict[str, Any]))
        if not self.discovered.is_set():
            self.server.streams_lists = streams_lists(version)
        return version

    async def next_discovery(self, within: float | None = None) -> bool:
        """Returns when it is time to look at the types again, after about `within` seconds at the latest.

        None: `Timing.discover_every`. True if there is a reason to look, false if only the time has come.
        """
        asked = False
        within = self.timing.discover_every if within is None else within
        try:
            async with asyncio.timeout(within * random.uniform(0.8, 1.2)):
                await self._rediscover.wait()
                asked = True
                # A CRD's condition Established follows its creation; several come together.
                await asyncio.sleep(self.timing.discover_together)
        except TimeoutError:
            pass
        self._rediscover.clear()
        return asked

    async def why_not_ready(self) -> str | None:
        """Why the cluster cannot be followed now, None if it can."""
        try:
            async with asyncio.timeout(self.timing.probe):
                await self.server.get("/readyz")
        except Unreachable as cause:
            return str(cause)
        except TimeoutError:
            return f"{self.server.host}: no answer within {self.timing.probe:g} s"
        except Refused as refused:
            # Where /readyz is not for us, the server is there all the same.
            if refused.code == 401 or refused.code >= 500:
                return str(refused)
        return self.undiscovered

    def retry_now(self) -> None:
        """Ends pauses between attempts to read the cluster: it is ready again."""
        self._rediscover.set()
        for informer in self.informers.values():
            informer.retry_now()


class _Tenure:
    """One uninterrupted ownership: its tasks live in one group and end together."""

    tasks: asyncio.TaskGroup

    def __init__(
        self, cluster: ClusterProducer, log_: Log, appender: Appender, owner: Owner, recorded: _Recorded
    ) -> None:
        self._cluster = cluster
        self._log = log_
        self._appender = appender
        self._owner = owner
        self._recorded = recorded
        self._running: dict[GroupResource, tuple[tuple[object, ...], asyncio.Task[None]]] = {}
        self._probe_now = asyncio.Event()
        # The log's identity when what it held was first read; it may be another one by now.
        self._identity = log_.identity
        # Counts the servers that the cluster's name led to.
        self._server_number = 0
        self._openapi = OpenApi(
            cluster.server,
            owner,
            recorded.documents,
            self._append,
            limit=self._limit,
            tombstone_ttl=log_.tombstone_ttl,
            served=self._versions,
            first_lists=cluster.first_lists,
            timing=cluster.timing,
        )

    async def run(self) -> None:
        """Raises an ExceptionGroup with what ended it."""
        name = self._cluster.name
        async with asyncio.TaskGroup() as tasks:
            self.tasks = tasks
            tasks.create_task(self.probe(), name=f"{name}: probe")
            tasks.create_task(self.discover(), name=f"{name}: discovery")
            tasks.create_task(self.status(), name=f"{name}: status")
            tasks.create_task(self.moves(), name=f"{name}: moves")
            tasks.create_task(self.offers(), name=f"{name}: offers")
            tasks.create_task(self.history(), name=f"{name}: history")
            tasks.create_task(self._openapi.run(), name=f"{name}: OpenAPI")

    def _limit(self) -> int:
        """Bytes that a record may have."""
        return payload_limit(self._appender.connection.client.max_payload)

    async def _append(self, control: ControlRecord, *, ttl: int | None = None) -> int:
        return await append_control(self._appender, self._owner, control, ttl=ttl)

    # -- health ------------------------------------------------------------------------------------------------

    async def probe(self) -> None:
        """Asks the server whether it is ready, and records every change of the answer."""
        cluster = self._cluster
        said: str | None = ""
        while True:
            reason = await cluster.why_not_ready()
            cluster.unreachable = reason
            if cluster.metrics is not None:
                cluster.metrics.clock.labels(cluster.name).set(cluster.server.clock_offset)
            if reason is not None:
                cluster.down.set()
            else:
                cluster.down.clear()
            if said == "" or (reason is None) != (said is None):
                await self._append(self._owner.control(HealthChanged(healthy=reason is None, reason=reason or "")))
                if reason is not None:
                    log.warning("cluster is not ready", cluster=cluster.name, reason=reason)
                elif said:
                    log.info("cluster is back", cluster=cluster.name)
                    cluster.retry_now()
            said = reason
            self._probe_now.clear()
            try:
                async with asyncio.timeout(cluster.timing.probe_every * random.uniform(0.8, 1.2)):
                    await self._probe_now.wait()
            except TimeoutError:
                pass

    async def _synced(self, informer: TypeInformer) -> None:
        key = informer.kind.group_resource
        if self._cluster.on_synced is not None and key in self._cluster.informers:
            self._cluster.on_synced(self._cluster, informer)
        if key in self._recorded.synced and key not in self._recorded.unhealthy:
            return
        self._recorded.synced.add(key)
        self._recorded.unhealthy.discard(key)
        synced = TypeSynced(resource=key, version=informer.version, objects=informer.objects)
        await self._append(self._owner.control(synced))

    async def _trouble(self, kind: ResourceType, reason: str) -> None:
        """Records that a type cannot be read now; once, until it can."""
        key = kind.group_resource
        if (informer := self._cluster.informers.get(key)) is not None:
            informer.error = reason
            informer.error_since = informer.error_since or time.time()
        await self._unhealthy(key, reason)

    async def _unhealthy(self, key: GroupResource, reason: str) -> None:
        if key in self._recorded.unhealthy:
            return
        self._recorded.unhealthy.add(key)
        if self._cluster.unreachable is None:
            log.warning("type cannot be read", cluster=self._cluster.name, type=str(key), reason=reason)
        await self._append(self._owner.control(HealthChanged(resource=key, reason=reason)))

    async def status(self) -> None:
        """Says from time to time how each type is: also that there is a producer at all."""
        # The first one soon, as an operator who has just started it looks at what it does.
        every = self._cluster.timing.status_every
        pause = min(self._cluster.timing.first_status, every)
        while True:
            await asyncio.sleep(pause * random.uniform(0.8, 1.0))
            pause = every
            types = {key: _type_status(informer) for key, informer in self._cluster.informers.items()}
            await self._append(self._owner.control(StatusReport(types=types, every=int(every * 1000))))

    async def offers(self) -> None:
        """Takes what others know of the cluster's objects before its watches do."""
        client = self._log.connection.client
        subject = offer_subject(self._log.name, self._cluster.name)
        subscription = await client.subscribe(subject, pending_msgs_limit=_OFFERS)
        try:
            async for message in subscription.messages:
                self.tasks.create_task(self._take(message), name=f"{self._cluster.name}: offer")
        finally:
            with contextlib.suppress(*TRANSPORT_ERRORS):
                await client.unsubscribe(subscription)

    async def _take(self, message: Msg) -> None:
        try:
            offer = decode_offer(message.data)
            informer = self._cluster.informers.get(GroupResource(offer.group, offer.resource))
            if informer is None:
                raise Unusable(f"{GroupResource(offer.group, offer.resource)} is not synced")
            sequence = await (await informer.offer(raw_object(offer.object), deleted=offer.deleted))
            taken = Taken(sequence or await self._log.head())
        except (Unusable, msgspec.MsgspecError, LogUnavailable, Deposed) as cause:
            taken = Taken(refused=str(cause))
        with contextlib.suppress(*TRANSPORT_ERRORS):
            await message.respond(encode_answer(taken))

    async def moves(self) -> None:
        """Begins anew with all lists when the cluster's name leads to another server."""
        moved = self._cluster.server.moved
        while True:
            await moved.wait()
            moved.clear()
            log.warning("another server", cluster=self._cluster.name, server=self._cluster.server.host)
            self._server_number += 1
            self._cluster.rediscover()

    async def history(self) -> None:
        """Raises HistoryChanged when the log is no longer the one that was written: then it has to be read again.

        Those who serve it see what is cut out, and rename it; that it was set back is seen here, too.
        """
        log_, appender = self._log, self._appender
        while True:
            await asyncio.sleep(self._cluster.timing.look_at_history_every * random.uniform(0.8, 1.2))
            highest = max(self._owner.sequence, appender.highest.get(log_.name, 0))
            try:
                state = await log_.state()
            except BrokerUnavailable:
                # Who has to write says so.
                continue
            except JetStreamRefused as refused:
                if refused.code == STREAM_NOT_FOUND:
                    raise HistoryChanged(f"stream {log_.name} is gone") from refused
                continue
            if state.identity != self._identity:
                raise HistoryChanged(f"the history {self._identity.prefix} is over, the log is {state.prefix} now")
            if state.last_sequence < highest or log_.name in appender.set_back:
                await History(log_).rotate(self._identity.prefix)
                raise HistoryChanged(f"the log was set back: it had come to {highest}")

    # -- discovery -----------------------------------------------------------------------------------------------

    async def discover(self) -> None:
        """Looks at what types there are, starts and ends informers, again and again."""
        cluster = self._cluster
        timing = cluster.timing
        backoff = Backoff(*timing.discover_again)
        doubt = Backoff(timing.discover_doubtful, timing.discover_every, jitter=0.0)
        known, asked = None, True
        while True:
            try:
                version = await cluster.version()
                found = await self._discovered()
                wanted = cluster.member.rules.chosen(found)
            except (Unreachable, Refused, *UNDECODABLE) as cause:
                log.log(
                    20 if cluster.unreachable is None else 10,
                    "types cannot be discovered",
                    cluster=cluster.name,
                    reason=str(cause),
                )
                if cluster.undiscovered is None:
                    cluster.undiscovered = f"types cannot be discovered: {cause}"
                    self._probe_now.set()
                try:
                    async with asyncio.timeout(backoff.pause()):
                        await cluster.next_discovery()
                except TimeoutError:
                    pass
                continue
            backoff.reset()
            cluster.undiscovered = None
            if cluster.unreachable is not None:
                self._probe_now.set()
            await self._follow({one.kind.group_resource: one for one in wanted}, found)
            await self._tell(found)
            # Told by the log from here on; to hold it for each cluster would be another copy of it.
            found = msgspec.structs.replace(found, document=b"")
            registered_ = ClusterRegistered(version=version)
            if self._recorded.cluster != registered_:
                await self._append(self._owner.control(registered_))
                self._recorded.cluster = registered_
            cluster.discovered.set()
            if asked or found != known:
                self._openapi.look()
            known = found
            if found.whole:
                doubt.reset()
                asked = await cluster.next_discovery()
            else:
                asked = await cluster.next_discovery(doubt.pause())

    async def _discovered(self) -> Discovered:
        found = await discover(self._cluster.server)
        recorded = {group for group, _ in self._recorded.types} | self._recorded.offered.groups
        if absent := recorded - found.groups:
            away = absent & await registered(self._cluster.server)
            found = msgspec.structs.replace(found, doubtful=found.doubtful | away)
        return found

    async def _follow(self, wanted: dict[GroupResource, Chosen], found: Discovered) -> None:
        for key in [key for key in self._recorded.types if key not in wanted]:
            if found.doubts(*key) and self._chosen_still(key):
                await self._doubt(key)
            else:
                await self._stop(key)
                await self._remove(key)
        for key, chosen in wanted.items():
            synced = self._recorded.types.get(key, chosen.kind).version
            if synced != chosen.kind.version and (key[0], synced) in found.stale:
                # Another version would be all objects anew, and once more when this one is back.
                await self._doubt(key)
                continue
            stated = self._as_recorded(chosen)
            if self._recorded.types.get(key) != stated:
                await self._append(self._owner.control(stated))
                self._recorded.types[key] = stated
            running = self._running.get(key)
            # What other versions there are changes nothing for the one that is synced.
            kind = msgspec.structs.replace(chosen.kind, versions=())
            like = (kind, chosen.scope, self._cluster.treatment, self._server_number)
            if running is not None and running[0] != like:
                await self._stop(key)
                running = None
            if running is None:
                self._running[key] = (like, self._start(key, chosen))

    async def _tell(self, found: Discovered) -> None:
        """Records all that the cluster serves, if it is not what the log has."""
        offered = self._recorded.offered
        # Of a cluster with thousands of custom types it is megabytes.
        document = await asyncio.to_thread(offered.news, found)
        if document is None:
            return
        control = self._owner.control(DiscoveryDocument(document=document))
        if fits(control, self._limit(), control.record, said=offered.left_out(document)):
            await self._append(control)
            offered.take_in(document)
        else:
            offered.leave_out(document)

    def _as_recorded(self, chosen: Chosen) -> ResourceType:
        """A type as its record states it: with what is synced of it."""
        return msgspec.structs.replace(
            chosen.kind,
            namespaces=chosen.scope.namespaces,
            selector=chosen.scope.selector,
            pruned=self._cluster.treatment.pruning.of(chosen.kind).pointers,
            custom=False,
        )

    def _versions(self) -> set[tuple[str, str]]:
        """Groups and versions of the types that the log has."""
        types = self._recorded.types
        return {(group, version) for (group, _), record in types.items() for version in record.versions}

    def _chosen_still(self, key: GroupResource) -> bool:
        """Whether the rules still want a type that cannot be discovered now, as far as that can be told."""
        informer = self._cluster.informers.get(key)
        return informer is None or self._cluster.member.rules.choose((informer.kind,)) is not None

    async def _doubt(self, key: GroupResource) -> None:
        """A type whose API does not answer stays as it is; one that nobody follows has to be told of."""
        if key not in self._running:
            await self._unhealthy(key, "its API is registered and not served now")

    def _start(self, key: GroupResource, chosen: Chosen) -> asyncio.Task[None]:
        cluster, kind = self._cluster, chosen.kind
        informer = TypeInformer(
            cluster.server,
            self._log,
            self._appender,
            self._owner,
            kind,
            chosen.scope,
            Normalizer(cluster.name, kind, cluster.treatment.pruning),
            cluster.counts.setdefault(str(kind.group_resource), Counts()),
            on_synced=self._synced,
            on_trouble=self._trouble,
            on_change=cluster.changed,
            relist_every=cluster.treatment.relist_every,
            timing=cluster.timing,
            metrics=None if cluster.metrics is None else cluster.metrics.of(cluster.name, str(kind.group_resource)),
        )
        cluster.informers[key] = informer
        return self.tasks.create_task(informer.run(), name=f"{cluster.name}: {kind.group_resource}")

    async def _stop(self, key: GroupResource) -> None:
        running = self._running.pop(key, None)
        self._cluster.informers.pop(key, None)
        if running is not None:
            running[1].cancel()
            await asyncio.wait((running[1],))

    async def _remove(self, key: GroupResource) -> None:
        """Removes a type and its objects from the log: first the record, then what it speaks of."""
        log.info("type removed", cluster=self._cluster.name, type=str(key))
        await append_removed_type(self._log, self._appender, self._owner, key)
        self._recorded.types.pop(key, None)
        self._recorded.synced.discard(key)
        self._recorded.unhealthy.discard(key)


def _type_status(informer: TypeInformer) -> TypeStatus:
    return TypeStatus(
        objects=informer.objects,
        synced=informer.synced.is_set(),
        version=informer.version,
        listed=_milliseconds(informer.synced_at),
        event=_milliseconds(informer.last_event),
        stale=_milliseconds(informer.error_since),
        error=informer.error,
    )


def _milliseconds(seconds: float) -> int:
    return int(seconds * 1000)


def _first(group: ExceptionGroup[Exception]) -> str:
    error: Exception = group
    while isinstance(error, ExceptionGroup):
        error = error.exceptions[0]
    return str(error) or type(error).__name__
