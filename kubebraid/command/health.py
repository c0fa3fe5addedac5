"""Health of a process that only produces: /livez, /readyz and /metrics for whoever looks after it."""

from __future__ import annotations

from aiohttp import web

from producers.producer import Producer


def producer_application(producer: Producer) -> web.Application:
    """The endpoints of one producer. /readyz: it takes part in sharing clusters, and those it has are followed."""

    async def live(request: web.Request) -> web.Response:
        return web.Response(text="ok")

    async def ready(request: web.Request) -> web.Response:
        settled = producer.leases.settled.is_set()
        lines = ["[+]leases are shared" if settled else "[-]leases are not shared yet"]
        if orphans := producer.leases.orphans():
            lines.append(f"[-]clusters that nobody produces: {', '.join(orphans[:5])}")
        lines.extend(producer.notes())
        for cluster in producer.held:
            missing = [
                str(informer.kind.group_resource)
                for informer in cluster.informers.values()
                if not informer.synced.is_set()
            ]
            if cluster.unreachable is not None:
                lines.append(f"[!]cluster {cluster.name} cannot be followed: {cluster.unreachable}")
            elif not cluster.discovered.is_set():
                lines.append(f"[-]cluster {cluster.name}: its types are being discovered")
            elif missing:
                lines.append(f"[!]cluster {cluster.name}: lists under way or failing: {', '.join(missing[:5])}")
            else:
                lines.append(f"[+]cluster {cluster.name} ok")
        passed = not any(line.startswith("[-]") for line in lines)
        lines.append(f"readyz check {'passed' if passed else 'failed'}")
        return web.Response(text="\n".join(lines) + "\n", status=200 if passed else 503)

    async def metrics(request: web.Request) -> web.Response:
        kind = {"Content-Type": "text/plain; version=0.0.4; charset=utf-8"}
        return web.Response(body=producer.metrics.text(), headers=kind)

    application = web.Application()
    application.router.add_get("/livez", live)
    application.router.add_get("/healthz", live)
    application.router.add_get("/readyz", ready)
    application.router.add_get("/metrics", metrics)
    return application
