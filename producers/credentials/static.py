"""Credentials that do not change, and what may become a header: bearer tokens, basic authentication, impersonation.

Rules: k8s.io/client-go transport/round_trippers.go; a header's value: golang.org/x/net/http/httpguts.
"""

from __future__ import annotations

import base64
import re
from urllib.parse import quote

from producers.credentials.credential import BadCredentials, Presented
from producers.kubeconfig.entries import Impersonation

# A tab may stand in a header's value, and so may all that is not ASCII.
_CONTROL = re.compile(r"[\x00-\x08\x0a-\x1f\x7f]")
_SURROGATE = re.compile(r"[\ud800-\udfff]")
# What a header's name may hold beside letters and digits (RFC 9110, 5.6.2), without what is an escape itself.
_TOKEN = "!#$&'*+-.^_`|~"


def header_value(value: str, what: str) -> str:
    """The value, if a header can have it. Raises BadCredentials, which says `what` it is and never shows it."""
    if _CONTROL.search(value):
        end = ", such as a line break at its end" if value.endswith(("\n", "\r")) else ""
        raise BadCredentials(f"{what} has control characters{end}: it cannot be sent")
    if _SURROGATE.search(value):
        raise BadCredentials(f"{what} is no text: it cannot be sent")
    return value


def bearer(token: str, what: str = "the token") -> Presented:
    """A token as it is sent, untrimmed. Raises BadCredentials."""
    return Presented((("Authorization", f"Bearer {header_value(token, what)}"),))


def basic(username: str, password: str) -> Presented:
    """User name and password as they are sent; a name alone is sent with an empty password. Raises BadCredentials."""
    try:
        pair = f"{username}:{password}".encode()
    except UnicodeEncodeError:
        raise BadCredentials("username or password is no text: it cannot be sent") from None
    return Presented((("Authorization", f"Basic {base64.b64encode(pair).decode()}"),))


def impersonation_headers(acts_as: Impersonation) -> tuple[tuple[str, str], ...]:
    """As whom a user acts, as headers, some of them several times. Raises BadCredentials.

    Example: extra `acme.io/scope: [a, b]` is `Impersonate-Extra-acme.io%2Fscope: a` and the same with `b`.
    """
    if not (acts_as.user or acts_as.uid or acts_as.groups or acts_as.extra):
        return ()
    if not acts_as.user:
        raise BadCredentials("as-uid, as-groups or as-user-extra without anybody to act as: give `as`")
    headers = [("Impersonate-User", header_value(acts_as.user, "as"))]
    if acts_as.uid:
        headers.append(("Impersonate-Uid", header_value(acts_as.uid, "as-uid")))
    headers += [("Impersonate-Group", header_value(group, "as-groups")) for group in acts_as.groups]
    for key, values in acts_as.extra:
        try:
            name = f"Impersonate-Extra-{quote(key, safe=_TOKEN)}"
        except UnicodeEncodeError:
            raise BadCredentials("as-user-extra has a key that is no text") from None
        headers += [(name, header_value(value, "as-user-extra")) for value in values]
    return tuple(headers)


class Static:
    """What does not change, or why there is nothing that could be shown."""

    def __init__(self, shown: Presented | None = None, problem: str = "") -> None:
        self._shown = shown or Presented()
        self._problem = problem

    async def current(self) -> Presented:
        if self._problem:
            raise BadCredentials(self._problem)
        return self._shown

    @property
    def waits_for(self) -> str:
        return ""

    async def refused(self, shown: Presented) -> None:
        """Nothing else could be shown."""

    async def close(self) -> None:
        """Nothing runs."""
