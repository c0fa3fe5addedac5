"""Limits of what is answered at once: who is refused, who is not, and that nothing stays counted."""

from __future__ import annotations

import contextlib
import random
from collections.abc import Iterator

import pytest

from query.http.limits import RequestCounts, RequestLimits
from query.http.status import ApiError
from query.identity import MASTERS, Identity

JANE, JOE, ROOT = Identity("jane", groups=("dev",)), Identity("joe"), Identity("root", groups=(MASTERS,))


@contextlib.contextmanager
def refused() -> Iterator[None]:
    """As a kube-apiserver refuses (pkg/server/filters/maxinflight.go: tooManyRequests)."""
    with pytest.raises(ApiError) as found:
        yield
    assert (found.value.code, found.value.reason) == (429, "TooManyRequests")
    assert found.value.message == "Too many requests, please try again later."
    assert found.value.retry_after == 1
    assert found.value.status()["details"] == {"retryAfterSeconds": 1}


def test_what_reads_and_what_changes_count_apart() -> None:
    limits = RequestCounts(RequestLimits(reading=2, mutating=1))
    with contextlib.ExitStack() as under_way:
        for who, verb in ((JANE, "list"), (JOE, "get")):
            under_way.enter_context(limits.admit(who, verb, False))
        with refused(), limits.admit(JOE, "list", False):
            pass
        under_way.enter_context(limits.admit(JANE, "update", False))
        for verb in ("create", "deletecollection", "patch", "post"):
            with refused(), limits.admit(JANE, verb, False):
                pass
        assert limits.counts() == {"reading": 2, "mutating": 1, "watches": 0}
    assert limits.counts() == {"reading": 0, "mutating": 0, "watches": 0}
    with limits.admit(JOE, "list", False):
        pass


def test_what_lasts_is_in_no_ones_way() -> None:
    limits = RequestCounts(RequestLimits(reading=1, mutating=1, per_user=1))
    with contextlib.ExitStack() as under_way:
        for _ in range(1000):
            under_way.enter_context(limits.admit(JANE, "watch", True))
        under_way.enter_context(limits.admit(JANE, "create", True))
        with limits.admit(JANE, "list", False):
            pass


def test_what_lasts_has_limits_of_its_own() -> None:
    limits = RequestCounts(RequestLimits(watches=3, watches_per_user=2))
    with contextlib.ExitStack() as under_way:
        for _ in range(2):
            under_way.enter_context(limits.admit(JANE, "watch", True))
        with refused(), limits.admit(JANE, "watch", True):
            pass
        # The same user by another group is the same user.
        with refused(), limits.admit(Identity("jane"), "watch", True):
            pass
        under_way.enter_context(limits.admit(JOE, "watch", True))
        with refused(), limits.admit(JOE, "watch", True):
            pass
        with limits.admit(ROOT, "watch", True):
            pass


def test_of_one_user() -> None:
    limits = RequestCounts(RequestLimits(reading=3, mutating=3, per_user=2))
    with limits.admit(JANE, "list", False), limits.admit(JANE, "create", False):
        for verb in ("list", "create"):
            with refused(), limits.admit(JANE, verb, False):
                pass
            with limits.admit(JOE, verb, False):
                pass


def test_masters_pass_always() -> None:
    """Who is to mend an overload has to get in."""
    limits = RequestCounts(RequestLimits(reading=1, mutating=1, per_user=1, watches=1, watches_per_user=1))
    with limits.admit(JANE, "list", False), contextlib.ExitStack() as under_way:
        for _ in range(10):
            under_way.enter_context(limits.admit(ROOT, "list", False))
            under_way.enter_context(limits.admit(ROOT, "watch", True))
            under_way.enter_context(limits.admit(ROOT, "create", False))


def test_zero_is_any_number() -> None:
    limits = RequestCounts(RequestLimits(reading=0, mutating=0))
    with contextlib.ExitStack() as under_way:
        for _ in range(2000):
            under_way.enter_context(limits.admit(JANE, "list", False))


def test_whatever_happens_nothing_stays_counted() -> None:
    chosen = random.Random(3)
    limits = RequestCounts(RequestLimits(reading=5, mutating=5, per_user=3, watches=5, watches_per_user=3))
    under_way: list[contextlib.ExitStack] = []
    refusals = 0
    for _ in range(5000):
        if under_way and chosen.random() < 0.5:
            one = under_way.pop(chosen.randrange(len(under_way)))
            if chosen.random() < 0.5:
                one.close()
            else:
                with contextlib.suppress(RuntimeError), one:
                    raise RuntimeError
            continue
        one = contextlib.ExitStack()
        try:
            verb = chosen.choice(["list", "create", "watch"])
            one.enter_context(limits.admit(Identity(f"user-{chosen.randrange(4)}"), verb, verb == "watch"))
        except ApiError:
            refusals += 1
        else:
            under_way.append(one)
        assert max(limits.counts().values()) <= 5
    assert refusals > 100
    for one in under_way:
        one.close()
    assert limits.counts() == {"reading": 0, "mutating": 0, "watches": 0}
    assert not limits._of_user
    assert not limits._lasting_of_user


def test_bytes_of_lists_count_for_each_user_and_in_all() -> None:
    limits = RequestCounts(RequestLimits(bytes=100, bytes_per_user=60))
    too_many = pytest.raises(ApiError, match="Too many bytes are under way")
    # However large, one that is alone is sent.
    with limits.sending(JANE, 1000), too_many, limits.sending(JOE, 1):
        pass
    with limits.sending(JANE, 40):
        with too_many, limits.sending(JANE, 21):
            pass
        with limits.sending(JANE, 20), limits.sending(JOE, 40), too_many, limits.sending(JOE, 1):
            pass
        with limits.sending(ROOT, 1000):
            pass
        # Nothing of those that were refused, or are over, stays counted.
        with limits.sending(JOE, 60):
            pass


@pytest.mark.parametrize("seed", range(5))
def test_bytes_are_never_more_than_may_be(seed: int) -> None:
    chance = random.Random(seed)
    limits = RequestCounts(RequestLimits(bytes=100, bytes_per_user=50))
    open_: list[tuple[Identity, int, contextlib.ExitStack]] = []
    for _ in range(500):
        if open_ and chance.random() < 0.5:
            open_.pop(chance.randrange(len(open_)))[2].close()
            continue
        who, size = chance.choice([JANE, JOE, ROOT]), chance.randrange(1, 70)
        own = sum(one for user, one, _ in open_ if user is who)
        everyones = sum(one for user, one, _ in open_ if user is not ROOT)
        fits = who is ROOT or ((not own or own + size <= 50) and (not everyones or everyones + size <= 100))
        stack = contextlib.ExitStack()
        with contextlib.nullcontext() if fits else pytest.raises(ApiError):
            stack.enter_context(limits.sending(who, size))
        if fits:
            open_.append((who, size, stack))
