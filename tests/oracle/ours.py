"""What kubebraid makes of a case: the same model and the same requests as its members', in this process."""

from __future__ import annotations

import asyncio
import contextlib
import os
import traceback
from collections.abc import Iterator
from pathlib import Path

from producers.errors import ProducersError
from producers.kubeconfig.files import access_of
from producers.timing import ProducerTiming
from producers.upstream.apiserver import ApiServer
from producers.upstream.proxies import environment_proxies
from producers.upstream.tls import system_authorities
from tests.oracle.cases.draft import Case
from tests.oracle.kubectl import environment
from tests.oracle.outcomes import closing
from tests.oracle.recorded import Outcome
from tests.oracle.rig import Rig

# Longer than any server of a rig takes.
_LONGEST = 20.0
# A lock that somebody left is not waited for as long as with people.
_TIMING = ProducerTiming(kubeconfig_lock=0.2)
# What is said where an exception came that is none of the layer's own.
CRASHED = "crashed"


@contextlib.contextmanager
def surroundings(case: Case, root: Path) -> Iterator[None]:
    """The case's environment and working directory are this process's, until the end of the block."""
    before, folder = dict(os.environ), os.getcwd()
    os.environ.clear()
    os.environ.update(environment(case, root))
    os.chdir(root / "work")
    for once in (environment_proxies, system_authorities):
        once.cache_clear()
    try:
        yield
    finally:
        os.chdir(folder)
        os.environ.clear()
        os.environ.update(before)
        for once in (environment_proxies, system_authorities):
            once.cache_clear()


async def ask(case: Case, rig: Rig, root: Path) -> Outcome:
    """Lays the case out below `root`, and asks for the server's version; one case at a time in a process."""
    case.lay_out(root)
    with surroundings(case, root):
        answered, said = await _ask(case, root)
    return closing(case, rig, root, answered, said)


async def _ask(case: Case, root: Path) -> tuple[bool, str]:
    flag = case.flag.replace("@ROOT@", str(root)) if case.flag is not None else ""
    try:
        async with asyncio.timeout(_LONGEST):
            access = await asyncio.to_thread(access_of, flag, case.context or "")
            server = ApiServer(access, _TIMING)
            try:
                await server.get("/version")
            finally:
                await server.close()
    except (ProducersError, TimeoutError) as problem:
        return False, str(problem) or type(problem).__name__
    except Exception:  # noqa: BLE001 - what the case is for
        # A fault whatever kubectl does, which the case is to be said with.
        return False, f"{CRASHED}\n{traceback.format_exc()}"
    return True, ""
