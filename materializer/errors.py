"""The errors of this layer: one base for all of them.

What becomes an answer to a client: `Expired` (`materializer.resume`) and `TooOld` (`materializer.originals`): list
again; `BrokenVersions` and `MalformedVersion` (`materializer.versions`); `NotThereYet` (`materializer.waiting`): too
large a version; `LogUnreachable` (`materializer.freshness`).

What stays within the layer: `StateOutdated` (`materializer.history_guard`): the log is read anew; `NotAnImage`
(`materializer.image_records`): the snapshot is ignored.
"""

from __future__ import annotations


class MaterializerError(Exception):
    """Something that the store, or what keeps it current, could not do; the message is one line."""
