"""Rules: what RBAC's roles allow, as they are stored, and what a subject's rules are."""

from __future__ import annotations

from dataclasses import dataclass

import msgspec

ANY = "*"
_Texts = tuple[str, ...] | None


class PolicyRule(msgspec.Struct, frozen=True, rename="camel", omit_defaults=True, gc=False):
    """A PolicyRule of rbac.authorization.k8s.io/v1, and a ResourceRule or NonResourceRule of authorization.k8s.io/v1.

    Go writes a list that was never made as null, so each may be None, which allows the same as an empty one.
    Example: `PolicyRule(("get", "list"), ("",), ("pods", "pods/log"))`.
    """

    verbs: _Texts = None
    api_groups: _Texts = None
    resources: _Texts = None
    resource_names: _Texts = None
    non_resource_urls: _Texts = msgspec.field(default=None, name="nonResourceURLs")

    def allows(self, verb: str, group: str, resource: str, subresource: str) -> bool:
        """Whether it is for such a request for a resource, whichever `resourceNames` it is confined to.

        pkg/apis/rbac/v1/evaluation_helpers.go: VerbMatches, APIGroupMatches, ResourceMatches. O(its texts).
        """
        verbs, groups, resources = self.verbs, self.api_groups, self.resources
        if not verbs or not groups or not resources:
            return False
        if (verb not in verbs and ANY not in verbs) or (group not in groups and ANY not in groups):
            return False
        if ANY in resources:
            return True
        if not subresource:
            return resource in resources
        return f"{resource}/{subresource}" in resources or f"*/{subresource}" in resources

    def allows_path(self, verb: str, path: str) -> bool:
        """Whether it is for a request for a path that is no resource's. O(its texts).

        pkg/apis/rbac/v1/evaluation_helpers.go: NonResourceURLMatches.
        """
        verbs = self.verbs
        if not verbs or (verb not in verbs and ANY not in verbs):
            return False
        return any(path_matches(url, path) for url in self.non_resource_urls or ())


def path_matches(pattern: str, path: str) -> bool:
    """Whether a nonResourceURL covers a path: `*`, an equal one, or what begins as it does before its last stars."""
    return pattern in (ANY, path) or (pattern.endswith(ANY) and path.startswith(pattern.rstrip(ANY)))


@dataclass(frozen=True, slots=True)
class SubjectRules:
    """The rules of a subject in a namespace: the status of a SelfSubjectRulesReview.

    `incomplete`: there may be more, as an authorizer cannot list its rules. `error`: why, "" for nothing went wrong.
    """

    rules: tuple[PolicyRule, ...] = ()
    incomplete: bool = False
    error: str = ""
