"""What never reaches the API proper: odd paths, methods, handshakes and expectations get a Status, and no traceback."""

from __future__ import annotations

import asyncio
import json

import pytest

from tests.e2e.conftest import Service
from tests.patience import PATIENCE

pytestmark = pytest.mark.asyncio(loop_scope="module")


async def exchange(service: Service, head: str) -> tuple[int, dict[str, str], bytes]:
    """Sends a request's head as it is, and reads an answer with a Content-Length."""
    reader, writer = await asyncio.open_connection("127.0.0.1", service.port)
    try:
        writer.write(head.replace("\n", "\r\n").encode() + b"\r\n\r\n")
        lines = (await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), PATIENCE)).decode().splitlines()
        headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines[1:] if line)}
        body = await reader.readexactly(int(headers.get("content-length", "0")))
        return int(lines[0].split()[1]), headers, body
    finally:
        writer.close()


SOCKET = "Connection: Upgrade\nUpgrade: websocket"


@pytest.mark.parametrize(
    ("head", "code"),
    [
        ("GET /api/v1/pods%0a HTTP/1.1\nHost: 127.0.0.1", 404),
        ("GET /clusters/alpha/api/v1/namespaces/x/pods/a%0ab HTTP/1.1\nHost: 127.0.0.1", 404),
        ("GET /clusters/alpha/../bravo/api/v1/pods HTTP/1.1\nHost: 127.0.0.1", 404),
        ("GET /clusters/alpha/%2e%2e/bravo/version HTTP/1.1\nHost: 127.0.0.1", 404),
        ("OPTIONS * HTTP/1.1\nHost: 127.0.0.1", 404),
        ("GET /api/v1/pods HTTP/1.1\nHost: 127.0.0.1\nExpect: miracles", 417),
        (f"GET /api/v1/pods?watch=1 HTTP/1.1\nHost: 127.0.0.1\n{SOCKET}", 400),
        (f"GET /api/v1/pods?watch=1 HTTP/1.1\nHost: 127.0.0.1\n{SOCKET}\nSec-WebSocket-Version: 13", 400),
        (
            f"GET /api/v1/pods?watch=1 HTTP/1.1\nHost: 127.0.0.1\n{SOCKET}\nSec-WebSocket-Version: 13\n"
            "Sec-WebSocket-Key: short",
            400,
        ),
        ("GET /api/v1/pods%0a HTTP/1.1\nHost: elsewhere.example", 403),
        ("OPTIONS * HTTP/1.1\nHost: elsewhere.example", 403),
    ],
)
async def test_it_is_a_status(shared_service: Service, head: str, code: int) -> None:
    before = shared_service.output().count("Traceback")
    found, headers, body = await exchange(shared_service, head)
    assert (found, headers["content-type"].split(";")[0]) == (code, "application/json"), body
    status = json.loads(body)
    assert (status["kind"], status["code"]) == ("Status", code)
    assert shared_service.output().count("Traceback") == before


async def test_a_body_may_be_announced(shared_service: Service) -> None:
    """100-continue, as curl asks before large bodies."""
    reader, writer = await asyncio.open_connection("127.0.0.1", shared_service.port)
    body = json.dumps({"kind": "ConfigMap", "apiVersion": "v1", "metadata": {"name": "announced"}}).encode()
    writer.write(
        b"POST /clusters/alpha/api/v1/namespaces/default/configmaps HTTP/1.1\r\nHost: 127.0.0.1\r\n"
        b"Content-Type: application/json\r\nExpect: 100-continue\r\nContent-Length: %d\r\n\r\n" % len(body)
    )
    assert await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), PATIENCE) == b"HTTP/1.1 100 Continue\r\n\r\n"
    writer.write(body)
    assert (await asyncio.wait_for(reader.readline(), PATIENCE)).split()[1] == b"201"
    writer.close()
