"""How a command runs and ends: its log, its event loop, and one line for each error that a user can correct."""

from __future__ import annotations

import asyncio
import contextlib
import os
import resource
import stat
import sys
from collections.abc import Callable, Coroutine
from typing import Any, TextIO

import typer
import uvloop

from deltalog import BadInput, HistoryEnded, LogUnavailable
from kubebraid.command import logs
from kubebraid.command.options.names import in_options
from kubebraid.command.settings import BadSetting
from kubebraid.errors import KubebraidError
from producers.errors import ProducersError, UnusableInput
from query.errors import UnusableSetting

# Whether typer depends on click or brings its own differs by version; this is the UsageError of the one it uses.
_UsageError: type[Exception] = typer.BadParameter.__mro__[1]
# What lower layers fail with: input that is to be corrected, and what else a command may end with.
_INVALID = (UnusableInput, UnusableSetting, BadInput)
_FAILED = (ProducersError, LogUnavailable, HistoryEnded)


def run(main: Coroutine[Any, Any, None], level: str, json_lines: bool) -> None:
    """Runs a command's coroutine to its end, with a log of that level. Raises BadSetting, and what it raises."""
    if level not in ("debug", "info", "warning", "error"):
        main.close()
        raise BadSetting(f"--log-level {level!r}: debug, info, warning or error")
    logs.configure(level, json=json_lines)
    _allow_open_files()
    uvloop.run(main)


async def while_read(output: TextIO, work: Coroutine[Any, Any, None]) -> None:
    """Awaits what writes to `output` now and then. Raises BrokenPipeError once nobody reads that any more.

    As GNU tail does: the next write, which would find it, may be hours away.
    """
    task = asyncio.create_task(work, name="while-read")
    number, loop = output.fileno(), asyncio.get_running_loop()
    unread = False

    def end() -> None:
        nonlocal unread
        unread = True
        loop.remove_reader(number)
        task.cancel()

    # The end of a pipe that is written to becomes readable when the other one is closed.
    if stat.S_ISFIFO(os.fstat(number).st_mode):
        loop.add_reader(number, end)
    try:
        await task
    except asyncio.CancelledError:
        if not unread:
            raise
        raise BrokenPipeError from None
    finally:
        loop.remove_reader(number)


def _allow_open_files() -> None:
    """Raises the limit of open files to what the system allows, as programs in Go do: connections are files."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        # A system may allow less than it says.
        with contextlib.suppress(ValueError, OSError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def reporting(work: Callable[[], None]) -> None:
    """Runs a command; its errors that a user can correct end the process with one line and an exit code."""
    try:
        work()
    except typer.Exit as done:
        sys.exit(done.exit_code)
    except typer.Abort:
        sys.exit(130)
    except _UsageError as problem:
        context = getattr(problem, "ctx", None)
        where = context.command_path if context else "kubebraid"
        message = getattr(problem, "format_message", problem.__str__)()
        _fail(f"{' '.join(message.split())}; see {where} --help", 2)
    except KubebraidError as problem:
        _fail(str(problem), problem.code)
    except _INVALID as problem:
        _fail(str(problem), 2)
    except _FAILED as problem:
        _fail(str(problem), 1)
    except KeyboardInterrupt:
        sys.exit(130)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)


def _fail(message: str, code: int) -> None:
    typer.echo(f"kubebraid: {in_options(message)}", err=True)
    sys.exit(code)
