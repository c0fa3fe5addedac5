"""The options of all commands that connect to NATS: as whom, over what TLS, to which JetStream domain."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import Annotated, Any

import typer

from deltalog import Access

_PANEL = "Access to NATS"


def _option(name: str, metavar: str, help: str, *, flag: bool = True) -> Any:
    """One that may be given in the environment, too; without `flag` only there."""
    return typer.Option(
        f"--nats-{name}",
        metavar=metavar,
        help=help,
        envvar=f"KUBEBRAID_NATS_{name.upper().replace('-', '_')}",
        show_envvar=False,
        hidden=not flag,
        rich_help_panel=_PANEL,
    )


_Text = str | None
# By the fields of Access. A password and a token may stand in the environment, but not among the arguments, which all
# processes of the machine can read: those options are hidden.
_OPTIONS: dict[str, Any] = {
    "creds": Annotated[_Text, _option("creds", "FILE", "Credentials: a JWT and its seed.")],
    "nkey": Annotated[_Text, _option("nkey", "FILE", "Seed of an nkey.")],
    "user": Annotated[_Text, _option("user", "NAME", "User; its password by file or $KUBEBRAID_NATS_PASSWORD.")],
    "password": Annotated[_Text, _option("password", "TEXT", "", flag=False)],
    "password_file": Annotated[_Text, _option("password-file", "FILE", "The user's password.")],
    "token": Annotated[_Text, _option("token", "TEXT", "", flag=False)],
    "token_file": Annotated[_Text, _option("token-file", "FILE", "A token; also $KUBEBRAID_NATS_TOKEN.")],
    "ca": Annotated[_Text, _option("ca", "FILE", "Authorities of the server's certificate, PEM; requires TLS.")],
    "cert": Annotated[_Text, _option("cert", "FILE", "Our certificate, PEM.")],
    "key": Annotated[_Text, _option("key", "FILE", "Its key, PEM, unless that is in the same file.")],
    "domain": Annotated[str, _option("domain", "NAME", "JetStream domain that has the stream.")],
    "inbox": Annotated[str, _option("inbox", "PREFIX", "What subjects of answers begin with. [_INBOX]")],
}


def with_access(command: Callable[..., None]) -> Callable[..., None]:
    """Decorates a command whose argument `access` is an `Access`: it gets all options above, and they fill that.

    The decorated command raises BadAccess where they contradict each other.
    """

    @functools.wraps(command)
    def taking(**given: Any) -> None:
        access = Access(**{name: given.pop(f"nats_{name}") for name in _OPTIONS})
        access.check()
        command(**given, access=access)

    signature = inspect.signature(command, eval_str=True)
    kept = [one for one in signature.parameters.values() if one.name != "access"]
    more = [
        inspect.Parameter(
            f"nats_{name}",
            inspect.Parameter.KEYWORD_ONLY,
            default="" if name in ("domain", "inbox") else None,
            annotation=annotation,
        )
        for name, annotation in _OPTIONS.items()
    ]
    taking.__signature__ = signature.replace(parameters=[*kept, *more])  # type: ignore[attr-defined]
    taking.__annotations__ = {one.name: one.annotation for one in (*kept, *more)}
    return taking
