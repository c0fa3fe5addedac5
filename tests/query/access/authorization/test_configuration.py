"""AuthorizationConfiguration: what a file says, and which files are refused, with what words."""

from __future__ import annotations

from collections.abc import Awaitable, Mapping
from pathlib import Path
from typing import Any

import pytest

from query.access.authorization.attributes import Attributes
from query.access.authorization.configuration import (
    MEMBERS_ALONE,
    AlwaysSettings,
    AuthorizerSettings,
    MembersSettings,
    PolicySettings,
    ReviewConnection,
    WebhookAuthorizer,
    authorization_of,
    chain_of,
    read_authorization,
)
from query.access.authorization.names import Renaming
from query.access.authorization.webhook import Ask
from query.access.errors import BadAccessFile
from query.identity import Identity
from tests.query.access.authorization.fleet import Fleet

HEAD = "apiVersion: apiserver.config.k8s.io/v1\nkind: AuthorizationConfiguration\n"
WEBHOOK = """
authorizers:
  - type: Webhook
    name: hook.example.com
    webhook:
      timeout: 3s
      authorizedTTL: 1m30s
      subjectAccessReviewVersion: v1
      matchConditionSubjectAccessReviewVersion: v1
      failurePolicy: Deny
      connectionInfo: {type: KubeConfigFile, kubeConfigFile: /etc/hook.yaml}
      matchConditions:
        - expression: "has(request.resourceAttributes)"
"""


def of(text: str, base: Path = Path("/etc/kubebraid")) -> tuple[AuthorizerSettings, ...]:
    return authorization_of((HEAD + text).encode(), base)


def test_our_own_authorizers() -> None:
    found = of("""
authorizers:
  - {type: Policy, name: policy, policy: {file: policy.yaml}}
  - type: Members
    name: members
    members:
      staleAfter: 2m
      names:
        - clusters: ["prod-*"]
          userPrefix: "corp:"
          stripUserPrefix: "oidc:"
          users: {jane: j}
          groups: {dev: developers}
          serviceAccounts: true
  - {type: AlwaysDeny, name: alwaysdeny}
""")
    renaming = Renaming(("prod-*",), {"jane": "j"}, {"dev": "developers"}, "corp:", "", "oidc:", "", True)
    assert found == (
        PolicySettings(Path("/etc/kubebraid/policy.yaml")),
        MembersSettings(120.0, (renaming,)),
        AlwaysSettings(False),
    )
    assert of("authorizers: [{type: Members, name: members}]") == MEMBERS_ALONE


def test_a_webhook() -> None:
    (found,) = of(WEBHOOK)
    assert isinstance(found, WebhookAuthorizer)
    assert found.connection == ReviewConnection(kubeconfig="/etc/hook.yaml")
    settings = found.settings
    assert (settings.name, settings.timeout, settings.deny_on_failure) == ("hook.example.com", 3.0, True)
    assert (settings.authorized_ttl, settings.unauthorized_ttl) == (90.0, 30.0)
    assert [one.text for one in settings.conditions] == ["has(request.resourceAttributes)"]
    (found,) = of(
        WEBHOOK.replace("failurePolicy: Deny", "failurePolicy: NoOpinion\n      cacheAuthorizedRequests: false")
    )
    assert isinstance(found, WebhookAuthorizer)
    assert (found.settings.authorized_ttl, found.settings.deny_on_failure) == (0.0, False)
    kubeconfig = "{type: KubeConfigFile, kubeConfigFile: /etc/hook.yaml}"
    for written, meant in (
        ("{type: InClusterConfig}", ReviewConnection()),
        ("{type: MemberCluster, cluster: host}", ReviewConnection(cluster="host")),
    ):
        (found,) = of(WEBHOOK.replace(kubeconfig, written))
        assert isinstance(found, WebhookAuthorizer)
        assert found.connection == meant


