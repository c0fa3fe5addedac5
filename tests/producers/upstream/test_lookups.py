"""Lookups of names: by few threads, once for all who ask, beside those that hang; and connections made by them."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import threading
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from producers.upstream.exchange import NotConnected
from producers.upstream.lookups import Found, Lookups, needs_lookup
from producers.upstream.proxies import proxy_of_cluster
from producers.upstream.server_url import parse_server
from producers.upstream.tls import TlsSettings
from producers.upstream.transport import ConnectionTiming, Transport
from tests.patience import PATIENCE, eventually
from tests.producers.upstream.servers import Authority, HttpProxy, Server, Stream


class Names:
    """Answers as a resolver does; names that begin with `slow` have none until `release`."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.most = self._now = 0
        self.release = threading.Event()
        self._lock = threading.Lock()

    def ask(self, name: str) -> Found:
        with self._lock:
            self.asked.append(name)
            self._now += 1
            self.most = max(self.most, self._now)
        try:
            if name.startswith("slow"):
                self.release.wait(PATIENCE)
            if name.startswith("none"):
                raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
            return ("127.0.0.1",)
        finally:
            with self._lock:
                self._now -= 1


@pytest.fixture
async def names() -> AsyncIterator[Names]:
    made = Names()
    yield made
    made.release.set()


async def answer(stream: Stream) -> None:
    await stream.body()
    await stream.answer(b"here")


async def test_hanging_lookups_are_few_and_hold_up_no_others(names: Names) -> None:
    lookups = Lookups(names.ask, at_once=8, long_at_once=4, long=0.05)
    first = [asyncio.create_task(lookups.addresses(f"slow{number}", f"cluster-{number}")) for number in range(4)]
    await eventually(lambda: len(lookups._took_long) == 4)
    # Those are known to take long now: beside the four no more of them are begun, whoever asks.
    names.release.set()
    await asyncio.gather(*first)
    names.release.clear()
    lookups._kept.clear()
    again = [asyncio.create_task(lookups.addresses(f"slow{number % 4}", f"cluster-{number}")) for number in range(40)]
    others = [asyncio.create_task(lookups.addresses(f"slow-too{number}", f"other-{number}")) for number in range(3)]
    await eventually(lambda: names._now == 7)
    async with asyncio.timeout(PATIENCE):
        assert await lookups.addresses("quick", "alpha") == ("127.0.0.1",)
    more = [asyncio.create_task(lookups.addresses(f"slow-more{number}", f"more-{number}")) for number in range(100)]
    await eventually(lambda: names._now == 8)
    assert names.most == 8
    assert names.asked.count("slow1") == 2, "all who ask share one lookup"
    # Those who do not wait any more are not looked up.
    for task in more[50:]:
        task.cancel()
    await asyncio.wait(more[50:])
    names.release.set()
    assert {await task for task in (*again, *others, *more[:50])} == {("127.0.0.1",)}
    assert names.most == 8
    assert not any(f"slow-more{number}" in names.asked for number in range(50, 100))


async def test_a_cluster_that_asks_for_many_names_holds_up_no_others(names: Names) -> None:
    """As one whose kubeconfig names another server every second, each with a resolver that does not answer."""
    lookups = Lookups(names.ask, at_once=8, each=2)
    many = [asyncio.create_task(lookups.addresses(f"slow{number}", "odd")) for number in range(100)]
    await eventually(lambda: names._now == 2)
    async with asyncio.timeout(PATIENCE):
        for number in range(20):
            assert await lookups.addresses(f"quick{number}", "alpha") == ("127.0.0.1",)
    assert names.asked[:2] == ["slow0", "slow1"]
    assert names._now == 2
    # What it waits for itself does not wait for it where others want it, too.
    shared = asyncio.create_task(lookups.addresses("slow50", "bravo"))
    await eventually(lambda: names._now == 3)
    assert names.asked[-1] == "slow50"
    # Those that it gave up are never looked up, and all others are, each once.
    for task in many[60:]:
        task.cancel()
    await asyncio.wait(many[60:])
    names.release.set()
    async with asyncio.timeout(PATIENCE):
        assert {await task for task in (shared, *many[:60])} == {("127.0.0.1",)}
    assert sorted(one for one in names.asked if one.startswith("slow")) == sorted(f"slow{n}" for n in range(60))
    # Nothing is left of it.
    await eventually(lambda: not lookups._asking)
    assert (lookups._held_back, lookups._running_of, lookups._running_for, lookups._running) == ({}, {}, {}, 0)
    names.release.clear()
    later = asyncio.create_task(lookups.addresses("slow-later", "odd"))
    await eventually(lambda: names._now == 1)
    names.release.set()
    assert await later == ("127.0.0.1",)


async def test_transports_of_one_cluster_share_its_lookups(names: Names) -> None:
    lookups = Lookups(names.ask, at_once=8, each=2)
    timing = ConnectionTiming(dial=PATIENCE)
    transports = [
        Transport(parse_server(f"https://slow{number}.example.test"), cluster="odd", timing=timing, lookups=lookups)
        for number in range(5)
    ]
    asking = [asyncio.create_task(one.request("GET", "/").__aenter__()) for one in transports]
    await eventually(lambda: names._now == 2)
    other = Transport(parse_server("https://none.example.test"), cluster="alpha", timing=timing, lookups=lookups)
    with pytest.raises(NotConnected, match="Could not resolve host"):
        await other.request("GET", "/").__aenter__()
    assert names._now == 2
    for task in asking:
        task.cancel()
    await asyncio.gather(*asking, return_exceptions=True)
    for transport in (*transports, other):
        await transport.close()


