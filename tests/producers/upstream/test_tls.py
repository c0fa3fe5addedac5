"""Whom a transport trusts, and which certificate and server name it shows."""

from __future__ import annotations

import ssl
import warnings

import pytest
import trustme

from producers.credentials.credential import ClientCertificate
from producers.upstream.exchange import NotConnected
from producers.upstream.tls import TlsSettings, system_authorities
from tests.producers.upstream.servers import Authority, Server
from tests.producers.upstream.transports import Connect, authority, connect, failing, get, hello, serving

__all__ = ["authority", "connect"]

# openssl genpkey -algorithm ed25519 -aes256 -pass pass:secret
_ENCRYPTED = b"""-----BEGIN ENCRYPTED PRIVATE KEY-----
MIGbMFcGCSqGSIb3DQEFDTBKMCkGCSqGSIb3DQEFDDAcBAhOljd2pI5oSQICCAAw
DAYIKoZIhvcNAgkFADAdBglghkgBZQMEASoEEIKjl2O7UCAsoOtoyT2BMqIEQCYy
Ku/SyBKeRtS/LBIqMvUCpt/9s4jrUfINIL0plCjBGxhri6JJoYUgFdOHX1GNw9gR
X0uLyLYeVAKwT+3Bv7E=
-----END ENCRYPTED PRIVATE KEY-----
"""


async def test_a_foreign_authority_is_not_trusted(authority: Authority, connect: Connect) -> None:
    async with serving(hello, authority) as server:
        foreign = TlsSettings(trustme.CA().cert_pem.bytes())
        for tls in (foreign, TlsSettings()):
            error = await failing(connect(server.url, tls))
            assert isinstance(error, NotConnected)
            assert "certificate" in str(error)
    assert server.asked == []


async def test_an_authority_replaces_those_of_the_system(
    authority: Authority, connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", authority.file(authority.pem))
    system_authorities.cache_clear()
    try:
        async with serving(hello, authority) as server:
            assert await get(connect(server.url, TlsSettings()), "/system") == b"/system"
            await failing(connect(server.url, TlsSettings(trustme.CA().cert_pem.bytes())))
    finally:
        system_authorities.cache_clear()


async def test_a_leaf_as_authority_is_trusted(authority: Authority, connect: Connect) -> None:
    leaf = authority.issue("127.0.0.1")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    leaf.configure_cert(context)
    async with Server(hello, context).running() as server:
        assert await get(connect(server.url, TlsSettings(leaf.cert_chain_pems[0].bytes())), "/leaf") == b"/leaf"


async def test_insecure(authority: Authority, connect: Connect) -> None:
    async with Server(hello, authority.server("other.example.test")).running() as server:
        assert "name" in str(await failing(connect(server.url))) or server.asked == []
        assert await get(connect(server.url, TlsSettings(insecure=True)), "/x") == b"/x"


async def test_another_server_name_is_sent_and_checked(authority: Authority, connect: Connect) -> None:
    async with Server(hello, authority.server("api.example.test")).running() as server:
        assert isinstance(await failing(connect(server.url)), NotConnected)
        named = TlsSettings(authority.pem, server_name="api.example.test")
        assert await get(connect(server.url, named), "/named") == b"/named"
        wrong = TlsSettings(authority.pem, server_name="other.example.test")
        assert isinstance(await failing(connect(server.url, wrong)), NotConnected)
        insecure = TlsSettings(insecure=True, server_name="unknown.example.test")
        assert await get(connect(server.url, insecure), "/any") == b"/any"
    assert [asked.name for asked in server.asked] == ["api.example.test", "unknown.example.test"]
    assert [asked.header("host") for asked in server.asked] == [[f"127.0.0.1:{server.port}"]] * 2


async def test_client_certificates(authority: Authority, connect: Connect) -> None:
    def shown(name: str) -> TlsSettings:
        leaf = authority.issue(f"{name}@example.test", common_name=name)
        chain = b"".join(part.bytes() for part in leaf.cert_chain_pems)
        return TlsSettings(authority.pem, certificate=ClientCertificate(chain, leaf.private_key_pem.bytes()))

    async with Server(hello, authority.server(clients=True)).running() as server:
        for tls in (shown("one"), shown("two"), TlsSettings(authority.pem)):
            await get(connect(server.url, tls))
        assert [asked.certificate for asked in server.asked] == ["one", "two", None]
        one, two = shown("one").certificate, shown("two").certificate
        assert one is not None
        assert two is not None
        for bad in (
            ClientCertificate(one.chain, two.key),
            ClientCertificate(b"none", one.key),
            ClientCertificate(one.chain, b"none"),
            ClientCertificate(one.chain, _ENCRYPTED),
        ):
            error = await failing(connect(server.url, TlsSettings(authority.pem, certificate=bad)))
            assert isinstance(error, NotConnected)


async def test_old_tls_is_refused(authority: Authority, connect: Connect) -> None:
    context = authority.server()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        context.minimum_version = ssl.TLSVersion.TLSv1_1
        context.maximum_version = ssl.TLSVersion.TLSv1_1
    context.set_ciphers("ALL:@SECLEVEL=0")
    async with Server(hello, context).running() as server:
        assert isinstance(await failing(connect(server.url)), NotConnected)
