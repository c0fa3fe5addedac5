"""The options of commands that ask a running service: where it is, and who asks."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

from kubebraid.command.asking import Credentials, Service
from kubebraid.command.settings import BadSetting

_PANEL = "The service"
_File = Path | None


def _option(name: str, metavar: str, help: str) -> Any:
    return typer.Option(f"--{name}", metavar=metavar, help=help, rich_help_panel=_PANEL)


# By the names of the arguments that they become.
_OPTIONS: dict[str, Any] = {
    "server": Annotated[
        str | None, _option("server", "URL", "The running service. [as --data; http://127.0.0.1:8001]")
    ],
    "data": Annotated[
        _File,
        _option("data", "DIR", "What `kubebraid up` runs on, with its certificates. [~/.local/share/kubebraid]"),
    ],
    "certificate_authority": Annotated[
        _File, _option("certificate-authority", "FILE", "Authorities of its certificate, PEM. [up's own, the system's]")
    ],
    "client_certificate": Annotated[
        _File, _option("client-certificate", "FILE", "Our certificate, PEM. [up's administrator's, if it may be read]")
    ],
    "client_key": Annotated[_File, _option("client-key", "FILE", "Its key, PEM, unless that is in the same file.")],
    "token_file": Annotated[_File, _option("token-file", "FILE", "A bearer token instead.")],
    "kubeconfig": Annotated[
        str | None, _option("kubeconfig", "FILE", "A kubeconfig that says where the service is, and who asks.")
    ],
    "context": Annotated[str | None, _option("context", "NAME", "Its context. [its current one]")],
}


def with_service(command: Callable[..., None]) -> Callable[..., None]:
    """Decorates a command whose argument `service` is a `Service`: it gets all options above, and they fill that.

    The decorated command raises BadSetting where they contradict each other.
    """

    @functools.wraps(command)
    def taking(**given: Any) -> None:
        service = _service({name: given.pop(name) for name in _OPTIONS})
        command(**given, service=service)

    signature = inspect.signature(command, eval_str=True)
    kept = [one for one in signature.parameters.values() if one.name != "service"]
    more = [
        inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=annotation)
        for name, annotation in _OPTIONS.items()
    ]
    taking.__signature__ = signature.replace(parameters=[*kept, *more])  # type: ignore[attr-defined]
    taking.__annotations__ = {one.name: one.annotation for one in (*kept, *more)}
    return taking


def _service(given: dict[str, Any]) -> Service:
    if given["client_key"] is not None and given["client_certificate"] is None:
        raise BadSetting("--client-key is the key of --client-certificate; give that, too")
    if given["token_file"] is not None and given["client_certificate"] is not None:
        raise BadSetting("--client-certificate and --token-file both say who asks; give one of them")
    if given["kubeconfig"] is not None or given["context"] is not None:
        for name in _OPTIONS.keys() - {"kubeconfig", "context"}:
            if given[name] is not None:
                raise BadSetting(f"--{name.replace('_', '-')} is said in the file where --kubeconfig is given")
        return Service(kubeconfig=given["kubeconfig"], context=given["context"] or "")
    return Service(
        given["server"],
        given["data"],
        Credentials(
            given["certificate_authority"], given["client_certificate"], given["client_key"], given["token_file"]
        ),
    )
