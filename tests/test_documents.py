"""Documents for people: every file they name exists, and every link leads somewhere."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
DOCUMENTS = sorted({*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")})
# Documents that lead through the code: what they name in backquotes as a file of ours has to be there.
GUIDES = [ROOT / "CONTRIBUTING.md", ROOT / "docs/architecture.md", *sorted(ROOT.glob("docs/decisions/*.md"))]
_FILE = re.compile(r"`((?:[\w.*]+/)*(?:[\w]+\.(?:py|md|txt|toml)|[\w]+/))`")
_LINK = re.compile(r"\]\(([^)\s]+)\)")
_CODE = re.compile(r"^```.*?^```", re.MULTILINE | re.DOTALL)


_LEFT_OUT = frozenset({".venv", ".node", ".git", "__pycache__"})
FILES = [
    str(path.relative_to(ROOT))
    for pattern in ("*", "*/*", "*/*/*", "*/*/*/*")
    for path in ROOT.glob(pattern)
    if not _LEFT_OUT & set(path.relative_to(ROOT).parts)
]


def anchors(text: str) -> set[str]:
    """The anchors of a document's headings, as forges make them."""
    found = set()
    for heading in re.findall(r"^#+ (.+)$", _CODE.sub("", text), re.MULTILINE):
        plain = re.sub(r"[^\w\- ]", "", heading.lower()).strip()
        found.add(plain.replace(" ", "-"))
    return found


@pytest.mark.parametrize("document", GUIDES, ids=lambda path: path.name)
def test_files_that_are_named_exist(document: Path) -> None:
    named = _FILE.findall(document.read_text())
    for name in named:
        if name.endswith("/"):
            there = (ROOT / name).is_dir() or any(f"/{name}" in f"/{path}" for path in FILES)
        else:
            there = any(f"/{path}".endswith(f"/{name}") for path in FILES)
        assert there, f"{document.name} names {name}"
    assert named or document.parent.name == "decisions"


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_links_lead_somewhere(document: Path) -> None:
    for link in _LINK.findall(_CODE.sub("", document.read_text())):
        if re.match(r"[a-z]+:", link):
            continue
        name, _, anchor = link.partition("#")
        target = (document.parent / name).resolve() if name else document
        assert target.exists(), f"{document.name} leads to {link}"
        if anchor and target.suffix == ".md":
            assert anchor in anchors(target.read_text()), f"{document.name} leads to {link}"
