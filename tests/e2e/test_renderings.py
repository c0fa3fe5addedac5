"""Answers as a client asked for them: gzip, indented, YAML; over HTTP."""

from __future__ import annotations

import gzip
import json
from collections.abc import AsyncIterator, Awaitable, Callable

import aiohttp
import pytest
import pytest_asyncio
import yaml
from multidict import CIMultiDictProxy

from tests.e2e.conftest import Service

pytestmark = pytest.mark.asyncio(loop_scope="module")
PODS = "/api/v1/pods"
TABLE = "application/json;as=Table;v=v1;g=meta.k8s.io"


Ask = Callable[..., Awaitable[tuple[int, CIMultiDictProxy[str], bytes]]]


@pytest_asyncio.fixture(loop_scope="module")
async def ask(shared_service: Service) -> AsyncIterator[Ask]:
    async with aiohttp.ClientSession(auto_decompress=False) as session:

        async def get(
            path: str, accept: str = "application/json", encoding: str = "identity", **query: str
        ) -> tuple[int, CIMultiDictProxy[str], bytes]:
            headers = {"Accept": accept, "Accept-Encoding": encoding}
            async with session.get(shared_service.url + path, params=query, headers=headers) as answer:
                return answer.status, answer.headers, await answer.read()

        yield get


@pytest.mark.parametrize(
    "accept", ["application/json", TABLE, "application/json;as=PartialObjectMetadataList;v=v1;g=meta.k8s.io"]
)
async def test_large_lists_are_compressed_for_those_who_take_it(ask: Ask, accept: str) -> None:
    _, plain_headers, plain = await ask(PODS, accept)
    assert len(plain) > 128 * 1024 or accept != "application/json"
    code, headers, packed = await ask(PODS, accept, "gzip")
    assert code == 200
    if len(plain) >= 128 * 1024:
        assert headers["Content-Encoding"] == "gzip"
        assert headers["Vary"] == plain_headers["Vary"] == "Accept-Encoding"
        assert len(packed) < len(plain) / 3
        unpacked = gzip.decompress(packed)
    else:
        assert "Content-Encoding" not in headers
        unpacked = packed
    assert len(json.loads(unpacked).get("items", json.loads(unpacked).get("rows"))) == len(
        json.loads(plain).get("items", json.loads(plain).get("rows"))
    )


async def test_small_answers_are_not_compressed(ask: Ask) -> None:
    code, headers, body = await ask(PODS, encoding="gzip", limit="2")
    assert code == 200
    assert "Content-Encoding" not in headers
    assert len(json.loads(body)["items"]) == 2
    assert int(headers["Content-Length"]) == len(body)


@pytest.mark.parametrize("path", [PODS, "/apis/apps/v1/deployments", "/version", "/api/v1", "/clusters"])
async def test_indented_and_yaml_are_the_same_content(ask: Ask, path: str) -> None:
    _, _, plain = await ask(path)
    _, headers, pretty = await ask(path, pretty="true")
    assert headers["Content-Type"].startswith("application/json")
    assert pretty.count(b"\n") > 10 * plain.count(b"\n")
    _, headers, text = await ask(path, "application/yaml")
    assert headers["Content-Type"].startswith("application/yaml")
    found = json.loads(plain)
    for other in (json.loads(pretty), yaml.safe_load(text)):
        if path == "/clusters":
            assert [one["name"] for one in other["clusters"]] == [one["name"] for one in found["clusters"]]
            continue
        if "metadata" in found:
            other["metadata"] = found["metadata"]
        assert other == found


async def test_one_object_in_yaml(ask: Ask) -> None:
    _, _, body = await ask("/clusters/alpha" + PODS, limit="1")
    pod = json.loads(body)["items"][0]
    path = f"/clusters/alpha/api/v1/namespaces/{pod['metadata']['namespace']}/pods/{pod['metadata']['name']}"
    _, _, text = await ask(path, "application/yaml;q=0.9,application/json;q=0.5")
    assert yaml.safe_load(text)["metadata"]["name"] == pod["metadata"]["name"]


async def test_errors_are_in_the_form_that_was_asked_for(ask: Ask) -> None:
    code, headers, text = await ask("/clusters/alpha/api/v1/namespaces/none/pods/none", "application/yaml")
    assert code == 404
    assert headers["Content-Type"].startswith("application/yaml")
    assert yaml.safe_load(text)["reason"] == "NotFound"
    code, _, text = await ask("/clusters/alpha/api/v1/namespaces/none/pods/none", pretty="1")
    assert code == 404
    assert b'\n  "reason": "NotFound"' in text


async def test_there_is_no_watch_in_yaml(ask: Ask) -> None:
    code, _, text = await ask(PODS, "application/yaml", watch="1")
    assert code == 406
    assert b"NotAcceptable" in text
    code, _, text = await ask(PODS, "application/yaml,application/json", watch="1", timeoutSeconds="1", limit="1")
    assert code == 200
    assert json.loads(text.splitlines()[0])["type"] == "ADDED"
