"""What kube-apiservers of before do otherwise: the one table of it, and how old a member is.

kubebraid answers as a kube-apiserver 1.36, whatever the member's age. With a real member everything is compared that is
not said here; what is said here, from its version on. Seen at 1.20.2; versions by Kubernetes' changes, which are named.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import aiohttp

__all__ = ["AGES", "Since", "minor_of", "minor_of_groups", "minor_of_version"]


@dataclass(frozen=True)
class Since:
    """Since 1.`minor` a kube-apiserver does as kubebraid; before it did what `before` says.

    `through`: so it is through kubebraid, too, since the member decides it.
    """

    minor: int
    before: str
    through: bool = False


AGES: Mapping[str, Since] = {
    "unknown versions of continue tokens stand bare": Since(26, "400 whose text has the version in quotes"),
    "lists from the watch cache are sorted": Since(
        27, "items of version 0, or not older than a version and without a limit, are in no order (113730)"
    ),
    "lists refuse sendInitialEvents": Since(27, "the parameter is not known and passed over (KEP-3157)"),
    "watches tell why not resourceVersionMatch": Since(
        27, "422 in other words: a watch never goes with resourceVersionMatch (KEP-3157)"
    ),
    "selectable fields": Since(
        31, "the schema of definitions drops selectableFields, and a selector of them is 400 (KEP-4358)", through=True
    ),
    "watches stream lists": Since(
        34, "sendInitialEvents is passed over and resourceVersionMatch always 422; 1.27 to 1.33: by a gate (KEP-3157)"
    ),
    "streamed lists are no tables": Since(34, "as watches stream lists"),
    "an exact version that is ahead is 504": Since(34, "500 with etcd's words, at once (132374)"),
    "initial events end unasked": Since(36, "no bookmark at the end unless by sendInitialEvents"),
}

# Group versions, and since which 1.x they are served whatever gates are set: how old a server is that does not say it.
_GROUPS = {
    "networking.k8s.io/v1": 19,
    "node.k8s.io/v1": 20,
    "policy/v1": 21,
    "autoscaling/v2": 23,
    "flowcontrol.apiserver.k8s.io/v1": 29,
    "resource.k8s.io/v1": 34,
}


async def minor_of(session: aiohttp.ClientSession, url: str) -> int:
    """36 of a Kubernetes 1.36. A build without a version (v0.0.0-master) is at least as new as what it serves."""
    async with session.get(f"{url}/version") as answer:
        minor = minor_of_version(await answer.json())
    if minor is not None:
        return minor
    async with session.get(f"{url}/apis") as answer:
        return minor_of_groups(await answer.json())


def minor_of_version(version: dict[str, Any]) -> int | None:
    """Of an answer of /version; None when neither `minor` ("36", "36+") nor `gitVersion` says it."""
    for text, said in ((version["minor"], r"(\d+)"), (version["gitVersion"], r"v1\.(\d+)")):
        if found := re.match(said, text):
            return int(found[1])
    return None


def minor_of_groups(groups: dict[str, Any]) -> int:
    """The age of the newest group version of an APIGroupList; 0 when it is older than all that are known here."""
    served = {version["groupVersion"] for group in groups["groups"] for version in group["versions"]}
    return max((minor for one, minor in _GROUPS.items() if one in served), default=0)
