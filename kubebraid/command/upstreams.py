"""The API servers of clusters as the query service reaches them: by the members' kubeconfigs, as whom is asked for."""

from __future__ import annotations

import ssl
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any
from weakref import WeakKeyDictionary

import structlog

from kubebraid.command.settings import Forward
from producers.members.membership import Member, Members
from producers.supervision import Complaints, reason_of
from producers.upstream.access import Credentials
from producers.upstream.apiserver import ApiServer
from producers.upstream.kubeconfig import BadKubeconfig
from query.forward.forwarding import NoUpstream
from query.http.passthrough import Upstream

log = structlog.get_logger("kubebraid")


class MemberServers:
    """Upstreams of all members. With `forward` CALLER only the way there is ours: the caller shows who it is."""

    def __init__(self, members: Members, forward: Forward) -> None:
        self._members = members
        self._forward = forward
        self._servers: dict[str, ApiServer] = {}
        # What is wrong with clusters that nothing expects.
        self._complaints: dict[str, Complaints] = {}
        self._contexts: WeakKeyDictionary[Credentials, ssl.SSLContext] = WeakKeyDictionary()

    async def aclose(self) -> None:
        """Ends the connections to all API servers."""
        for name, server in self._servers.items():
            try:
                await server.close()
            except Exception as cause:  # noqa: BLE001 - supervised
                log.warning("a connection could not be closed", cluster=name, reason=reason_of(cause))

    def has(self, cluster: str) -> bool:
        """Whether requests for a cluster can be passed on."""
        return cluster in self._members.current

    @asynccontextmanager
    async def using(self, cluster: str) -> AsyncIterator[Upstream]:
        """A cluster's API server, with credentials that stay valid while the block lasts. Raises NoUpstream."""
        member = self._members.current.get(cluster)
        if member is None:
            raise NoUpstream("it is none of the clusters that this instance was given")
        async with AsyncExitStack() as stack:
            try:
                server = await self._server(cluster, member)
                upstream = await self._upstream(await stack.enter_async_context(server.using()))
            except BadKubeconfig as problem:
                raise NoUpstream(str(problem)) from None
            except Exception as cause:  # noqa: BLE001 - supervised
                # One cluster's credentials, whatever they lead to, are that cluster's requests' alone.
                complain = self._complaints.setdefault(
                    cluster, Complaints(log, "requests cannot be passed on", cluster=cluster)
                )
                raise NoUpstream(complain(cause)) from None
            self._complaints.pop(cluster, None)
            yield upstream

    async def _server(self, cluster: str, member: Member) -> ApiServer:
        server = self._servers.get(cluster)
        if server is None:
            server = self._servers[cluster] = ApiServer(member.access)
        elif server.access != member.access:
            await server.change(member.access)
        return server

    async def _upstream(self, credentials: Credentials) -> Upstream:
        configuration: Any = credentials.client.configuration
        identity = None
        if self._forward is Forward.CONFIGURED:
            bearer = (await configuration.auth_settings()).get("BearerToken")
            shown = () if bearer is None else (("Authorization", bearer["value"]),)
            identity = (*shown, *credentials.impersonation)
        url = credentials.host.rstrip("/")
        return Upstream(
            url=url,
            tls=self._tls(credentials, configuration) if url.startswith("https:") else None,
            server_name=configuration.tls_server_name or None,
            identity=identity,
            proxy=configuration.proxy or None,
        )

    def _tls(self, credentials: Credentials, configuration: Any) -> ssl.SSLContext:
        context = self._contexts.get(credentials)
        if context is None:
            context = ssl.create_default_context(cafile=configuration.ssl_ca_cert)
            if self._forward is Forward.CONFIGURED and configuration.cert_file:
                context.load_cert_chain(configuration.cert_file, keyfile=configuration.key_file)
            if not configuration.verify_ssl:
                context.check_hostname = False
                context.verify_mode = ssl.CERT_NONE
            context.verify_flags &= ~ssl.VERIFY_X509_STRICT
            self._contexts[credentials] = context
        return context
