"""The tokens of an OIDC user in the kubeconfig that has them, read and written back so that kubectl goes on with them.

kubectl writes a file anew, without its comments, under `<file>.lock` (client-go tools/clientcmd/config.go). Here two
values are exchanged in the text, and the file is replaced as a whole: a reader never sees half of it.
"""

from __future__ import annotations

import codecs
import contextlib
import fcntl
import json
import os
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from producers.credentials.credential import BadCredentials
from producers.credentials.identity_provider import Tokens
from producers.kubeconfig.document import read
from producers.kubeconfig.model import BadKubeconfig
from producers.kubeconfig.yaml_values import BadYaml, dump, parse

ID_TOKEN, REFRESH_TOKEN = "id-token", "refresh-token"
_BOMS = ((codecs.BOM_UTF16_LE, "utf-16-le"), (codecs.BOM_UTF16_BE, "utf-16-be"), (codecs.BOM_UTF8, "utf-8"))
# Between two looks at a lock: nothing tells when it goes.
_LOOK = 0.1


class NotWritten(BadCredentials):
    """Tokens could not be written back; one line that says why, and the remedy."""


def read_tokens(file: str, entry: str) -> Tokens | None:
    """The tokens of a user's entry as the file has them now; None if it cannot be read, or has none. Blocking."""
    try:
        user = read(Path(file).read_bytes(), file, os.path.dirname(file)).users.get(entry)
    except (OSError, ValueError, BadKubeconfig):
        return None
    if user is None or user.auth_provider is None:
        return None
    config = dict(user.auth_provider.config)
    return Tokens(config.get(ID_TOKEN, ""), config.get(REFRESH_TOKEN, ""))


def write_tokens(file: str, entry: str, tokens: Tokens, patience: float) -> None:
    """Writes tokens into a user's entry, under kubectl's lock of that file. Blocking.

    Raises:
        NotWritten: the lock was there for `patience` seconds, the file cannot be written, or has no such entry.
    """
    try:
        with _kubectl_lock(file, patience):
            before = Path(file).read_bytes()
            after = with_tokens(before, entry, tokens)
            if after != before:
                _replace(os.path.realpath(file), after)
    except OSError as cause:
        raise NotWritten(f"{file}: {cause.strerror or type(cause).__name__}") from None


def with_tokens(content: bytes, entry: str, tokens: Tokens) -> bytes:
    """A kubeconfig with other tokens in a user's entry, and otherwise as it was; an empty token stays as it is.

    Raises NotWritten if there is no such entry.
    """
    wanted = {ID_TOKEN: tokens.id_token, REFRESH_TOKEN: tokens.refresh_token}
    wanted = {key: value for key, value in wanted.items() if value}
    try:
        expected = parse(content)
        config = _config(expected, entry)
        if all(config.get(key) == value for key, value in wanted.items()):
            return content
        config.update(wanted)
        edited = _edited(content, entry, wanted)
        if edited is not None:
            with contextlib.suppress(BadYaml):
                if parse(edited) == expected:
                    return edited
        # As kubectl does: anchors, block scalars and the like are more than exchanging two values can mend.
        written = dump(expected).encode()
        if parse(written) == expected:
            return written
    except (BadYaml, RecursionError, UnicodeError):
        pass
    raise NotWritten("the file is none in which tokens can be exchanged")


def _config(document: Any, entry: str) -> dict[str, Any]:
    """The settings of a user's auth-provider in a document. Raises NotWritten."""
    try:
        user = next(one["user"] for one in document["users"] if (one or {}).get("name") == entry)
        config = user["auth-provider"]["config"]
    except (KeyError, TypeError, AttributeError, StopIteration):
        config = None
    if not isinstance(config, dict):
        raise NotWritten(f"there is no user {entry!r} with an auth-provider any longer")
    return config


# -- in the text -------------------------------------------------------------------------------------------------------


def _edited(content: bytes, entry: str, wanted: dict[str, str]) -> bytes | None:
    """The text with these values exchanged, or added; None where that is not simple. Whoever calls checks it."""
    bom, encoding = next(((bom, name) for bom, name in _BOMS if content.startswith(bom)), (b"", "utf-8"))
    text = content[len(bom) :].decode(encoding)
    try:
        root = next(yaml.compose_all(text, Loader=yaml.CSafeLoader), None)
    except yaml.YAMLError:
        return None
    for item in getattr(_under(root, "users"), "value", ()):
        name = _under(item, "name")
        if isinstance(name, yaml.ScalarNode) and name.value == entry:
            config = _under(_under(_under(item, "user"), "auth-provider"), "config")
            break
    else:
        return None
    if not isinstance(config, yaml.MappingNode) or not config.value:
        return None
    changes = [_change(text, config, key, json.dumps(value, ensure_ascii=False)) for key, value in wanted.items()]
    for start, end, new in sorted(changes, reverse=True):
        text = text[:start] + new + text[end:]
    return bom + text.encode(encoding)


