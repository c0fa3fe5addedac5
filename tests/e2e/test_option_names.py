"""What a user is told names options, whatever layer found it out."""

from __future__ import annotations

import json
import re

import pytest
import structlog

from deltalog import Access, BadAccess, LogSettings
from deltalog.mirror import MirrorSettings
from kubebraid.command import logs
from kubebraid.command.options.log import deletion_limits
from kubebraid.command.options.names import OPTIONS, in_options
from kubebraid.command.options.sizes import size
from kubebraid.command.settings import BadSetting
from materializer.forgetting import DeletionLimits


def test_each_option_is_of_a_field() -> None:
    # `url` is what a connection is made with, beside its Access.
    fields = {"url", *Access.__struct_fields__, *LogSettings.__struct_fields__, *MirrorSettings.__struct_fields__}
    assert set(OPTIONS) <= fields
    assert set(Access.__struct_fields__) <= set(OPTIONS), "each field of Access can be wrong"


@pytest.mark.parametrize(
    ("access", "said"),
    [
        (Access(user="ali"), "--nats-user needs --nats-password-file, or KUBEBRAID_NATS_PASSWORD in the environment"),
        (Access(user="ali", token="t"), "--nats-user and a token: choose one of them"),
        (Access(key="k"), "--nats-key is the key of --nats-cert: give that, too"),
        (Access(creds="/none"), "--nats-creds /none: No such file or directory"),
    ],
)
def test_messages(access: Access, said: str) -> None:
    with pytest.raises(BadAccess) as problem:
        access.check()
    assert in_options(str(problem.value)) == said


def test_other_words_stay() -> None:
    assert in_options("run `kubebraid mirror`, not `pods`") == "run `kubebraid mirror`, not `pods`"


def test_log_lines(capsys: pytest.CaptureFixture[str]) -> None:
    before = structlog.get_config()
    try:
        logs.configure(json=True)
        structlog.get_logger("test").warning("the log cannot be opened", reason="check `creds`", count=1)
    finally:
        structlog.configure(**before)
    line = json.loads(capsys.readouterr().err)
    assert (line["event"], line["reason"], line["count"]) == ("the log cannot be opened", "check --nats-creds", 1)


@pytest.mark.parametrize(
    ("text", "bytes_"),
    [
        ("0", 0),
        ("64Mi", 64 << 20),
        ("1.5Gi", 3 << 29),
        ("500M", 500_000_000),
        ("2 ", 2),
        ("1TiB", 1 << 40),
        ("7kB", 7000),
    ],
)
def test_sizes_are_quantities(text: str, bytes_: int) -> None:
    assert size("--window-memory", text) == bytes_


@pytest.mark.parametrize("text", ["", "Mi", "-1", "1Q", "1e3", "1 Mi", "0x10", ".5Mi"])
def test_what_is_no_size_is_refused(text: str) -> None:
    with pytest.raises(BadSetting, match=f"^--window-memory {re.escape(text)}: a number of bytes, as in 64Mi"):
        size("--window-memory", text)


@pytest.mark.parametrize(
    ("number", "size_", "found"),
    [(1_000_000, "1Gi", DeletionLimits()), (1000, "16Mi", DeletionLimits(1000, 16 << 20))],
)
def test_how_many_deletions_are_remembered(number: int, size_: str, found: DeletionLimits) -> None:
    assert deletion_limits(number, size_) == found


@pytest.mark.parametrize(
    ("text", "problem"),
    [("15Mi", "16Mi is the least, so that the largest messages fit in"), ("many", "a number of bytes, as in")],
)
def test_too_little_room_for_deletions(text: str, problem: str) -> None:
    with pytest.raises(BadSetting, match=f"^--deletions-bytes {text}: {problem}"):
        deletion_limits(1000, text)
