"""Bodies at rest: objects' JSON, packed one by one under a zstd dictionary of their type."""

from materializer.bodies.dictionary import ALONE, Body, CorruptFrame, Dictionary
from materializer.bodies.packing import AtRest, Packing, PackingCounts, Wanted

__all__ = ["ALONE", "AtRest", "Body", "CorruptFrame", "Dictionary", "Packing", "PackingCounts", "Wanted"]
