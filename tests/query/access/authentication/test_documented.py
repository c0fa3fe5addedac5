"""The examples of docs/access/authentication.md are files that are read, and mean what the text says."""

from __future__ import annotations

import re
from pathlib import Path

from query.access.authentication.authenticator import Anonymous
from query.access.authentication.configuration import authentication_settings
from query.access.authentication.token_file import HashedTokens
from query.identity import Identity

TEXT = (Path(__file__).parents[4] / "docs/access/authentication.md").read_text()
LINES, TOKENS, CONFIGURATION = re.findall(r"^```\w*\n(.*?)^```", TEXT, re.MULTILINE | re.DOTALL)
JANE = Identity("jane", "1001", ("dev", "ops"))


async def test_files_of_tokens(tmp_path: Path) -> None:
    for name, content in (("tokens.csv", LINES), ("tokens.yaml", TOKENS)):
        (tmp_path / name).write_text(content)
        assert await HashedTokens(tmp_path / name).authenticate_token("test") == JANE
    (tmp_path / "salted").write_text(LINES.splitlines()[1])
    assert await HashedTokens(tmp_path / "salted").authenticate_token("test") == Identity("robot")


def test_an_authentication_configuration() -> None:
    settings = authentication_settings(CONFIGURATION.encode())
    assert settings.anonymous == Anonymous(True, frozenset({"/livez", "/readyz"}))
    claims = {"sub": "jane", "roles": ["k8s-dev", "mail"], "exp": 86400, "iat": 0}
    assert settings.issuers[0].mappings.user(claims) == Identity("oidc:jane", groups=("oidc:k8s-dev",))
