"""Asking an OpenID Connect provider for new tokens: its discovery document, then its token endpoint.

Rules: k8s.io/client-go plugin/pkg/client/auth/oidc, golang.org/x/oauth2 internal/token.go; RFC 6749, 5.2 and 6; OpenID
Connect Discovery 1.0, 4. A refresh token may be good for one use: it is sent again only after an answer that refuses.
"""

from __future__ import annotations

import base64
import ipaddress
import json
import re
import ssl
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qsl, quote_plus, urlencode

import aiohttp
from yarl import URL

from producers.credentials.credential import BadCredentials
from producers.credentials.files import read_file
from producers.credentials.shared_work import OffLoop
from producers.kubeconfig.yaml_values import decode_base64
from producers.timing import DEFAULT, ProducerTiming

ProxyFor = Callable[[str], str]
"""The proxy for a URL, itself a URL that begins with http:// or https://, empty for none. Raises BadCredentials."""

_LARGEST = 1024 * 1024
_REDIRECTS = (301, 302, 303, 307, 308)
_FORM = ("application/x-www-form-urlencoded", "text/plain")
_AUTHORITY = "idp-certificate-authority"
_AUTHORITY_DATA = f"{_AUTHORITY}-data"
_ERROR_CODE = re.compile(r"[a-z_]{1,60}")


@dataclass(frozen=True, slots=True)
class Tokens:
    """What a user has; empty where there is none."""

    id_token: str = field(default="", repr=False)
    refresh_token: str = field(default="", repr=False)


class TokenRefused(BadCredentials):
    """The provider answered, and gave no tokens for this refresh token."""


@dataclass(frozen=True, slots=True)
class _Answer:
    status: int
    content_type: str
    body: bytes = field(repr=False)


class IdentityProvider:
    """One provider, asked as one client.

    `settings`: an auth-provider's `config`; `threads`: those in which the file that it names is read. Raises
    BadCredentials for bad settings.
    """

    def __init__(
        self, settings: Mapping[str, str], proxy: ProxyFor, threads: Executor, timing: ProducerTiming = DEFAULT
    ) -> None:
        self._client_id, self._secret = settings.get("client-id", ""), settings.get("client-secret", "")
        issuer = settings.get("idp-issuer-url", "")
        for key, given in (("idp-issuer-url", issuer), ("client-id", self._client_id)):
            if not given:
                raise BadCredentials(f"auth-provider oidc: {key} is missing")
        self._issuer = _safe_url(issuer, "idp-issuer-url")
        self._authority_file = authority_file(settings)
        self._authority_data = settings.get(_AUTHORITY_DATA, "")
        self._proxy = proxy
        self._limit = timing.identity_provider
        self._reading_limit = timing.credential_files
        self._context = OffLoop(threads, self._tls, f"{_AUTHORITY} {self._authority_file}")
        # Whether the client says who it is in the body; None until one way has worked.
        self._in_body: bool | None = None

    @property
    def name(self) -> str:
        """How messages call it."""
        return f"identity provider {self._issuer.authority.rpartition('@')[2]}"

    async def refresh(self, refresh_token: str) -> Tokens:
        """New tokens for a refresh token; what is empty in them was not given.

        Raises:
            TokenRefused: the provider does not take this refresh token.
            BadCredentials: there was no answer, or none that could be used.
        """
        context = await self._context.result(self._reading_limit)
        connector = aiohttp.TCPConnector(ssl=context, force_close=True)
        try:
            async with aiohttp.ClientSession(
                connector=connector,
                trust_env=False,
                cookie_jar=aiohttp.DummyCookieJar(),
                timeout=aiohttp.ClientTimeout(total=self._limit),
            ) as session:
                return await self._refreshed(session, refresh_token)
        except TimeoutError:
            raise BadCredentials(f"{self.name} did not answer within {self._limit:g} s") from None
        except (aiohttp.ClientConnectorError, aiohttp.ClientConnectorCertificateError) as cause:
            raise BadCredentials(f"{self.name}: {' '.join(str(cause).split())[:300]}") from None
        except (aiohttp.ClientError, OSError, ValueError) as cause:
            # Their texts may have a URL or a header in them.
            raise BadCredentials(f"{self.name} cannot be asked: {type(cause).__name__}") from None

    async def _refreshed(self, session: aiohttp.ClientSession, refresh_token: str) -> Tokens:
        metadata = await self._metadata(session)
        endpoint = metadata.get("token_endpoint")
        if not isinstance(endpoint, str) or not endpoint:
            raise BadCredentials(f"{self.name}: its discovery document has no token_endpoint")
        where = _safe_url(endpoint, f"{self.name}: its token_endpoint")
        ways = self._ways(metadata.get("token_endpoint_auth_methods_supported"))
        for way in ways:
            try:
                tokens = _tokens(await self._ask(session, where, refresh_token, way), self.name)
            except TokenRefused:
                if way == ways[-1]:
                    raise
            else:
                self._in_body = way
                return tokens
        raise AssertionError("there is always a way")

    def _ways(self, supported: object) -> Sequence[bool]:
        """Whether the client says who it is in the body: what is tried, in order. x/oauth2 begins with the header."""
        if self._in_body is not None:
            return (self._in_body,)
        methods = supported if isinstance(supported, list) else ["client_secret_basic"]
        if "client_secret_basic" not in methods or (not self._secret and "none" in methods):
            return (True, False)
        return (False, True)

    async def _metadata(self, session: aiohttp.ClientSession) -> dict[str, Any]:
        where = URL(f"{str(self._issuer).removesuffix('/')}/.well-known/openid-configuration", encoded=True)
        for _ in range(10):
            async with session.get(where, allow_redirects=False, proxy=self._through(where)) as response:
                if response.status in _REDIRECTS and (location := response.headers.get("Location")):
                    where = _safe_url(
                        str(where.join(URL(location))), f"{self.name}: where its discovery document leads"
                    )
                    continue
                answer = await _whole(response, self.name)
            break
        else:
            raise BadCredentials(f"{self.name}: its discovery document leads on and on")
        if answer.status != 200:
            raise BadCredentials(f"{self.name} answered {answer.status} to the question for its discovery document")
        try:
            metadata = json.loads(answer.body)
        except (ValueError, RecursionError):
            metadata = None
        if not isinstance(metadata, dict):
            raise BadCredentials(f"{self.name}: its discovery document is no JSON object")
        return metadata

    async def _ask(self, session: aiohttp.ClientSession, where: URL, refresh_token: str, in_body: bool) -> _Answer:
        form = {"grant_type": "refresh_token", "refresh_token": refresh_token}
        headers = {"Content-Type": "application/x-www-form-urlencoded"}
        if in_body:
            form["client_id"] = self._client_id
            if self._secret:
                form["client_secret"] = self._secret
        else:
            pair = f"{quote_plus(self._client_id)}:{quote_plus(self._secret)}"
            headers["Authorization"] = f"Basic {base64.b64encode(pair.encode()).decode()}"
        # Followed nowhere else: that would hand the refresh token on.
        async with session.post(
            where,
            data=urlencode(form).encode(),
            headers=headers,
            allow_redirects=False,
            proxy=self._through(where),
        ) as response:
            return await _whole(response, self.name)

    def _through(self, where: URL) -> URL | None:
        proxy = self._proxy(str(where))
        if not proxy:
            return None
        through = URL(proxy)
        if through.scheme not in ("http", "https"):
            raise BadCredentials(
                f"{self.name} is asked through no {through.scheme} proxy; name it in NO_PROXY, or an HTTP proxy"
            )
        return through

    def _tls(self) -> ssl.SSLContext:
        authority = b""
        if self._authority_data:
            try:
                authority = decode_base64(self._authority_data)
            except ValueError:
                raise BadCredentials(f"{_AUTHORITY_DATA} is no base64") from None
        elif self._authority_file:
            authority = read_file(self._authority_file, _AUTHORITY)
        try:
            context = ssl.create_default_context(cadata=authority.decode() if authority else None)
        except (ssl.SSLError, ValueError):
            raise BadCredentials(f"{_AUTHORITY} has no certificate in PEM that could be trusted") from None
        # As Go: any certificate that is given is trusted, and not every extension insisted on.
        context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
        context.verify_flags &= ~ssl.VERIFY_X509_STRICT
        return context


