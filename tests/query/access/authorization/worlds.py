"""Worlds: random roles, bindings and requests, so dense that about as many are allowed as are not."""

from __future__ import annotations

import json
from dataclasses import replace
from random import Random
from typing import Any

from query.access.authorization.attributes import Attributes
from query.access.authorization.rbac import ClusterRbac
from query.identity import Identity
from tests.query.access.authorization.plain_rbac import Request, World, role_reference_rules

NAMESPACES = ("web", "db", "kube-system")
USERS = ("jane", "joe", "system:serviceaccount:web:bot", "system:serviceaccount:db:bot", "system:anonymous")
GROUPS = ("dev", "ops", "system:authenticated", "system:serviceaccounts", "system:serviceaccounts:web")
ROLE_NAMES = ("reader", "writer", "odd", "narrow")
VERBS = ("get", "list", "watch", "create", "update", "patch", "delete", "deletecollection", "escalate")
API_GROUPS = ("", "apps", "sea.example.io")
RESOURCES = ("pods", "secrets", "deployments", "namespaces", "boats")
SUBRESOURCES = ("log", "exec", "scale", "status")
OBJECTS = ("a", "b", "web")
PATHS = ("/healthz", "/api", "/api/", "/api/v1", "/metrics", "/metrics/slis", "/openapi/v2", "/")
URLS = ("*", "/healthz", "/api", "/api/*", "/metrics*", "/metrics/**", "/openapi/*", "/*")

Object = dict[str, Any]


def _some(random: Random, words: tuple[str, ...], most: int = 3) -> list[str]:
    return random.sample(words, random.randint(1, min(most, len(words))))


def rule(random: Random, *, cluster: bool) -> Object:
    """A rule that every kube-apiserver takes. `cluster`: of a ClusterRole."""
    verbs = ["*"] if random.random() < 0.15 else _some(random, VERBS, 4)
    if cluster and random.random() < 0.25:
        return {"verbs": [one if one != "list" else "head" for one in verbs], "nonResourceURLs": _some(random, URLS, 2)}
    resources = _some(random, RESOURCES)
    for number, one in enumerate(resources):
        chance = random.random()
        if chance < 0.1:
            resources[number] = "*"
        elif chance < 0.2:
            resources[number] = f"*/{random.choice(SUBRESOURCES)}"
        elif chance < 0.4:
            resources[number] = f"{one}/{random.choice(SUBRESOURCES)}"
        elif chance < 0.45:
            resources[number] = f"{one}/*"
    found: Object = {
        "verbs": verbs,
        "apiGroups": ["*"] if random.random() < 0.2 else _some(random, API_GROUPS),
        "resources": resources,
    }
    if random.random() < 0.3:
        found["resourceNames"] = _some(random, (*OBJECTS, "*"))
    return found


def role(random: Random, name: str, namespace: str = "") -> Object:
    metadata = {"name": name, "namespace": namespace} if namespace else {"name": name}
    return {
        "metadata": metadata,
        "rules": [rule(random, cluster=not namespace) for _ in range(random.choice((0, 1, 2, 3, 4)))],
    }


def subject(random: Random, *, wild: bool) -> Object:
    """A subject. `wild`: also such as no kube-apiserver takes, but that it would evaluate."""
    chance = random.random()
    if chance < 0.4:
        return {"kind": "User", "apiGroup": "rbac.authorization.k8s.io", "name": random.choice(USERS)}
    if chance < 0.7:
        return {"kind": "Group", "apiGroup": "rbac.authorization.k8s.io", "name": random.choice(GROUPS)}
    if wild and chance < 0.75:
        return {"kind": random.choice(("user", "Robot", "")), "name": random.choice(USERS)}
    account: Object = {
        "kind": "ServiceAccount",
        "name": random.choice(("bot", "other")),
        "namespace": random.choice(NAMESPACES),
    }
    if wild and random.random() < 0.4:
        account["namespace"] = random.choice(("", None))
    return account


def binding(random: Random, name: str, namespace: str = "", *, wild: bool = False) -> Object:
    metadata = {"name": name, "namespace": namespace} if namespace else {"name": name}
    kind = random.choice(("Role", "ClusterRole")) if namespace else "ClusterRole"
    if wild and random.random() < 0.1:
        kind = random.choice(("Role", "role", "Chief"))
    subjects: list[Object] | None = [subject(random, wild=wild) for _ in range(random.randint(0, 3))]
    if wild and not subjects and random.random() < 0.5:
        subjects = None
    ref = {"apiGroup": "rbac.authorization.k8s.io", "kind": kind, "name": random.choice(ROLE_NAMES)}
    return {"metadata": metadata, "roleRef": ref, "subjects": subjects}


