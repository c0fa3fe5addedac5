"""Tokens and certificates in files that somebody renews, half writes, takes away, or that hang."""

from __future__ import annotations

import asyncio
import os
import subprocess
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
import trustme

from producers.credentials import certificate_files, token_file
from producers.credentials.choosing import credential_for
from producers.credentials.credential import BadCredentials, ClientCertificate
from producers.credentials.files import LARGEST, read_file
from producers.credentials.key_pairs import key_pair
from producers.credentials.shared import SharedCredentials
from producers.kubeconfig.entries import Cluster, Impersonation, User
from producers.kubeconfig.model import ClusterAccess
from producers.timing import ProducerTiming
from tests.patience import PATIENCE, eventually, eventually_awaited
from tests.producers.credentials.conftest import TIMING, Pair

SECURE = Cluster("https://127.0.0.1:6443")


def access(**user: object) -> ClusterAccess:
    return ClusterAccess("dev", SECURE, User(**user))  # type: ignore[arg-type]


def token(value: str) -> tuple[tuple[str, str], ...]:
    return (("Authorization", f"Bearer {value}"),)


# -- tokens ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("around", ["{}\n", " \r\n\t{}\v\f ", "\u00a0{}\u2003\x85", "{}"])
async def test_a_tokens_file_is_trimmed(tmp_path: Path, shared: SharedCredentials, around: str) -> None:
    file = tmp_path / "token"
    file.write_text(around.format("t0ken"), newline="")
    credential = credential_for(access(token_file=str(file)), shared, TIMING)
    assert (await credential.current()).headers == token("t0ken")
    await credential.close()


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "is empty"),
        (b" \n", "is empty"),
        (b"t0ken\nt0ken", "control characters"),
        (b"t0\x1cken", "control characters"),
        (b"t0ken\x1c", "control characters"),
        ("t0ken".encode("utf-16"), "no text in UTF-8"),
        (b"t0ken\xff", "no text in UTF-8"),
        (b"x" * (LARGEST + 1), "MiB"),
        (None, "No such file"),
    ],
)
async def test_a_tokens_file_that_cannot_be_used(
    tmp_path: Path, shared: SharedCredentials, content: bytes | None, reason: str
) -> None:
    file = tmp_path / "token"
    if content is not None:
        file.write_bytes(content)
    alone = credential_for(access(token_file=str(file)), shared, TIMING)
    with pytest.raises(BadCredentials, match=reason) as refused:
        await alone.current()
    assert "t0" not in str(refused.value).replace(str(file), "")
    # A token beside it does; and once the file can be used it is the file's.
    both = credential_for(access(token_file=str(file), token="beside"), shared, TIMING)
    assert (await both.current()).headers == token("beside")
    file.write_text("written\n")
    assert (await alone.current()).headers == token("written")
    assert (await both.current()).headers == token("written")


async def test_a_directory_and_a_pipe_are_no_files_of_tokens(tmp_path: Path, shared: SharedCredentials) -> None:
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path, tmp_path / "pipe"):
        credential = credential_for(access(token_file=str(path)), shared, TIMING)
        with pytest.raises(BadCredentials):
            await credential.current()
    with pytest.raises(BadCredentials, match="no path"):
        await credential_for(access(token_file="a\0b"), shared, TIMING).current()


async def test_a_tokens_file_is_read_again_when_it_is_old_and_kept_when_it_is_lost(
    tmp_path: Path, shared: SharedCredentials
) -> None:
    file = tmp_path / "token"
    file.write_text("first")
    kept = credential_for(access(token_file=str(file)), shared, ProducerTiming(token_file=3600.0))
    renewed = credential_for(access(token_file=str(file)), shared, TIMING)
    assert (await kept.current()).headers == (await renewed.current()).headers == token("first")
    file.write_text("second")
    assert (await renewed.current()).headers == token("second")
    assert (await kept.current()).headers == token("first")
    for broken in (b"", b"a\nb"):
        file.write_bytes(broken)
        assert (await renewed.current()).headers == token("second")
    file.unlink()
    assert (await renewed.current()).headers == token("second")
    file.write_text("third")
    assert (await renewed.current()).headers == token("third")


