"""Runs the pure tests of the store against mutants of its modules: `python -m tests.mutants [FILE ...]`.

Each mutant is tried in a process of its own, forked from one that has imported what all need; the module's source is
changed as it is imported, nothing on disk. A mutant that no test fails for has survived: either a test is missing, or
it changes nothing that can be seen, which `equivalent.txt` says with the reason, one a line:

    cursor.py changes: `...` -> `...`: why nothing can be seen of it

Ends with 1 if another one survives, or one of the list is killed or no longer there.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.abc
import importlib.machinery
import importlib.metadata
import io
import os
import random
import resource
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import CodeType, ModuleType

import pytest

import kubebraid.command.broker  # noqa: F401  what all tests import, once
from tests.mutants.mutations import Mutant, mutants

ROOT = Path(__file__).parents[2]
MODULES = ("cursor", "filter", "resume", "order", "type_store", "store")
EQUIVALENT = Path(__file__).parent / "equivalent.txt"
# One failure is enough, so the quickest go first, and the others only if they find nothing.
TESTS = (("order", "cursor", "resume", "indexes", "store"), ("originals", "image", "written", "model"))
# Of tests that take a seed, those with so many of the first ones: what one seed does not find, the next seldom does.
SEEDS = 2
# Seconds of processor time, of which these tests take some 10 without a mutant: a loop that does not end is a failure.
CPU_LIMIT = 100


class _FirstSeeds:
    """A plugin of pytest."""

    def pytest_collection_modifyitems(self, items: list[pytest.Function]) -> None:
        items[:] = [one for one in items if _seed(one) < SEEDS]


def _seed(item: pytest.Function) -> int:
    seed = item.callspec.params.get("seed", 0) if hasattr(item, "callspec") else 0
    return seed if isinstance(seed, int) else 0


class _Mutated(importlib.abc.MetaPathFinder, importlib.abc.InspectLoader):
    """Imports one module from given code."""

    def __init__(self, name: str, code: CodeType) -> None:
        self._name = name
        self._code = code

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        if fullname != self._name:
            return None
        return importlib.machinery.ModuleSpec(fullname, self, origin=self._code.co_filename)

    def get_code(self, fullname: str) -> CodeType:
        return self._code

    def get_source(self, fullname: str) -> None:
        return None


def _try(module: str, mutant: Mutant | None) -> int:
    """In a forked process: whether the tests notice; pytest's exit code."""
    resource.setrlimit(resource.RLIMIT_CPU, (CPU_LIMIT, CPU_LIMIT + 5))
    if mutant is not None:
        file = str(ROOT / "materializer" / f"{module}.py")
        sys.meta_path.insert(0, _Mutated(f"materializer.{module}", compile(mutant.tree, file, "exec")))
    options = ("-x", "-q", "-p", "no:cacheprovider", "-p", "no:randomly", "--tb=line")
    for some in TESTS:
        files = [str(ROOT / "tests" / "materializer" / f"test_{one}.py") for one in some]
        with contextlib.redirect_stdout(io.StringIO()) as said, contextlib.redirect_stderr(io.StringIO()):
            code = int(pytest.main([*options, *files], plugins=[_FirstSeeds()]))
        if code:
            if mutant is None:
                os.write(2, said.getvalue().encode())
            return code
    return 0


def _forked(module: str, mutant: Mutant | None) -> int:
    process = os.fork()
    if process:
        return process
    # Also of a mutant that cannot even be imported.
    code = int(pytest.ExitCode.INTERNAL_ERROR)
    try:
        code = _try(module, mutant)
    finally:
        os._exit(code)


def _all(modules: Sequence[str], sample: int, match: str) -> Iterator[tuple[str, Mutant]]:
    for module in modules:
        found = list(mutants((ROOT / "materializer" / f"{module}.py").read_text()))
        found = [one for one in found if match in one.text]
        if sample and len(found) > sample:
            # The same ones in each run of the same source.
            found = random.Random(module).sample(found, sample)
        yield from ((module, one) for one in found)


def known_equivalents() -> dict[str, str]:
    """Mutants that change nothing that can be seen, and why."""
    lines = EQUIVALENT.read_text().splitlines()
    split = (line.rpartition("`: ") for line in lines if line and not line.startswith("#"))
    return {f"{mutant}`": reason for mutant, _, reason in split}


def run(modules: Sequence[str], sample: int, match: str, processes: int) -> int:
    """Tries the mutants, says which survive; the exit code."""
    started = time.monotonic()
    for plugin in importlib.metadata.entry_points(group="pytest11"):
        plugin.load()
    assert "materializer" not in sys.modules, "it is imported as a mutant, later"
    if os.waitstatus_to_exitcode(os.waitpid(_forked("", None), 0)[1]):
        print("the tests fail without any mutant")
        return 1
    known = known_equivalents()
    running: dict[int, str] = {}
    survived: list[str] = []
    tried: set[str] = set()

    def wait() -> None:
        process, status = os.waitpid(-1, 0)
        name = running.pop(process)
        tried.add(name)
        if not os.waitstatus_to_exitcode(status):
            survived.append(name)
            print(f"{'equivalent' if name in known else 'SURVIVED'}  {name}", flush=True)

    for module, mutant in _all(modules, sample, match):
        if len(running) >= processes:
            wait()
        running[_forked(module, mutant)] = f"{module}.py {mutant.text}"
    while running:
        wait()
    unknown = [name for name in survived if name not in known]
    killed = [name for name in known if name in tried and name not in survived]
    chosen = [name for name in known if not sample and not match and name.partition(".py ")[0] in modules]
    gone = [name for name in chosen if name not in tried]
    for name in killed:
        print(f"killed, though listed as equivalent: {name}")
    for name in gone:
        print(f"listed as equivalent, but there is no such mutant: {name}")
    seconds = time.monotonic() - started
    print(f"{len(tried)} mutants in {seconds:.0f} s: {len(survived)} survived, {len(unknown)} of them without a reason")
    return 1 if unknown or killed or gone else 0


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.mutants", description="Mutation tests of the ordered store.")
    parser.add_argument("files", nargs="*", metavar="FILE", help=f"modules to mutate: {', '.join(MODULES)} (all)")
    parser.add_argument("--sample", type=int, default=0, metavar="N", help="at most so many mutants of each module")
    parser.add_argument("--match", default="", metavar="TEXT", help="only mutants with this in their name")
    parser.add_argument("--processes", type=int, default=os.cpu_count() or 1, metavar="N")
    given = parser.parse_args()
    modules = [Path(one).stem for one in given.files] or list(MODULES)
    if unknown := set(modules) - set(MODULES):
        parser.error(f"no modules of the store's: {', '.join(sorted(unknown))}")
    sys.exit(run(modules, given.sample, given.match, given.processes))


if __name__ == "__main__":
    main()