def world(random: Random, *, wild: bool = False) -> World:
    """Roles and bindings of one cluster."""
    made = World(
        [role(random, name) for name in random.sample(ROLE_NAMES, random.randint(2, 4))],
        [role(random, name, space) for space in NAMESPACES for name in random.sample(ROLE_NAMES, random.randint(1, 4))],
        [binding(random, f"cb{number}", wild=wild) for number in range(random.randint(0, 6))],
        [
            binding(random, f"b{number}", space, wild=wild)
            for space in NAMESPACES
            for number in range(random.randint(0, 5))
        ],
    )
    if wild:
        for one in (*made.cluster_roles, *made.roles):
            if random.random() < 0.1:
                one["rules"] = None
            for each in one["rules"] or []:
                for key in list(each):
                    if random.random() < 0.03:
                        each[key] = random.choice((None, [], ["*"], [""]))
    return made


def request(random: Random, world: World | None = None) -> Request:
    """Any request; of a `world` often one that a rule of it is for, or one that differs from it in a word."""
    asked = _any_request(random)
    bindings = [] if world is None else [*world.cluster_role_bindings, *world.role_bindings]
    if world is None or not bindings or random.random() < 0.2:
        return asked
    chosen = random.choice(bindings)
    namespace, _ = place(chosen)
    rules, _ = role_reference_rules(world, chosen["roleRef"], namespace)
    if not rules or not chosen.get("subjects"):
        return asked
    meant = replace(_meant(random, random.choice(rules), asked), **_whom(random.choice(chosen["subjects"]), namespace))
    if namespace and meant.resource_request:
        meant = replace(meant, namespace=namespace)
    if random.random() < 0.3:
        field = random.choice(("user", "groups", "verb", "group", "resource", "subresource", "name", "namespace"))
        meant = replace(meant, **{field: getattr(asked, field)}) if meant.resource_request else meant
    return meant


def _whom(subject: Object, namespace: str) -> Object:
    if subject["kind"] == "Group":
        return {"groups": (subject["name"],)}
    if subject["kind"] == "ServiceAccount":
        return {"user": f"system:serviceaccount:{subject.get('namespace') or namespace}:{subject['name']}"}
    return {"user": subject["name"]}


def _meant(random: Random, rule: Object, asked: Request) -> Request:
    def word(key: str, star: str) -> str:
        found = random.choice(rule.get(key) or [star])
        return star if found == "*" else found

    verb = word("verbs", asked.verb)
    if urls := rule.get("nonResourceURLs"):
        path = random.choice(urls).rstrip("*") + random.choice(("", "x"))
        return Request(asked.user, asked.groups, verb, resource_request=False, path=path or "/")
    resource, _, subresource = word("resources", asked.resource).partition("/")
    return replace(
        asked,
        resource_request=True,
        path="",
        verb=verb,
        group=word("apiGroups", asked.group),
        resource=random.choice(RESOURCES) if resource == "*" else resource,
        subresource=subresource,
        name=word("resourceNames", asked.name),
    )


def _any_request(random: Random) -> Request:
    user = random.choice((*USERS, "nobody"))
    groups = tuple(random.sample(GROUPS, random.randint(0, 3)))
    if random.random() < 0.15:
        return Request(
            user, groups, random.choice(("get", "head", "post")), resource_request=False, path=random.choice(PATHS)
        )
    verb = random.choice((*VERBS, "*", ""))
    return Request(
        user,
        groups,
        verb,
        group=random.choice((*API_GROUPS, "*")) if random.random() < 0.1 else random.choice(API_GROUPS),
        resource=random.choice((*RESOURCES, "*")) if random.random() < 0.1 else random.choice(RESOURCES),
        subresource=random.choice(SUBRESOURCES) if random.random() < 0.3 else "",
        name=random.choice(("", *OBJECTS, "*")),
        namespace=random.choice(("", *NAMESPACES, "other")),
    )


def identity(asked: Request) -> Identity:
    return Identity(asked.user, groups=asked.groups)


def attributes(asked: Request) -> Attributes:
    if not asked.resource_request:
        return Attributes(asked.verb, path=asked.path)
    return Attributes(
        asked.verb,
        asked.group,
        "v1",
        asked.resource,
        asked.subresource,
        asked.namespace,
        asked.name,
    )


def place(made: Object) -> tuple[str, str]:
    return made["metadata"].get("namespace", ""), made["metadata"]["name"]


def encoded(made: Object) -> bytes:
    return json.dumps(made).encode()


def compiled(made: World) -> ClusterRbac:
    return ClusterRbac.of(
        [(*place(one), encoded(one)) for one in (*made.cluster_roles, *made.roles)],
        [(*place(one), encoded(one)) for one in (*made.cluster_role_bindings, *made.role_bindings)],
    )
