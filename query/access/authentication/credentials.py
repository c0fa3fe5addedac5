"""Which credentials are known: authentication as a whole, of the files and servers that are given for it.

The order is a kube-apiserver's (k8s.io/kubernetes pkg/kubeapiserver/authenticator): front proxies, certificates, tokens
of headers, tokens of WebSockets; of tokens first those of a file, then those of issuers, then those that a server
knows. Those of the file are not cached: they are compared in memory, and end with their line.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from query.access.authentication.authenticator import (
    Anonymous,
    Authentication,
    Authenticator,
    Closing,
    TokenAuthenticator,
    TokenUnion,
)
from query.access.authentication.bearer import BearerAuthenticator, WebSocketAuthenticator
from query.access.authentication.front_proxy import DEFAULT_HEADERS, FrontProxyAuthenticator, FrontProxyHeaders
from query.access.authentication.oidc import IssuedTokens
from query.access.authentication.token_cache import TokenCache
from query.access.authentication.token_file import HashedTokens
from query.access.authentication.token_review import TokenReviewAuthenticator
from query.access.authentication.x509 import CertificateAuthenticator, ClientAuthorities
from query.access.errors import BadAccessFile


@dataclass(frozen=True)
class KnownCredentials:
    """What is known.

    - `client_authorities`: PEM files of whom clients' certificates are.
    - `proxy_authorities`: PEM files of whom front proxies' certificates are, which say by `proxy_headers` who asks;
      `proxy_names`: the common names that these may have, () for any.
    - `tokens`: a file of hashed tokens. `configuration`: an AuthenticationConfiguration. `reviews`: asks a server.
    - `anonymous`: whether who shows nothing is let in; None: as the configuration says, else not.
    """

    client_authorities: Sequence[Path] = ()
    proxy_authorities: Sequence[Path] = ()
    proxy_names: Sequence[str] = ()
    proxy_headers: FrontProxyHeaders = DEFAULT_HEADERS
    tokens: Path | None = None
    configuration: Path | None = None
    reviews: TokenReviewAuthenticator | None = None
    anonymous: bool | None = None


def authentication_by(known: KnownCredentials, *, look_every: float = 1.0) -> Authentication:
    """Who asks, by these. Reads files, blocking; who makes it closes it. `look_every`: see `WatchedFile`.

    Raises:
        BadAccessFile: a file cannot be used.
    """
    authenticators: list[Authenticator] = []
    tokens: list[TokenAuthenticator] = []
    closing: list[Closing] = []
    anonymous = None if known.anonymous is None else Anonymous(known.anonymous)
    if known.proxy_authorities:
        proxies = ClientAuthorities(*known.proxy_authorities, look_every=look_every)
        authenticators.append(FrontProxyAuthenticator(proxies, known.proxy_names, known.proxy_headers))
    if known.client_authorities:
        clients = ClientAuthorities(*known.client_authorities, look_every=look_every)
        authenticators.append(CertificateAuthenticator(clients))
    if known.configuration is not None:
        issued = IssuedTokens(known.configuration, look_every=look_every)
        if anonymous is not None and issued.anonymous is not None:
            raise BadAccessFile(
                "is said on the command line as well; leave one of them out", f"{known.configuration}: anonymous"
            )
        anonymous = anonymous or issued.anonymous
        tokens.append(issued)
        closing.append(issued)
    if known.reviews is not None:
        tokens.append(known.reviews)
        closing.append(known.reviews)
    if tokens:
        cached = TokenCache(TokenUnion(tokens))
        tokens = [cached]
        closing.insert(0, cached)
    if known.tokens is not None:
        tokens.insert(0, HashedTokens(known.tokens, look_every=look_every))
    if tokens:
        every = TokenUnion(tokens)
        authenticators += [BearerAuthenticator(every), WebSocketAuthenticator(every)]
    return Authentication(
        authenticators,
        anonymous or Anonymous(),
        consumed=known.proxy_headers.consumed if known.proxy_authorities else ((), ()),
        closing=closing,
    )
