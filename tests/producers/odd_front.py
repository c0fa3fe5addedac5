"""A server before a cluster's own, whose answers are changed on their way, as no real API server would have it."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Callable

import aiohttp
from aiohttp import web

from simulation import SimulatedCluster


@contextlib.asynccontextmanager
async def front(
    cluster: SimulatedCluster, change: Callable[[bytes], bytes], refuse: Callable[[], int] = lambda: 0
) -> AsyncIterator[str]:
    """Its URL. `change`: of a whole answer, or of a line of a watch; `refuse`: the code of a request's answer, or 0."""

    async def handle(request: web.Request) -> web.StreamResponse:
        if code := refuse():
            return web.Response(status=code, body=b"odd")
        headers = {"Accept": request.headers.get("Accept", "*/*")}
        async with session.get(cluster.url + str(request.rel_url), headers=headers) as answer:
            kind = answer.headers.get("Content-Type", "")
            response = web.StreamResponse(status=answer.status, headers={"Content-Type": kind})
            await response.prepare(request)
            if request.query.get("watch"):
                async for line in answer.content:
                    await response.write(change(line.rstrip(b"\n")) + b"\n")
            else:
                await response.write(change(await answer.read()))
            await response.write_eof()
            return response

    application = web.Application()
    application.router.add_route("GET", "/{path:.*}", handle)
    runner = web.AppRunner(application, shutdown_timeout=0.1)
    async with aiohttp.ClientSession(read_bufsize=2**24) as session:
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        try:
            yield f"http://127.0.0.1:{runner.addresses[0][1]}"
        finally:
            await runner.cleanup()
