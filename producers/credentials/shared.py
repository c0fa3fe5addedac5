"""What the clusters of a process share: credential plugins, users of identity providers, threads for files."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Hashable

from producers.credentials.credential import BadCredentials, Credential, Presented
from producers.credentials.exec_plugin import ExecPlugin, PluginSlots
from producers.credentials.identity_provider import IdentityProvider, ProxyFor, authority_file
from producers.credentials.kubeconfig_tokens import ID_TOKEN, REFRESH_TOKEN
from producers.credentials.oidc import OidcUser
from producers.kubeconfig.entries import AuthProvider, Cluster, Exec
from producers.threads import Threads, share_of
from producers.timing import DEFAULT, ProducerTiming

# Seconds for which a plugin's start is waited for at the end.
_STARTED = 1.0


def no_proxy(url: str) -> str:
    """For who reaches identity providers directly."""
    return ""


class _Kept:
    """A credential in use, and by how many."""

    def __init__(self, credential: Credential) -> None:
        self.credential = credential
        self.users = 0


class _Lease:
    """One use of a shared credential: the last one that is closed ends it."""

    def __init__(self, kept: dict[Hashable, _Kept], key: Hashable, end: Callable[[_Kept], Awaitable[None]]) -> None:
        self._all, self._key, self._end = kept, key, end
        self._kept = kept[key]
        self._kept.users += 1
        self._closed = False

    async def current(self) -> Presented:
        return await self._kept.credential.current()

    @property
    def waits_for(self) -> str:
        return self._kept.credential.waits_for

    async def refused(self, shown: Presented) -> None:
        await self._kept.credential.refused(shown)

    async def close(self) -> None:
        if self._closed:
            return
        self._closed = True
        self._kept.users -= 1
        if not self._kept.users:
            if self._all.get(self._key) is self._kept:
                del self._all[self._key]
            await self._end(self._kept)


class SharedCredentials:
    """Owned by the process, closed after all credentials that were made with it.

    Plugins are shared by their whole configuration and what they are given of the cluster, as in client-go; users of a
    provider by their entry in a kubeconfig (client-go: by cluster and client, so that one gets another one's tokens).
    """

    def __init__(
        self,
        timing: ProducerTiming = DEFAULT,
        *,
        proxy: ProxyFor = no_proxy,
        slots: PluginSlots | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._timing = timing
        self._proxy = proxy
        self._slots = slots or PluginSlots()
        self._clock = clock
        self.threads = Threads("credentials")
        self._plugins: dict[Hashable, _Kept] = {}
        self._oidc: dict[Hashable, _Kept] = {}
        # Those that nobody uses any longer and that have not ended yet: whoever closed them may have been cancelled.
        self._ending: set[_Kept] = set()
        self._closed = False

    def plugin(self, plugin: Exec, cluster: Cluster) -> Credential:
        """A use of a plugin, which is to be closed. Raises BadCredentials when all is closed."""
        self._check()
        key = (plugin, cluster if plugin.provide_cluster_info else cluster.exec_config)
        if key not in self._plugins:
            given = cluster.authority_file if plugin.provide_cluster_info and not cluster.authority_data else ""
            threads = self.threads.of(share_of(given or plugin.command))
            made = ExecPlugin(plugin, cluster, self._slots, threads, self._timing, self._clock)
            self._plugins[key] = _Kept(made)
        return _Lease(self._plugins, key, self._end)

    def oidc(self, provider: AuthProvider) -> Credential:
        """A use of a provider's user, which is to be closed. Raises BadCredentials."""
        self._check()
        if provider.name != "oidc":
            raise BadCredentials("auth-provider: none but oidc is known; use an exec plugin")
        settings = dict(provider.config)
        tokens = {name: settings.pop(name, "") for name in (ID_TOKEN, REFRESH_TOKEN)}
        # Where there is no entry to write to, the tokens are all that tells two users apart.
        key = (provider.file, provider.entry, *sorted(settings.items()), *(() if provider.file else tokens.values()))
        kept = self._oidc.get(key)
        if kept is None:
            # Its user's tokens are written into the kubeconfig; who certifies it may be in a file elsewhere.
            threads = self.threads.of(share_of(provider.file) if provider.file else str(settings.get("idp-issuer-url")))
            file = authority_file(settings)
            reading = self.threads.of(share_of(file)) if file else threads
            identity = IdentityProvider(settings, self._proxy, reading, self._timing)
            kept = self._oidc[key] = _Kept(OidcUser(provider, identity, threads, self._timing, self._clock))
        elif isinstance(kept.credential, OidcUser):
            kept.credential.offer(provider)
        return _Lease(self._oidc, key, self._end)

    def _check(self) -> None:
        if self._closed:
            raise BadCredentials("closed: this process is ending")

    async def close(self) -> None:
        """Ends what is still shared, and the threads."""
        self._closed = True
        for all_kept in (self._plugins, self._oidc):
            self._ending.update(all_kept.values())
            all_kept.clear()
        await asyncio.gather(*(self._end(kept) for kept in self._ending))
        self.threads.close()
        # A plugin that is being started is killed where it is started; what hangs is not waited for.
        await asyncio.to_thread(self.threads.wait, _STARTED)

    async def _end(self, kept: _Kept) -> None:
        self._ending.add(kept)
        await kept.credential.close()
        self._ending.discard(kept)
