"""Doors: who may come in where the API is served, and how much of it at once, as the command line has it.

Only paths, names and numbers: it goes along to workers, and files are read by the process that uses them.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from query.access.audit.events import Audit
from query.access.audit.log_file import LogFile, StandardOutput
from query.access.audit.policy import load
from query.http.connections import ConnectionLimits
from query.http.limits import RequestLimits
from query.http.tls import ServingContext, ServingFiles


@dataclass(frozen=True, slots=True)
class FrontProxy:
    """A proxy that says by headers who asks, once its certificate is one of `authorities` (a PEM bundle).

    `names`: common names that its certificate may have, () for any. The headers: a kube-apiserver has no defaults for
    them; these are what kubeadm gives it.
    """

    authorities: Path
    names: tuple[str, ...] = ()
    user_headers: tuple[str, ...] = ("X-Remote-User",)
    uid_headers: tuple[str, ...] = ("X-Remote-Uid",)
    group_headers: tuple[str, ...] = ("X-Remote-Group",)
    extra_prefixes: tuple[str, ...] = ("X-Remote-Extra-",)


@dataclass(frozen=True, slots=True)
class TokenReviewer:
    """Who is asked about tokens: a member cluster by its name, or the server of a kubeconfig; `audiences` of tokens."""

    cluster: str = ""
    kubeconfig: Path | None = None
    audiences: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class AuditLog:
    """Where audit events go: `path` None is standard output. A file is rotated at so many bytes; so many are kept."""

    policy: Path
    path: Path | None = None
    largest: int = 100 * 1024 * 1024
    files: int = 100
    days: int = 366


@dataclass(frozen=True, slots=True)
class Doors:
    """What guards a listening address.

    - `certificate`, `key`: PEM files; without them it is http. `own`: they are made here, by an authority of our own
      (`OwnAuthority`), whose client certificates are known, too; `names`: what else clients reach it by, for that.
      `client_authorities`: bundles of whom client certificates are accepted.
    - `front_proxy`, `tokens` (the file of hashed tokens), `authentication` (an AuthenticationConfiguration),
      `token_reviewer`: who else is known. `anonymous`: whether those are let in who show nothing, None: as the
      configuration says, else not.
    - `authorization` (an AuthorizationConfiguration) or `authorizers` (names of authorizers in order, () for what is
      usual) with `policy` (our policy file): what they may see and do.
    - `origins`: regular expressions of origins whose pages may use the API.
    - `connections`, `requests`: limits. `audit`: None for no events.
    """

    certificate: Path | None = None
    key: Path | None = None
    own: bool = False
    names: tuple[str, ...] = ()
    client_authorities: tuple[Path, ...] = ()
    front_proxy: FrontProxy | None = None
    tokens: Path | None = None
    authentication: Path | None = None
    token_reviewer: TokenReviewer | None = None
    anonymous: bool | None = None
    authorization: Path | None = None
    authorizers: tuple[str, ...] = ()
    policy: Path | None = None
    origins: tuple[str, ...] = ()
    connections: ConnectionLimits = field(default_factory=ConnectionLimits)
    requests: RequestLimits = field(default_factory=RequestLimits)
    audit: AuditLog | None = None

    @property
    def secure(self) -> bool:
        """Whether it is https."""
        return self.own or self.certificate is not None

    @property
    def authenticates(self) -> bool:
        """Whether anything is given by which those who ask are known."""
        return self.own or bool(
            self.client_authorities or self.front_proxy or self.tokens or self.authentication or self.token_reviewer
        )

    @property
    def guarded(self) -> bool:
        """Whether anything is said of who may come in; else everyone may."""
        return self.authenticates or bool(self.authorization or self.authorizers or self.policy or self.anonymous)

    def serving_files(self) -> ServingFiles | None:
        """What TLS is served with; None for http."""
        if self.certificate is None:
            return None
        proxy = () if self.front_proxy is None else (self.front_proxy.authorities,)
        return ServingFiles(self.certificate, self.key or self.certificate, (*self.client_authorities, *proxy))

    def serving_context(self) -> ServingContext | None:
        """What connections' TLS is made of; None for http. Raises BadTlsFile."""
        files = self.serving_files()
        return None if files is None else ServingContext(files)

    def opened_audit(self) -> Audit:
        """What notes requests; without a policy it notes none. Blocking. Raises BadAccessFile."""
        if self.audit is None:
            return Audit()
        policy, path = load(self.audit.policy), self.audit.path
        if path is None:
            return Audit(policy, StandardOutput())
        return Audit(policy, LogFile(path, largest=self.audit.largest, files=self.audit.files, days=self.audit.days))