async def test_a_transport_that_is_closed_does_not_wait_for_a_lookup(names: Names) -> None:
    """libcurl would wait for its own on the event loop, and everything else with it."""
    lookups = Lookups(names.ask)
    transport = Transport(parse_server("https://slow.example.test:6443"), lookups=lookups)
    asking = asyncio.create_task(transport.request("GET", "/").__aenter__())
    await eventually(lambda: names.asked)
    asking.cancel()
    await asyncio.wait((asking,))
    await transport.close()
    assert names._now == 1, "the lookup goes on without it"


async def test_a_lookup_without_an_answer_and_a_name_that_is_not_there(names: Names) -> None:
    lookups = Lookups(names.ask)
    timing = ConnectionTiming(dial=0.05)
    for url, proxy, said in (
        ("https://slow.example.test", "", "Could not resolve host: slow.example.test: no answer within 0.05 s"),
        ("https://none.example.test", "", "Could not resolve host: none.example.test"),
        ("https://x.test", "http://none.example.test:3128", "Could not resolve proxy: none.example.test"),
        ("https://x.test", "socks5://none.example.test", "Could not resolve proxy: none.example.test"),
    ):
        transport = Transport(
            parse_server(url), proxy=proxy_of_cluster(proxy) if proxy else None, timing=timing, lookups=lookups
        )
        # Together: the second one waits for the first one's connection.
        failed = await asyncio.gather(
            *(transport.request("GET", "/").__aenter__() for _ in range(2)), return_exceptions=True
        )
        assert [type(one) for one in failed] == [NotConnected] * 2
        assert {str(one) for one in failed} == {said}
        await transport.close()
    assert "x.test" not in names.asked, "a proxy is given the name"


@pytest.mark.parametrize("name", ["api.example.test", "API.Example.test", "api.example.test."])
async def test_connections_are_made_to_what_was_found(tmp_path: Path, names: Names, name: str) -> None:
    """By TLS with its name or another, by a proxy, and a connection of its own; libcurl looks nothing up."""
    authority = Authority(tmp_path)
    lookups = Lookups(names.ask)
    certificate = authority.server("api.example.test", "other.test")
    trusted = TlsSettings(authority.pem)
    async with Server(answer, certificate).running() as server, HttpProxy().running() as proxy:
        ways = [
            (f"https://{name}:{server.port}", trusted, None),
            (f"https://{name}:{server.port}", TlsSettings(authority.pem, server_name="other.test"), None),
            (
                f"https://127.0.0.1:{server.port}",
                TlsSettings(authority.pem, server_name="other.test"),
                proxy_of_cluster(f"http://{name}:{proxy.port}"),
            ),
        ]
        for url, tls, through in ways:
            names.asked.clear()
            lookups.forget(name)
            transport = Transport(parse_server(url), tls, through, lookups=lookups)
            async with asyncio.timeout(PATIENCE):
                async with transport.request("GET", "/") as response:
                    assert await response.read() == b"here"
                await transport.connect(asyncio.Protocol())
            assert names.asked == [name]
            await transport.close()


async def test_an_address_that_leads_nowhere_is_looked_up_again(names: Names, tmp_path: Path) -> None:
    """As where a server has moved, and its name with it."""
    authority = Authority(tmp_path)
    places: dict[str, Found] = {"api.example.test": ("127.0.0.9",)}

    def ask(name: str) -> Found:
        names.asked.append(name)
        return places[name]

    async with Server(answer, authority.server("api.example.test")).running() as server:
        url = f"https://api.example.test:{server.port}"
        transport = Transport(parse_server(url), TlsSettings(authority.pem), lookups=Lookups(ask))
        with pytest.raises(NotConnected):
            await transport.request("GET", "/").__aenter__()
        places["api.example.test"] = ("127.0.0.8", "127.0.0.1")
        async with asyncio.timeout(PATIENCE), transport.request("GET", "/") as response:
            assert await response.read() == b"here"
        assert len(names.asked) == 2
        await transport.close()


@pytest.mark.parametrize(
    ("host", "needed"),
    [("10.0.0.1", False), ("::1", False), ("fe80::1%eth0", False), ("localhost", False), ("LOCALHOST.", False),
     ("a.localhost", False), ("api.example.test", True), ("localhost.example.test", True), ("vm", True)],
)  # fmt: skip
def test_which_hosts_are_looked_up(host: str, needed: bool) -> None:
    assert needs_lookup(host) is needed


def test_a_loop_that_is_closed_is_no_matter_to_a_lookup() -> None:
    names = Names()
    loops: list[asyncio.AbstractEventLoop] = []

    async def begin() -> None:
        loops.append(asyncio.get_running_loop())
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(0.05):
                await Lookups(names.ask).addresses("slow", "alpha")

    asyncio.run(begin())
    assert loops[0].is_closed()
    running = [thread for thread in threading.enumerate() if thread.name == "lookup of slow"]
    assert [thread.daemon for thread in running] == [True]
    names.release.set()
    running[0].join(PATIENCE)
    assert not running[0].is_alive()
