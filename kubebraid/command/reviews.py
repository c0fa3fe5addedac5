"""Reviews: API servers that are asked about tokens and access: member clusters, and servers of kubeconfigs."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import msgspec
import structlog

from producers.errors import ProducersError
from producers.kubeconfig.files import access_of
from producers.kubeconfig.in_cluster import in_cluster
from producers.kubeconfig.model import ClusterAccess
from producers.members.membership import Members
from producers.supervision import reason_of
from producers.threads import reading
from producers.upstream.apiserver import ApiServer
from query.access.errors import AccessUnavailable

TOKEN_REVIEWS = "/apis/authentication.k8s.io/v1/tokenreviews"
ACCESS_REVIEWS = "/apis/authorization.k8s.io/v1/subjectaccessreviews"

Ask = Callable[[dict[str, Any]], Awaitable[Mapping[str, Any]]]

# Bytes that a review's answer may have.
_LARGEST = 4 * 1024 * 1024

log = structlog.get_logger("kubebraid.command.reviews")


class ReviewServers:
    """Connections to the servers that are asked. `members`: the member clusters, None where there are none."""

    def __init__(self, members: Members | None) -> None:
        self._members = members
        self._servers: dict[tuple[str, str], ApiServer] = {}

    def of_cluster(self, cluster: str, path: str) -> Ask:
        """Creates reviews below a path of a member cluster."""

        def access() -> ClusterAccess:
            member = None if self._members is None else self._members.current.get(cluster)
            if member is None:
                raise AccessUnavailable(f"cluster {cluster} is none of those that this instance was given")
            return member.access

        return self._asking(("cluster", cluster), access, path)

    def of_kubeconfig(self, kubeconfig: str) -> Ask:
        """Sends reviews to the server of a kubeconfig's current context, at its URL as it stands there."""
        return self._asking(("kubeconfig", kubeconfig), lambda: access_of(kubeconfig), "")

    def of_own_cluster(self, path: str) -> Ask:
        """Creates reviews below a path of the cluster that this runs in."""

        def access() -> ClusterAccess:
            if (found := in_cluster("in-cluster")) is None:
                raise AccessUnavailable("this runs in no cluster: there is no service account's token")
            return found

        return self._asking(("in-cluster", ""), access, path)

    async def aclose(self) -> None:
        """Ends the connections."""
        for server in self._servers.values():
            try:
                await server.close()
            except Exception as cause:  # noqa: BLE001 - supervised
                log.warning("a connection could not be closed", server=server.host, reason=reason_of(cause))
        self._servers.clear()

    def _asking(self, key: tuple[str, str], access: Callable[[], ClusterAccess], path: str) -> Ask:
        async def ask(review: dict[str, Any]) -> Mapping[str, Any]:
            try:
                server = await self._server(key, access)
                body = await server.post(path, msgspec.json.encode(review), most=_LARGEST)
                answer = msgspec.json.decode(body)
            except ProducersError as cause:
                raise AccessUnavailable(str(cause)) from None
            except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
                raise AccessUnavailable("the answer to a review is no JSON") from None
            if not isinstance(answer, dict):
                raise AccessUnavailable("the answer to a review is no object")
            return answer

        return ask

    async def _server(self, key: tuple[str, str], access: Callable[[], ClusterAccess]) -> ApiServer:
        server = self._servers.get(key)
        found = await reading(key[1], access) if key[0] == "kubeconfig" else access()
        # Meanwhile another one may have asked.
        server = self._servers.get(key)
        if server is None:
            server = self._servers[key] = ApiServer(found)
        else:
            await server.change(found)
        return server
