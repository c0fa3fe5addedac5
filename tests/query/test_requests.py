"""What requests ask: Accept, options, search and selection, each parsed once and without a server."""

from __future__ import annotations

import itertools
from random import Random

import pytest
from aiohttp.test_utils import make_mocked_request
from multidict import CIMultiDict, CIMultiDictProxy

from deltalog.wire.kubernetes import GroupResource
from deltalog.wire.resource_type import ResourceType
from deltalog.wire.selectors import Requirement
from materializer.filter import Filter
from query.access.authorization.attributes import attributes_of
from query.discovery.catalogue import ServedType
from query.discovery.paths import RequestTarget
from query.http.accept import Accept, DocumentForm, Form
from query.http.request import Request
from query.http.status import ApiError
from query.objects.options import Options, asks_watch, parse_options
from query.objects.selection import selection_of
from query.search.terms import Search, parse_search

PODS = GroupResource("", "pods")
SERVED = ServedType(PODS, "pods", ResourceType(group="", resource="pods", version="v1", kind="Pod"), ("v1",), {})
TARGET = RequestTarget("", "v1", "pods")


def selected(cluster: str | None = None, target: RequestTarget = TARGET, /, **query: str) -> Filter:
    options = parse_options(query, watch=asks_watch(query))
    return selection_of(target, SERVED, options, parse_search(query), cluster)


def refusal(**query: str) -> ApiError:
    with pytest.raises(ApiError) as error:
        selected(**query)
    return error.value


# -- accept ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("", []),
        ("application/json", ["application/json"]),
        ("a/b;q=0.5, c/d, e/f;q=0.5", ["c/d", "a/b", "e/f"]),
        ("a/b;q=0, c/d;q=x, E/F", ["e/f"]),
    ],
)
def test_media_ranges_in_the_order_of_preference(text: str, names: list[str]) -> None:
    accept = Accept(text)
    assert [media.name for media in accept.ranges] == names
    assert accept.any is (not text)


def test_lines_of_a_header_are_one_list() -> None:
    headers = CIMultiDictProxy(CIMultiDict([("Accept", "a/b;q=0.1"), ("accept", "application/yaml")]))
    accept = Accept.of(headers)
    assert accept.prefers_yaml()
    assert accept.document() == DocumentForm(in_yaml=True)


def test_a_header_of_nothing_acceptable_is_not_a_missing_one() -> None:
    for text in (",", "application/json;q=0", "text/html"):
        for negotiate in (Accept(text).document, lambda text=text: Accept(text).objects(listing=True)):
            with pytest.raises(ApiError) as error:
                negotiate()
            assert error.value.code == 406
    assert Accept(" ").objects(listing=True).form is Form.OBJECT


def test_a_watch_takes_the_form_of_its_list_and_no_yaml() -> None:
    text = "application/yaml, application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1"
    assert Accept(text).objects(listing=True).in_yaml
    watch = Accept(text).objects(listing=True, streaming=True)
    assert (watch.form, watch.in_yaml) == (Form.METADATA, False)
    with pytest.raises(ApiError):
        Accept("application/yaml").objects(listing=True, streaming=True)


# -- options and search ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "watch"), [("1", True), ("true", True), ("", True), ("0", False), ("false", False), ("FALSE", False)]
)
def test_what_asks_for_a_watch(value: str, watch: bool) -> None:
    assert asks_watch({"watch": value}) is watch


def test_a_query_without_options_has_the_defaults() -> None:
    assert parse_options({"pretty": "1"}, watch=False) == Options(watch=False)
    begins = Options(watch=True, match="NotOlderThan", initial_events=True)
    assert parse_options({"clusters": "a"}, watch=True) == begins
    assert parse_options({"continue": ""}, watch=False) == Options(watch=False)
    assert parse_search({"limit": "1"}) == Search()


def test_a_watch_without_a_version_begins_with_the_state() -> None:
    """apimachinery internalversion: SetListOptionsDefaults."""
    for query, initial in (
        ({}, True),
        ({"allowWatchBookmarks": "1"}, True),
        ({"resourceVersion": "0"}, True),
        ({"resourceVersion": "h.7"}, None),
        ({"sendInitialEvents": "false", "resourceVersionMatch": "NotOlderThan"}, False),
        ({"sendInitialEvents": "true", "resourceVersionMatch": "NotOlderThan", "resourceVersion": "h.7"}, True),
    ):
        assert parse_options(query, watch=True).initial_events is initial
        if "sendInitialEvents" not in query:
            assert parse_options(query, watch=False).initial_events is None


