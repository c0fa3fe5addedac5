"""A member cluster's API server: as whom it is asked, over which connection, and what becomes of what breaks off."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import itertools
import json
import stat
import threading
import tracemalloc
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from pathlib import Path

import pytest
import trustme
from structlog.testing import capture_logs

from producers.credentials.files import read_file
from producers.kubeconfig.entries import Cluster, Exec, Impersonation, User
from producers.kubeconfig.model import ClusterAccess
from producers.timing import ProducerTiming
from producers.upstream.apiserver import ApiServer, RequestRefused, TooLarge, Unreachable
from producers.upstream.watching import Target, Watch, version_of
from tests.patience import PATIENCE, eventually, eventually_awaited
from tests.producers.upstream.servers import Authority, Http2Stream, Server, Stream

Open = Callable[..., ApiServer]


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path)


@pytest.fixture
async def opened() -> AsyncIterator[Open]:
    made: list[ApiServer] = []

    def opening(access: ClusterAccess, timing: ProducerTiming | None = None) -> ApiServer:
        made.append(ApiServer(access, timing or ProducerTiming()))
        return made[-1]

    yield opening
    for server in made:
        await server.close()


def access_to(server: Server, authority: Authority, user: User | None = None) -> ClusterAccess:
    cluster = Cluster(server.url, authority_data=authority.pem)
    return ClusterAccess("alpha", cluster, user or User(token="right"), where="context alpha")


async def version(stream: Stream) -> None:
    await stream.answer(b'{"major":"1"}', headers=[("content-type", "application/json")])


# -- as whom -------------------------------------------------------------------------------------------------------


async def test_who_asks(authority: Authority, opened: Open) -> None:
    async with Server(version, authority.server()).running() as running:
        acts = User(token="right", impersonation=Impersonation("jane", groups=("a", "b")))
        server = opened(access_to(running, authority, acts))
        assert await server.get("/version", {"a": "b c"}) == (b'{"major":"1"}', "application/json")
        assert server.host == running.url
    asked = running.asked[0]
    assert asked.path == "/version?a=b+c"
    assert asked.header("authorization") == ["Bearer right"]
    assert asked.header("impersonate-group") == ["a", "b"]
    assert asked.header("user-agent")[0].startswith("kubebraid")


async def test_what_the_url_says_counts_before_a_token(authority: Authority, opened: Open) -> None:
    async with Server(version, authority.server()).running() as running:
        access = access_to(running, authority)
        url = running.url.replace("https://", "https://u:SECRET@")
        server = opened(replace(access, cluster=replace(access.cluster, server=url)))
        await server.get("/version")
        assert "SECRET" not in server.host
    assert running.asked[0].header("authorization") == ["Basic dTpTRUNSRVQ="]


async def test_over_plain_http_nothing_is_shown_and_a_line_says_so(authority: Authority, opened: Open) -> None:
    async with Server(version).running() as running:
        acts = User(token="SECRET", impersonation=Impersonation("jane"))
        for url in (running.url, running.url.removeprefix("http://")):
            with capture_logs() as lines:
                server = opened(ClusterAccess("alpha", Cluster(url), acts))
            assert [line["event"] for line in lines] == ["no credentials are sent"]
            assert "SECRET" not in str(lines)
            await server.get("/version")
        with capture_logs() as lines:
            await opened(ClusterAccess("alpha", Cluster(running.url))).get("/version")
        assert lines == []
    assert [asked.header("authorization") for asked in running.asked] == [[], [], []]
    assert running.asked[0].header("impersonate-user") == ["jane"]


@pytest.mark.parametrize(
    ("server", "reason"),
    [
        ("https://a..b.example.test", "resolve"),
        (f"https://{'a' * 70}.example.test", "resolve"),
        ("https://u:SECRET@h:x", "no port"),
        ("ftp://h", "scheme"),
        ("10.0.0.1:6443/path", "path"),
        ("", "no server"),
    ],
)
async def test_a_server_that_is_none_is_that_clusters_problem(opened: Open, server: str, reason: str) -> None:
    access = ClusterAccess("alpha", Cluster(server), User(token="t"))
    with pytest.raises(Unreachable, match=reason) as failed:
        await opened(access).get("/version")
    assert "SECRET" not in str(failed.value)


async def test_a_problem_of_the_kubeconfig_is_said_at_each_request(opened: Open) -> None:
    server = opened(ClusterAccess("alpha", problem="context alpha: no such user"))
    for _ in range(2):
        with pytest.raises(Unreachable, match="no such user"):
            await server.get("/version")
    assert server.host == ""


@pytest.mark.processes
async def test_a_refused_token_is_renewed(authority: Authority, opened: Open, tmp_path: Path) -> None:
    """A plugin is asked again after a 401; the request that got it is not repeated."""
    count = tmp_path / "count"
    plugin = tmp_path / "plugin"
    plugin.write_text(
        f"#!/bin/sh\necho x >> {count}\n"
        'echo \'{"apiVersion":"client.authentication.k8s.io/v1","kind":"ExecCredential",'
        f'"status":{{"token":"token-\'$(wc -l < {count} | tr -d " ")\'"}}}}\'\n'
    )
    plugin.chmod(plugin.stat().st_mode | stat.S_IXUSR)

    async def handler(stream: Stream) -> None:
        good = stream.asked.header("authorization") == ["Bearer token-2"]
        body = {"kind": "Status", "code": 401, "message": "Unauthorized"}
        await stream.answer(b"{}" if good else json.dumps(body).encode(), 200 if good else 401)

    async with Server(handler, authority.server()).running() as running:
        user = User(exec=Exec("client.authentication.k8s.io/v1", str(plugin), interactive_mode="Never"))
        server = opened(access_to(running, authority, user))
        with pytest.raises(RequestRefused) as refused:
            await server.get("/version")
        assert refused.value.code == 401

        async def answered() -> bool:
            with contextlib.suppress(RequestRefused):
                await server.get("/version")
                return True
            return False

        async with asyncio.timeout(PATIENCE):
            while not await answered():
                await asyncio.sleep(0.05)
        assert running.connections == 1


# -- connections ---------------------------------------------------------------------------------------------------


async def test_another_token_needs_no_other_connection_another_certificate_does(
    authority: Authority, opened: Open
) -> None:
    def certified(name: str) -> User:
        leaf = authority.issue(f"{name}@example.test", common_name=name)
        chain = b"".join(part.bytes() for part in leaf.cert_chain_pems)
        return User(certificate_data=chain, key_data=leaf.private_key_pem.bytes())

    async with Server(version, authority.server(clients=True)).running() as running:
        server = opened(access_to(running, authority, User(token="one")))
        await server.get("/version")
        await server.change(access_to(running, authority, User(token="two")))
        await server.get("/version")
        assert running.connections == 1
        await server.change(access_to(running, authority, certified("three")))
        await server.get("/version")
        assert running.connections == 2
        await eventually(lambda: running.open == 1)
        assert not server.moved.is_set()
    assert [asked.header("authorization") for asked in running.asked] == [["Bearer one"], ["Bearer two"], []]
    assert [asked.certificate for asked in running.asked] == [None, None, "three"]


async def test_a_watch_goes_on_over_the_connection_that_it_has(authority: Authority, opened: Open) -> None:
    go_on = asyncio.Event()

    async def handler(stream: Stream) -> None:
        if stream.asked.path != "/watch":
            await version(stream)
            return
        await stream.head()
        await stream.data(b"one\n")
        await go_on.wait()
        await stream.data(b"two\n", end=True)

    async with (
        Server(handler, authority.server()).running() as one,
        Server(version, authority.server()).running() as two,
    ):
        server = opened(access_to(one, authority))
        async with server.open("/watch") as (response, _):
            assert await response.next_chunk() == b"one\n"
            await server.change(access_to(two, authority))
            assert server.moved.is_set()
            assert server.host == two.url
            await server.get("/version")
            go_on.set()
            assert await response.next_chunk() == b"two\n"
        await eventually(lambda: one.open == 0)
        assert (one.connections, two.connections) == (1, 1)


async def test_an_equal_access_changes_nothing(authority: Authority, opened: Open) -> None:
    async with Server(version, authority.server()).running() as running:
        server = opened(access_to(running, authority))
        await server.get("/version")
        with capture_logs() as lines:
            await server.change(access_to(running, authority))
        assert lines == []
        await server.get("/version")
        assert running.connections == 1


async def test_a_file_of_authorities_that_hangs_keeps_those_of_before(
    authority: Authority, opened: Open, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As one of a file server that does not answer any more: the cluster is followed on, and others are asked."""
    file, hangs, read = tmp_path / "ca.pem", threading.Event(), []

    def reading(path: str, what: str) -> bytes:
        read.append(path)
        if hangs.is_set():
            go_on.wait(PATIENCE)
        return read_file(path, what)

    go_on = threading.Event()
    monkeypatch.setattr("producers.upstream.authority.read_file", reading)
    file.write_bytes(authority.pem)
    timing = ProducerTiming(reload_credentials_every=0.0, credential_files=0.1)
    async with Server(version, authority.server()).running() as running:
        server = opened(ClusterAccess("alpha", Cluster(running.url, authority_file=str(file)), User()), timing)
        await server.get("/version")
        hangs.set()
        for _ in range(20):
            await server.get("/version")
        assert len(read) == 2, "one that hangs is not read again beside that"
        # One that never was read says so.
        other = opened(ClusterAccess("beta", Cluster(running.url, authority_file=str(file)), User()), timing)
        with pytest.raises(Unreachable, match=f"certificate-authority {file} could not be read within 0.1 s"):
            await other.get("/version")
        go_on.set()
        await eventually_awaited(lambda: gets(other))


