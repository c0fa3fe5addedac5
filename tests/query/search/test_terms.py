"""Search parameters and search labels: each row of Clusterpedia's table, by query and by label, bad values included."""

from __future__ import annotations

from typing import Any
from urllib.parse import parse_qsl

import pytest

from deltalog.wire.kubernetes import GroupResource
from query.http.status import ApiError
from query.search.labels import PREFIX, SearchLabel, split_labels
from query.search.order import ListOrder, Term
from query.search.terms import PARAMETERS, ChosenNames, Search, SoughtOwner, is_offset, parse_search

DEPLOYMENTS = GroupResource("apps", "deployments")
NEW_YEAR = 1767225600


def of_labels(text: str) -> Search:
    """A search by labels. `@names=a` stands for the whole label."""
    return parse_search({"labelSelector": text.replace("@", PREFIX)})


def of_query(text: str) -> Search:
    return parse_search(dict(parse_qsl(text, keep_blank_values=True)))


def chosen(*only: str, without: str = "") -> ChosenNames:
    return ChosenNames(frozenset(only) if only else None, frozenset(without))


# Each row: the URL's query, the label selector, and what both ask for.
ROWS: list[tuple[str, str, dict[str, Any]]] = [
    ("clusters=a", "@clusters=a", {"clusters": chosen("a")}),
    ("clusters=a, b", "@clusters in (a, b)", {"clusters": chosen("a", "b")}),
    ("namespaces=a,b", "@namespaces in (b,a)", {"namespaces": chosen("a", "b")}),
    ("names=a,b", "@names in (a,b)", {"names": chosen("a", "b")}),
    ("fuzzyName=web", "internalstorage.clusterpedia.io/fuzzy-name=web", {"contains": ("web",)}),
    ("fuzzyName=b,a", "internalstorage.clusterpedia.io/fuzzy-name in (a,b)", {"contains": ("a", "b")}),
    ("fuzzyName=b,a", "@fuzzy-name=a,@fuzzy-name==b", {"contains": ("a", "b")}),
    ("since=2026-01-01", "@since=2026-01-01", {"since": NEW_YEAR}),
    ("since=2026-01-01T02:00:00%2B02:00", "@since=2026-01-01T00:00:00Z", {"since": NEW_YEAR}),
    ("before=2026-01-01 00:00:00", "@before='2026-01-01 00:00:00'", {"before": NEW_YEAR}),
    ("before=1767225600", "@before=1767225600", {"before": NEW_YEAR}),
    ("since=1767225600000", "@since=1767225599001", {"since": NEW_YEAR}),
    ("ownerUID=u", "@owner-uid=u", {"owner": SoughtOwner("u")}),
    ("ownerUID=u", "internalstorage.clusterpedia.io/owner-uid=u", {"owner": SoughtOwner("u")}),
    ("ownerUID=u&ownerSeniority=1", "@owner-uid=u,@owner-seniority=1", {"owner": SoughtOwner("u", seniority=1)}),
    ("ownerName=web", "@owner-name=web", {"owner": SoughtOwner(name="web")}),
    (
        "ownerName=web&ownerGR=deployments.apps&ownerSeniority=2",
        "@owner-name=web,@owner-gr=deployments.apps,@owner-seniority=2",
        {"owner": SoughtOwner(name="web", resource=DEPLOYMENTS, seniority=2)},
    ),
    (
        "ownerName=web&ownerGR=pods",
        "@owner-name=web,@owner-gr=pods",
        {"owner": SoughtOwner(name="web", resource=GroupResource("", "pods"))},
    ),
    # A uid says it all.
    ("ownerUID=u&ownerName=n", "@owner-uid=u,@owner-name=n", {"owner": SoughtOwner("u")}),
    ("orderby=name", "@orderby=name", {"order": ListOrder((Term("name"),))}),
    ("orderby=name desc", "@orderby=name_desc", {"order": ListOrder((Term("name", True),))}),
    (
        "orderby=namespace,created_at desc",
        "@orderby in (namespace, created_at_desc)",
        {"order": ListOrder((Term("namespace"), Term("created_at", True)))},
    ),
    (
        "orderby=resource_version desc,uid asc",
        "@orderby=resource_version_desc,@orderby=uid",
        {"order": ListOrder((Term("resource_version", True), Term("uid")))},
    ),
    ("continue=20", "@offset=20", {"offset": 20}),
    ("offset=20", "@offset=20", {"offset": 20}),
    ("withContinue=true", "@with-continue=true", {"with_continue": True}),
    ("withContinue=false", "@with-continue=false", {"with_continue": False}),
    ("withRemainingCount=1", "@with-remaining-count=true", {"with_remaining_count": True}),
    ("withRemainingCount=0", "@with-remaining-count=false", {"with_remaining_count": False}),
    ("injectEvents=true", "@inject-events=true", {"inject_events": True}),
    ("onlyMetadata=true", "@only-metadata=true", {"only_metadata": True}),
]


