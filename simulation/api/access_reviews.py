"""Access reviews: whether a client may do something. On a simulated cluster it may do everything."""

from __future__ import annotations

from aiohttp import web

from simulation.api.bodies import json_body
from simulation.api.options import accepted_form
from simulation.api.responses import json_response, require_method

__all__ = ["SELF_REVIEW", "review_access"]

# Group, version and resource, as a path has them.
SELF_REVIEW = ("authorization.k8s.io", "v1", "selfsubjectaccessreviews")


async def review_access(request: web.BaseRequest) -> web.StreamResponse:
    """Answer a POST of a SelfSubjectAccessReview with itself and `allowed`. A body that is not JSON is not looked at.

    Raises:
        StatusError: 400, 405, or 406: there are no tables of reviews.
    """
    require_method(request, "POST")
    accepted_form(request.headers.get("Accept", ""), tables=False)
    data = await request.read()
    given = json_body(data) if data.startswith(b"{") else {}
    answer = {
        "kind": "SelfSubjectAccessReview",
        "apiVersion": "authorization.k8s.io/v1",
        "metadata": {},
        "spec": given.get("spec") or {},
        "status": {"allowed": True, "reason": "simulated"},
    }
    return json_response(answer, status=201)