FORBIDDEN = 'ListOptions.meta.k8s.io "" is invalid: {}'
SEND = "resourceVersionMatch: Forbidden: sendInitialEvents requires setting resourceVersionMatch to NotOlderThan"
MATCH = "resourceVersionMatch: Forbidden: resourceVersionMatch is forbidden"


@pytest.mark.parametrize(
    ("query", "text"),
    [
        # What kube-apiserver 1.36 says (apimachinery internalversion/validation).
        ({"limit": ""}, 'strconv.ParseInt: parsing "": invalid syntax'),
        ({"limit": "many"}, 'strconv.ParseInt: parsing "many": invalid syntax'),
        ({"limit": "٣"}, 'strconv.ParseInt: parsing "٣": invalid syntax'),
        ({"limit": "9" * 30}, f'strconv.ParseInt: parsing "{"9" * 30}": value out of range'),
        ({"limit": "9" * 9999}, f'strconv.ParseInt: parsing "{"9" * 64}": value out of range'),
        ({"timeoutSeconds": ""}, 'strconv.ParseInt: parsing "": invalid syntax'),
        ({"watch": "1", "timeoutSeconds": "1.5"}, 'strconv.ParseInt: parsing "1.5": invalid syntax'),
        ({"resourceVersionMatch": "Exact"}, f"{MATCH} unless resourceVersion is provided"),
        (
            {"resourceVersionMatch": "Exact", "continue": "x"},
            f"[{MATCH} unless resourceVersion is provided, {MATCH} when continue is provided]",
        ),
        (
            {"resourceVersionMatch": 'a"b', "resourceVersion": "0"},
            'resourceVersionMatch: Unsupported value: "a\\"b": supported values: "Exact", "NotOlderThan", ""',
        ),
        (
            {"resourceVersionMatch": "Exact", "resourceVersion": "0"},
            'resourceVersionMatch: Forbidden: resourceVersionMatch "exact" is forbidden for resourceVersion "0"',
        ),
        ({"sendInitialEvents": "1"}, "sendInitialEvents: Forbidden: sendInitialEvents is forbidden for list"),
        (
            {"watch": "1", "sendInitialEvents": "1"},
            SEND,
        ),
        (
            {"watch": "1", "sendInitialEvents": "1", "resourceVersionMatch": "Exact"},
            f'[{SEND}, resourceVersionMatch: Unsupported value: "Exact": supported values: "NotOlderThan"]',
        ),
        (
            {"watch": "1", "resourceVersionMatch": "Exact"},
            f"[{MATCH} for watch unless sendInitialEvents is provided, "
            'resourceVersionMatch: Unsupported value: "Exact": supported values: "NotOlderThan"]',
        ),
        (
            {"watch": "1", "resourceVersionMatch": "NotOlderThan", "continue": "x", "sendInitialEvents": "1"},
            f"{MATCH} when continue is provided",
        ),
    ],
)
def test_texts_of_options_that_do_not_go(query: dict[str, str], text: str) -> None:
    error = refusal(**query)
    parses = "strconv" in text
    assert (error.code, error.message) == ((400, text) if parses else (422, FORBIDDEN.format(text)))
    assert parses or [one["field"] for one in error.details["causes"]]


def test_a_watch_by_the_path_of_one_object_selects_no_other() -> None:
    target = RequestTarget("", "v1", "pods", "x", "a", watch=True)
    for selector in ("metadata.name=b", "status.phase=Running", "metadata.name!=a"):
        with pytest.raises(ApiError) as error:
            selected(None, target, fieldSelector=selector)
        assert (error.value.code, error.value.message) == (
            400,
            "fieldSelector metadata.name doesn't match requested name",
        )
    for selector in ("", "metadata.name=a", "metadata.name==a,status.phase=Running"):
        assert selected(None, target, fieldSelector=selector).names == frozenset("a")


# -- selection ---------------------------------------------------------------------------------------------------------


