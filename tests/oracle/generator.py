"""The generator: every kind of kubeconfig once, and more of each at random; the same for the same seed."""

from __future__ import annotations

import random
from collections.abc import Iterator

from tests.oracle.cases.draft import Case, Draft, Family, Twist
from tests.oracle.cases.files import FILES
from tests.oracle.cases.plugins import PLUGINS, PROVIDERS
from tests.oracle.cases.proxied import ENVIRONMENTS, PROXIES
from tests.oracle.cases.servers import SERVERS, TLS
from tests.oracle.cases.users import USERS
from tests.oracle.cases.yaml_forms import ENCODINGS, SCALARS, STRUCTURES
from tests.oracle.rig import Rig

FAMILIES: tuple[Family, ...] = (
    FILES, ENCODINGS, SCALARS, STRUCTURES, SERVERS, TLS, USERS, PROXIES, ENVIRONMENTS, PLUGINS, PROVIDERS,
)  # fmt: skip


def seeds(family: Family, seed: int, rounds: int = 1) -> Iterator[tuple[str, str, Twist]]:
    """What a family makes of a seed: the case's own seed, its title, and what makes it."""
    for number in range(rounds):
        for title, twist in family.twists:
            yield f"{seed}.{number}/{family.name}/{title}", title, twist


def make(seed: str, title: str, twist: Twist, rig: Rig) -> Case:
    """The case of a seed, with the addresses of a rig."""
    draft = Draft(rig, random.Random(seed))
    twist(draft)
    return draft.case(seed, title)
