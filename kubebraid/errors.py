"""The errors of this layer: one base, and below it what whoever asked has to correct and what may pass by itself."""

from __future__ import annotations


class KubebraidError(Exception):
    """What a command fails with; the message is one line that says why, and the remedy where there is one.

    `code`: what the command's process ends with.
    """

    code = 1


class InvalidInput(KubebraidError):
    """What was given cannot be used; trying again does not help."""

    code = 2


class Unavailable(KubebraidError):
    """Something that is needed does not answer, cannot be started, or ended; it may pass."""
