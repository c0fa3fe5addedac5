"""The examples of docs/search.md, run as they stand there against the demo's content: each finds something."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from tests.e2e.conftest import Kubectl, Members, Service, service_of

DOCUMENT = (Path(__file__).parent.parent.parent / "docs/search.md").read_text()
EXAMPLES = [
    line
    for block in re.findall(r"^```sh\n(.*?)^```", DOCUMENT, re.MULTILINE | re.DOTALL)
    for line in block.splitlines()
    if not line.startswith(("#", "export "))
]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def shared_service(shared_members: Members) -> AsyncIterator[Service]:
    """A service that has the document's collections."""
    [collections] = re.findall(r"^```yaml\n(.*?)^```", DOCUMENT, re.MULTILINE | re.DOTALL)
    file = shared_members.kubeconfig.with_name("collections.yaml")
    file.write_text(collections)
    async with service_of(shared_members, "--collections", str(file)) as service:
        yield service


@pytest.mark.asyncio(loop_scope="module")
@pytest.mark.parametrize("example", EXAMPLES)
async def test_an_example(shared_service: Service, kubectl: Kubectl, example: str) -> None:
    assert example.startswith(("curl -sG $SERVER", "kubectl --server $SERVER"))
    process = await asyncio.create_subprocess_exec(
        "sh",
        "-c",
        example,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env={"SERVER": shared_service.url, "PATH": "/usr/local/bin:/usr/bin:/bin", "HOME": "/nonexistent"},
    )
    out, err = await process.communicate()
    assert process.returncode == 0, err.decode()
    assert b"Warning" not in err
    if example.startswith("curl"):
        found = json.loads(out)
        assert found["kind"] != "Status", found
        assert found["items"]
    else:
        # A head and rows.
        assert len(out.splitlines()) > 1


def test_there_are_examples_of_all() -> None:
    text = " ".join(EXAMPLES)
    for one in (
        "clusters",
        "since",
        "owner-name",
        "ownerName",
        "fuzzy-name",
        "filter",
        "orderby",
        "fieldSelector",
        "limit",
        "collectionresources/traffic",
    ):
        assert one in text
    assert len(EXAMPLES) > 12
