"""Answers to the letter: refusals and headers, asked of a member and through kubebraid.

Left out is what kubebraid says otherwise on purpose: versions that are none get 410 (docs/versions.md), since after a
400 or 500 a reflector asks the same for ever.
"""

from __future__ import annotations

import base64
import json
from typing import Any

import aiohttp
import pytest

from tests.conformance.conftest import Ground, expect_of
from tests.conformance.endpoint import Endpoint

pytestmark = [pytest.mark.clusters, pytest.mark.asyncio(loop_scope="module")]

MAPS = "/api/v1/namespaces/default/configmaps"
WATCH = "/api/v1/watch/namespaces/default/configmaps"
TABLE = "application/json;as=Table;v=v1;g=meta.k8s.io"


REFUSED: list[tuple[str, dict[str, str]]] = [
    *((MAPS, {"limit": number}) for number in ("", "x", "+", "1.5", "9" * 25)),
    *((MAPS, {"watch": "1", "timeoutSeconds": number}) for number in ("", "x", "9" * 25)),
    *((MAPS, {"labelSelector": selector}) for selector in ("a==b=c", "a,", "=a", "a,=b")),
    (MAPS, {"resourceVersionMatch": "Exact"}),
    (MAPS, {"resourceVersionMatch": "Exact", "resourceVersion": "0"}),
    (MAPS, {"resourceVersionMatch": "Odd"}),
    (MAPS, {"resourceVersionMatch": "Odd", "resourceVersion": "0", "sendInitialEvents": "1"}),
    (MAPS, {"resourceVersionMatch": "NotOlderThan", "resourceVersion": "0", "continue": "abc"}),
    *((MAPS, {"continue": text}) for text in ("a=b", "YWJj!", "abcde")),
    (MAPS, {"sendInitialEvents": "true"}),
    (MAPS, {"sendInitialEvents": ""}),
    (MAPS, {"watch": "1", "sendInitialEvents": "true"}),
    (MAPS, {"watch": "1", "sendInitialEvents": "false"}),
    (MAPS, {"watch": "1", "sendInitialEvents": "1", "resourceVersionMatch": "Exact"}),
    (MAPS, {"watch": "1", "resourceVersionMatch": "NotOlderThan"}),
    (MAPS, {"watch": "1", "resourceVersionMatch": "Odd"}),
    (MAPS, {"watch": "1", "sendInitialEvents": "1", "resourceVersionMatch": "NotOlderThan", "continue": "a"}),
    (f"{WATCH}/a", {"fieldSelector": "metadata.name=b"}),
    (f"{WATCH}/a", {"fieldSelector": "metadata.namespace=default"}),
    (f"{MAPS}/absent", {}),
    ("/api/v1/absent", {}),
    ("/apis/absent.example.com/v1/absents", {}),
]


# Field selectors over any path of an object are a search here (docs/search.md), where a kube-apiserver refuses them.
SEARCHED: list[tuple[str, dict[str, str]]] = [
    ("/api/v1/pods", {"fieldSelector": "spec.color=red"}),
    (MAPS, {"fieldSelector": "spec.color=red"}),
    (MAPS, {"fieldSelector": "metadata.name"}),
]


def age_of(query: dict[str, str]) -> str | None:
    """The row of `AGES` that a question is about, if any."""
    if "watch" not in query:
        return "lists refuse sendInitialEvents" if "sendInitialEvents" in query else None
    if "sendInitialEvents" in query:
        return "watches stream lists"
    return "watches tell why not resourceVersionMatch" if "resourceVersionMatch" in query else None


async def answered(endpoint: Endpoint, path: str, query: dict[str, str]) -> tuple[int, Any]:
    async with endpoint.session.get(endpoint.reads + path, params=query) as answer:
        data = await answer.read()
        # A path that nothing serves has no Status but a line of text.
        return answer.status, json.loads(data) if data.startswith(b"{") else data


@pytest.mark.parametrize(("path", "query"), REFUSED)
async def test_refusals(ground: Ground, path: str, query: dict[str, str]) -> None:
    if (age := age_of(query)) is not None:
        expect_of(ground.member, age)
    theirs = await answered(ground.member, path, query)
    assert theirs[0] >= 400
    assert await answered(ground.ours, path, query) == theirs


@pytest.mark.parametrize(("path", "query"), SEARCHED)
async def test_searched_where_a_cluster_refuses(ground: Ground, path: str, query: dict[str, str]) -> None:
    code, _ = await answered(ground.member, path, query)
    assert code == 400
    code, found = await answered(ground.ours, path, query)
    assert (code, found["kind"]) == (200, "PodList" if path.endswith("pods") else "ConfigMapList")
    assert bool(found["items"]) == (query["fieldSelector"] == "metadata.name")


@pytest.mark.parametrize("field", ["v", "start"])
async def test_bad_tokens(ground: Ground, field: str) -> None:
    """A token of each, of another version or without a place to go on from: their other fields are their own."""
    if field == "v":
        expect_of(ground.member, "unknown versions of continue tokens stand bare")
    found = []
    for endpoint in (ground.member, ground.ours):
        page = await endpoint.get("/api/v1/namespaces", limit="1")
        token = page["metadata"]["continue"]
        fields = json.loads(base64.urlsafe_b64decode(token + "=" * (-len(token) % 4)))
        own = fields["v"]
        fields[field] = "v9" if field == "v" else type(fields[field])()
        bad = base64.urlsafe_b64encode(json.dumps(fields).encode()).rstrip(b"=").decode()
        code, status = await answered(endpoint, "/api/v1/namespaces", {"continue": bad})
        # Which tokens they are is part of the text.
        found.append((code, {**status, "message": status["message"].replace(own, "their version")}))
    theirs, ours = found
    assert theirs[0] == 400
    assert ours == theirs


HEADERS = ("Cache-Control", "Content-Type", "Retry-After", "Vary")


@pytest.mark.parametrize(
    ("path", "query", "accept"),
    [
        (MAPS, {}, "application/json"),
        (MAPS, {}, TABLE),
        (MAPS, {"limit": "x"}, "application/json"),
        (f"{MAPS}/absent", {}, "application/json"),
        ("/api/v1/namespaces/default", {}, "application/json"),
        (MAPS, {"watch": "1", "timeoutSeconds": "1"}, "application/json"),
        (MAPS, {"watch": "1", "timeoutSeconds": "1", "resourceVersion": "0"}, TABLE),
        ("/version", {}, "application/json"),
    ],
)
async def test_headers(ground: Ground, path: str, query: dict[str, str], accept: str) -> None:
    found = []
    for endpoint in (ground.member, ground.ours):
        timeout = aiohttp.ClientTimeout(None)
        async with endpoint.session.get(
            endpoint.reads + path, params=query, headers={"Accept": accept}, timeout=timeout
        ) as answer:
            found.append((answer.status, {name: answer.headers.get(name) for name in HEADERS}))
    theirs, ours = found
    assert ours == theirs
