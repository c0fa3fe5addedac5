"""What is left after a client was run: what servers saw, what plugins were given, which files it changed."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import yaml

from tests.oracle.cases.draft import PLUGIN_LOG, ROOT, Case
from tests.oracle.recorded import Arrival, Outcome
from tests.oracle.rig import Rig

_SAID_ANYWAY = (("kind", "Config"), ("apiVersion", "v1"))
# An id-token has its time of expiry; its mark says which it is.
_JWT = re.compile(r"eyJ[\w-]+\.[\w-]+\.([\w-]+)")


def _plain(text: str, rig: Rig, root: Path) -> str:
    return _JWT.sub(r"jwt(\1)", rig.notes.named(text).replace(str(root), ROOT))


def _plugins(rig: Rig, root: Path) -> tuple[str, ...]:
    log = root / PLUGIN_LOG
    if not log.exists():
        return ()
    return tuple(sorted({_run(_plain(line, rig, root)) for line in log.read_text().split("\n") if line}))


def _run(line: str) -> str:
    """A plugin's line, with what it was told as one way to write that JSON."""
    given, info, told = line.partition(" info ")
    try:
        return given + info + json.dumps(_number(json.loads(told)), sort_keys=True)
    except ValueError:
        return line


def _number(value: Any) -> Any:
    """JSON knows no difference between 1, 1.0 and 1e0."""
    if isinstance(value, dict):
        return {key: _number(one) for key, one in value.items()}
    if isinstance(value, list):
        return [_number(one) for one in value]
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _content(text: str) -> Any:
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError:
        return text


def _meaning(document: Any) -> Any:
    """Without what is empty or goes without saying: kubectl writes `preferences: {}`, kind and apiVersion."""
    if isinstance(document, dict):
        found = {key: _meaning(value) for key, value in document.items() if (key, value) not in _SAID_ANYWAY}
        return {key: value for key, value in found.items() if value not in (None, {}, [], "")}
    if isinstance(document, list):
        return [_meaning(value) for value in document]
    return document


def _written(case: Case, rig: Rig, root: Path) -> tuple[tuple[str, str], ...]:
    found = []
    for name, before in case.files.items():
        path = root / name
        now = path.read_bytes() if path.exists() else b""
        if now != before.replace(ROOT.encode(), str(root).encode()):
            text = json.dumps(_meaning(_content(now.decode(errors="replace"))), sort_keys=True)
            found.append((name, _plain(text, rig, root)))
    for name in case.links:
        if not (root / name).is_symlink():
            found.append((name, "is no link any more"))
    left = [path for path in root.rglob("*.lock") if path.relative_to(root).as_posix() not in case.files]
    return tuple(sorted([*found, *((_plain(str(path), rig, root), "left") for path in left)]))


def closing(case: Case, rig: Rig, root: Path, answered: bool, said: str) -> Outcome:
    """What the rig and the files say, now that the client has ended."""
    arrivals = [
        Arrival(
            one.server,
            one.method,
            one.path,
            one.host,
            tuple((name, _plain(value, rig, root)) for name, value in one.headers),
            one.certificate,
            one.server_name,
            one.way,
        )
        for one in rig.notes.take()
    ]
    return Outcome(
        tuple(sorted(set(arrivals))), answered, _plugins(rig, root), _written(case, rig, root), _plain(said, rig, root)
    )
