"""OpenAPI of a simulated cluster: schemas, hashes, what kubectl makes of them."""

from __future__ import annotations

import asyncio
import shutil
from pathlib import Path

import pytest

from tests.simulation.conftest import Client

PROTOBUF = "application/com.github.proto-openapi.spec.v2@v1.0+protobuf"
CRD = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions/certificates.certs.example.io"


async def test_documents_describe_the_types_of_their_group(client: Client) -> None:
    paths = (await client.get("/openapi/v3"))["paths"]
    assert {"api/v1", "apis/apps/v1", "apis/certs.example.io/v1"} <= paths.keys()
    apps = await client.get(paths["apis/apps/v1"]["serverRelativeURL"])
    assert "/apis/apps/v1/namespaces/{namespace}/deployments/{name}" in apps["paths"]
    known = apps["components"]["schemas"]
    kind = {"group": "apps", "version": "v1", "kind": "Deployment"}
    [deployment] = [one for one in known.values() if kind in one.get("x-kubernetes-group-version-kind", ())]
    [reference] = deployment["properties"]["spec"]["allOf"]
    assert "replicas" in known[reference["$ref"].rpartition("/")[2]]["properties"]
    custom = await client.get(paths["apis/certs.example.io/v1"]["serverRelativeURL"])
    certificate = custom["components"]["schemas"]["io.example.certs.v1.Certificate"]
    assert certificate["properties"]["spec"]["required"] == ["secretName", "issuerRef"]
    whole = await client.get("/openapi/v2")
    assert whole["swagger"] == "2.0"
    assert whole["definitions"]["io.k8s.api.core.v1.Pod"]["properties"]["spec"]["$ref"] in {
        f"#/definitions/{name}" for name in whole["definitions"]
    }


async def test_hashes_and_tags_change_with_the_document_alone(client: Client) -> None:
    before = (await client.get("/openapi/v3"))["paths"]
    path = before["apis/certs.example.io/v1"]["serverRelativeURL"]
    async with client.session.get(client.cluster.url + path) as answer:
        tag = answer.headers["ETag"]
        assert answer.headers["Cache-Control"] == "public, immutable"
    async with client.session.get(client.cluster.url + path, headers={"If-None-Match": tag}) as answer:
        assert answer.status == 304
    version = (await client.get(CRD))["spec"]["versions"][0]
    version["schema"]["openAPIV3Schema"]["properties"]["spec"]["properties"]["keySize"] = {"type": "integer"}
    await client.patch(CRD, {"spec": {"versions": [version]}})
    after = (await client.get("/openapi/v3"))["paths"]
    assert [key for key in after if after[key] != before.get(key)] == ["apis/certs.example.io/v1"]
    async with client.session.get(client.cluster.url + path, allow_redirects=False) as answer:
        assert answer.status == 301
        assert answer.headers["Location"] == after["apis/certs.example.io/v1"]["serverRelativeURL"]
    async with client.session.get(client.cluster.url + path) as answer:
        assert b'"keySize"' in await answer.read()


async def test_forms_of_version_2(client: Client) -> None:
    async with client.session.get(client.cluster.url + "/openapi/v2", headers={"Accept": PROTOBUF}) as answer:
        assert answer.headers["Content-Type"] == PROTOBUF.replace("@", ".")
        # Field 1, text: swagger.
        assert (await answer.read()).startswith(b"\x0a\x032.0")
    assert (await client.request("GET", "/openapi/v2", headers={"Accept": "text/html"}))[0] == 406
    for path in ("/openapi", "/openapi/v1", "/openapi/v3/api/v9", "/openapi/v2/x"):
        assert (await client.request("GET", path))[0] == 404


@pytest.mark.processes
@pytest.mark.parametrize("form", ["plaintext", "plaintext-openapiv2"])
@pytest.mark.parametrize(
    ("path", "field"), [("pod.spec.containers", "imagePullPolicy"), ("certificates.spec", "secretName")]
)
async def test_kubectl_explains(client: Client, tmp_path: Path, path: str, field: str, form: str) -> None:
    kubectl = shutil.which("kubectl")
    if kubectl is None:
        pytest.skip("kubectl is not on this machine")
    server = ("--server", client.cluster.url, "--cache-dir", str(tmp_path))
    process = await asyncio.create_subprocess_exec(
        kubectl,
        *(*server, "explain", path, "--output", form),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        env={"HOME": str(tmp_path), "KUBECONFIG": str(tmp_path / "none")},
    )
    out, _ = await process.communicate()
    assert process.returncode == 0, out
    assert field in out.decode()
