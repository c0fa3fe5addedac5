"""A kubeconfig in the making, and the case that it becomes: files, environment, and how they are named to a client."""

from __future__ import annotations

import base64
import json
import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import trustme
import yaml

from tests.oracle.rig import Certificates, Pair, Rig
from tests.oracle.servers import id_token

# In files and environments: the directory that a case is laid out in, which is another one for each client.
ROOT = "@ROOT@"
PLUGIN_LOG = "plugin.log"
# What plugins note of their environment.
_NOTED = ("A", "B", "C")


def b64(data: bytes) -> str:
    """As `*-data` has it."""
    return base64.b64encode(data).decode()


@dataclass(frozen=True, slots=True)
class Case:
    """One kubeconfig to be tried. `marks`: its credentials, each of which occurs in no output of anyone.

    `kubeconfig`: the value of $KUBECONFIG, None where it is unset; `flag`: that of `--kubeconfig`; `context`: the one
    to take, None for the current one. `reason`: the key of a deliberate difference (differences.py) it is to show.
    """

    seed: str
    title: str
    files: Mapping[str, bytes]
    links: Mapping[str, str]
    programs: frozenset[str]
    environment: Mapping[str, str]
    kubeconfig: str | None
    flag: str | None
    context: str | None
    marks: tuple[str, ...]
    reason: str = ""

    def lay_out(self, root: Path) -> None:
        """Writes the files below a directory."""
        for name, content in self.files.items():
            path = root / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content.replace(ROOT.encode(), str(root).encode()))
            path.chmod(0o755 if name in self.programs else 0o644)
        for name, target in self.links.items():
            path = root / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.symlink_to(target.replace(ROOT, str(root)))
        (root / "home").mkdir(exist_ok=True)
        (root / "work").mkdir(exist_ok=True)

    def text(self) -> str:
        """The case for people."""
        lines = [f"{self.seed}: {self.title}"]
        lines += [f"KUBECONFIG={self.kubeconfig!r} --kubeconfig={self.flag!r} --context={self.context!r}"]
        lines += [f"{name}={value}" for name, value in self.environment.items()]
        for name, content in self.files.items():
            if not name.endswith((".pem", ".crt", ".key")):
                lines += [f"--- {name}", content[:3000].decode(errors="backslashreplace").rstrip()]
        return "\n".join(lines)


