"""The HTTP API of one cluster, over its registry: what a kube-apiserver answers on what clients of it see."""

from simulation.api.application import MAX_BODY, Api

__all__ = ["MAX_BODY", "Api"]
