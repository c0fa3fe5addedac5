"""Clusters behind TLS and HTTP/2 as real ones are: nginx before simulated clusters, each at an address of its own.

127.0.0.0/8 has addresses for all of them, so that clients take them for different servers. One certificate is for all:
kubeconfigs name it by `tls-server-name`. Clients may show a certificate, and have to show one or a token of theirs.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import shutil
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import trustme
import yaml

from benchmarks.client import get
from kubebraid.command.broker import child_set_up, free_port

_NAME = "cluster.bench.test"
_CONFIGURATION = """
worker_processes {workers};
worker_rlimit_nofile 20000;
pid {folder}/pid;
error_log {folder}/error.log warn;
events {{ worker_connections 19000; }}
http {{
    log_format connections '$connection $msec $server_addr $server_protocol $status';
    access_log {folder}/access.log connections;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    # As many streams as an API server allows, and no end of a connection after a number of requests.
    http2_max_concurrent_streams 250;
    keepalive_requests 1000000;
    keepalive_timeout 1h;
    map_hash_bucket_size 128;
    map_hash_max_size 16384;
    map $server_addr $cluster {{
{clusters}
    }}
    server {{
        listen 127.0.0.1:{status};
        access_log off;
        location / {{ stub_status; }}
    }}
    server {{
        listen {port} ssl http2 backlog=4096;
        ssl_certificate {folder}/server.pem;
        ssl_certificate_key {folder}/server.key;
        ssl_client_certificate {folder}/clients.pem;
        ssl_verify_client optional;
        location / {{
            proxy_pass http://127.0.0.1:$cluster;
            proxy_http_version 1.1;
            proxy_set_header Connection "";
            proxy_buffering off;
            proxy_read_timeout 1h;
        }}
    }}
}}
"""


class NoFront(Exception):
    """nginx is not on this machine, or does not start."""


@dataclass(frozen=True, slots=True)
class Fleet:
    """Names of clusters, and the ports at which they are simulated: several may be one simulated cluster."""

    names: Sequence[str]
    ports: Sequence[int]


@dataclass(frozen=True, slots=True)
class Front:
    """A running nginx. `port` of all addresses."""

    folder: Path
    port: int
    status: int
    authority: trustme.CA
    clients: trustme.CA

    def address(self, number: int) -> str:
        """The address of the cluster with a number from 0 on."""
        return f"127.{1 + number // 62500}.{number // 250 % 250}.{1 + number % 250}"

    def cluster(self, number: int) -> dict[str, Any]:
        """The entry of a cluster, with its authority inline."""
        return {
            "server": f"https://{self.address(number)}:{self.port}",
            "tls-server-name": _NAME,
            "certificate-authority-data": base64.b64encode(self.authority.cert_pem.bytes()).decode(),
        }

    def user(self, name: str) -> dict[str, Any]:
        """The entry of a user with a certificate, inline."""
        made = self.clients.issue_cert(common_name=name, key_type=trustme.KeyType.RSA)
        return {
            "client-certificate-data": base64.b64encode(made.cert_chain_pems[0].bytes()).decode(),
            "client-key-data": base64.b64encode(made.private_key_pem.bytes()).decode(),
        }

    def open_connections(self) -> int:
        """How many connections clients have to it now."""
        # Those of its own question and of the clusters' side are not among them: one is that of this question.
        return int(get(self.status, "/", whole=True).body.split(b"Active connections:")[1].split()[0]) - 1

    def in_handshakes(self) -> int:
        """How many connections have been accepted and have sent no request yet, now."""
        # Among them is the one of this question.
        return int(get(self.status, "/", whole=True).body.split(b"Reading:")[1].split()[0])

    def connections(self) -> list[float]:
        """When each connection had its first request, in the order of time, in seconds since 1970."""
        first: dict[str, float] = {}
        for line in (self.folder / "access.log").read_text().splitlines():
            connection, at, *_ = line.split()
            # Requests are logged when they end: watches last, the first question of a connection first.
            first[connection] = min(first.get(connection, float(at)), float(at))
        return sorted(first.values())

    def protocols(self) -> set[str]:
        """The protocols that were spoken."""
        return {line.split()[3] for line in (self.folder / "access.log").read_text().splitlines()}


@contextlib.asynccontextmanager
async def front(folder: Path, fleet: Fleet, workers: int = 1) -> AsyncIterator[Front]:
    """nginx before a fleet, until the end of the block. Raises NoFront."""
    nginx = shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin")
    if nginx is None:
        raise NoFront("this benchmark needs nginx (Debian: apt install nginx-light)")
    folder.mkdir(parents=True, exist_ok=True)
    # RSA of 2048 bits, as kubeadm's: the size of files and the cost of handshakes.
    authority, clients = (trustme.CA(key_type=trustme.KeyType.RSA) for _ in range(2))
    made = Front(folder, free_port(), free_port(), authority, clients)
    server = authority.issue_cert(_NAME, key_type=trustme.KeyType.RSA)
    (folder / "server.pem").write_bytes(b"".join(blob.bytes() for blob in server.cert_chain_pems))
    (folder / "server.key").write_bytes(server.private_key_pem.bytes())
    (folder / "clients.pem").write_bytes(clients.cert_pem.bytes())
    clusters = "\n".join(
        f"        {made.address(number)} {fleet.ports[number % len(fleet.ports)]};"
        for number in range(len(fleet.names))
    )
    text = _CONFIGURATION.format(folder=folder, port=made.port, clusters=clusters, workers=workers, status=made.status)
    (folder / "nginx.conf").write_text(text)
    running = await asyncio.create_subprocess_exec(
        *(nginx, "-c", str(folder / "nginx.conf"), "-e", str(folder / "error.log"), "-g", "daemon off;"),
        stdin=asyncio.subprocess.DEVNULL,
        preexec_fn=child_set_up(),
    )
    try:
        await _listening(running, made)
        yield made
    finally:
        if running.returncode is None:
            running.terminate()
        await running.wait()


async def _listening(running: asyncio.subprocess.Process, made: Front) -> None:
    for _ in range(200):
        if running.returncode is not None:
            break
        with contextlib.suppress(OSError):
            _, writer = await asyncio.open_connection("127.0.0.1", made.port)
            writer.close()
            return
        await asyncio.sleep(0.05)
    raise NoFront(f"nginx does not start: {(made.folder / 'error.log').read_text()[-500:]}")


def write_kubeconfig(path: Path, fleet: Fleet, made: Front, users: Sequence[dict[str, Any]]) -> None:
    """One file for the fleet. `users`: one for each cluster, or one for all."""
    document = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": name, "cluster": made.cluster(number)} for number, name in enumerate(fleet.names)],
        "users": [{"name": name, "user": users[number % len(users)]} for number, name in enumerate(fleet.names)],
        "contexts": [{"name": name, "context": {"cluster": name, "user": name}} for name in fleet.names],
        "current-context": fleet.names[0],
    }
    # Without it PyYAML writes the one authority once, and aliases to it.
    dumper = yaml.CSafeDumper
    dumper.ignore_aliases = lambda self, data: True  # type: ignore[method-assign]
    path.write_text(yaml.dump(document, Dumper=dumper, sort_keys=False))
