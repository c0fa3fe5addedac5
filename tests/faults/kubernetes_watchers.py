"""Watchers with the `kubernetes` client, in a process of their own: kubernetes_watchers.py COUNT SEED URL...

Until their standard input ends; then prints one JSON document: what each of them holds, and counts.
"""

from __future__ import annotations

import json
import random
import sys
import threading
import time
from typing import Any

import kubernetes
import urllib3

ANNOTATION = "shadow.clusterpedia.io/cluster-name"


class Watcher(threading.Thread):
    def __init__(self, urls: list[str], seed: int) -> None:
        super().__init__(daemon=True)
        self.apis = []
        for url in urls:
            configuration = kubernetes.client.Configuration(host=url)
            # What it holds at a moment is the server's to say, not a retry's.
            configuration.retries = False
            self.apis.append(kubernetes.client.CoreV1Api(kubernetes.client.ApiClient(configuration)))
        self.chance = random.Random(seed)
        self.lock = threading.Lock()
        self.held: dict[str, str] = {}
        self.version = ""
        self.index = 0
        self.counts = {"events": 0, "moves": 0, "relists": 0, "twice": 0, "backwards": 0, "wrong": 0}
        self.problems: list[str] = []

    def run(self) -> None:
        while True:
            api = self.chance.choice(self.apis)
            try:
                if not self.version:
                    self.list(api)
                self.watch(api)
            except kubernetes.client.ApiException as problem:
                if problem.status == 410:
                    self.counts["relists"] += 1
                    self.problems.append(f"relist from {self.version}: {problem.reason}")
                    self.version = ""
                elif problem.status not in (429, 503, 504):
                    self.problem("wrong", f"{problem.status}: {problem.reason}")
            except (urllib3.exceptions.HTTPError, OSError, ValueError):
                # A cut stream ends in the middle of a line.
                pass
            self.counts["moves"] += 1
            time.sleep(self.chance.uniform(0.05, 0.3))

    def problem(self, kind: str, text: str) -> None:
        self.counts[kind] += 1
        self.problems.append(f"{kind}: {text}")

    def list(self, api: kubernetes.client.CoreV1Api) -> None:
        # Every attribute of the client's models may be None, it says.
        found: Any = api.list_pod_for_all_namespaces()
        with self.lock:
            self.version = found.metadata.resource_version
            self.index = int(self.version.split(".")[1])
            self.held = {self.key(item.metadata): item.metadata.resource_version for item in found.items}

    def watch(self, api: kubernetes.client.CoreV1Api) -> None:
        watch = kubernetes.watch.Watch()
        stream = watch.stream(
            api.list_pod_for_all_namespaces,
            resource_version=self.version,
            timeout_seconds=20,
            allow_watch_bookmarks=True,
            _request_timeout=(10, 40),
        )
        for event in stream:
            with self.lock:
                self.take(event["type"], event["raw_object"]["metadata"])

    @staticmethod
    def key(metadata: Any) -> str:
        if isinstance(metadata, dict):
            return "/".join((metadata["annotations"][ANNOTATION], metadata["namespace"], metadata["name"]))
        return "/".join((metadata.annotations[ANNOTATION], metadata.namespace, metadata.name))

    def take(self, kind: str, metadata: dict[str, Any]) -> None:
        version = metadata["resourceVersion"]
        index = int(version.split(".")[1])
        if index < self.index:
            self.problem("backwards", f"{kind} {version} after {self.index}")
        if kind == "BOOKMARK":
            self.version, self.index = version, index
            return
        self.counts["events"] += 1
        key = self.key(metadata)
        if self.held.get(key) == version or version == self.version:
            self.problem("twice", f"{kind} {key} {version}")
        self.version, self.index = version, index
        if kind == "DELETED":
            if self.held.pop(key, None) is None:
                self.problem("wrong", f"DELETED for {key}, which is unknown")
            return
        if (kind == "ADDED") == (key in self.held):
            self.problem("wrong", f"{kind} for {key}")
        self.held[key] = version


def main() -> None:
    count, seed, urls = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3:]
    watchers = [Watcher(urls, seed * 1000 + number) for number in range(count)]
    for watcher in watchers:
        watcher.start()
    for _ in sys.stdin:
        found = []
        for watcher in watchers:
            with watcher.lock:
                found.append({"held": watcher.held, "counts": watcher.counts, "problems": watcher.problems})
            assert watcher.is_alive()
        sys.stdout.write(json.dumps(found) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
