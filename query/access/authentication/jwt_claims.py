"""From a token's claims to a user: mappings, and rules that they and the user must keep.

k8s.io/apiserver plugin/pkg/authenticator/token/oidc and pkg/authentication/cel.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from cel_expr_python import cel

from query.access.authentication.authenticator import CredentialRefused
from query.access.authentication.x509 import CREDENTIAL_ID
from query.access.expressions import ANY, STRING, STRINGS, Expression, Language
from query.identity import Identity

OF_CLAIMS = Language({"claims": cel.Type.Map(STRING, ANY)})
"""Expressions about claims. Numbers are doubles, as JSON's in Go; a missing key is an error."""
OF_USERS = Language(
    {
        "user.username": STRING,
        "user.uid": STRING,
        "user.groups": STRINGS,
        "user.extra": cel.Type.Map(STRING, STRINGS),
    },
    always=("user.username", "user.uid", "user.groups", "user.extra"),
)
"""Expressions about the user that was made of claims."""


@dataclass(frozen=True)
class FromClaim:
    """The value of a claim, with a prefix."""

    claim: str
    prefix: str = ""


@dataclass(frozen=True)
class ValidationRule:
    """A rule: an expression that must be true, and what is said when it is not."""

    expression: Expression
    message: str = ""


@dataclass(frozen=True)
class ClaimMappings:
    """What of a user comes from where, and what must hold. `required`: claims with their values."""

    username: FromClaim | Expression
    groups: FromClaim | Expression | None = None
    uid: FromClaim | Expression | None = None
    extra: Mapping[str, Expression] = field(default_factory=dict)
    required: Mapping[str, str] = field(default_factory=dict)
    claim_rules: Sequence[ValidationRule] = ()
    user_rules: Sequence[ValidationRule] = ()

    def user(self, claims: dict[str, Any]) -> Identity:
        """The user of verified claims.

        Raises:
            CredentialRefused: they name none, or break a rule.
            ExpressionFailed: an expression has no value.
        """
        # Only the group's claim would be asked for elsewhere; who has it there would get fewer groups than they have.
        if isinstance(self.groups, FromClaim) and self.groups.claim not in claims:
            names = claims.get("_claim_names")
            if isinstance(names, dict) and self.groups.claim in names:
                raise CredentialRefused(f"the claim {self.groups.claim!r} is distributed, which is not supported")
        data = {"claims": _as_in_go(claims)}
        user = Identity(
            self._username(claims, data), self._uid(claims, data), self._groups(claims, data), self._extra(claims, data)
        )
        for claim, value in self.required.items():
            if claims.get(claim) != value:
                raise CredentialRefused(f"the claim {claim!r} is not what is required")
        _check(self.claim_rules, data)
        if self.user_rules:
            _check(self.user_rules, _data_of(user))
        return user

    def _username(self, claims: dict[str, Any], data: dict[str, Any]) -> str:
        if isinstance(self.username, Expression):
            name = self.username.evaluate(data)
            prefix = ""
        else:
            name, prefix = claims.get(self.username.claim), self.username.prefix
            # OpenID Connect Core 1.0, 5.1.
            if self.username.claim == "email" and claims.get("email_verified", True) is not True:
                raise CredentialRefused("the email is not verified")
        # A kube-apiserver takes an empty claim; then all of those would be one user.
        if not isinstance(name, str) or not name:
            raise CredentialRefused(f"{_named(self.username)} for the username is no text, or empty")
        return prefix + name

    def _groups(self, claims: dict[str, Any], data: dict[str, Any]) -> tuple[str, ...]:
        if self.groups is None:
            return ()
        if isinstance(self.groups, Expression):
            return _texts(self.groups.evaluate(data), self.groups)
        found = claims.get(self.groups.claim)
        groups = [found] if isinstance(found, str) else [] if found is None else found
        if not isinstance(groups, list) or not all(isinstance(group, str) for group in groups):
            raise CredentialRefused(f"{_named(self.groups)} for the groups is neither a text nor a list of texts")
        return tuple(self.groups.prefix + group for group in groups)

    def _uid(self, claims: dict[str, Any], data: dict[str, Any]) -> str:
        if self.uid is None:
            return ""
        uid = self.uid.evaluate(data) if isinstance(self.uid, Expression) else claims.get(self.uid.claim)
        if not isinstance(uid, str):
            raise CredentialRefused(f"{_named(self.uid)} for the uid is no text")
        return uid

    def _extra(self, claims: dict[str, Any], data: dict[str, Any]) -> tuple[tuple[str, tuple[str, ...]], ...]:
        extra = {key: _texts(expression.evaluate(data), expression) for key, expression in self.extra.items()}
        token = claims.get("jti")
        if isinstance(token, str) and token:
            extra[CREDENTIAL_ID] = (f"JTI={token}",)
        return tuple((key, values) for key, values in sorted(extra.items()) if values)


def _texts(value: Any, source: Expression) -> tuple[str, ...]:
    """A text or a list of texts; null, and what is empty, is left out."""
    texts = [value] if isinstance(value, str) else [] if value is None else value
    if not isinstance(texts, list) or not all(isinstance(text, str) for text in texts):
        raise CredentialRefused(f"{_named(source)} must return a string or a list of strings")
    return tuple(text for text in texts if text)


def _check(rules: Sequence[ValidationRule], data: Mapping[str, Any]) -> None:
    for rule in rules:
        if rule.expression.evaluate(data) is not True:
            raise CredentialRefused(f"validation expression '{rule.expression.text}' failed: {rule.message}")


def _named(source: FromClaim | Expression) -> str:
    return f"the claim {source.claim!r}" if isinstance(source, FromClaim) else f"the expression {source.text!r}"


def _as_in_go(value: Any) -> Any:
    """JSON with its numbers as doubles: an integer that is none of 64 bits would fail every expression."""
    if isinstance(value, dict):
        return {name: _as_in_go(one) for name, one in value.items()}
    if isinstance(value, list):
        return [_as_in_go(one) for one in value]
    if isinstance(value, int) and not isinstance(value, bool):
        try:
            return float(value)
        except OverflowError:
            raise CredentialRefused("a claim has a number that is none") from None
    return value


def _data_of(user: Identity) -> dict[str, Any]:
    return {
        "user.username": user.name,
        "user.uid": user.uid,
        "user.groups": list(user.groups),
        "user.extra": {key: list(values) for key, values in user.extra},
    }
