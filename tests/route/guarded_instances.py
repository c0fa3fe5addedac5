"""Guarded instances over stores that tests write by hand, and a router before them: all of it over https."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import re
import ssl
from collections.abc import AsyncIterator, Mapping, Sequence
from pathlib import Path
from unittest import mock

import aiohttp
import trustme

from kubebraid.command.doors import Doors, FrontProxy
from kubebraid.command.entrance import made_entrance
from kubebraid.command.listening import bind, served_at
from kubebraid.command.reviews import ReviewServers
from kubebraid.command.route import callers_of
from kubebraid.command.settings import Address
from kubebraid.route import documents, groups
from kubebraid.route import router as router_module
from kubebraid.route.instance_tls import InstanceTls, InstanceTlsFiles
from kubebraid.route.router import Router
from query.http.cors import Cors
from query.service import QueryService
from tests.patience import PATIENCE
from tests.ports import free_port
from tests.query.access.guarded import World
from tests.query.scene import QUICK, Answers

# A page that may use the router.
CONSOLE = "https://console.example"
# As whom tests ask, with their groups.
PEOPLE = {
    "jane": (),
    "dora": ("dev",),
    "root": ("system:masters",),
    "prometheus": ("system:monitoring",),
    "mallory": (),
}


class Authorities:
    """Certificates of servers, of users and of the router, each of an authority of its own."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.servers, self.users, self.proxies, self.strangers = (trustme.CA() for _ in range(4))
        for name in ("servers", "users", "proxies"):
            getattr(self, name).cert_pem.write_to_path(str(self.file(f"{name}.crt")))
        self.serve()
        self.front()
        lines = []
        for name, belongs_to in PEOPLE.items():
            hashed = hashlib.sha256(f"token-of-{name}".encode()).hexdigest()
            lines.append(f'sha256:{hashed},{name},,"{",".join(belongs_to)}"\n')
        self.file("tokens.csv").write_text("".join(lines))

    def file(self, name: str) -> Path:
        return self.directory / name

    def serve(self) -> None:
        """Makes a certificate of servers."""
        issued = self.servers.issue_cert("127.0.0.1", "localhost")
        issued.private_key_and_cert_chain_pem.write_to_path(str(self.file("server.pem")))

    def front(self, authority: trustme.CA | None = None) -> None:
        """Makes the router's certificate, in two files."""
        issued = (authority or self.proxies).issue_cert(common_name="router")
        issued.private_key_pem.write_to_path(str(self.file("front.key")))
        issued.cert_chain_pems[0].write_to_path(str(self.file("front.crt")))

    def context(
        self, name: str = "", groups: Sequence[str] = (), authority: trustme.CA | None = None
    ) -> ssl.SSLContext:
        """A client's TLS; `name`: whose certificate it shows."""
        context = ssl.create_default_context(cafile=str(self.file("servers.crt")))
        if name:
            organization = groups[0] if groups else None
            issued = (authority or self.users).issue_cert(common_name=name, organization_name=organization)
            issued.configure_cert(context)
        return context

    @property
    def doors(self) -> Doors:
        """What guards an instance."""
        return Doors(
            certificate=self.file("server.pem"),
            client_authorities=(self.file("users.crt"),),
            front_proxy=FrontProxy(self.file("proxies.crt"), names=("router",)),
            tokens=self.file("tokens.csv"),
        )

    @property
    def router_doors(self) -> Doors:
        """What guards the router."""
        return Doors(certificate=self.file("server.pem"), client_authorities=(self.file("users.crt"),))

    @property
    def files(self) -> InstanceTlsFiles:
        """What the router asks instances with."""
        return InstanceTlsFiles(self.file("servers.crt"), self.file("front.crt"), self.file("front.key"))


