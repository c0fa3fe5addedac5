"""The errors of this layer: one base for all of them.

What becomes an answer to a client is `Expired` (`materializer.resume`: list again), `BrokenVersions` and `MalformedVersion`
(`materializer.versions`), `TooOld` (`materializer.originals`), `NotThereYet` (`materializer.waiting`: too large a
version) and `LogUnreachable` (`materializer.freshness`). `NotAnImage` (`materializer.image`) stays within the layer: a
snapshot that cannot be read is ignored.
"""

from __future__ import annotations


class MaterializerError(Exception):
    """Something that the store, or what keeps it current, could not do; the message is one line."""