async def gets(server: ApiServer) -> bool:
    with contextlib.suppress(Unreachable):
        return bool(await server.get("/version"))
    return False


async def test_a_file_of_authorities_that_has_no_end_is_not_read(opened: Open, authority: Authority) -> None:
    async with Server(version, authority.server()).running() as running:
        server = opened(ClusterAccess("alpha", Cluster(running.url, authority_file="/dev/zero"), User()))
        with pytest.raises(Unreachable, match="certificate-authority /dev/zero is no regular file"):
            await server.get("/version")


async def test_a_file_of_authorities_is_read_again(authority: Authority, opened: Open, tmp_path: Path) -> None:
    file = tmp_path / "ca.pem"
    cluster = Cluster(authority_file=str(file))
    timing = ProducerTiming(reload_credentials_every=0.0)
    async with Server(version, authority.server()).running() as running:
        access = ClusterAccess("alpha", replace(cluster, server=running.url), where="context alpha")
        server = opened(access, timing)
        with pytest.raises(Unreachable, match=r"ca\.pem: No such file"):
            await server.get("/version")
        file.write_bytes(b"")
        with pytest.raises(Unreachable, match="no certificate"):
            await server.get("/version")
        file.write_bytes(trustme.CA().cert_pem.bytes())
        with pytest.raises(Unreachable, match="certificate verify failed"):
            await server.get("/version")
        # Junk and a broken certificate beside the one that counts, as bundles have them.
        broken = b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"
        file.write_bytes(b"# the authority\n" + broken + authority.pem + b"junk")
        await server.get("/version")
        made = running.connections
        # One that is being written keeps what was read before.
        file.write_bytes(b"-----BEGIN")
        await server.get("/version")
        file.unlink()
        await server.get("/version")
        assert running.connections == made


