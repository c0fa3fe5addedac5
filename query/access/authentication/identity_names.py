"""Names that identities have: of namespaces and nodes in users, and keys of `extra`, also as ends of headers' names."""

from __future__ import annotations

import re
from urllib.parse import unquote

# Characters of a header's name (RFC 9110 5.6.2), but for the one that escapes.
_OF_TOKENS = frozenset("!#$&'*+-.^_`|~0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ")
_LABEL = r"[a-z0-9](?:[-a-z0-9]*[a-z0-9])?"
_SUBDOMAIN = re.compile(rf"{_LABEL}(?:\.{_LABEL})*")
_PATH = re.compile(r"[A-Za-z0-9/\-._~%!$&'()*+,;=:]+")


def extra_key(encoded: str) -> str:
    """The key that the end of a header's name is: in lower case, then decoded; as it stands if it cannot be.

    Go's url.PathUnescape refuses a text with any wrong escape. Example: `Acme.com%2fProject` is `acme.com/project`.
    """
    lowered = encoded.lower()
    if any(not _is_hexadecimal(rest[:2]) for rest in lowered.split("%")[1:]):
        return lowered
    return unquote(lowered, errors="surrogateescape")


def escaped_key(key: str) -> str:
    """A key as the end of a header's name (client-go's transport: headerKeyEscape)."""
    return "".join(
        character if character in _OF_TOKENS else "".join(f"%{byte:02X}" for byte in character.encode())
        for character in key
    )


def is_label(name: str) -> bool:
    """Whether a name is a DNS label (RFC 1123), as names of namespaces are."""
    return len(name) <= 63 and re.fullmatch(_LABEL, name) is not None


def is_subdomain(name: str) -> bool:
    """Whether a name is a DNS subdomain (RFC 1123; apimachinery pkg/util/validation: IsDNS1123Subdomain)."""
    return len(name) <= 253 and _SUBDOMAIN.fullmatch(name) is not None


def why_not_domain_prefixed(key: str) -> str:
    """What is wrong with a key; "" if it is a path below a domain, in lower case: `acme.io/foo`.

    apimachinery pkg/util/validation: IsDomainPrefixedPath.
    """
    domain, slash, path = key.partition("/")
    if not (domain and slash and path):
        return 'must be a domain-prefixed path (such as "acme.io/foo")'
    if not is_subdomain(domain):
        return "must begin with a domain, in lower case"
    if not _PATH.fullmatch(path):
        return "must have a path of letters, digits and /-._~%!$&'()*+,;=: after its domain"
    if key != key.lower():
        return "must be lowercase"
    return ""


def is_of_kubernetes(key: str) -> bool:
    """Whether a key's domain is reserved for Kubernetes."""
    domain, slash, _ = key.partition("/")
    return bool(slash) and (domain in ("kubernetes.io", "k8s.io") or domain.endswith((".kubernetes.io", ".k8s.io")))


def _is_hexadecimal(text: str) -> bool:
    return len(text) == 2 and all(character in "0123456789abcdef" for character in text)
