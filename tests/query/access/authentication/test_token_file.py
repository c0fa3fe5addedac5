"""A file of tokens' hashes: whose a token is, what is no such file, and that it is read anew."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from query.access.authentication.token_file import HashedTokens
from query.access.errors import BadAccessFile
from query.identity import Identity

JANE, ROBOT = "jane's token", "robot's tökén"


def digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


LINES = f"""# who may ask
sha256:{digest(JANE)},jane,1001,"dev,ops"

sha256:pepper:{digest("pepper" + ROBOT)},robot,
"""
YAML = f"""
tokens:
- hash: {digest(JANE).upper()}
  user: jane
  uid: "1001"
  groups: [dev, ops]
- {{hash: "sha256:pepper:{digest("pepper" + ROBOT)}", user: robot}}
"""


@pytest.mark.parametrize(
    ("name", "content"), [("tokens.csv", LINES.replace("robot,", "robot,,")), ("tokens.yaml", YAML)]
)
async def test_tokens_have_users(tmp_path: Path, name: str, content: str) -> None:
    path = tmp_path / name
    path.write_text(content)
    tokens = HashedTokens(path)
    assert await tokens.authenticate_token(JANE) == Identity("jane", "1001", ("dev", "ops"))
    assert await tokens.authenticate_token(ROBOT) == Identity("robot")
    for other in ("", "another", JANE + " ", digest(JANE), "pepper" + ROBOT, "\udcff"):
        assert await tokens.authenticate_token(other) is None


async def test_the_file_is_read_anew_and_a_bad_one_keeps_the_old(tmp_path: Path) -> None:
    path = tmp_path / "tokens"
    path.write_text(f"{digest(JANE)},jane,\n")
    tokens = HashedTokens(path, look_every=0.0)
    assert await tokens.authenticate_token(JANE) == Identity("jane")
    # As large, and within a tick of the clock of the file system.
    path.write_text(f"{digest(JANE)},jean,\n")
    assert await tokens.authenticate_token(JANE) == Identity("jean")
    path.write_text("something else")
    assert await tokens.authenticate_token(JANE) == Identity("jean")
    path.unlink()
    assert await tokens.authenticate_token(JANE) == Identity("jean")
    path.write_text("")
    assert await tokens.authenticate_token(JANE) is None


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("t", "s3cret,jane,1001", "line 1: no hash; write sha256:<hex>"),
        ("t", f"{digest('a')},jane", "line 1: write hash,user,uid"),
        ("t", f"{digest('a')},jane,1,a,b", "line 1: write hash,user,uid"),
        ("t", f"{digest('a')},,1", "line 1: no user"),
        ("t", f"{digest('a')},a,1\n{digest('a')},b,2", "line 2: the same hash stands above"),
        ("t", f'{digest("a")},a,1,"x', "line 1: unexpected end of data"),
        ("t.yaml", "tokens: [{hash: s3cret, user: jane}]", r"tokens\[0\]: no hash"),
        ("t.yaml", "tokens: [{hash: s3cret, usr: jane}]", r"tokens\[0\]: unknown field usr"),
        ("t.yaml", "tokens: [{user: jane}]", r"tokens\[0\]: hash is needed"),
        ("t.yaml", "tokens: [s3cret", "no YAML that can be used: .* in line 1"),
        ("t.yaml", "s3cret", "Expected `object`"),
        ("t.yaml", "tokens: []\ntokens: []", "no YAML that can be used: 'tokens' stands twice in line 2, column 1"),
    ],
)
def test_what_is_no_such_file_is_named_without_a_token(tmp_path: Path, name: str, content: str, said: str) -> None:
    path = tmp_path / name
    path.write_text(content)
    with pytest.raises(BadAccessFile, match=f"{path}: {said}") as caught:
        HashedTokens(path)
    assert "s3cret" not in str(caught.value)
    assert "\n" not in str(caught.value)
