"""Fixtures of the end-to-end tests: kubebraid as its own processes, member clusters over HTTP."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import os
import shutil
import signal
import ssl
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any, Protocol, Self

import aiohttp
import pytest
import pytest_asyncio
import trustme
import yaml

from simulation import SimulatedCluster, write_kubeconfig
from tests import processes
from tests.patience import PATIENCE
from tests.ports import free_port
from tests.processes import Child

# On a busy machine a cluster may be taken for one that does not answer, until it is asked again: so long a stale one is
# waited for, in seconds.
STALE = 8.0


class Process:
    """A kubebraid command in a process group of its own, with its output in a file."""

    def __init__(self, *arguments: str, log: Path) -> None:
        self.arguments = arguments
        self.log = log
        self.process: Child | None = None

    @property
    def child(self) -> Child:
        """The process, which was started."""
        assert self.process is not None
        return self.process

    async def start(self) -> None:
        with self.log.open("ab") as output:
            self.process = await processes.start(*self.arguments, output=output)

    async def kill(self) -> None:
        """SIGKILL to the process alone; what it started has to end by itself."""
        assert self.process is not None
        self.process.kill()
        await self.process.wait()

    async def stop(self) -> int:
        """SIGTERM; its code. Fails if it does not end."""
        assert self.process is not None
        if self.process.returncode is None:
            # It may have ended by itself, and end before the second one: its code says how.
            with contextlib.suppress(ProcessLookupError):
                self.process.send_signal(signal.SIGTERM)
                # In case a test that failed has left it standing.
                self.process.send_signal(signal.SIGCONT)
            try:
                await asyncio.wait_for(self.process.wait(), PATIENCE)
            except TimeoutError:
                await self.kill()
                raise AssertionError(f"it does not end at SIGTERM: {self.output()}") from None
        assert self.process.returncode is not None
        return self.process.returncode

    def output(self) -> str:
        return self.log.read_text()


class Service(Process):
    """A process that serves the API at `url`."""

    def __init__(self, *arguments: str, log: Path, port: int | None = None) -> None:
        self.port = port or free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        if arguments[0] == "up" and not {"--nats", "--nats-port"} & set(arguments):
            # Of those that run at the same time each would take the usual port as soon as another one's is away.
            arguments = (*arguments, "--nats-port", str(free_port()))
        super().__init__(*arguments, "--listen", f"127.0.0.1:{self.port}", log=log)

    async def ready(self, patience: float = PATIENCE, *, stale: float = STALE) -> Service:
        """Returns when /readyz is 200 and no cluster is stale, or some stay so: those that are slow get a moment.

        `stale`: seconds that one may take; 0 where all stay so, as without producers.
        """
        assert self.process is not None
        loop = asyncio.get_running_loop()
        since = None
        async with asyncio.timeout(patience), aiohttp.ClientSession() as session:
            while True:
                assert self.process.returncode is None, self.output()
                with contextlib.suppress(aiohttp.ClientError):
                    async with session.get(f"{self.url}/readyz?verbose") as answer:
                        if answer.status == 200:
                            since = loop.time() if since is None else since
                            if " is stale: " not in await answer.text() or loop.time() - since >= stale:
                                return self
                await asyncio.sleep(0.05)

    async def get(self, path: str, **query: str) -> dict[str, Any]:
        """A GET that must succeed, as JSON."""
        async with aiohttp.ClientSession() as session, session.get(self.url + path, params=query) as answer:
            assert answer.status == 200, await answer.text()
            found: dict[str, Any] = await answer.json()
            return found


# Cluster, namespace and name.
ObjectKey = tuple[str, str, str]


class View:
    """What a client holds: a list, then watches from its version; each event is checked against the view."""

    def __init__(self, url: str, path: str) -> None:
        self.url = url
        self.path = path
        self.objects: dict[ObjectKey, dict[str, Any]] = {}
        self.version = ""
        self.index = 0
        self.events = 0

    @staticmethod
    def key(item: dict[str, Any]) -> ObjectKey:
        metadata = item["metadata"]
        cluster = metadata["annotations"]["shadow.clusterpedia.io/cluster-name"]
        return (cluster, metadata.get("namespace", ""), metadata["name"])

    async def list(self) -> None:
        async with aiohttp.ClientSession() as session, session.get(self.url + self.path) as answer:
            assert answer.status == 200, await answer.text()
            found = await answer.json()
        self.version = found["metadata"]["resourceVersion"]
        self.index = int(self.version.split(".")[1])
        # Items do not say what they are, unless they are custom resources; events do.
        type_meta = {"kind": found["kind"].removesuffix("List"), "apiVersion": found["apiVersion"]}
        self.objects = {self.key(item): {**type_meta, **item} for item in found["items"]}

    def take_in(self, event: dict[str, Any]) -> None:
        item = event["object"]
        assert event["type"] != "ERROR", event
        version = item["metadata"]["resourceVersion"]
        index = int(version.split(".")[1])
        assert index >= self.index, f"version {version} after index {self.index}"
        self.version, self.index = version, index
        if event["type"] == "BOOKMARK":
            return
        self.events += 1
        key = self.key(item)
        known = self.objects.get(key)
        if event["type"] == "ADDED":
            assert known is None, f"ADDED for {key}, which is known"
            self.objects[key] = item
        elif event["type"] == "MODIFIED":
            assert known is not None, f"MODIFIED for {key}, which is unknown"
            assert known["metadata"]["uid"] == item["metadata"]["uid"]
            assert known["metadata"]["resourceVersion"] != version, f"{key} twice at {version}"
            self.objects[key] = item
        else:
            assert known is not None, f"DELETED for {key}, which is unknown"
            del self.objects[key]

    async def follow(self) -> None:
        """Watches until the connection ends."""
        query = {"watch": "1", "resourceVersion": self.version, "allowWatchBookmarks": "true"}
        timeout = aiohttp.ClientTimeout(total=None)
        with contextlib.suppress(aiohttp.ClientError):
            async with (
                aiohttp.ClientSession(timeout=timeout, read_bufsize=2**22) as session,
                session.get(self.url + self.path, params=query) as answer,
            ):
                if answer.status == 429:
                    return
                assert answer.status == 200, await answer.text()
                async for line in answer.content:
                    if not line.endswith(b"\n"):
                        return
                    self.take_in(json.loads(line))

    async def follow_for_ever(self) -> None:
        while True:
            await self.follow()
            await asyncio.sleep(0.05)

    async def equals(self, service: Service) -> None:
        """Waits until the view is what a fresh list says; fails if it does not get there."""
        loop = asyncio.get_running_loop()
        limit = loop.time() + PATIENCE
        while True:
            fresh = View(service.url, self.path)
            await fresh.list()
            # What was under way when this was listed comes soon, or the list is no longer what it is to become.
            soon = loop.time() + 1.0
            while self.objects != fresh.objects and loop.time() < soon:
                await asyncio.sleep(0.05)
            if self.objects == fresh.objects or loop.time() > limit:
                break
        assert self.objects == fresh.objects


@pytest.fixture
def view() -> type[View]:
    return View


class StartProcess(Protocol):
    async def __call__(self, *arguments: str) -> Process: ...


@pytest.fixture
async def process(tmp_path: Path) -> AsyncIterator[StartProcess]:
    """Starts any kubebraid command and ends it after the test."""
    number = itertools.count()
    async with contextlib.AsyncExitStack() as stack:

        async def starter(*arguments: str) -> Process:
            one = Process(*arguments, log=tmp_path / f"{arguments[0]}-{next(number)}.process.log")
            await one.start()
            stack.push_async_callback(one.stop)
            return one

        yield starter


class Starter(Protocol):
    async def __call__(
        self, *arguments: str, command: str = "up", ready: bool = True, port: int | None = None
    ) -> Service: ...


@pytest.fixture
async def start(tmp_path: Path) -> AsyncIterator[Starter]:
    """Starts a kubebraid service (`up` unless named otherwise) and ends it after the test."""
    number = itertools.count()
    async with contextlib.AsyncExitStack() as stack:

        async def starter(*arguments: str, command: str = "up", ready: bool = True, port: int | None = None) -> Service:
            service = Service(command, *arguments, log=tmp_path / f"{command}-{next(number)}.log", port=port)
            await service.start()
            stack.push_async_callback(service.stop)
            if ready:
                await service.ready()
            return service

        yield starter


class Members:
    """Two simulated clusters in this process, and their kubeconfig."""

    def __init__(self, clusters: list[SimulatedCluster], kubeconfig: Path) -> None:
        self.clusters = clusters
        self.kubeconfig = kubeconfig

    def __getitem__(self, name: str) -> SimulatedCluster:
        return next(cluster for cluster in self.clusters if cluster.name == name)


@contextlib.asynccontextmanager
async def _members(directory: Path) -> AsyncIterator[Members]:
    clusters = [SimulatedCluster(name, seed=number, pods=60) for number, name in enumerate(("alpha", "bravo"))]
    for cluster in clusters:
        await cluster.start()
    kubeconfig = directory / "members.kubeconfig"
    write_kubeconfig(clusters, kubeconfig)
    try:
        yield Members(clusters, kubeconfig)
    finally:
        for cluster in clusters:
            await cluster.stop()


@pytest.fixture
async def members(tmp_path: Path) -> AsyncIterator[Members]:
    async with _members(tmp_path) as made:
        yield made


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def shared_members(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Members]:
    """For modules whose tests leave the clusters as they found them, or don't mind."""
    async with _members(tmp_path_factory.mktemp("members")) as made:
        yield made


