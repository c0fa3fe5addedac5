"""The model: random changes under random faults; after quiet, the log says exactly what the cluster says.

The steps are drawn from a seed. `KUBEBRAID_SOAK_STEPS` makes it longer (`make soak`).
"""

from __future__ import annotations

import asyncio
import os
import random
import signal

import pytest

from deltalog import Reader, Record, decode_delta, open_log
from producers.timing import ProducerTiming
from tests.producers.conftest import Rig

STEPS = int(os.environ.get("KUBEBRAID_SOAK_STEPS", "60"))
SEEDS = [int(seed) for seed in os.environ.get("KUBEBRAID_SOAK_SEEDS", "1,2").split(",")]
TYPES = {
    ("", "pods"): "/api/v1/pods",
    ("", "configmaps"): "/api/v1/configmaps",
    ("", "nodes"): "/api/v1/nodes",
    ("apps", "deployments"): "/apis/apps/v1/deployments",
    ("apps", "replicasets"): "/apis/apps/v1/replicasets",
    ("certs.example.io", "certificates"): "/apis/certs.example.io/v1/certificates",
    ("coordination.k8s.io", "leases"): "/apis/coordination.k8s.io/v1/leases",
}


class Recorder:
    """Sees every message as it is stored, and that none goes back in time for its object."""

    def __init__(self) -> None:
        self.last: dict[str, tuple[str, int, int]] = {}
        self.seen = 0

    def __call__(self, record: Record) -> None:
        if not record.subject.startswith("kb.") or not record.data:
            return
        self.seen += 1
        delta = decode_delta(record.data)
        uid, original, epoch = self.last.get(record.subject, ("", 0, 0))
        assert delta.epoch >= epoch, f"{record.subject}: epoch {delta.epoch} after {epoch}"
        if uid == delta.uid:
            assert int(delta.member_version) >= original, f"{record.subject}: {delta.member_version} after {original}"
        self.last[record.subject] = (delta.uid, int(delta.member_version), delta.epoch)


@pytest.mark.parametrize("seed", SEEDS)
async def test_after_quiet_the_log_equals_the_cluster(rig: Rig, seed: int) -> None:
    rig.timing = ProducerTiming(initial_silence=3.0)
    chance = random.Random(seed)
    recorder = Recorder()
    log = await open_log(await rig.connection("recorder"), rig.settings)
    reader = Reader(log, recorder)
    rig._background(reading := asyncio.create_task(reader.run()))
    warm = await rig.materializer()
    producers: list[asyncio.Task[None]] = []

    async def begin() -> None:
        if len(producers) < 2:
            producers.append(await rig.start_producer())

    async def end(graceful: bool) -> None:
        if producers:
            task = producers.pop(chance.randrange(len(producers)))
            task.cancel()
            if graceful:
                await asyncio.wait((task,))

    async def kill_broker() -> None:
        os.kill(rig.broker.pid, signal.SIGKILL)
        await rig.broker.wait()
        await asyncio.sleep(chance.uniform(0, 0.5))
        await rig.broker.start()

    faults = rig.cluster.faults
    await begin()
    for _ in range(STEPS):
        assert not reading.done(), reading.exception()
        step = chance.random()
        if step < 0.5:
            rig.cluster.churn.step(chance.randint(1, 40))
        elif step < 0.60:
            faults.cut_watches()
        elif step < 0.66:
            faults.compact()
            faults.cut_watches()
        elif step < 0.72:
            faults.fail_next(chance.randint(1, 10), chance.choice((429, 500, 503)), retry_after=1)
        elif step < 0.76:
            await faults.refuse_connections()
            await asyncio.sleep(chance.uniform(0, 0.5))
            await faults.accept_connections()
        elif step < 0.80:
            faults.initial_events = chance.choice(("supported", "ignored", "refused"))
        elif step < 0.84:
            faults.watch_lifetime = chance.choice((None, (0.1, 1.0)))
        elif step < 0.90:
            await begin()
        elif step < 0.96:
            await end(graceful=chance.random() < 0.5)
        elif step < 0.98:
            await kill_broker()
        await asyncio.sleep(chance.choice((0.0, 0.02, 0.2)))
    faults.clear()
    await begin()
    for (group, resource), path in TYPES.items():
        await rig.settled(warm, path, group, resource)
    cold = await rig.materializer()
    cold.store.check()
    for (group, resource), path in TYPES.items():
        ours = {entry.key: entry.body for entry in await rig.settled(cold, path, group, resource)}
        theirs = {entry.key: entry.body for entry in await rig.settled(warm, path, group, resource)}
        assert ours == theirs
    assert not reading.done(), reading.exception()
    assert recorder.seen > 100
