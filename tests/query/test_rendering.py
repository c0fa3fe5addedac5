"""Rendering: the same content as compact JSON, indented JSON and YAML, and what Accept-Encoding allows."""

from __future__ import annotations

import asyncio
import json

import msgspec
import pytest
import yaml
from aiohttp import test_utils, web
from hypothesis import example, given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry, Counter

from query.rendering import Rendering, rendering, send_list, takes_gzip
from query.stalls import Stalls

FORMS = (Rendering(), Rendering(pretty=True), Rendering(yaml=True))
TEXT = st.one_of(
    st.text(st.characters(codec="utf-8", exclude_categories=("Cs",)), max_size=30),
    st.from_regex(r"\A[-+]?[0-9][0-9_.:eExo-]{0,8}\Z"),
    st.sampled_from(
        ["y", "No", "on", "~", "null", "=", "<<", ".inf", "2020-01-01", "a: b", "- x", "# no", "a\nb\n", " a\n b"]
    ),
)
CONTENT = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(-(2**53), 2**53), TEXT),
    lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(TEXT, inner, max_size=4)),
    max_leaves=20,
)


def read(form: Rendering, text: bytes):
    return yaml.safe_load(text) if form.yaml else json.loads(text)


@given(CONTENT)
def test_a_document_is_the_same_in_all_forms(content) -> None:
    for form in FORMS:
        assert read(form, form.whole(msgspec.json.encode(content))) == content


@example([[{"a": "empty lines\n\n"}], [{"b": "\n"}], [None]], "a")
@given(
    st.lists(st.lists(CONTENT.filter(lambda one: one != []), min_size=1, max_size=3), max_size=4),
    st.text("abc", max_size=3),
)
def test_a_list_is_the_same_in_all_forms_however_it_is_sliced(slices, version) -> None:
    head = {"kind": "List", "metadata": {"resourceVersion": version}}
    for form in FORMS:
        text, first = form.head(msgspec.json.encode(head)[:-1] + b',"items":['), True
        for items in slices:
            text += form.items([msgspec.json.encode(item) for item in items], first=first)
            first = False
        text += form.tail(empty=first)
        assert read(form, text) == {**head, "items": [item for items in slices for item in items]}
        if form.pretty:
            assert text == json.dumps(json.loads(text), indent=2, ensure_ascii=False).encode() + b"\n"


def test_numbers_of_newer_yaml_are_quoted() -> None:
    # To yaml.safe_load these are text in any case: Go's reader takes them for numbers.
    for text in ("1e3", "0o17", "0x1f", "1_000", "12:30:45", "+1", ".5"):
        assert Rendering(yaml=True).whole(msgspec.json.encode({"a": text})) == f'a: "{text}"\n'.encode()


@pytest.mark.parametrize(
    ("agent", "query", "pretty"),
    [
        ("curl/8.0", {}, True),
        ("Wget/1.21", {}, True),
        ("Mozilla/5.0 (X11)", {}, True),
        ("kubectl/v1.32", {}, False),
        ("kubectl/v1.32", {"pretty": "true"}, True),
        ("kubectl/v1.32", {"pretty": "1"}, True),
        ("curl/8.0", {"pretty": "false"}, False),
        ("curl/8.0", {"pretty": "nonsense"}, False),
    ],
)
def test_who_gets_indented_text(agent: str, query: dict[str, str], pretty: bool) -> None:
    assert rendering({"User-Agent": agent}, query, in_yaml=False).pretty is pretty


@pytest.mark.parametrize(
    ("accepted", "takes"),
    [
        ("gzip", True),
        ("gzip, deflate, br", True),
        ("br;q=1.0, gzip;q=0.5", True),
        ("*", True),
        ("gzip;q=0", False),
        ("gzip;q=0.0", False),
        ("identity", False),
        ("", False),
        ("gzipped", False),
    ],
)
def test_who_gets_gzip(accepted: str, takes: bool) -> None:
    assert takes_gzip(accepted) is takes


async def test_lists_in_yaml_take_turns_with_others_and_each_other() -> None:
    """However many there are, between two turns of the loop there is but one small piece."""
    item = json.dumps({"metadata": {"name": "x" * 200}, "spec": {"text": "y" * 1800}}).encode()
    made: list[tuple[int, int]] = []
    turns = 0

    class Counting(Rendering):
        def items(self, items: list[bytes], *, first: bool) -> bytes:
            made.append((turns, sum(map(len, items))))
            return super().items(items, first=first)

    lock = asyncio.Lock()
    stalls = Stalls(Counter("stalled", "", registry=CollectorRegistry()))

    async def others() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    async def answer(http: web.Request) -> web.StreamResponse:
        slices = iter([[item] * 40, [item] * 40])
        head = b'{"kind":"List","items":['
        return await send_list(http, Counting(yaml=True), [], head, slices, None, lambda: None, stalls, lock)

    application = web.Application()
    application.router.add_get("/", answer)
    waiting = asyncio.create_task(others())
    async with test_utils.TestClient(test_utils.TestServer(application)) as client:

        async def listed() -> list[object]:
            async with client.get("/") as response:
                return yaml.safe_load(await response.read())["items"]

        for found in await asyncio.gather(*(listed() for _ in range(4))):
            assert found == [json.loads(item)] * 80
    waiting.cancel()
    assert len(made) >= 4 * 2 * 8
    assert len({turn for turn, _ in made}) == len(made), "one in a turn"
    assert max(size for _, size in made) < 16 * 1024
