"""Credential plugins as real processes: what they are given, when they are run, and that nothing of them stays."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from producers.credentials.choosing import credential_for
from producers.credentials.credential import BadCredentials, Credential, Presented
from producers.credentials.exec_credential import VERSIONS
from producers.credentials.exec_plugin import PluginSlots, plugin_environment
from producers.credentials.shared import SharedCredentials
from producers.kubeconfig.entries import Cluster, Exec, User
from producers.kubeconfig.model import ClusterAccess
from producers.timing import ProducerTiming
from tests.patience import PATIENCE, eventually
from tests.producers.credentials.clock import Clock
from tests.producers.credentials.conftest import TIMING, Plugins

pytestmark = pytest.mark.processes

V1, V1BETA1 = VERSIONS
SECURE = Cluster("https://127.0.0.1:6443")
IMPATIENT = ProducerTiming(plugin=1.0, plugin_backoff=(0.01, 0.02))


def user(command: str, **more: object) -> User:
    settings: dict[str, object] = {"api_version": V1, "command": command, **more}
    return User(exec=Exec(**settings))  # type: ignore[arg-type]


def of(shared: SharedCredentials, command: str, cluster: Cluster = SECURE, **more: object) -> Credential:
    return credential_for(ClusterAccess("dev", cluster, user(command, **more)), shared, TIMING)


def token(shown: Presented) -> str:
    ((name, value),) = shown.headers
    assert name == "Authorization"
    return value.removeprefix("Bearer ")


def alive(pid: int) -> bool:
    """Whether a process runs; one that only waits to be waited for does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in ("Z", "X")
    except (FileNotFoundError, ProcessLookupError):
        return False


async def reason(credential: Credential) -> str:
    with pytest.raises(BadCredentials) as refused:
        await credential.current()
    assert refused.value.__cause__ is None
    assert "\n" not in str(refused.value)
    return str(refused.value)


@contextlib.asynccontextmanager
async def sharing(timing: ProducerTiming, slots: PluginSlots | None = None) -> AsyncIterator[SharedCredentials]:
    shared = SharedCredentials(timing, slots=slots)
    try:
        yield shared
    finally:
        await shared.close()


# -- what they are given -----------------------------------------------------------------------------------------------

ECHO = "answer(token=json.dumps([os.environ.get('KUBERNETES_EXEC_INFO'), sys.argv[1:], dict(os.environ), os.getcwd()]))"