def _under(node: Any, key: str) -> Any:
    """What a mapping has under a key; of several the last."""
    found = None
    if isinstance(node, yaml.MappingNode):
        for name, value in node.value:
            if isinstance(name, yaml.ScalarNode) and name.value == key:
                found = value
    return found


def _change(text: str, config: yaml.MappingNode, key: str, value: str) -> tuple[int, int, str]:
    known = _under(config, key)
    if known is not None:
        start, end = known.start_mark.index, known.end_mark.index
        # A block scalar ends with its line; nothing at all is null.
        line = "\n" if text[start:end].endswith("\n") else ""
        return (start, end, value + line if start < end and text[start - 1 : start].isspace() else f" {value}{line}")
    first = config.value[0][0].start_mark
    between = ", " if config.flow_style else "\n" + " " * first.column
    return (first.index, first.index, f'"{key}": {value}{between}')


# -- files and locks ---------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def _kubectl_lock(file: str, patience: float) -> Iterator[None]:
    """kubectl's lock. Only of the file that is written: each kubectl that writes it takes this one, too."""
    lock = f"{file}.lock"
    limit = time.monotonic() + patience
    while True:
        try:
            os.close(os.open(lock, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0))
            break
        except FileExistsError:
            if time.monotonic() >= limit:
                raise NotWritten(f"{file} is locked: remove {lock} if no kubectl is running") from None
            time.sleep(_LOOK)
    try:
        yield
    finally:
        with contextlib.suppress(FileNotFoundError):
            os.remove(lock)


def _replace(path: str, content: bytes) -> None:
    """Gives a file this content, with its owner and mode as they are."""
    had = os.stat(path)
    try:
        descriptor, new = tempfile.mkstemp(prefix=f".{os.path.basename(path)}.", dir=os.path.dirname(path))
    except OSError:
        _overwrite(path, content)
        return
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            os.fchmod(descriptor, had.st_mode & 0o7777)
            if (os.fstat(descriptor).st_uid, os.fstat(descriptor).st_gid) != (had.st_uid, had.st_gid):
                os.fchown(descriptor, had.st_uid, had.st_gid)
            os.fsync(descriptor)
        os.replace(new, path)
    except OSError:
        # A file that is mounted alone, or that is somebody else's.
        with contextlib.suppress(OSError):
            os.remove(new)
        _overwrite(path, content)


def _overwrite(path: str, content: bytes) -> None:
    """Writes in place, at no moment leaving it empty: that would be a kubeconfig without clusters."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    with os.fdopen(descriptor, "wb", buffering=0) as file:
        at = 0
        while at < len(content):
            at += file.write(content[at:])
        file.truncate(len(content))


class RefreshLock:
    """Keeps processes of ours from using one refresh token at the same time: flock on the kubeconfig that has it.

    Taken once.
    """

    def __init__(self, file: str, patience: float) -> None:
        self._file = file
        self._patience = patience
        self._descriptor = -1
        self._guard = threading.Lock()
        self._released = False

    @property
    def held(self) -> bool:
        """Whether it was to be had."""
        return self._descriptor >= 0

    def take(self) -> None:
        """Waits for it, but not longer than `patience`; some file systems have no such lock. Blocking."""
        limit = time.monotonic() + self._patience
        while time.monotonic() < limit and not self._released:
            try:
                descriptor = os.open(self._file, os.O_RDONLY | os.O_CLOEXEC)
            except OSError:
                return
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                # Who had it may have replaced the file.
                if os.path.samestat(os.fstat(descriptor), os.stat(self._file)) and self._keep(descriptor):
                    return
            except BlockingIOError:
                time.sleep(_LOOK)
            except OSError:
                os.close(descriptor)
                return
            os.close(descriptor)

    def _keep(self, descriptor: int) -> bool:
        with self._guard:
            if not self._released:
                self._descriptor = descriptor
            return not self._released

    def release(self) -> None:
        """Gives it back, and ends `take` in another thread, which keeps nothing then."""
        with self._guard:
            self._released = True
            descriptor, self._descriptor = self._descriptor, -1
        if descriptor >= 0:
            os.close(descriptor)
