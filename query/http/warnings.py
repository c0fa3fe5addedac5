"""Warnings: the `Warning` headers that go along with an answer, few and short however many clusters there are.

The bounds are those of a kube-apiserver (k8s.io/apiserver pkg/endpoints/filters/warning.go): client-go prints each
warning on a line of its own, and Node.js refuses an answer with more than 16 KiB of headers.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

# Characters of one warning, and of all of an answer.
_LONGEST = 256
_ALTOGETHER = 4096
# Clusters with a warning of their own; further ones are counted.
_NAMED = 8


def warning_headers(texts: Iterable[str]) -> list[tuple[str, str]]:
    """Headers for these warnings: code 299 is the only one that clients show; the agent says that it is from here."""
    headers: list[tuple[str, str]] = []
    left = _ALTOGETHER
    for text in dict.fromkeys(texts):
        quoted = _quotable(text if len(text) <= _LONGEST else text[: _LONGEST - 3] + "...")
        left -= len(quoted)
        if left < 0:
            break
        headers.append(("Warning", f'299 kubebraid "{quoted}"'))
    return headers


def of_stale(clusters: Sequence[tuple[str, str]]) -> list[str]:
    """Warnings of clusters whose objects may be out of date, given as names and reasons: at most eight, and a count."""
    texts = [
        f"{name} is not ready and the resources obtained may be inaccurate, reason: {reason}"
        for name, reason in clusters[:_NAMED]
    ]
    if more := len(clusters) - len(texts):
        texts.append(f"{more} more clusters are not ready, /readyz?verbose tells which and why")
    return texts


def of_passed_on(cluster: str, resource: str) -> str:
    """The warning of a read that a cluster answers by itself, as what is read is not in memory."""
    return f"not synced here: {cluster} itself answers for {resource}, with resourceVersions of its own"


def of_other_versions(version: str, stored: Sequence[tuple[str, str]]) -> str:
    """The warning of clusters that an answer of `version` leaves out, given as names and the versions they store."""
    named = ", ".join(f"{name} ({other})" for name, other in stored[:_NAMED])
    more = f" and {len(stored) - _NAMED} more" if len(stored) > _NAMED else ""
    return f"left out, as they serve another version than {version}: {named}{more}"


def of_other_scopes(resource: str, clusters: Sequence[str]) -> str:
    """The warning of a type that is in namespaces in some clusters and in none in these."""
    more = f" and {len(clusters) - _NAMED} more" if len(clusters) > _NAMED else ""
    return f"{resource} are in namespaces in some clusters, and in none in {', '.join(clusters[:_NAMED])}{more}"


def _quotable(text: str) -> str:
    return "".join(char if " " <= char <= "~" else " " for char in text).replace("\\", "\\\\").replace('"', '\\"')
