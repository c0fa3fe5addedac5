"""Raw watchers in a process of their own: raw_watchers.py COUNT SEED URL...

What they take must not hold up what stands between the processes that are tested. For each line of standard input,
until that ends, one line with a JSON document: `listed`, whether all have listed once; `held`, for each its path,
selector, what it holds, counts and problems; `untold`, what some were not shown.
"""

from __future__ import annotations

import asyncio
import json
import random
import sys
from collections.abc import Callable
from typing import Any

import aiohttp

from tests.faults.watching import COLLECTION, Watcher

_PODS, _DEPLOYMENTS = "/api/v1/pods", "/apis/apps/v1/deployments"
# Path and label selector, some more likely than others.
_SCOPES = [(_PODS, "")] * 6 + [
    ("/clusters/alpha" + _PODS, ""),
    (_DEPLOYMENTS, ""),
    (_PODS, "app"),
    ("/api/v1/configmaps", ""),
    (COLLECTION, ""),
    (COLLECTION, ""),
]


def _held(watchers: list[Watcher]) -> list[dict[str, Any]]:
    return [
        {
            "path": one.path,
            "selector": one.selector,
            "held": {"/".join(key): version for key, version in one.objects.items()},
            "counts": one.counts,
            "problems": one.problems,
        }
        for one in watchers
    ]


def _untold(watchers: list[Watcher]) -> list[str]:
    """What some watcher was shown and another one of the same scope, that was watching by then, was not."""
    found = []
    for scope in {(one.path, one.selector) for one in watchers}:
        same = [one for one in watchers if (one.path, one.selector) == scope]
        happened = set().union(*(one.told for one in same))
        for one in same:
            missed = {event for event in happened if event[0] > one.listed} - set(one.told)
            found += [f"{scope}, listed at {one.listed}: {event}" for event in sorted(missed)]
    return found


_QUESTIONS: dict[str, Callable[[list[Watcher]], object]] = {
    "listed": lambda watchers: all(one.listed for one in watchers),
    "held": _held,
    "untold": _untold,
}


async def main() -> None:
    count, seed, urls = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3:]
    chance = random.Random(seed + 1)
    scopes = [chance.choice(_SCOPES) for _ in range(count)]
    watchers = [
        Watcher(urls, path, random.Random(seed * 1000 + number), selector=selector)
        for number, (path, selector) in enumerate(scopes)
    ]
    timeout = aiohttp.ClientTimeout(total=None, sock_connect=10, sock_read=40)
    connector = aiohttp.TCPConnector(limit=0, force_close=True)
    async with (
        aiohttp.ClientSession(timeout=timeout, connector=connector, read_bufsize=2**20) as session,
        asyncio.TaskGroup() as tasks,
    ):
        running = [tasks.create_task(one.run(session)) for one in watchers]
        while question := await asyncio.to_thread(sys.stdin.readline):
            sys.stdout.write(json.dumps(_QUESTIONS[question.strip()](watchers)) + "\n")
            sys.stdout.flush()
        for task in running:
            task.cancel()


if __name__ == "__main__":
    asyncio.run(main())