async def test_a_401_has_the_tokens_file_read_again(tmp_path: Path, shared: SharedCredentials) -> None:
    file = tmp_path / "token"
    file.write_text("first")
    timing = ProducerTiming(token_file=3600.0, reload_credentials_every=0.0)
    credential = credential_for(access(token_file=str(file), impersonation=Impersonation("jane")), shared, timing)
    shown = await credential.current()
    assert shown.headers == (*token("first"), ("Impersonate-User", "jane"))
    file.write_text("second")
    assert await credential.current() == shown
    await credential.refused(shown)
    again = await credential.current()
    assert again.headers == (*token("second"), ("Impersonate-User", "jane"))
    file.write_text("third")
    await credential.refused(shown)
    assert await credential.current() == again, "what was refused is not what is shown now"


async def test_many_ask_for_a_token_and_some_go_away(tmp_path: Path, shared: SharedCredentials) -> None:
    file = tmp_path / "token"
    file.write_text("t0ken")
    credential = credential_for(access(token_file=str(file)), shared, TIMING)
    asking = [asyncio.create_task(credential.current()) for _ in range(20)]
    await asyncio.sleep(0)
    for task in asking[::2]:
        task.cancel()
    for task in asking[1::2]:
        assert (await task).headers == token("t0ken")
    await credential.close()
    with pytest.raises(BadCredentials, match="no longer followed"):
        await credential_closed(credential_for(access(token_file=str(file)), shared, TIMING))


async def credential_closed(credential: object) -> None:
    await credential.close()  # type: ignore[attr-defined]
    await credential.current()  # type: ignore[attr-defined]


# -- certificates ------------------------------------------------------------------------------------------------------


def test_a_pair_in_its_many_forms(issue: Callable[[str], Pair], tmp_path: Path) -> None:
    pair = issue("ann")
    plain = key_pair(pair.certificate, pair.key, "it")
    assert plain.chain.count(b"BEGIN CERTIFICATE") == pair.certificate.count(b"BEGIN CERTIFICATE")
    both = pair.key + b"\njunk\n" + pair.certificate
    assert key_pair(both, both, "it") == plain, "one text for both, in any order"
    assert key_pair(pair.certificate.replace(b"\n", b"\r\n"), pair.key.replace(b"\n", b"\r\n"), "it") == plain
    first, *lines, last = pair.key.strip().split(b"\n")
    in_one_line = b"\n".join((first, b"".join(lines), last, b""))
    assert key_pair(pair.certificate, in_one_line, "it") == plain, "Go has no limit for a line"
    bad = b"-----BEGIN %s-----\n!!!\n-----END %s-----\n"
    certificate = bad % (b"CERTIFICATE", b"CERTIFICATE") + pair.certificate
    key = bad % (b"PRIVATE KEY", b"PRIVATE KEY") + pair.key
    assert key_pair(certificate, key, "it") == plain, "what is no base64 is passed over"
    for headers in (b"Name: ann\n\n", b"Name: ann\n", b"\n"):
        assert key_pair(pair.certificate, pair.key.replace(b"-----\n", b"-----\n" + headers, 1), "it") == plain


def openssl(*arguments: str, stdin: bytes = b"") -> bytes:
    return subprocess.run(["openssl", *arguments], input=stdin, capture_output=True, check=True).stdout


