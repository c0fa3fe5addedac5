"""Bearer tokens: from the Authorization header, or, for browsers, from a WebSocket's subprotocol.

k8s.io/apiserver pkg/authentication/request/bearertoken and websocket. A browser can give a WebSocket no headers.
"""

from __future__ import annotations

import base64
import binascii
import re

from query.access.authentication.authenticator import (
    CredentialRefused,
    RequestCredentials,
    TokenAuthenticator,
)
from query.http.websocket import offered_tokens
from query.identity import Identity

_OF_URLS = re.compile(r"[A-Za-z0-9_-]*")
IGNORED = "the provided Authorization header contains extra space before the bearer token, and is ignored"


class BearerAuthenticator:
    """Who has the token of the Authorization header. One that no authenticator of tokens knows is refused."""

    def __init__(self, tokens: TokenAuthenticator) -> None:
        self._tokens = tokens

    async def authenticate(self, presented: RequestCredentials) -> Identity | None:
        """See `Authenticator`."""
        parts = presented.headers.get("Authorization", "").strip().split(" ", 2)
        if len(parts) < 2 or parts[0].lower() != "bearer":
            return None
        token = parts[1]
        if not token:
            if len(parts) == 3:
                presented.warnings.append(IGNORED)
            return None
        return await _owner(self._tokens, token)


class WebSocketAuthenticator:
    """Who has the token among a WebSocket's subprotocols; another one must stand beside it, to be answered."""

    def __init__(self, tokens: TokenAuthenticator) -> None:
        self._tokens = tokens

    async def authenticate(self, presented: RequestCredentials) -> Identity | None:
        """See `Authenticator`."""
        if not presented.websocket:
            return None
        offered = [
            one.strip() for value in presented.headers.getall("Sec-WebSocket-Protocol", ()) for one in value.split(",")
        ]
        encoded = offered_tokens(presented.headers)
        if len(encoded) > 1:
            raise CredentialRefused("multiple base64.bearer.authorization tokens specified")
        token = _decoded(encoded[0]) if encoded else ""
        if not token:
            return None
        if len(offered) == 1:
            raise CredentialRefused("missing additional subprotocol")
        return await _owner(self._tokens, token)


async def _owner(tokens: TokenAuthenticator, token: str) -> Identity:
    identity = await tokens.authenticate_token(token)
    if identity is None:
        raise CredentialRefused("invalid bearer token")
    return identity


def _decoded(text: str) -> str:
    """Base64 of URLs without padding, nothing else, that is UTF-8. Raises CredentialRefused."""
    try:
        # Python takes padding, and the other alphabet's characters, too.
        if not _OF_URLS.fullmatch(text):
            raise ValueError
        decoded = base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
    except (binascii.Error, ValueError):
        raise CredentialRefused("invalid base64.bearer.authorization token encoding") from None
    try:
        return decoded.decode()
    except UnicodeDecodeError:
        raise CredentialRefused("invalid base64.bearer.authorization token") from None
