"""What clients may send that is no HTTP, or only half of it: a Status where one can be sent, and no harm to others."""

from __future__ import annotations

import asyncio
import json
import ssl

import aiohttp
import pytest

from tests.e2e.conftest import Service
from tests.patience import PATIENCE

pytestmark = pytest.mark.asyncio(loop_scope="module")
HOST = b"Host: 127.0.0.1\r\n"


async def say(service: Service, data: bytes, *, end: bool = False) -> bytes:
    """All that the server answers until it closes, or falls silent."""
    reader, writer = await asyncio.open_connection("127.0.0.1", service.port)
    writer.write(data)
    if end:
        writer.write_eof()
    found = b""
    try:
        async with asyncio.timeout(PATIENCE):
            while piece := await reader.read(65536):
                found += piece
                _, _, body = found.partition(b"\r\n\r\n")
                if body and body.rstrip().endswith(b"}"):
                    break
    except TimeoutError:
        pass
    writer.close()
    return found


@pytest.mark.parametrize(
    "data",
    [
        b"NONSENSE\r\n\r\n",
        b"GET\r\n\r\n",
        b"GET / HTTP/9.9\r\n\r\n",
        b"GET /api/v1/pods HTTP/1.1\r\nno colon\r\n\r\n",
        b"GET /api/v1/pods HTTP/1.1\r\n: empty\r\n\r\n",
        b"GET /api/v1/pods HTTP/1.1\r\nContent-Length: x\r\n\r\n",
        b"GET /api/v1/pods HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
        b"G\x00T /api HTTP/1.1\r\n\r\n",
        b"GET /\x00 HTTP/1.1\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"GET /" + b"x" * 300_000 + b" HTTP/1.1\r\n\r\n",
        b"GET / HTTP/1.1\r\nX: " + b"x" * 300_000 + b"\r\n\r\n",
    ],
)
async def test_what_is_no_http_gets_a_status(shared_service: Service, data: bytes) -> None:
    answer = await say(shared_service, data)
    head, _, body = answer.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 4") or head.startswith(b"HTTP/1.0 4"), answer[:200]
    assert b"application/json" in head
    status = json.loads(body)
    assert (status["kind"], status["status"]) == ("Status", "Failure")
    assert status["code"] == int(head.split(b" ")[1])


async def test_bodies_that_break_off_or_cannot_be(shared_service: Service) -> None:
    path = b"POST /apis/authorization.k8s.io/v1/selfsubjectaccessreviews HTTP/1.1\r\n" + HOST
    chunked = path + b"Transfer-Encoding: chunked\r\n\r\n"
    answer = await say(shared_service, chunked + b"zz\r\n")
    assert answer.partition(b"\r\n")[0].endswith(b" 400 Bad Request")
    assert await say(shared_service, path + b"Content-Length: 10\r\n\r\nhalf", end=True) == b""
    answer = await say(shared_service, path + b"Content-Length: 2\r\nExpect: 100-continue\r\n\r\n{}")
    assert answer.startswith(b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 422 ")
    async with aiohttp.ClientSession() as session, session.get(f"{shared_service.url}/api") as found:
        assert found.status == 200


async def test_tls_on_the_plain_port_ends_at_once(shared_service: Service) -> None:
    context = ssl.create_default_context()
    with pytest.raises((ssl.SSLError, ConnectionError)):
        await asyncio.wait_for(asyncio.open_connection("127.0.0.1", shared_service.port, ssl=context), PATIENCE)


async def test_requests_one_behind_the_other_are_answered_in_order(shared_service: Service) -> None:
    paths = (b"/version", b"/nothing", b"/livez", b"/api")
    data = b"".join(b"GET %b HTTP/1.1\r\n%b\r\n" % (path, HOST) for path in paths)
    reader, writer = await asyncio.open_connection("127.0.0.1", shared_service.port)
    writer.write(data)
    codes = []
    async with asyncio.timeout(PATIENCE):
        for _ in paths:
            head = await reader.readuntil(b"\r\n\r\n")
            codes.append(int(head.split(b" ")[1]))
            length = next(line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:"))
            await reader.readexactly(int(length.partition(b":")[2]))
    assert codes == [200, 404, 200, 200]
    writer.close()


async def test_http_1_0_and_absolute_targets(shared_service: Service) -> None:
    answer = await say(shared_service, b"GET /version HTTP/1.0\r\n" + HOST + b"\r\n")
    assert answer.startswith(b"HTTP/1.0 200 ")
    url = shared_service.url.encode()
    answer = await say(shared_service, b"GET %b/version HTTP/1.1\r\n" % url + HOST + b"\r\n")
    assert answer.startswith(b"HTTP/1.1 200 ")


async def test_all_of_it_left_no_error_behind(shared_service: Service) -> None:
    assert "Traceback" not in shared_service.output()
    assert "request failed" not in shared_service.output()
