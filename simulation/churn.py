"""Churn: believable changes at a rate, as controllers, kubelets and people make them all day."""

from __future__ import annotations

import asyncio
import random
from collections import Counter, deque
from collections.abc import Callable
from typing import Any

import structlog

from simulation.content import ContentBuilder, PodBuilder, Variety, add_event
from simulation.content.builder import owner_reference
from simulation.content.certificates import CERTIFICATES, certificate_status
from simulation.content.workloads import deployment_status, replica_set_status
from simulation.registry import DeleteOptions, Registry
from simulation.resources import PODS, SimulatedType
from simulation.storage import Collection, StoredObject
from simulation.times import micro_timestamp, timestamp, utc_now

__all__ = ["Churn"]

log = structlog.get_logger(__name__)

# The most writes in a row without letting other tasks run, and the shortest sleep, in seconds.
BURST = 64
SHORTEST_SLEEP = 0.004
EVENTS = ("", "events")
CONFIG_MAPS = ("", "configmaps")
LEASES = ("coordination.k8s.io", "leases")
DEPLOYMENTS = ("apps", "deployments")
REPLICA_SETS = ("apps", "replicasets")


class Churn:
    """Changes a cluster's objects at `rate` writes (resourceVersions) per second, keeping about `pods` pods.

    `counts` says how often each change was made by its name, `writes` how many resourceVersions they took: scaling a
    Deployment is one change of some five writes. The pace follows the clock: after a slow moment it catches up.
    """

    def __init__(
        self,
        registry: Registry,
        *,
        pods: int,
        rate: float = 0.0,
        seed: int | str = 0,
        variety: Variety = "mixed",
    ) -> None:
        self.registry = registry
        self.storage = registry.storage
        self.pods = pods
        self.random = random.Random(f"churn/{seed}")
        self.builder = ContentBuilder(registry, "churn", f"churn/{seed}", variety=variety)
        self.builder.nodes = list(self.storage.collections[("", "nodes")].paths)
        self.pod_builder = PodBuilder(self.builder)
        self.counts: Counter[str] = Counter()
        self.writes = 0
        self._rate = rate
        self._rate_changed = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._starting: deque[tuple[str, str]] = deque()
        # In the order in which they are removed.
        self._events = deque(self.storage.collections[EVENTS].objects)
        self._most_events = max(50, pods // 4)
        # How often each change is made, as weights.
        self._changes: list[tuple[Callable[[], str], int]] = [
            (self.flip_readiness, 40),
            (self.replace_pod, 12),
            (self.scale_deployment, 5),
            (self.add_event, 16),
            (self.edit_config_map, 4),
            (self.renew_lease, 18),
            (self.renew_certificate, 5),
        ]
        self._choices = [change for change, _ in self._changes]
        self._weights = [weight for _, weight in self._changes]

    @property
    def rate(self) -> float:
        """Writes per second; 0 pauses."""
        return self._rate

    @rate.setter
    def rate(self, rate: float) -> None:
        self._rate = rate
        self._rate_changed.set()

    def start(self) -> None:
        """Start the task that makes the changes, unless it runs. Needs a running loop."""
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._run(), name="churn")
            self._task.add_done_callback(_report)

    async def stop(self) -> None:
        """Stop making changes, and wait until the task has ended."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
            self._task = None

    async def _run(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            self._rate_changed.clear()
            rate, started, done = self._rate, loop.time(), 0
            if rate <= 0:
                await self._rate_changed.wait()
                continue
            while not self._rate_changed.is_set():
                due = int((loop.time() - started) * rate) - done
                if due > 0:
                    made = self.step(min(due, BURST))
                    # An empty cluster has nothing to change, now or later.
                    done += made or due
                if due > BURST:
                    # Behind: let others in and go on.
                    await asyncio.sleep(0)
                    continue
                wait = max(started + (done + 1) / rate - loop.time(), SHORTEST_SLEEP)
                try:
                    async with asyncio.timeout(wait):
                        await self._rate_changed.wait()
                except TimeoutError:
                    continue

    def step(self, writes: int = 1) -> int:
        """Make changes until they have taken at least `writes` resourceVersions; how many they took.

        0 where there is nothing to change. Synchronous.
        """
        before = self.storage.version
        idle = 0
        while self.storage.version - before < writes and idle < 50:
            at = self.storage.version
            change = self.random.choices(self._choices, self._weights)[0]
            name = change()
            if self.storage.version == at:
                idle += 1
            else:
                idle = 0
                self.counts[name] += 1
        made = self.storage.version - before
        self.writes += made
        return made

    # Changes: each makes one, or none where there is nothing to change, and returns its name.

    def flip_readiness(self) -> str:
        """A pod starts, gets ready, or loses its readiness."""
        stored = None
        while self._starting and stored is None:
            stored = self.storage.get(PODS, *self._starting.popleft())
        starting = stored is not None
        stored = stored or self._choose(PODS)
        if stored is None:
            return "readiness"
        body = stored.body()
        spec, status = body.get("spec") or {}, body.get("status") or {}
        conditions = status.get("conditions")
        phase = status.get("phase")
        if "nodeName" not in spec or not conditions or not (starting or phase == "Running"):
            return "readiness"
        ready = any(entry["type"] == "Ready" and entry["status"] == "True" for entry in conditions)
        if starting or not status.get("podIP"):
            self.pod_builder.run(body, timestamp())
            self._put(PODS, body)
            return "pod_started"
        now = timestamp()
        names = [container["name"] for container in spec.get("containers", ())]
        for entry in conditions:
            if entry["type"] in ("Ready", "ContainersReady"):
                entry["status"] = "False" if ready else "True"
                entry["lastTransitionTime"] = now
                entry.pop("reason", None)
                entry.pop("message", None)
                if ready:
                    entry |= {
                        "reason": "ContainersNotReady",
                        "message": f"containers with unready status: [{' '.join(names)}]",
                    }
        for entry in status.get("containerStatuses") or ():
            entry["ready"] = not ready
            if "running" not in entry.get("state", {}):
                entry["restartCount"] = entry.get("restartCount", 0) + 1
                entry["state"] = {"running": {"startedAt": now}}
                entry["started"] = True
        self._put(PODS, body)
        return "readiness"

    def replace_pod(self) -> str:
        """A pod is deleted, and its ReplicaSet makes another."""
        stored = self._choose(PODS)
        replica_set = self._replica_set_of(stored) if stored is not None else None
        if stored is None or replica_set is None:
            return "pod_replaced"
        self.registry.delete(self._type(PODS), *stored.key, DeleteOptions())
        self._new_pod(replica_set)
        return "pod_replaced"

    def scale_deployment(self) -> str:
        """A Deployment is scaled by one, towards the number of pods that the cluster should have."""
        stored = self._choose(DEPLOYMENTS)
        if stored is None:
            return "scaled"
        replica_set = next(
            (found for collection, found in self.storage.dependents(stored.uid) if collection.type.key == REPLICA_SETS),
            None,
        )
        if replica_set is None:
            return "scaled"
        total = len(self.storage.collections[PODS].objects)
        body = stored.body()
        replicas = body["spec"].get("replicas", 1)
        more = total < self.pods or (total == self.pods and self.random.random() < 0.5)
        wanted = replicas + 1 if more else replicas - 1
        if wanted < 1:
            return "scaled"
        body["spec"]["replicas"] = wanted
        body["metadata"]["generation"] = body["metadata"].get("generation", 1) + 1
        self._put(DEPLOYMENTS, body)
        owned = replica_set.body()
        owned["spec"]["replicas"] = wanted
        owned["metadata"]["generation"] = owned["metadata"].get("generation", 1) + 1
        self._put(REPLICA_SETS, owned)
        pods = [pod for collection, pod in self.storage.dependents(replica_set.uid) if collection.type.key == PODS]
        for _ in range(max(0, wanted - len(pods))):
            self._new_pod(replica_set)
        for pod in pods[: max(0, len(pods) - wanted)]:
            self.registry.delete(self._type(PODS), *pod.key, DeleteOptions())
        ready = max(0, wanted - (1 if more else 0))
        now = timestamp()
        owned["status"] = replica_set_status(wanted, ready, owned["metadata"]["generation"])
        self._put(REPLICA_SETS, owned)
        body["status"] = deployment_status(wanted, ready, body["metadata"]["generation"], now)
        self._put(DEPLOYMENTS, body)
        return "scaled"

    def add_event(self) -> str:
        """A pod gets an Event; as many of the oldest are removed as there are too many."""
        pod = self._choose(PODS)
        if pod is None:
            return "event"
        events = self.storage.collections[EVENTS]
        while len(self._events) >= self._most_events:
            self.storage.remove(events, *self._events.popleft())
        made = add_event(self.builder, pod.namespace, pod.name)
        if made is not None:
            self._events.append(made.key)
        return "event"

    def edit_config_map(self) -> str:
        """A ConfigMap of an application gets another revision."""
        stored = self._choose(CONFIG_MAPS)
        if stored is None or stored.name == "kube-root-ca.crt":
            return "config_map"
        body = stored.body()
        data = body.get("data") or {}
        revision = data.get("revision", "0")
        body["data"] = {**data, "revision": str(int(revision) + 1 if revision.isdecimal() else 1)}
        self._put(CONFIG_MAPS, body)
        return "config_map"

    def renew_lease(self) -> str:
        """A Lease is renewed by its holder."""
        stored = self._choose(LEASES)
        if stored is None:
            return "lease"
        body = stored.body()
        spec = body.get("spec")
        if not isinstance(spec, dict):
            return "lease"
        spec["renewTime"] = micro_timestamp(utc_now())
        self._put(LEASES, body)
        return "lease"

    def renew_certificate(self) -> str:
        """A Certificate is renewed, which fails one time in ten."""
        stored = self._choose(CERTIFICATES)
        if stored is None:
            return "certificate"
        body = stored.body()
        status = body.get("status") or {}
        revision = status.get("revision", 0)
        ready = self.random.random() < 0.9
        body["status"] = certificate_status(ready, revision + 1 if isinstance(revision, int) else 1, utc_now())
        self._put(CERTIFICATES, body)
        return "certificate"

    # What the changes share

    def _type(self, key: tuple[str, str]) -> SimulatedType:
        return self.storage.collections[key].type

    def _put(self, key: tuple[str, str], body: dict[str, Any]) -> StoredObject:
        return self.storage.put(self.storage.collections[key], body)

    def _choose(self, key: tuple[str, str]) -> StoredObject | None:
        collection: Collection | None = self.storage.collections.get(key)
        if collection is None or not collection.paths:
            return None
        return collection.by_path[self.random.choice(collection.paths)]

    def _replica_set_of(self, pod: StoredObject) -> StoredObject | None:
        # By name, and not by reading the pod, which is the costly part of a change.
        found = self.storage.get(REPLICA_SETS, pod.namespace, pod.name.rpartition("-")[0])
        return found if found is not None and found.uid in pod.owners else None

    def _new_pod(self, replica_set: StoredObject) -> None:
        body = replica_set.body()
        owner = owner_reference("apps/v1", "ReplicaSet", replica_set.name, replica_set.uid)
        prefix, template = f"{replica_set.name}-", body["spec"]["template"]
        pod = self.pod_builder.add(replica_set.namespace, prefix, template, owner, "Starting")
        self._starting.append(pod.key)


def _report(task: asyncio.Task[None]) -> None:
    # Until `stop` nothing awaits the task: what ends it is a defect, and is logged at once.
    if not task.cancelled() and task.exception() is not None:
        log.error("churn died", exc_info=task.exception())
