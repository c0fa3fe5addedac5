"""No credential in any output: those of all kubeconfigs are marked, and no mark is in what people or programs see.

One `kubebraid up` has the generator's clusters as members, good and broken, and some that are simulated.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import random
import re
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import nats
import pytest
import yaml
from nats.js.api import ConsumerConfig, DeliverPolicy

from kubebraid.command.broker import EmbeddedBroker
from simulation import SimulatedCluster
from tests.e2e.conftest import Process, Service, TlsFront
from tests.oracle import generator
from tests.oracle.cases.draft import Case, Draft
from tests.oracle.rig import Certificates, Rig
from tests.oracle.test_same_as_kubectl import SEED
from tests.patience import PATIENCE

# Members beside the simulated ones.
_EACH_FAMILY = 14
_PATHS = ("certificate-authority", "client-certificate", "client-key", "tokenFile")


def written(case: Case, root: Path) -> bytes:
    """A case's kubeconfig as a file elsewhere: what it names by relative paths stays where it is laid out.

    One that cannot be parsed names nothing, and stays as it is.
    """
    text = case.files["config"].replace(b"@ROOT@", str(root).encode())
    try:
        document = yaml.safe_load(text)
        entries = [*(document.get("clusters") or ()), *(document.get("users") or ())]
        values = [one.get("cluster") or one.get("user") for one in entries]
    except (yaml.YAMLError, AttributeError, TypeError, UnicodeDecodeError, RecursionError, ValueError):
        return text
    changed = False
    for value in values:
        if not isinstance(value, dict):
            continue
        for key in _PATHS:
            if isinstance(value.get(key), str) and value[key]:
                value[key], changed = str(root / value[key]), True
        plugin = value.get("exec")
        if isinstance(plugin, dict) and isinstance(plugin.get("command"), str) and "/" in plugin["command"]:
            plugin["command"], changed = str(root / plugin["command"]), True
    return yaml.safe_dump(document, sort_keys=False).encode() if changed else text


def forms(mark: str) -> list[bytes]:
    """A secret as it may appear: as it is, and in base64 wherever it begins there."""
    found = [mark.encode()]
    for before in range(3):
        encoded = base64.b64encode(b"\0" * before + mark.encode())
        # Without the letters that what stands before and behind has a part in.
        found.append(encoded[4 if before else 0 : len(encoded) - 4])
    return [one for one in found if len(one) >= 8]


class _Members:
    """A directory of kubeconfigs, and all that is secret in them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.directory = folder / "members"
        self.directory.mkdir()
        self.marks: list[str] = []
        self.good: list[str] = []

    def add(self, name: str, case: Case) -> None:
        """A member of a case, whose current context it is."""
        root = self.folder / "cases" / name
        root.mkdir(parents=True)
        case.lay_out(root)
        (self.directory / f"{name}.yaml").write_bytes(written(case, root))
        self.marks += case.marks

    def found(self, where: str, seen: bytes) -> list[str]:
        """Which marks something has, with what stands around them."""
        problems = []
        for mark in set(self.marks):
            for form in forms(mark):
                if (at := seen.find(form)) >= 0:
                    around = seen[max(at - 200, 0) : at + 80].decode(errors="backslashreplace")
                    problems.append(f"{where}: {mark}: ...{around}")
        return problems