@pytest.mark.parametrize(("query", "labels", "wanted"), ROWS)
def test_by_query_and_by_label(query: str, labels: str, wanted: dict[str, Any]) -> None:
    assert of_query(query) == Search(**wanted)
    assert of_labels(labels) == Search(**wanted)


def test_every_label_has_a_row() -> None:
    labels = " ".join(row[1] for row in ROWS)
    # Those that are labels only, or have tests of their own.
    assert {name for name in PARAMETERS if name not in labels} == {"filter", "limit", "size", "forward"}


def test_a_filter_by_query_and_by_label() -> None:
    text = 'object.metadata.name in ["a", "b"] && cluster == "x"'
    for search in (parse_search({"filter": text}), of_labels(f"app=web,@filter='{text}',tier")):
        assert search.expression is not None
        assert search.expression.text == text
    assert of_labels(f"app=web, @filter='{text}',tier").label_selector == "app=web,tier"
    # The same quotes may stand within.
    assert of_labels("@filter='cluster == 'a''").expression is not None


@pytest.mark.parametrize(
    ("labels", "wanted"),
    [
        ("@clusters!=a", {"clusters": chosen(without="a")}),
        ("@clusters notin (a,b)", {"clusters": chosen(without="ab")}),
        ("@clusters in (a,b),@clusters!=b", {"clusters": chosen("a", "b", without="b")}),
        ("@clusters in (a,b),@clusters in (b,c)", {"clusters": chosen("b")}),
        ("@clusters", {}),
        ("!@clusters", {"clusters": ChosenNames(frozenset())}),
        ("@names!=a", {"names": chosen(without="a")}),
        ("@names", {}),
        ("!@names", {"names": ChosenNames(frozenset())}),
        ("@namespaces notin (a)", {"namespaces": chosen(without="a")}),
        # What has no namespace has the empty one.
        ("@namespaces", {"namespaces": ChosenNames(None, frozenset({""}))}),
        ("!@namespaces", {"namespaces": chosen("")}),
        ("@namespaces=", {"namespaces": chosen("")}),
        ("@fuzzy-name!=web", {"lacks": ("web",)}),
        ("@fuzzy-name notin (a,b),@fuzzy-name=c", {"contains": ("c",), "lacks": ("a", "b")}),
        ("@fuzzy-name", {}),
        ("@limit=7", {"limit": 7}),
        ("@size=7", {"limit": 7}),
        ("@limit=3,@size=7", {"limit": 3}),
        ("@forward=true", {"forward": True}),
        # Options that say nothing.
        ("@since=", {}),
        ("@orderby=", {}),
        ("@owner-uid=", {}),
        # A label's value has 63 characters and no colons; these are no labels.
        (f"@names={'n' * 200}", {"names": chosen("n" * 200)}),
    ],
)
def test_operators(labels: str, wanted: dict[str, Any]) -> None:
    assert of_labels(labels) == Search(**wanted)


@pytest.mark.parametrize(
    ("query", "labels", "wanted"),
    [
        ({"clusters": "a"}, "@clusters=b,@names=c", {"clusters": chosen("a"), "names": chosen("c")}),
        ({"clusters": "a"}, "@clusters!=a", {"clusters": chosen("a")}),
        ({"clusters": ""}, "@clusters=b", {"clusters": chosen("b")}),
        ({"since": "2026-01-01"}, "@since=2025-01-01", {"since": NEW_YEAR}),
        ({"ownerUID": "u"}, "@owner-uid=v,@owner-seniority=1", {"owner": SoughtOwner("u", seniority=1)}),
        ({"orderby": "name"}, "@orderby=uid_desc", {"order": ListOrder((Term("name"),))}),
        ({"fuzzyName": "a"}, "@fuzzy-name=b", {"contains": ("a",)}),
        ({"continue": "3"}, "@offset=9", {"offset": 3}),
        ({"continue": "eyJ2IjoiIn0"}, "@offset=9", {}),
        ({"withContinue": "false"}, "@with-continue=true", {"with_continue": False}),
    ],
)
def test_the_url_counts_before_the_label(query: dict[str, str], labels: str, wanted: dict[str, Any]) -> None:
    assert parse_search({**query, "labelSelector": labels.replace("@", PREFIX)}) == Search(**wanted)


