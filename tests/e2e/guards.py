"""Services that ask who comes: their token files, and what a client of them needs."""

from __future__ import annotations

import asyncio
import contextlib
import csv
import hashlib
import json
import ssl
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import aiohttp
import trustme
from yarl import URL

from simulation import ClusterUser
from tests.e2e.conftest import STALE, Service
from tests.patience import PATIENCE

MASTER = "token-of-the-master"


class Authority:
    """Of all certificates of servers here, in files: `ca`, and `server` with its key."""

    def __init__(self, directory: Path) -> None:
        authority = trustme.CA()
        leaf = authority.issue_cert("localhost", "127.0.0.1")
        self.ca, self.server = directory / "ca.pem", directory / "server.pem"
        self.text = authority.cert_pem.bytes().decode()
        self.ca.write_text(self.text)
        self.server.write_bytes(leaf.private_key_and_cert_chain_pem.bytes())
        self.client = ssl.create_default_context(cadata=self.text)

    def serving(self) -> ssl.SSLContext:
        """What a server in this process has."""
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.load_cert_chain(self.server)
        return context


def bearer(token: str, **impersonated: str) -> dict[str, str]:
    """Headers of a token's owner, who wants to be somebody else: `User="eve"`, `Group="dev"`."""
    return {
        "Authorization": f"Bearer {token}",
        **{f"Impersonate-{name.replace('_', '-')}": value for name, value in impersonated.items()},
    }


def write_tokens(path: Path, users: Mapping[str, ClusterUser]) -> Path:
    """A file of hashes of tokens; beside these users one of system:masters has MASTER."""
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        for token, user in {**users, MASTER: ClusterUser("master", ("system:masters",))}.items():
            digest = hashlib.sha256(token.encode()).hexdigest()
            writer.writerow([f"sha256:{digest}", user.name, user.uid, ",".join(user.groups)])
    return path


class GuardedService(Service):
    """A service that knows MASTER; with an `authority` its `url` is https."""

    def __init__(self, *arguments: str, log: Path, authority: Authority | None = None) -> None:
        secure = () if authority is None else ("--tls-cert-file", str(authority.server))
        super().__init__(*arguments, *secure, log=log)
        self.context = None if authority is None else authority.client
        if authority is not None:
            self.url = self.url.replace("http://", "https://")

    async def ready(self, patience: float = PATIENCE, *, stale: float = STALE) -> Service:
        """As of a service that lets everyone in, asked by the master."""
        loop = asyncio.get_running_loop()
        since = None
        async with asyncio.timeout(patience):
            while True:
                assert self.child.returncode is None, self.output()
                with contextlib.suppress(aiohttp.ClientError):
                    status, text = await self.ask("GET", "/readyz?verbose", token=MASTER)
                    if status == 200:
                        since = loop.time() if since is None else since
                        if " is stale: " not in str(text) or loop.time() - since >= stale:
                            return self
                await asyncio.sleep(0.05)

    async def ask(
        self, method: str, path: str, body: Any = None, *, token: str = "", headers: Mapping[str, str] | None = None
    ) -> tuple[int, Any]:
        """Status and answer, which is text where it is no JSON. Of a watch only that it began."""
        sent = {**(bearer(token) if token else {}), **(headers or {})}
        async with aiohttp.ClientSession() as session:
            return await exchange(session, method, self.url + path, body, sent, self.context)


async def exchange(
    session: aiohttp.ClientSession,
    method: str,
    url: str,
    body: Any = None,
    headers: Mapping[str, str] | None = None,
    context: ssl.SSLContext | None = None,
) -> tuple[int, Any]:
    """Status and answer of a request; a stream is closed once it has begun."""
    sent = dict(headers or {})
    if body is not None:
        sent.setdefault("Content-Type", "application/json")
    data = None if body is None else json.dumps(body)
    async with session.request(method, URL(url, encoded=True), data=data, headers=sent, ssl=context or True) as answer:
        if answer.status == 200 and answer.headers.get("Transfer-Encoding") == "chunked" and "watch" in url:
            return 200, ""
        text = await answer.text()
        return answer.status, json.loads(text) if answer.content_type == "application/json" and text else text