async def test_a_chain_is_made_of_it(tmp_path: Path) -> None:
    fleet = Fleet("alpha", "bravo")
    fleet.grant("alpha", "b", {"kind": "User", "name": "jane"})
    (tmp_path / "policy.yaml").write_text(
        "rules: [{users: [joe], clusters: [''], verbs: [get], nonResourceURLs: [/metrics]}]"
    )
    (tmp_path / "authorization.yaml").write_text(
        HEAD + "authorizers:\n- {type: Policy, name: policy, policy: {file: policy.yaml}}\n"
        "- {type: Members, name: members}\n" + WEBHOOK.partition("authorizers:\n")[2].replace("\n  ", "\n").lstrip()
    )
    asked: list[ReviewConnection] = []

    def ask(connection: ReviewConnection) -> Ask:
        asked.append(connection)

        def answer(review: dict[str, Any]) -> Awaitable[Mapping[str, Any]]:
            async def status() -> Mapping[str, Any]:
                return {"status": {"allowed": review["spec"]["user"] == "hooked"}}

            return status()

        return answer

    chain = chain_of(read_authorization(tmp_path / "authorization.yaml"), fleet.materializer, ask)
    assert asked == [ReviewConnection(kubeconfig="/etc/hook.yaml")]
    pods = Attributes("list", resource="pods")
    assert (await chain.decide(Identity("jane"), "alpha", pods)).allowed
    assert not (await chain.decide(Identity("jane"), "bravo", pods)).allowed
    assert (await chain.decide(Identity("hooked"), "bravo", pods)).allowed
    assert (await chain.decide(Identity("joe"), None, Attributes("get", path="/metrics"))).allowed
    assert (await chain.visible(Identity("jane"), pods, fleet.store.clusters)).clusters == {"alpha": None}


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    path = tmp_path / "authorization.yaml"
    with pytest.raises(BadAccessFile, match=f"^{path}: No such file or directory$"):
        read_authorization(path)
    path.write_text(HEAD)
    with pytest.raises(BadAccessFile, match=f"^{path}: authorizers: name one at least$"):
        read_authorization(path)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "authorizers: name one at least"),
        ("authorizer: []", "unknown field authorizer"),
        ("authorizers: [{type: Members}]", "authorizers[0].name: is needed"),
        ("authorizers: [{type: Members, name: Mine}]",
         "authorizers[0].name: 'Mine' is no lower-case DNS subdomain, as audit.example.com is"),
        ("authorizers: [{type: Members, name: mine}]", "authorizers[0].name: write members"),
        ("authorizers: [{name: a}]",
         "authorizers[0].type: is needed; write Members, Policy, Webhook, AlwaysAllow or AlwaysDeny"),
        ("authorizers: [{type: X, name: a}]",
         "authorizers[0].type: 'X' is none; write Members, Policy, Webhook, AlwaysAllow or AlwaysDeny"),
        ("authorizers: [{type: RBAC, name: rbac}]",
         "authorizers[0].type: RBAC is each cluster's own here; write Members"),
        ("authorizers: [{type: Node, name: node}]",
         "authorizers[0].type: Node is not there; write Members, Policy, Webhook, AlwaysAllow or AlwaysDeny"),
        ("authorizers: [{type: Members, name: members}, {type: Members, name: members}]",
         "authorizers[1].type: Members stands twice; once is enough"),
        ("authorizers: [{type: Policy, name: policy}]", "authorizers[0].policy: is needed, with file: policy.yaml"),
        ("authorizers: [{type: Members, name: members, policy: {file: x}}]",
         "authorizers[0].policy: only an authorizer of type Policy has it"),
        ("authorizers: [{type: Members, name: members, members: {stale: 1m}}]",
         "authorizers[0].members: unknown field stale"),
        ("authorizers: [{type: Members, name: members, members: {staleAfter: soon}}]",
         "authorizers[0].members.staleAfter: 'soon' is no duration; write 30s or 5m"),
        ("authorizers: [{type: Members, name: members, members: {names: [{}]}}]",
         'authorizers[0].members.names[0].clusters: name one at least, "*" for all'),
        ("authorizers: [{type: Members, name: members, members: {names: [{clusters: ['a*b']}]}}]",
         "authorizers[0].members.names[0].clusters: 'a*b' is no name, nor the beginning of one with a * behind it"),
        ("authorizers: [{type: Members, name: members, members: {names: [{clusters: [a], users: {b: ''}}]}}]",
         "authorizers[0].members.names[0].users: 'b' needs a name"),
        ("authorizers: [{type: Webhook, name: a}]", "authorizers[0].webhook: is needed"),
        (WEBHOOK.replace("timeout: 3s", ""), "authorizers[0].webhook.timeout: is needed, 30s at most"),
        (WEBHOOK.replace("timeout: 3s", "timeout: 1m"), "authorizers[0].webhook.timeout: 1m is not between 0 and 30s"),
        (WEBHOOK.replace("timeout: 3s", "timeout: '0'"), "authorizers[0].webhook.timeout: 0 is not between 0 and 30s"),
        (WEBHOOK.replace("1m30s", "0s"), "authorizers[0].webhook.authorizedTTL: 0s is none; write 5m, or leave it out"),
        (WEBHOOK.replace("subjectAccessReviewVersion: v1\n", "subjectAccessReviewVersion: v1beta1\n", 1),
         "authorizers[0].webhook.subjectAccessReviewVersion: write v1"),
        (WEBHOOK.replace("failurePolicy: Deny", ""), "authorizers[0].webhook.failurePolicy: write NoOpinion or Deny"),
        (WEBHOOK.replace("matchConditionSubjectAccessReviewVersion: v1", ""),
         "authorizers[0].webhook.matchConditionSubjectAccessReviewVersion: write v1"),
        (WEBHOOK.replace("/etc/hook.yaml", "hook.yaml"),
         "authorizers[0].webhook.connectionInfo.kubeConfigFile: write an absolute path"),
        (WEBHOOK.replace("KubeConfigFile,", "InClusterConfig,"),
         "authorizers[0].webhook.connectionInfo.kubeConfigFile: only the type KubeConfigFile has it"),
        (WEBHOOK.replace("KubeConfigFile,", "Carrier,").replace("kubeConfigFile: /etc/hook.yaml", ""),
         "authorizers[0].webhook.connectionInfo.type: write KubeConfigFile, InClusterConfig or MemberCluster"),
        (WEBHOOK.replace("{type: KubeConfigFile, kubeConfigFile: /etc/hook.yaml}", "{type: MemberCluster}"),
         "authorizers[0].webhook.connectionInfo.cluster: is needed, the name of a member cluster"),
        (WEBHOOK + "        - expression: has(request.resourceAttributes)",
         "authorizers[0].webhook.matchConditions[1].expression: stands twice"),
        (WEBHOOK + "        - expression: ''", "authorizers[0].webhook.matchConditions[1].expression: is needed"),
        (WEBHOOK + "        - expression: request.user",
         "authorizers[0].webhook.matchConditions[1].expression: 'request.user' must evaluate to bool"),
        (WEBHOOK + "".join(f"        - expression: request.user == '{number}'\n" for number in range(64)),
         "authorizers[0].webhook.matchConditions: 65 are too many; 64 at most"),
        (WEBHOOK + WEBHOOK.partition("authorizers:\n")[2],
         "authorizers[1].name: hook.example.com stands twice; write another one"),
    ],
)  # fmt: skip
def test_files_that_cannot_be_used(text: str, problem: str) -> None:
    with pytest.raises(BadAccessFile) as refused:
        of(text)
    assert str(refused.value) == problem


def test_other_documents() -> None:
    with pytest.raises(BadAccessFile, match=r"^kind: write AuthorizationConfiguration$"):
        authorization_of(b"apiVersion: apiserver.config.k8s.io/v1\nkind: Other", Path())
    with pytest.raises(BadAccessFile, match=r"^apiVersion: write apiserver\.config\.k8s\.io/v1 or "):
        authorization_of(b"apiVersion: v1\nkind: AuthorizationConfiguration", Path())
