"""A credential plugin: a command that prints a token or a certificate, run again when that is over.

Rules: https://kubernetes.io/docs/reference/access-authn-authz/authentication/#client-go-credential-plugins,
k8s.io/client-go plugin/pkg/client/auth/exec/exec.go. Where a daemon needs more than kubectl (a limit in time, pauses
after failures, children that are ended): docs/credentials.md.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import time
from collections.abc import AsyncIterator, Callable, Mapping
from concurrent.futures import Executor

import structlog

from deltalog.jetstream.backoff import Backoff
from producers.credentials.credential import BadCredentials, Presented
from producers.credentials.exec_credential import VERSIONS, Answer, exec_info, read_answer
from producers.credentials.files import read_file
from producers.credentials.plugin_process import Command, NotInstalled, RunFailed, run
from producers.credentials.shared_work import OffLoop, SharedWork
from producers.kubeconfig.entries import Cluster, Exec
from producers.timing import ProducerTiming

log = structlog.get_logger("producers.credentials.exec_plugin")

EXEC_INFO = "KUBERNETES_EXEC_INFO"
_HELP = "https://kubernetes.io/docs/reference/access-authn-authz/authentication/#client-go-credential-plugins"


class PluginSlots:
    """How many plugins run at once, in all clusters of a process: those that begin, and those that take long.

    A plugin that starts an interpreter takes a second of a processor; one that has run for `settled` seconds waits for
    something, and no longer keeps others from beginning. Example: with 8 and 32, 100 plugins that hang keep another one
    from beginning for at most some limits, not for ever.
    """

    def __init__(self, beginning: int = 8, running: int = 32, settled: float = 10.0) -> None:
        self._beginning = asyncio.Semaphore(beginning)
        self._running = asyncio.Semaphore(running)
        self._settled = settled

    @contextlib.asynccontextmanager
    async def slot(self) -> AsyncIterator[None]:
        """The block runs when there is room for it."""
        async with self._running:
            await self._beginning.acquire()
            settled = asyncio.get_running_loop().call_later(self._settled, self._beginning.release)
            try:
                yield
            finally:
                if settled.when() > asyncio.get_running_loop().time() and not settled.cancelled():
                    settled.cancel()
                    self._beginning.release()


def find_command(command: str, path: str) -> str:
    """The file that a command is, as Go's exec.LookPath finds it in `path` ($PATH). Blocking.

    Raises:
        RunFailed: there is none, or it would be found in the working directory.
    """
    if "/" in command:
        try:
            found = os.stat(command)
        except (OSError, ValueError) as cause:
            raise RunFailed(f"cannot be started: {getattr(cause, 'strerror', None) or 'no path'}") from None
        if os.path.isdir(command) or not _executable(command, found.st_mode):
            raise RunFailed("cannot be started: it is no executable file")
        return command
    for directory in path.split(os.pathsep) if path else ():
        candidate = os.path.normpath(os.path.join(directory or ".", command))
        try:
            mode = os.stat(candidate).st_mode
        except (OSError, ValueError):
            continue
        if os.path.isdir(candidate) or not _executable(candidate, mode):
            continue
        if not os.path.isabs(candidate):
            raise RunFailed("is found only relative to the working directory, which is not safe; give its whole path")
        return candidate
    raise NotInstalled(f"is not installed: no such command in the PATH of this process; see {_HELP}")


def _executable(path: str, mode: int) -> bool:
    return bool(mode & 0o111) and os.access(path, os.X_OK)


def plugin_environment(parent: Mapping[str, str], configured: tuple[tuple[str, str], ...], info: str) -> dict[str, str]:
    """A plugin's whole environment: ours, then the configuration's, of which the last counts, then what it is told."""
    environment = dict(parent)
    for name, value in configured:
        # What stands behind a `=` in the name is the value's, as the system has it.
        key, equals, rest = name.partition("=")
        if key:
            environment[key] = f"{rest}={value}" if equals else value
    environment[EXEC_INFO] = info
    return environment


def plugin_name(command: str) -> str:
    """How messages call a plugin: its command without folders and control characters."""
    plain = "".join(letter if letter.isprintable() else "?" for letter in os.path.basename(command))
    return plain[:80] or "without a name"


class ExecPlugin:
    """One plugin with one configuration, for all clusters that have it; run by one task at a time.

    It is run when there is nothing to show, when that has expired, and after a 401; with growing pauses
    (`timing.plugin_backoff`) after a failure, a refusal of what it just gave, or an answer that has expired already.
    """

    def __init__(
        self,
        plugin: Exec,
        cluster: Cluster,
        slots: PluginSlots,
        threads: Executor,
        timing: ProducerTiming,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._plugin = plugin
        self._cluster = cluster
        self._slots = slots
        self._threads = threads
        self._timing = timing
        self._clock = clock
        self._what = f"plugin {plugin_name(plugin.command)}"
        self._answer: Answer | None = None
        self._refused = False
        # Why the last run failed; empty if it did not.
        self._failure = ""
        self._hinted = False
        # Whether a run has its slot.
        self._began = False
        self._backoff = Backoff(*timing.plugin_backoff)
        # By the event loop's clock: when the last run ended, before when there is no other.
        self._ran_at = float("-inf")
        self._not_before = float("-inf")
        self._lookup = OffLoop(threads, self._command, f"{self._what} or its certificate-authority")
        self._work = SharedWork(self._renew)

    def _expired(self) -> bool:
        answer = self._answer
        return answer is not None and answer.expires is not None and self._clock() > answer.expires

    async def current(self) -> Presented:
        """What the plugin gave, or gives now. Raises BadCredentials."""
        answer = self._answer
        if answer is not None and not self._refused and not self._expired():
            return answer.shown
        if asyncio.get_running_loop().time() < self._not_before:
            if answer is not None and not (self._failure and self._expired()):
                return answer.shown
            raise BadCredentials(self._failure)
        return await self._work.result()

    @property
    def waits_for(self) -> str:
        if not self._work.under_way:
            return ""
        return f"{self._what} has not answered yet" if self._began else f"{self._what} waits for others to end"

    async def refused(self, shown: Presented) -> None:
        """A 401: it is run again with the next `current`, at once if that was not just done."""
        if self._answer is None or shown != self._answer.shown or self._refused:
            return
        self._refused = True
        now = asyncio.get_running_loop().time()
        if now - self._ran_at > self._timing.plugin_backoff[1]:
            self._backoff.reset()
        elif now >= self._not_before:
            self._not_before = self._ran_at + self._backoff.pause()

    async def close(self) -> None:
        await self._work.close()

    async def _renew(self) -> Presented:
        loop = asyncio.get_running_loop()
        try:
            answer = await self._run()
        except BadCredentials as problem:
            self._ran_at = loop.time()
            self._not_before = self._ran_at + self._backoff.pause()
            if str(problem) != self._failure:
                log.warning("credential plugin failed", reason=str(problem))
            self._failure = str(problem)
            if self._answer is None or self._expired():
                raise
            return self._answer.shown
        again = self._refused and self._answer is not None and answer.shown == self._answer.shown
        self._ran_at = loop.time()
        self._answer, self._refused = answer, False
        if self._failure:
            log.info("credential plugin works again", plugin=self._what)
            self._failure = ""
        if self._expired() or again:
            self._not_before = self._ran_at + self._backoff.pause()
        else:
            self._not_before = float("-inf")
        return answer.shown

    async def _run(self) -> Answer:
        plugin, limit = self._plugin, self._timing.plugin
        if plugin.api_version not in VERSIONS:
            raise BadCredentials(f"{self._what}: apiVersion is none of {' and '.join(VERSIONS)}")
        if plugin.interactive_mode == "Always":
            raise BadCredentials(
                f"{self._what} wants to ask somebody (interactiveMode Always): there is no terminal here"
            )
        if plugin.interactive_mode not in ("Never", "IfAvailable"):
            raise BadCredentials(f"{self._what}: interactiveMode is none of Never, IfAvailable and Always")
        loop = asyncio.get_running_loop()
        async with self._slots.slot():
            self._began = True
            try:
                command = await self._lookup.result(self._timing.credential_files)
                stdout = await run(command, limit, self._threads)
            except RunFailed as failure:
                self._note(failure)
                raise BadCredentials(f"{self._what} {failure.reason}") from None
            finally:
                self._began = False
        return await loop.run_in_executor(self._threads, read_answer, stdout, plugin.api_version, self._what)

    def _command(self) -> Command:
        plugin, cluster = self._plugin, self._cluster
        authority = b""
        if plugin.provide_cluster_info:
            authority = cluster.authority_data
            if not authority and cluster.authority_file:
                authority = read_file(cluster.authority_file, "certificate-authority")
        info = exec_info(plugin.api_version, cluster if plugin.provide_cluster_info else None, authority)
        path = find_command(plugin.command, os.environ.get("PATH", ""))
        return Command(path, plugin.arguments, plugin_environment(os.environ, plugin.environment, info))

    def _note(self, failure: RunFailed) -> None:
        """At level debug alone: what a plugin says on standard error is for who runs it, and may have secrets."""
        if failure.said:
            said = failure.said
            for secret in (*self._plugin.arguments, *(value for _, value in self._plugin.environment)):
                if len(secret) >= 4:
                    said = said.replace(secret, "***")
            said = "".join(letter if letter.isprintable() else "?" for letter in said)
            log.debug("credential plugin said", plugin=self._what, said=said)
        if isinstance(failure, NotInstalled) and self._plugin.install_hint and not self._hinted:
            self._hinted = True
            hint = "".join(letter if letter.isprintable() else " " for letter in self._plugin.install_hint)
            log.warning("credential plugin has a hint", plugin=self._what, hint=" ".join(hint.split())[:400])
