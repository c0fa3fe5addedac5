"""Options of the process itself."""

from __future__ import annotations

from typing import Annotated

import typer

LogLevel = Annotated[str, typer.Option(metavar="LEVEL", help="debug, info, warning or error.")]
LogJson = Annotated[bool, typer.Option("--log-json", help="Log JSON lines.")]
