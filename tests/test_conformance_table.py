"""tests/conformance/README.md: its table is that of the scenarios, and which fail; how a member's age is found."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.conformance.ages import minor_of_groups, minor_of_version
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


@pytest.mark.parametrize(
    ("minor", "git", "expected"),
    [
        ("36", "v1.36.2", 36),
        ("31+", "v1.31.4-gke.1", 31),
        ("", "v1.20.2", 20),
        # A build without a version.
        ("", "v0.0.0-master+faecb196815e2", None),
    ],
)
def test_a_members_age_is_said_by_its_version(minor: str, git: str, expected: int | None) -> None:
    assert minor_of_version({"major": "", "minor": minor, "gitVersion": git}) == expected


@pytest.mark.parametrize(
    ("served", "expected"),
    [
        (["apps/v1", "node.k8s.io/v1", "policy/v1beta1", "networking.k8s.io/v1"], 20),
        (["policy/v1", "resource.k8s.io/v1", "node.k8s.io/v1", "autoscaling/v2"], 34),
        (["apps/v1", "a.example.com/v1"], 0),
    ],
)
def test_or_by_what_it_serves(served: list[str], expected: int) -> None:
    groups = [{"name": one, "versions": [{"groupVersion": one}]} for one in served]
    assert minor_of_groups({"kind": "APIGroupList", "groups": groups}) == expected