@contextlib.asynccontextmanager
async def service_of(members: Members, *more: str) -> AsyncIterator[Service]:
    """An `up` with the members' clusters, ready, and with its data and its log beside their kubeconfig."""
    directory = members.kubeconfig.parent
    arguments = ("--kubeconfig", str(members.kubeconfig), "--data", str(directory / "data"))
    service = Service("up", *arguments, *more, log=directory / "up.log")
    await service.start()
    try:
        await service.ready()
        yield service
    finally:
        await service.stop()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def shared_service(shared_members: Members) -> AsyncIterator[Service]:
    """One running service for a whole module."""
    async with service_of(shared_members) as service:
        yield service


class Kubectl(Protocol):
    """Code, standard output, standard error."""

    async def __call__(
        self, *arguments: str, input: str | None = None, seconds: float | None = None
    ) -> tuple[int, str, str]: ...


@pytest.fixture
def kubectl(tmp_path: Path) -> Kubectl:
    """Runs the machine's kubectl; skips where there is none. Returns code, standard output, standard error."""
    found = shutil.which("kubectl")
    if found is None:
        pytest.skip("kubectl is not on this machine")

    async def run(*arguments: str, input: str | None = None, seconds: float | None = None) -> tuple[int, str, str]:
        environment = {**os.environ, "KUBECONFIG": str(tmp_path / "none"), "HOME": str(tmp_path)}
        process = await asyncio.create_subprocess_exec(
            found,
            *arguments,
            stdin=asyncio.subprocess.PIPE if input is not None else asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            env=environment,
        )

        def end() -> None:
            if process.returncode is None:
                process.terminate()

        if seconds is not None:
            asyncio.get_running_loop().call_later(seconds, end)
        out, err = await process.communicate(input.encode() if input is not None else None)
        assert process.returncode is not None
        return process.returncode, out.decode(), err.decode()

    return run


