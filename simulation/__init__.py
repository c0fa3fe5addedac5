"""Member clusters over real HTTP, for demos, tests and benchmarks.

A `SimulatedCluster` answers like a kube-apiserver 1.36 on what clients of it see: discovery, reads, watches,
writes, custom resources, aggregated APIs, RBAC, errors. It holds believable content, changes it at a rate, and fails on
demand.
It imports nothing of kubebraid's, so that it cannot share its mistakes.
"""

from simulation.access.users import ClusterUser
from simulation.churn import Churn
from simulation.cluster import SimulatedCluster
from simulation.faults import Faults
from simulation.kubeconfig import kubeconfig, write_kubeconfig
from simulation.run import simulate
from simulation.storage import ClusterStorage

__all__ = [
    "Churn",
    "ClusterStorage",
    "ClusterUser",
    "Faults",
    "SimulatedCluster",
    "kubeconfig",
    "simulate",
    "write_kubeconfig",
]