@contextlib.asynccontextmanager
async def _members(folder: Path, rig: Rig) -> AsyncIterator[_Members]:
    made = _Members(folder)
    for family in generator.FAMILIES:
        seeds = list(generator.seeds(family, SEED))
        step = max(len(seeds) // _EACH_FAMILY, 1)
        for number, (seed, title, twist) in enumerate(seeds[::step]):
            case = generator.make(seed, title, twist, rig)
            # As members are taken: by a file's own current context, of that file alone.
            if "config" in case.files and not case.environment and not case.links:
                made.add(f"{family.name}-{number}", case)
    async with contextlib.AsyncExitStack() as stack:
        authority = rig.certificates.authority
        leaf = authority.issue_cert("localhost")
        for number in range(3):
            draft = Draft(rig, random.Random(f"{SEED} simulated {number}"))
            cluster = SimulatedCluster(f"good-{number}", pods=5, seed=number)
            await stack.enter_async_context(cluster)
            front = await stack.enter_async_context(TlsFront(cluster.port, leaf, None))
            draft.cluster["server"] = f"https://localhost:{front.port}"
            draft.trusting()
            (draft.with_token, draft.with_plugin, draft.with_certificate)[number]()
            made.add(cluster.name, draft.case(f"{SEED}/simulated/{number}", "simulated"))
            made.good.append(cluster.name)
        yield made


async def _clusters(service: Service) -> dict[str, Any]:
    async with aiohttp.ClientSession() as session, session.get(f"{service.url}/clusters") as answer:
        return {one["name"]: one for one in (await answer.json()).get("clusters", ())}


async def _settled(service: Service, names: list[str]) -> dict[str, Any]:
    """All clusters, once something is known of each: that it is synced, or why not.

    A file of which it cannot be said which cluster it means is none; a line in the log says why.
    """
    limit = asyncio.get_running_loop().time() + PATIENCE
    while True:
        found: dict[str, Any] = {}
        with contextlib.suppress(aiohttp.ClientError):
            found = await _clusters(service)
        known = {name for name, one in found.items() if one["stale"] or (one["known"] and not one["missing"])}
        said = service.output()
        unreadable = {name for name in names if f"reason='{name}" in said or f"/members/{name}.yaml" in said}
        if not (left := set(names) - known - (unreadable - found.keys())):
            return found
        assert asyncio.get_running_loop().time() < limit, f"nothing is said of {sorted(left)}"
        await asyncio.sleep(0.2)


async def _answers(service: Service, members: _Members, names: list[str]) -> list[str]:
    """What of the answers of a service has a mark."""
    paths = [
        *("/readyz?verbose", "/livez?verbose", "/healthz?verbose", "/clusters", "/metrics", "/version"),
        *("/api", "/apis", "/api/v1", "/api/v1/pods", "/api/v1/nodes?limit=3", "/api/v1/pods?watch=1&timeoutSeconds=1"),
        *(f"/clusters/{name}{path}" for name in names for path in ("/api/v1/pods", "/api/v1/namespaces/x/pods/y/log")),
    ]
    problems = []
    async with aiohttp.ClientSession() as session:
        for path in paths:
            async with session.get(service.url + path) as answer:
                headers = b"".join(b"%b: %b\n" % header for header in answer.raw_headers)
                problems += members.found(path, headers + await answer.read())
    return problems


async def _log(broker: EmbeddedBroker, members: _Members) -> tuple[list[str], int]:
    """What of all streams of NATS has a mark: subjects, headers and payloads; and how many messages were looked at."""
    problems, seen = [], 0
    connection = await nats.connect(broker.url)
    try:
        context = connection.jetstream()
        for stream in await context.streams_info():
            name = stream.config.name
            assert name is not None
            consumer = ConsumerConfig(deliver_policy=DeliverPolicy.ALL)
            messages = await context.subscribe("", stream=name, ordered_consumer=True, config=consumer)
            left = stream.state.messages
            while left > 0:
                message = await messages.next_msg(timeout=PATIENCE)
                text = "\n".join((message.subject, *(f"{k}: {v}" for k, v in (message.headers or {}).items())))
                problems += members.found(f"{name}: {message.subject}", text.encode() + message.data)
                left = message.metadata.num_pending
                seen += 1
            await messages.unsubscribe()
    finally:
        await connection.close()
    return problems, seen


async def test_no_mark_in_any_output(broker: EmbeddedBroker, tmp_path: Path) -> None:
    async with Rig(Certificates()) as rig, _members(tmp_path, rig) as members:
        names = sorted(file.stem for file in members.directory.iterdir())
        assert len(names) > 100
        assert len(set(members.marks)) > 80
        arguments = ("--directory", str(members.directory), "--nats", broker.url, "--log-level", "debug")
        service = Service("up", *arguments, log=tmp_path / "up.log")
        await service.start()
        try:
            clusters = await _settled(service, names)
            for name in members.good:
                assert clusters[name]["stale"] is None
            problems = await _answers(service, members, names)
            in_log, seen = await _log(broker, members)
            assert seen > 100
            problems += in_log
        finally:
            await service.stop()
        said = service.log.read_bytes()
        # Debug lines are there, and so are the reasons of those that fail.
        assert re.search(rb"\[debug", said)
        problems += members.found("log", said)
        for form in ("text", "json"):
            check = Process("check", "--directory", str(members.directory), "-o", form, log=tmp_path / f"check.{form}")
            await check.start()
            await asyncio.wait_for(check.child.wait(), PATIENCE * 2)
            told = check.log.read_bytes()
            assert members.good[0].encode() in told
            problems += members.found(f"check -o {form}", told)
    if problems:
        pytest.fail(f"{len(problems)} marks\n" + "\n".join(sorted(problems)[:20]))


def test_a_mark_is_found_in_every_form() -> None:
    mark = "mark-0123456789"
    for before in ("", "a", "ab", "user:"):
        seen = base64.b64encode(f"{before}{mark}:x".encode())
        assert any(form in seen for form in forms(mark)), before
    assert any(form in f"token={mark}".encode() for form in forms(mark))