# -- what goes wrong -----------------------------------------------------------------------------------------------


async def test_refusals(authority: Authority, opened: Open) -> None:
    answers = {
        "/status": (403, b'{"kind":"Status","code":403,"reason":"Forbidden","message":"not you"}', "403 not you"),
        "/text": (503, b"upstream\n is  down", "503 upstream is down"),
        "/empty": (404, b"", "404 Not Found"),
        "/deep": (503, b'{"a":' + b"[" * 5000 + b"]" * 5000 + b"}", '503 {"a":[[['),
        "/binary": (500, b"\xff\xfe\x00", "500"),
        "/redirect": (302, b"", "302 Found"),
    }

    async def handler(stream: Stream) -> None:
        code, body, _ = answers[stream.asked.path]
        await stream.answer(body, code, [("retry-after", "7"), ("location", "https://elsewhere.example.test/")])

    async with Server(handler, authority.server()).running() as running:
        server = opened(access_to(running, authority))
        for path, (code, _, text) in answers.items():
            with pytest.raises(RequestRefused) as refused:
                await server.get(path)
            assert (refused.value.code, refused.value.retry_after) == (code, 7.0)
            assert str(refused.value).startswith(text)


@pytest.mark.parametrize("kind", ["text", "status", "reason"])
@pytest.mark.parametrize("user", [User(token="MARK-token"), User(username="ann", password="MARK-password")])
async def test_a_server_that_answers_with_what_it_was_asked_reveals_nothing(
    authority: Authority, opened: Open, kind: str, user: User
) -> None:
    """Nor does what it says have more than one line, or move a cursor."""

    async def handler(stream: Stream) -> None:
        shown = stream.asked.header("authorization")[0]
        plain = base64.b64decode(shown.partition(" ")[2]).decode() if shown.startswith("Basic") else shown
        said = f"you said\n\x1b[2J{shown} {plain} " + "x" * 5000
        body = {"text": said, "status": json.dumps({"message": said}), "reason": json.dumps({"reason": said})}[kind]
        await stream.answer(body.encode(), 403)

    async with Server(handler, authority.server()).running() as running:
        server = opened(access_to(running, authority, user))
        for asking in (server.get("/version"), server.post("/apis", b"{}")):
            with pytest.raises(RequestRefused) as refused:
                await asking
            said = str(refused.value)
            assert "you said" in said or kind == "reason"
            assert "MARK" not in said
            assert base64.b64encode(b"ann:MARK-password").decode() not in said
            assert said.isprintable()
            assert len(said) < 320


