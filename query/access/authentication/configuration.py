"""AuthenticationConfiguration: which issuers of tokens are trusted with what, and who may be anonymous.

apiserver.config.k8s.io/v1 (https://kubernetes.io/docs/reference/config-api/apiserver-config.v1/), read and checked as
k8s.io/apiserver pkg/apis/apiserver/validation does, but for `egressSelectorType`, of which there is none here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import ParamSpec, TypeVar
from urllib.parse import urlsplit

import msgspec

from query.access.authentication.authenticator import Anonymous
from query.access.authentication.identity_names import is_of_kubernetes, why_not_domain_prefixed
from query.access.authentication.jwt_claims import OF_CLAIMS, OF_USERS, ClaimMappings, FromClaim, ValidationRule
from query.access.authentication.x509 import authorities_of
from query.access.documents import Strict, decoded
from query.access.errors import BadAccessFile
from query.access.expressions import BOOL, Expression

KIND = "AuthenticationConfiguration"
VERSIONS = ("apiserver.config.k8s.io/v1", "apiserver.config.k8s.io/v1beta1")

_MOST_ISSUERS = 64
# The domain of our own keys of extra, such as the cluster that a service account is of.
_OURS = "kubebraid.io"

_Taken = ParamSpec("_Taken")
_Made = TypeVar("_Made")


# -- as it stands in the file --------------------------------------------------------------------------------------


class _Issuer(Strict, frozen=True):
    url: str = ""
    discovery_url: str = msgspec.field(default="", name="discoveryURL")
    certificate_authority: str = ""
    audiences: tuple[str, ...] = ()
    audience_match_policy: str = ""
    egress_selector_type: str = ""


class _ClaimRule(Strict, frozen=True):
    claim: str = ""
    required_value: str = ""
    expression: str = ""
    message: str = ""


class _Prefixed(Strict, frozen=True):
    claim: str = ""
    prefix: str | None = None
    expression: str = ""


class _Unprefixed(Strict, frozen=True):
    claim: str = ""
    expression: str = ""


class _Extra(Strict, frozen=True):
    key: str = ""
    value_expression: str = ""


class _Mappings(Strict, frozen=True):
    username: _Prefixed = _Prefixed()
    groups: _Prefixed = _Prefixed()
    uid: _Unprefixed = _Unprefixed()
    extra: tuple[_Extra, ...] = ()


class _UserRule(Strict, frozen=True):
    expression: str = ""
    message: str = ""


class _Jwt(Strict, frozen=True):
    issuer: _Issuer = _Issuer()
    claim_mappings: _Mappings = _Mappings()
    claim_validation_rules: tuple[_ClaimRule, ...] = ()
    user_validation_rules: tuple[_UserRule, ...] = ()


class _Condition(Strict, frozen=True):
    path: str


class _Anonymous(Strict, frozen=True):
    enabled: bool
    conditions: tuple[_Condition, ...] = ()


class _File(Strict, frozen=True):
    jwt: tuple[_Jwt, ...] | None = None
    anonymous: _Anonymous | None = None


# -- as it is used -------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class TrustedIssuer:
    """An issuer of tokens, how it is reached, whom its tokens must be for, and the users that they name.

    `discovery`: the discovery document's URL, "" for the usual one. `authorities`: PEM, "" for the system's.
    """

    url: str
    discovery: str
    authorities: str
    audiences: frozenset[str]
    mappings: ClaimMappings


@dataclass(frozen=True)
class AuthenticationSettings:
    """What the file says. `anonymous` None: nothing, so that what is said elsewhere holds."""

    issuers: tuple[TrustedIssuer, ...] = ()
    anonymous: Anonymous | None = None


def authentication_settings(content: bytes) -> AuthenticationSettings:
    """Reads a file.

    Raises:
        BadAccessFile: one line with the path of the field and what to write instead, without the file's name.
    """
    file = decoded(content, _File, KIND, VERSIONS)
    entries = file.jwt or ()
    if len(entries) > _MOST_ISSUERS:
        raise BadAccessFile(f"at most {_MOST_ISSUERS} issuers", "jwt")
    issuers = [_at(f"jwt[{number}]", _issuer, entry) for number, entry in enumerate(entries)]
    _once("jwt", "issuer.url", (one.url for one in issuers))
    _once("jwt", "issuer.discoveryURL", (one.discovery for one in issuers))
    return AuthenticationSettings(tuple(issuers), None if file.anonymous is None else _anonymous(file.anonymous))


def _anonymous(entry: _Anonymous) -> Anonymous:
    if entry.conditions and not entry.enabled:
        raise BadAccessFile("enabled should be set to true when conditions are defined", "anonymous.conditions")
    return Anonymous(entry.enabled, frozenset(one.path for one in entry.conditions) if entry.conditions else None)


def _issuer(entry: _Jwt) -> TrustedIssuer:
    issuer = entry.issuer
    _at("issuer.url", _check_url, issuer.url)
    if issuer.discovery_url:
        if issuer.url.rstrip("/") == issuer.discovery_url.rstrip("/"):
            raise BadAccessFile("must be different from url", "issuer.discoveryURL")
        _at("issuer.discoveryURL", _check_url, issuer.discovery_url)
    if not issuer.audiences or not all(issuer.audiences):
        raise BadAccessFile("at least one is needed, and none may be empty", "issuer.audiences")
    _once("issuer.audiences", "", issuer.audiences)
    if issuer.audience_match_policy != "MatchAny" and (issuer.audience_match_policy or len(issuer.audiences) > 1):
        raise BadAccessFile("write MatchAny", "issuer.audienceMatchPolicy")
    if issuer.certificate_authority:
        _at("issuer.certificateAuthority", authorities_of, issuer.certificate_authority.encode())
    if issuer.egress_selector_type:
        raise BadAccessFile("there are no egress selectors here; leave it out", "issuer.egressSelectorType")
    return TrustedIssuer(
        issuer.url,
        issuer.discovery_url,
        issuer.certificate_authority,
        frozenset(issuer.audiences),
        _mappings(entry),
    )


def _check_url(url: str) -> None:
    if not url:
        raise BadAccessFile("is needed")
    try:
        parts = urlsplit(url)
        _ = parts.port
    except ValueError:
        raise BadAccessFile("is no URL") from None
    if parts.scheme != "https" or not parts.hostname:
        raise BadAccessFile("URL scheme must be https, and a host must follow")
    if "@" in parts.netloc:
        raise BadAccessFile("URL must not contain a username or password")
    if parts.query:
        raise BadAccessFile("URL must not contain a query")
    if parts.fragment:
        raise BadAccessFile("URL must not contain a fragment")


def _mappings(entry: _Jwt) -> ClaimMappings:
    required: dict[str, str] = {}
    claim_rules: list[ValidationRule] = []
    for number, rule in enumerate(entry.claim_validation_rules):
        _at(f"claimValidationRules[{number}]", _add_claim_rule, rule, required, claim_rules)
    user_rules = [
        _at(f"userValidationRules[{number}].expression", _user_rule, rule)
        for number, rule in enumerate(entry.user_validation_rules)
    ]
    _once("userValidationRules", "expression", (rule.expression.text for rule in user_rules))
    mappings = entry.claim_mappings
    username = _at("claimMappings.username", _prefixed, mappings.username)
    if username is None:
        raise BadAccessFile("claim or expression is required", "claimMappings.username")
    extra = {one.key: _at(f"claimMappings.extra[{number}]", _extra, one) for number, one in enumerate(mappings.extra)}
    _once("claimMappings.extra", "key", (one.key for one in mappings.extra))
    verified = [username, *extra.values(), *(rule.expression for rule in claim_rules)]
    if isinstance(username, Expression) and username.selects("claims", "email"):
        selecting = (one for one in verified if isinstance(one, Expression))
        if not any(one.selects("claims", "email_verified") for one in selecting):
            raise BadAccessFile(
                "claims.email_verified must be used in"
                " claimMappings.username.expression or claimMappings.extra[*].valueExpression or"
                " claimValidationRules[*].expression when claims.email is used in claimMappings.username.expression",
                "claimMappings.username.expression",
            )
    return ClaimMappings(
        username,
        _at("claimMappings.groups", _prefixed, mappings.groups),
        _at("claimMappings.uid", _unprefixed, mappings.uid),
        extra,
        required,
        tuple(claim_rules),
        tuple(user_rules),
    )


def _prefixed(entry: _Prefixed) -> FromClaim | Expression | None:
    if entry.expression and entry.claim:
        raise BadAccessFile("claim and expression can't both be set")
    if entry.expression:
        if entry.prefix is not None:
            raise BadAccessFile("may not be specified when expression is set", "prefix")
        return _at("expression", OF_CLAIMS.read, entry.expression)
    if not entry.claim:
        return None
    if entry.prefix is None:
        raise BadAccessFile(
            "is required when claim is set. It can be set to an empty string to disable prefixing", "prefix"
        )
    return FromClaim(entry.claim, entry.prefix)


def _unprefixed(entry: _Unprefixed) -> FromClaim | Expression | None:
    if entry.expression and entry.claim:
        raise BadAccessFile("claim and expression can't both be set")
    if entry.expression:
        return _at("expression", OF_CLAIMS.read, entry.expression)
    return FromClaim(entry.claim) if entry.claim else None


def _extra(entry: _Extra) -> Expression:
    if problem := why_not_domain_prefixed(entry.key):
        raise BadAccessFile(f"{problem}", "key")
    if is_of_kubernetes(entry.key):
        raise BadAccessFile("k8s.io, kubernetes.io and their subdomains are reserved for Kubernetes use", "key")
    if (domain := entry.key.partition("/")[0]) == _OURS or domain.endswith(f".{_OURS}"):
        raise BadAccessFile(f"{_OURS} is reserved: rules look at it, and tokens must not say it", "key")
    if not entry.value_expression:
        raise BadAccessFile("is needed", "valueExpression")
    return _at("valueExpression", OF_CLAIMS.read, entry.value_expression)


def _add_claim_rule(rule: _ClaimRule, required: dict[str, str], rules: list[ValidationRule]) -> None:
    if rule.claim and rule.expression:
        raise BadAccessFile("claim and expression can't both be set")
    if rule.claim:
        if rule.message:
            raise BadAccessFile("may not be specified when claim is set", "message")
        if rule.claim in required:
            raise BadAccessFile(f"{rule.claim!r} stands twice", "claim")
        required[rule.claim] = rule.required_value
    elif rule.expression:
        if rule.required_value:
            raise BadAccessFile("may not be specified when expression is set", "requiredValue")
        if any(one.expression.text == rule.expression for one in rules):
            raise BadAccessFile("stands above already", "expression")
        rules.append(ValidationRule(_at("expression", OF_CLAIMS.read, rule.expression, BOOL), rule.message))
    else:
        raise BadAccessFile("claim or expression is required")


def _user_rule(rule: _UserRule) -> ValidationRule:
    if not rule.expression:
        raise BadAccessFile("is needed")
    return ValidationRule(OF_USERS.read(rule.expression, BOOL), rule.message)


def _once(where: str, field: str, values: Iterable[str]) -> None:
    """Raises BadAccessFile if a value that is not empty stands twice."""
    seen: set[str] = set()
    for number, value in enumerate(values):
        if value and value in seen:
            raise BadAccessFile(f"{value!r} stands above already", f"{where}[{number}]{'.' if field else ''}{field}")
        seen.add(value)


def _at(where: str, work: Callable[_Taken, _Made], *taken: _Taken.args, **named: _Taken.kwargs) -> _Made:
    """What `work` returns; its BadAccessFile is of a field below `where`."""
    try:
        return work(*taken, **named)
    except BadAccessFile as cause:
        raise cause.below(where) from None
