"""Producers: watch member clusters and append what changes to the log.

One `Informer` per cluster and resource type; `cluster.py` assembles those of a cluster, `producer.py` the
clusters of a kubeconfig.
"""
