"""What is under deploy/: valid by the schemas of Compose and Kubernetes, consistent, with options that there are."""

from __future__ import annotations

import copy
import json
import os
import re
import subprocess
import tomllib
from pathlib import Path
from string import Template
from typing import Any

import kubernetes_validate
import pytest
import typer.main
import yaml
from compose_spec import PyCompose

from kubebraid.command.broker import binary
from kubebraid.command.cli import command_line
from kubebraid.command.doors import Doors
from kubebraid.command.settings import parse_listen
from producers.rules.configuration import Secrets, load

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy"
KUBERNETES = [
    document
    for file in sorted((DEPLOY / "kubernetes").glob("*.yaml"))
    for document in yaml.safe_load_all(file.read_text())
]
# With the defaults of its variables.
COMPOSE: dict[str, Any] = yaml.safe_load(re.sub(r"\$\{\w+:-(.*?)\}", r"\1", (DEPLOY / "compose.yaml").read_text()))


def named(kind: str, name: str) -> dict[str, Any]:
    found: dict[str, Any]
    [found] = [one for one in KUBERNETES if one["kind"] == kind and one["metadata"]["name"] == name]
    return found


def container(kind: str, name: str) -> dict[str, Any]:
    found: dict[str, Any]
    [found] = named(kind, name)["spec"]["template"]["spec"]["containers"]
    return found


def parsed(arguments: list[str]) -> dict[str, Any]:
    """What a command takes from these arguments; fails for an option that there is not."""
    group = typer.main.get_command(command_line())
    command = group.commands[arguments[0]]  # type: ignore[attr-defined]
    with command.make_context(arguments[0], list(arguments[1:])) as context:
        return dict(context.params)


# -- Kubernetes --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("document", KUBERNETES, ids=lambda one: f"{one['kind']}/{one['metadata']['name']}")
def test_manifests_fit_the_schemas(document: dict[str, Any]) -> None:
    kubernetes_validate.validate(document, "1.30", strict=True)
    assert document["kind"] == "Namespace" or document["metadata"]["namespace"] == "kubebraid"


def test_the_schemas_are_strict() -> None:
    wrong = copy.deepcopy(named("Deployment", "kubebraid-serve"))
    wrong["spec"]["template"]["spec"]["containers"][0]["imagePolicy"] = "Never"
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(wrong, "1.30", strict=True)


def test_manifests_hang_together() -> None:
    labels = {
        one["metadata"]["name"]: one["spec"]["template"]["metadata"]["labels"]
        for one in KUBERNETES
        if one["kind"] in ("Deployment", "StatefulSet")
    }
    assert {
        name: named(kind, name)["spec"]["replicas"]
        for kind, name in (
            ("StatefulSet", "nats"),
            ("Deployment", "kubebraid-produce"),
            ("Deployment", "kubebraid-serve"),
        )
    } == {"nats": 3, "kubebraid-produce": 2, "kubebraid-serve": 3}
    for one in KUBERNETES:
        spec = one.get("spec", {})
        if one["kind"] == "Service":
            selected = spec["selector"]
        elif one["kind"] == "NetworkPolicy":
            selected = spec["podSelector"]["matchLabels"]
        elif one["kind"] in ("Deployment", "StatefulSet", "PodDisruptionBudget"):
            selected = spec["selector"]["matchLabels"]
        else:
            continue
        assert [name for name, held in labels.items() if selected.items() <= held.items()], one["metadata"]["name"]
    # Every volume that is mounted, port that is probed and configuration that is named is there.
    for one in KUBERNETES:
        if one["kind"] not in ("Deployment", "StatefulSet"):
            continue
        pod = one["spec"]["template"]["spec"]
        volumes = {volume["name"] for volume in pod["volumes"]}
        volumes |= {claim["metadata"]["name"] for claim in one["spec"].get("volumeClaimTemplates", ())}
        for volume in pod["volumes"]:
            # This one, and Secrets, are made by who applies the manifests.
            if "configMap" in volume and volume["configMap"]["name"] != "kubebraid-access":
                named("ConfigMap", volume["configMap"]["name"])
        if "serviceAccountName" in pod:
            named("ServiceAccount", pod["serviceAccountName"])
        [only] = pod["containers"]
        assert {mount["name"] for mount in only["volumeMounts"]} == volumes
        ports = {port["name"] for port in only["ports"]}
        for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
            assert (only[probe].get("httpGet") or only[probe]["tcpSocket"])["port"] in ports
    assert named("StatefulSet", "nats")["spec"]["serviceName"] == "nats-servers"
    [port] = named("Service", "kubebraid")["spec"]["ports"]
    assert port["targetPort"] in {one["name"] for one in container("Deployment", "kubebraid-serve")["ports"]}


