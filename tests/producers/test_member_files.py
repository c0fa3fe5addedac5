"""Which clusters files name: contexts that keep their names, what is left out and said, files that come and break."""

from __future__ import annotations

import asyncio
import contextlib
import os
import threading
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from producers.kubeconfig.merged import MergedKubeconfig
from producers.kubeconfig.model import BadKubeconfig
from producers.kubeconfig.yaml_values import dump
from producers.members.files import FileSource
from producers.members.membership import Members
from producers.rules.configuration import Configuration, Directory, Kubeconfig, Origin, Source, load
from producers.rules.rules import Rules
from producers.timing import ProducerTiming
from tests.patience import PATIENCE, eventually_awaited

ATTENTIVE = ProducerTiming(look_at_files_every=0.05)


def write(path: Path, contexts: dict[str, str], current: str = "", **servers: str) -> str:
    """A kubeconfig with contexts by name, each with its cluster entry; servers as given, else named as the entry."""
    document = {
        "current-context": current,
        "clusters": [
            {"name": one, "cluster": {"server": servers.get(one, f"https://{one}.example.com")}}
            for one in dict.fromkeys(contexts.values())
        ],
        "users": [{"name": "u", "user": {"token": "t"}}],
        "contexts": [{"name": name, "context": {"cluster": one, "user": "u"}} for name, one in contexts.items()],
    }
    draft = path.with_name(f".{path.name}")
    draft.write_text(dump(document))
    draft.replace(path)
    return str(path)


# -- contexts ----------------------------------------------------------------------------------------------------------

TWO_OF_ONE = {"dev": "one", "dev-admin": "one", "prod": "two"}


async def read(source: FileSource, known: tuple[str, ...] = ()) -> tuple[list[str], list[str]]:
    found = await source.read(known)
    return list(found.clusters), [f"{event} {dict(fields)}" for event, fields in found.remarks]


@pytest.mark.parametrize(
    ("current", "wanted", "known", "names"),
    [
        ("", (), (), ["dev", "prod"]),
        ("prod", (), (), ["dev", "prod"]),
        ("dev-admin", (), (), ["dev-admin", "prod"]),
        # Who has a name keeps it, whatever context is the current one now.
        ("dev-admin", (), ("dev", "prod"), ["dev", "prod"]),
        ("dev", (), ("dev-admin",), ["dev-admin", "prod"]),
        # Until its context has gone.
        ("dev-admin", (), ("gone", "prod"), ["dev-admin", "prod"]),
        ("dev", ("dev*",), (), ["dev"]),
        ("dev", ("dev*",), ("dev-admin",), ["dev-admin"]),
        ("dev", ("*-admin", "prod"), ("dev",), ["dev-admin", "prod"]),
        # By name each that is wanted.
        ("dev", ("prod", "dev-admin", "dev"), (), ["prod", "dev-admin", "dev"]),
        ("dev", ("dev-admin", "p*"), (), ["dev-admin", "prod"]),
    ],
)
async def test_which_contexts_become_clusters(
    tmp_path: Path, current: str, wanted: tuple[str, ...], known: tuple[str, ...], names: list[str]
) -> None:
    source = FileSource(Kubeconfig(write(tmp_path / "config", TWO_OF_ONE, current), wanted))
    found, remarks = await read(source, known)
    assert found == names
    dropped = {"dev", "dev-admin"} - set(names)
    if not wanted:
        (remark,) = remarks
        assert "left out: same cluster entry" in remark
        assert f"'context': '{dropped.pop()}'" in remark
        assert "--context" in remark


@pytest.mark.parametrize("name", [".", "..", "a/../b", "../prod"])
async def test_a_name_that_no_path_leads_to_is_left_out(tmp_path: Path, name: str) -> None:
    source = FileSource(Kubeconfig(write(tmp_path / "config", {**TWO_OF_ONE, name: "far"}, "dev"), ()))
    found, remarks = await read(source, ())
    assert name not in found
    assert "prod" in found
    assert any("could not be asked for" in remark and "rename it" in remark for remark in remarks)


async def test_an_unknown_context(tmp_path: Path) -> None:
    source = FileSource(Kubeconfig(write(tmp_path / "config", TWO_OF_ONE), ("nope",)))
    with pytest.raises(BadKubeconfig, match=r"no context 'nope' in .*; it has dev, dev-admin, prod"):
        await source.read()
    with pytest.raises(BadKubeconfig, match=r"no kubeconfig at .*none; give one with --kubeconfig"):
        await FileSource(Kubeconfig(str(tmp_path / "none"))).read()


