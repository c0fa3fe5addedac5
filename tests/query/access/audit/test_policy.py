"""The audit policy: what a kube-apiserver's rules match (pkg/audit/policy/checker_test.go), read strictly."""

from __future__ import annotations

import itertools
import random

import pytest
import structlog.testing
import yaml

from query.access.audit.policy import Level, Stage, load, read_policy
from query.access.authorization.attributes import Attributes
from query.access.errors import BadAccessFile
from query.identity import Identity

HEAD = "apiVersion: audit.k8s.io/v1\nkind: Policy\n"
TIM = Identity("tim@k8s.io", groups=("humans", "developers"))
REQUESTS = {
    "namespaced": Attributes("get", "", "v1", "pods", "", "default", "busybox"),
    "cluster": Attributes("get", "rbac.authorization.k8s.io", "v1beta1", "clusterroles", "", "", "edit"),
    "nonResource": Attributes("get", path="/logs/kubelet.log"),
    "subresource": Attributes("get", "", "v1", "pods", "log", "default", "busybox"),
}
# Of the same test: which rule matches which of the requests.
RULES: dict[str, tuple[str, set[str]]] = {
    "default": ("{}", set(REQUESTS)),
    "create": ("{verbs: [create]}", set()),
    "tims": ("{users: ['tim@k8s.io']}", set(REQUESTS)),
    "humans": ("{userGroups: [humans]}", set(REQUESTS)),
    "serviceAccounts": ("{userGroups: ['system:serviceaccounts']}", set()),
    "getPods": ("{verbs: [get], resources: [{resources: [pods]}]}", {"namespaced"}),
    "getPodLogs": ("{verbs: [get], resources: [{resources: [pods/log]}]}", {"subresource"}),
    "getPodsAndAllSub": ("{verbs: [get], resources: [{resources: [pods/*]}]}", {"namespaced", "subresource"}),
    "getLogs": ("{verbs: [get], resources: [{resources: ['*/log']}]}", {"subresource"}),
    "getAll": ("{verbs: [get], resources: [{resources: ['*']}]}", {"namespaced", "subresource"}),
    "getAllOfAll": ("{verbs: [get], resources: [{group: '*'}]}", {"namespaced", "subresource", "cluster"}),
    "getClusterRoles": (
        "{verbs: [get], resources: [{group: rbac.authorization.k8s.io, resources: [clusterroles]}], namespaces: ['']}",
        {"cluster"},
    ),
    "getLogsPath": ("{verbs: [get], nonResourceURLs: [/logs*]}", {"nonResource"}),
    "getLogsBelow": ("{verbs: [get], nonResourceURLs: [/logs/*]}", {"nonResource"}),
    "getMetrics": ("{verbs: [get], nonResourceURLs: [/metrics]}", set()),
    "clusterRoleEdit": (
        "{resources: [{group: rbac.authorization.k8s.io, resources: [clusterroles], resourceNames: [edit]}]}",
        {"cluster"},
    ),
    "omitted": ("{resources: [{resources: [pods], resourceNames: [other]}]}", set()),
    "inDefault": ("{namespaces: [default]}", {"namespaced", "subresource"}),
    "inNone": ("{namespaces: ['']}", {"cluster"}),
    "all paths": ("{nonResourceURLs: ['*']}", {"nonResource"}),
}


def rule(name: str, level: str = "Metadata") -> str:
    return f"- {{level: {level}, {RULES[name][0][1:-1]}}}\n"


@pytest.mark.parametrize("name", RULES)
def test_what_a_rule_matches(name: str) -> None:
    policy = read_policy(f"{HEAD}rules:\n{rule(name)}".encode())
    found = {request for request, what in REQUESTS.items() if policy.noted(TIM, what).level is Level.METADATA}
    assert found == RULES[name][1]


def test_the_first_that_matches_counts() -> None:
    pairs = list(itertools.permutations(RULES, 3))
    for names in random.Random(7).sample(pairs, 300):
        policy = read_policy(f"{HEAD}rules:\n{rule(names[0], 'None')}{rule(names[1])}{rule(names[2], 'None')}".encode())
        for request, what in REQUESTS.items():
            first = next((name for name in names if request in RULES[name][1]), None)
            wanted = Level.METADATA if first == names[1] and first is not None else Level.NONE
            assert policy.noted(TIM, what).level is wanted, (names, request)


def test_nobody_matches_no_rule_of_users() -> None:
    policy = read_policy(f"{HEAD}rules:\n{rule('tims')}{rule('humans')}".encode())
    assert policy.noted(None, REQUESTS["namespaced"]).level is Level.NONE
    policy = read_policy(f"{HEAD}rules:\n{rule('default')}".encode())
    assert policy.noted(None, REQUESTS["namespaced"]).level is Level.METADATA