@pytest.mark.parametrize(
    ("query", "part"),
    [
        ("since=yesterday", "since: 'yesterday' is no time"),
        ("before=12", "before: '12' is no time"),
        ("before=2026-13-01", "is no time"),
        ("since=2026-02-01&before=2026-01-01", "since is after before"),
        ("ownerSeniority=1", "ownerSeniority needs ownerUID or ownerName"),
        ("ownerGR=pods", "ownerGR needs ownerUID or ownerName"),
        ("ownerUID=u&ownerSeniority=-1", "is no number from 0 to 10"),
        ("ownerUID=u&ownerSeniority=11", "is no number from 0 to 10"),
        ("ownerName=u&ownerGR=.apps", "is no type"),
        ("orderby=size", "lists are sorted by cluster, namespace, name, created_at, resource_version, uid"),
        ("orderby=name down", "'name down'"),
        ("orderby=namespace name", "'namespace name'"),
        ("orderby=name_desc", "'name_desc'"),
        ("offset=-1", "offset: '-1' is no number"),
        ("withContinue=maybe", "withContinue: 'maybe' is neither true nor false"),
        ("withRemainingCount=2", "is neither true nor false"),
        ("onlyMetadata=x", "is neither true nor false"),
        ("injectEvents=x", "is neither true nor false"),
        ("filter=object.", "filter: column 8: Syntax error"),
        ("whereSQL=1=1", "there is no SQL here; write a CEL expression instead: filter="),
        ("whereSQLStatement=x", "whereSQLStatement: there is no SQL here"),
        ("whereSQLParam=x", "there is no SQL here"),
        ("whereSQLJSONParams=x", "there is no SQL here"),
    ],
)
def test_bad_values_of_queries(query: str, part: str) -> None:
    with pytest.raises(ApiError) as error:
        of_query(query)
    assert error.value.code == 400
    assert part in error.value.message


@pytest.mark.parametrize(
    ("labels", "part"),
    [
        ("@nothing=1", f"'{PREFIX}nothing' is no search label"),
        ("@nothing=1", f"there are {PREFIX}before, {PREFIX}clusters"),
        ("a,!clusterpedia.io/x", "'clusterpedia.io/x' is no search label"),
        ("internalstorage.clusterpedia.io/names=a", "is no search label"),
        ("@since=yesterday", f"{PREFIX}since: 'yesterday' is no time"),
        ("@since!=2026-01-01", f"{PREFIX}since is an option: write {PREFIX}since=<value>"),
        ("@since", "is an option"),
        ("!@limit", "is an option"),
        ("@limit notin (1)", "is an option"),
        ("@since in (2026-01-01,2026-01-02)", "has one value, and not 2026-01-01, 2026-01-02"),
        ("@limit=many", f"{PREFIX}limit: 'many' is no number"),
        ("@offset=-1", "is no number"),
        ("@owner-seniority=1", "needs ownerUID"),
        ("@owner-uid=u,@owner-seniority=x", f"{PREFIX}owner-seniority: 'x' is no number"),
        ("@orderby=name desc", "'name desc'"),
        ("@with-continue=x", "is neither true nor false"),
        ("@clusters>3", "'>3' is none of =, ==, !=, in (...), notin (...)"),
        ("!@clusters=3", "`!` stands before a label alone"),
        ("@clusters in a", "is none of"),
        ("@clusters in (a", "its parenthesis is not closed"),
        ("@clusters in (a) b", "a comma or the end is expected at 'b'"),
        ("@names=a(b", "a comma or the end is expected at '(b'"),
        ("@filter='cluster", "its quote ' is not closed"),
        ("@filter=cluster ==", "filter: column 11: Syntax error"),
        ("!@fuzzy-name", "every object has a name"),
    ],
)
def test_bad_search_labels(labels: str, part: str) -> None:
    with pytest.raises(ApiError) as error:
        of_labels(labels)
    assert error.value.code == 400
    assert part in error.value.message


def test_what_is_no_search_label_stays_a_selector_as_it_was() -> None:
    known = frozenset({"names"})
    for text in ("", "a=b", "a in (b,c),!d", "a=b,", ",", "a=(", "app.kubernetes.io/name=x"):
        assert split_labels(text, known) == ((), text)
    mixed = f"a in (b,c),{PREFIX}names in (x,y),!d,x in (y"
    assert split_labels(mixed, known) == ((SearchLabel("names", "in", ("x", "y")),), "a in (b,c),!d,x in (y")
    assert parse_search({"limit": "1"}) == Search()
    assert parse_search({"labelSelector": "a=b"}) == Search(label_selector="a=b")


def test_what_is_an_offset() -> None:
    assert [is_offset(one) for one in ("0", "20", "", "-1", "1.5", "eyJ2", "9" * 30)] == [
        *(True, True),
        *[False] * 5,
    ]