def below(service: Service, cluster: str | None) -> str:
    """The server to give to a client that shall see one cluster, or all."""
    return service.url if cluster is None else f"{service.url}/clusters/{cluster}"


async def objects(service: Service, cluster: str | None, path: str) -> list[dict[str, Any]]:
    return list((await service.get(f"/clusters/{cluster}{path}" if cluster else path))["items"])


class Run(Protocol):
    async def __call__(self, cluster: str | None, *arguments: str, input: str | None = None) -> str: ...


@pytest.fixture
def run(shared_service: Service, kubectl: Kubectl) -> Run:
    """kubectl that must succeed, in a scope: its standard output."""

    async def made(cluster: str | None, *arguments: str, input: str | None = None) -> str:
        code, out, err = await kubectl("--server", below(shared_service, cluster), *arguments, input=input)
        assert code == 0, (arguments, err)
        return out

    return made


class Following:
    """A kubectl that runs on, line by line."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process = process

    async def until(self, *words: str) -> list[str]:
        """The columns of the next line that has all the words; fails when none comes."""
        assert self.process.stdout is not None
        async with asyncio.timeout(PATIENCE):
            while line := (await self.process.stdout.readline()).decode():
                if all(word in line for word in words):
                    return line.split()
        raise AssertionError(f"kubectl ended before a line with {words} came")


class Follow(Protocol):
    def __call__(self, cluster: str | None, *arguments: str) -> AbstractAsyncContextManager[Following]: ...


@pytest.fixture
def following(shared_service: Service, tmp_path: Path) -> Follow:
    """kubectl that runs on, in a scope; killed at the end of the block."""
    found = shutil.which("kubectl")
    if found is None:
        pytest.skip("kubectl is not on this machine")

    @contextlib.asynccontextmanager
    async def made(cluster: str | None, *arguments: str) -> AsyncIterator[Following]:
        process = await asyncio.create_subprocess_exec(
            *(found, "--server", below(shared_service, cluster), *arguments),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            env={**os.environ, "KUBECONFIG": str(tmp_path / "none"), "HOME": str(tmp_path)},
        )
        try:
            yield Following(process)
        finally:
            if process.returncode is None:
                process.kill()
            await process.wait()

    return made


class AskMember(Protocol):
    async def __call__(self, method: str, path: str, body: Any = None, *, patch: bool = False) -> dict[str, Any]: ...


@pytest.fixture
def member(shared_members: Members) -> AskMember:
    """Requests to the member cluster alpha itself."""

    async def ask(method: str, path: str, body: Any = None, *, patch: bool = False) -> dict[str, Any]:
        headers = {"Content-Type": "application/merge-patch+json"} if patch else {}
        async with (
            aiohttp.ClientSession() as session,
            session.request(method, shared_members["alpha"].url + path, json=body, headers=headers) as answer,
        ):
            assert answer.status < 300, await answer.text()
            return dict(await answer.json())

    return ask


def comparable(item: dict[str, Any]) -> dict[str, Any]:
    """An object without what kubebraid is to change: version, managedFields, the cluster's annotation."""
    item = dict(item)
    item["metadata"] = metadata = dict(item["metadata"])
    for key in ("resourceVersion", "managedFields", "selfLink"):
        metadata.pop(key, None)
    annotations = dict(metadata.pop("annotations", None) or {})
    annotations.pop("shadow.clusterpedia.io/cluster-name", None)
    if annotations:
        metadata["annotations"] = annotations
    item.pop("kind", None)
    item.pop("apiVersion", None)
    return item


