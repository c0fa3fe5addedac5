"""AuthenticationConfiguration: what may stand in it, and what is said of what may not."""

from __future__ import annotations

import copy
from typing import Any

import msgspec
import pytest
import yaml

from query.access.authentication.authenticator import Anonymous
from query.access.authentication.configuration import authentication_settings
from query.access.authentication.jwt_claims import FromClaim
from query.access.errors import BadAccessFile
from query.access.expressions import Expression
from tests.query.access.authentication.issuer import CA_PEM

WHOLE = f"""
apiVersion: apiserver.config.k8s.io/v1
kind: AuthenticationConfiguration
jwt:
- issuer:
    url: https://issuer.example
    discoveryURL: https://elsewhere.example/.well-known/openid-configuration
    certificateAuthority: {msgspec.json.encode(CA_PEM).decode()}
    audiences: [one, two]
    audienceMatchPolicy: MatchAny
  claimValidationRules:
  - claim: hd
    requiredValue: example.com
  - expression: claims.email_verified == true
    message: verify your email
  claimMappings:
    username:
      expression: claims.email
    groups:
      claim: groups
      prefix: ""
    uid:
      claim: sub
    extra:
    - key: example.org/team
      valueExpression: claims.team
  userValidationRules:
  - expression: "!user.username.startsWith('system:')"
    message: reserved
anonymous:
  enabled: true
  conditions:
  - path: /livez
  - path: /readyz
"""


def test_the_whole_of_it() -> None:
    settings = authentication_settings(WHOLE.encode())
    assert settings.anonymous == Anonymous(True, frozenset({"/livez", "/readyz"}))
    (issuer,) = settings.issuers
    assert issuer.url == "https://issuer.example"
    assert issuer.discovery == "https://elsewhere.example/.well-known/openid-configuration"
    assert issuer.audiences == {"one", "two"}
    assert issuer.authorities == CA_PEM
    mappings = issuer.mappings
    assert isinstance(mappings.username, Expression)
    assert mappings.username.text == "claims.email"
    assert mappings.groups == FromClaim("groups")
    assert mappings.uid == FromClaim("sub")
    assert list(mappings.extra) == ["example.org/team"]
    assert mappings.required == {"hd": "example.com"}
    assert [rule.message for rule in mappings.claim_rules] == ["verify your email"]
    assert [rule.message for rule in mappings.user_rules] == ["reserved"]


@pytest.mark.parametrize(
    ("text", "anonymous"),
    [
        ("{}", None),
        ("{anonymous: {enabled: false}}", Anonymous(False)),
        ("{anonymous: {enabled: true}}", Anonymous(True)),
        ("{jwt: []}", None),
        ("{jwt: null}", None),
    ],
)
def test_little_of_it(text: str, anonymous: Anonymous | None) -> None:
    for version in ("v1", "v1beta1"):
        document = {"apiVersion": f"apiserver.config.k8s.io/{version}", "kind": "AuthenticationConfiguration"}
        settings = authentication_settings(yaml.safe_dump({**document, **yaml.safe_load(text)}).encode())
        assert (settings.issuers, settings.anonymous) == ((), anonymous)


GONE = object()


