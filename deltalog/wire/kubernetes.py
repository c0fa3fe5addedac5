"""Kubernetes' names and versions as the log and all around it use them: resource types, objects, resourceVersions."""

from __future__ import annotations

import functools
from hashlib import blake2b
from typing import NamedTuple, NewType

CLUSTER_ANNOTATION = "shadow.clusterpedia.io/cluster-name"
"""Annotation of every object in the log: the member cluster that it is of (the name is Clusterpedia's)."""

MEMBER_VERSION_ANNOTATION = "kubebraid.io/original-resource-version"
"""Annotation of objects served with numbers for versions: the member cluster's own `resourceVersion`."""


class GroupResource(NamedTuple):
    """A resource type whatever its version; `group` is empty for the core group (schema.GroupResource).

    Its text is the one that kubectl knows a type by and that metrics, messages and `status` records have:

    >>> str(GroupResource("apps", "deployments")), str(GroupResource("", "pods"))
    ('deployments.apps', 'pods')

    It equals the plain tuple `(group, resource)` and hashes like it: where a lookup is hot, a plain tuple will do.
    """

    group: str
    resource: str

    def __str__(self) -> str:
        return f"{self.resource}.{self.group}" if self.group else self.resource

    @staticmethod
    @functools.lru_cache(maxsize=4096)
    def of(group: str, resource: str) -> GroupResource:
        """The same one for all that ask: where it is kept for each type of each cluster."""
        return GroupResource(group, resource)

    @staticmethod
    @functools.lru_cache(maxsize=4096)
    def parse(text: str) -> GroupResource:
        """The type of a text as above; what follows the first dot is the group. No text is refused."""
        resource, _, group = text.partition(".")
        return GroupResource(group, resource)


class GroupVersion(NamedTuple):
    """An API version of a group; `group` is empty for the core group (schema.GroupVersion).

    Its text is the `apiVersion` of objects: `str(GroupVersion("apps", "v1"))` is `apps/v1`, of the core group `v1`.
    """

    group: str
    version: str

    def __str__(self) -> str:
        return f"{self.group}/{self.version}" if self.group else self.version


ObjectName = NewType("ObjectName", tuple[str, str])
"""(namespace, name) of an object within one type of one cluster; the namespace is empty for cluster-scoped objects.

Made by `ObjectName((namespace, name))`. A NewType, and not a NamedTuple as `GroupResource` is, because there is one for
each object: a plain tuple is made in an eighth of the time, is sorted by list.sort's own comparison of tuples, and is
no load on the garbage collector, which stops tracking plain tuples of texts and no others.
"""

ObjectKey = NewType("ObjectKey", str)
"""An `ObjectName` as one text: the namespace, NUL, the name. They sort as pairs of namespace and name do.

For what is held of each of very many objects: beside a tuple it saves 70 bytes, and its hash is computed once.
"""


def object_key(namespace: str, name: str) -> ObjectKey:
    """The key of a name: `shop\\0cart`, and `\\0node-1` of what has no namespace. O(length)."""
    return f"{namespace}\0{name}"  # type: ignore[return-value]  # hot: no call


def object_name(key: ObjectKey) -> ObjectName:
    """The name of a key. O(length)."""
    namespace, _, name = key.partition("\0")
    return ObjectName((namespace, name))


CONTENT_VERSION = "content-"
"""What the version of a state begins with whose object has none of its own, as those of some aggregated APIs."""


def content_version(content: bytes) -> str:
    """A version for a state without one: equal for equal content, as text that no kube-apiserver has for a version."""
    return f"{CONTENT_VERSION}{blake2b(content, digest_size=8).hexdigest()}"


def newer(version: str, than: str) -> bool:
    """Whether a member cluster's resourceVersion is newer than another one of the same object.

    Whole numbers compare as numbers, however long (KEP-5504: Comparable Resource Version): "10" is newer than "9".
    Versions of other forms are only equal or not: each of "abc" and "abd" counts as newer than the other.
    """
    if numeric(version) and numeric(than):
        return (len(version), version) > (len(than), than)
    return version != than


def numeric(version: str) -> bool:
    """Whether a resourceVersion is a whole number in ASCII digits, as those of every kube-apiserver are."""
    return version.isascii() and version.isdigit()
