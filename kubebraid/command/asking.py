"""Asking a running service: where it is, over what TLS, and as whom; for commands on this machine or elsewhere."""

from __future__ import annotations

import asyncio
import http.client
import re
import ssl
import urllib.error
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from kubebraid.command.own_authority import pki_of
from kubebraid.command.settings import BadSetting, default_data
from kubebraid.errors import KubebraidError
from producers.errors import ProducersError
from producers.kubeconfig.files import Files, access_of, default_kubeconfig
from producers.kubeconfig.model import ClusterAccess
from producers.kubeconfig.single import alone
from producers.upstream.apiserver import ApiServer, RequestRefused
from producers.upstream.watching import LineCutter

_DEFAULT = "http://127.0.0.1:8001"
# What contexts of `kubebraid kubeconfig` have behind the service's address.
_SCOPE = re.compile(r"(/int)?(/clusters/.+)?/?$")
_WHO = "--client-certificate, --token-file or --kubeconfig"


@dataclass(frozen=True, slots=True)
class Credentials:
    """What a service is known by, and who asks it, as paths.

    `authority` None: it is known by the system's authorities, or over http not at all.
    """

    authority: Path | None = None
    certificate: Path | None = None
    key: Path | None = None
    token: Path | None = None


class ServerRefused(KubebraidError):
    """The service at `url` answers, but not this: `code`."""

    def __init__(self, url: str, code: int) -> None:
        mends = {
            401: f"say who asks, by {_WHO}",
            403: f"this user may not see it; ask as another one, by {_WHO}",
        }
        super().__init__(f"{url} answers {code}: {mends.get(code, 'is that a kubebraid?')}")
        self.url = url
        self.code = code


class BrokenOff(KubebraidError):
    """An answer that was being followed broke off, or does not begin: it may be asked for again."""


@dataclass(frozen=True, slots=True)
class Service:
    """A running service as the command line names it; None and empty: what `kubebraid up` has on this machine.

    `data`: the directory of that `up`. `kubeconfig` or `context`: as it stands there instead, with all that kubectl
    would show it; the default kubeconfig's, and its current context, where only the other one is given.
    """

    server: str | None = None
    data: Path | None = None
    credentials: Credentials = Credentials()
    kubeconfig: str | None = None
    context: str = ""

    @property
    def _pki(self) -> Path:
        return pki_of(self.data or default_data())

    def get(self, path: str, patience: float) -> tuple[bytes, str, Credentials]:
        """The body of an answer; the service's URL, and what was needed to be answered.

        Raises:
            ServerRefused: the answer is an error.
            OSError: there is none: the URL stands in `filename`.
            BadSetting, BadKubeconfig: credentials cannot be used.
        """
        if self.in_kubeconfig:
            access = self._access()
            return asyncio.run(_got(access, path, patience)), access.cluster.server, Credentials()
        failed: OSError | None = None
        for url, credentials in self._candidates():
            try:
                return _get(url, path, credentials, patience), url, credentials
            except OSError as cause:
                # The first is where it most likely is.
                failed = failed or _at(url, cause)
        assert failed is not None
        raise failed

    def follow(self, path: str, silence: float, take: Callable[[bytes], None]) -> None:
        """Reads an answer line by line until it ends, as that of a watch does, maybe after an hour.

        `silence`: seconds without a byte after which it is given up. `take` gets each line; what it raises ends this.

        Raises:
            ServerRefused: the answer is an error.
            BrokenOff: there is none, or it breaks off.
            BadSetting, BadKubeconfig: credentials cannot be used.
        """
        if self.in_kubeconfig:
            asyncio.run(_followed(self._access(), path, silence, take))
            return
        failed: BrokenOff | None = None
        for url, credentials in self._candidates():
            try:
                answer = _open(url, path, credentials, silence)
            except OSError as cause:
                failed = failed or BrokenOff(unanswered(_at(url, cause)))
                continue
            with answer:
                while line := _line_of(url, answer):
                    take(line)
            return
        assert failed is not None
        raise failed

    @property
    def in_kubeconfig(self) -> bool:
        """Whether a kubeconfig says where it is, and who asks."""
        return self.kubeconfig is not None or bool(self.context)

    def entries(self) -> tuple[dict[str, Any], dict[str, Any]]:
        """The cluster and the user of the kubeconfig's context, without files beside it but for a token's.

        Raises:
            BadKubeconfig: they cannot be used.
        """
        path = self.kubeconfig or default_kubeconfig()
        found = Files().kubeconfig(path)
        document = alone(found, self.context or found.one_context(path), "kubebraid")
        user: dict[str, Any] = next((one["user"] for one in document.get("users", ())), {})
        return dict(document["clusters"][0]["cluster"]), dict(user)

    def _access(self) -> ClusterAccess:
        """Raises BadSetting, BadKubeconfig."""
        access = access_of(self.kubeconfig or default_kubeconfig(), self.context)
        if access.problem:
            raise BadSetting(access.problem)
        root = _SCOPE.sub("", access.cluster.server)
        return replace(access, cluster=replace(access.cluster, server=root))

    def _candidates(self) -> list[tuple[str, Credentials]]:
        """Where the service may be, and with what it may be asked; what was given counts before what is found."""
        given, own = self.credentials, self._own()
        server = None if self.server is None else self.server.rstrip("/")
        if server is not None and not server.startswith(("http://", "https://")):
            raise BadSetting(f"--server {server}: write a URL, as in https://127.0.0.1:8001")
        if server is None:
            try:
                found = (self._pki / "url").read_text().strip()
            except OSError:
                found = ""
            candidates = [(found, own)] if found and own is not None else []
            return [*candidates, (_DEFAULT, given)]
        if own is None or given.authority is not None or not server.startswith("https:"):
            return [(server, given)]
        # Only where our own authority signed for it.
        return [(server, own), (server, given)]

    def _own(self) -> Credentials | None:
        """With the authority of our own, and as its administrator, if that may be read and nobody else is given."""
        authority, admin = self._pki / "ca.crt", self._pki / "admin.pem"
        given = self.credentials
        try:
            authority.read_bytes()
        except OSError:
            return None
        if given.certificate is not None or given.token is not None:
            return Credentials(authority, given.certificate, given.key, given.token)
        try:
            admin.read_bytes()
        except OSError:
            return Credentials(authority)
        return Credentials(authority, admin)