async def test_what_a_plugin_is_given(
    shared: SharedCredentials, plugins: Plugins, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("INHERITED", "yes")
    monkeypatch.setenv("CHANGED", "before")
    command = plugins.python("echo", ECHO)
    environment = (("CHANGED", "first"), ("CHANGED", "last"), ("EMPTY", ""), ("KUBERNETES_EXEC_INFO", "mine"))
    credential = of(shared, command, arguments=("a b", "$HOME", "", "*"), environment=environment)
    info, arguments, given, folder = json.loads(token(await credential.current()))
    assert json.loads(info) == {"kind": "ExecCredential", "apiVersion": V1, "spec": {"interactive": False}}
    assert arguments == ["a b", "$HOME", "", "*"]
    assert (given["INHERITED"], given["CHANGED"], given["EMPTY"]) == ("yes", "last", "")
    assert folder == os.getcwd()


async def test_cluster_info_for_who_wants_it(shared: SharedCredentials, plugins: Plugins, tmp_path: Path) -> None:
    """As GKE's and Gardener's plugins do."""
    command = plugins.python("echo", ECHO)
    authority = tmp_path / "ca.pem"
    cluster = Cluster("https://127.0.0.1:6443/k", authority_file=str(authority), exec_config=b'{"a":[1]}')
    credential = of(shared, command, cluster, provide_cluster_info=True, api_version=V1)
    assert f"certificate-authority {authority}: No such file" in await reason(credential)
    authority.write_bytes(b"pem")
    await asyncio.sleep(TIMING.plugin_backoff[1] * 2)
    info = json.loads(json.loads(token(await credential.current()))[0])
    assert info["spec"]["cluster"] == {
        "server": "https://127.0.0.1:6443/k",
        "certificate-authority-data": "cGVt",
        "config": {"a": [1]},
    }


async def test_a_plugin_cannot_ask_and_reads_nothing(shared: SharedCredentials, plugins: Plugins) -> None:
    command = plugins.python(
        "asks", "answer(token=f'{sys.stdin.read()!r} {os.isatty(0)} {os.getsid(0) == os.getpid()}')"
    )
    assert token(await of(shared, command).current()) == "'' False True"
    assert "there is no terminal here" in await reason(of(shared, command, interactive_mode="Always"))
    assert "interactiveMode is none of" in await reason(of(shared, command, interactive_mode="never"))
    assert len(plugins.runs("asks")) == 1


async def test_versions(shared: SharedCredentials, plugins: Plugins) -> None:
    command = plugins.python("beta", "answer('v1beta1', token='t')")
    assert token(await of(shared, command, api_version=V1BETA1).current()) == "t"
    assert f"is configured to use apiVersion {V1}, and answered in {V1BETA1}" in await reason(of(shared, command))
    for version in ("client.authentication.k8s.io/v1alpha1", "", "v1"):
        assert "apiVersion is none of" in await reason(of(shared, command, api_version=version))
    # Refused also beside a token, as the plugin is set up there, too.
    access = ClusterAccess("dev", SECURE, User(token="t", exec=Exec("v1alpha1", command)))
    assert "apiVersion is none of" in await reason(credential_for(access, shared, TIMING))


async def test_how_a_command_is_found(
    shared: SharedCredentials, plugins: Plugins, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    plugins.shell("found", f"""echo '{{"apiVersion":"{V1}","status":{{"token":"t"}}}}'""")
    first = tmp_path / "first"
    (first / "found").mkdir(parents=True)
    (first / "plain").write_text("#!/bin/sh\n")
    monkeypatch.chdir(plugins.directory)
    monkeypatch.setenv("PATH", f"{first}:{tmp_path / 'missing'}:{plugins.directory}")
    assert token(await of(shared, "found").current()) == "t"
    # The configuration's PATH is the plugin's, and not where it is looked for.
    elsewhere = of(shared, "found", environment=(("PATH", "/nowhere:/bin"),))
    assert token(await elsewhere.current()) == "t"
    for path in (".", "", f"{first}:", f"{first}:relative/../.", f".:{plugins.directory}"):
        monkeypatch.setenv("PATH", path)
        said = await reason(of(shared, "found", arguments=(path,)))
        assert ("is not installed" if path == "" else "relative to the working directory") in said, path
    monkeypatch.delenv("PATH")
    assert "plugin found is not installed" in await reason(of(shared, "found", arguments=("unset",)))
    assert "Permission denied" not in await reason(of(shared, "plain"))
    for command, said in (
        (str(first / "missing"), "plugin missing cannot be started: No such file or directory"),
        (str(first / "plain"), "plugin plain cannot be started: it is no executable file"),
        (str(first), "plugin first cannot be started: it is no executable file"),
        ("a\0b/c", "plugin c cannot be started"),
    ):
        assert said in await reason(of(shared, command))


async def test_what_cannot_be_started(shared: SharedCredentials, plugins: Plugins) -> None:
    script = plugins.python("fine", "answer(token='t')")
    for name, text in (("nothing", ""), ("binary", "\x7fELF"), ("lost", "#!/no/such/interpreter\n")):
        path = plugins.directory / name
        path.write_text(text)
        path.chmod(0o755)
        assert f"plugin {name} cannot be started" in await reason(of(shared, str(path)))
    assert "a NUL" in await reason(of(shared, script, arguments=("s3cret\0",)))
    assert "a NUL" in await reason(of(shared, script, environment=(("A", "s3cret\0"),)))
    assert "cannot be started" in await reason(of(shared, script, arguments=("\ud800",)))
    assert "Argument list too long" in await reason(of(shared, script, arguments=("s3cret" * 1_000_000,)))
    assert plugins.runs("fine") == []


def test_environment_with_equals_signs() -> None:
    assert plugin_environment({"A": "1", "B": "2"}, (("A=x", "y"), ("", "z"), ("=q", "r")), "info") == {
        "A": "x=y",
        "B": "2",
        "KUBERNETES_EXEC_INFO": "info",
    }


# -- when they are run -------------------------------------------------------------------------------------------------


def stamp(moment: float) -> str:
    return datetime.fromtimestamp(moment, UTC).isoformat().replace("+00:00", "Z")


COUNTS = """
path = sys.argv[0] + '.runs'
number = len(open(path).read().split())
expires = open(sys.argv[0] + '.expires').read() if os.path.exists(sys.argv[0] + '.expires') else None
answer(token=f'token-{number}', expirationTimestamp=expires)
"""


async def test_run_once_and_again_on_expiry(shared: SharedCredentials, plugins: Plugins, clock: Clock) -> None:
    command = plugins.python("counts", COUNTS)
    expires = Path(f"{command}.expires")
    expires.write_text(stamp(clock.now + 10))
    credential = of(shared, command)
    first = await asyncio.gather(*(credential.current() for _ in range(50)))
    assert {token(one) for one in first} == {"token-1"}
    clock.now += 9.9
    assert token(await credential.current()) == "token-1"
    clock.now += 0.2
    expires.write_text(stamp(clock.now + 10))
    again = await asyncio.gather(*(credential.current() for _ in range(50)))
    assert {token(one) for one in again} == {"token-2"}
    assert len(plugins.runs("counts")) == 2


async def test_an_answer_that_has_expired_is_shown_and_asked_for_again_with_pauses(
    plugins: Plugins, clock: Clock
) -> None:
    command = plugins.python("counts", COUNTS)
    Path(f"{command}.expires").write_text(stamp(clock.now - 1))
    shared = SharedCredentials(ProducerTiming(plugin_backoff=(PATIENCE, PATIENCE)), clock=clock)
    credential = of(shared, command)
    for _ in range(5):
        assert token(await credential.current()) == "token-1"
    await shared.close()
    assert len(plugins.runs("counts")) == 1


async def test_a_401_has_it_run_once(shared: SharedCredentials, plugins: Plugins) -> None:
    command = plugins.python("counts", COUNTS)
    credential = of(shared, command)
    first = await credential.current()
    await asyncio.sleep(TIMING.plugin_backoff[1] * 2)
    for _ in range(5):
        await credential.refused(first)
    assert len(plugins.runs("counts")) == 1, "not before the next request"
    second = await credential.current()
    assert token(second) == "token-2"
    await credential.refused(first)
    assert await credential.current() == second, "what was refused is not what is shown now"


async def test_refused_again_and_again(plugins: Plugins) -> None:
    """A server that takes none of its answers does not have it run with each request."""
    command = plugins.python("counts", COUNTS)
    async with sharing(ProducerTiming(plugin_backoff=(PATIENCE, PATIENCE))) as shared:
        credential = of(shared, command)
        for _ in range(10):
            await credential.refused(await credential.current())
        assert len(plugins.runs("counts")) == 1
    same = plugins.python("same", "answer(token='t')")
    async with sharing(ProducerTiming(plugin_backoff=(0.3, 0.3))) as shared:
        credential = of(shared, same)
        first = await credential.current()
        await asyncio.sleep(1)
        for _ in range(10):
            await credential.refused(first)
            assert await credential.current() == first
        assert len(plugins.runs("same")) == 2


async def test_a_failure_at_a_401_leaves_what_there_was(shared: SharedCredentials, plugins: Plugins) -> None:
    command = plugins.python(
        "wavers", "answer(token='t') if not os.path.exists(sys.argv[0] + '.broken') else sys.exit(1)"
    )
    credential = of(shared, command)
    first = await credential.current()
    Path(f"{command}.broken").touch()
    await asyncio.sleep(TIMING.plugin_backoff[1] * 2)
    await credential.refused(first)
    with capture_logs() as logs:
        assert await credential.current() == first
    assert [line["reason"] for line in logs] == ["plugin wavers failed with exit code 1"]


async def test_a_failure_is_tried_again_with_pauses_and_not_with_each_request(plugins: Plugins, clock: Clock) -> None:
    command = plugins.python("fails", "sys.exit(3)")
    async with sharing(ProducerTiming(plugin_backoff=(PATIENCE, PATIENCE))) as shared:
        credential = of(shared, command)
        with capture_logs() as logs:
            for _ in range(5):
                assert await reason(credential) == "plugin fails failed with exit code 3"
        assert len(plugins.runs("fails")) == 1
        assert len([line for line in logs if line["log_level"] == "warning"]) == 1
    async with sharing(TIMING) as shared:
        credential = of(shared, command)
        await reason(credential)
        plugins.python("fails", "answer(token='t')")
        await asyncio.sleep(TIMING.plugin_backoff[1] * 2)
        assert token(await credential.current()) == "t"


async def test_expired_and_failing_is_nothing(shared: SharedCredentials, plugins: Plugins, clock: Clock) -> None:
    command = plugins.python("counts", COUNTS)
    Path(f"{command}.expires").write_text(stamp(clock.now + 10))
    credential = of(shared, command)
    await credential.current()
    clock.now += 11
    plugins.python("counts", "sys.exit(4)")
    assert "exit code 4" in await reason(credential)
    assert "exit code 4" in await reason(credential)
    # A clock that is set back makes of it what it was.
    clock.now -= 11
    assert token(await credential.current()) == "token-1"


async def test_shared_by_the_whole_configuration(shared: SharedCredentials, plugins: Plugins) -> None:
    command = plugins.python("counts", COUNTS)
    other = Cluster("https://127.0.0.2:6443")
    one, two = of(shared, command), of(shared, command, other)
    assert token(await one.current()) == token(await two.current()) == "token-1"
    assert token(await of(shared, command, arguments=("x",)).current()) == "token-2"
    assert token(await of(shared, command, Cluster(SECURE.server, exec_config=b"1")).current()) == "token-3"
    informed = of(shared, command, provide_cluster_info=True)
    assert token(await informed.current()) == "token-4"
    assert token(await of(shared, command, other, provide_cluster_info=True).current()) == "token-5"
    await one.close()
    await one.close()
    assert token(await two.current()) == "token-1", "another still uses it"
    await two.close()
    assert token(await of(shared, command).current()) == "token-6"


# -- that they end -----------------------------------------------------------------------------------------------------


async def gone(pids: list[int]) -> None:
    await eventually(lambda: not any(alive(pid) for pid in pids))


HANGS = "signal.signal(signal.SIGTERM, signal.SIG_IGN)\ntime.sleep(1000)"


async def test_one_that_hangs_is_killed_with_its_children(plugins: Plugins) -> None:
    command = plugins.python(
        "hangs",
        "child = subprocess.Popen(['/bin/sh', '-c', 'trap \"\" TERM; sleep 1000'])\n"
        "open(sys.argv[0] + '.runs', 'a').write(f'{child.pid}\\n')\n" + HANGS,
    )
    async with sharing(IMPATIENT) as shared:
        credential = of(shared, command)
        assert await reason(credential) == "plugin hangs did not answer within 1 s"
        pids = plugins.runs("hangs")
        assert len(pids) == 2
        await gone(pids)
        await asyncio.sleep(IMPATIENT.plugin_backoff[1] * 2)
        assert await reason(credential) == "plugin hangs did not answer within 1 s"
        await gone(plugins.runs("hangs"))


async def test_one_whose_child_holds_its_output(plugins: Plugins) -> None:
    """kubectl waits for it without end."""
    command = plugins.shell(
        "leaves",
        f"""echo '{{"apiVersion":"{V1}","status":{{"token":"t"}}}}'
sleep 1000 &
echo $! >>'{plugins.directory}/leaves.runs'""",
    )
    async with sharing(IMPATIENT) as shared:
        assert token(await of(shared, command).current()) == "t"
        await gone(plugins.runs("leaves"))
    late = plugins.shell("late", f"""(sleep 0.5; echo '{{"apiVersion":"{V1}","status":{{"token":"late"}}}}') &""")
    async with sharing(TIMING) as shared:
        assert token(await of(shared, late).current()) == "late", "a child may answer, as with kubectl"


async def test_one_that_closes_its_output_and_stays(plugins: Plugins) -> None:
    command = plugins.python("stays", "answer(token='t')\nsys.stdout.flush()\nos.close(1)\nos.close(2)\n" + HANGS)
    async with sharing(IMPATIENT) as shared:
        assert await reason(of(shared, command)) == "plugin stays did not answer within 1 s"
        await gone(plugins.runs("stays"))


async def test_a_child_that_has_let_go_is_ended_too(shared: SharedCredentials, plugins: Plugins) -> None:
    command = plugins.python(
        "forks",
        "child = subprocess.Popen(['sleep', '1000'], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)\n"
        "open(sys.argv[0] + '.runs', 'a').write(f'{child.pid}\\n')\nanswer(token='t')",
    )
    assert token(await of(shared, command).current()) == "t"
    await gone(plugins.runs("forks"))


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ("for _ in range(1 << 14): sys.stdout.write('x' * (1 << 16))", "printed more than 1 MiB"),
        (
            "while True: os.write(1, b's3cret' * 10_000)",
            "printed more than 1 MiB, where an ExecCredential alone is expected: run it by hand to see what",
        ),
        ("while True: os.write(2, b's3cret' * 10_000)", "wrote more than 16 MiB to standard error"),
        ("os.kill(os.getpid(), signal.SIGKILL)", "was ended by signal 9"),
        ("os.kill(os.getpid(), signal.SIGSEGV)", "was ended by signal 11"),
        ("sys.exit(255)", "failed with exit code 255"),
        ("pass", "answered with no ExecCredential"),
        ("os.write(1, '{\"é'.encode()[:-1])", "begins as JSON and is none"),
        ("print('s3cret')", "answered with no ExecCredential"),
        ("answer(token='s3cret\\n')", "control characters, such as a line break at its end"),
    ],
)
async def test_plugins_that_do_it_wrong(shared: SharedCredentials, plugins: Plugins, body: str, said: str) -> None:
    command = plugins.python("wrong", body)
    found = await reason(of(shared, command))
    assert said in found
    assert "plugin wrong " in found
    assert "s3cret" not in found
    await gone(plugins.runs("wrong"))


