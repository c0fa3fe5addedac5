"""Paths that are unknown while clusters are still to come into the log: 503, as a kube-apiserver that is starting."""

from __future__ import annotations

import time

import pytest

from deltalog.reader import HistoryChanged
from deltalog.wire.subjects import CLUSTER, TYPE
from tests.query.scene import Scene

PODS = "/api/v1/pods"


async def lose_all(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    """The log is made anew, with nothing in it so far."""

    async def rename() -> None:
        scene.materializer._served.log = scene.materializer.log

    monkeypatch.setattr(scene.materializer.guard, "rename", rename)
    await scene.materializer._start_anew(HistoryChanged("made anew"))
    scene.materializer.ready.set()


async def test_no_cluster_so_far(monkeypatch: pytest.MonkeyPatch) -> None:
    scene = Scene()
    await lose_all(scene, monkeypatch)
    scene.materializer._former = (frozenset(), 0.0)
    async with scene.serving() as served:
        for path in (PODS, "/clusters/alpha" + PODS, "/apis/apps/v1", "/nowhere"):
            status = await served.json(path, code=503)
            assert status["reason"] == "ServiceUnavailable"
            assert status["details"]["retryAfterSeconds"] == 1
            assert status["message"] == "no cluster is in the log yet, please try again"


async def test_clusters_of_a_log_that_was_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    """Until each is in the next log, or that takes too long, what is unknown may be theirs."""
    scene = Scene()
    await lose_all(scene, monkeypatch)
    async with scene.serving() as served:
        status = await served.json(PODS, code=503)
        assert status["message"] == "the types of alpha, bravo are being discovered, please try again"
        assert "cluster bravo: its types are being discovered" in (await served.text("/readyz?verbose"))[1].decode()
        scene.control(TYPE, "alpha", "pods", data={"kind": "Pod", "version": "v1", "namespaced": True})
        scene.control(CLUSTER, "alpha", data={"version": {"major": "1"}})
        assert (await served.json(PODS))["items"] == []
        for path in ("/clusters/bravo" + PODS, "/api/v1/nodes"):
            status = await served.json(path, code=503)
            assert status["message"] == "the types of bravo are being discovered, please try again"
        assert (await served.text("/readyz"))[0] == 503
        # It has left meanwhile, or its producer has.
        scene.materializer._former = (frozenset({"bravo"}), time.monotonic() - 1)
        await served.json("/clusters/bravo" + PODS, code=404)
        await served.json("/api/v1/nodes", code=404)


async def test_lost_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    """A log that is lost before it had any cluster leaves those of the one before it."""
    scene = Scene()
    await lose_all(scene, monkeypatch)
    await lose_all(scene, monkeypatch)
    assert scene.materializer.former_clusters == {"alpha", "bravo"}