class Instance:
    """A guarded instance that can be stopped and started again, at one address."""

    def __init__(self, world: World, doors: Doors) -> None:
        self.world = world
        self._doors = doors
        self._address = Address("127.0.0.1", free_port())
        self.url = f"https://127.0.0.1:{self._address.port}"
        self._running = contextlib.AsyncExitStack()

    async def start(self) -> None:
        stack = self._running
        reviews = await stack.enter_async_context(contextlib.aclosing(ReviewServers(None)))
        made = await stack.enter_async_context(made_entrance(self._doors, self.world.materializer, reviews))
        service = QueryService(self.world.materializer, "test", timing=QUICK, entrance=made.entrance)
        tasks = [asyncio.ensure_future(part()) for part in made.parts]
        stack.push_async_callback(_ended, tasks)
        bound = stack.enter_context(contextlib.closing(bind(self._address)))
        await stack.enter_async_context(served_at(service.application(), bound, service.close, self._doors))

    async def stop(self) -> None:
        await self._running.aclose()
        self._running = contextlib.AsyncExitStack()


async def _ended(tasks: Sequence[asyncio.Future[None]]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


class Guarded:
    """Groups of one instance each, and the router before them."""

    def __init__(self, authorities: Authorities, instances: dict[str, Instance], router: Router, url: str) -> None:
        self.authorities = authorities
        self.instances = instances
        self.router = router
        self.url = url
        self.stack = contextlib.AsyncExitStack()

    async def client(
        self,
        url: str = "",
        headers: Mapping[str, str] | None = None,
        *,
        context: ssl.SSLContext | None = None,
        token: str = "",
    ) -> Answers:
        """Asks the router, or what else is at a URL, by a certificate in the context, or with somebody's token."""
        headers = dict(headers or {})
        if token:
            headers["Authorization"] = f"Bearer token-of-{token}"
        connector = aiohttp.TCPConnector(ssl=context or self.authorities.context(), limit=0)
        session = aiohttp.ClientSession(connector=connector, headers=headers)
        return Answers(await self.stack.enter_async_context(session), url or self.url)

    async def certified(self, name: str, url: str = "") -> Answers:
        """Asks by somebody's certificate."""
        return await self.client(url, context=self.authorities.context(name, PEOPLE[name]))

    async def until_ready(self, *, ready: bool = True) -> None:
        while self.router.groups.ready is not ready:
            await asyncio.sleep(0.02)


@contextlib.asynccontextmanager
async def guarded(directory: Path, authorities: Authorities | None = None, **worlds: World) -> AsyncIterator[Guarded]:
    """A router before a group for each world."""
    authorities = authorities or Authorities(directory)
    instances = {name: Instance(world, authorities.doors) for name, world in worlds.items()}
    async with contextlib.AsyncExitStack() as stack:
        # All of them share this process's event loop: on a busy machine none has its turn within a few seconds.
        for module, name in ((groups, "ANSWER_PATIENCE"), (documents, "ANSWER_PATIENCE"), (groups, "CONNECT_PATIENCE")):
            stack.enter_context(mock.patch.object(module, name, PATIENCE))
        for module in (documents, router_module):
            stack.enter_context(mock.patch.object(module, "CONNECT_PATIENCE", PATIENCE))
        for one in instances.values():
            await one.start()
            stack.push_async_callback(one.stop)
        router = Router(
            {name: [one.url] for name, one in instances.items()},
            tls=InstanceTls(authorities.files),
            callers=callers_of(authorities.router_doors),
            cors=Cors([rf"^{re.escape(CONSOLE)}$"]),
        )
        await stack.enter_async_context(router.connected())
        looking = asyncio.ensure_future(router.run())
        stack.push_async_callback(_ended, [looking])
        bound = stack.enter_context(contextlib.closing(bind(Address("127.0.0.1", 0))))
        served = await stack.enter_async_context(served_at(router.application(), bound, doors=authorities.router_doors))
        made = Guarded(authorities, instances, router, served.address.url)
        await stack.enter_async_context(made.stack)
        await router.first_looks()
        yield made
