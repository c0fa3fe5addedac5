"""Ids of parameters that are the same in every process: pytest's workers have to collect the same tests."""

from __future__ import annotations


def stable(value: object) -> str:
    """As `str`, with the items of sets in order: theirs differs from process to process (PYTHONHASHSEED)."""
    if isinstance(value, set | frozenset):
        return "{" + ", ".join(sorted(map(stable, value))) + "}"
    if isinstance(value, dict):
        return "{" + ", ".join(f"{stable(key)}: {stable(one)}" for key, one in value.items()) + "}"
    if isinstance(value, tuple | list) and type(value) in (tuple, list):
        return "(" + ", ".join(map(stable, value)) + ")"
    return str(value)
