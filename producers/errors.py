"""The errors of this layer: one base, and below it what an operator has to correct and what may pass by itself.

`UnusableInput`: a configuration, a kubeconfig or an object that cannot be used as it is; trying again does not help.
`ClusterUnavailable`: a member cluster's API server cannot be read now; the producers try again. `Deposed`
(`producers.follow.ownership`) is neither: another producer has the cluster.
"""

from __future__ import annotations


class ProducersError(Exception):
    """What the producing side fails with."""


class UnusableInput(ProducersError):
    """What was given cannot be used; one line that says why, and the remedy where there is one."""


class ClusterUnavailable(ProducersError):
    """A member cluster cannot be read now: no answer, a refusal, or an answer that is not what was asked for."""
