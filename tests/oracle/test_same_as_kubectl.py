"""kubectl is the oracle: whatever a kubeconfig says, kubebraid asks the same server in the same way, or both refuse.

`KUBEBRAID_ORACLE_SEED` makes other cases of each kind; `KUBEBRAID_ORACLE_CASES`: how many of them, a number or `all`.
"""

from __future__ import annotations

import asyncio
import os
import random
from collections.abc import Iterable
from pathlib import Path

import pytest
import pytest_asyncio

from tests.oracle import generator, kubectl, ours
from tests.oracle.cases.draft import Case, Family, Twist
from tests.oracle.differences import DIFFERENCES, difference_of
from tests.oracle.recorded import Outcome
from tests.oracle.rig import Certificates, Rig

SEED = int(os.environ.get("KUBEBRAID_ORACLE_SEED", "1"))
CASES = os.environ.get("KUBEBRAID_ORACLE_CASES", "480")
# kubectls at once: some wait ten seconds for a server that will not have them, and cost nothing meanwhile.
_AT_ONCE = 8

Seeded = tuple[str, str, Twist]


def chosen(family: Family) -> list[Seeded]:
    """The cases of a family in this run: its share of all, chosen by the seed, and all with deliberate differences."""
    found = list(generator.seeds(family, SEED))
    if CASES == "all":
        return found
    of_all = sum(len(one.twists) for one in generator.FAMILIES)
    share = -(-int(CASES) * len(found) // of_all)
    taken = random.Random(f"{SEED} {family.name}").sample(found, min(share, len(found)))
    # What is said to differ is to differ in each run.
    return taken + [one for one in found if one not in taken and difference_of(f"{family.name}/{one[1]}")]


class _Run:
    """The cases of some families, several at a time; `problems` by family."""

    def __init__(self, folder: Path, families: Iterable[Family]) -> None:
        self.problems: dict[str, list[str]] = {family.name: [] for family in families}
        cases = [(family.name, seeded) for family in families for seeded in chosen(family)]
        # So that what takes long is everywhere.
        random.Random(SEED).shuffle(cases)
        self._certificates = Certificates()
        self._folder = folder
        self._left = iter(enumerate(cases))
        self._alone = asyncio.Lock()

    async def work(self) -> None:
        """Takes cases until there are no more, each of them for both in turn, on a rig of its own."""
        async with Rig(self._certificates) as rig:
            for number, (family, (seed, title, twist)) in self._left:
                case = generator.make(seed, title, twist, rig)
                theirs = await kubectl.ask(case, rig, self._folder / f"{number}" / "kubectl")
                async with self._alone:
                    done = await ours.ask(case, rig, self._folder / f"{number}" / "ours")
                if problem := compared(case, theirs, done):
                    self.problems[family].append(problem)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def problems(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[str]]:
    """What differs, by family, of the families whose tests are run."""
    if (found := kubectl.find()) is None:
        pytest.skip("kubectl is not on this machine")
    if found[1] < kubectl.OLDEST:
        pytest.skip(f"kubectl is {found[1]}, and {kubectl.OLDEST} is the oldest that is an oracle")
    wanted = {item.name for item in request.session.items}
    families = [one for one in generator.FAMILIES if f"test_same_as_kubectl[{one.name}]" in wanted]
    run = _Run(tmp_path_factory.mktemp("oracle"), families)
    await asyncio.gather(*(run.work() for _ in range(_AT_ONCE)))
    return run.problems


def compared(case: Case, theirs: Outcome, done: Outcome) -> str:
    """What is wrong with what we did; empty if nothing is."""
    name = case.seed.partition("/")[2]
    deliberate = difference_of(name)
    same = done == theirs or (done.refused and theirs.refused and done.written == theirs.written)
    if done.said.startswith(ours.CRASHED):
        return f"{case.text()}\n-- kubebraid: {done.text()}"
    if deliberate is None and same:
        return ""
    if deliberate is not None and ((deliberate.may and same) or (not same and deliberate.as_said(theirs, done))):
        return ""
    text = f"{case.text()}\n-- kubectl: {theirs.text()}\n-- kubebraid: {done.text()}"
    if deliberate is not None:
        text += f"\n-- deliberately it {deliberate.ours}, as: {deliberate.reason}"
    return text


@pytest.mark.parametrize("family", [family.name for family in generator.FAMILIES])
def test_same_as_kubectl(family: str, problems: dict[str, list[str]]) -> None:
    found = problems[family]
    assert not found, f"{len(found)} differ\n\n" + "\n\n".join(sorted(found)[:10])


def test_a_run_has_enough_of_all_kinds() -> None:
    assert sum(len(chosen(family)) for family in generator.FAMILIES) >= 400
    assert all(chosen(family) for family in generator.FAMILIES)


def test_every_difference_is_about_something_and_in_the_docs() -> None:
    names = [f"{family.name}/{title}" for family in generator.FAMILIES for title, _ in family.twists]
    documented = Path("docs/kubeconfigs.md").read_text()
    for one in DIFFERENCES:
        assert any(one.covers(name) for name in names), one
        assert f"\n- {one.reason}\n" in documented
