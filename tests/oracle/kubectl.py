"""The oracle: what kubectl makes of a case."""

from __future__ import annotations

import asyncio
import functools
import json
import os
import re
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from tests.oracle.cases.draft import Case
from tests.oracle.outcomes import closing
from tests.oracle.recorded import Outcome
from tests.oracle.rig import Rig

# Where kubectl asks a person, this one answers; kubebraid then goes on without, as client-go's libraries do.
ANSWERED = "Basic YXNrZWQtbmFtZTphc2tlZC1wYXNzd29yZA=="
_PERSON = ("--username=asked-name", "--password=asked-password")
_PATH = os.environ["PATH"]
# Facts of tests.oracle.cases are those of client-go since then (as-uid, TLS names, one-by-one quirks).
OLDEST = (1, 30)
# One that does not end by itself; a refused connection is tried again for ten seconds.
_LONGEST = 20.0


@functools.cache
def find() -> tuple[str, tuple[int, int]] | None:
    """kubectl's path and version; None without one.

    Google's is a dispatcher that asks the server for its version first, with the kubeconfig's credentials: one of
    those that it would start is taken.
    """
    found = shutil.which("kubectl")
    if found is None:
        return None
    beside = Path(found).resolve().parent
    numbered = [(int(path.suffix[1:]), path) for path in beside.glob("kubectl.1.*") if path.suffix[1:].isdigit()]
    program = str(max(numbered)[1]) if numbered else found
    out = subprocess.run([program, "version", "--client", "-o", "json"], capture_output=True, check=True).stdout
    version = json.loads(out)["clientVersion"]
    return program, (int(version["major"]), int(re.sub(r"\D", "", version["minor"])))


def environment(case: Case, root: Path) -> dict[str, str]:
    """The environment of a client: little of ours, and the case's."""
    made = {"PATH": _PATH, "HOME": str(root / "home")}
    if case.kubeconfig is not None:
        made["KUBECONFIG"] = case.kubeconfig
    return {name: value.replace("@ROOT@", str(root)) for name, value in {**made, **case.environment}.items()}


async def _run(arguments: Sequence[str], case: Case, root: Path) -> tuple[int, bytes, str]:
    found = find()
    assert found is not None
    process = await asyncio.create_subprocess_exec(
        found[0],
        *arguments,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        cwd=root / "work",
        env=environment(case, root),
    )
    try:
        async with asyncio.timeout(_LONGEST):
            out, err = await process.communicate()
    except TimeoutError:
        process.kill()
        out, err = await process.communicate()
    return process.returncode or 0, out, err.decode(errors="replace")


async def ask(case: Case, rig: Rig, root: Path) -> Outcome:
    """Lays the case out below `root`, and lets kubectl ask for the server's version."""
    case.lay_out(root)
    arguments = ["version", "-o", "json", f"--cache-dir={root.parent / 'cache'}"]
    if case.flag is not None:
        arguments.append(f"--kubeconfig={case.flag.replace('@ROOT@', str(root))}")
    if case.context is not None:
        arguments.append(f"--context={case.context}")
    code, out, err = await _run(arguments, case, root)
    if b"Please enter Username" in out:
        # It reads a password from a terminal alone.
        code, out, err = await _run((*arguments, *_PERSON), case, root)
    answered = code == 0 and b'"serverVersion"' in out
    outcome = closing(case, rig, root, answered, err)
    arrivals = (one.without("authorization", ANSWERED) for one in outcome.arrivals)
    return replace(outcome, arrivals=tuple(sorted(arrivals)))