async def test_much_on_standard_error_beside_an_answer(shared: SharedCredentials, plugins: Plugins) -> None:
    """More than a pipe holds: who reads standard output alone would wait for ever."""
    command = plugins.python(
        "talks", "sys.stderr.write('x' * 1_000_000)\nanswer(token='t')\nsys.stderr.write('y' * 1_000_000)"
    )
    assert token(await of(shared, command).current()) == "t"


async def test_standard_error_is_for_debugging_and_without_the_configurations_secrets(
    shared: SharedCredentials, plugins: Plugins, monkeypatch: pytest.MonkeyPatch
) -> None:
    command = plugins.python(
        "tells",
        "secret = os.environ['PASSWORD']\n"
        "sys.stderr.write(f'first\\nlogin of {sys.argv[1]} with {secret} failed\\x1b[0m\\n\\n')\nsys.exit(1)",
    )
    credential = of(shared, command, arguments=("s3cret-argument",), environment=(("PASSWORD", "s3cret-value"),))
    with capture_logs() as logs:
        assert await reason(credential) == "plugin tells failed with exit code 1"
    by_level = {line["log_level"]: line for line in logs}
    assert set(by_level) == {"warning", "debug"}
    assert by_level["debug"]["said"] == "login of *** with *** failed?[0m"
    assert by_level["warning"]["reason"] == "plugin tells failed with exit code 1"
    assert "s3cret" not in str(logs) + repr(credential)


