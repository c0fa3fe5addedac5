"""Content: bodies of two natures, and some without any, by the hundred."""

from __future__ import annotations

import hashlib
import json
from random import Random


def hash_of(number: int) -> str:
    return hashlib.blake2b(number.to_bytes(4, "big"), digest_size=24).hexdigest()


ARTICLES = [f"article {number} of lot {hash_of(number)}" for number in range(400)]

STARS = [f"{hash_of(1000 + number)} of catalogue {number}" for number in range(400)]


def orders(random: Random, number: int) -> list[bytes]:
    """Bodies of some 2 KB that are much alike, with texts of 400 articles in them."""
    return [_order(random) for _ in range(number)]


def _order(random: Random) -> bytes:
    name = f"order-{random.randrange(10**6)}"
    return json.dumps(
        {
            "name": name,
            "namespace": random.choice(["shop", "store", "market"]),
            "uid": f"{random.getrandbits(128):032x}",
            "labels": {"app": random.choice(["shop", "billing"]), "tier": random.choice(["front", "back"])},
            "spec": {
                "items": [
                    {"article": random.choice(ARTICLES), "number": random.randrange(9), "currency": "EUR"}
                    for _ in range(8)
                ],
                "deliveryAddress": {"street": f"Long Street {random.randrange(300)}", "city": "Hamburg"},
                "terminationMessagePolicy": "FallbackToLogsOnError",
            },
            "status": {"phase": random.choice(["Open", "Paid", "Delivered"]), "conditions": [{"type": "Ready"}] * 3},
        }
    ).encode()


def telescopes(random: Random, number: int) -> list[bytes]:
    """Bodies of some 1.5 KB that are much alike, and nothing like orders."""
    return [_telescope(random) for _ in range(number)]


def _telescope(random: Random) -> bytes:
    images = [
        f"<image star='{random.choice(STARS)}' declination='{random.randrange(-90, 90)}' exposure='PT40S'/>"
        for _ in range(8)
    ]
    return f"<telescope mirror='{random.random():.6f}'>{''.join(images)}<dome shut='false'/></telescope>".encode()


def noise(random: Random, number: int) -> list[bytes]:
    """Bodies of 1.5 KB with nothing in them that repeats."""
    return [random.randbytes(1500) for _ in range(number)]
