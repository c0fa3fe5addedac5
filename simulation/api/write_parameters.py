"""Parameters of writes: the options that a query, a body and headers give a create, update, patch or deletion."""

from __future__ import annotations

from typing import Any

from aiohttp import web

from simulation.registry import DeleteOptions, WriteOptions
from simulation.status import StatusError, bad_request

__all__ = ["parse_delete_options", "parse_write_options"]


def parse_write_options(request: web.BaseRequest, version: str) -> WriteOptions:
    """The options of a create, update or patch in an API version. Without fieldManager the user agent is the manager.

    Raises:
        StatusError: 422 for a dryRun other than All.
    """
    agent = request.headers.get("User-Agent", "unknown").partition("/")[0]
    manager = request.query.get("fieldManager") or agent
    return WriteOptions(manager, _dry_run(request.query.getall("dryRun", [])), version)


def parse_delete_options(request: web.BaseRequest, body: dict[str, Any]) -> DeleteOptions:
    """The options of a deletion, from a DeleteOptions object and, where that says nothing, the query.

    Raises:
        StatusError: 400 for a field of a wrong type, 422 for an unknown propagationPolicy or dryRun.
    """
    query = request.query
    propagation = body.get("propagationPolicy") or query.get("propagationPolicy") or "Background"
    if body.get("orphanDependents") or query.get("orphanDependents") == "true":
        propagation = "Orphan"
    if propagation not in ("Background", "Foreground", "Orphan"):
        message = f'DeleteOptions.meta.k8s.io "" is invalid: propagationPolicy: Unsupported value: "{propagation}"'
        raise StatusError(422, message)
    grace: Any = body.get("gracePeriodSeconds")
    if grace is None and query.get("gracePeriodSeconds"):
        text = query["gracePeriodSeconds"]
        grace = int(text) if text.isascii() and text.isdecimal() and len(text) < 10 else text
    if grace is not None and (not isinstance(grace, int) or isinstance(grace, bool)):
        raise bad_request("gracePeriodSeconds: must be a number")
    preconditions = body.get("preconditions") or {}
    if not isinstance(preconditions, dict):
        raise bad_request("preconditions: must be an object")
    dry_run = _dry_run(body.get("dryRun") or query.getall("dryRun", []))
    return DeleteOptions(
        dry_run=dry_run,
        propagation=propagation,
        grace_seconds=grace,
        uid=str(preconditions.get("uid") or ""),
        resource_version=str(preconditions.get("resourceVersion") or ""),
    )


def _dry_run(values: Any) -> bool:
    if not values:
        return False
    if values not in ("All", ["All"]):
        message = f'Unsupported value: {values!r}: supported values: "All"'
        raise StatusError(422, f'"" is invalid: dryRun: {message}')
    return True
