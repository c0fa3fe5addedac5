"""Kubeconfigs whose user acts as somebody else: members are read, and written to, as that one, or not at all."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Mapping
from pathlib import Path

import pytest
import yaml
from aiohttp import web
from multidict import CIMultiDict

from kubebraid.command.settings import Forward
from kubebraid.command.upstreams import MemberServers
from producers.kubeconfig.files import access_of, inline_access
from producers.kubeconfig.model import BadKubeconfig, ClusterAccess
from producers.upstream.apiserver import ApiServer, Unreachable
from query.http.passthrough import Upstream, identified
from query.identity import NOBODY

ACTS = {"as": "jane", "as-uid": "u-1", "as-groups": ["ops", "dev"], "as-user-extra": {"Acme/Scope": ["a", "b"]}}
SHOWN = {
    "Impersonate-User": ["jane"],
    "Impersonate-Uid": ["u-1"],
    "Impersonate-Group": ["ops", "dev"],
    "Impersonate-Extra-Acme%2Fscope": ["a", "b"],
}


def text(url: str, user: Mapping[str, object]) -> str:
    return yaml.safe_dump(
        {
            "kind": "Config",
            "current-context": "one",
            "clusters": [{"name": "c", "cluster": {"server": url}}],
            "users": [{"name": "u", "user": {"token": "secret", **user}}],
            "contexts": [{"name": "one", "context": {"cluster": "c", "user": "u"}}],
        }
    )


@contextlib.asynccontextmanager
async def recording() -> AsyncIterator[tuple[str, list[CIMultiDict[str]]]]:
    """A server that keeps the headers of requests."""
    seen: list[CIMultiDict[str]] = []

    async def answer(http: web.Request) -> web.Response:
        seen.append(CIMultiDict(http.headers))
        return web.json_response({"kind": "PodList"})

    application = web.Application()
    application.router.add_route("*", "/{path:.*}", answer)
    runner = web.AppRunner(application)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    try:
        yield f"http://127.0.0.1:{runner.addresses[0][1]}", seen
    finally:
        await runner.cleanup()


def shown(headers: CIMultiDict[str]) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for name, value in headers.items():
        if name.lower().startswith("impersonate-"):
            found.setdefault(name.title(), []).append(value)
    return found


@pytest.mark.parametrize("form", ["file", "two files", "object"])
async def test_members_are_read_as_who_the_user_acts_as(tmp_path: Path, form: str) -> None:
    async with recording() as (url, seen):
        path = tmp_path / "kubeconfig"
        path.write_text(text(url, ACTS))
        other = tmp_path / "other"
        # The first file that has a user counts.
        other.write_text(text(url, {"as": "nobody"}))
        choices: dict[str, ClusterAccess] = {
            "file": access_of(str(path)),
            "two files": access_of(f"{path}:{other}"),
            "object": inline_access("one", text(url, ACTS).encode(), "secret one"),
        }
        server = ApiServer(choices[form])
        try:
            await server.get("/api/v1/pods")
        finally:
            await server.close()
        assert shown(seen[0]) == {name.title(): values for name, values in SHOWN.items()}
        # Over plain http nothing else is sent of who we are.
        assert "Authorization" not in seen[0]


@pytest.mark.parametrize(
    ("user", "mend"),
    [
        ({"as-groups": ["a"]}, "give `as`"),
        ({"as-uid": "1"}, "give `as`"),
        ({"as-user-extra": {"a": ["b"]}}, "give `as`"),
        ({"as": "a\r\nAuthorization: b"}, "control characters"),
    ],
)
async def test_impersonation_that_cannot_be_is_refused(
    tmp_path: Path,
    user: Mapping[str, object],
    mend: str,
) -> None:
    path = tmp_path / "kubeconfig"
    path.write_text(text("http://127.0.0.1:1", user))
    for access in (access_of(str(path)), inline_access("one", path.read_bytes(), "secret one")):
        assert mend in access.problem
        assert "\n" not in access.problem
        server = ApiServer(access)
        with pytest.raises(Unreachable, match=mend):
            await server.get("/api/v1/pods")


@pytest.mark.parametrize("user", [{"as": "a", "as-groups": "b"}, {"as": "a", "as-user-extra": ["b"]}])
def test_impersonation_of_another_type_is_no_kubeconfig(tmp_path: Path, user: Mapping[str, object]) -> None:
    path = tmp_path / "kubeconfig"
    path.write_text(text("http://127.0.0.1:1", user))
    with pytest.raises(BadKubeconfig, match=r"users\[u\]\.user\.as-"):
        access_of(str(path))
    assert "users[u].user.as-" in inline_access("one", path.read_bytes(), "secret one").problem


@pytest.mark.parametrize("forward", [Forward.CONFIGURED, Forward.CALLER])
async def test_writes_are_passed_on_as_who_the_user_acts_as(tmp_path: Path, forward: Forward) -> None:
    class OneMember:
        def __init__(self, access: ClusterAccess) -> None:
            self.current = {"one": type("Member", (), {"access": access})()}

    path = tmp_path / "kubeconfig"
    path.write_text(text("https://127.0.0.1:1", ACTS))
    servers = MemberServers(OneMember(access_of(str(path))), forward)  # type: ignore[arg-type]
    try:
        async with servers.using("one", NOBODY) as upstream:
            pass
    finally:
        await servers.aclose()
    configured = forward is Forward.CONFIGURED
    assert (upstream.identity is not None) == configured
    sent = identified(
        CIMultiDict(
            [
                ("Authorization", "Bearer mine"),
                ("Cookie", "c"),
                ("Impersonate-User", "root"),
                ("impersonate-group", "system:masters"),
                ("impersonate-group", "more"),
                ("X-Remote-User", "root"),
                ("X-Remote-Group", "system:masters"),
                ("X-Other", "stays"),
            ]
        ),
        upstream,
    )
    assert sent["X-Other"] == "stays"
    assert not any(name.lower().startswith("x-remote") for name in sent)
    if configured:
        assert shown(sent) == {name.title(): values for name, values in SHOWN.items()}
        assert sent.getall("Authorization") == ["Bearer secret"]
        assert "Cookie" not in sent
    else:
        # The caller's own rights to act as somebody else are the cluster's to judge.
        assert shown(sent) == {"Impersonate-User": ["root"], "Impersonate-Group": ["system:masters", "more"]}
        assert sent.getall("Authorization") == ["Bearer mine"]


def test_an_upstream_without_an_identity_of_ours_gets_the_callers() -> None:
    assert identified(CIMultiDict({"Authorization": "a"}), Upstream("http://x"))["Authorization"] == "a"
