"""An OpenID Connect provider over HTTPS whose refresh tokens are good for one use."""

from __future__ import annotations

import base64
import contextlib
import ssl
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from urllib.parse import unquote_plus

import trustme
from aiohttp import web

from tests.producers.credentials.conftest import id_token


class Provider:
    """What it is asked, in `posts` (the form) and `ways` (header or body); attributes say how it answers.

    `login` gives a first refresh token. One that is used twice ends the login, as many providers have it.
    """

    def __init__(self) -> None:
        self.url = ""
        self.authority = b""
        self.client, self.secret = "cli/ent", "s3cret+secret"
        # How the client has to say who it is: header, body, either.
        self.way = "either"
        self.methods: object = None
        self.lifetime = 3600.0
        self.gives_id_token = True
        self.rotates = True
        self.before: Callable[[web.Request], Awaitable[web.StreamResponse | None]] | None = None
        self.after: Callable[[web.Request], Awaitable[web.StreamResponse | None]] | None = None
        self.document: dict[str, object] | None = None
        self.posts: list[dict[str, str]] = []
        self.ways: list[str] = []
        self.documents = 0
        self._valid: set[str] = set()
        self._used: set[str] = set()
        self._given = 0

    def login(self) -> str:
        self._given += 1
        token = f"s3cret-refresh-{self._given}/+="
        self._valid = {token}
        return token

    @property
    def ended(self) -> bool:
        """Whether no refresh token is good any longer."""
        return not self._valid

    def settings(self, **more: str) -> dict[str, str]:
        """A user's `config`."""
        return {
            "idp-issuer-url": self.url,
            "client-id": self.client,
            "client-secret": self.secret,
            "idp-certificate-authority-data": base64.b64encode(self.authority).decode(),
            **more,
        }

    async def discovery(self, request: web.Request) -> web.StreamResponse:
        self.documents += 1
        document: dict[str, object] = {"issuer": self.url, "token_endpoint": f"{self.url}/token"}
        if self.methods is not None:
            document["token_endpoint_auth_methods_supported"] = self.methods
        return web.json_response(self.document if self.document is not None else document)

    async def token(self, request: web.Request) -> web.StreamResponse:
        form = {key: str(value) for key, value in (await request.post()).items()}
        self.posts.append(form)
        header = request.headers.get("Authorization", "")
        self.ways.append("header" if header else "body")
        if self.before is not None and (answer := await self.before(request)) is not None:
            return answer
        if not self._known(form, header):
            return web.json_response({"error": "invalid_client"}, status=401)
        used = form.get("refresh_token", "")
        if used in self._used:
            self._valid.clear()
        if form.get("grant_type") != "refresh_token" or used not in self._valid:
            return web.json_response({"error": "invalid_grant", "error_description": used}, status=400)
        given = {"access_token": "access", "token_type": "Bearer", "expires_in": 300}
        if self.rotates:
            self._used.add(used)
            given["refresh_token"] = self.login()
        if self.gives_id_token:
            given["id_token"] = id_token(int(time.time() + self.lifetime), number=len(self.posts))
        if self.after is not None and (answer := await self.after(request)) is not None:
            return answer
        return web.json_response(given)

    def _known(self, form: dict[str, str], header: str) -> bool:
        if header:
            pair = base64.b64decode(header.removeprefix("Basic ")).decode()
            client, _, secret = (unquote_plus(part) for part in pair.partition(":"))
        else:
            client, secret = form.get("client_id", ""), form.get("client_secret", "")
        return (client, secret) == (self.client, self.secret) and self.way in ("either", "header" if header else "body")


@contextlib.asynccontextmanager
async def providing(authority: trustme.CA, provider: Provider | None = None) -> AsyncIterator[Provider]:
    """A provider that answers at `url` for the duration of the block."""
    provider = provider or Provider()
    provider.authority = authority.cert_pem.bytes()
    application = web.Application()
    application.router.add_get("/.well-known/openid-configuration", provider.discovery)
    application.router.add_post("/token", provider.token)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    runner = web.AppRunner(application, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0, ssl_context=context)
    await site.start()
    provider.url = f"https://127.0.0.1:{runner.addresses[0][1]}"
    try:
        yield provider
    finally:
        await runner.cleanup()
