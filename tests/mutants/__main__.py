"""Runs the pure tests of the store against mutants of its modules: `python -m tests.mutants [FILE ...]`.

The tests are collected once, and run once without a mutant to see which lines each of them runs and how long it takes.
Then each mutant is tried in a forked process, where its code takes the place of the function's: by the tests that run
its lines, the quickest first, up to the first that fails. Nothing is changed on disk. A mutant that no test fails for
has survived: either a test is missing, or it changes nothing that can be seen, which `equivalent.txt` says with the
reason, one a line:

    cursor.py changes: `...` -> `...`: why nothing can be seen of it
    cursor.py changes: `...` -> `...` (2): why nothing can be seen of the second one of the same text

Ends with 1 if another one survives, or one of the list is killed or no longer there.
"""

from __future__ import annotations

import argparse
import contextlib
import gc
import importlib
import json
import os
import random
import re
import resource
import signal
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import CodeType, FunctionType

import coverage
import pytest
from _pytest.runner import runtestprotocol

from tests.mutants.mutations import Mutant, mutants

ROOT = Path(__file__).parents[2]
MODULES = ("cursor", "filter", "resume", "order", "window", "type_store", "store")
EQUIVALENT = Path(__file__).parent / "equivalent.txt"
TESTS = (
    "order",
    "filter",
    "cursor",
    "several_types",
    "where",
    "resume",
    "indexes",
    "type_store",
    "taking_in",
    "store",
    "originals",
    "image",
    "window",
    "bounds",
    "burying",
    "integrity",
    "plain",
    "model",
)
# Of tests that take a seed, those with so many of the first ones: what one seed does not find, the next seldom does.
SEEDS = 2
MEMORY_LIMIT = 4 << 30
# A mutant's text may end in a number (tests.mutants.mutations).
_LISTED = re.compile(r"(?P<mutant>.+`(?: \(\d+\))?): (?P<reason>.+)")


@dataclass(frozen=True)
class Baseline:
    """What the tests do without a mutant, by their node ids."""

    seconds: dict[str, float]
    # By module and line.
    tests: dict[str, dict[int, frozenset[str]]]

    def of(self, module: str, mutant: Mutant) -> list[str]:
        """The tests that run the mutant, the quickest first."""
        found = {test for line in mutant.lines for test in self.tests[module].get(line, ())}
        return sorted(found, key=lambda test: (self.seconds[test], test))


class Trial:
    """A plugin of pytest that runs mutants where pytest would run the tests."""

    def __init__(self, modules: Sequence[str], sample: int, match: str, processes: int) -> None:
        self._modules = modules
        self._sample = sample
        self._match = match
        self._processes = processes
        self._items: dict[str, pytest.Item] = {}
        self._functions: dict[tuple[str, str], list[FunctionType]] = {}
        self.failed_without = False
        self.tried: set[str] = set()
        self.survived: list[str] = []
        self.known = known_equivalents()

    def pytest_collection_modifyitems(self, items: list[pytest.Function]) -> None:
        items[:] = [one for one in items if _seed(one) < SEEDS]

    def pytest_runtestloop(self, session: pytest.Session) -> bool:
        self._items = {item.nodeid: item for item in session.items}
        for module in MODULES:
            importlib.import_module(f"materializer.{module}")
        # What was loaded while tests were collected is among those that `get_objects` leaves out (tests/conftest.py).
        gc.unfreeze()
        for function in gc.get_objects():
            if isinstance(function, FunctionType):
                code = function.__code__
                self._functions.setdefault((code.co_filename, code.co_qualname), []).append(function)
        gc.freeze()
        baseline = self._baseline()
        if baseline is None:
            self.failed_without = True
            return True
        running: dict[int, str] = {}
        for module, mutant in _all(self._modules, self._sample, self._match):
            if len(running) >= self._processes:
                self._wait(running)
            running[self._forked(module, mutant, baseline)] = f"{module}.py {mutant.text}"
        while running:
            self._wait(running)
        return True

    def _wait(self, running: dict[int, str]) -> None:
        process, status = os.waitpid(-1, 0)
        name = running.pop(process)
        self.tried.add(name)
        if not os.waitstatus_to_exitcode(status):
            self.survived.append(name)
            print(f"{'equivalent' if name in self.known else 'SURVIVED'}  {name}", flush=True)

    def _baseline(self) -> Baseline | None:
        """Runs all tests in a process of its own, so that nothing of them is left in this one; None if one fails."""
        reading, writing = os.pipe()
        process = os.fork()
        if not process:
            code = 1
            try:
                found = json.dumps(self._measure()).encode()
                with open(writing, "wb") as pipe:
                    pipe.write(found)
                code = 0
            finally:
                os._exit(code)
        os.close(writing)
        with open(reading, "rb") as pipe:
            text = pipe.read()
        if os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]):
            return None
        seconds, lines = json.loads(text)
        tests = {
            module: {int(line): frozenset(found) & seconds.keys() for line, found in by_line.items()}
            for module, by_line in lines.items()
        }
        return Baseline(seconds, tests)

    def _measure(self) -> tuple[dict[str, float], dict[str, dict[int, list[str]]]]:
        files = {module: _file(module) for module in MODULES}
        tracer = coverage.Coverage(data_file=None, include=list(files.values()), config_file=False)
        tracer.start()
        seconds: dict[str, float] = {}
        for name, item in self._items.items():
            tracer.switch_context(name)
            started = time.process_time()
            if problem := _problem(item):
                os.write(2, problem.encode())
                raise SystemExit(1)
            seconds[name] = time.process_time() - started
        tracer.stop()
        data = tracer.get_data()
        return seconds, {module: data.contexts_by_lineno(file) for module, file in files.items()}

    def _forked(self, module: str, mutant: Mutant, baseline: Baseline) -> int:
        process = os.fork()
        if process:
            return process
        code = 1
        try:
            code = int(self._notice(module, mutant, baseline))
        finally:
            # With 1 also if the mutant cannot even be compiled.
            with contextlib.suppress(OSError):
                os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
            os._exit(code)

    def _notice(self, module: str, mutant: Mutant, baseline: Baseline) -> bool:
        """In a forked process: whether the tests notice."""
        resource.setrlimit(resource.RLIMIT_AS, (MEMORY_LIMIT, MEMORY_LIMIT))
        file = _file(module)
        code = _code_of(compile(mutant.tree, file, "exec"), mutant.function)
        for function in self._functions[file, mutant.function]:
            function.__code__ = code
        for name in baseline.of(module, mutant):
            # A loop that does not end is noticed, too: the signal ends the process.
            signal.setitimer(signal.ITIMER_PROF, 1 + 5 * baseline.seconds[name])
            if _problem(self._items[name]):
                return True
        return False


