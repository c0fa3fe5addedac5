"""An issuer of ID tokens over HTTPS for tests, which can be away, slow, or lie."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import json
import ssl
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import trustme
from aiohttp import web
from joserfc import jws
from joserfc.jwk import ECKey, RSAKey
from joserfc.registry import HeaderParameter

from tests.ports import free_port

AUTHORITY = trustme.CA()
SERVER = AUTHORITY.issue_cert("localhost")
CA_PEM = AUTHORITY.cert_pem.bytes().decode()

Key = RSAKey | ECKey


def rsa(key_id: str) -> RSAKey:
    return RSAKey.generate_key(2048, {"kid": key_id})


class Issuer:
    """An issuer with keys. What it answers can be changed while it runs.

    `let`: requests wait until it is set. `asked`: the paths that were asked for.
    """

    def __init__(self, url: str) -> None:
        self.url = url
        self.keys: list[Key] = []
        self.published: list[dict[str, Any]] | None = None
        self.claims_to_be = url
        self.key_set_url = f"{url}/keys"
        self.cache_control = ""
        self.status = 200
        self.body: bytes | None = None
        self.redirect = ""
        self.let = asyncio.Event()
        self.let.set()
        self.asked: list[str] = []

    async def answer(self, http: web.Request) -> web.Response:
        self.asked.append(http.path)
        await self.let.wait()
        if self.redirect and http.path != "/elsewhere":
            raise web.HTTPFound(self.redirect)
        if self.body is not None:
            return web.Response(body=self.body)
        if http.path.endswith("/.well-known/openid-configuration") or http.path == "/discovery":
            document: dict[str, Any] = {"issuer": self.claims_to_be, "jwks_uri": self.key_set_url, "more": []}
        else:
            document = {"keys": self.published or [key.as_dict(private=False) for key in self.keys]}
        headers = {"Cache-Control": self.cache_control} if self.cache_control else {}
        return web.json_response(document, status=self.status, headers=headers)

    def claims(self, **changes: Any) -> dict[str, Any]:
        """Claims of a good token; those that are None are left out."""
        claims = {"iss": self.url, "aud": "kubebraid", "sub": "jane", "exp": int(time.time()) + 600, **changes}
        return {name: value for name, value in claims.items() if value is not None}

    def token(
        self, key: Key | None = None, *, algorithm: str = "", head: dict[str, Any] | None = None, **changes: Any
    ) -> str:
        """A token; `changes` of its claims, `head` beside what its algorithm and key say."""
        signer = key or self.keys[0]
        name = algorithm or ("RS256" if isinstance(signer, RSAKey) else "ES256")
        header = {"alg": name, **({"kid": signer.kid} if signer.kid else {}), **(head or {})}
        header = {name: value for name, value in header.items() if value is not None}
        # So that it signs what others should refuse.
        known = {name: HeaderParameter(name, lambda _: None) for name in head or {}}
        registry = jws.JWSRegistry(known, [name], strict_check_header=False)
        registry.max_header_length = 100_000
        return jws.serialize_compact(header, json.dumps(self.claims(**changes)), signer, registry=registry)


def part(document: dict[str, Any] | bytes) -> str:
    content = document if isinstance(document, bytes) else json.dumps(document).encode()
    return base64.urlsafe_b64encode(content).rstrip(b"=").decode()


def unsigned(head: dict[str, Any], claims: dict[str, Any], signature: bytes = b"") -> str:
    """A token with any signature."""
    return f"{part(head)}.{part(claims)}.{part(signature)}"


def signed_with_text(secret: bytes, claims: dict[str, Any], head: dict[str, Any]) -> str:
    """A token of HS256 whose secret is any bytes, such as a public key's PEM."""
    signed = f"{part(head)}.{part(claims)}"
    return f"{signed}.{part(hmac.digest(secret, signed.encode(), hashlib.sha256))}"


@asynccontextmanager
async def running(certificate: trustme.LeafCert = SERVER) -> AsyncIterator[Issuer]:
    """An issuer that can be reached."""
    port = free_port()
    issuer = Issuer(f"https://localhost:{port}")
    application = web.Application()
    application.router.add_get("/{path:.*}", issuer.answer)
    runner = web.AppRunner(application, shutdown_timeout=0.0)
    await runner.setup()
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    certificate.configure_cert(context)
    await web.TCPSite(runner, "localhost", port, ssl_context=context).start()
    try:
        yield issuer
    finally:
        issuer.let.set()
        await runner.cleanup()
