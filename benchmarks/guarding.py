"""Guarding: reads of 100 clusters by users whom each cluster's RBAC shows all or a half, against reads without it.

One process serves one store at several ports: http and https, with authorization and without. What is compared has the
same TLS and is asked in turn. Then watches of the user who sees a half, while one binding changes.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import ssl
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from hashlib import sha256
from multiprocessing.connection import Connection as Pipe
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple, cast

import msgspec
from cryptography import x509
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from benchmarks import rig, roles
from benchmarks.client import TABLE, Answer, Client
from benchmarks.content import PODS, delta_of, message, normalized_pods
from benchmarks.report import Report, median, percentile
from deltalog import ADDED, Appender, AppendError, Delta, connect, open_log
from deltalog.jetstream.stream import Log
from deltalog.wire.records import ClusterRegistered, Fact, HealthChanged, TypeSynced
from kubebraid.command.doors import Doors
from kubebraid.command.entrance import made_entrance
from kubebraid.command.listening import bind, served_at
from kubebraid.command.own_authority import OwnAuthority
from kubebraid.command.reviews import ReviewServers
from kubebraid.command.settings import Address
from materializer.materializer import Materializer
from materializer.versions import list_version
from producers.follow.normalize import Normalized, Normalizer
from producers.follow.ownership import Owner, append_control, take
from query.access.authorization.rbac import TYPES
from query.identity import MASTERS
from query.service import QueryService

_CLUSTERS = 100
_NAMESPACES = 200
_PATH = "/api/v1/pods"
_PAGE = 500
# Of what takes a millisecond, so many in a row are one measurement.
_IN_A_ROW = 100
# Seconds between two looks at whether the server answers, before, while and after a binding changes.
_LOOK_EVERY = 0.002
_PATIENCE = 30.0
# Users by their names; nobody is the one of servers that ask for none. The groups are what they show.
_NOBODY, _MASTER, _ADMIN, _HALF = "nobody", "master", "admin", "half"
# Nobody, who asks for the namespaces that the last one may see.
_SAME = "nobody, half"
_USERS = {_MASTER: MASTERS, _ADMIN: "admins", _HALF: "halves"}
_HTTP, _HTTPS, _ASKING = "http, token", "https, token", "https, certificate"


class _Form(NamedTuple):
    title: str
    accept: str = "application/json"
    encoding: str = "identity"
    limit: int = 0
    one: bool = False
    single: bool = False


_LIST = _Form("JSON")
# Over all clusters, so that what comes before the objects is the same as of all, and little comes behind it.
_LIST_OF_ONE = _Form("LIST of one", one=True)
_FORMS = (
    _LIST,
    _Form("Table", TABLE),
    _Form("gzip", encoding="gzip"),
    _Form(f"a page of {_PAGE}", limit=_PAGE),
    _LIST_OF_ONE,
    _Form("GET of one", single=True),
)
# Those that show all that may be seen.
_WHOLE = frozenset(one.title for one in _FORMS if not (one.limit or one.one or one.single))


class _World(NamedTuple):
    """What the log was filled with: pods, of them those in the half that may be seen, and one of these."""

    pods: int
    shown: int
    namespace: str
    name: str
    single: str
    owners: dict[str, Owner]


# -- what is served ----------------------------------------------------------------------------------------------------


def _namespace(number: int) -> str:
    return f"team-{number % _NAMESPACES}"


def _moved(pod: Normalized, namespace: str) -> Normalized:
    """A pod as it would be in another namespace."""
    before, after = (b'"namespace":"%b"' % one.encode() for one in (pod.namespace, namespace))
    return msgspec.structs.replace(
        pod,
        namespace=namespace,
        object=pod.object.replace(before, after, 1),
        metadata_end=pod.metadata_end + len(after) - len(before),
    )


def _delta_of_rule(owner: Owner, rule: roles.Rule, version: int) -> Delta:
    info = roles.type_of(rule.resource)
    metadata = {
        "name": rule.name,
        "namespace": rule.namespace,
        "uid": f"{owner.cluster}-{rule.resource}-{rule.namespace}-{rule.name}",
        "resourceVersion": str(version),
        "creationTimestamp": "2026-01-01T00:00:00Z",
    }
    found = Normalizer(owner.cluster, info)(msgspec.json.encode({"metadata": metadata, **rule.content}))
    return delta_of(ADDED, owner, found, 0, info)


def _rules(number: int) -> Iterator[roles.Rule]:
    """What a cluster's RBAC has: all pods for one group, those in every other namespace for another."""
    yield from roles.usual(number)
    yield roles.Rule("clusterrolebindings", "", "admins", roles.bound("view", _USERS[_ADMIN], "Group"))
    for one in range(0, _NAMESPACES, 2):
        yield roles.Rule("rolebindings", _namespace(one), "halves", roles.bound("view", _USERS[_HALF], "Group"))


