"""Types of which not everything is here: what is below /clusters/<c> is the cluster's, and nothing there is harmed."""

from __future__ import annotations

import asyncio
import base64
import json
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import yaml

from tests.e2e.conftest import Kubectl, Members, Starter
from tests.patience import PATIENCE

CONFIGMAPS = "/api/v1/namespaces/{}/configmaps"
SECRETS = "/api/v1/namespaces/default/secrets"


async def send(
    url: str, method: str, path: str, body: Any = None, content_type: str = "application/json"
) -> tuple[int, Any]:
    data = None if body is None else body if isinstance(body, str | bytes) else json.dumps(body)
    async with aiohttp.ClientSession() as session:
        async with session.request(method, url + path, data=data, headers={"Content-Type": content_type}) as answer:
            return answer.status, await answer.json(content_type=None)


def configmap(name: str, **labels: str) -> dict[str, Any]:
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name, "labels": labels}, "data": {"a": "b"}}


async def test_other_namespaces_are_read_at_the_cluster(
    tmp_path: Path, members: Members, start: Starter, kubectl: Kubectl
) -> None:
    service = await start(
        *("--kubeconfig", str(members.kubeconfig), "--data", str(tmp_path / "data")),
        *("--include", "configmaps", "--namespace", "default"),
    )
    within, beyond = CONFIGMAPS.format("default"), CONFIGMAPS.format("kube-system")
    own = members["alpha"].url
    assert (await send(own, "POST", beyond, configmap("out")))[0] == 201
    alpha = service.url + "/clusters/alpha"
    code, found = await send(alpha, "GET", f"{beyond}/out")
    assert (code, found["metadata"]["name"]) == (200, "out")
    assert found == (await send(own, "GET", f"{beyond}/out"))[1], "as the cluster has it"
    listed = (await send(alpha, "GET", beyond))[1]
    assert "out" in [one["metadata"]["name"] for one in listed["items"]]
    # As kubectl does it: read, then write.
    file = tmp_path / "out.yaml"
    file.write_text(yaml.safe_dump({**configmap("out"), "data": {"a": "c"}}))
    code, out, err = await kubectl("--server", alpha, "-n", "kube-system", "apply", "-f", str(file))
    assert (code, out) == (0, "configmap/out configured\n"), err
    code, _, err = await kubectl(
        *("--server", alpha, "-n", "kube-system", "wait", "--for=delete", "configmap/out", "--timeout=1s")
    )
    assert code == 1, "it is there"
    assert "timed out" in err
    # What is synced is read here, with versions of here.
    assert (await send(alpha, "POST", within, configmap("in")))[0] == 201
    version = (await send(alpha, "GET", f"{within}/in"))[1]["metadata"]["resourceVersion"]
    assert version.count(".") == 2
    assert (await send(service.url, "GET", f"{beyond}/out"))[0] == 404, "at the root is what is synced"


async def test_objects_beyond_a_selector_are_read_at_the_cluster(
    tmp_path: Path, members: Members, start: Starter
) -> None:
    service = await start(
        *("--kubeconfig", str(members.kubeconfig), "--data", str(tmp_path / "data")),
        *("--include", "configmaps", "--selector", "team=a"),
    )
    path, own = CONFIGMAPS.format("default"), members["alpha"].url
    alpha = service.url + "/clusters/alpha"
    assert (await send(own, "POST", path, configmap("other", team="b")))[0] == 201
    code, found = await send(alpha, "GET", f"{path}/other")
    assert (code, found["metadata"]["labels"]) == (200, {"team": "b"})
    # Only the watch brings what a selector selects: whoever writes is answered when it has.
    members["alpha"].faults.hang_watches()
    writing = asyncio.create_task(send(alpha, "POST", path, configmap("ours", team="a")))
    async with asyncio.timeout(PATIENCE):
        while (await send(own, "GET", f"{path}/ours"))[0] != 200:
            await asyncio.sleep(0.01)
    assert (await send(alpha, "POST", path, configmap("others", team="b")))[0] == 201, "and is not waited for"
    assert not writing.done()
    members["alpha"].faults.hang_watches(False)
    assert (await writing)[0] == 201
    code, found = await send(alpha, "GET", f"{path}/ours")
    assert found["metadata"]["resourceVersion"].count(".") == 2
    assert (await send(alpha, "GET", f"{path}/nobody"))[0] == 404


@pytest.mark.parametrize("form", ["json", "yaml"])
async def test_what_is_pruned_is_not_emptied_by_writing_it_back(
    tmp_path: Path, members: Members, start: Starter, form: str
) -> None:
    service = await start(
        *("--kubeconfig", str(members.kubeconfig), "--data", str(tmp_path / "data")),
        *("--include", "secrets", "--prune", "secrets=/data"),
    )
    own, alpha = members["alpha"].url, service.url + "/clusters/alpha"
    secret = {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": "s"},
        "data": {"a": base64.b64encode(b"x").decode(), "b": base64.b64encode(b"y").decode()},
    }
    assert (await send(alpha, "POST", SECRETS, secret))[0] == 201
    code, read = await send(alpha, "GET", f"{SECRETS}/s?resourceVersion=0")
    assert (code, read["data"]) == (200, {"a": "", "b": ""})

    async def put(content: dict[str, Any]) -> tuple[int, Any]:
        body, kind = (json.dumps(content), "json") if form == "json" else (yaml.safe_dump(content), "yaml")
        return await send(alpha, "PUT", f"{SECRETS}/s", body, f"application/{kind}")

    labelled = {**read, "metadata": {**read["metadata"], "labels": {"x": "y"}}}
    for content in (read, labelled, {**labelled, "data": {"a": "new=", "b": ""}}):
        code, status = await put(content)
        assert (code, status["reason"]) == (422, "Invalid")
        assert "/data" in status["message"]
        assert "PATCH" in status["message"]
    kept = (await send(own, "GET", f"{SECRETS}/s"))[1]
    assert kept["data"] == secret["data"]
    protobuf = await send(alpha, "PUT", f"{SECRETS}/s", b"k8s\x00", "application/vnd.kubernetes.protobuf")
    assert protobuf[0] == 415
    # All of them given, or changed by a patch: as in the cluster.
    code, _ = await put({**labelled, "data": {"a": "bmV3", "b": "bmV3"}})
    assert code == 200
    patch = {"metadata": {"labels": {"x": "z"}}}
    assert (await send(alpha, "PATCH", f"{SECRETS}/s", patch, "application/merge-patch+json"))[0] == 200
    now = (await send(own, "GET", f"{SECRETS}/s"))[1]
    assert (now["data"], now["metadata"]["labels"]) == ({"a": "bmV3", "b": "bmV3"}, {"x": "z"})
