"""Bodies at rest: objects' JSON, packed one by one under a zstd dictionary of their type."""

from materializer.bodies.dictionary import ALONE, CorruptFrame, Dictionary
from materializer.bodies.packing import Packing, PackingCounts

__all__ = ["ALONE", "CorruptFrame", "Dictionary", "Packing", "PackingCounts"]