def _acknowledged(_: int, error: AppendError | None) -> None:
    if error is not None:
        raise error


async def _fill(log: Log, pods: int) -> _World:
    """Brings clusters with pods and RBAC into the log. Raises AppendError."""
    owners, one, shown, each = {}, ("", "", ""), 0, -(-pods // _CLUSTERS)
    async with Appender(log.connection) as appender:
        for number in range(_CLUSTERS):
            name = f"bench-{number:03}"
            owner = owners[name] = await take(log, appender, name, "benchmark")
            version = {"major": "1", "minor": "36", "gitVersion": "v1.36.0"}
            types = [PODS, *(roles.type_of(key.resource) for key in TYPES)]
            facts: list[Fact] = [ClusterRegistered(version=version), HealthChanged(healthy=True), *types]
            for fact in facts:
                await append_control(appender, owner, owner.control(fact))
            for at, rule in enumerate(_rules(number)):
                subject, payload, headers = message(owner, _delta_of_rule(owner, rule, at + 1))
                await appender.append(subject, payload, _acknowledged, headers)
            for at, content in enumerate(normalized_pods(name, each)):
                pod = _moved(content, _namespace(at))
                subject, payload, headers = message(owner, delta_of(ADDED, owner, pod, 0))
                await appender.append(subject, payload, _acknowledged, headers)
                if at % _NAMESPACES % 2 == 0:
                    shown += 1
                    path = f"/clusters/{name}/api/v1/namespaces/{pod.namespace}/pods/{pod.name}"
                    one = (pod.namespace, pod.name, path)
            await appender.drain()
            for info in types:
                await append_control(
                    appender, owner, owner.control(TypeSynced(resource=info.group_resource, version="1"))
                )
    return _World(each * _CLUSTERS, shown, *one, owners)


def _credentials(directory: Path) -> OwnAuthority:
    """Makes certificates and a file of tokens, which are the users' names."""
    own = OwnAuthority(directory, Address("127.0.0.1", 0, secure=True))
    lines = []
    for user, group in _USERS.items():
        lines.append(f"sha256:{sha256(user.encode()).hexdigest()},{user},,{group}\n")
        parts = ((NameOID.ORGANIZATION_NAME, group), (NameOID.COMMON_NAME, user))
        subject = x509.Name([x509.NameAttribute(key, text) for key, text in parts])
        own._issue(directory / f"{user}.pem", subject, ExtendedKeyUsageOID.CLIENT_AUTH, datetime.now(UTC), ())
    (directory / "tokens").write_text("".join(lines))
    return own


async def _serve(pipe: Pipe, url: str, doors: dict[tuple[str, bool], Doors]) -> None:
    """Serves the log by each of these doors; sends the ports."""
    connection = await connect(url, name="kubebraid-bench")
    materializer = Materializer(await open_log(connection))
    ports = {}
    async with contextlib.AsyncExitStack() as stack, asyncio.TaskGroup() as parts:
        running = [parts.create_task(materializer.run())]
        reviews = ReviewServers(None)
        for key, one in doors.items():
            entered = await stack.enter_async_context(made_entrance(one, materializer, reviews))
            running += [asyncio.ensure_future(part()) for part in entered.parts]
            service = QueryService(materializer, "bench", entrance=entered.entrance)
            bound = bind(Address("127.0.0.1", 0))
            served = await stack.enter_async_context(served_at(service.application(), bound, service.close, one))
            ports[key] = served.address.port
        await materializer.ready.wait()
        pipe.send(ports)
        await rig.until_closed(pipe)
        for task in running:
            task.cancel()
    await connection.close()


# -- reads -------------------------------------------------------------------------------------------------------------


class _Measured:
    """Of each round: seconds, and those of the server's processor, for one request."""

    def __init__(self) -> None:
        self.seconds: list[float] = []
        self.cpu: list[float] = []
        self.size = 0


_Key = tuple[str, str, str]


def _path(world: _World, form: _Form, user: str) -> str:
    if form.single:
        return world.single
    if form.one:
        return f"{_PATH}?namespaces={world.namespace}&names={world.name}"
    # The search leaves out what is empty.
    namespaces = ",".join(map(_namespace, range(0, _NAMESPACES, 2))) if user == _SAME else ""
    return f"{_PATH}?limit={form.limit}&namespaces={namespaces}"


def _measure(
    server: rig.Process, clients: dict[tuple[str, str], Client], world: _World, rounds: int
) -> dict[_Key, _Measured]:
    """By way, form and user. Those that are compared are asked one after the other; the first round warms up."""
    found: dict[_Key, _Measured] = {}
    users = (_NOBODY, *_USERS, _SAME)
    for number, way, form in itertools.product(range(rounds + 1), (_HTTP, _HTTPS, _ASKING), _FORMS):
        # Each is first as often as last.
        turn = number % len(users)
        for user in users[turn:] + users[:turn]:
            if user == _SAME and (form.one or form.single):
                continue
            client, path = clients[way, _NOBODY if user == _SAME else user], _path(world, form, user)
            times = 1 if form.title in _WHOLE else _IN_A_ROW
            cpu, seconds, answer = rig.cpu_seconds(server.pid), 0.0, Answer(0, 0, 0.0, b"")
            for _ in range(times):
                answer = client.get(path, form.accept, encoding=form.encoding)
                if answer.status != 200:
                    raise RuntimeError(f"{user} by {way}: {path}: {answer.status} {answer.body!r}")
                seconds += answer.seconds
            measured = found.setdefault((way, form.title, user), _Measured())
            measured.size = answer.size
            if number:
                measured.seconds.append(seconds / times)
                measured.cpu.append((rig.cpu_seconds(server.pid) - cpu) / times)
    return found


def _compared(one: _Measured, other: _Measured, part: float = 1.0) -> tuple[float, float]:
    """The median of the rounds' ratios of time, and the ratio of the least processor time: what else runs on the
    machine only adds to that. `part`: how much of the other's work it is.
    """
    time_ratio = median([mine / others for mine, others in zip(one.seconds, other.seconds, strict=True)])
    return time_ratio / part, min(one.cpu) / min(other.cpu) / part


# -- watches -----------------------------------------------------------------------------------------------------------


class _Watch(asyncio.Protocol):
    """A watch of which is noted when it began and ended."""

    def __init__(self, request: bytes) -> None:
        self.began: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.ended: asyncio.Future[float] = asyncio.get_running_loop().create_future()
        self._request = request
        self._tail = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        cast(asyncio.Transport, transport).write(self._request)

    def data_received(self, data: bytes) -> None:
        self._tail = (self._tail + data)[-4096:]
        if not self.began.done():
            if b" 200 " in data.split(b"\r\n", 1)[0]:
                self.began.set_result(None)
            else:
                self.began.set_exception(RuntimeError(f"a watch was refused: {data[:300]!r}"))
        if b'"code":410' in self._tail and not self.ended.done():
            self.ended.set_result(time.monotonic())


async def _watch(pipe: Pipe, port: int, user: str, version: str, count: int, authority: Path) -> None:
    """Opens watches, one connection each, and sends None; is told for how long to wait; sends when which ended."""
    head = f"GET {_PATH}?watch=1&resourceVersion={version} HTTP/1.1"
    request = f"{head}\r\nHost: 127.0.0.1:{port}\r\nAuthorization: Bearer {user}\r\n\r\n".encode()
    context, loop = ssl.create_default_context(cafile=authority), asyncio.get_running_loop()
    watches = [_Watch(request) for _ in range(count)]
    for one in watches:
        await loop.create_connection(lambda one=one: one, "127.0.0.1", port, ssl=context)  # type: ignore[misc]
    await asyncio.gather(*(one.began for one in watches))
    pipe.send(None)
    patience = await asyncio.to_thread(pipe.recv)
    await asyncio.wait([one.ended for one in watches], timeout=patience)
    pipe.send([one.ended.result() for one in watches if one.ended.done()])
    await rig.until_closed(pipe)


class _Looks:
    """How long others wait, asking for little, one question after the other."""

    def __init__(self) -> None:
        self.waits: list[float] = []

    def _look(self, port: int, over: asyncio.Event) -> None:
        with Client(port) as client:
            while not over.is_set():
                self.waits.append(client.get("/livez").seconds)
                time.sleep(_LOOK_EVERY)

    @contextlib.asynccontextmanager
    async def going_on(self, port: int) -> Any:
        """Looks while the block lasts."""
        over = asyncio.Event()
        looking = asyncio.create_task(asyncio.to_thread(self._look, port, over))
        try:
            yield
        finally:
            over.set()
            await looking


async def _change_binding(log: Log, world: _World) -> float:
    """Takes one namespace of one cluster from the user who sees a half; the time at which the log had that."""
    owner = next(iter(world.owners.values()))
    rule = roles.Rule("rolebindings", _namespace(0), "halves", roles.bound("view", "others", "Group"))
    async with Appender(log.connection) as appender:
        subject, payload, headers = message(owner, _delta_of_rule(owner, rule, 1_000_000))
        await appender.append_wait(subject, payload, headers)
    return time.monotonic()


def _context(own: OwnAuthority, user: str = "") -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=own.authority)
    if user:
        context.load_cert_chain(own.directory.parent / f"{user}.pem")
    return context


