"""RBAC: the roles and bindings of one cluster, compiled, and what they allow; as kube-apiserver evaluates them.

plugin/pkg/auth/authorizer/rbac/rbac.go and pkg/registry/rbac/validation/rule.go of k8s.io/kubernetes. Pure: it knows
objects' JSON, and no store.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Final
from weakref import WeakValueDictionary

import msgspec

from deltalog.wire.kubernetes import GroupResource
from deltalog.wire.selectors import quoted
from query.access.authorization.attributes import Attributes
from query.access.authorization.rules import PolicyRule
from query.access.authorization.verdicts import ALLOWED, NO_OPINION, Decision, Verdict
from query.access.errors import aggregate
from query.identity import SERVICE_ACCOUNT, Identity

GROUP: Final = "rbac.authorization.k8s.io"
CLUSTER_ROLES = GroupResource(GROUP, "clusterroles")
CLUSTER_ROLE_BINDINGS = GroupResource(GROUP, "clusterrolebindings")
ROLES = GroupResource(GROUP, "roles")
ROLE_BINDINGS = GroupResource(GROUP, "rolebindings")
TYPES = (CLUSTER_ROLES, ROLES, CLUSTER_ROLE_BINDINGS, ROLE_BINDINGS)
"""What RBAC is made of."""

# Requests that a set of rules remembers its answer to. A client may ask for any word, so they are bounded.
_REMEMBERED = 256
_NONE: frozenset[str] = frozenset()


# -- objects as they are stored ------------------------------------------------------------------------------------


class _Role(msgspec.Struct, gc=False):
    rules: msgspec.Raw = msgspec.Raw(b"null")


class Subject(msgspec.Struct, frozen=True, gc=False):
    """Whom a binding is for. Its apiGroup is not looked at."""

    kind: str = ""
    name: str = ""
    namespace: str | None = None


class RoleRef(msgspec.Struct, frozen=True, gc=False):
    """The role that a binding gives. Its apiGroup is not looked at."""

    kind: str = ""
    name: str = ""


class _Binding(msgspec.Struct, rename="camel", gc=False):
    subjects: tuple[Subject, ...] | None = None
    role_ref: RoleRef | None = None


_role = msgspec.json.Decoder(_Role)
_rules = msgspec.json.Decoder(tuple[PolicyRule, ...] | None)
_binding = msgspec.json.Decoder(_Binding)


# -- as they are evaluated -----------------------------------------------------------------------------------------


class RuleSet:
    """The rules of a role. Roles with the same ones share one: clusters of one version have the same system roles."""

    __slots__ = ("__weakref__", "_answers", "rules")

    def __init__(self, rules: tuple[PolicyRule, ...]) -> None:
        self.rules = rules
        self._answers: dict[tuple[str, str, str, str], frozenset[str] | None] = {}

    def names(self, request: tuple[str, str, str, str]) -> frozenset[str] | None:
        """Which names of a resource they allow (verb, group, resource, subresource) for; None: whichever.

        Amortised O(1).
        """
        try:
            return self._answers[request]
        except KeyError:
            if len(self._answers) >= _REMEMBERED:
                self._answers.clear()
            found = self._answers[request] = self._names(request)
            return found

    def _names(self, request: tuple[str, str, str, str]) -> frozenset[str] | None:
        names: set[str] = set()
        for rule in self.rules:
            if rule.allows(*request):
                if not rule.resource_names:
                    return None
                names.update(rule.resource_names)
        return frozenset(names) if names else _NONE


_shared: WeakValueDictionary[bytes, RuleSet] = WeakValueDictionary()


def rule_set(rules: bytes) -> RuleSet:
    """Rules of a role as JSON, one object for equal texts.

    Raises:
        msgspec.MsgspecError: they are not in RBAC's form.
    """
    if (found := _shared.get(rules)) is None:
        found = _shared[rules] = RuleSet(_rules.decode(rules) or ())
    return found


class Binding:
    """A RoleBinding, or a ClusterRoleBinding where `namespace` is "". `rules` None: `error` says why there are none."""

    __slots__ = ("error", "name", "namespace", "role", "rules", "subjects")

    def __init__(self, namespace: str, name: str, role: RoleRef, subjects: tuple[Subject, ...]) -> None:
        self.namespace = namespace
        self.name = name
        self.role = role
        self.subjects = subjects
        self.rules: RuleSet | None = None
        self.error = ""

    @property
    def role_key(self) -> tuple[str, str] | None:
        """(namespace, name) of its role; None: of a kind that there is none of. ("", name) is a ClusterRole."""
        if self.role.kind == "ClusterRole":
            return ("", self.role.name)
        # A ClusterRoleBinding to a Role: no namespace has it.
        return (self.namespace or "/", self.role.name) if self.role.kind == "Role" else None

    def resolve(self, rules: RuleSet | None) -> None:
        """Has it give these rules; None: there is no such role."""
        self.rules = rules
        if rules is not None:
            self.error = ""
        elif self.role.kind in ("Role", "ClusterRole"):
            # client-go's listers, of whose error this is the text.
            self.error = f"{self.role.kind.lower()}.{GROUP} {quoted(self.role.name)} not found"
        else:
            self.error = f"unsupported role reference kind: {quoted(self.role.kind)}"

    def whom(self) -> set[tuple[bool, str]]:
        """Whom it is for, as (whether a group, name). Service accounts are users."""
        found = set()
        for subject in self.subjects:
            if subject.kind == "User":
                found.add((False, subject.name))
            elif subject.kind == "Group":
                found.add((True, subject.name))
            elif subject.kind == "ServiceAccount" and (user := self._account(subject)):
                found.add((False, user))
        return found

    def _account(self, subject: Subject) -> str:
        """The user that a service account is; "" if it has no namespace."""
        namespace = subject.namespace or self.namespace
        return f"{SERVICE_ACCOUNT}{namespace}:{subject.name}" if namespace else ""

    def reason(self, who: Identity) -> str:
        """Why it allows someone something (validation/rule.go: clusterRoleBindingDescriber, roleBindingDescriber)."""
        role = f"of {self.role.kind} {quoted(self.role.name)} to {self._describe(who)}"
        if self.namespace:
            return f"RBAC: allowed by RoleBinding {quoted(f'{self.name}/{self.namespace}')} {role}"
        return f"RBAC: allowed by ClusterRoleBinding {quoted(self.name)} {role}"

    def _describe(self, who: Identity) -> str:
        for subject in self.subjects:
            if subject.kind == "ServiceAccount":
                if self._account(subject) == who.name:
                    return f"ServiceAccount {quoted(f'{subject.name}/{subject.namespace or self.namespace}')}"
            elif (subject.kind == "User" and subject.name == who.name) or (
                subject.kind == "Group" and subject.name in who.groups
            ):
                return f"{subject.kind} {quoted(subject.name)}"
        raise AssertionError("a binding for somebody else")


class _Granted:
    """The bindings of one user or group, by name: for the whole cluster, and by namespace."""

    __slots__ = ("everywhere", "within")

    def __init__(self) -> None:
        self.everywhere: dict[str, Binding] = {}
        self.within: dict[str, dict[str, Binding]] = {}


class ClusterRbac:
    """The roles and bindings of one cluster. Changed one by one; bindings are found by whom they are for.

    Example: `rbac.put_binding("web", "read", binding)` with a RoleBinding's JSON, `rbac.drop_binding("web", "read")`
    when it is deleted; the namespace of cluster-scoped ones is "".
    """

    def __init__(self) -> None:
        self._roles: dict[tuple[str, str], RuleSet] = {}
        self._bindings: dict[tuple[str, str], Binding] = {}
        # By the (namespace, name) of a role, whether or not there is one: bindings to it.
        self._of_role: dict[tuple[str, str], set[Binding]] = {}
        self._users: dict[str, _Granted] = {}
        self._groups: dict[str, _Granted] = {}

    @staticmethod
    def of(
        roles: Iterable[tuple[str, str, bytes]] = (), bindings: Iterable[tuple[str, str, bytes]] = ()
    ) -> ClusterRbac:
        """Of roles and bindings, as (namespace, name, JSON); the namespace of cluster-scoped ones is ""."""
        made = ClusterRbac()
        for namespace, name, content in roles:
            made.put_role(namespace, name, content)
        for namespace, name, content in bindings:
            made.put_binding(namespace, name, content)
        return made

    # -- changes -----------------------------------------------------------------------------------------------------

    def put_role(self, namespace: str, name: str, content: bytes) -> None:
        """A Role, or a ClusterRole where the namespace is "". One that is malformed gives nothing. O(its bindings)."""
        try:
            rules = rule_set(bytes(_role.decode(content).rules))
        except msgspec.MsgspecError:
            rules = RuleSet(())
        self._roles[namespace, name] = rules
        for binding in self._of_role.get((namespace, name), ()):
            binding.resolve(rules)

    def drop_role(self, namespace: str, name: str) -> None:
        """Forgets a role; what it is bound to stays. O(its bindings)."""
        self._roles.pop((namespace, name), None)
        for binding in self._of_role.get((namespace, name), ()):
            binding.resolve(None)

    def put_binding(self, namespace: str, name: str, content: bytes) -> None:
        """A RoleBinding, or a ClusterRoleBinding where the namespace is "". O(its subjects)."""
        self.drop_binding(namespace, name)
        try:
            read = _binding.decode(content)
        except msgspec.MsgspecError:
            return
        binding = Binding(namespace, name, read.role_ref or RoleRef(), read.subjects or ())
        self._bindings[namespace, name] = binding
        if (role := binding.role_key) is None:
            binding.resolve(None)
        else:
            self._of_role.setdefault(role, set()).add(binding)
            binding.resolve(self._roles.get(role))
        for is_group, subject in binding.whom():
            granted = (self._groups if is_group else self._users).setdefault(subject, _Granted())
            if namespace:
                granted.within.setdefault(namespace, {})[name] = binding
            else:
                granted.everywhere[name] = binding

    def drop_binding(self, namespace: str, name: str) -> None:
        """Forgets a binding. O(its subjects)."""
        binding = self._bindings.pop((namespace, name), None)
        if binding is None:
            return
        if (role := binding.role_key) is not None:
            bound = self._of_role[role]
            bound.discard(binding)
            if not bound:
                del self._of_role[role]
        for is_group, subject in binding.whom():
            of_kind = self._groups if is_group else self._users
            granted = of_kind[subject]
            if not namespace:
                del granted.everywhere[name]
            else:
                of_namespace = granted.within[namespace]
                del of_namespace[name]
                if not of_namespace:
                    del granted.within[namespace]
            if not granted.everywhere and not granted.within:
                del of_kind[subject]

    # -- decisions ---------------------------------------------------------------------------------------------------

    def decide(self, who: Identity, what: Attributes) -> Verdict:
        """Whether a request is allowed, with kube-apiserver's reason. RBAC never denies: it has no opinion.

        O(bindings of the user and of its groups, of the whole cluster and of the request's namespace).
        """
        if who.masters:
            return ALLOWED
        granted = self._granted(who)
        if what.path:
            for one in granted:
                for binding in one.everywhere.values():
                    if binding.rules is not None:
                        for rule in binding.rules.rules:
                            if rule.allows_path(what.verb, what.path):
                                return Verdict(Decision.ALLOW, binding.reason(who))
            return self._no_opinion(granted, "")
        request = (what.verb, what.group, what.resource, what.subresource)
        name, namespace = what.name, what.namespace
        for one in granted:
            for binding in one.everywhere.values():
                if (rules := binding.rules) is not None and ((names := rules.names(request)) is None or name in names):
                    return Verdict(Decision.ALLOW, binding.reason(who))
        if namespace:
            for one in granted:
                if (within := one.within.get(namespace)) is not None:
                    for binding in within.values():
                        if (rules := binding.rules) is not None and (
                            (names := rules.names(request)) is None or name in names
                        ):
                            return Verdict(Decision.ALLOW, binding.reason(who))
        return self._no_opinion(granted, namespace)

    def namespaces(self, who: Identity, what: Attributes) -> frozenset[str] | None:
        """Of a request over all namespaces: None where it is allowed as such, else the namespaces where it would be.

        Its own namespace does not count. Of a path: None, or none. A list over all namespaces that kube-apiserver
        would refuse shows here what the lists of each would. O(bindings of the user and of its groups).
        """
        if who.masters:
            return None
        granted = self._granted(who)
        if what.path:
            return None if self.decide(who, what).allowed else _NONE
        request = (what.verb, what.group, what.resource, what.subresource)
        name = what.name
        for one in granted:
            for binding in one.everywhere.values():
                if (rules := binding.rules) is not None and ((names := rules.names(request)) is None or name in names):
                    return None
        found = [
            namespace
            for one in granted
            for namespace, within in one.within.items()
            if any(
                (rules := binding.rules) is not None and ((names := rules.names(request)) is None or name in names)
                for binding in within.values()
            )
        ]
        return frozenset(found) if found else _NONE

    def rules(self, who: Identity, namespace: str) -> tuple[tuple[PolicyRule, ...], str]:
        """All rules of a user in a namespace, and what of them could not be had (validation/rule.go: RulesFor).

        Those of ClusterRoleBindings first, by the bindings' names; rules that several give stand several times.
        """
        bindings = list(self._applying(self._granted(who), namespace))
        rules = tuple(rule for binding in bindings if binding.rules is not None for rule in binding.rules.rules)
        return rules, aggregate(binding.error for binding in bindings)

    def _granted(self, who: Identity) -> list[_Granted]:
        user = self._users.get(who.name)
        found = [] if user is None else [user]
        groups = self._groups
        for group in who.groups:
            if (granted := groups.get(group)) is not None and granted not in found:
                found.append(granted)
        return found

    @staticmethod
    def _applying(granted: list[_Granted], namespace: str) -> Iterator[Binding]:
        """Each binding once: of the whole cluster, then of the namespace, by name."""
        everywhere = {name: binding for one in granted for name, binding in one.everywhere.items()}
        yield from (everywhere[name] for name in sorted(everywhere))
        if namespace:
            within = {name: binding for one in granted for name, binding in one.within.get(namespace, {}).items()}
            yield from (within[name] for name in sorted(within))

    def _no_opinion(self, granted: list[_Granted], namespace: str) -> Verdict:
        errors = aggregate(binding.error for binding in self._applying(granted, namespace))
        return Verdict(Decision.NO_OPINION, f"RBAC: {errors}") if errors else NO_OPINION
