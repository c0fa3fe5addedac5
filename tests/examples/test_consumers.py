"""The consumers of docs/consumers.md, in each language whose toolchain is here: the same log, told the same."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import re
import shutil
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from deltalog import ADDED, DELETED, Appender, ControlRecord, Delta, Log, encode_control, encode_delta
from deltalog.wire.kubernetes import GroupResource
from deltalog.wire.parts import fit, part_subject
from deltalog.wire.records import ObjectsRemoved
from deltalog.wire.subjects import object_subject, type_prefix
from kubebraid.command.broker import EmbeddedBroker
from tests.patience import PATIENCE

ROOT = Path(__file__).parent.parent.parent
EXAMPLES = ROOT / "examples"
GO_PACKAGES = Path("/usr/share/gocode")


async def python(directory: Path) -> list[str]:
    return [sys.executable, str(EXAMPLES / "consumer.py")]


async def javascript(directory: Path) -> list[str]:
    node = shutil.which("node")
    modules = ROOT / ".node" / "examples" / "node_modules"
    if node is None:
        pytest.skip("node is not on this machine")
    if not (modules / "@nats-io" / "jetstream").exists():
        pytest.skip("the example's packages are not installed: `make install` where npm is")
    # A module finds packages beside itself, or further up.
    (directory / "node_modules").symlink_to(modules)
    program = directory / "consumer.mjs"
    shutil.copy(EXAMPLES / "consumer.mjs", program)
    return [node, str(program)]


async def go(directory: Path) -> list[str]:
    compiler = shutil.which("go")
    if compiler is None:
        pytest.skip("go is not on this machine")
    for package in ("github.com/nats-io/nats.go", "github.com/vmihailenco/msgpack"):
        if not (GO_PACKAGES / "src" / package).exists():
            pytest.skip(
                f"{package} is not installed (Debian: golang-github-nats-io-go-nats-dev and "
                "golang-github-vmihailenco-msgpack.v5-dev)"
            )
    program = directory / "consumer"
    process = await asyncio.create_subprocess_exec(
        *(compiler, "build", "-o", str(program), str(EXAMPLES / "consumer.go")),
        env={
            **os.environ,
            "GO111MODULE": "off",
            "GOPATH": str(GO_PACKAGES),
            "GOFLAGS": "",
            "GOCACHE": str(directory / "cache"),
        },
    )
    assert await process.wait() == 0
    return [str(program)]


@contextlib.asynccontextmanager
async def running(command: list[str], *arguments: str) -> AsyncIterator[asyncio.StreamReader]:
    process = await asyncio.create_subprocess_exec(*command, *arguments, stdout=asyncio.subprocess.PIPE)
    assert process.stdout is not None
    try:
        yield process.stdout
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


async def lines(output: asyncio.StreamReader, count: int) -> list[dict[str, Any]]:
    found = []
    async with asyncio.timeout(PATIENCE):
        for _ in range(count):
            line = await output.readline()
            assert line, "the program has ended"
            found.append(json.loads(line))
    return found


class Writing:
    """Pods, nodes and a removal, appended as producers do."""

    def __init__(self, appender: Appender) -> None:
        self.appender = appender

    async def pod(self, name: str, kind: str = ADDED, size: int = 10, limit: int = 1_000_000, **given: Any) -> int:
        head, noise = b'{"kind":"Pod","apiVersion":"v1","metadata":{"name":"n"},"x":"', os.urandom(size)
        body = head + noise.hex().encode() + b'"}'
        fixed = {"cluster": "alpha", "group": "", "version": "v1", "resource": "pods", "namespace": "shop"}
        delta = Delta(
            type=kind,
            name=name,
            uid=f"uid-{name}",
            member_version="7",
            time=1,
            producer="p",
            epoch=1,
            version_offset=44,
            metadata_end=55,
            object=body,
            **{**fixed, **given},
        )
        prefix = type_prefix(delta.cluster, delta.group, delta.version, delta.resource)
        subject = object_subject(prefix, delta.namespace, name)
        delta, payload, parts = fit(delta, limit)
        if parts:
            sequences = [
                await self.appender.append_wait(part_subject(subject, "7", number), part)
                for number, part in enumerate(parts)
            ]
            payload = encode_delta(msgspec.structs.replace(delta, parts=tuple(sequences)))
        return await self.appender.append_wait(subject, payload)

    async def removed(self, cluster: str, resource: str) -> int:
        fact = ObjectsRemoved(resource=GroupResource("", resource))
        control = ControlRecord(cluster=cluster, time=1, producer="p", epoch=1, fact=fact)
        return await self.appender.append_wait(control.subject, encode_control(control))


@pytest.mark.parametrize("language", [python, javascript, go])
async def test_a_consumer(log: Log, broker: EmbeddedBroker, tmp_path: Path, language: Any) -> None:
    command = await language(tmp_path)
    async with Appender(log.connection) as appender:
        writing = Writing(appender)
        first = await writing.pod("web.1")
        await writing.pod("node", resource="nodes", namespace="")
        compressed = await writing.pod("packed", size=4000, limit=6000)
        large = await writing.pod("large", size=20_000, limit=5000)
        # Later than its parts, so that some lie before where the second run begins.
        async with running(command, broker.url) as output:
            told = await lines(output, 3)
            assert told[0] == {
                "sequence": first,
                "cluster": "alpha",
                "resource": "pods",
                "type": "ADDED",
                "name": "shop/web.1",
                "uid": "uid-web.1",
                "bytes": 63 + 20,
            }
            assert [(one["sequence"], one["bytes"]) for one in told[1:]] == [
                (compressed, 63 + 8000),
                (large, 63 + 40_000),
            ]
            gone = await writing.pod("web.1", DELETED, uid_index=first)
            removed = await writing.removed("alpha", "pods")
            live = await lines(output, 2)
            assert [(one["sequence"], one["type"]) for one in live] == [(gone, "DELETED"), (removed, "REMOVED")]
            assert live[1] == {"sequence": removed, "cluster": "alpha", "resource": "pods", "type": "REMOVED"}
        async with running(command, broker.url, str(large)) as output:
            assert [one["sequence"] for one in await lines(output, 2)] == [gone, removed]
        async with running(command, broker.url, str(large - 1)) as output:
            assert [(one["sequence"], one["bytes"]) for one in await lines(output, 1)] == [(large, 63 + 40_000)]


def test_what_the_document_shows_is_what_is_tested() -> None:
    sources = [path.read_text() for path in EXAMPLES.iterdir() if path.suffix in (".py", ".mjs", ".go")]
    blocks = re.findall(r"```(?:python|javascript|go)\n(.*?)```", (ROOT / "docs" / "consumers.md").read_text(), re.S)
    assert len(blocks) >= 4
    for block in blocks:
        assert any(block in source for source in sources), f"no example has this:\n{block}"
