"""The base of the query service's exceptions."""

from __future__ import annotations


class QueryError(Exception):
    """Something that the query service could not do. What a client gets is an `ApiError`."""


class UnusableSetting(QueryError):
    """A file or a value that was given cannot be used; one line that says why, and the remedy where there is one."""