@pytest.mark.processes
@pytest.mark.parametrize("kind", ["rsa:1024", "rsa:2048", "ec", "ed25519"])
def test_keys_of_all_kinds_and_under_other_labels(tmp_path: Path, kind: str) -> None:
    key, certificate = tmp_path / "key", tmp_path / "certificate"
    algorithm = {"ec": ["ec", "-pkeyopt", "ec_paramgen_curve:prime256v1"], "ed25519": ["ed25519"]}
    digest = "-sha1" if kind == "rsa:1024" else "-sha256"
    new = ["req", "-x509", "-newkey", *algorithm.get(kind, [kind]), digest, "-nodes", "-subj", "/CN=ann"]
    openssl(*new, "-keyout", str(key), "-out", str(certificate))
    pkcs8 = key.read_bytes()
    plain = key_pair(certificate.read_bytes(), pkcs8, "it")
    assert b"BEGIN PRIVATE KEY" in plain.key
    if kind != "ed25519":
        traditional = openssl("pkey", "-traditional", stdin=pkcs8)
        assert b"BEGIN PRIVATE KEY" not in traditional
        old = key_pair(certificate.read_bytes(), traditional, "it")
        label = old.key.split(b"\n")[0]
        assert label in (b"-----BEGIN RSA PRIVATE KEY-----", b"-----BEGIN EC PRIVATE KEY-----")
        # Go looks at what is in the block, not at what it is called.
        wrong = traditional.replace(label[11:-5], b"PRIVATE KEY")
        assert key_pair(certificate.read_bytes(), wrong, "it") == old
    if kind == "ec":
        parameters = openssl("ecparam", "-name", "prime256v1")
        assert b"EC PARAMETERS" in parameters
        assert key_pair(certificate.read_bytes(), parameters + pkcs8, "it") == plain
    for arguments in (["pkcs8", "-topk8"], *([] if kind == "ed25519" else [["pkey", "-traditional", "-aes256"]])):
        locked = openssl(*arguments, "-passout", "pass:opensesame", stdin=pkcs8)
        assert b"ENCRYPTED" in locked
        with pytest.raises(BadCredentials, match="encrypted"):
            key_pair(certificate.read_bytes(), locked, "it")