async def test_the_hint_for_installing_it_is_logged_once(shared: SharedCredentials) -> None:
    credential = of(shared, "no-such-plugin", install_hint="get it\nfrom \x1b[31mexample.test")
    with capture_logs() as logs:
        for _ in range(2):
            assert "plugin no-such-plugin is not installed: no such command in the PATH" in await reason(credential)
            await asyncio.sleep(TIMING.plugin_backoff[1] * 2)
    assert [line["hint"] for line in logs if "hint" in line] == ["get it from [31mexample.test"]


async def test_closing_ends_what_runs(plugins: Plugins) -> None:
    command = plugins.python("hangs", HANGS)
    shared = SharedCredentials(TIMING)
    credential = of(shared, command)
    waiting = asyncio.create_task(credential.current())
    await eventually(lambda: plugins.runs("hangs"))
    await credential.close()
    # It was killed; the system may take a moment to end it.
    await eventually(lambda: not alive(plugins.runs("hangs")[0]))
    with pytest.raises(BadCredentials, match="no longer followed"):
        await waiting
    # Also where the last use was not closed.
    plugins.python("other", HANGS)
    left = of(shared, str(plugins.directory / "other"))
    waiting = asyncio.create_task(left.current())
    await eventually(lambda: plugins.runs("other"))
    await shared.close()
    await eventually(lambda: not alive(plugins.runs("other")[0]))
    with pytest.raises(BadCredentials, match="no longer followed"):
        await waiting


