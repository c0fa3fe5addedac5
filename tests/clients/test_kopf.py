"""A `kopf` operator: discovery, events, an index and a custom resource, at the root and below one cluster."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import kopf
import pytest
import yaml

from tests.clients.conftest import Braid

pytestmark = pytest.mark.asyncio(loop_scope="module")

CERTIFICATES = "/apis/certs.example.io/v1/certificates"


class Operator:
    """An operator with handlers that only read, in a thread with a loop of its own."""

    def __init__(self, *, initial_streaming: bool) -> None:
        self.registry = kopf.OperatorRegistry()
        self.settings = kopf.OperatorSettings()
        self.settings.posting.enabled = False
        self.settings.watching.initial_streaming = initial_streaming
        # It waits for a second and more between attempts, so that an outage would take long.
        self.settings.networking.error_backoffs = [0.1] * 200
        # uid -> version, of pods and of certificates, as events told them.
        self.told: dict[str, dict[str, str]] = {"Pod": {}, "Certificate": {}}
        self.types: set[str | None] = set()
        self._index: Any = {}
        self._lock = threading.Lock()
        self._ready = threading.Event()
        self._stop = threading.Event()
        self._failed: list[BaseException] = []
        self._thread = threading.Thread(target=self._run, name="kopf")
        kopf.on.login(registry=self.registry)(kopf.login_with_kubeconfig)
        kopf.index("pods", id="versions", registry=self.registry)(self._indexed)
        # It takes a part of what kopf hands over by name.
        handler: Any = self._event
        kopf.on.event("pods", registry=self.registry)(handler)
        kopf.on.event("certs.example.io", "v1", "certificates", registry=self.registry)(handler)

    @staticmethod
    def _indexed(uid: str, meta: Any, **_: Any) -> dict[str, str]:
        return {uid: meta["resourceVersion"]}

    def _event(self, type: Any, uid: Any, meta: Any, body: Any, versions: Any, **_: Any) -> None:
        with self._lock:
            self._index = versions
            self.types.add(type)
            held = self.told[body["kind"]]
            if type == "DELETED":
                held.pop(uid, None)
            else:
                held[uid] = meta["resourceVersion"]

    def _run(self) -> None:
        try:
            asyncio.run(
                kopf.operator(
                    registry=self.registry,
                    settings=self.settings,
                    standalone=True,
                    clusterwide=True,
                    ready_flag=self._ready,
                    stop_flag=self._stop,
                )
            )
        except BaseException as cause:
            self._failed.append(cause)
            raise

    @contextlib.contextmanager
    def running(self) -> Iterator[None]:
        self._thread.start()
        try:
            assert self._ready.wait(20)
            yield
        finally:
            self._stop.set()
            self._thread.join(20)
        assert not self._thread.is_alive()
        assert not self._failed

    def events(self, kind: str) -> dict[str, str]:
        assert self._thread.is_alive()
        with self._lock:
            return dict(self.told[kind])

    def index(self) -> dict[str, str]:
        with self._lock:
            return {uid: next(iter(store)) for uid, store in self._index.items()}


def use(monkeypatch: pytest.MonkeyPatch, kubeconfig: Path, context: str) -> None:
    """Has kopf find this context, as it would in a user's environment."""
    document = yaml.safe_load(kubeconfig.read_text())
    document["current-context"] = context
    kubeconfig.write_text(yaml.safe_dump(document))
    monkeypatch.setenv("KUBECONFIG", str(kubeconfig))


@pytest.mark.parametrize(
    ("context", "cluster", "initial_streaming"),
    [("kubebraid", None, False), ("kubebraid-alpha", "alpha", True)],
    ids=["root-lists", "cluster-streams"],
)
async def test_an_operator_follows(
    braid: Braid,
    kubeconfig: Path,
    monkeypatch: pytest.MonkeyPatch,
    context: str,
    cluster: str | None,
    initial_streaming: bool,
) -> None:
    """Its view and its index end equal to the objects, and go on over a kill."""
    use(monkeypatch, kubeconfig, context)
    operator = Operator(initial_streaming=initial_streaming)

    async def converge() -> None:
        await braid.converges(lambda: operator.events("Pod"), cluster=cluster)
        await braid.converges(operator.index, cluster=cluster)
        await braid.converges(lambda: operator.events("Certificate"), CERTIFICATES, cluster=cluster)

    with operator.running():
        await converge()
        # What was there before is told without a type.
        assert operator.types == {None}
        braid.change()
        await converge()
        assert operator.types > {None, "MODIFIED"}
        await braid.killed_and_started()
        await converge()


async def test_an_operator_begins_anew_after_a_lost_history(
    braid: Braid, kubeconfig: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of what is gone by then it is not told by its own list, on any API server: what is there must be right."""
    use(monkeypatch, kubeconfig, "kubebraid")
    operator = Operator(initial_streaming=False)
    with operator.running():
        await braid.converges(lambda: operator.events("Pod"))
        await braid.history_lost()
        await braid.settled()
        wanted = await braid.versions()
        await braid.converges(lambda: {uid: one for uid, one in operator.events("Pod").items() if uid in wanted})
        await braid.converges(lambda: {uid: one for uid, one in operator.index().items() if uid in wanted})
