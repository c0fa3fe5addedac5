"""What must hold on any member clusters: simulated ones, or those of $KUBECONFIG (`make test-clusters`).

It writes one ConfigMap into the namespace `default` of each cluster, and removes it.
"""

from __future__ import annotations

import asyncio
import json
import os
import secrets
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.conftest import Comparison, Kubectl, Members, Starter, synced_types, title_of
from tests.patience import PATIENCE

pytestmark = pytest.mark.clusters


@pytest.fixture
def kubeconfig(members: Members) -> str:
    return os.environ.get("KUBEBRAID_TEST_KUBECONFIG") or str(members.kubeconfig)


OnMember = Callable[..., Awaitable[str]]


@pytest.fixture
def member(kubeconfig: str, kubectl: Kubectl) -> OnMember:
    """kubectl on one member cluster; must succeed."""

    async def run(context: str, *arguments: str, input: str | None = None) -> str:
        code, out, err = await kubectl("--kubeconfig", kubeconfig, "--context", context, *arguments, input=input)
        assert code == 0, err
        return out

    return run


def by_key(answer: dict[str, Any]) -> dict[tuple[str, str], dict[str, Any]]:
    """A list's items by namespace and name."""
    items = answer["items"] or []
    return {(item["metadata"].get("namespace", ""), item["metadata"]["name"]): item for item in items}


async def test_every_type_of_every_cluster_is_served_as_it_is(
    kubeconfig: str, member: OnMember, kubectl: Kubectl, start: Starter, compare: Comparison, tmp_path: Path
) -> None:
    service = await start("--kubeconfig", kubeconfig, "--data", str(tmp_path / "data"))
    contexts = [one["name"] for one in (await service.get("/clusters"))["clusters"]]
    assert contexts
    for context in contexts:

        async def theirs(path: str, context: str = context) -> str:
            return await member(context, "get", "--raw", path)

        async def ours(path: str, context: str = context) -> dict[str, Any]:
            return await service.get(f"/clusters/{context}{path}")

        def same(one: dict[str, Any], other: dict[str, Any]) -> bool:
            # Items of Go types have neither a kind nor an API version, those of custom resources both.
            named = all(one.get(name) == other.get(name) for name in ("kind", "apiVersion"))
            return named and compare.comparable(one) == compare.comparable(other)

        synced = await synced_types(service.url, context)
        roots = ["/api/v1"]
        roots += [f"/apis/{group['preferredVersion']['groupVersion']}" for group in (await ours("/apis"))["groups"]]
        for root in roots:
            for resource in (await ours(root))["resources"]:
                path = f"{root}/{resource['name']}"
                if "/" in resource["name"] or title_of(path) not in synced:
                    continue
                before = by_key(json.loads(await theirs(path)))
                served = by_key(await ours(path))
                if served.keys() == before.keys() and all(same(served[key], before[key]) for key in before):
                    continue
                # The cluster goes on living: only what it has before and after the list has to be in it.
                after = by_key(json.loads(await theirs(path)))
                assert before.keys() & after.keys() <= served.keys(), path
                assert served.keys() <= before.keys() | after.keys(), path
                for key in before.keys() & after.keys():
                    if before[key]["metadata"]["resourceVersion"] == after[key]["metadata"]["resourceVersion"]:
                        assert same(served[key], before[key]), (path, key)


async def test_a_change_arrives_and_goes(
    kubeconfig: str, member: OnMember, kubectl: Kubectl, start: Starter, tmp_path: Path
) -> None:
    service = await start("--kubeconfig", kubeconfig, "--data", str(tmp_path / "data"))
    name = f"kubebraid-test-{secrets.token_hex(4)}"
    body = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name, "namespace": "default"}, "data": {}}
    contexts = [one["name"] for one in (await service.get("/clusters"))["clusters"]]
    path = f"/api/v1/configmaps?fieldSelector=metadata.name%3D{name}"

    async def seen() -> set[str]:
        code, out, err = await kubectl("--server", service.url, "get", "--raw", path)
        assert code == 0, err
        return {
            item["metadata"]["annotations"]["shadow.clusterpedia.io/cluster-name"] for item in json.loads(out)["items"]
        }

    async def becomes(wanted: set[str]) -> None:
        async with asyncio.timeout(PATIENCE):
            while await seen() != wanted:
                await asyncio.sleep(0.1)

    try:
        for context in contexts:
            await member(context, "create", "--validate=false", "-f", "-", input=json.dumps(body))
        await becomes(set(contexts))
    finally:
        for context in contexts:
            await member(context, "delete", "configmap", name, "-n", "default", "--ignore-not-found", "--wait=false")
    await becomes(set())


async def test_what_is_written_through_us_is_read_here(
    kubeconfig: str, kubectl: Kubectl, start: Starter, tmp_path: Path
) -> None:
    service = await start(
        *("--kubeconfig", kubeconfig, "--data", str(tmp_path / "data"), "--forward", "configured"),
        *("--include", "configmaps", "--include", "namespaces"),
    )
    name = f"kubebraid-test-{secrets.token_hex(4)}"
    body = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name, "namespace": "default"}}
    for context in [one["name"] for one in (await service.get("/clusters"))["clusters"]]:

        async def through(*arguments: str, context: str = context, code: int = 0, **given: Any) -> str:
            server = ("--server", f"{service.url}/clusters/{context}")
            found, out, err = await kubectl(*server, *arguments, **given)
            assert found == code, (arguments, err)
            return out + err

        # What is in memory now, without asking the log for its head.
        path = f"/clusters/{context}/api/v1/namespaces/default/configmaps/{name}"
        try:
            for value, said in (("one", "created"), ("two", "configured")):
                text = json.dumps({**body, "data": {"value": value}})
                assert said in await through("apply", "--validate=false", "-f", "-", input=text)
                assert (await service.get(path, resourceVersion="0"))["data"] == {"value": value}
            assert "labeled" in await through("label", "configmap", name, "-n", "default", "by=kubebraid")
            assert (await service.get(path, resourceVersion="0"))["metadata"]["labels"] == {"by": "kubebraid"}
        finally:
            await through("delete", "configmap", name, "-n", "default", "--ignore-not-found")
        assert "NotFound" in await through("get", "configmap", name, "-n", "default", code=1)
