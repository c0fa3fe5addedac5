"""The files shown in docs/security.md and docs/access are read, each as what it is."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from query.access.audit.policy import read_policy as read_audit_policy
from query.access.authentication.configuration import authentication_settings
from query.access.authorization.configuration import authorization_of
from query.access.authorization.policy import read_policy

DOCS = Path(__file__).parents[3] / "docs"
PAGES = (DOCS / "security.md", *sorted((DOCS / "access").glob("*.md")))
READERS = {
    "kind: AuthenticationConfiguration": authentication_settings,
    "kind: AuthorizationConfiguration": lambda content: authorization_of(content, Path("/etc/kubebraid")),
    "kind: Policy": read_audit_policy,
    "rules:": read_policy,
}
SHOWN = [
    (page.name, kind, block)
    for page in PAGES
    for block in re.findall(r"^```yaml\n(.*?)^```", page.read_text(), re.MULTILINE | re.DOTALL)
    for kind in [next((kind for kind in READERS if re.search(f"^{kind}", block, re.MULTILINE)), "")]
    if kind and "kind: ClusterRole" not in block
]


@pytest.mark.parametrize(("page", "kind", "block"), SHOWN, ids=[f"{page}-{kind}" for page, kind, _ in SHOWN])
def test_what_is_shown_is_read(page: str, kind: str, block: str) -> None:
    READERS[kind](block.encode())


def test_each_kind_is_shown() -> None:
    assert {kind for _, kind, _ in SHOWN} == set(READERS)