@pytest.mark.parametrize("kind", ["message", "reason"])
@pytest.mark.parametrize("user", [User(token="MARK-token"), User(username="ann", password="MARK-password")])
async def test_a_watch_that_is_refused_with_what_it_was_asked_reveals_nothing(
    authority: Authority, opened: Open, user: User, kind: str
) -> None:
    """An ERROR event comes within an answer of 200, and is as much of a refusal as one of 403."""

    async def handler(stream: Stream) -> None:
        shown = stream.asked.header("authorization")[0]
        plain = base64.b64decode(shown.partition(" ")[2]).decode() if shown.startswith("Basic") else shown
        said = f"you said\n\x1b[2J{shown} {plain} " + "x" * 5000
        status = {"code": 500, kind: said}
        await stream.answer(json.dumps({"type": "ERROR", "object": status}).encode() + b"\n")

    async with Server(handler, authority.server()).running() as running:
        server = opened(access_to(running, authority, user))
        with pytest.raises(RequestRefused) as refused:
            async for _ in Watch(server, Target("/api/v1/pods"), "1").events():
                pass
        for said in (str(refused.value), refused.value.reason):
            assert "MARK" not in said
            assert base64.b64encode(b"ann:MARK-password").decode() not in said
        assert "you said" in str(refused.value)
        assert str(refused.value).isprintable()


