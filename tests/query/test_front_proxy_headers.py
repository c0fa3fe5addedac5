"""Headers by which a front proxy says who asks: whatever their names are, no member cluster is shown them."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import trustme
from aiohttp import ClientSession, web
from aiohttp.test_utils import TestServer
from multidict import CIMultiDict

from kubebraid.command.doors import Doors, FrontProxy
from kubebraid.command.entrance import made_entrance
from kubebraid.command.reviews import ReviewServers
from query.http.passthrough import HeaderNames, Upstream, identified
from query.identity import Identity
from query.service import QueryService
from tests.query.scene import QUICK, Scene


class Cluster:
    """A member that is shown who asks: it has what `identity` says, None: what the caller says."""

    as_caller = True

    def __init__(self, identity: tuple[tuple[str, str], ...] | None) -> None:
        self.identity = identity
        self.url = ""
        self.shown: list[CIMultiDict[str]] = []

    def has(self, cluster: str) -> bool:
        return cluster == "alpha"

    @contextlib.asynccontextmanager
    async def using(self, cluster: str, who: Identity) -> AsyncIterator[Upstream]:
        yield Upstream(self.url, self.identity)

    async def answer(self, http: web.Request) -> web.StreamResponse:
        self.shown.append(CIMultiDict(http.headers))
        return web.json_response({})


@pytest.mark.parametrize("identity", [None, (("Authorization", "Bearer ours"),)])
async def test_a_member_is_shown_nothing_that_a_front_proxy_says(
    tmp_path: Path, identity: tuple[tuple[str, str], ...] | None
) -> None:
    trustme.CA().cert_pem.write_to_path(str(tmp_path / "proxies.crt"))
    proxy = FrontProxy(
        tmp_path / "proxies.crt",
        user_headers=("X-User", "X-Other-User"),
        uid_headers=("X-Uid",),
        group_headers=("X-Group",),
        extra_prefixes=("X-More-",),
    )
    doors = Doors(front_proxy=proxy, anonymous=True, authorizers=("AlwaysAllow",))
    member, scene = Cluster(identity), Scene()
    application = web.Application()
    application.router.add_route("*", "/{path:.*}", member.answer)
    async with contextlib.AsyncExitStack() as stack:
        far = await stack.enter_async_context(TestServer(application))
        member.url = str(far.make_url("")).rstrip("/")
        reviews = await stack.enter_async_context(contextlib.aclosing(ReviewServers(None)))
        made = await stack.enter_async_context(made_entrance(doors, scene.materializer, reviews))
        service = QueryService(scene.materializer, "test", upstreams=member, timing=QUICK, entrance=made.entrance)
        near = await stack.enter_async_context(TestServer(service.application()))
        stack.callback(service.close)
        session = await stack.enter_async_context(ClientSession())
        said = CIMultiDict(
            [
                ("x-user", "root"),
                ("X-OTHER-USER", "root"),
                ("X-Uid", "0"),
                ("X-Group", "system:masters"),
                ("X-Group", "admins"),
                ("X-More-Scopes", "all"),
                ("X-Remote-User", "root"),
                ("X-Remote-Group", "system:masters"),
                ("X-Morse", "-.-"),
            ]
        )
        url = near.make_url("/clusters/alpha/logs/kubelet")
        async with session.get(url, headers=said) as answer:
            assert answer.status == 200
    (shown,) = member.shown
    assert [name for name in shown if name.lower().startswith("x-")] == ["X-Morse"]


def test_a_token_of_a_websocket_is_the_callers() -> None:
    said = CIMultiDict(
        [
            ("Sec-WebSocket-Protocol", "v4.channel.k8s.io, base64url.bearer.authorization.k8s.io.dA"),
            ("Sec-WebSocket-Protocol", "base64url.bearer.authorization.k8s.io.dA"),
            ("AUTHORIZATION", "Bearer t"),
            ("impersonate-extra-a%2fb", "c"),
            ("X-User", "root"),
        ]
    )
    consumed = HeaderNames(frozenset({"x-user"}), ())
    assert list(identified(said, Upstream("http://a", ()), consumed).items()) == [
        ("Sec-WebSocket-Protocol", "v4.channel.k8s.io")
    ]
    only = CIMultiDict([("Sec-WebSocket-Protocol", "base64url.bearer.authorization.k8s.io.dA")])
    assert not identified(only, Upstream("http://a", ()), consumed)