class NotServed(Exception):
    """What is to be compared is not there yet."""


async def synced_types(service: str, cluster: str) -> set[str]:
    """A cluster's types that are read here; below the cluster discovery has others, too. Raises NotServed."""
    async with aiohttp.ClientSession() as session, session.get(f"{service}/clusters") as answer:
        if answer.status != 200:
            raise NotServed(f"{service}/clusters: {await answer.text()}")
        told = {one["name"]: one for one in (await answer.json())["clusters"]}
        if cluster not in told:
            raise NotServed(f"{service}/clusters: no {cluster}")
        return set(told[cluster]["types"])


def title_of(path: str) -> str:
    """What `/clusters` calls the type at a path: `deployments.apps`."""
    root, *rest = path.strip("/").split("/")
    return rest[-1] if root == "api" else f"{rest[-1]}.{rest[0]}"


class Comparison:
    """Compares what kubebraid serves of a cluster with what the cluster itself serves."""

    comparable = staticmethod(comparable)

    async def types(self, base: str) -> list[str]:
        """Paths of the types that `base` lists and watches."""
        paths = []
        async with aiohttp.ClientSession() as session:

            async def get(path: str) -> dict[str, Any]:
                async with session.get(base + path) as answer:
                    if answer.status != 200:
                        raise NotServed(f"{base}{path}: {await answer.text()}")
                    return dict(await answer.json(content_type=None))

            roots = ["/api/v1"]
            for group in (await get("/apis"))["groups"]:
                roots.append(f"/apis/{group['preferredVersion']['groupVersion']}")
            for root in roots:
                for resource in (await get(root))["resources"]:
                    if "/" not in resource["name"] and {"list", "watch"} <= set(resource["verbs"]):
                        paths.append(f"{root}/{resource['name']}")
        return paths

    async def items(self, url: str) -> tuple[dict[tuple[str, str], dict[str, Any]], dict[tuple[str, str], str]]:
        """Objects by key, comparable, and their versions. Raises NotServed."""
        objects, versions = {}, {}
        async with aiohttp.ClientSession() as session, session.get(url) as answer:
            if answer.status == 429:
                # The log has become another one, and is being read.
                raise NotServed(f"{url}: {await answer.text()}")
            assert answer.status == 200, (url, await answer.text())
            for item in (await answer.json(content_type=None))["items"] or []:
                metadata = item["metadata"]
                key = (metadata.get("namespace", ""), metadata["name"])
                assert key not in objects, f"{key} twice in {url}"
                objects[key] = comparable(item)
                versions[key] = metadata["resourceVersion"]
        return objects, versions

    async def differing(
        self, service: str, cluster: str, url: str, first: str = ""
    ) -> AsyncGenerator[tuple[str, str], None]:
        """Where the service's view of a cluster differs from the cluster's own, and how; the path `first` at first."""
        try:
            paths = await self.types(f"{service}/clusters/{cluster}")
            synced = await synced_types(service, cluster)
        except NotServed as problem:
            yield "", str(problem)
            return
        for path in sorted(paths, key=lambda one: one != first):
            if title_of(path) not in synced:
                continue
            theirs, their_versions = await self.items(url + path)
            ours, our_versions = await self.items(f"{service}/clusters/{cluster}{path}")
            for key in theirs.keys() ^ ours.keys():
                yield path, f"{path} {key} only in {'cluster' if key in theirs else 'kubebraid'}"
            for key in theirs.keys() & ours.keys():
                if our_versions[key].split(".", 2)[2] != their_versions[key]:
                    yield path, f"{path} {key} is at {our_versions[key]}, not {their_versions[key]}"
                elif ours[key] != theirs[key]:
                    yield path, f"{path} {key} has another content"

    async def differences(self, service: str, cluster: str, url: str) -> list[str]:
        """All that differs between the service's view of a cluster and the cluster's own. Raises NotServed."""
        return [one async for _, one in self.differing(service, cluster, url)]

    async def _any_difference(
        self, service: str, clusters: list[SimulatedCluster], first: tuple[str, str]
    ) -> tuple[str, str] | None:
        """Cluster and path of any difference, None if nothing differs; `first` is looked at first. Raises NotServed."""
        name, path = first
        for cluster in sorted(clusters, key=lambda one: one.name != name):
            async with contextlib.aclosing(self.differing(service, cluster.name, cluster.url, path)) as differing:
                async for where, _ in differing:
                    return cluster.name, where
        return None

    async def settle(self, service: str, clusters: list[SimulatedCluster], patience: float = PATIENCE) -> None:
        """Returns when nothing differs; fails with the differences after `patience` seconds."""
        loop = asyncio.get_running_loop()
        limit = loop.time() + patience
        differs: tuple[str, str] | None = ("", "")
        while differs is not None and loop.time() < limit:
            # One difference is enough to ask again, and where it was the next one is found soonest.
            with contextlib.suppress(NotServed):
                differs = await self._any_difference(service, clusters, differs)
            if differs is not None:
                await asyncio.sleep(0.2)
        if differs is None:
            return
        try:
            told = [
                f"{one.name}: {what}" for one in clusters for what in await self.differences(service, one.name, one.url)
            ]
        except NotServed as problem:
            told = [str(problem)]
        assert not told, "\n".join(told[:20])


