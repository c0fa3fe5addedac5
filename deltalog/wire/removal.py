"""Removal: which messages a removed type or cluster takes with it, as its record says (docs/log.md)."""

from __future__ import annotations

from deltalog.wire.kubernetes import GroupResource
from deltalog.wire.parts import parts_filter
from deltalog.wire.subjects import (
    CLUSTER_RECORDS,
    CONTROL,
    DOCUMENT_RECORDS,
    OBJECTS,
    PARTS,
    TYPE_RECORDS,
    control_subject,
    encode_token,
    object_filter,
)


def removed_subjects(cluster: str, resource: GroupResource | None) -> list[str]:
    """Filters of the subjects whose messages are purged below the record of a removal; `resource` None: the cluster's.

    Example: of nodes in alpha these are `kb.alpha.core.*.nodes.>`, its parts, and `kbc.alpha.synced.core.nodes` among
    the records. The owner's record stays, so that epochs go on growing.
    """
    if resource is not None:
        objects = object_filter(cluster, *resource)
        return [objects, parts_filter(objects), *(control_subject(cluster, one, *resource) for one in TYPE_RECORDS)]
    token = encode_token(cluster)
    return [
        *(f"{root}.{token}.>" for root in (OBJECTS, PARTS)),
        *(f"{CONTROL}.{token}.{record}.*.*" for record in (*TYPE_RECORDS, *DOCUMENT_RECORDS)),
        *(control_subject(cluster, record) for record in CLUSTER_RECORDS),
    ]
