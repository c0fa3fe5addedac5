"""Cache-Control as a kube-apiserver has it: on every answer, and only what has its hash in its URL may be kept."""

from __future__ import annotations

import pytest

from tests.query.scene import Scene


@pytest.mark.parametrize(
    ("method", "path", "accept"),
    [
        ("GET", "/api/v1/pods?resourceVersion=0", ""),
        ("GET", "/api/v1/pods?resourceVersion=0", "application/yaml"),
        ("GET", "/api/v1/pods?resourceVersion=0&watch=1&timeoutSeconds=1", ""),
        ("GET", "/api/v1/namespaces/x/pods/one?resourceVersion=0", ""),
        ("GET", "/api/v1/namespaces/x/pods/none?resourceVersion=0", ""),
        ("POST", "/api/v1/namespaces/x/pods", ""),
        ("GET", "/api/v1/pods?limit=", ""),
        ("GET", "/api", ""),
        ("GET", "/apis/nowhere", ""),
        ("GET", "/version", ""),
        ("GET", "/readyz", ""),
        ("GET", "/metrics", ""),
        ("GET", "/clusters", ""),
    ],
)
async def test_answers_are_not_to_be_kept(method: str, path: str, accept: str) -> None:
    scene = Scene()
    scene.delta("one")
    async with scene.serving() as served:
        headers = {"Accept": accept} if accept else {}
        async with served.session.request(method, served.url + path, headers=headers) as answer:
            await answer.read()
            assert answer.headers.getall("Cache-Control") == ["no-cache, private"]