@pytest.mark.parametrize(
    ("path", "value", "said"),
    [
        ("kind", "Something", "kind: write AuthenticationConfiguration"),
        ("apiVersion", "v1", "apiVersion: write apiserver.config.k8s.io/v1"),
        ("jwts", [], "unknown field jwts"),
        ("jwt.0.issuer.urls", [], "jwt[0].issuer: unknown field urls"),
        ("jwt.0.issuer.url", 1, "jwt[0].issuer.url: Expected `str`, got `int`"),
        ("jwt.0.issuer.url", GONE, "jwt[0].issuer.url: is needed"),
        ("jwt.0.issuer.url", "http://issuer.example", "jwt[0].issuer.url: URL scheme must be https"),
        ("jwt.0.issuer.url", "https://a:b@issuer.example", "jwt[0].issuer.url: URL must not contain a username"),
        ("jwt.0.issuer.url", "https://issuer.example?a", "jwt[0].issuer.url: URL must not contain a query"),
        ("jwt.0.issuer.url", "https://issuer.example#a", "jwt[0].issuer.url: URL must not contain a fragment"),
        ("jwt.0.issuer.url", "https://", "jwt[0].issuer.url: URL scheme must be https, and a host must follow"),
        ("jwt.0.issuer.url", "https://a:b", "jwt[0].issuer.url: is no URL"),
        ("jwt.0.issuer.discoveryURL", "https://issuer.example/", "jwt[0].issuer.discoveryURL: must be different"),
        ("jwt.0.issuer.discoveryURL", "http://x.example", "jwt[0].issuer.discoveryURL: URL scheme must be https"),
        ("jwt.0.issuer.certificateAuthority", "none", "jwt[0].issuer.certificateAuthority: no certificates"),
        ("jwt.0.issuer.audiences", [], "jwt[0].issuer.audiences: at least one"),
        ("jwt.0.issuer.audiences", ["a", ""], "jwt[0].issuer.audiences: at least one"),
        ("jwt.0.issuer.audiences", ["a", "a"], "jwt[0].issuer.audiences[1]: 'a' stands above"),
        ("jwt.0.issuer.audienceMatchPolicy", GONE, "jwt[0].issuer.audienceMatchPolicy: write MatchAny"),
        ("jwt.0.issuer.audienceMatchPolicy", "MatchAll", "jwt[0].issuer.audienceMatchPolicy: write MatchAny"),
        ("jwt.0.issuer.egressSelectorType", "cluster", "jwt[0].issuer.egressSelectorType: there are no egress"),
        ("jwt.0.claimMappings", GONE, "jwt[0].claimMappings.username: claim or expression is required"),
        (
            "jwt.0.claimMappings.username",
            {"claim": "a", "expression": "b"},
            "username: claim and expression can't both",
        ),
        ("jwt.0.claimMappings.username", {"claim": "a"}, "username.prefix: is required when claim is set"),
        ("jwt.0.claimMappings.username.prefix", "a", "username.prefix: may not be specified when expression is set"),
        ("jwt.0.claimMappings.username.expression", "claims.", "username.expression: 'claims.' is no expression"),
        ("jwt.0.claimMappings.username.expression", "user.uid", "username.expression: 'user.uid' is no expression"),
        ("jwt.0.claimValidationRules.1", {"expression": "true"}, "username.expression: claims.email_verified must be"),
        ("jwt.0.claimMappings.groups.prefix", GONE, "jwt[0].claimMappings.groups.prefix: is required"),
        ("jwt.0.claimMappings.uid.expression", "a", "jwt[0].claimMappings.uid: claim and expression can't both"),
        ("jwt.0.claimMappings.uid.prefix", "a", "jwt[0].claimMappings.uid: unknown field prefix"),
        ("jwt.0.claimMappings.extra.0.key", "team", "extra[0].key: must be a domain-prefixed path"),
        ("jwt.0.claimMappings.extra.0.key", "example.org/Team", "extra[0].key: must be lowercase"),
        ("jwt.0.claimMappings.extra.0.key", "Example.org/team", "extra[0].key: must begin with a domain"),
        ("jwt.0.claimMappings.extra.0.key", "example.org/a b", "extra[0].key: must have a path"),
        ("jwt.0.claimMappings.extra.0.key", "k8s.io/team", "extra[0].key: k8s.io, kubernetes.io and their"),
        ("jwt.0.claimMappings.extra.0.key", "a.kubernetes.io/team", "extra[0].key: k8s.io, kubernetes.io and their"),
        ("jwt.0.claimMappings.extra.0.key", "kubebraid.io/team", "extra[0].key: kubebraid.io is reserved"),
        ("jwt.0.claimMappings.extra.0.key", "authentication.kubebraid.io/cluster", "extra[0].key: kubebraid.io is"),
        ("jwt.0.claimMappings.extra.0.valueExpression", "", "extra[0].valueExpression: is needed"),
        ("jwt.0.claimValidationRules.0", {}, "claimValidationRules[0]: claim or expression is required"),
        ("jwt.0.claimValidationRules.0.message", "m", "claimValidationRules[0].message: may not be specified"),
        ("jwt.0.claimValidationRules.0.expression", "true", "claimValidationRules[0]: claim and expression can't"),
        ("jwt.0.claimValidationRules.1.requiredValue", "v", "claimValidationRules[1].requiredValue: may not be"),
        ("jwt.0.claimValidationRules.1.expression", "claims.sub", "Rules[1].expression: 'claims.sub' must evaluate to"),
        ("jwt.0.claimValidationRules.1", {"claim": "hd"}, "claimValidationRules[1].claim: 'hd' stands twice"),
        ("jwt.0.userValidationRules.0.expression", "user.name == 'a'", "userValidationRules[0].expression: "),
        ("jwt.0.userValidationRules.0.expression", "claims.sub == 'a'", "userValidationRules[0].expression: "),
        ("jwt.0.userValidationRules.0.expression", GONE, "userValidationRules[0].expression: is needed"),
        ("anonymous.enabled", False, "anonymous.conditions: enabled should be set to true"),
        ("anonymous.enabled", GONE, "anonymous: enabled is needed"),
    ],
)
def test_what_may_not_stand_in_it_is_named(path: str, value: Any, said: str) -> None:
    document = copy.deepcopy(yaml.safe_load(WHOLE))
    at: Any = document
    *way, last = [int(part) if part.isdigit() else part for part in path.split(".")]
    for part in way:
        at = at[part]
    if value is GONE:
        del at[last]
    else:
        at[last] = value
    with pytest.raises(BadAccessFile) as caught:
        authentication_settings(yaml.safe_dump(document).encode())
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


def test_issuers_stand_once_and_are_not_too_many() -> None:
    document = yaml.safe_load(WHOLE)
    (first,) = document["jwt"]
    document["jwt"] = [first, {**first, "issuer": {**first["issuer"], "discoveryURL": ""}}]
    with pytest.raises(BadAccessFile, match=r"jwt\[1\]\.issuer\.url: 'https://issuer\.example' stands above already"):
        authentication_settings(yaml.safe_dump(document).encode())
    document["jwt"][1]["issuer"] = {**first["issuer"], "url": "https://another.example"}
    with pytest.raises(BadAccessFile, match=r"jwt\[1\]\.issuer\.discoveryURL: .* stands above already"):
        authentication_settings(yaml.safe_dump(document).encode())
    document["jwt"] = [first] * 65
    with pytest.raises(BadAccessFile, match="jwt: at most 64 issuers"):
        authentication_settings(yaml.safe_dump(document).encode())


@pytest.mark.parametrize("content", [b"", b"[]", b"text", b"\xff", b"a: b: c", b"{", b"a: &a [*a]"])
def test_what_is_no_document_is_named(content: bytes) -> None:
    with pytest.raises(BadAccessFile) as caught:
        authentication_settings(content)
    assert "\n" not in str(caught.value)