def test_pairs_that_are_refused(issue: Callable[[str], Pair], authority: trustme.CA) -> None:
    pair, other = issue("ann"), issue("bob")
    body = b"".join(pair.key.split(b"\n")[1:-2])
    for certificate, key, reason in (
        (b"", pair.key, "no certificate in PEM"),
        (pair.key, pair.key, "no certificate in PEM"),
        (pair.certificate, b"", "no private key in PEM"),
        (pair.certificate, pair.certificate, "no private key in PEM"),
        (pair.certificate, other.key, "another certificate's"),
        (pair.certificate, b"-----BEGIN PRIVATE KEY-----\n!\n-----END PRIVATE KEY-----\n", "no private key in PEM"),
        (pair.certificate, b"-----BEGIN PRIVATE KEY-----\n\n-----END PRIVATE KEY-----\n", "cannot be used"),
        (pair.certificate, b"-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n", "cannot be used"),
        (b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n", pair.key, "cannot be used"),
        (b"\xff\xfe\0", b"\xff", "no certificate in PEM"),
    ):
        with pytest.raises(BadCredentials, match=reason) as refused:
            key_pair(certificate, key, "client-certificate")
        assert body[:20].decode() not in str(refused.value)
        assert refused.value.__cause__ is None
    assert body[:20].decode() not in repr(key_pair(*pair, "it"))


async def test_certificate_files_are_read_again_and_half_a_change_is_none(
    tmp_path: Path, shared: SharedCredentials, issue: Callable[[str], Pair]
) -> None:
    first, second = issue("ann"), issue("ann")
    certificate, key = tmp_path / "certificate", tmp_path / "key"
    credential = credential_for(
        access(certificate_file=str(certificate), key_file=str(key), token="t0ken"), shared, TIMING
    )
    with pytest.raises(BadCredentials, match="No such file"):
        await credential.current()
    certificate.write_bytes(first.certificate)
    with pytest.raises(BadCredentials, match=r"client-key .*key: No such file"):
        await credential.current()
    key.write_bytes(first.key)
    shown = await credential.current()
    assert shown.headers == token("t0ken")
    assert shown.certificate == key_pair(*first, "it")
    assert await credential.current() is shown
    certificate.touch()
    assert await credential.current() is shown, "a file that was only touched is no change"
    certificate.write_bytes(second.certificate)
    assert await credential.current() is shown
    key.write_bytes(second.key)
    changed = await credential.current()
    assert changed.certificate == key_pair(*second, "it")
    key.unlink()
    assert await credential.current() is changed


async def test_one_of_the_pair_as_data(tmp_path: Path, shared: SharedCredentials, issue: Callable[[str], Pair]) -> None:
    pair = issue("ann")
    expected = key_pair(*pair, "it")
    file = tmp_path / "file"

    async def certificate(**user: object) -> ClientCertificate | None:
        return (await credential_for(access(**user), shared, TIMING).current()).certificate

    file.write_bytes(pair.key)
    assert await certificate(certificate_data=pair.certificate, key_file=str(file)) == expected
    assert await certificate(certificate_data=pair.certificate, key_data=pair.key) == expected
    file.write_bytes(pair.certificate)
    assert await certificate(certificate_file=str(file), key_data=pair.key) == expected
    assert await certificate(key_data=pair.key) is None, "a key alone is not looked at"
    with pytest.raises(BadCredentials, match="without client-key"):
        await certificate(certificate_file=str(file))


async def test_a_file_that_hangs_takes_one_thread_and_no_patience(
    tmp_path: Path, shared: SharedCredentials, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on a file server that does not answer."""
    released = asyncio.Event()
    loop = asyncio.get_running_loop()
    opened: list[str] = []
    real = os.open

    def hanging(path: str, *rest: int, **named: int) -> int:
        if str(path).endswith("hanging"):
            opened.append(str(path))
            asyncio.run_coroutine_threadsafe(released.wait(), loop).result()
        return real(path, *rest, **named)

    monkeypatch.setattr(os, "open", hanging)
    file = tmp_path / "hanging"
    file.write_text("t0ken")
    credential = credential_for(access(token_file=str(file)), shared, ProducerTiming(credential_files=0.05))
    for _ in range(3):
        with pytest.raises(BadCredentials, match="could not be read within"):
            await credential.current()
    assert len(opened) == 1
    released.set()

    async def there() -> bool:
        try:
            return (await credential.current()).headers == token("t0ken")
        except BadCredentials:
            return False

    await eventually_awaited(there)
    assert len(opened) == 1


# -- a file server that does not answer --------------------------------------------------------------------------------


async def test_files_of_a_dead_file_server_hold_up_only_each_other(
    tmp_path: Path,
    shared: SharedCredentials,
    issue: Callable[[str], Pair],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """However many clusters have theirs there: neither files elsewhere nor the loop's own threads wait for them."""
    dead, well = tmp_path / "dead", tmp_path / "well"
    release, hanging = threading.Event(), []

    def reads(path: str, what: str) -> bytes:
        if path.startswith(f"{dead}/"):
            hanging.append(path)
            release.wait(PATIENCE)
        return read_file(path, what)

    for module in (token_file, certificate_files):
        monkeypatch.setattr(module, "read_file", reads)
    pair = issue("jane")
    for place in (dead, well):
        place.mkdir()
        (place / "token").write_text("t0ken")
        (place / "crt").write_bytes(pair.certificate)
        (place / "key").write_bytes(pair.key)

    def both(place: Path) -> ClusterAccess:
        files = {"certificate_file": str(place / "crt"), "key_file": str(place / "key")}
        return access(token_file=str(place / "token"), **files)

    stuck = [credential_for(both(dead), shared, TIMING) for _ in range(200)]
    waiting = [asyncio.create_task(one.current()) for one in stuck]
    try:
        await eventually(lambda: len(hanging) == 8)
        async with asyncio.timeout(PATIENCE):
            for _ in range(20):
                credential = credential_for(both(well), shared, TIMING)
                shown = await credential.current()
                assert (shown.headers, shown.certificate) == (token("t0ken"), ClientCertificate(*pair))
                await credential.close()
            assert await asyncio.gather(*(asyncio.to_thread(int, "7") for _ in range(50))) == [7] * 50
        assert len(hanging) == 8
    finally:
        release.set()
        for task in waiting:
            task.cancel()
        await asyncio.gather(*waiting, return_exceptions=True)
        for one in stuck:
            await one.close()
