"""Health of a process that only produces: /livez, /readyz and /metrics for whoever looks after it."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from aiohttp import web

from kubebraid.command.options.names import in_options
from producers.producer import Producer
from query.http.health import Check, failed, passed, ready, report, warning


def append_checks(producer: Producer) -> list[Check]:
    """What keeps a producer from appending to the log, as /readyz says it; nothing where all is well."""
    return [warning(in_options(problem)) for problem in producer.problems()]


def producer_checks(producer: Producer, waiting: Iterable[Check] = ()) -> list[Check]:
    """What /readyz says of one producer: it takes part in sharing clusters, and those it has are followed.

    `waiting`: what the producer waits for before it begins, none where it has begun.
    """
    checks = [passed("leases are shared") if producer.leases.settled.is_set() else failed("leases are not shared yet")]
    if orphans := producer.leases.orphans():
        checks.append(failed(f"clusters that nobody produces: {', '.join(orphans[:5])}"))
    checks.extend(list(waiting) or append_checks(producer))
    for cluster in producer.held:
        missing = [
            str(informer.resource.group_resource)
            for informer in cluster.informers.values()
            if not informer.synced.is_set()
        ]
        if cluster.unreachable is not None:
            checks.append(warning(f"cluster {cluster.name} cannot be followed: {cluster.unreachable}"))
        elif not cluster.discovered:
            checks.append(failed(f"cluster {cluster.name}: its types are being discovered"))
        elif missing:
            checks.append(warning(f"cluster {cluster.name}: lists under way or failing: {', '.join(missing[:5])}"))
        else:
            checks.append(passed(f"cluster {cluster.name} ok"))
    return checks


def producer_application(producer: Producer, waiting: Callable[[], Iterable[Check]] = tuple) -> web.Application:
    """The endpoints of one producer. `waiting`: as for `producer_checks`."""

    async def live(request: web.Request) -> web.Response:
        return web.Response(text="ok")

    async def readiness(request: web.Request) -> web.Response:
        checks = producer_checks(producer, waiting())
        return web.Response(text=report(checks), status=200 if ready(checks) else 503)

    async def metrics(request: web.Request) -> web.Response:
        content_type = {"Content-Type": "text/plain; version=0.0.4; charset=utf-8"}
        return web.Response(body=producer.metrics.text(), headers=content_type)

    application = web.Application()
    application.router.add_get("/livez", live)
    application.router.add_get("/healthz", live)
    application.router.add_get("/readyz", readiness)
    application.router.add_get("/metrics", metrics)
    return application
