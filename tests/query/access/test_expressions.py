"""Expressions in CEL: what they may say, what they evaluate to, and what is refused when they are read."""

from __future__ import annotations

from typing import Any

import pytest
from cel_expr_python import cel

from query.access.errors import BadAccessFile
from query.access.expressions import ANY, BOOL, STRING, STRINGS, ExpressionFailed, Language

CLAIMS = Language({"claims": cel.Type.Map(STRING, ANY)})
USER = Language({"user.username": STRING, "user.groups": STRINGS}, always=("user.username", "user.groups"))
DATA = {
    "claims": {
        "sub": "jane",
        "email": "Jane@Example.com",
        "groups": ["dev", "ops", "dev"],
        "n": [3.0, 1.0, 2.0],
        "one": 1.0,
        "nothing": None,
        "a.b": {"c-d": "deep", "e__f": "f"},
        "in": "keyword",
        "home": "https://jane@example.com:8443/a%20b?x=1&x=2",
    }
}


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("'oidc:' + claims.sub", "oidc:jane"),
        ("claims.?missing.orValue('none')", "none"),
        ("has(claims.missing)", False),
        ("claims.groups.exists(g, g == 'ops')", True),
        ("claims.groups.map(g, 'x:' + g)", ["x:dev", "x:ops", "x:dev"]),
        ("claims.groups.filter(g, g != 'ops').distinct()", ["dev"]),
        ("claims.groups.all(i, g, i < 3)", True),
        ("claims.email.lowerAscii().split('@')", ["jane", "example.com"]),
        ("sets.contains(claims.groups, ['dev'])", True),
        ("base64.encode(b'jane')", "amFuZQ=="),
        ("claims.one == 1", True),
        ("claims.nothing", None),
        ("claims.email.find('[0-9]')", ""),
        ("claims.email.find('E[a-z]*')", "Example"),
        ("claims.email.findAll('[A-Z]')", ["J", "E"]),
        ("claims.email.findAll('[A-Z]', 1)", ["J"]),
        ("[claims.n.sum(), claims.n.min(), claims.n.max()]", [6.0, 1.0, 3.0]),
        ("[claims.n.isSorted(), [1, 2, 2].isSorted()]", [False, True]),
        ("url(claims.home).getHostname()", "example.com"),
        (
            "url(claims.home).getHost() + url(claims.home).getPort() + url(claims.home).getScheme()",
            "example.com:84438443https",
        ),
        ("url(claims.home).getQuery()['x']", ["1", "2"]),
        ("url(claims.home).getEscapedPath()", "/a%20b"),
        ("[isURL(claims.home), isURL('no url'), isURL('/a'), isURL('https://a:b')]", [True, False, True, False]),
        ("claims.a__dot__b.c__dash__d", "deep"),
        ("claims.a__dot__b.e__underscores__f", "f"),
        ("has(claims.a__dot__b) && !has(claims.b__dot__a) && has(claims.a__dot__b.c__dash__d)", True),
        ("claims.__in__", "keyword"),
        ("'claims.a__dot__b'  // claims.a__dot__b", "claims.a__dot__b"),
    ],
)
def test_expressions_have_values(text: str, value: Any) -> None:
    assert CLAIMS.read(text).evaluate(DATA) == value


@pytest.mark.parametrize(
    "text",
    [
        "claims.missing",
        "claims.sub + 1",
        "claims.one.startsWith('a')",
        "claims.a__dot__c",
        "claims.?missing",
        "claims.sub.find('(')",
        "('x' + claims.email).find('.') == '' || [].min() == 1",
        "url('no url').getHost()",
        f"'{'a' * 5000}'.find('a')",
        "claims.groups.all(a, " * 12 + "[1,2,3,4,5,6,7,8,9,10].all(z, true)" + ")" * 12,
    ],
)
def test_expressions_without_a_value_fail(text: str) -> None:
    with pytest.raises(ExpressionFailed):
        CLAIMS.read(text).evaluate(DATA)


@pytest.mark.parametrize(
    "text", ["", "claims.", "another.sub", "claims.sub +", "ip('::1')", "claims.sub.nothing()", "1 + 'a'", "user.name"]
)
def test_what_is_no_expression_is_refused_when_it_is_read(text: str) -> None:
    with pytest.raises(BadAccessFile, match="is no expression") as caught:
        CLAIMS.read(text)
    assert "\n" not in str(caught.value)


def test_a_type_may_be_needed() -> None:
    assert CLAIMS.read("claims.sub == 'jane'", BOOL).evaluate(DATA) is True
    for text in ("claims.sub", "'true'", "1"):
        with pytest.raises(BadAccessFile, match="must evaluate to bool"):
            CLAIMS.read(text, BOOL)


def test_fields_of_a_variable_have_types() -> None:
    data = {"user.username": "jane", "user.groups": ["dev"]}
    text = "has(user.username) && !user.username.startsWith('system:') && user.groups.all(g, g != 'has(user.groups)')"
    assert USER.read(text, BOOL).evaluate(data) is True
    for wrong in ("user.name == 'a'", "user.username == 1", "user.groups.all(g, g > 1)", "user == 'a'"):
        with pytest.raises(BadAccessFile):
            USER.read(wrong, BOOL)


@pytest.mark.parametrize(
    ("text", "selects"),
    [
        ("claims.email", True),
        ("'a' + claims . email.lowerAscii()", True),
        ("claims.?email.orValue('')", True),
        ("claims.email_verified", False),
        ("'claims.email' + claims.sub", False),
        ("claims['email']", False),
        ("claims.sub // claims.email", False),
        ("has(claims.email)", True),
        ("claims.nested.claims.email", False),
    ],
)
def test_it_is_known_which_fields_an_expression_selects(text: str, selects: bool) -> None:
    assert CLAIMS.read(text).selects("claims", "email") is selects
