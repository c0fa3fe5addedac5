"""The union of authenticators, anonymous requests, and what is not sent on of a request."""

from __future__ import annotations

import pytest
from multidict import CIMultiDict

from query.access.authentication.authenticator import (
    Anonymous,
    Authentication,
    Authenticator,
    CredentialRefused,
    RequestCredentials,
    TokenUnion,
    Union,
)
from query.access.errors import AccessUnavailable
from query.http.status import ApiError
from query.identity import NOBODY, Identity


class Says:
    """An authenticator that says the same of each request and token."""

    def __init__(self, answer: Identity | Exception | None) -> None:
        self.answer, self.asked = answer, 0

    async def authenticate(self, presented: RequestCredentials) -> Identity | None:
        self.asked += 1
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer

    async def authenticate_token(self, token: str) -> Identity | None:
        return await self.authenticate(presented())


def presented(path: str = "/") -> RequestCredentials:
    return RequestCredentials(CIMultiDict(), path=path)


JANE = Identity("jane", groups=("dev",))
SOMEHOW = CredentialRefused("somehow")
AWAY = AccessUnavailable("away")


@pytest.mark.parametrize(
    ("answers", "found"),
    [
        ([JANE, Identity("joe")], JANE),
        ([None, JANE], JANE),
        ([SOMEHOW, None, JANE], JANE),
        ([AWAY, JANE], JANE),
        ([None, None], None),
        ([], None),
    ],
)
async def test_the_first_who_knows_decides(answers: list[Identity | Exception | None], found: Identity | None) -> None:
    assert await Union(map(Says, answers)).authenticate(presented()) == found
    assert await TokenUnion(map(Says, answers)).authenticate_token("a token") == found


async def test_those_after_the_first_who_knows_are_not_asked() -> None:
    after = Says(SOMEHOW)
    await Union([Says(JANE), after]).authenticate(presented())
    assert after.asked == 0


async def test_errors_count_if_no_one_knows() -> None:
    with pytest.raises(CredentialRefused, match=r"^somehow$"):
        await Union([Says(SOMEHOW), Says(None)]).authenticate(presented())
    with pytest.raises(CredentialRefused, match=r"^\[somehow, away\]$"):
        await TokenUnion([Says(SOMEHOW), Says(AWAY), Says(SOMEHOW)]).authenticate_token("a token")


async def test_who_was_authenticated_is_in_the_group_of_all_who_were() -> None:
    assert await Authentication([Says(JANE)]).who(presented()) == Identity(
        "jane", groups=("dev", "system:authenticated")
    )
    anonymous = Identity("system:anonymous")
    assert await Authentication([Says(anonymous)]).who(presented()) == anonymous


@pytest.mark.parametrize(
    "identity",
    [
        Identity(" jane"),
        Identity("jane\n"),
        Identity("jane\u00a0"),
        Identity("ja\r\nne"),
        Identity("jane", uid="1 "),
        Identity("jane", groups=("dev", " system:masters")),
        Identity("jane", groups=("system:masters\x7f",)),
    ],
)
async def test_names_that_would_be_others_in_a_header_are_refused(identity: Identity) -> None:
    refusal = await _refusal([Says(identity)], Anonymous(True))
    assert "characters that none has" in str(refusal.__cause__)
    assert (await Authentication([Says(Identity("jane doe", groups=("", "a b")))]).who(presented())).name == "jane doe"


async def _refusal(authenticators: list[Authenticator], anonymous: Anonymous, path: str = "/") -> ApiError:
    with pytest.raises(ApiError) as caught:
        await Authentication(authenticators, anonymous).who(presented(path))
    return caught.value


async def test_a_request_without_a_credential_is_anonymous_only_as_configured() -> None:
    health = Anonymous(True, frozenset({"/livez", "/readyz"}))
    assert await Authentication([Says(None)], Anonymous(True)).who(presented()) == NOBODY
    assert await Authentication([], health).who(presented("/livez")) == NOBODY
    for path in ("/", "/livez/", "/livez/ping", "/LIVEZ", "/clusters"):
        assert (await _refusal([Says(None)], health, path)).code == 401
    assert (await _refusal([Says(None)], Anonymous())).code == 401


async def test_a_refused_credential_is_no_anonymous_request() -> None:
    refusal = await _refusal([Says(SOMEHOW)], Anonymous(True))
    assert refusal.status() == {
        "kind": "Status",
        "apiVersion": "v1",
        "metadata": {},
        "status": "Failure",
        "message": "Unauthorized",
        "reason": "Unauthorized",
        "code": 401,
    }
    assert isinstance(refusal.__cause__, CredentialRefused)