async def test_a_line_without_end_is_given_up(
    authority: Authority, opened: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("producers.upstream.watching.LARGEST_ANSWER", 1024 * 1024)

    async def handler(stream: Stream) -> None:
        await stream.head()
        while not stream.reset_by_client.is_set():
            await stream.data(b"x" * 16384)

    async with Server(handler, authority.server()).running() as running:
        server = opened(access_to(running, authority))
        with pytest.raises(TooLarge, match="a line of more than 8388608 bytes"):
            async for _ in Watch(server, Target("/api/v1/pods"), "1").events():
                pass
        await eventually(lambda: running.resets == 1)


def event(number: int) -> bytes:
    item = {"metadata": {"name": f"p{number}", "resourceVersion": str(number)}}
    return json.dumps({"type": "ADDED", "object": item}).encode() + b"\n"


@pytest.mark.parametrize("how", ["cut", "reset", "goaway", "half a line"])
async def test_a_watch_that_breaks_off_loses_nothing(authority: Authority, opened: Open, how: str) -> None:
    """It goes on from the last version that came whole, whatever ended it."""

    async def handler(stream: Stream) -> None:
        assert isinstance(stream, Http2Stream)
        _, _, given = stream.asked.path.partition("resourceVersion=")
        after = int(given.partition("&")[0])
        await stream.head()
        for number in range(after + 1, after + 4):
            await stream.data(event(number))
        if how == "half a line":
            await stream.data(event(after + 4)[:20], end=True)
        elif how == "reset":
            await stream.reset(2)
        elif how == "goaway":
            await stream.goaway(stream.number)
            await stream.data(event(after + 4), end=True)
        else:
            stream.cut()

    async with Server(handler, authority.server()).running() as running:
        server = opened(access_to(running, authority))
        seen, last = [], 0
        while last < 12:
            with contextlib.suppress(Unreachable):
                async for found in Watch(server, Target("/api/v1/pods"), str(last)).events():
                    last = int(version_of(found).resource_version)
                    seen.append(last)
        assert seen == list(range(1, len(seen) + 1))


async def test_cancelled_at_each_await_no_connection_is_left(authority: Authority, opened: Open) -> None:
    async def handler(stream: Stream) -> None:
        await stream.head()
        await stream.data(event(1))
        await stream.data(event(2), end=True)

    async with Server(handler, authority.server()).running() as running:
        for steps in itertools.count():
            server = opened(access_to(running, authority))

            async def watch(server: ApiServer = server) -> int:
                return len([one async for one in Watch(server, Target("/api/v1/pods"), "0").events()])

            task = asyncio.create_task(watch())
            for _ in range(steps):
                await asyncio.sleep(0)
            task.cancel()
            done = (await asyncio.gather(task, return_exceptions=True))[0]
            # Another one can use it.
            assert await asyncio.wait_for(watch(), PATIENCE) == 2
            await server.close()
            if done == 2:
                break
        assert steps > 5
        await eventually(lambda: running.open == 0)


async def test_the_servers_clock(authority: Authority, opened: Open) -> None:
    async def handler(stream: Stream) -> None:
        await stream.answer(b"{}", headers=[("date", "Sat, 01 Jan 2000 00:00:00 GMT")])

    async with Server(handler, authority.server()).running() as running:
        server = opened(access_to(running, authority))
        await server.get("/version")
        assert server.clock_offset < -86400 * 365 * 20


async def test_a_closed_one_answers_nothing(authority: Authority, opened: Open) -> None:
    async with Server(version, authority.server()).running() as running:
        server = opened(access_to(running, authority))
        await server.get("/version")
        await server.close()
        await server.close()
        with pytest.raises(Unreachable, match="closed here"):
            await server.get("/version")
        await eventually(lambda: running.open == 0)


async def test_a_watch_that_is_idle_holds_nothing_of_what_came(authority: Authority, opened: Open) -> None:
    """Which would be the last piece that came and the last event, for each of twenty thousand watches."""
    size = 4_000_000
    metadata = {"name": "large", "resourceVersion": "2", "annotations": {"a": "x" * size}}
    line = json.dumps({"type": "ADDED", "object": {"metadata": metadata}}).encode() + b"\n"
    over = asyncio.Event()

    async def handler(stream: Stream) -> None:
        await stream.head(200, [("content-type", "application/json")])
        await stream.data(line, end=False)
        await over.wait()

    seen: list[str] = []

    async def follow(server: ApiServer) -> None:
        async for event in Watch(server, Target("/api/v1/pods"), "1").events():
            seen.append(event.type)
            del event

    async with Server(handler, authority.server()).running() as running:
        server = opened(access_to(running, authority))
        tracemalloc.start()
        following = asyncio.create_task(follow(server))
        try:
            await eventually(lambda: seen)
            # It waits for the next piece by now.
            await asyncio.sleep(0)
            await eventually(lambda: tracemalloc.get_traced_memory()[0] < size / 2)
        finally:
            tracemalloc.stop()
            following.cancel()
            await asyncio.wait((following,))
            over.set()
