"""Options of the process itself, and of the running service that it asks."""

from __future__ import annotations

from typing import Annotated

import typer

LogLevel = Annotated[str, typer.Option(metavar="LEVEL", help="debug, info, warning or error.")]
LogJson = Annotated[bool, typer.Option("--log-json", help="Log JSON lines.")]
Server = Annotated[str, typer.Option(metavar="URL", help="The running service.")]