@dataclass
class Draft:
    """Has one cluster, user and context, `c`, `u` and `x`, unless a twist wants others; all of it may be changed."""

    rig: Rig
    random: random.Random
    cluster: dict[str, Any] = field(default_factory=dict)
    user: dict[str, Any] = field(default_factory=dict)
    # A document as a whole; made of cluster and user where a twist makes none.
    document: dict[str, Any] = field(default_factory=dict)
    files: dict[str, bytes] = field(default_factory=dict)
    links: dict[str, str] = field(default_factory=dict)
    programs: set[str] = field(default_factory=set)
    environment: dict[str, str] = field(default_factory=dict)
    kubeconfig: str | None = f"{ROOT}/config"
    flag: str | None = None
    context: str | None = "x"
    marks: list[str] = field(default_factory=list)
    reason: str = ""

    @property
    def certificates(self) -> Certificates:
        """Those of the run."""
        return self.rig.certificates

    def mark(self, text: str = "") -> str:
        """A secret of its own."""
        made = f"mark-{self.random.randrange(16**10):010x}{text}"
        self.marks.append(made)
        return made

    def number(self) -> int:
        """Something that no other case has."""
        return self.random.randrange(10**9)

    # -- clusters ----------------------------------------------------------------------------------------------------

    def at(self, server: str = "plain", host: str = "127.0.0.1", path: str = "") -> None:
        """The cluster is this server of the rig."""
        scheme = "https" if "tls" in server else "http"
        self.cluster["server"] = f"{scheme}://{host}:{self.rig.port(server)}{path}"

    def trusting(self, authority: trustme.CA | bytes | None = None, how: str = "data") -> None:
        """The cluster's certificate authority, as data, or in a file beside the kubeconfig."""
        pem = authority if isinstance(authority, bytes) else Certificates.pem(authority or self.certificates.authority)
        if how == "data":
            self.cluster["certificate-authority-data"] = b64(pem)
        else:
            name = self.random.choice(("ca.pem", "pki/ca.pem", "./ca.pem", "pki/../ca.pem"))
            self.files[str(Path(name)) if ".." not in name else "ca.pem"] = pem
            if ".." in name:
                self.files.setdefault("pki/.keep", b"")
            self.cluster["certificate-authority"] = name

    def secured(self, server: str = "tls", host: str = "127.0.0.1", path: str = "") -> None:
        """The cluster is a server with TLS, whose authority is known."""
        self.at(server, host, path)
        self.trusting(how=self.random.choice(("data", "file")))

    def any_cluster(self) -> None:
        """A cluster that answers."""
        kind = self.random.randrange(4)
        path = self.random.choice(("", "/", "/k8s/clusters/c-1", "/pre.fix/"))
        host = self.random.choice(("127.0.0.1", "localhost"))
        if kind == 0:
            self.at("plain", host, path)
        elif kind == 1:
            self.at("tls", host, path)
            self.cluster["insecure-skip-tls-verify"] = True
        else:
            self.secured("tls", host, path)

    # -- users -------------------------------------------------------------------------------------------------------

    def with_token(self) -> str:
        """The user has a token."""
        self.user["token"] = self.mark()
        return str(self.user["token"])

    def with_basic(self) -> None:
        """The user has a name and a password."""
        self.user |= {"username": f"name-{self.number()}", "password": self.mark()}

    def with_pair(self, pair: Pair, certificate: str = "data", key: str = "data") -> None:
        """The user has a certificate and a key, each as data or as a file."""
        for name, content, how in (
            ("client-certificate", pair.certificate, certificate),
            ("client-key", pair.key, key),
        ):
            if how == "data":
                self.user[f"{name}-data"] = b64(content)
            elif how == "file":
                file = f"{self.random.choice(('', 'keys/'))}{name}.pem"
                self.files[file] = content
                self.user[name] = file

    def client(self) -> Pair:
        """A client's certificate and key; there are few, as making one takes long."""
        pair = self.certificates.client(f"client-{self.random.randrange(4)}")
        # A line of the key is never shown, be it as PEM or as base64 of PEM.
        line = pair.key.decode().splitlines()[1]
        self.marks += [line, b64(pair.key)[60:120]]
        return pair

    def with_certificate(self) -> None:
        """The user has a certificate of the right authority."""
        self.with_pair(self.client(), *(self.random.choice(("data", "file")) for _ in range(2)))

    def plugin(
        self, answer: Mapping[str, Any] | str, path: str = "bin/plugin", *, code: int = 0, more: str = ""
    ) -> str:
        """A program that notes what it is given, and answers; its name as `command` may have it."""
        text = answer if isinstance(answer, str) else json.dumps(answer)
        noted = " ".join(f'{name}=["${name}"]' for name in _NOTED)
        self.files[path] = "\n".join(
            (
                "#!/bin/sh",
                "read -r line; stdin=$line",
                "{ printf 'arguments'; for one in \"$@\"; do printf ' [%s]' \"$one\"; done",
                f'printf \' %s stdin [%s] info %s\\n\' {json.dumps(noted)} "$stdin" "$KUBERNETES_EXEC_INFO"; }} '
                f'>>"{ROOT}/{PLUGIN_LOG}"',
                more,
                f"cat <<'END-OF-ANSWER'\n{text}\nEND-OF-ANSWER",
                f"exit {code}\n",
            )
        ).encode()
        self.programs.add(path)
        return path

    def credential(self, status: Mapping[str, Any] | None, version: str = "v1") -> dict[str, Any]:
        """What a plugin answers."""
        found: dict[str, Any] = {"apiVersion": f"client.authentication.k8s.io/{version}", "kind": "ExecCredential"}
        return found | ({"status": dict(status)} if status is not None else {})

    def with_plugin(self, status: Mapping[str, Any] | None = None, version: str = "v1", **more: Any) -> dict[str, Any]:
        """The user has a plugin that answers with this status, or with a token; its entry."""
        status = {"token": self.mark()} if status is None else status
        path = self.plugin(self.credential(status, version))
        self.user["exec"] = {
            "apiVersion": f"client.authentication.k8s.io/{version}",
            "command": f"./{path}",
            "interactiveMode": "IfAvailable",
            # Equal plugins are one within a process.
            "args": [f"--number={self.number()}"],
        } | more
        entry: dict[str, Any] = self.user["exec"]
        return entry

    def with_provider(self, *, tls: bool = False, expires: float | None = None, **config: str) -> dict[str, str]:
        """The user has OIDC; its configuration."""
        provider = self.rig.tls_provider if tls else self.rig.provider
        made = {
            "idp-issuer-url": provider.issuer,
            "client-id": f"client-{self.number()}",
            "client-secret": self.mark(),
            "id-token": id_token(self.mark(), expires),
            "refresh-token": self.mark(),
        } | config
        self.user["auth-provider"] = {"name": "oidc", "config": made}
        return made

    def any_user(self) -> None:
        """A user that can be one."""
        self.random.choice(
            (self.with_token, self.with_basic, self.with_certificate, self.with_plugin, lambda: self.user.clear())
        )()

    # -- the whole ---------------------------------------------------------------------------------------------------

    def whole(self) -> dict[str, Any]:
        """The document of cluster and user."""
        return {
            "apiVersion": "v1",
            "kind": "Config",
            "current-context": "x",
            "clusters": [{"name": "c", "cluster": self.cluster}],
            "users": [{"name": "u", "user": self.user}],
            "contexts": [{"name": "x", "context": {"cluster": "c", "user": "u"}}],
        } | self.document

    def write(self, path: str, document: Mapping[str, Any]) -> None:
        """A kubeconfig, as YAML in one of its forms or as JSON."""
        form = self.random.randrange(4)
        if form == 0:
            text = json.dumps(document, indent=self.random.choice((None, 2)))
        else:
            text = yaml.safe_dump(document, default_flow_style=form == 1, sort_keys=form == 2)
        self.files[path] = text.encode()

    def case(self, seed: str, title: str) -> Case:
        """As it stands now."""
        if "config" not in self.files and "config" not in self.links:
            self.write("config", self.whole())
        return Case(
            seed=seed,
            title=title,
            files=dict(self.files),
            links=dict(self.links),
            programs=frozenset(self.programs),
            environment=dict(self.environment),
            kubeconfig=self.kubeconfig,
            flag=self.flag,
            context=self.context,
            marks=tuple(self.marks),
            reason=self.reason,
        )


Twist = Callable[[Draft], None]


@dataclass
class Family:
    """Kinds of kubeconfigs that belong together; each twist makes one of a draft."""

    name: str
    twists: list[tuple[str, Twist]] = field(default_factory=list)

    def __call__(self, twist: Twist) -> Twist:
        """As a decorator: one more, named as its function."""
        return self.add(twist.__name__.strip("_").replace("_", " "), twist)

    def add(self, title: str, twist: Twist) -> Twist:
        """One more."""
        assert title not in dict(self.twists), title
        self.twists.append((title, twist))
        return twist
