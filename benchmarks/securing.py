"""TLS: deliveries for each CPU second of the server with https, against the same service without.

Once as it is where clients are not asked for certificates, once where they are, which takes another implementation
(query/http/tls.py). All three serve the same log; in turn each is watched while the same number of pods change.
"""

from __future__ import annotations

import ssl
import time
from contextlib import AsyncExitStack
from pathlib import Path
from tempfile import TemporaryDirectory

from benchmarks import rig
from benchmarks.content import Filled, fill
from benchmarks.report import Report, median, percentile
from benchmarks.watchers import watch
from benchmarks.watching import PATIENCE, PODS, Round, append_changes
from deltalog import open_log
from deltalog.jetstream.stream import Log
from kubebraid.command.own_authority import OwnAuthority
from kubebraid.command.settings import Address
from materializer.versions import list_version

_SECONDS = 3.0
_ROUNDS = 3
_PLAIN, _TLS, _ASKING = "http", "https", "https that asks for certificates"


async def _round(
    log: Log, filled: Filled, served: rig.Service, watchers: int, rate: int, step: int, authority: Path | None
) -> Round:
    round_ = Round()
    path = f"{PODS}?watch=1&resourceVersion={list_version(log.prefix, await log.head())}"
    async with rig.process(watch, served.port, path, watchers, PATIENCE, authority) as clients:
        await clients.receive()
        cpu, started = rig.cpu_seconds(served.pid), time.monotonic()
        await append_changes(log, filled, round_, rate, step, int(rate * _SECONDS))
        clients.send(max(round_.sent))
        round_.seen = await clients.receive()
        round_.cpu = rig.cpu_seconds(served.pid) - cpu
        round_.seconds = max(one.times[-1] for one in round_.seen if one.times) - started
    return round_


async def run(*, pods: int, watchers: int, rate: int) -> Report:
    report = Report(
        "secure",
        f"{watchers:,} watchers of {pods:,} pods, {rate:,} changes/s, {_ROUNDS} turns",
        ("server", "deliveries", "CPU s", "us/delivery", "p50 ms", "p99 ms"),
    )
    async with AsyncExitStack() as stack:
        directory = Path(stack.enter_context(TemporaryDirectory(prefix="kubebraid-bench-")))
        own = OwnAuthority(directory, Address("127.0.0.1", 0, secure=True))
        broker = await stack.enter_async_context(rig.broker())
        log = await open_log(await stack.enter_async_context(rig.connection(broker.url)))
        filled = await fill(log, pods)
        tls = ("--tls-cert-file", str(own.server))
        asks = ("--client-ca-file", str(own.authority), "--anonymous-auth", "--authorization-mode", "AlwaysAllow")
        context = ssl.create_default_context(cafile=own.authority)
        served = {
            _PLAIN: await stack.enter_async_context(rig.service(broker.url)),
            _TLS: await stack.enter_async_context(rig.service(broker.url, *tls, context=context)),
            _ASKING: await stack.enter_async_context(rig.service(broker.url, *tls, *asks, context=context)),
        }
        rounds: dict[str, list[Round]] = {name: [] for name in served}
        step = 1
        for _ in range(_ROUNDS):
            for name, one in served.items():
                authority = None if name == _PLAIN else own.authority
                rounds[name].append(await _round(log, filled, one, watchers, rate, step, authority))
                step += int(rate * _SECONDS)
    for name, found in rounds.items():
        deliveries, cpu = sum(one.deliveries for one in found), sum(one.cpu for one in found)
        late = sorted(value for one in found for value in one.latencies())
        each = cpu / deliveries * 1e6
        report.row(name, deliveries, cpu, each, percentile(late, 0.5), percentile(late, 0.99))
        report.failures += [f"{name}: {failure}" for one in found for failure in one.failures()]
    plain = median([one.per_cpu_second for one in rounds[_PLAIN]])
    for name, key in ((_TLS, "tls"), (_ASKING, "asking")):
        ratio = median([one.per_cpu_second for one in rounds[name]]) / plain
        report.ratio(key, ratio, "of the deliveries without TLS for each CPU second")
    return report
