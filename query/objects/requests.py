"""What a LIST or WATCH asks: one value, each part of which is parsed once."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from deltalog.wire.kubernetes import GroupResource
from materializer.entry import Entry
from materializer.filter import Filter
from materializer.visible import Visible
from query.discovery.followed import Followed, SeveralFollowed
from query.objects.options import Options
from query.objects.representations import Encoder
from query.search.terms import Search


def limited(options: Options, search: Search) -> tuple[Options, Search]:
    """A request's options and search by the lower of its two limits, that of the query and that of the search labels.

    A list that a label limits below the query's limit has no further pages: kubectl, which always sends a limit of its
    own (500, `--chunk-size`), would go on to the end of everything.

    Example: `limit=500` and `search.clusterpedia.io/limit=5` are five objects, without a continue token.
    """
    most = search.limit
    if not most or 0 < options.limit <= most:
        return options, search
    if options.limit:
        search = replace(search, with_continue=False)
    return replace(options, limit=most), search


class SeenOwners:
    """Which owners may be seen on the way from an object to what it controls, by what may be seen of each type.

    Equal for all who may see the same, so that a list that was kept for one is found by no one who may see less.
    """

    __slots__ = ("_hash", "_of", "_seen")

    def __init__(self, seen: Mapping[GroupResource, Visible]) -> None:
        self._seen = seen
        self._of = frozenset((key, one.whole, frozenset(one.clusters.items())) for key, one in seen.items())
        self._hash = hash(self._of)

    def __call__(self, key: GroupResource, entry: Entry) -> bool:
        """Whether an object of a type may be seen. O(1)."""
        return key in self._seen and self._seen[key].sees(entry.cluster, entry.namespace)

    def __hash__(self) -> int:
        return self._hash

    def __eq__(self, other: object) -> bool:
        return isinstance(other, SeenOwners) and self._of == other._of


@dataclass(frozen=True, slots=True)
class CollectionRequest:
    """A LIST or WATCH of one type.

    - `key`: the type.
    - `options`: the query parameters of Kubernetes.
    - `member_versions`: the resourceVersion, where it is one of member clusters, by cluster.
    - `search`: what else is asked for: the owners to look up, the order, the page.
    - `selection`: which objects, as far as that is known before.
    - `owners`: whether an owner on the way there may be seen, by its type; None: all may.
    - `encoder`: the form of the answer, and how versions are written in it.
    - `parts`: of a collection, the same of each of its types, by what these are sorted by; None: it is of one type.
      `gone`: types of it that no cluster has any more, of which a watch may have to be told.
    - `followed`: the type as it is served now: a WATCH ends with that.
    """

    key: GroupResource
    options: Options
    member_versions: Mapping[str, str] | None
    search: Search
    selection: Filter
    encoder: Encoder
    followed: Followed | SeveralFollowed
    owners: SeenOwners | None = None
    parts: tuple[CollectionRequest, ...] | None = None
    gone: tuple[GroupResource, ...] = ()