@pytest.fixture
def compare() -> Comparison:
    return Comparison()


class TlsFront:
    """TLS before a plain HTTP server; asks for a client certificate of `authority`, if given."""

    def __init__(self, target_port: int, certificate: trustme.LeafCert, authority: trustme.CA | None) -> None:
        self._target = target_port
        self._context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        certificate.configure_cert(self._context)
        if authority is not None:
            authority.configure_trust(self._context)
            self._context.verify_mode = ssl.CERT_REQUIRED
        self._tasks: set[asyncio.Task[Any]] = set()
        self.port = 0

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0, ssl=self._context)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        try:
            up_reader, up_writer = await asyncio.open_connection("127.0.0.1", self._target)
            await asyncio.gather(self._pump(reader, up_writer), self._pump(up_reader, writer))
        finally:
            self._tasks.discard(task)

    @staticmethod
    async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError, asyncio.CancelledError, ssl.SSLError):
            while data := await reader.read(65536):
                writer.write(data)
                await writer.drain()
        writer.close()


def write_secured(path: Path, server: str, authority: Path, user: dict[str, Any]) -> Path:
    document = {
        "apiVersion": "v1",
        "kind": "Config",
        # Relative, as kubeconfigs may have it.
        "clusters": [{"name": "secured", "cluster": {"server": server, "certificate-authority": authority.name}}],
        "users": [{"name": "reader", "user": user}],
        "contexts": [{"name": "secured", "context": {"cluster": "secured", "user": "reader"}}],
        "current-context": "secured",
    }
    path.write_text(yaml.safe_dump(document))
    return path


@pytest.fixture
def tls_front() -> type[TlsFront]:
    return TlsFront


WriteKubeconfig = Callable[[Path, str, Path, dict[str, Any]], Path]


@pytest.fixture
def kubeconfig() -> WriteKubeconfig:
    """Writes the kubeconfig of one cluster `secured`: path, server, file of the authority, and the user."""
    return write_secured
