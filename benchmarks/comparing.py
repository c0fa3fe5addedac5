"""LIST of the same pods from kubebraid and from the member cluster itself: JSON, gzip and Table, asked for in turn.

The member is a simulated cluster; with KUBECONFIG set also the cluster of its current context, whatever pods it has.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import ssl
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from tempfile import NamedTemporaryFile, TemporaryDirectory
from typing import NamedTuple
from urllib.parse import quote

from benchmarks import rig
from benchmarks.client import TABLE, Client
from benchmarks.report import Report, median
from kubebraid.command.broker import child_set_up
from producers.kubeconfig.files import access_of
from producers.kubeconfig.model import ClusterAccess
from producers.upstream.apiserver import ApiServer
from producers.upstream.tls import TlsSettings

_PODS = "/api/v1/pods"
_JSON = "application/json"
# What is asked for, and how many times as fast as the cluster itself it is to be.
_FORMS = {"JSON": (_JSON, "identity", 10.0), "gzip": (_JSON, "gzip", 10.0), "Table": (TABLE, "identity", 5.0)}


class _Member(NamedTuple):
    """A cluster's own API server, reached without kubebraid."""

    name: str
    host: str
    port: int
    tls: ssl.SSLContext | None
    headers: dict[str, str]

    def client(self) -> Client:
        return Client(self.port, host=self.host, tls=self.tls, headers=self.headers)


async def run(*, pods: int, rounds: int) -> Report:
    report = Report(
        "compare",
        f"LIST of the same pods from kubebraid and from their cluster, {rounds} rounds in turn",
        ("request", "MB", "cluster ms", "kubebraid ms", "times as fast"),
    )
    with TemporaryDirectory(prefix="kubebraid-bench-", ignore_cleanup_errors=True) as directory:
        async with _simulated(Path(directory), pods) as kubeconfig:
            await _compare(report, "simulated", kubeconfig, Path(directory) / "simulated", rounds)
        if given := os.environ.get("KUBECONFIG"):
            await _compare(report, "real", Path(given), Path(directory) / "real", rounds)
        else:
            report.notes.append("KUBECONFIG is not set: no real cluster was compared with")
    return report


@contextlib.asynccontextmanager
async def _simulated(directory: Path, pods: int) -> AsyncIterator[Path]:
    kubeconfig = directory / "kubeconfig"
    running = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "kubebraid", "simulate", "--clusters", "1", "--pods", str(pods), "--churn", "0"),
        *("--write-kubeconfig", str(kubeconfig), "--log-level", "warning"),
        stdin=asyncio.subprocess.DEVNULL,
        preexec_fn=child_set_up(),
    )
    try:
        async with asyncio.timeout(120):
            while not kubeconfig.exists():
                if running.returncode is not None:
                    raise rig.ProcessFailed(f"kubebraid simulate ended with code {running.returncode}")
                await asyncio.sleep(0.05)
        yield kubeconfig
    finally:
        if running.returncode is None:
            running.terminate()
            await running.wait()


async def _member(access: ClusterAccess) -> _Member:
    server = ApiServer(access)
    try:
        async with server.way() as way:
            address, settings = way.transport.server.address, way.transport.tls
            tls = _tls(settings) if address.scheme == "https" else None
            return _Member(access.name, address.host, way.transport.server.port, tls, dict(way.identity or ()))
    finally:
        await server.close()


def _tls(settings: TlsSettings) -> ssl.SSLContext:
    tls = ssl.create_default_context(cadata=settings.authorities.decode() or None)
    if settings.certificate is not None:
        with NamedTemporaryFile() as file:
            file.write(settings.certificate.chain + settings.certificate.key)
            file.flush()
            tls.load_cert_chain(file.name)
    if settings.insecure:
        tls.check_hostname, tls.verify_mode = False, ssl.CERT_NONE
    tls.verify_flags &= ~ssl.VERIFY_X509_STRICT
    return tls


async def _compare(report: Report, title: str, kubeconfig: Path, data: Path, rounds: int) -> None:
    member = await _member(await asyncio.to_thread(access_of, str(kubeconfig)))
    arguments = ("--context", member.name, "--include", "pods", "--forward", "off")
    async with rig.clusters_served(kubeconfig, data, *arguments) as service:
        ours = f"/clusters/{quote(member.name, safe='')}{_PODS}"
        for form, (accept, encoding, goal) in _FORMS.items():
            there, here, size, sizes_agree = await asyncio.to_thread(
                _measure, member, service.port, ours, accept, encoding, rounds
            )
            if not sizes_agree:
                report.failures.append(f"{title}: the two lists have not as many pods")
            ratio = there / here
            report.row(f"{title}, {form}", size / 1e6, there * 1e3, here * 1e3, ratio)
            report.ratio(f"{title}-{form.lower()}", ratio, "times as fast as the cluster's own LIST", goal)


def _measure(
    member: _Member, port: int, path: str, accept: str, encoding: str, rounds: int
) -> tuple[float, float, int, bool]:
    """Median seconds of the cluster and of kubebraid, the bytes of kubebraid's answer, whether both have as much."""
    there: list[float] = []
    here: list[float] = []
    size = 0
    with member.client() as theirs, Client(port) as ours:
        marker = b'"cells":' if accept == TABLE else b'"uid":'
        counts = [
            client.get(one, accept, whole=True).body.count(marker) for client, one in ((theirs, _PODS), (ours, path))
        ]
        # Owner references have uids, too; both lists have the same ones.
        agree = counts[0] == counts[1]
        for number in range(rounds + 1):
            for client, one, seconds in ((theirs, _PODS, there), (ours, path, here)):
                answer = client.get(one, accept, encoding=encoding)
                if answer.status != 200:
                    raise RuntimeError(f"{one}: {answer.status} {answer.body!r}")
                # The first round warms up and is not counted.
                if number:
                    seconds.append(answer.seconds)
                size = answer.size
    return median(there), median(here), size, agree