def _clients(stack: contextlib.ExitStack, own: OwnAuthority, ports: dict[tuple[str, bool], int]) -> dict[Any, Client]:
    """By way and user, each a connection of its own."""
    found = {}
    for way, user in itertools.product((_HTTP, _HTTPS, _ASKING), (_NOBODY, *_USERS)):
        known = user != _NOBODY
        tls = None if way == _HTTP else _context(own, user if known and way == _ASKING else "")
        headers = {"Authorization": f"Bearer {user}"} if known and way != _ASKING else {}
        found[way, user] = stack.enter_context(Client(ports[way, known], tls=tls, headers=headers))
    return found


def _report_reads(report: Report, world: _World, found: dict[_Key, _Measured]) -> None:
    share = world.shown / world.pods
    for (way, form, user), one in found.items():
        figures = (one.size / 1e6, median(one.seconds) * 1e3, min(one.cpu) * 1e3)
        # What shows half of a list has to take half of the time.
        part = share if user in (_HALF, _SAME) and form in _WHOLE else 1.0
        compared = (None, None) if user == _NOBODY else _compared(one, found[way, form, _NOBODY], part)
        report.row(f"{form}, {user}, {way}", *figures, *compared)
    report.notes.append(
        f"who sees a half is shown {world.shown:,} of {world.pods:,} pods; whole lists are compared with that share"
    )
    for way in (_HTTP, _HTTPS, _ASKING):
        key = way.replace(", ", "-")

        def least(form: _Form, user: str, way: str = way) -> float:
            return min(found[way, form.title, user].cpu)

        for user in _USERS:
            # Of long lists the machine's noise is more than what is looked for.
            added = max(least(_LIST_OF_ONE, user) - least(_LIST_OF_ONE, _NOBODY), 0.0)
            whole = least(_LIST, _SAME if user == _HALF else _NOBODY)
            ratio = whole / (whole + added)
            report.ratio(f"{user}-{key}", ratio, "of the speed without, by what is added to a list of one", 0.95)
        raw = share * least(_LIST, _NOBODY) / least(_LIST, _HALF)
        report.ratio(f"share-{key}", raw, "of the lists without for each CPU second, of half of their pods")


