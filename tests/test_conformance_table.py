"""tests/conformance/README.md: its table says which scenarios there are, and which of them fail."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.conformance.scenarios import ENDPOINTS, REAL, SCENARIOS, table

README = Path(__file__).parent / "conformance" / "README.md"


@pytest.mark.skipif(bool(REAL), reason="a real member runs more")
def test_the_table_is_that_of_the_scenarios() -> None:
    expected = table()
    _, _, rest = README.read_text().partition("| source |")
    assert f"| source |{rest}" == expected, "python -m tests.conformance.scenarios prints the table"


def test_the_member_itself_fails_nowhere() -> None:
    """What a kube-apiserver does not do is no scenario, and what the simulation does not is to be mended."""
    table()
    assert len(SCENARIOS) > 20
    assert [one.title for one in SCENARIOS if "member" in one.fails] == []
    assert all(set(one.runs) <= set(ENDPOINTS) for one in SCENARIOS)