async def test_two_files_with_the_names_of_kubeadm(tmp_path: Path) -> None:
    name = "kubernetes-admin@kubernetes"
    one = write(tmp_path / "one", {name: "kubernetes"}, kubernetes="https://a.example.com")
    two = write(tmp_path / "two", {name: "kubernetes"}, kubernetes="https://b.example.com")
    source = FileSource(Kubeconfig(f"{one}:{two}"))
    found = await source.read()
    assert {name: access.cluster.server for name, access in found.clusters.items()} == {name: "https://a.example.com"}
    ((event, fields),) = found.remarks
    assert event.startswith("left out: an earlier file has these names")
    said = dict(fields)
    assert (said["file"], said["contexts"], said["clusters"]) == (two, name, "kubernetes")
    assert "--directory" in said["mend"]
    # That is the way out.
    assert list((await FileSource(Directory(str(tmp_path))).read()).clusters) == ["one", "two"]


async def test_a_file_that_an_entry_names_and_that_comes_later(tmp_path: Path) -> None:
    path = tmp_path / "config"
    path.write_text(
        dump(
            {
                "clusters": [{"name": "c", "cluster": {"server": "https://c", "certificate-authority": "ca.pem"}}],
                "contexts": [{"name": "dev", "context": {"cluster": "c"}}],
            }
        )
    )
    source = FileSource(Kubeconfig(str(path)))
    assert "No such file" in (await source.read()).clusters["dev"].problem
    state = await source.state()
    assert await source.state() == state
    (tmp_path / "ca.pem").write_text("pem")
    assert await source.state() != state
    assert (await source.read()).clusters["dev"].problem == ""


# -- while producers run -----------------------------------------------------------------------------------------------


@contextlib.asynccontextmanager
async def following(*origins: Origin, file: Path | None = None, patience: float = PATIENCE) -> AsyncIterator[Members]:
    rules = Rules()
    configuration = load(file) if file is not None else Configuration(tuple(Source(one, rules) for one in origins))
    timing = ProducerTiming(look_at_files_every=ATTENTIVE.look_at_files_every, kubeconfig_files=patience)
    members = Members(configuration, file, timing)
    await members.first()
    task = asyncio.create_task(members.run())
    try:
        yield members
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


async def becomes(wanted: Callable[[], object]) -> None:
    async with asyncio.timeout(PATIENCE):
        while not wanted():
            await asyncio.sleep(0.01)


Looks = Callable[[], Awaitable[None]]


@pytest.fixture
def looked(monkeypatch: pytest.MonkeyPatch) -> Looks:
    """Returns when files have been looked at twice more."""
    looks = 0
    state = FileSource.state

    async def counting(self: FileSource) -> object:
        nonlocal looks
        looks += 1
        return await state(self)

    monkeypatch.setattr(FileSource, "state", counting)

    async def wait() -> None:
        before = looks
        await becomes(lambda: looks > before + 4)

    return wait


async def test_what_is_as_it_was_is_not_changed(tmp_path: Path, looked: Looks) -> None:
    path = tmp_path / "config"
    write(path, TWO_OF_ONE, "dev")
    with capture_logs() as logs:
        async with following(Kubeconfig(str(path))) as members:
            first = members.current
            members.changed.clear()
            os.utime(path)
            await looked()
            # `kubectl config use-context` in another terminal.
            write(path, TWO_OF_ONE, "dev-admin")
            await looked()
            assert members.current is first
            assert not members.changed.is_set()
            write(path, {**TWO_OF_ONE, "new": "three"}, "dev-admin")
            await becomes(lambda: set(members.current) == {"dev", "prod", "new"})
            assert all(members.current[name] == first[name] for name in first)
            write(path, TWO_OF_ONE, "dev", one="https://moved.example.com")
            await becomes(lambda: "new" not in members.current)
            assert members.current["dev"] != first["dev"]
            assert members.current["prod"] == first["prod"]
    said = [one for one in logs if one["event"].startswith("context left out")]
    assert [one["context"] for one in said] == ["dev-admin"], "once"