async def _report_watches(
    report: Report, log: Log, world: _World, ports: dict[tuple[str, bool], int], watchers: int, own: OwnAuthority
) -> None:
    opening, still, changing = _Looks(), _Looks(), _Looks()
    version = list_version(log.prefix, await log.head())
    quiet, port = ports[_HTTP, False], ports[_HTTPS, True]
    async with contextlib.AsyncExitStack() as stack:
        groups = {}
        async with opening.going_on(quiet):
            for user in (_HALF, _ADMIN):
                groups[user] = await stack.enter_async_context(
                    rig.process(_watch, port, user, version, watchers, own.authority)
                )
                await groups[user].receive()
        async with still.going_on(quiet):
            await asyncio.sleep(1.0)
        async with changing.going_on(quiet):
            changed = await _change_binding(log, world)
            groups[_HALF].send(_PATIENCE)
            ended = await groups[_HALF].receive()
            await asyncio.sleep(0.5)
        groups[_ADMIN].send(0.1)
        others = await groups[_ADMIN].receive()
    if len(ended) != watchers:
        report.failures.append(f"{watchers - len(ended)} watches of who sees less go on")
    if others:
        report.failures.append(f"{len(others)} watches of who sees the same have ended")
    after = sorted((one - changed) * 1e3 for one in ended)
    report.notes.append(
        f"a binding changes under {watchers:,} watches of who sees a half and {watchers:,} of the admin: the former "
        f"end {percentile(after, 0.0):.0f} to {percentile(after, 1.0):.0f} ms later, the others go on"
    )
    waits = [
        f"{what} {median(one.waits) * 1e3:.1f} ms (median), {max(one.waits) * 1e3:.0f} ms (slowest)"
        for what, one in (("while they are opened", opening), ("before", still), ("while that happens", changing))
    ]
    report.notes.append(f"/livez, every {_LOOK_EVERY * 1e3:.0f} ms: {', '.join(waits)}")


