"""The registry: what a write means, from validation to the controllers whose effects a client sees at once."""

from simulation.registry.options import DeleteOptions, WriteOptions
from simulation.registry.registry import Registry

__all__ = ["DeleteOptions", "Registry", "WriteOptions"]