def unanswered(cause: OSError) -> str:
    """What to do where `Service.get` has found nothing: one line."""
    if "certificate" in (cause.strerror or ""):
        return (
            f"what answers at {cause.filename} is not known by its certificate ({cause.strerror}); give its authority "
            "with --certificate-authority, or --kubeconfig"
        )
    return (
        f"no kubebraid answers at {cause.filename} ({cause.strerror}); start one with `kubebraid up`, or give "
        "--server URL"
    )


async def _got(access: ClusterAccess, path: str, patience: float) -> bytes:
    """As `Service.get`, by all that a context of a kubeconfig may have."""
    url = access.cluster.server
    server = ApiServer(access)
    try:
        async with asyncio.timeout(patience):
            body, _ = await server.get(path)
    except RequestRefused as refused:
        raise ServerRefused(url, refused.code) from None
    except TimeoutError:
        raise OSError(0, f"no answer in {patience:g} s", url) from None
    except ProducersError as cause:
        raise OSError(0, str(cause), url) from None
    finally:
        await server.close()
    return body


async def _followed(access: ClusterAccess, path: str, silence: float, take: Callable[[bytes], None]) -> None:
    """As `Service.follow`, by all that a context of a kubeconfig may have."""
    url = access.cluster.server
    server = ApiServer(access)
    try:
        async with server.open(path, silence=silence) as (response, _):
            lines = LineCutter()
            while chunk := await response.next_chunk():
                for line in lines.of(chunk):
                    take(line)
    except RequestRefused as refused:
        raise ServerRefused(url, refused.code) from None
    except ProducersError as cause:
        raise BrokenOff(f"{url}: {cause}") from None
    finally:
        await server.close()


def _at(url: str, cause: OSError) -> OSError:
    reason = cause.reason if isinstance(cause, urllib.error.URLError) else cause
    text = getattr(reason, "verify_message", None) or getattr(reason, "strerror", None) or str(reason)
    return OSError(getattr(reason, "errno", None) or 0, " ".join(str(text).split()), url)


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    """What shows a token goes nowhere else with it."""

    def redirect_request(self, *_: Any) -> None:
        return None


def _get(url: str, path: str, credentials: Credentials, patience: float) -> bytes:
    """Raises ServerRefused, OSError, BadSetting."""
    with _open(url, path, credentials, patience) as answer:
        try:
            return answer.read()
        except http.client.HTTPException as cause:
            raise _no_http(cause) from None


def _line_of(url: str, answer: http.client.HTTPResponse) -> bytes:
    """The next line of an answer, empty at its end. Raises BrokenOff."""
    try:
        return answer.readline()
    except (OSError, http.client.HTTPException) as cause:
        raise BrokenOff(f"{url}: {cause or type(cause).__name__}") from None


def _open(url: str, path: str, credentials: Credentials, patience: float) -> http.client.HTTPResponse:
    """An answer that is 200; `patience`: seconds for each read of it. Raises ServerRefused, OSError, BadSetting."""
    request = urllib.request.Request(f"{url}{path}")
    if credentials.token is not None:
        if urlsplit(url).scheme != "https":
            raise BadSetting("--token-file: a token is sent over https only")
        try:
            request.add_unredirected_header("Authorization", f"Bearer {credentials.token.read_text().strip()}")
        except (OSError, UnicodeDecodeError) as cause:
            raise BadSetting(
                f"--token-file {credentials.token}: {getattr(cause, 'strerror', None) or 'no text'}"
            ) from None
    # As tools of Kubernetes: not over the proxies that the environment names for loopback.
    opener = urllib.request.build_opener(urllib.request.HTTPSHandler(context=_context(credentials)), _NoRedirects())
    try:
        answer: http.client.HTTPResponse = opener.open(request, timeout=patience)
    except urllib.error.HTTPError as refused:
        raise ServerRefused(url, refused.code) from None
    except http.client.HTTPException as cause:
        raise _no_http(cause) from None
    return answer


def _no_http(cause: http.client.HTTPException) -> OSError:
    return OSError(0, f"it answers no HTTP: {type(cause).__name__}")


def _context(credentials: Credentials) -> ssl.SSLContext:
    """Raises BadSetting."""
    try:
        context = ssl.create_default_context(cafile=credentials.authority)
    except (OSError, ssl.SSLError):
        raise BadSetting(f"--certificate-authority {credentials.authority}: no certificate in PEM is there") from None
    if credentials.certificate is not None:
        try:
            context.load_cert_chain(credentials.certificate, credentials.key, password="")
        except (OSError, ssl.SSLError, ValueError):
            raise BadSetting(
                f"--client-certificate {credentials.certificate}: no certificate in PEM is there, or not its key"
            ) from None
    return context