async def run(*, pods: int, watchers: int, rounds: int) -> Report:
    report = Report(
        "guard",
        f"reads of {pods:,} pods in {_CLUSTERS} clusters of {_NAMESPACES} namespaces, {rounds} rounds in turn",
        ("request", "MB", "median ms", "min CPU ms", "time of nobody's", "CPU of nobody's"),
    )
    async with contextlib.AsyncExitStack() as stack:
        directory = Path(stack.enter_context(TemporaryDirectory(prefix="kubebraid-bench-")))
        own = _credentials(directory)
        broker = await stack.enter_async_context(rig.broker())
        log = await open_log(await stack.enter_async_context(rig.connection(broker.url)))
        world = await _fill(log, pods)
        tls, tokens, bundles = own.server, directory / "tokens", (own.authority,)
        doors = {
            (_HTTP, False): Doors(),
            (_HTTP, True): Doors(tokens=tokens),
            (_HTTPS, False): Doors(certificate=tls),
            (_HTTPS, True): Doors(certificate=tls, tokens=tokens),
            # What asks for certificates has another TLS, and says who asks; here everyone may see everything.
            (_ASKING, False): Doors(
                certificate=tls, client_authorities=bundles, anonymous=True, authorizers=("AlwaysAllow",)
            ),
            (_ASKING, True): Doors(certificate=tls, client_authorities=bundles),
        }
        server = await stack.enter_async_context(rig.process(_serve, broker.url, doors))
        ports = await server.receive()
        with contextlib.ExitStack() as connections:
            clients = _clients(connections, own, ports)
            found = await asyncio.to_thread(_measure, server, clients, world, rounds)
        _report_reads(report, world, found)
        await _report_watches(report, log, world, ports, watchers, own)
    return report