async def test_who_goes_away_does_not_end_it_for_others(shared: SharedCredentials, plugins: Plugins) -> None:
    command = plugins.python(
        "waits", "while not os.path.exists(sys.argv[0] + '.go'): time.sleep(0.01)\nanswer(token='t')"
    )
    credential = of(shared, command)
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.05):
            await credential.current()
    asking = [asyncio.create_task(credential.current()) for _ in range(10)]
    await asyncio.sleep(0)
    for task in asking[:9]:
        task.cancel()
    Path(f"{command}.go").touch()
    assert token(await asking[9]) == "t"
    assert len(plugins.runs("waits")) == 1


async def test_who_gives_up_sooner_can_say_what_it_waited_for(plugins: Plugins) -> None:
    command = plugins.python(
        "waits", "while not os.path.exists(sys.argv[0] + '.go'): time.sleep(0.01)\nanswer(token='t')"
    )
    async with sharing(TIMING, PluginSlots(beginning=1)) as shared:
        first, second = of(shared, command), of(shared, command, arguments=("again",))
        assert first.waits_for == ""
        asking = [asyncio.create_task(one.current()) for one in (first, second)]
        await eventually(lambda: plugins.runs("waits"))
        assert first.waits_for == "plugin waits has not answered yet"
        assert second.waits_for == "plugin waits waits for others to end"
        Path(f"{command}.go").touch()
        await asyncio.gather(*asking)
        assert first.waits_for == second.waits_for == ""