def test_nobody_is_root() -> None:
    for kind, name in (("StatefulSet", "nats"), ("Deployment", "kubebraid-produce"), ("Deployment", "kubebraid-serve")):
        pod = named(kind, name)["spec"]["template"]["spec"]
        assert pod["securityContext"]["runAsNonRoot"]
        assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        inside = container(kind, name)["securityContext"]
        assert inside["readOnlyRootFilesystem"]
        assert not inside["allowPrivilegeEscalation"]
        assert inside["capabilities"] == {"drop": ["ALL"]}


@pytest.mark.parametrize("name", ["kubebraid-produce", "kubebraid-serve"])
def test_arguments_of_the_manifests(name: str) -> None:
    only = container("Deployment", name)
    given = parsed(only["args"])
    assert given["replicas"] == named("StatefulSet", "nats")["spec"]["replicas"]
    assert given["nats"].split(",") == [f"nats://nats-{number}.nats-servers:4222" for number in range(3)]
    assert int(given["listen"].rpartition(":")[2]) in {port["containerPort"] for port in only["ports"]}


def test_what_guards_the_manifests() -> None:
    """https, by files that are mounted as directories; everyone is known by an authority of the cluster."""
    only, pod = container("Deployment", "kubebraid-serve"), named("Deployment", "kubebraid-serve")["spec"]["template"]
    given = parsed(only["args"])
    assert not given["insecure_listen"]
    mounted = {mount["mountPath"]: mount["name"] for mount in only["volumeMounts"]}
    volumes = {volume["name"]: volume for volume in pod["spec"]["volumes"]}
    files = ("tls_cert_file", "tls_private_key_file", "client_ca_file", "requestheader_client_ca_file")
    for name in files:
        assert str(given[name].parent) in mounted, name
    assert volumes[mounted["/etc/kubebraid/tls"]]["secret"]["secretName"] == "kubebraid-tls"
    # Keys of a Secret of type kubernetes.io/tls, and of the ConfigMap that is copied.
    assert [given[name].name for name in files] == [
        "tls.crt",
        "tls.key",
        "client-ca-file",
        "requestheader-client-ca-file",
    ]
    for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
        assert only[probe]["httpGet"]["scheme"] == "HTTPS"
    parse_listen(given["listen"], insecure=False, doors=Doors(certificate=Path("x"), client_authorities=(Path("y"),)))


@pytest.mark.parametrize(
    ("file", "name"),
    [("apiservice.yaml", "v1.widgets.example.io"), ("clusterpedia.yaml", "v1beta1.clusterpedia.io")],
)
def test_an_aggregated_group(file: str, name: str) -> None:
    """The APIService is of the Service that there is, by a name that its certificate is said to have."""
    text = (DEPLOY / "kubernetes" / "aggregation" / file).read_text()
    values = {"GROUP": "widgets.example.io", "VERSION": "v1", "CA_BUNDLE": "eA=="}
    documents = list(yaml.safe_load_all(Template(text).safe_substitute(values)))
    for document in documents:
        kubernetes_validate.validate(document, "1.30", strict=True)
    service, role = documents
    spec = service["spec"]
    assert service["metadata"]["name"] == f"{spec['version']}.{spec['group']}" == name
    asked = named("Service", spec["service"]["name"])
    assert asked["metadata"]["namespace"] == spec["service"]["namespace"]
    assert spec["service"]["port"] in {port["port"] for port in asked["spec"]["ports"]}
    assert role["rules"][0]["apiGroups"] == [spec["group"]]
    head = (DEPLOY / "kubernetes" / "serve.yaml").read_text()
    assert f"DNS:{asked['metadata']['name']}.{asked['metadata']['namespace']}.svc" in head


