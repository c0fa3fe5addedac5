"""What /metrics says of bodies at rest: what types take, packed and plain, and which dictionaries there are."""

from __future__ import annotations

import json
import re
from random import Random

import pytest

from query.metrics import ServiceMetrics
from query.objects.pages import FrozenLists
from tests.materializer.bodies.content import orders
from tests.query.scene import Scene
from tests.query.test_log_streams import NoWatches


@pytest.fixture
def scene() -> Scene:
    return Scene()


def values(scene: Scene) -> dict[str, float]:
    text = ServiceMetrics(scene.materializer, NoWatches(), FrozenLists()).text().decode()
    return {name: float(value) for name, value in re.findall(r"^(kubebraid_\S+) (\S+)$", text, re.MULTILINE)}


PODS = '{group="",resource="pods"}'


def put(scene: Scene, first: int, number: int) -> None:
    for at, order in enumerate(orders(Random(first), number), first):
        scene.put(f"web-{at}", json.loads(order) | {"metadata": {}})


def test_what_a_type_takes_and_the_dictionary_it_has(scene: Scene) -> None:
    put(scene, 0, 200)
    before = values(scene)
    held, plain = f"kubebraid_objects_held_bytes{PODS}", f"kubebraid_objects_plain_bytes{PODS}"
    assert before[held] == before[plain] == before["kubebraid_plain_bytes"] > 200_000
    assert f"kubebraid_dictionary_bytes{PODS}" not in before
    assert (before["kubebraid_dictionaries"], before["kubebraid_packed_plain_bytes_total"]) == (0, 0)

    scene.store.pack()
    put(scene, 200, 20)
    after = values(scene)
    assert after[plain] > before[plain]
    assert after[held] < before[held] / 2
    assert 0 < after["kubebraid_plain_bytes"] < after[held]
    assert after[f"kubebraid_dictionary_bytes{PODS}"] == after["kubebraid_dictionaries_bytes"] > 0
    assert (after["kubebraid_dictionaries"], after["kubebraid_dictionaries_trained_total"]) == (1, 1)
    assert after["kubebraid_dictionaries_refused_total"] == 0
    assert after["kubebraid_packed_plain_bytes_total"] > 3 * after["kubebraid_packed_held_bytes_total"] > 0
    assert after["kubebraid_packing_seconds_total"] > 0
    assert after["kubebraid_training_seconds_total"] > 0
