"""Questions to a process that may wait for NATS: what it answers, and whether it waits as it has to."""

from __future__ import annotations

import asyncio
import contextlib
import re
from typing import Any

import aiohttp

from tests.patience import PATIENCE

PODS = "/api/v1/pods"


async def asked(url: str, **query: str) -> tuple[int, str, str]:
    """Status, warnings and text."""
    async with aiohttp.ClientSession() as session, session.get(url, params=query) as answer:
        return answer.status, " ".join(answer.headers.getall("Warning", ())), await answer.text()


async def probe(serving: Any, path: str) -> tuple[int, str]:
    """Status and text; a process that does not listen yet is waited for."""
    async with asyncio.timeout(PATIENCE):
        while True:
            assert serving.process.returncode is None, serving.output()
            with contextlib.suppress(aiohttp.ClientError):
                status, _, text = await asked(serving.url + path)
                return status, text
            await asyncio.sleep(0.1)


async def waits(serving: Any, reason: str = "does not answer") -> None:
    """Returns when a process waits for NATS as it has to: alive, not ready for a reason that is said."""
    async with asyncio.timeout(PATIENCE):
        while True:
            status, text = await probe(serving, "/readyz")
            assert status == 503, text
            if re.search(rf"^\[-\]NATS at nats://\S+ .*{reason}", text, re.MULTILINE):
                break
            await asyncio.sleep(0.1)
    assert await probe(serving, "/livez") == (200, "ok")
    assert "the log cannot be opened" in serving.output()
    assert reason in serving.output()
