"""CORS: pages of which origins may use the API, and what their browsers are answered."""

from __future__ import annotations

import socket
from collections.abc import AsyncIterator

import aiohttp
import pytest
from aiohttp import web

from query.http.accepting import Site
from query.http.connections import Runner
from query.http.cors import BadOrigin, Cors, check_origin

CONSOLE = r"^https://console\.example\.org(:\d+)?$"


@pytest.mark.parametrize(
    ("pattern", "origin", "allowed"),
    [
        (CONSOLE, "https://console.example.org", True),
        (CONSOLE, "https://console.example.org:8443", True),
        (CONSOLE, "http://console.example.org", False),
        (CONSOLE, "https://consoleXexample.org", False),
        (CONSOLE, "https://console.example.org.evil.org", False),
        (CONSOLE, "https://evil.org/https://console.example.org", False),
        (CONSOLE, "null", False),
        # As Kubernetes' documentation has it: from the host on, with any port.
        (r"//localhost(:|$)", "http://localhost:3000", True),
        (r"//localhost(:|$)", "https://localhost", True),
        (r"//localhost(:|$)", "http://localhost.evil.org", False),
        (r"//localhost(:|$)", "http://evil.org//localhost", False),
        (r"(?i)//Console\.example\.org(:|$)", "https://console.EXAMPLE.org", True),
        # Both ends stand in it, and hold only one each.
        (r"^https://a\.org|b\.org$", "https://a.org.evil.org", False),
        (r"^https://a\.org|b\.org$", "https://evilb.org", False),
        (r"^https://a\.org|b\.org$", "https://a.org", True),
        (r"//a\.org:", "https://a.org:1", True),
        (r"//a\.org:", "https://a.org:1.evil.org", False),
        (r"//a\.org:", "https://user:a.org:1", False),
    ],
)
async def test_origins(pattern: str, origin: str, allowed: bool, url: str) -> None:
    SERVED.cors = Cors([r"^https://other$", pattern])
    async with aiohttp.ClientSession() as session, session.get(url, headers={"Origin": origin}) as answer:
        assert answer.status == 200
        assert answer.headers.get("Access-Control-Allow-Origin") == (origin if allowed else None)
        assert answer.headers.getall("Vary") == ["Origin"]


@pytest.mark.parametrize(
    "pattern", ["https", r"console\.example\.org", r"^https://console", r"console$", "", ".*", "^[$"]
)
def test_patterns_that_cannot_be_used(pattern: str) -> None:
    with pytest.raises(BadOrigin):
        check_origin(pattern)
    with pytest.raises(BadOrigin):
        Cors([pattern])


class Served:
    """What the server of these tests allows."""

    def __init__(self) -> None:
        self.cors = Cors()


SERVED = Served()


@pytest.fixture
async def url() -> AsyncIterator[str]:
    async def handle(http: web.Request) -> web.StreamResponse:
        if (preflight := SERVED.cors.preflight(http)) is not None:
            return preflight
        return web.Response(text="objects", headers={"X-Allowed": str(SERVED.cors.allows(http))})

    async def allow(http: web.Request, response: web.StreamResponse) -> None:
        SERVED.cors.allow(http, response)

    application = web.Application()
    application.router.add_route("*", "/{path:.*}", handle)
    application.on_response_prepare.append(allow)
    runner = Runner(application, shutdown_timeout=0.1)
    await runner.setup()
    bound = socket.create_server(("127.0.0.1", 0))
    await Site(runner, bound, None, 128).start()
    yield f"http://127.0.0.1:{bound.getsockname()[1]}/api/v1/pods"
    await runner.cleanup()


async def test_a_preflight(url: str) -> None:
    """As k8s.io/apiserver pkg/server/filters/cors.go answers it."""
    SERVED.cors = Cors([CONSOLE])
    asked = {
        "Origin": "https://console.example.org",
        "Access-Control-Request-Method": "PATCH",
        "Access-Control-Request-Headers": "authorization",
    }
    async with aiohttp.ClientSession() as session, session.options(url, headers=asked) as answer:
        assert answer.status == 204
        assert await answer.read() == b""
        headers = answer.headers
        assert headers["Access-Control-Allow-Origin"] == "https://console.example.org"
        assert headers.getall("Vary") == ["Origin"]
        assert headers["Access-Control-Allow-Credentials"] == "true"
        assert "PATCH" in headers["Access-Control-Allow-Methods"].split(", ")
        assert "Authorization" in headers["Access-Control-Allow-Headers"].split(", ")
        assert "Warning" in headers["Access-Control-Expose-Headers"].split(", ")


async def test_a_preflight_of_another_origin_is_a_request_as_any(url: str) -> None:
    SERVED.cors = Cors([CONSOLE])
    async with aiohttp.ClientSession() as session:
        for headers in ({"Origin": "https://evil.org"}, {}):
            async with session.options(url, headers=headers) as answer:
                assert answer.status == 200
                assert answer.headers["X-Allowed"] == "False"
                assert "Access-Control-Allow-Origin" not in answer.headers


async def test_without_origins_nothing_is_said(url: str) -> None:
    SERVED.cors = Cors()
    asked = {"Origin": "https://console.example.org"}
    async with aiohttp.ClientSession() as session, session.get(url, headers=asked) as answer:
        assert not [name for name in answer.headers if name.startswith("Access-Control")]
        assert "Vary" not in answer.headers