def test_the_scope_and_the_path_count_more_than_the_search() -> None:
    query = {"clusters": "a,b", "namespaces": "x,y", "names": "n"}
    assert selected(**query) == Filter(clusters=frozenset("ab"), namespaces=frozenset("xy"), names=frozenset("n"))
    target = RequestTarget("", "v1", "pods", "z")
    assert selected("c", target, **query) == Filter(
        clusters=frozenset("c"), namespaces=frozenset("z"), names=frozenset("n")
    )


def test_field_selectors_of_names_restrict_them() -> None:
    assert selected(names="a,b", fieldSelector="metadata.name=b").names == frozenset("b")
    assert selected(names="a,b", fieldSelector="metadata.name=c").names == frozenset()
    found = selected(fieldSelector="metadata.name!=a,metadata.name!=b,metadata.namespace=x,status.phase=Running")
    assert (found.names, found.not_names, found.namespaces) == (None, frozenset("ab"), frozenset("x"))
    assert [(one.key, one.values) for one in found.fields] == [("status.phase", ("Running",))]


def test_selectors_that_are_refused() -> None:
    # In Kubernetes' words what is written in its grammar, else with the column.
    assert refusal(fieldSelector="metadata.name=a\\x").message.startswith("invalid field selector: invalid escape")
    assert refusal(fieldSelector="a b").message == "invalid selector: 'a b'; can't understand 'a b'"
    assert refusal(fieldSelector="a..b=1").message == "field label not supported: a..b"
    assert refusal(fieldSelector="spec.n>x").message == "fieldSelector: column 8: an integer is expected: 'x'"
    assert refusal(labelSelector="a=b=c").code == 400
    assert "ownerSeniority are for lists" in refusal(ownerUID="u", ownerSeniority="1", watch="1").message
    assert "ownerName and" in refusal(ownerName="u", watch="1").message


def test_fields_that_indexes_know_are_not_looked_for_in_bodies() -> None:
    found = selected(fieldSelector="status.phase in (Running,Failed),metadata.labels.app=a,!metadata.labels['x/y']")
    assert found.fields == (Requirement("status.phase", "in", ("Failed", "Running")),)
    assert found.labels == (Requirement("app", "in", ("a",)), Requirement("x/y", "!", ()))
    assert found.where is None
    found = selected(fieldSelector="metadata.name in (a,b),metadata.namespace notin (x),spec.nodeName=")
    assert (found.names, found.not_namespaces, found.where) == (frozenset("ab"), frozenset("x"), None)
    # Whether there is a value, and what a value is that is no text, is a matter of the body.
    for selector in ("status.phase", "metadata.labels.app=", "spec.containers[].image=x", "metadata.uid=u"):
        assert selected(fieldSelector=selector).where is not None


@pytest.mark.parametrize("value", ["", "'", '"', "x", "(", ")", "[", "]", "['", "']", "a,b", "=", "!", ".", " ", ">"])
def test_the_name_that_decides_about_a_list_restricts_it(value: str) -> None:
    """Whatever stands around it: authorization reads Kubernetes' grammar."""
    odd = (f"spec.x!={value}", f"spec.x{value}!=1", f"{value}", f"x{value}=1", f"metadata.annotations['x=1{value}")
    for before, after in itertools.product(odd, (*odd, f"b={value}", "y']!=1", "b='", "')", "b=')", 'b="')):
        text = f"{before},metadata.name=allowed,{after}"
        what = attributes_of("GET", ["api", "v1", "pods"], {"fieldSelector": text})
        try:
            found = selected(fieldSelector=text)
        except ApiError:
            continue
        assert not what.name or found.names == frozenset({what.name}), text


def test_labels_that_decide_about_a_list_restrict_it() -> None:
    """Authorization reads all of a label selector; what is taken out of it as a search label takes nothing along."""
    chance, allowed, decided = Random(5), Requirement("app", "in", ("ok",)), 0
    pieces = [
        "search.clusterpedia.io/names",
        "app=ok",
        "=",
        "!=",
        "in",
        "(",
        ")",
        ",",
        "'",
        '"',
        " ",
        "!",
        "a",
        "\0",
        "b=c",
    ]
    for _ in range(20_000):
        around = ["".join(chance.choice(pieces) for _ in range(chance.randrange(6))) for _ in range(2)]
        text = f"{around[0]},app=ok,{around[1]}" if chance.random() < 0.7 else "app=ok".join(around)
        what = attributes_of("GET", ["api", "v1", "pods"], {"labelSelector": text})
        if not any((one.key, one.operator, one.values) == ("app", "In", ("ok",)) for one in what.labels):
            continue
        try:
            found = selected(labelSelector=text)
        except ApiError:
            continue
        decided += 1
        assert allowed in found.labels, repr(text)
    assert decided > 100