def _file(module: str) -> str:
    return str(ROOT / "materializer" / f"{module}.py")


def _seed(item: pytest.Function) -> int:
    seed = item.callspec.params.get("seed", 0) if hasattr(item, "callspec") else 0
    return seed if isinstance(seed, int) else 0


def _problem(item: pytest.Item) -> str:
    """Why a test failed; empty: it passed."""
    # No test leaves a fixture to the next one: each may be the last of its process.
    for report in runtestprotocol(item, log=False, nextitem=None):
        if report.failed:
            return f"{item.nodeid}: {report.longreprtext}\n"
    return ""


def _code_of(code: CodeType, name: str) -> CodeType:
    """That of a function in a module's."""
    inner = [one for one in code.co_consts if isinstance(one, CodeType)]
    for one in inner:
        if one.co_qualname == name:
            return one
        if name.startswith(f"{one.co_qualname}."):
            return _code_of(one, name)
    raise LookupError(name)


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
    known = {}
    for line in lines:
        if line and not line.startswith("#"):
            listed = _LISTED.fullmatch(line)
            if listed is None:
                raise ValueError(f"no mutant with a reason: {line}")
            known[listed["mutant"]] = listed["reason"]
    return known


def run(modules: Sequence[str], sample: int, match: str, processes: int) -> int:
    """Tries the mutants, says which survive; the exit code."""
    started = time.monotonic()
    trial = Trial(modules, sample, match, processes)
    files = [str(ROOT / "tests" / "materializer" / f"test_{one}.py") for one in TESTS]
    options = ("-qq", "--no-header", "--no-summary", "--assert=plain", "--tb=short", "-s")
    code = pytest.main([*options, "-p", "no:cacheprovider", "-p", "no:randomly", *files], plugins=[trial])
    if code not in (pytest.ExitCode.OK, pytest.ExitCode.NO_TESTS_COLLECTED) or trial.failed_without:
        print("the tests fail without any mutant")
        return 1
    known, tried = trial.known, trial.tried
    unknown = [name for name in trial.survived if name not in known]
    killed = [name for name in known if name in tried and name not in trial.survived]
    chosen = [name for name in known if not sample and not match and name.partition(".py ")[0] in modules]
    gone = [name for name in chosen if name not in tried]
    for name in killed:
        print(f"killed, though listed as equivalent: {name}")
    for name in gone:
        print(f"listed as equivalent, but there is no such mutant: {name}")
    seconds = time.monotonic() - started
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    print(
        f"{len(tried)} mutants in {seconds:.0f} s ({used.ru_utime + used.ru_stime:.0f} s of processor time): "
        f"{len(trial.survived)} survived, {len(unknown)} of them without a reason"
    )
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
