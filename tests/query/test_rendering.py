"""Rendering: the same content as compact JSON, indented JSON and YAML, and what Accept-Encoding allows."""

from __future__ import annotations

import asyncio
import json
import threading
from typing import Any, Literal

import msgspec
import pytest
import yaml
from aiohttp import test_utils, web
from hypothesis import example, given
from hypothesis import strategies as st

from query.http.rendering import LARGE_YAML, Rendering, rendering, send_list, takes_gzip

SURROGATES: tuple[Literal["Cs"]] = ("Cs",)
FORMS = (Rendering(), Rendering(pretty=True), Rendering(yaml=True))
TEXT = st.one_of(
    st.text(st.characters(codec="utf-8", exclude_categories=SURROGATES), max_size=30),
    st.from_regex(r"\A[-+]?[0-9][0-9_.:eExo-]{0,8}\Z"),
    st.sampled_from(
        ["y", "No", "on", "~", "null", "=", "<<", ".inf", "2020-01-01", "a: b", "- x", "# no", "a\nb\n", " a\n b"]
    ),
    # What means something in YAML, ends its lines or does not print there.
    st.text("ab \t\r\n:#-?&*!|>'\"%@`,[]{}=~.\\\x00\x7f\x85\xa0\u2028\ufeff\ufffe\U0001f600", max_size=10),
    st.text("a \n", max_size=8),
    st.sampled_from(["k" * 300, "two words " * 200, "---", "...", "a\n---\nb", "a\n\tb", "a:", "a #b"]),
)
CONTENT = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(-(2**53), 2**53), TEXT),
    lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(TEXT, inner, max_size=4)),
    max_leaves=20,
)


def read(form: Rendering, text: bytes) -> Any:
    return yaml.safe_load(text) if form.yaml else json.loads(text)


@given(CONTENT)
def test_a_document_is_the_same_in_all_forms(content: Any) -> None:
    for form in FORMS:
        assert read(form, form.whole(msgspec.json.encode(content))) == content


@example([[{"a": "empty lines\n\n"}], [{"b": "\n"}], [None]], "a")
@given(
    st.lists(st.lists(CONTENT.filter(lambda one: one != []), min_size=1, max_size=3), max_size=4),
    st.text("abc", max_size=3),
)
def test_a_list_is_the_same_in_all_forms_however_it_is_sliced(slices: list[list[Any]], version: str) -> None:
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


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_floats_stay_floats(number: float) -> None:
    assert read(Rendering(yaml=True), Rendering(yaml=True).whole(msgspec.json.encode([number]))) == [number]


def test_text_of_several_lines_stays_readable() -> None:
    script = "#!/bin/sh\nset -e\n\nif true; then\n\techo 1\nfi\n"
    text = Rendering(yaml=True).whole(msgspec.json.encode({"data": {"run": script, "one": "a: b"}}))
    assert text.decode() == (
        'data:\n  one: "a: b"\n  run: |\n    #!/bin/sh\n    set -e\n\n    if true; then\n    \techo 1\n    fi\n'
    )


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


class Lists:
    """Lists over HTTP, and what was made of them between which turns of the loop."""

    def __init__(self, slices: list[list[bytes]], **form: bool) -> None:
        self.slices = slices
        self.opening = b""
        self.made: list[tuple[int, int]] = []
        self.threads: set[int] = set()
        lists = self

        class Counting(Rendering):
            def items(self, items: list[bytes], *, first: bool, opening: bytes = b"") -> bytes:
                lists.made.append((lists.turn, sum(map(len, items))))
                lists.threads.add(threading.get_ident())
                return super().items(items, first=first, opening=opening)

        self.form = Counting(**form)
        self.turn = 0
        self._turns = asyncio.Lock()

    async def _others(self) -> None:
        while True:
            self.turn += 1
            await asyncio.sleep(0)

    async def _answer(self, http: web.Request) -> web.StreamResponse:
        head = b'{"kind":"List","items":['
        slices, opening = iter(self.slices), self.opening
        return await send_list(http, self.form, [], head, slices, opening, None, lambda: None, self._turns)

    async def ask(self, number: int) -> list[bytes]:
        """Bodies of so many lists at once."""
        application = web.Application()
        application.router.add_get("/", self._answer)
        waiting = asyncio.create_task(self._others())
        async with test_utils.TestClient(test_utils.TestServer(application)) as client:

            async def listed() -> bytes:
                async with client.get("/") as response:
                    return await response.read()

            bodies = await asyncio.gather(*(listed() for _ in range(number)))
        waiting.cancel()
        return bodies


@pytest.mark.parametrize("form", [{"yaml": True}, {"pretty": True}, {"gzip": True}, {}])
async def test_lists_take_turns_with_others_and_each_other(form: dict[str, bool]) -> None:
    """However many there are, between two turns of the loop there is but one piece, and of YAML a small one."""
    item = json.dumps({"metadata": {"name": "x" * 200}, "spec": {"text": "y" * 1800}}).encode()
    lists = Lists([[item] * 125, [item] * 125], **form)
    for body in await lists.ask(4):
        assert read(lists.form, body)["items"] == [json.loads(item)] * 250
    assert len(lists.made) == 4 * 2 * (4 if lists.form.yaml else 1)
    assert len({turn for turn, _ in lists.made}) == len(lists.made), "one in a turn"
    if lists.form.yaml:
        assert max(size for _, size in lists.made) <= 64 * 1024


@pytest.mark.parametrize("form", [{"yaml": True}, {"pretty": True}, {"gzip": True}, {}])
async def test_what_all_items_begin_with_is_written_before_each(form: dict[str, bool]) -> None:
    lists = Lists([[b'"x":1}', b'"x":2}'], [b'"x":3}']], **form)
    lists.opening = b'{"kind":"Ship",'
    [body] = await lists.ask(1)
    items = read(lists.form, body)["items"]
    assert [list(item.items()) for item in items] == [[("kind", "Ship"), ("x", at)] for at in (1, 2, 3)]


async def test_an_object_that_is_large_in_yaml_is_made_beside_the_loop() -> None:
    large = json.dumps({"data": {f"key-{at}": "x" * 100 for at in range(LARGE_YAML // 100)}}).encode()
    lists = Lists([[b"{}", large, b"{}"]], yaml=True)
    [body] = await lists.ask(1)
    assert read(lists.form, body)["items"] == [{}, json.loads(large), {}]
    # One turn after the other went by meanwhile.
    assert len(lists.threads) == 2
    assert len(lists.made) == 3