def test_field_selectors_that_are_parted_as_kubernetes_parts_them() -> None:
    found = selected(fieldSelector="spec.x='a',metadata.name=n,spec.containers[].image!=b=".rstrip("="))
    assert found.names == frozenset("n")
    assert found.where is not None
    assert selected(fieldSelector="spec.x='a'") == selected(fieldSelector=".spec.x = a")
    assert selected(fieldSelector=".metadata.name=n").names == frozenset("n")
    assert selected(fieldSelector="spec.x!='a,metadata.name=n,b='").names == frozenset("n")
    assert refusal(fieldSelector="metadata.annotations['x=1,metadata.name=n,y']!=1").code == 400


def test_an_expression_narrows_by_what_indexes_know() -> None:
    text = (
        'cluster == "a" && object.status.phase == "Running" && object.metadata.labels.app == "b" && object.spec.n > 3'
    )
    found = selected(filter=text, clusters="a,b")
    assert found.clusters == frozenset("a")
    assert found.fields == (Requirement("status.phase", "in", ("Running",)),)
    assert found.labels == (Requirement("app", "in", ("b",)),)
    assert found.where is not None
    assert found == selected(filter=text, clusters="a")
    assert found != selected(filter=text.replace("3", "4"), clusters="a")
    # What else is asked for restricts further.
    assert selected("b", filter=text).clusters == frozenset()
    assert selected(names="x", filter='object.metadata.name in ["x", "y"]').names == frozenset("x")
    assert selected(fuzzyName="a", filter='object.metadata.name.contains("b")').parts == ("a", "b")


def test_what_searches_exclude() -> None:
    def by(labels: str) -> Filter:
        return selected(labelSelector=labels.replace("@", "search.clusterpedia.io/"))

    assert by("@clusters!=a,@namespaces!=b,@names!=c,@fuzzy-name!=d,app=e") == Filter(
        not_clusters=frozenset("a"),
        not_namespaces=frozenset("b"),
        not_names=frozenset("c"),
        not_parts=("d",),
        labels=(Requirement("app", "in", ("e",)),),
    )
    # The path is stronger.
    target = RequestTarget("", "v1", "pods", "z")
    found = selected(
        "a", target, labelSelector="search.clusterpedia.io/clusters!=a,search.clusterpedia.io/namespaces!=z"
    )
    assert found == Filter(clusters=frozenset("a"), namespaces=frozenset("z"))


def test_a_version_selects_where_clusters_have_several() -> None:
    both = ServedType(PODS, "pods", SERVED.info, ("v1", "v2"), {"a": "v1", "b": "v2"})
    assert selection_of(TARGET, both, Options(watch=False), Search(), None).version == "v1"
    assert selected().version is None


# -- the request -------------------------------------------------------------------------------------------------------


def test_an_error_has_the_form_that_is_preferred_until_one_was_negotiated() -> None:
    request = Request(make_mocked_request("GET", "/", headers={"Accept": "application/yaml", "User-Agent": "x"}))
    assert request.failure(ApiError(404, "no")).content_type == "application/yaml"
    request.in_yaml = False
    assert request.failure(ApiError(404, "no")).content_type == "application/json"


def test_a_failure_says_what_is_allowed_and_when_to_come_back_and_has_the_warnings() -> None:
    request = Request(make_mocked_request("POST", "/"))
    request.warnings += ["one", "two", "one"]
    response = request.failure(ApiError(405, "no", retry_after=3))
    assert (response.headers["Allow"], response.headers["Retry-After"]) == ("GET", "3")
    assert response.headers.getall("Warning") == ['299 kubebraid "one"', '299 kubebraid "two"']
    assert "Warning" not in request.document({}).headers
