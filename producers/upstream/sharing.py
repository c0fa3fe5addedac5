"""What all API servers that a process asks have in common: credentials that several of them use, deadlines."""

from __future__ import annotations

import asyncio
from urllib.parse import quote
from weakref import WeakKeyDictionary

from producers.credentials.shared import SharedCredentials
from producers.kubeconfig.model import BadKubeconfig
from producers.timing import ProducerTiming
from producers.upstream.deadlines import Deadlines
from producers.upstream.proxies import environment_proxies
from producers.upstream.server_url import parse_server


class SharedByServers:
    """Plugins, users of identity providers, deadlines: from the first server that joins until the last one leaves."""

    def __init__(self, timing: ProducerTiming) -> None:
        self.credentials = SharedCredentials(timing, proxy=proxy_of_environment)
        self.deadlines = Deadlines()
        self._joined = 0

    @classmethod
    def joined(cls, timing: ProducerTiming) -> SharedByServers:
        """What the servers of the running event loop share; `leave` it."""
        loop = asyncio.get_running_loop()
        shared = _of_loops.get(loop)
        if shared is None:
            shared = _of_loops[loop] = cls(timing)
        shared._joined += 1
        return shared

    async def leave(self) -> None:
        """Once for each time that it was joined."""
        self._joined -= 1
        if not self._joined:
            loop = asyncio.get_running_loop()
            if _of_loops.get(loop) is self:
                del _of_loops[loop]
            self.deadlines.close()
            await self.credentials.close()


_of_loops: WeakKeyDictionary[asyncio.AbstractEventLoop, SharedByServers] = WeakKeyDictionary()


def proxy_of_environment(url: str) -> str:
    """The URL of the proxy through which a URL is asked, with its userinfo; empty: none."""
    try:
        proxy = environment_proxies().of(parse_server(url))
    except BadKubeconfig:
        return ""
    if proxy is None:
        return ""
    address = proxy.address
    userinfo = f"{quote(address.username, safe='')}:{quote(address.password, safe='')}@" if address.has_userinfo else ""
    return f"{address.scheme}://{userinfo}{address.netloc}"
