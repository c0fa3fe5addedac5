"""TokenReview and the cache of tokens: what is asked, what is kept for how long, and what a server may answer."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from query.access.authentication.authenticator import CredentialRefused
from query.access.authentication.token_cache import TokenCache
from query.access.authentication.token_review import TokenReviewAuthenticator
from query.access.authorization.names import ACCOUNT_OF
from query.access.errors import AccessUnavailable
from query.identity import Identity

ROBOT = "system:serviceaccount:web:robot"


class Server:
    """An API server that answers TokenReviews: an object, or an error, after it was let."""

    def __init__(self, answer: Any) -> None:
        self.answer = answer
        self.later: list[Any] = []
        self.asked: list[dict[str, Any]] = []
        self.let = asyncio.Event()
        self.let.set()

    async def __call__(self, review: dict[str, Any]) -> Any:
        self.asked.append(review)
        await self.let.wait()
        answer = self.answer
        if self.later:
            self.answer = self.later.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer


def review(**status: Any) -> dict[str, Any]:
    return {"kind": "TokenReview", "apiVersion": "authentication.k8s.io/v1", "metadata": {}, "status": status}


USER = {
    "username": ROBOT,
    "uid": "1",
    "groups": ["system:serviceaccounts"],
    "extra": {ACCOUNT_OF: ["bravo"], "authentication.kubernetes.io/pod-name": ["robot-0"], "a": []},
}
WHO = Identity(
    ROBOT,
    "1",
    ("system:serviceaccounts",),
    (("a", ()), ("authentication.kubernetes.io/pod-name", ("robot-0",))),
)


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


async def test_a_server_says_whose_a_token_is() -> None:
    server = Server(review(authenticated=True, user=USER, later="a field of a later version"))
    assert await TokenReviewAuthenticator(server).authenticate_token("t") == WHO
    assert server.asked == [
        {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenReview", "metadata": {}, "spec": {"token": "t"}}
    ]


async def test_the_cluster_that_said_it_goes_along() -> None:
    found = await TokenReviewAuthenticator(
        Server(review(authenticated=True, user=USER)), cluster="alpha"
    ).authenticate_token("t")
    assert found is not None
    assert dict(found.extra)[ACCOUNT_OF] == ("alpha",)


@pytest.mark.parametrize(
    ("audiences", "found"),
    [(["a"], True), (["x", "b"], True), (["x"], False), ([], False), (None, False)],
)
async def test_a_token_is_for_one_of_the_audiences(audiences: list[str] | None, found: bool) -> None:
    server = Server(review(authenticated=True, user=USER, **({} if audiences is None else {"audiences": audiences})))
    authenticator = TokenReviewAuthenticator(server, audiences=["a", "b"])
    assert (await authenticator.authenticate_token("t") is not None) is found
    assert server.asked[0]["spec"] == {"token": "t", "audiences": ["a", "b"]}


@pytest.mark.parametrize(
    "status", [{}, {"authenticated": False}, {"authenticated": True}, {"authenticated": False, "user": USER}]
)
async def test_a_token_that_the_server_does_not_know_is_no_ones(status: dict[str, Any]) -> None:
    assert await TokenReviewAuthenticator(Server(review(**status))).authenticate_token("t") is None


async def test_answers_are_kept() -> None:
    clock, server = Clock(), Server(review(authenticated=True, user=USER))
    authenticator = TokenReviewAuthenticator(server, seconds=120.0, clock=clock)
    for _ in range(3):
        assert await authenticator.authenticate_token("t") == WHO
    clock.now = 119.0
    server.answer = review(authenticated=False)
    assert await authenticator.authenticate_token("t") == WHO
    assert await authenticator.authenticate_token("u") is None
    clock.now = 121.0
    assert await authenticator.authenticate_token("t") is None
    assert len(server.asked) == 3


async def test_refusals_are_kept_for_a_short_time_and_errors_not_at_all() -> None:
    clock, server = Clock(), Server(review(authenticated=False, error="[invalid bearer token,\n expired]"))
    authenticator = TokenReviewAuthenticator(server, pause=0.0, clock=clock)
    for _ in range(2):
        with pytest.raises(CredentialRefused, match=r"\[invalid bearer token, expired\]"):
            await authenticator.authenticate_token("t")
    assert len(server.asked) == 1
    clock.now = 11.0
    server.answer = AccessUnavailable("away")
    for _ in range(2):
        with pytest.raises(AccessUnavailable, match="away"):
            await authenticator.authenticate_token("t")
    server.answer = review(authenticated=True, user=USER)
    assert await authenticator.authenticate_token("t") == WHO
    assert len(server.asked) == 1 + 2 * 5 + 1


async def test_a_server_is_tried_several_times() -> None:
    server = Server(AccessUnavailable("away"))
    server.later = [AccessUnavailable("away"), review(authenticated=True, user=USER)]
    assert await TokenReviewAuthenticator(server, pause=0.0).authenticate_token("t") == WHO
    assert len(server.asked) == 3


@pytest.mark.parametrize(
    "answer",
    [
        None,
        "text",
        {},
        {"status": None},
        {"status": {"authenticated": "yes"}},
        review(authenticated=True, user={"username": 1}),
    ],
)
async def test_what_is_no_answer_is_an_error(answer: Any) -> None:
    with pytest.raises(AccessUnavailable):
        await TokenReviewAuthenticator(Server(answer)).authenticate_token("t")


async def test_a_server_that_does_not_answer_is_given_up() -> None:
    server = Server(None)
    server.let.clear()
    with pytest.raises(AccessUnavailable, match=r"within 0\.01 s"):
        await TokenReviewAuthenticator(server, patience=0.01).authenticate_token("t")


async def test_a_token_is_asked_about_once_and_those_who_leave_end_nothing() -> None:
    server = Server(review(authenticated=True, user=USER))
    server.let.clear()
    authenticator = TokenReviewAuthenticator(server)
    asking = [asyncio.create_task(authenticator.authenticate_token("t")) for _ in range(5)]
    while not server.asked:
        await asyncio.sleep(0)
    asking[0].cancel()
    server.let.set()
    assert await asyncio.gather(*asking[1:]) == [WHO] * 4
    assert len(server.asked) == 1


async def test_invented_tokens_do_not_flood_the_server() -> None:
    server = Server(review(authenticated=False))
    server.let.clear()
    authenticator = TokenReviewAuthenticator(server, at_once=3)
    asking = [asyncio.create_task(authenticator.authenticate_token(f"{number}")) for number in range(3)]
    while len(server.asked) < 3:
        await asyncio.sleep(0)
    with pytest.raises(AccessUnavailable, match="asked about 3 tokens already"):
        await authenticator.authenticate_token("another")
    await authenticator.close()
    ended = await asyncio.gather(*asking, return_exceptions=True)
    assert all(isinstance(one, asyncio.CancelledError) for one in ended)


class Tokens:
    def __init__(self, answer: Identity | Exception | None) -> None:
        self.answer, self.asked = answer, 0

    async def authenticate_token(self, token: str) -> Identity | None:
        self.asked += 1
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer


async def test_the_cache_keeps_successes_alone() -> None:
    clock, tokens = Clock(), Tokens(WHO)
    cache = TokenCache(tokens, clock=clock)
    for now in (0.0, 9.9):
        clock.now = now
        assert await cache.authenticate_token("t") == WHO
    assert tokens.asked == 1
    clock.now = 10.0
    tokens.answer = None
    for _ in range(2):
        assert await cache.authenticate_token("t") is None
    tokens.answer = CredentialRefused("no")
    for _ in range(2):
        with pytest.raises(CredentialRefused):
            await cache.authenticate_token("t")
    assert tokens.asked == 5


async def test_the_cache_is_bounded_and_has_no_tokens() -> None:
    tokens = Tokens(WHO)
    cache = TokenCache(tokens, most=2)
    for token in ("secret-1", "secret-2", "secret-3"):
        await cache.authenticate_token(token)
    assert len(cache._known) == 2
    assert b"secret" not in b"".join(cache._known)
    await cache.authenticate_token("secret-3")
    assert tokens.asked == 3
    await cache.authenticate_token("secret-1")
    assert tokens.asked == 4