async def test_a_file_that_breaks_keeps_its_clusters(tmp_path: Path, looked: Looks) -> None:
    good, other = tmp_path / "good", tmp_path / "other"
    write(good, {"dev": "one"})
    write(other, {"prod": "two"})
    with capture_logs() as logs:
        async with following(Kubeconfig(str(good)), Kubeconfig(str(other))) as members:
            first = members.current
            good.write_text("users: [{name: u, user: {token: SECRET}")
            write(other, {"prod": "two", "more": "three"})
            await becomes(lambda: "more" in members.current)
            await looked()
            assert set(members.current) == {"dev", "prod", "more"}
            assert members.current["dev"] == first["dev"]
            write(good, {"dev": "one"})
            await becomes(lambda: any(one["event"] == "member clusters can be read again" for one in logs))
    (said,) = [one for one in logs if one["event"] == "member clusters cannot be read"]
    assert f"{good} is no YAML" in said["reason"]
    assert "SECRET" not in str(logs)


async def test_one_source_of_several_that_cannot_be_read_at_first(tmp_path: Path) -> None:
    good, late = tmp_path / "good", tmp_path / "late"
    write(good, {"dev": "one"})
    with capture_logs() as logs:
        async with following(
            Kubeconfig(str(late)), Kubeconfig(str(good)), Directory(str(tmp_path / "none"))
        ) as members:
            assert set(members.current) == {"dev"}
            write(late, {"prod": "two"})
            await becomes(lambda: set(members.current) == {"dev", "prod"})
    assert any("no kubeconfig at" in str(one.get("reason")) for one in logs)
    with pytest.raises(BadKubeconfig, match="no kubeconfig at"):
        await Members(Configuration((Source(Kubeconfig(str(tmp_path / "no")), Rules()),)), None, ATTENTIVE).first()


async def test_a_directory_with_broken_files(tmp_path: Path, looked: Looks) -> None:
    write(tmp_path / "east.yaml", {"x": "one"})
    (tmp_path / "notes.txt").write_text("not a kubeconfig")
    async with following(Directory(str(tmp_path))) as members:
        first = members.current
        assert set(first) == {"east"}
        (tmp_path / "east.yaml").write_text("clusters: [")
        write(tmp_path / "west.yaml", {"x": "two"})
        # An entry that cannot be used is a member all the same.
        write(tmp_path / "south.yaml", {"x": "three"}, three="")
        await becomes(lambda: set(members.current) == {"east", "west", "south"})
        assert members.current["east"] == first["east"]
        assert "no server is given" in members.current["south"].access.problem
        await looked()
        (tmp_path / "east.yaml").unlink()
        await becomes(lambda: set(members.current) == {"west", "south"})


async def test_two_sources_with_one_name(tmp_path: Path, looked: Looks) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    write(one, {"dev": "one"})
    write(two, {"dev": "two", "prod": "three"})
    with capture_logs() as logs:
        async with following(Kubeconfig(str(one)), Kubeconfig(str(two))) as members:
            await looked()
            os.utime(two)
            await looked()
            assert members.current["dev"].access.cluster.server == "https://one.example.com"
            assert set(members.current) == {"dev", "prod"}
    (said,) = [one["reason"] for one in logs if "two sources" in str(one.get("reason"))]
    assert said.endswith("the first is taken: give the other's context, file or label another name")


async def test_a_new_configuration_with_a_kubeconfig_that_is_not_there(tmp_path: Path) -> None:
    write(tmp_path / "one", {"dev": "one"})
    write(tmp_path / "two", {"prod": "two"})
    file = tmp_path / "kubebraid.yaml"
    file.write_text("clusters: [{kubeconfig: one}]\n")
    async with following(file=file) as members:
        assert set(members.current) == {"dev"}
        draft = tmp_path / "draft"
        draft.write_text("clusters: [{kubeconfig: one}, {kubeconfig: three}, {kubeconfig: two}]\n")
        draft.replace(file)
        await becomes(lambda: set(members.current) == {"dev", "prod"})
        write(tmp_path / "three", {"late": "three"})
        await becomes(lambda: set(members.current) == {"dev", "prod", "late"})


