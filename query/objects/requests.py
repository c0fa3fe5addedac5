"""What a LIST or WATCH asks: one value, each part of which is parsed once."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from deltalog.wire.kubernetes import GroupResource
from materializer.entry import Entry
from materializer.filter import Filter
from query.discovery.followed import Followed
from query.objects.options import Options
from query.objects.representations import Encoder


@dataclass(frozen=True, slots=True)
class CollectionRequest:
    """A LIST or WATCH of one type.

    - `key`: the type.
    - `options`: the query parameters of Kubernetes.
    - `member_versions`: the resourceVersion, where it is one of member clusters, by cluster.
    - `selection`: which objects; `seniority`: how many hops below the owner in it the owners to ask for are, see
      `Store.owned`; 0 for its own dependents.
    - `owners`: whether an owner on the way there may be seen, by its type; None: all may.
    - `encoder`: the form of the answer, and how versions are written in it.
    - `followed`: the type as it is served now: a WATCH ends with that.
    """

    key: GroupResource
    options: Options
    member_versions: Mapping[str, str] | None
    selection: Filter
    seniority: int
    encoder: Encoder
    followed: Followed
    owners: Callable[[GroupResource, Entry], bool] | None = None