def test_the_producers_configuration(tmp_path: Path) -> None:
    data = named("ConfigMap", "kubebraid-produce")["data"]
    given = parsed(container("Deployment", "kubebraid-produce")["args"])
    assert given["config"].name in data
    file = tmp_path / "config.yaml"
    file.write_text(data["config.yaml"])
    [source] = load(file).sources
    assert isinstance(source.origin, Secrets)
    assert source.origin.namespace == named("Role", "kubebraid-produce")["metadata"]["namespace"]


# -- Compose -----------------------------------------------------------------------------------------------------------


def test_compose_fits_the_schema() -> None:
    services = PyCompose.from_json(json.dumps(COMPOSE)).service_names()
    assert sorted(services) == sorted(
        ["nats-1", "nats-2", "nats-3", "produce-1", "produce-2", "serve-1", "serve-2", "serve-3", "balancer"]
    )
    wrong = copy.deepcopy(COMPOSE)
    wrong["services"]["serve-1"]["comand"] = []
    with pytest.raises(Exception, match="comand"):
        PyCompose.from_json(json.dumps(wrong))


def test_compose_hangs_together() -> None:
    services = COMPOSE["services"]
    for name, service in services.items():
        assert set(service.get("depends_on", ())) <= set(services), name
        for kind in ("configs", "secrets"):
            for one in service.get(kind, ()):
                assert one["source"] in COMPOSE[kind]
        for volume in service.get("volumes", ()):
            assert volume.split(":")[0] in COMPOSE["volumes"]
        if name.startswith("nats"):
            assert service["environment"]["SERVER_NAME"] == name
    for config in COMPOSE["configs"].values():
        assert (DEPLOY / config["file"]).exists()
    balanced = re.findall(r"^\s*server (\S+):8001", (DEPLOY / "nginx.conf").read_text(), re.MULTILINE)
    assert balanced == [name for name in services if name.startswith("serve")]
    [published] = services["balancer"]["ports"]
    assert published.startswith("127.0.0.1:")


@pytest.mark.parametrize("name", [name for name in COMPOSE["services"] if name.startswith(("produce", "serve"))])
def test_arguments_of_compose(name: str) -> None:
    given = parsed(COMPOSE["services"][name]["command"])
    assert given["nats"].split(",") == [f"nats://nats-{number}:4222" for number in (1, 2, 3)]
    assert given["replicas"] == 3
    if name.startswith("produce"):
        assert given["kubeconfig"] in {one["target"] for one in COMPOSE["services"][name]["secrets"]}


# -- both --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("where", ["compose", "kubernetes"])
def test_the_servers_configuration(where: str, tmp_path: Path) -> None:
    """As nats-server itself reads it."""
    text = (DEPLOY / "nats.conf").read_text()
    if where == "kubernetes":
        text = named("ConfigMap", "nats")["data"]["nats.conf"]
    file = tmp_path / "nats.conf"
    file.write_text(text)
    environment = {**os.environ, "SERVER_NAME": "nats-1"}
    command = [str(binary()), "-t", "-c", str(file)]
    checked = subprocess.run(command, env=environment, check=False, capture_output=True, text=True)
    assert checked.returncode == 0, checked.stderr


def test_the_image_has_all_packages_of_production() -> None:
    text = (DEPLOY / "Dockerfile").read_text()
    copied = set(re.findall(r"^COPY (\w+) \1$", text, re.MULTILINE))
    assert copied == {file.parent.name for file in ROOT.glob("*/__init__.py")} - {"benchmarks", "simulation", "tests"}


def test_the_image_is_built_with_what_the_metadata_names() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    copied = re.findall(r"^COPY (.+) \./$", (DEPLOY / "Dockerfile").read_text(), re.MULTILINE)
    assert {"pyproject.toml", project["readme"], *project["license-files"]} <= set(" ".join(copied).split())
