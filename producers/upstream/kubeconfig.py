"""Kubeconfig files: read, checked, and asked what a context names. Nothing here connects to a cluster.

Format: https://kubernetes.io/docs/concepts/configuration/organize-cluster-access-kubeconfig/ and
k8s.io/client-go/tools/clientcmd/api/v1.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any
from urllib.parse import quote

import yaml

from producers.errors import UnusableInput

# What a header's name may hold beside letters and digits (RFC 9110, 5.6.2), without what is an escape itself.
_TOKEN = "!#$&'*+-.^_`|~"


class BadKubeconfig(UnusableInput):
    """The kubeconfig, or a context of it, cannot be used; one line that says why, and the remedy."""


def load(path: Path) -> dict[str, Any]:
    """The document in a kubeconfig file. Raises BadKubeconfig."""
    try:
        text = path.read_text()
    except OSError as cause:
        raise BadKubeconfig(f"{path}: {cause.strerror}") from cause
    except UnicodeDecodeError as cause:
        raise BadKubeconfig(f"{path} is no text: {one_line(cause)[:160]}") from cause
    return parse(text, str(path))


def parse(text: str, where: str) -> dict[str, Any]:
    """The document in a kubeconfig's text; `where` names it in messages. Raises BadKubeconfig."""
    try:
        document = yaml.safe_load(text)
    except (yaml.YAMLError, RecursionError) as cause:
        raise BadKubeconfig(f"{where} is no YAML: {one_line(cause)[:160]}") from cause
    if not isinstance(document, dict):
        raise BadKubeconfig(f"{where} is no kubeconfig: a mapping with clusters, users and contexts is expected")
    for part in ("clusters", "users", "contexts"):
        if not isinstance(document.get(part) or [], list):
            raise BadKubeconfig(f"{where} is no kubeconfig: {part} is no list")
    return document


def one_line(cause: BaseException) -> str:
    """An error's text without line breaks, its type's name if it has none."""
    return " ".join(str(cause).split()) or type(cause).__name__


def default_kubeconfig() -> str:
    """The path, or paths, that kubectl takes: $KUBECONFIG, else ~/.kube/config."""
    return os.environ.get("KUBECONFIG") or str(Path.home() / ".kube" / "config")


def signature(paths: list[str]) -> tuple[tuple[int, int], ...]:
    """Changes when one of the files does."""
    return tuple(file_state(path) for path in paths)


def file_state(path: str) -> tuple[int, int]:
    """Modification time in nanoseconds and inode of a file; zeros if there is none."""
    try:
        found = os.stat(path)
    except OSError:
        return (0, 0)
    return (found.st_mtime_ns, found.st_ino)


def current_context(document: dict[str, Any], where: str) -> str:
    """The context to take from a kubeconfig for one cluster. Raises BadKubeconfig."""
    names = [str(item.get("name") or "") for item in document.get("contexts") or [] if isinstance(item, dict)]
    current = str(document.get("current-context") or "")
    if current in names:
        return current
    if current:
        raise BadKubeconfig(f"{where}: its current-context {current!r} is not among its contexts")
    if len(names) == 1 and names[0]:
        return names[0]
    raise BadKubeconfig(f"{where}: {len(names)} contexts and no current-context that says which")


# Of a kubeconfig from an object: what would run a command of its writer's choice, or read our files.
_FOREIGN = (
    ("users", "user", ("exec", "auth-provider", "tokenFile", "client-certificate", "client-key")),
    ("clusters", "cluster", ("certificate-authority",)),
)


def refuse_foreign(document: dict[str, Any], name: str) -> None:
    """Raises BadKubeconfig for a kubeconfig that would run commands or read files of this machine."""
    for part, kind, keys in _FOREIGN:
        for item in document.get(part) or []:
            for key in keys:
                if isinstance(item, dict) and (item.get(kind) or {}).get(key):
                    raise BadKubeconfig(
                        f"{name}: {key} is not allowed in a kubeconfig from an object; put the token or the -data there"
                    )


def impersonation_in_files(kubeconfig: str, context: str) -> list[tuple[str, str]]:
    """`impersonation_headers` of a context in files, several of them separated as in $KUBECONFIG."""
    documents = []
    for path in kubeconfig.split(os.pathsep):
        # The loader reports one that is missing or broken.
        with contextlib.suppress(BadKubeconfig):
            documents.append(load(Path(path).expanduser()))
    return impersonation_headers(documents, context, f"context {context}")


def impersonation_headers(documents: Iterable[dict[str, Any]], context: str, where: str) -> list[tuple[str, str]]:
    """Headers of impersonation: as whom a context's user acts (`as` and the like), which kubernetes_asyncio leaves out.

    Of several files the first that has an entry counts (client-go transport/round_trippers.go). Raises BadKubeconfig.
    """
    named: dict[str, dict[str, Any]] = {}
    users: dict[str, dict[str, Any]] = {}
    for document in documents:
        for found, part, kind in ((named, "contexts", "context"), (users, "users", "user")):
            for item in document.get(part) or []:
                if isinstance(item, dict) and isinstance(item.get(kind), dict):
                    found.setdefault(str(item.get("name") or ""), item[kind])
    user = users.get(str(named.get(context, {}).get("user") or ""), {})
    groups, extra = user.get("as-groups") or [], user.get("as-user-extra") or {}
    if not isinstance(groups, list) or not isinstance(extra, dict):
        raise BadKubeconfig(f"{where}: as-groups is a list, and as-user-extra a mapping of lists")
    headers = [("Impersonate-User", user["as"])] if user.get("as") else []
    headers += [("Impersonate-Uid", user["as-uid"])] if user.get("as-uid") else []
    headers += [("Impersonate-Group", group) for group in groups]
    for key, values in extra.items():
        name = f"Impersonate-Extra-{quote(str(key).lower(), safe=_TOKEN)}"
        headers += [(name, value) for value in (values if isinstance(values, list) else [values])]
    if headers and not user.get("as"):
        raise BadKubeconfig(
            f"{where}: its user has as-uid, as-groups or as-user-extra, but nobody to act as: give `as`"
        )
    if any(character < " " for _, value in headers for character in str(value)):
        raise BadKubeconfig(f"{where}: whom its user acts as has control characters in it")
    return [(name, str(value)) for name, value in headers]


def files_of(kubeconfig: str, context: str) -> tuple[str, ...]:
    """The kubeconfig's files, and the files of certificates and tokens that they name for a context."""
    found = [str(Path(path).expanduser()) for path in kubeconfig.split(os.pathsep) if path]
    names: dict[str, str] = {}
    for path in list(found):
        try:
            document = load(Path(path))
        except BadKubeconfig:
            continue
        base = Path(path).parent
        for item in document.get("contexts") or []:
            if item.get("name") == context:
                names = {key: str(item["context"].get(key) or "") for key in ("cluster", "user")}
        for part, kind in (("clusters", "cluster"), ("users", "user")):
            for item in document.get(part) or []:
                if item.get("name") != names.get(kind):
                    continue
                named = item.get(kind) or {}
                keys = ("certificate-authority", "client-certificate", "client-key", "tokenFile")
                found += [str(base / named[key]) for key in keys if named.get(key)]
    return tuple(found)
