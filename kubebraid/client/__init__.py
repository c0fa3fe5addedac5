"""For programs: an informer over many clusters, and the store in one's own process.

`many_clusters` needs nothing but the HTTP API; `replica` reads the log from NATS. What is listed here is public API:
docs/api.md.
"""

from kubebraid.client.many_clusters import ADDED, CLUSTER_ANNOTATION, DELETED, MODIFIED, Change, Informer, Key, Refused
from kubebraid.client.replica import Deleted, Expired, Filter, ResourceStorage, Storage, StorageConfig

__all__ = [
    "ADDED",
    "CLUSTER_ANNOTATION",
    "DELETED",
    "MODIFIED",
    "Change",
    "Deleted",
    "Expired",
    "Filter",
    "Informer",
    "Key",
    "Refused",
    "ResourceStorage",
    "Storage",
    "StorageConfig",
]
