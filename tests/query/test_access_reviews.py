"""Access reviews at the root: about oneself and about others, of whom the same is true."""

from __future__ import annotations

from typing import Any

import pytest

from query.http.protobuf import PROTOBUF
from tests.query.scene import Answers, Scene

ROOT = "/apis/authorization.k8s.io/v1/"
LIST, CREATE = ({"verb": verb, "resource": "pods", "namespace": "x"} for verb in ("list", "create"))


@pytest.fixture
async def scene() -> Scene:
    return Scene()


async def post(served: Answers, path: str, spec: Any) -> tuple[int, Any]:
    async with served.session.post(served.url + ROOT + path, json={"spec": spec}) as answer:
        return answer.status, await answer.json()


LOCAL = "namespaces/x/localsubjectaccessreviews"
ANN = {"user": "ann", "groups": ["sailors"], "uid": "7"}


@pytest.mark.parametrize(
    ("path", "kind", "who"),
    [
        ("selfsubjectaccessreviews", "SelfSubjectAccessReview", {}),
        ("subjectaccessreviews", "SubjectAccessReview", ANN),
        ("subjectaccessreviews", "SubjectAccessReview", {"groups": ["sailors"]}),
        (LOCAL, "LocalSubjectAccessReview", {"user": "ann"}),
    ],
)
async def test_reading_is_allowed_and_nothing_else(scene: Scene, path: str, kind: str, who: dict[str, Any]) -> None:
    async with scene.serving() as served:
        for wanted, allowed in ((LIST, True), (CREATE, False)):
            status, found = await post(served, path, {"resourceAttributes": wanted, **who})
            assert (status, found["kind"], found["apiVersion"]) == (201, kind, "authorization.k8s.io/v1")
            assert found["spec"] == {"resourceAttributes": wanted, **who}
            assert found["status"]["allowed"] is allowed


@pytest.mark.parametrize(
    ("path", "spec", "code", "text"),
    [
        ("subjectaccessreviews", {"resourceAttributes": LIST}, 422, "at least one of user or group must be specified"),
        (LOCAL, {"resourceAttributes": LIST}, 422, "at least one of user or group must be specified"),
        ("subjectaccessreviews", {"user": "ann"}, 422, "exactly one of"),
        ("subjectaccessreviews", {"user": ["ann"]}, 400, "is no SubjectAccessReview"),
        (LOCAL, {"user": "ann", "nonResourceAttributes": {"path": "/version", "verb": "get"}}, 422, "disallowed"),
        (LOCAL, {"user": "ann", "resourceAttributes": {**LIST, "namespace": "y"}}, 400, "must match namespace: x"),
    ],
)
async def test_what_is_no_review(scene: Scene, path: str, spec: Any, code: int, text: str) -> None:
    async with scene.serving() as served:
        status, found = await post(served, path, spec)
        assert (status, found["code"]) == (code, code)
        assert text in found["message"]


async def test_as_go_clients_send_them(scene: Scene) -> None:
    def field(number: int, content: bytes) -> bytes:
        return bytes([number << 3 | 2, len(content)]) + content

    asked = field(1, field(1, b"x") + field(2, b"list") + field(5, b"pods"))
    spec = asked + field(3, b"ann") + field(4, b"sailors") + field(4, b"\xc3\xa9") + field(6, b"7")
    about = field(1, b"authorization.k8s.io/v1") + field(2, b"SubjectAccessReview")
    body = b"k8s\x00" + field(1, about) + field(2, field(2, spec))
    async with scene.serving() as served:
        url, headers = served.url + ROOT + "subjectaccessreviews", {"Content-Type": PROTOBUF}
        async with served.session.post(url, data=body, headers=headers) as answer:
            found = await answer.json()
    assert (answer.status, found["status"]) == (201, {"allowed": True})
    assert found["spec"] == {"resourceAttributes": LIST, "user": "ann", "groups": ["sailors", "é"], "uid": "7"}


async def test_whose_token_it_is_is_not_known(scene: Scene) -> None:
    async with scene.serving() as served:
        url = f"{served.url}/apis/authentication.k8s.io/v1/tokenreviews"
        async with served.session.post(url, json={"spec": {"token": "x"}}) as answer:
            assert answer.status == 404
