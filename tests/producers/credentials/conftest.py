"""Fixtures: what clusters share, certificates, and plugins that are real commands."""

from __future__ import annotations

import base64
import json
import os
import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import NamedTuple

import pytest
import trustme

from producers.credentials.shared import SharedCredentials
from producers.timing import ProducerTiming
from tests.producers.credentials.clock import Clock

# Pauses so short that tests need not wait, limits so long that a busy machine does not reach them.
TIMING = ProducerTiming(
    token_file=0.0,
    reload_credentials_every=0.0,
    plugin_backoff=(0.01, 0.02),
    identity_provider_backoff=(0.01, 0.02),
    kubeconfig_lock=0.3,
)


class Pair(NamedTuple):
    """A certificate with its chain, and its key, both PEM."""

    certificate: bytes
    key: bytes


@pytest.fixture(scope="session")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture(scope="session")
def issue(authority: trustme.CA) -> Callable[[str], Pair]:
    def issue(name: str) -> Pair:
        issued = authority.issue_cert(name)
        return Pair(b"".join(pem.bytes() for pem in issued.cert_chain_pems), issued.private_key_pem.bytes())

    return issue


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
async def shared(clock: Clock) -> AsyncIterator[SharedCredentials]:
    shared = SharedCredentials(TIMING, clock=clock)
    yield shared
    await shared.close()


class Plugins:
    """Commands in a directory; each run appends a line to `<name>.runs`."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory

    def python(self, name: str, body: str) -> str:
        """A command in Python, by its path."""
        return self._write(
            name,
            f"#!{sys.executable} -IS\n"
            "import json, os, signal, subprocess, sys, time\n"
            f"open({str(self.directory / name) + '.runs'!r}, 'a').write(f'{{os.getpid()}}\\n')\n"
            "def answer(version='v1', **status):\n"
            "    print(json.dumps({'kind': 'ExecCredential', 'apiVersion': f'client.authentication.k8s.io/{version}',\n"
            "                      'status': status}))\n" + body + "\n",
        )

    def shell(self, name: str, body: str) -> str:
        """A command of the shell, by its path."""
        runs = str(self.directory / name) + ".runs"
        return self._write(name, f"#!/bin/sh\necho $$ >>'{runs}'\n{body}\n")

    def _write(self, name: str, text: str) -> str:
        path = self.directory / name
        # As a new file: one that runs cannot be written.
        new = path.with_suffix(".new")
        new.write_text(text)
        new.chmod(0o755)
        os.replace(new, path)
        return str(path)

    def runs(self, name: str) -> list[int]:
        """The processes that it was, one for each run."""
        try:
            return [int(line) for line in (self.directory / f"{name}.runs").read_text().split()]
        except FileNotFoundError:
            return []


@pytest.fixture
def plugins(tmp_path: Path) -> Plugins:
    directory = tmp_path / "plugins"
    directory.mkdir()
    return Plugins(directory)


def id_token(expires: object, **claims: object) -> str:
    """A JSON Web Token that nobody signed."""
    parts = ({"alg": "none"}, {"exp": expires, **claims})
    head, payload = (base64.urlsafe_b64encode(json.dumps(part).encode()).decode().rstrip("=") for part in parts)
    return f"{head}.{payload}.sig"