def authority_file(settings: Mapping[str, str]) -> str:
    """The file with who certifies a provider, of its settings; empty if it is inline, or the system's."""
    return "" if settings.get(_AUTHORITY_DATA) else settings.get(_AUTHORITY, "")


def _safe_url(text: str, what: str) -> URL:
    """A URL to which secrets may be sent. Raises BadCredentials."""
    try:
        url = URL(text)
        host, scheme = url.host or "", url.scheme
    except ValueError:
        raise BadCredentials(f"{what} is no URL") from None
    if not host or scheme not in ("https", "http"):
        raise BadCredentials(f"{what} is no URL that begins with https://")
    if scheme == "http" and not _loopback(host):
        raise BadCredentials(f"{what} is plain http: tokens are not sent there")
    return url


def _loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


async def _whole(response: aiohttp.ClientResponse, name: str) -> _Answer:
    body = bytearray()
    async for piece in response.content.iter_chunked(64 * 1024):
        body += piece
        if len(body) > _LARGEST:
            raise BadCredentials(f"{name} answered with more than 1 MiB")
    return _Answer(response.status, response.content_type, bytes(body))


def _tokens(answer: _Answer, name: str) -> Tokens:
    """What a token endpoint's answer says. Raises TokenRefused and BadCredentials, never with what is in it."""
    good = 200 <= answer.status < 300
    said: Mapping[str, Any] | None = None
    try:
        if answer.content_type in _FORM:
            said = dict(parse_qsl(answer.body.decode(), keep_blank_values=True))
        else:
            decoded = json.loads(answer.body)
            said = decoded if isinstance(decoded, dict) else None
    except (ValueError, RecursionError):
        pass
    error = (said or {}).get("error") or ""
    if not good or error:
        code = f" ({error})" if isinstance(error, str) and _ERROR_CODE.fullmatch(error) else ""
        text = f"{name} answered {answer.status}{code} to the refresh token"
        if answer.status >= 500 or answer.status in (408, 429) or answer.status < 200 or 300 <= answer.status < 400:
            raise BadCredentials(text)
        raise TokenRefused(f"{text}; log in again if this stays, for instance with kubectl's plugin oidc-login")
    if said is None:
        raise BadCredentials(f"{name} answered with what is no answer of a token endpoint")
    access, id_token, refresh = (said.get(key) for key in ("access_token", "id_token", "refresh_token"))
    if not isinstance(access, str) or not access:
        # It may have taken the refresh token all the same, so that a new one must not be lost.
        id_token = ""
    return Tokens(id_token if isinstance(id_token, str) else "", refresh if isinstance(refresh, str) else "")
