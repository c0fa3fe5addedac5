"""Which credential a cluster's user has, by client-go's precedence.

Rules: k8s.io/client-go tools/clientcmd/client_config.go, rest/transport.go, transport/round_trippers.go. What the URL
says goes before a token file, that before a token, then basic authentication, a plugin, an identity provider. A
certificate goes along with each but a plugin, which it replaces. Over plain http nothing is shown but impersonation.
"""

from __future__ import annotations

from urllib.parse import urlsplit

from producers.credentials.certificate_files import CertificateFiles
from producers.credentials.credential import BadCredentials, Credential, Presented
from producers.credentials.exec_credential import VERSIONS
from producers.credentials.shared import SharedCredentials
from producers.credentials.static import Static, basic, bearer, impersonation_headers
from producers.credentials.token_file import TokenFile
from producers.kubeconfig.entries import User
from producers.kubeconfig.model import ClusterAccess
from producers.kubeconfig.validation import speaks_tls
from producers.threads import share_of
from producers.timing import DEFAULT, ProducerTiming

Headers = tuple[tuple[str, str], ...]


def credential_for(access: ClusterAccess, shared: SharedCredentials, timing: ProducerTiming = DEFAULT) -> Credential:
    """Who we are to a cluster. Reads no file and runs nothing; what is wrong is raised by its `current`."""
    try:
        return _chosen(access, shared, timing)
    except BadCredentials as problem:
        return Static(problem=str(problem))


def _chosen(access: ClusterAccess, shared: SharedCredentials, timing: ProducerTiming) -> Credential:
    if access.problem:
        raise BadCredentials(access.problem)
    user, server = access.user, access.cluster.server
    acts_as = impersonation_headers(user.impersonation)
    if not speaks_tls(server):
        return Static(Presented(acts_as))
    # Refused also where another credential goes before it.
    if user.exec is not None and user.exec.api_version not in VERSIONS:
        raise BadCredentials(f"exec: apiVersion is none of {' and '.join(VERSIONS)}")
    certificate = _certificate(user, shared, timing)
    source = _headers(user, shared, timing)
    if source is None and user.exec is not None and certificate is None:
        source = shared.plugin(user.exec, access.cluster)
    elif source is None and user.auth_provider is not None and not _says_who(server):
        source = shared.oidc(user.auth_provider)
    if source is None:
        source = Static()
    return _Identity(source, certificate, acts_as)


def _headers(user: User, shared: SharedCredentials, timing: ProducerTiming) -> Credential | None:
    token = user.token or user.token_file
    if token and user.username:
        raise BadCredentials("a token and a username are both given; leave one out")
    if user.token_file:
        return TokenFile(user.token_file, user.token, shared.threads.of(share_of(user.token_file)), timing)
    if user.token:
        return Static(bearer(user.token))
    if user.username:
        return Static(basic(user.username, user.password))
    return None


def _certificate(user: User, shared: SharedCredentials, timing: ProducerTiming) -> CertificateFiles | None:
    if not (user.certificate_data or user.certificate_file):
        return None
    if not (user.key_data or user.key_file):
        raise BadCredentials("client-certificate without client-key: give client-key or client-key-data")
    # Checking what is inline hangs on nothing.
    share = share_of(user.certificate_file or user.key_file) if user.certificate_file or user.key_file else ""
    return CertificateFiles(user, shared.threads.of(share), timing)


def _says_who(server: str) -> bool:
    try:
        return "@" in urlsplit(server).netloc
    except ValueError:
        return False


class _Identity:
    """Headers of one source, a certificate of another, and impersonation, together."""

    def __init__(self, source: Credential, files: CertificateFiles | None, acts_as: Headers) -> None:
        self._source = source
        self._files = files
        self._acts_as = acts_as
        # What was shown last, and what of it came from the source.
        self._shown: Presented | None = None
        self._of: Presented | None = None

    async def current(self) -> Presented:
        of = await self._source.current()
        certificate = of.certificate if self._files is None else await self._files.current()
        if self._shown is None or of is not self._of or certificate is not self._shown.certificate:
            shown = Presented(of.headers + self._acts_as, certificate)
            # The same value stays the same object, so that comparing is nothing.
            self._shown = self._shown if shown == self._shown else shown
            self._of = of
        assert self._shown is not None
        return self._shown

    @property
    def waits_for(self) -> str:
        return self._source.waits_for or ("" if self._files is None else self._files.waits_for)

    async def refused(self, shown: Presented) -> None:
        if shown == self._shown and self._of is not None:
            await self._source.refused(self._of)
            if self._files is not None:
                await self._files.refused()

    async def close(self) -> None:
        try:
            await self._source.close()
        finally:
            if self._files is not None:
                await self._files.close()