def test_bodies_are_not_noted_and_that_is_said() -> None:
    with structlog.testing.capture_logs() as logged:
        policy = read_policy(
            f"{HEAD}omitManagedFields: true\nrules:\n- {{level: Request, verbs: [get]}}\n"
            "- {level: RequestResponse, omitManagedFields: false}\n".encode()
        )
    assert [line["levels"] for line in logged] == [["Request", "RequestResponse"]]
    for verb in ("get", "list"):
        assert policy.noted(TIM, Attributes(verb, resource="pods")).level is Level.METADATA


def test_stages_are_left_out_by_the_policy_and_the_rule() -> None:
    policy = read_policy(
        f"{HEAD}omitStages: [RequestReceived]\nrules:\n- {{level: Metadata, verbs: [get], omitStages: [Panic]}}\n"
        "- level: Metadata\n".encode()
    )
    assert policy.noted(TIM, Attributes("get")).omitted == {Stage.REQUEST_RECEIVED, Stage.PANIC}
    assert policy.noted(TIM, Attributes("list")).omitted == {Stage.REQUEST_RECEIVED}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "write apiVersion: audit.k8s.io/v1 and kind: Policy"),
        ("apiVersion: audit.k8s.io/v1beta1\nkind: Policy\nrules: [{level: None}]", "apiVersion: write audit.k8s.io/v1"),
        ("apiVersion: audit.k8s.io/v1\nkind: Polocy\nrules: [{level: None}]", "kind: write Policy"),
        (f"{HEAD}rules: []", "rules: name one at least"),
        (f"{HEAD}rules: [{{}}]", "level"),
        (f"{HEAD}rules: [{{level: Everything}}]", "Everything"),
        (f"{HEAD}rules: [{{level: None, user: [a]}}]", "user"),
        (f"{HEAD}rules: [{{level: None, omitStages: [End]}}]", "End"),
        (f"{HEAD}rules: [{{level: None, namespaces: [a], nonResourceURLs: [/a]}}]", "rules[0].nonResourceURLs: a rule"),
        (f"{HEAD}rules: [{{level: None, nonResourceURLs: [/a, a]}}]", "rules[0].nonResourceURLs[1]: write a path"),
        (f"{HEAD}rules: [{{level: None, nonResourceURLs: ['/a*b']}}]", "rules[0].nonResourceURLs[0]: write a path"),
        (f"{HEAD}rules: [{{level: None, resources: [{{group: apps/v1}}]}}]", "rules[0].resources[0].group"),
        (f"{HEAD}rules: [{{level: None, resources: [{{resourceNames: [a]}}]}}]", "rules[0].resources[0].resourceNames"),
    ],
)
def test_what_cannot_be_used(text: str, said: str) -> None:
    with pytest.raises(BadAccessFile) as found:
        read_policy(text.encode())
    assert said in str(found.value)
    assert "\n" not in str(found.value)


def test_the_policy_of_kubernetes_documentation(tmp_path_factory: pytest.TempPathFactory) -> None:
    """https://kubernetes.io/docs/tasks/debug/debug-cluster/audit/ (audit/audit-policy.yaml)."""
    policy = {
        "apiVersion": "audit.k8s.io/v1",
        "kind": "Policy",
        "metadata": {"creationTimestamp": None},
        "omitStages": ["RequestReceived"],
        "rules": [
            {"level": "RequestResponse", "resources": [{"group": "", "resources": ["pods"]}]},
            {"level": "Metadata", "resources": [{"group": "", "resources": ["pods/log", "pods/status"]}]},
            {
                "level": "None",
                "resources": [{"group": "", "resources": ["configmaps"], "resourceNames": ["controller-leader"]}],
            },
            {
                "level": "None",
                "users": ["system:kube-proxy"],
                "verbs": ["watch"],
                "resources": [{"group": "", "resources": ["endpoints", "services"]}],
            },
            {"level": "None", "userGroups": ["system:authenticated"], "nonResourceURLs": ["/api*", "/version"]},
            {
                "level": "Request",
                "resources": [{"group": "", "resources": ["configmaps"]}],
                "namespaces": ["kube-system"],
            },
            {"level": "Metadata", "omitStages": ["RequestReceived"]},
        ],
    }
    path = tmp_path_factory.mktemp("audit") / "policy.yaml"
    path.write_text(yaml.safe_dump(policy))
    read = load(path)
    proxy = Identity("system:kube-proxy", groups=("system:authenticated",))
    assert read.noted(proxy, Attributes("watch", resource="services", version="v1")).level is Level.NONE
    assert read.noted(proxy, Attributes("get", path="/apis/apps")).level is Level.NONE
    assert read.noted(proxy, Attributes("get", path="/healthz")).level is Level.METADATA
    path.write_text("[")
    with pytest.raises(BadAccessFile, match=r"policy\.yaml: "):
        load(path)