@pytest.mark.parametrize("steps", range(0, 40, 3))
async def test_closed_at_any_moment_nothing_stays(plugins: Plugins, steps: int) -> None:
    command = plugins.python("hangs", HANGS)
    shared = SharedCredentials(TIMING)
    credential = of(shared, command)
    waiting = asyncio.create_task(credential.current())
    for _ in range(steps):
        await asyncio.sleep(0.002 if steps % 2 else 0)
    await credential.close()
    with pytest.raises(BadCredentials):
        await waiting
    await shared.close()
    # One that was being started then is killed where it is started.
    assert await asyncio.to_thread(shared.threads.wait, PATIENCE)
    assert not [pid for pid in processes() if command in command_line(pid) and alive(pid)]


def processes() -> list[int]:
    return [int(path.name) for path in Path("/proc").iterdir() if path.name.isdecimal()]


def command_line(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().decode()
    except (FileNotFoundError, ProcessLookupError):
        return ""


async def test_as_many_at_once_as_there_is_room_for(plugins: Plugins) -> None:
    commands = [
        plugins.python(
            f"busy{number}",
            "folder = os.path.dirname(sys.argv[0]) + '/now'\nos.makedirs(folder, exist_ok=True)\n"
            "open(f'{folder}/{os.getpid()}', 'w')\ntime.sleep(0.05)\n"
            "at_once = len(os.listdir(folder))\nos.remove(f'{folder}/{os.getpid()}')\nanswer(token=str(at_once))",
        )
        for number in range(12)
    ]
    async with sharing(TIMING, PluginSlots(beginning=3)) as shared:
        answers = await asyncio.gather(*(of(shared, command).current() for command in commands))
    assert max(int(token(one)) for one in answers) <= 3


async def test_those_that_hang_do_not_keep_others_from_beginning(plugins: Plugins) -> None:
    hanging = [plugins.python(f"hangs{number}", HANGS) for number in range(4)]
    fine = plugins.python("fine", "answer(token='t')")
    async with sharing(TIMING, PluginSlots(beginning=2, running=8, settled=0.2)) as shared:
        waiting = [asyncio.create_task(of(shared, command).current()) for command in hanging]
        await eventually(lambda: plugins.runs("hangs0"))
        assert token(await of(shared, fine).current()) == "t"
        await shared.close()
        for task in waiting:
            with pytest.raises(BadCredentials):
                await task
    assert not any(alive(pid) for number in range(4) for pid in plugins.runs(f"hangs{number}"))


async def test_without_descriptors_of_processes(
    shared: SharedCredentials, plugins: Plugins, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Some sandboxes refuse pidfd_open."""

    def refused(pid: int, flags: int = 0) -> int:
        raise PermissionError

    monkeypatch.setattr(os, "pidfd_open", refused)
    assert token(await of(shared, plugins.python("fine", "answer(token='t')")).current()) == "t"
    assert "exit code 2" in await reason(of(shared, plugins.python("fails", "sys.exit(2)")))
    command = plugins.python("hangs", HANGS)
    async with sharing(IMPATIENT) as impatient:
        assert "did not answer within 1 s" in await reason(of(impatient, command))
    await gone(plugins.runs("hangs"))


async def test_no_descriptor_and_no_zombie_stays(shared: SharedCredentials, plugins: Plugins) -> None:
    before = len(os.listdir("/proc/self/fd"))
    for number in range(5):
        await of(shared, plugins.python("fine", "answer(token='t')"), arguments=(str(number),)).current()
        await reason(of(shared, plugins.python("fails", "sys.exit(2)"), arguments=(str(number),)))
    assert len(os.listdir("/proc/self/fd")) == before
    pids = plugins.runs("fine") + plugins.runs("fails")
    assert len(pids) == 10
    assert not any(Path(f"/proc/{pid}").exists() for pid in pids)
