"""Selectors: what a kube-apiserver takes and refuses (apimachinery pkg/labels and pkg/fields selector_test.go)."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deltalog.wire.selectors import BadSelector, Requirement, matches, parse_fields, parse_labels
from materializer.entry import Past
from materializer.filter import Filter

QUALIFIED = (
    "must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character "
    "(e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for validation is "
    "'([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]')"
)
VALUE = (
    "a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', and must start and "
    "end with an alphanumeric character (e.g. 'MyValue',  or 'my_value',  or '12345', regex used for validation is "
    "'(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?')"
)

# selector, labels that match, labels that don't
LABEL_CASES: list[tuple[str, list[dict[str, str]], list[dict[str, str]]]] = [
    ("", [{}, {"a": "b"}], []),
    ("  \t", [{}], []),
    ("x=a", [{"x": "a"}, {"x": "a", "y": "b"}], [{}, {"x": "b"}, {"y": "a"}]),
    ("x==a", [{"x": "a"}], [{"x": ""}]),
    (" x = a , y = b ", [{"x": "a", "y": "b"}], [{"x": "a"}, {"y": "b"}]),
    ("x=a,x=b", [], [{"x": "a"}, {"x": "b"}]),
    ("x!=a", [{}, {"x": "b"}, {"x": ""}], [{"x": "a"}]),
    ("x=", [{"x": ""}], [{}, {"x": "a"}]),
    ("x==,y=b", [{"x": "", "y": "b"}], [{"y": "b"}]),
    ("x!=", [{}, {"x": "a"}], [{"x": ""}]),
    ("x", [{"x": ""}, {"x": "a"}], [{}, {"y": "x"}]),
    ("!x", [{}, {"y": "x"}], [{"x": ""}, {"x": "a"}]),
    ("! x", [{}], [{"x": ""}]),
    ("x,!y", [{"x": "1"}], [{"x": "1", "y": "1"}, {}]),
    ("x in (a)", [{"x": "a"}], [{}, {"x": "b"}]),
    ("x in (a,b)", [{"x": "a"}, {"x": "b"}], [{"x": "c"}, {}]),
    ("x in(a,b),y notin(c)", [{"x": "a"}, {"x": "b", "y": "d"}], [{"x": "a", "y": "c"}]),
    ("x in (a,)", [{"x": "a"}, {"x": ""}], [{}, {"x": "b"}]),
    ("x in (,a)", [{"x": "a"}, {"x": ""}], [{}]),
    ("x in ()", [{"x": ""}], [{}, {"x": "a"}]),
    ("x in (a,,b)", [{"x": "a"}, {"x": ""}, {"x": "b"}], [{"x": "c"}]),
    ("x notin (a,b)", [{}, {"x": "c"}, {"x": ""}], [{"x": "a"}, {"x": "b"}]),
    ("x notin ()", [{}, {"x": "a"}], [{"x": ""}]),
    ("x in (in,notin)", [{"x": "in"}, {"x": "notin"}], [{"x": "a"}]),
    ("in in (notin)", [{"in": "notin"}], [{"in": "in"}]),
    ("notin=in", [{"notin": "in"}], [{}]),
    ("x>1", [{"x": "2"}, {"x": "10"}], [{}, {"x": "1"}, {"x": "0"}, {"x": "a"}, {"x": "1.5"}, {"x": ""}]),
    ("x<10", [{"x": "9"}, {"x": "-1"}], [{}, {"x": "10"}, {"x": "a"}]),
    ("x>1,x<5", [{"x": "3"}], [{"x": "1"}, {"x": "5"}]),
    ("example.com/app=a", [{"example.com/app": "a"}], [{"app": "a"}]),
    ("x=a.b_c-D9", [{"x": "a.b_c-D9"}], [{"x": "a"}]),
]

BAD_LABELS = [
    ",",
    ",x=a",
    "x=a,",
    "x=a,,y=b",
    "!",
    "!,x",
    "!x=a",
    "x=a=b",
    "x==a==b",
    "x=!a",
    "x a",
    "x in",
    "x in a",
    "x in (a",
    "x in (a b)",
    "x in (a))",
    "x in ((a))",
    "x in (a=b)",
    "x notin",
    "(x=a)",
    "=a",
    "x!a",
    "x=>a",
    "x>=1",
    "x>a",
    "x<",
    "x>",
    "x>1.5",
    "x=a b",
    "x=-a",
    "x=a-",
    "x=a/b",
    "x=ü",
    "-x=a",
    "x-=a",
    "/x=a",
    "a/=b",
    "a/b/c=d",
    "A.b/c=d",
    "a..b/c=d",
    "x=" + "a" * 64,
    "x" * 64 + "=a",
    "a" * 254 + "/x=a",
    "x in (a,-b)",
]


@pytest.mark.parametrize(("text", "good", "bad"), LABEL_CASES, ids=[case[0] for case in LABEL_CASES])
def test_label_selectors(text: str, good: list[dict[str, str]], bad: list[dict[str, str]]) -> None:
    requirements = parse_labels(text)
    assert [labels for labels in good if not matches(requirements, labels)] == []
    assert [labels for labels in bad if matches(requirements, labels)] == []


@pytest.mark.parametrize("text", BAD_LABELS)
def test_bad_label_selectors(text: str) -> None:
    with pytest.raises(BadSelector, match=r"^(unable to parse requirement: \S|found ')"):
        parse_labels(text)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("x=a,", "found '', expected: identifier after ','"),
        ("x=a=b", "found '=', expected: ',' or 'end of string'"),
        ("x in a", "unable to parse requirement: found 'a' expected: '('"),
        ("=a", "found '=', expected: !, identifier, or 'end of string'"),
        ("x notin (a", "unable to parse requirement: found '', expected: ',' or ')'"),
        ("x notin (", "unable to parse requirement: found '', expected: ',', ')' or identifier"),
        ("x in (a,", "unable to parse requirement: found '', expected: ',', or identifier"),
        ("x in (a,,)", "unable to parse requirement: found ')', expected: ',', or identifier"),
        ("!", "unable to parse requirement: found '', expected: identifier"),
        ("x a", "unable to parse requirement: found 'a', expected: in, notin, =, ==, !=, gt, lt"),
        ("x(", "unable to parse requirement: found '(', expected: in, notin, =, ==, !=, gt, lt"),
        ("/x", 'unable to parse requirement: <nil>: Invalid value: "/x": prefix part must be non-empty'),
        ('"', f'unable to parse requirement: <nil>: Invalid value: "\\"": name part {QUALIFIED}'),
        (
            "a/",
            'unable to parse requirement: <nil>: Invalid value: "a/": name part must be non-empty; '
            f"name part {QUALIFIED}",
        ),
        (
            "a/b/c",
            f'unable to parse requirement: <nil>: Invalid value: "a/b/c": a qualified name {QUALIFIED} with an '
            "optional DNS subdomain prefix and '/' (e.g. 'example.com/MyName')",
        ),
        (
            "A/b",
            'unable to parse requirement: <nil>: Invalid value: "A/b": prefix part a lowercase RFC 1123 subdomain must '
            "consist of lower case alphanumeric characters, '-' or '.', and must start and end with an alphanumeric "
            "character (e.g. 'example.com', regex used for validation is "
            r"'[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')",
        ),
        (
            "x=" + "a" * 64,
            f'unable to parse requirement: values[0][x]: Invalid value: "{"a" * 64}": must be no more than 63 bytes',
        ),
        ("x=-a", f'unable to parse requirement: values[0][x]: Invalid value: "-a": {VALUE}'),
        # Sorted, and all of them.
        (
            "x in (c,-b,-a)",
            f'unable to parse requirement: [values[0][x]: Invalid value: "-a": {VALUE}, '
            f'values[1][x]: Invalid value: "-b": {VALUE}]',
        ),
        (
            "x>",
            'unable to parse requirement: values[0]: Invalid value: "": '
            "for 'Gt', 'Lt' operators, the value must be an integer",
        ),
        ("x<-1", f'unable to parse requirement: values[0][x]: Invalid value: "-1": {VALUE}'),
        (
            "x=a\u0001\u00fc\u200b\t",
            f'unable to parse requirement: values[0][x]: Invalid value: "a\\x01ü\\u200b": {VALUE}',
        ),
    ],
)
def test_messages_are_the_apiservers(text: str, message: str) -> None:
    with pytest.raises(BadSelector) as raised:
        parse_labels(text)
    assert str(raised.value) == message


def test_longest_names_are_taken() -> None:
    prefix = ".".join(["a" * 63] * 3 + ["b" * 61])
    assert len(prefix) == 253
    key = f"{prefix}/{'x' * 63}"
    assert matches(parse_labels(f"{key}={'v' * 63}"), {key: "v" * 63})


def test_numbers_beyond_64_bits_are_refused() -> None:
    """strconv.ParseInt: a selector with one is refused, a label with one is not greater than anything."""
    assert not matches(parse_labels("x>1"), {"x": str(2**63)})
    with pytest.raises(BadSelector):
        parse_labels(f"x>{2**63}")
    with pytest.raises(BadSelector):
        parse_labels("x>" + "1" * 5000)
    # A value that is too long for a label is a number all the same.
    with pytest.raises(BadSelector, match=r"must be no more than 63 bytes$"):
        parse_labels("x>" + "0" * 5000 + "1")
    assert not matches(parse_labels("x>1"), {"x": "9" * 5000})
    assert matches(parse_labels("x>0"), {"x": "+001"})


def test_equal_selectors_are_one() -> None:
    assert parse_labels("b=1,a in (y,x,y)") == parse_labels("a in (x,y) , b == 1")
    assert parse_labels("x=a") == (Requirement("x", "in", ("a",)),)
    assert parse_labels("x notin (b,a)") == (Requirement("x", "notin", ("a", "b")),)


@given(st.text("xyin=!,()<> \tao/.-1", max_size=20) | st.text())
def test_label_parsing_raises_nothing_else(text: str) -> None:
    try:
        requirements = parse_labels(text)
    except BadSelector:
        return
    assert matches(requirements, {}) in (True, False)


@given(st.text("metadata.name=!,\\ ab", max_size=20) | st.text())
def test_field_parsing_raises_nothing_else(text: str) -> None:
    try:
        requirements = parse_fields(text, lambda key: True)
    except BadSelector:
        return
    assert {operator for _, operator, _ in requirements} <= {"in", "notin"}


LABEL = st.text("abz09", min_size=1, max_size=3)


@given(st.dictionaries(LABEL, LABEL, max_size=3), st.dictionaries(LABEL, LABEL, max_size=3))
def test_equalities_mean_a_subset(wanted: dict[str, str], labels: dict[str, str]) -> None:
    text = ",".join(f"{key}={value}" for key, value in wanted.items())
    assert matches(parse_labels(text), labels) == (wanted.items() <= labels.items())


@given(LABEL, st.lists(LABEL, min_size=1, max_size=4), st.dictionaries(LABEL, LABEL, max_size=3))
def test_sets_and_their_negations(key: str, values: list[str], labels: dict[str, str]) -> None:
    listed = ",".join(values)
    assert matches(parse_labels(f"{key} in ({listed})"), labels) == (labels.get(key) in values)
    assert matches(parse_labels(f"{key} notin ({listed})"), labels) == (labels.get(key) not in values)


def selects(text: str, fields: dict[str, str]) -> bool:
    return Filter(fields=parse_fields(text, lambda key: key in ("f", "a.b", "spec.nodeName"))).selects(
        Past(1, {}, fields, "")
    )


@pytest.mark.parametrize(
    ("text", "good", "bad"),
    [
        ("", [{}, {"f": "a"}], []),
        (",,", [{}], []),
        ("f=a", [{"f": "a"}], [{}, {"f": "b"}]),
        ("f==a", [{"f": "a"}], [{"f": "b"}]),
        ("f!=a", [{}, {"f": "b"}], [{"f": "a"}]),
        ("f=", [{}, {"f": ""}], [{"f": "a"}]),
        ("f!=", [{"f": "a"}], [{}, {"f": ""}]),
        ("f=a,a.b=c", [{"f": "a", "a.b": "c"}], [{"f": "a"}]),
        ("f=a,f=b", [], [{"f": "a"}, {"f": "b"}]),
        ("f!=a,f!=b", [{}, {"f": "c"}], [{"f": "a"}, {"f": "b"}]),
        ("f=a,", [{"f": "a"}], [{}]),
        (r"f=a\,b", [{"f": "a,b"}], [{"f": "a"}]),
        (r"f=a\=b", [{"f": "a=b"}], [{"f": "a"}]),
        (r"f=a\\b", [{"f": "a\\b"}], [{"f": "ab"}]),
        (r"f=\\,a.b=\,", [{"f": "\\", "a.b": ","}], [{}]),
        ("f=a b", [{"f": "a b"}], [{"f": "a"}]),
        ("f=a!b", [{"f": "a!b"}], [{"f": "a"}]),
        ("spec.nodeName=n-1", [{"spec.nodeName": "n-1"}], [{}]),
    ],
)
def test_field_selectors(text: str, good: list[dict[str, str]], bad: list[dict[str, str]]) -> None:
    assert [fields for fields in good if not selects(text, fields)] == []
    assert [fields for fields in bad if selects(text, fields)] == []


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("f,a", "invalid selector: 'f,a'; can't understand 'a'"),
        ("f=a=b", "invalid field selector: unescaped character in value: 61"),
        (r"f=a\b", r"invalid field selector: invalid escape sequence: \b"),
        ("f=a\\", "invalid field selector: invalid escape sequence: \\"),
        # What cannot be read is told before what there is not, and of several the first by name.
        ("y=1,x=2,f", "invalid selector: 'y=1,x=2,f'; can't understand 'f'"),
        ("y=1,x=2", "field label not supported: x"),
        (r"y\=1", "field label not supported: y" + "\\"),
    ],
)
def test_messages_of_fields_are_the_apiservers(text: str, message: str) -> None:
    with pytest.raises(BadSelector) as raised:
        selects(text, {})
    assert str(raised.value) == message


@pytest.mark.parametrize("text", ["f", "f,a.b=c", "f=a=b", "f==a=b", r"f=a\b", "f=a\\", "!f", "f!a"])
def test_bad_field_selectors(text: str) -> None:
    with pytest.raises(BadSelector, match=r"^(invalid field selector: |invalid selector: .*; can't understand )"):
        selects(text, {})


@pytest.mark.parametrize("text", ["g=a", "=a", " f=a", "f =a", "!=a", r"f\=a"])
def test_fields_a_type_does_not_have(text: str) -> None:
    with pytest.raises(BadSelector, match=r"^field label not supported: "):
        selects(text, {})


def test_filters_are_values() -> None:
    one = Filter(labels=parse_labels("a=b,c"), namespaces=frozenset({"x"}))
    assert one == Filter(labels=parse_labels("c,a==b"), namespaces=frozenset({"x"}))
    assert hash(one) == hash(Filter(labels=parse_labels("c,a==b"), namespaces=frozenset({"x"})))
    assert one.selective
    assert not Filter(namespaces=frozenset({"x"}), names=frozenset({"n"}), clusters=frozenset(["a"])).selective
