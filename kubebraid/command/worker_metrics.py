"""Metrics of several workers behind one address: whichever is asked shows those of all."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Iterable

import aiohttp
from aiohttp import web
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import Metric
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.registry import Collector

from kubebraid.command.workers import Worker

# Seconds to wait for another worker's metrics.
_SCRAPE = 2.0


class _Labelled(Collector):
    """Metrics of several workers, told apart by a label."""

    def __init__(self, texts: Iterable[tuple[int, bytes]]) -> None:
        self._families: dict[str, Metric] = {}
        for number, text in texts:
            for family in text_string_to_metric_families(text.decode()):
                known = self._families.setdefault(family.name, Metric(family.name, family.documentation, family.type))
                for sample in family.samples:
                    known.samples.append(sample._replace(labels={**sample.labels, "worker": str(number)}))

    def collect(self) -> Iterable[Metric]:
        return self._families.values()


async def _scrape(worker: Worker, number: int) -> tuple[int, bytes] | None:
    """Another worker's metrics; None if it does not answer."""
    connector = aiohttp.UnixConnector(path=str(worker.socket(number)))
    timeout = aiohttp.ClientTimeout(total=_SCRAPE)
    try:
        async with (
            aiohttp.ClientSession(connector=connector, timeout=timeout) as session,
            session.get("http://worker/metrics") as answer,
        ):
            return number, await answer.read()
    except (aiohttp.ClientError, TimeoutError, OSError):
        return None


async def metrics_of_all(worker: Worker, own: Callable[[], bytes]) -> bytes:
    """The metrics of all workers that answer, each with the label `worker`."""
    others = [number for number in range(worker.count) if number != worker.number]
    found = await asyncio.gather(*(_scrape(worker, number) for number in others))
    registry = CollectorRegistry()
    registry.register(_Labelled(sorted([(worker.number, own()), *(one for one in found if one is not None)])))
    return generate_latest(registry)


@contextlib.asynccontextmanager
async def metrics_served(worker: Worker, own: Callable[[], bytes]) -> AsyncIterator[None]:
    """Shows this worker's metrics to the others while the block lasts."""

    async def metrics(_: web.Request) -> web.Response:
        return web.Response(body=own())

    application = web.Application()
    application.router.add_get("/metrics", metrics)
    runner = web.AppRunner(application, access_log=None)
    await runner.setup()
    place = worker.socket(worker.number)
    # One that was killed has left its own.
    place.unlink(missing_ok=True)
    await web.UnixSite(runner, str(place)).start()
    try:
        yield
    finally:
        await runner.cleanup()