@pytest.mark.parametrize("key", ["certificate-authority", "client-certificate", "client-key"])
@pytest.mark.parametrize("kind", ["pipe", "/dev/zero"])
async def test_what_is_no_regular_file_concerns_its_cluster_alone(tmp_path: Path, key: str, kind: str) -> None:
    """Opening a pipe waits for its writer; what never ends is never read to its end."""
    os.mkfifo(tmp_path / "pipe")
    other = tmp_path / "other.pem"
    other.write_text("x")
    cluster = {"server": "https://odd.example.com"}
    pair = {"client-certificate": str(other), "client-key": str(other)}
    entry = {"certificate-authority": kind} if key == "certificate-authority" else {}
    document = {
        "clusters": [
            {"name": "odd", "cluster": {**cluster, **entry}},
            {"name": "good", "cluster": {"server": "https://good.example.com"}},
        ],
        "users": [{"name": "odd", "user": {} if entry else {**pair, key: kind}}],
        "contexts": [
            {"name": "odd", "context": {"cluster": "odd", "user": "odd"}},
            {"name": "good", "context": {"cluster": "good"}},
        ],
    }
    (tmp_path / "config").write_text(dump(document))
    found = await FileSource(Kubeconfig(str(tmp_path / "config"))).read()
    assert found.clusters["good"].problem == ""
    path = str(tmp_path / "pipe") if kind == "pipe" else kind
    assert f"{key} {path}: is no regular file" in found.clusters["odd"].problem


# -- a file server that does not answer --------------------------------------------------------------------------------


async def test_a_kubeconfig_that_hangs_holds_up_no_other_source(tmp_path: Path) -> None:
    """A pipe without a writer hangs as a file does whose server is dead."""
    dead, well = tmp_path / "dead", tmp_path / "well"
    os.mkfifo(dead)
    write(well, {"prod": "one"})
    with capture_logs() as logs:
        async with following(Kubeconfig(str(dead)), Kubeconfig(str(well)), patience=0.2) as members:
            assert set(members.current) == {"prod"}
            assert any("no answer from the file system" in line.get("reason", "") for line in logs)
            write(well, {"prod": "one", "dev": "two"})
            await becomes(lambda: set(members.current) == {"prod", "dev"})
            # What has nothing to do with files of members is not held up, however long that lasts.
            assert await asyncio.gather(*(asyncio.to_thread(int, "7") for _ in range(40))) == [7] * 40
            hanging = [thread for thread in threading.enumerate() if thread.name == "kubeconfigs"]
            assert len(hanging) < 4, "one that hangs is not read again beside that"
            text = Path(write(tmp_path / "text", {"far": "three"})).read_bytes()
            await asyncio.to_thread(dead.write_bytes, text)
            await asyncio.to_thread(_replace, dead, text)
            await becomes(lambda: set(members.current) == {"prod", "dev", "far"})


def _replace(pipe: Path, text: bytes) -> None:
    """A file in the place of a pipe."""
    (pipe.parent / "new").write_bytes(text)
    (pipe.parent / "new").replace(pipe)


@pytest.mark.parametrize("kind", ["contexts", "files"])
async def test_a_cluster_whose_files_hang_holds_up_no_other(
    tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    release, hanging, missing = threading.Event(), [], MergedKubeconfig.missing

    def hangs(self: MergedKubeconfig, context: str) -> list[str]:
        if context == "dead":
            hanging.append(context)
            release.wait(PATIENCE)
        return missing(self, context)

    monkeypatch.setattr(MergedKubeconfig, "missing", hangs)
    origin: Kubeconfig | Directory
    if kind == "contexts":
        origin = Kubeconfig(write(tmp_path / "config", {"a": "one", "dead": "two", "z": "three"}))
    else:
        for name in ("a", "dead", "z"):
            write(tmp_path / f"{name}.yaml", {name: name})
        origin = Directory(str(tmp_path))
    source = FileSource(origin, 0.1)
    found = await source.read()
    assert set(found.clusters) == {"a", "z"}
    assert list(found.unreadable) == ["dead"]
    assert "no answer from the file system within 0.1 s" in found.unreadable["dead"]
    # It is not looked at again, until it has answered.
    state = await source.state()
    assert set((await source.read()).clusters) == {"a", "z"}
    assert await source.state() == state
    assert hanging == ["dead"]
    release.set()
    await eventually_awaited(lambda: _differs(source, state))
    assert set((await source.read()).clusters) == {"a", "dead", "z"}


async def _differs(source: FileSource, state: object) -> bool:
    return await source.state() != state
