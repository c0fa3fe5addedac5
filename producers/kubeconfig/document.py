"""One kubeconfig document: its entries, as strictly typed as kubectl has them.

Format: k8s.io/client-go tools/clientcmd/api/v1 (types.go, conversion.go); unknown keys are ignored. Messages name the
document, the entry and the key, never a value: one of `users` may be a secret.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, NoReturn, TypeVar

from producers.kubeconfig.entries import AuthProvider, Cluster, Context, Exec, Impersonation, User
from producers.kubeconfig.model import BadKubeconfig
from producers.kubeconfig.yaml_values import FILE, BadYaml, Bounds, decode_base64, parse

EXEC_EXTENSION = "client.authentication.k8s.io/exec"
_Entry = TypeVar("_Entry")
_KINDS = {
    type(None): "null",
    bool: "a boolean",
    int: "a number",
    float: "a number",
    str: "a text",
    list: "a list",
    dict: "a mapping",
}


@dataclass(frozen=True, slots=True)
class Document:
    """What one kubeconfig says. `where`: its path, or what it stands in, as messages name it."""

    where: str
    clusters: dict[str, Cluster] = field(default_factory=dict)
    users: dict[str, User] = field(default_factory=dict)
    contexts: dict[str, Context] = field(default_factory=dict)
    current_context: str = ""


def read(text: bytes, where: str, folder: str, bounds: Bounds = FILE) -> Document:
    """The entries of a kubeconfig's text. `folder`: what relative paths in it are relative to, absolute.

    Blocking. Raises BadKubeconfig.
    """
    try:
        value = parse(text, bounds)
    except BadYaml as cause:
        raise BadKubeconfig(f"{where} is no YAML: {cause}") from None
    if value is None:
        return Document(where)
    if not isinstance(value, dict):
        raise BadKubeconfig(
            f"{where} is no kubeconfig: a mapping with clusters, users and contexts is expected, not {_kind(value)}"
        )
    top = _Mapping(value, where, "")
    for key, expected in (("kind", "Config"), ("apiVersion", "v1")):
        if (said := top.text(key)) not in ("", expected):
            raise BadKubeconfig(f"{where} is no kubeconfig: {key} is {said[:40]!r}, not {expected}")
    if (preferences := top.mapping("preferences")) is not None:
        preferences.flag("colors")
        preferences.extensions()
    top.extensions()
    return Document(
        where,
        clusters=_named(top, "clusters", "cluster", lambda found: _cluster(found, folder)),
        users=_named(top, "users", "user", lambda found: _user(found, folder)),
        contexts=_named(top, "contexts", "context", _context),
        current_context=top.text("current-context"),
    )


# -- typed looks at values ---------------------------------------------------------------------------------------------


def _kind(value: object) -> str:
    return _KINDS.get(type(value), "something else")


class _Mapping:
    """A mapping of the document, asked for keys of one type each; null is as absent."""

    def __init__(self, value: dict[str, Any], where: str, path: str) -> None:
        self._value, self._where, self.path = value, where, path

    def _refuse(self, key: str, expected: str, value: object) -> NoReturn:
        raise BadKubeconfig(
            f"{self._where} is no kubeconfig: {_below(self.path, key)}: {expected} is expected, not {_kind(value)}"
        )

    def text(self, key: str) -> str:
        value = self._value.get(key)
        if value is None:
            return ""
        if not isinstance(value, str):
            hint = " (quote it)" if isinstance(value, bool | int | float) else ""
            self._refuse(key, f"a text{hint}", value)
        return value

    def flag(self, key: str) -> bool:
        value = self._value.get(key)
        if value is None:
            return False
        if not isinstance(value, bool):
            self._refuse(key, "true or false", value)
        return value

    def data(self, key: str) -> bytes:
        value = self._value.get(key)
        if isinstance(value, list) and all(type(item) is int and 0 <= item < 256 for item in value):
            # Bytes one by one: nobody writes that, but Go's JSON reads it.
            return bytes(value)
        try:
            return decode_base64(self.text(key))
        except ValueError as cause:
            raise BadKubeconfig(f"{self._where} is no kubeconfig: {_below(self.path, key)}: {cause}") from None

    def file(self, key: str, folder: str) -> str:
        return _joined(folder, self.text(key))

    def mapping(self, key: str) -> _Mapping | None:
        value = self._value.get(key)
        if value is None:
            return None
        if not isinstance(value, dict):
            self._refuse(key, "a mapping", value)
        return _Mapping(value, self._where, _below(self.path, key))

    def mappings(self, key: str, label: str = "name") -> list[_Mapping]:
        """A list of mappings; an item of null is an empty one. Each is known by its name, or by its number."""
        value = self._value.get(key)
        if value is None:
            return []
        if not isinstance(value, list):
            self._refuse(key, "a list", value)
        found = []
        for number, item in enumerate(value):
            path = f"{_below(self.path, key)}[{number}]"
            if item is not None and not isinstance(item, dict):
                raise BadKubeconfig(f"{self._where} is no kubeconfig: {path}: a mapping is expected, not {_kind(item)}")
            item = item or {}
            if isinstance(item.get(label), str) and item[label]:
                path = f"{_below(self.path, key)}[{item[label]}]"
            found.append(_Mapping(item, self._where, path))
        return found

    def texts(self, key: str) -> tuple[str, ...]:
        value = self._value.get(key)
        if value is None:
            return ()
        if not isinstance(value, list):
            self._refuse(key, "a list of texts", value)
        for item in value:
            if item is not None and not isinstance(item, str):
                self._refuse(key, "a list of texts", item)
        return tuple(item or "" for item in value)

    def pairs(self, key: str) -> tuple[tuple[str, str], ...]:
        """A mapping of texts, by key."""
        below = self.mapping(key)
        return () if below is None else tuple((name, below.text(name)) for name in sorted(below._value))

    def lists(self, key: str) -> tuple[tuple[str, tuple[str, ...]], ...]:
        """A mapping of lists of texts, by key."""
        below = self.mapping(key)
        return () if below is None else tuple((name, below.texts(name)) for name in sorted(below._value))

    def extensions(self) -> dict[str, object]:
        found: dict[str, object] = {}
        for item in self.mappings("extensions"):
            name = item.text("name")
            # Those without a value do not count (conversion.go compares with nil).
            if found.get(name) is not None:
                raise BadKubeconfig(f"{self._where} is no kubeconfig: {item.path}: the name is there twice")
            found[name] = item._value.get("extension")
        return found


def _below(path: str, key: str) -> str:
    return f"{path}.{key}" if path else key


def _joined(folder: str, path: str) -> str:
    """As filepath.Join, of what is there and not absolute."""
    if not path or os.path.isabs(path):
        return path
    return os.path.normpath(os.path.join(folder, path))


def _named(top: _Mapping, part: str, singular: str, entry: Callable[[_Mapping | None], _Entry]) -> dict[str, _Entry]:
    found: dict[str, _Entry] = {}
    for item in top.mappings(part):
        name = item.text("name")
        if name in found:
            raise BadKubeconfig(f"{top._where} is no kubeconfig: {item.path}: the name is there twice")
        found[name] = entry(item.mapping(singular))
    return found


# -- entries -----------------------------------------------------------------------------------------------------------


def _cluster(found: _Mapping | None, folder: str) -> Cluster:
    if found is None:
        return Cluster()
    extensions = found.extensions()
    return Cluster(
        server=found.text("server"),
        tls_server_name=found.text("tls-server-name"),
        insecure=found.flag("insecure-skip-tls-verify"),
        authority_file=found.file("certificate-authority", folder),
        authority_data=found.data("certificate-authority-data"),
        proxy_url=found.text("proxy-url"),
        disable_compression=found.flag("disable-compression"),
        exec_config=as_json(extensions.get(EXEC_EXTENSION), found.path),
    )


def _user(found: _Mapping | None, folder: str) -> User:
    if found is None:
        return User()
    found.extensions()
    return User(
        token=found.text("token"),
        token_file=found.file("tokenFile", folder),
        username=found.text("username"),
        password=found.text("password"),
        certificate_file=found.file("client-certificate", folder),
        certificate_data=found.data("client-certificate-data"),
        key_file=found.file("client-key", folder),
        key_data=found.data("client-key-data"),
        impersonation=Impersonation(
            user=found.text("as"),
            uid=found.text("as-uid"),
            groups=found.texts("as-groups"),
            extra=found.lists("as-user-extra"),
        ),
        exec=_exec(found.mapping("exec"), folder),
        auth_provider=_auth_provider(found.mapping("auth-provider")),
    )


def _exec(found: _Mapping | None, folder: str) -> Exec | None:
    if found is None:
        return None
    command = found.text("command")
    version = found.text("apiVersion")
    # v1 has no default (clientcmd/api/v1/defaults.go).
    default = "IfAvailable" if version.endswith(("/v1beta1", "/v1alpha1")) else ""
    return Exec(
        api_version=version,
        command=_joined(folder, command) if "/" in command else command,
        arguments=found.texts("args"),
        environment=tuple((one.text("name"), one.text("value")) for one in found.mappings("env")),
        interactive_mode=found.text("interactiveMode") or default,
        provide_cluster_info=found.flag("provideClusterInfo"),
        install_hint=found.text("installHint"),
    )


def _auth_provider(found: _Mapping | None) -> AuthProvider | None:
    return None if found is None else AuthProvider(found.text("name"), found.pairs("config"))


def _context(found: _Mapping | None) -> Context:
    if found is None:
        return Context()
    found.extensions()
    return Context(found.text("cluster"), found.text("user"), found.text("namespace"))


def as_json(value: object, path: str) -> bytes:
    """JSON as Go writes it: keys sorted, no white space, whole numbers without a point. Raises BadKubeconfig."""
    try:
        text = json.dumps(_whole(value), sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    except RecursionError:
        raise BadKubeconfig(f"{path}: its extension has too many levels") from None
    for character in "<>&\u2028\u2029":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return text.encode(errors="replace")


def _whole(value: object) -> object:
    if isinstance(value, float) and value.is_integer() and abs(value) < 1e21:
        return int(value)
    if isinstance(value, list):
        return [_whole(item) for item in value]
    if isinstance(value, dict):
        return {key: _whole(item) for key, item in value.items()}
    return value
