"""Options of writes: how a create, an update, a patch or a deletion is to be done."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["DeleteOptions", "WriteOptions"]


@dataclass(frozen=True, slots=True)
class WriteOptions:
    """The options of a create, update or patch.

    `manager` is the field manager that managedFields name. With `dry_run` the result is computed and not stored.
    `version` is the API version that the request uses, as `v1beta1`; empty for the resource's preferred one.
    """

    manager: str = "unknown"
    dry_run: bool = False
    version: str = ""


@dataclass(frozen=True, slots=True)
class DeleteOptions:
    """The options of a deletion (meta/v1 DeleteOptions).

    `propagation` is Background, Foreground or Orphan. `grace_seconds` None means what the object's spec says.
    `uid` and `resource_version` are preconditions; empty means none.
    """

    dry_run: bool = False
    propagation: str = "Background"
    grace_seconds: int | None = None
    uid: str = ""
    resource_version: str = ""
