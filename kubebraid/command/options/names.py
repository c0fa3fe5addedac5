"""Options of the command line by the fields that they fill: what lower layers say of fields is said of options here."""

from __future__ import annotations

import re
from collections.abc import MutableMapping
from typing import Any

# Fields of Access, LogSettings and MirrorSettings.
OPTIONS = {
    "url": "--nats",
    "creds": "--nats-creds",
    "nkey": "--nats-nkey",
    "user": "--nats-user",
    "password": "KUBEBRAID_NATS_PASSWORD in the environment",
    "password_file": "--nats-password-file",
    "token": "a token",
    "token_file": "--nats-token-file",
    "ca": "--nats-ca",
    "cert": "--nats-cert",
    "key": "--nats-key",
    "domain": "--nats-domain",
    "inbox": "--nats-inbox",
    "name": "--stream",
    "replicas": "--replicas",
    "origin": "--from",
}
_FIELD = re.compile(r"`(\w+)`")
# What of a log event holds the text of an error.
_REASONS = ("reason", "problem")


def in_options(text: str) -> str:
    """A message with options in place of fields.

    Example: "`ca` ca.pem: it is no PEM file" becomes "--nats-ca ca.pem: it is no PEM file".
    """
    return _FIELD.sub(lambda found: OPTIONS.get(found[1], found[0]), text)


def events_in_options(_: Any, __: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """A structlog processor: reasons in log lines name options, too."""
    for key in _REASONS:
        if isinstance(value := event.get(key), str):
            event[key] = in_options(value)
    return event
