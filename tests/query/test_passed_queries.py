"""Queries as they are passed on: the cluster reads the parameters that were read, and decided about, here."""

from __future__ import annotations

import re
from random import Random
from urllib.parse import unquote_to_bytes

import pytest
from aiohttp.test_utils import make_mocked_request
from yarl import URL

from query.access.authorization.attributes import attributes_of
from query.forward.forwarding import passed_query
from query.http.status import ApiError


def of_go(text: str) -> list[tuple[str, str]]:
    """net/url: parseQuery, transcribed; what it refuses is left out, as http.Request.URL.Query() does."""
    found = []
    for piece in text.split("&"):
        if not piece or ";" in piece:
            continue
        key, _, value = piece.partition("=")
        if any(re.search(r"%(?![0-9A-Fa-f]{2})", one) for one in (key, value)):
            continue
        found.append(tuple(unquote_to_bytes(one.replace("+", " ")).decode() for one in (key, value)))
    return found  # type: ignore[return-value]


@pytest.mark.parametrize("odd", [";", "%zz", "%", "%a", "%3"])
def test_a_list_of_one_name_does_not_become_one_of_all(odd: str) -> None:
    query = f"fieldSelector=metadata.name%3Done,metadata.namespace!%3D{odd}&limit=5"
    http = make_mocked_request("GET", f"/api/v1/secrets?{query}")
    what = attributes_of("GET", ["api", "v1", "secrets"], http.query)
    assert (what.verb, what.name) == ("list", "one")
    assert of_go(query) == [("limit", "5")]
    selector = f"metadata.name=one,metadata.namespace!={odd}"
    assert of_go(passed_query(query)) == [("fieldSelector", selector), ("limit", "5")]


def test_any_query_is_read_alike() -> None:
    chance = Random(16)
    pieces = ["x", "y=", "=", "&", ";", "%", "%2", "%3B", "%26", "%25", "+", "%2B", "watch", "=1", "zz", ",", "%C3%A9"]
    for _ in range(1500):
        query = "".join(chance.choice(pieces) for _ in range(chance.randrange(12)))
        # As aiohttp's parser of requests makes it.
        read = list(URL.build(path="/api", query_string=query, encoded=True).query.items())
        assert of_go(passed_query(query)) == read, query


def test_more_parameters_than_are_read_there_are_refused() -> None:
    assert passed_query("&".join(["a=1"] * 1000))
    with pytest.raises(ApiError) as caught:
        passed_query("&".join(["a=1"] * 1001))
    assert caught.value.code == 400
