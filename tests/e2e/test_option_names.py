"""What a user is told names options, whatever layer found it out."""

from __future__ import annotations

import json

import pytest
import structlog

from deltalog import Access, BadAccess, LogSettings
from deltalog.mirror import MirrorSettings
from kubebraid.command import logs
from kubebraid.command.options.names import OPTIONS, in_options


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
