"""Settings: the variables, arguments and files that applications of a mixed cluster are configured with.

Names are put together as people do it, of what a setting is about, the part it belongs to and what it sets
(`INVOICE_CLIENT_TIMEOUT_MS`), so that two applications share words and hardly ever whole settings.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from simulation.content.builder import ContentBuilder
from simulation.content.names import SERVICES, TEAMS

__all__ = ["arguments", "configuration_file", "environment", "tracing"]

_Value = str | dict[str, Any]

# fmt: off
_SUBJECTS = (
    "order", "cart", "invoice", "ledger", "session", "token", "product", "price", "stock", "shipment", "address",
    "customer", "merchant", "refund", "coupon", "webhook", "audit", "report", "search", "index", "queue", "batch",
    "export", "import", "sync", "cache", "profile", "consent", "risk", "score", "quote", "tax", "currency", "locale",
    "thumbnail", "upload", "download", "mail", "sms", "push", "preference", "segment", "campaign", "experiment",
    "feature", "tenant", "subscription", "plan", "usage", "meter", "quota", "limit", "retry", "circuit", "worker",
    "lock", "lease", "event", "stream", "offset", "snapshot", "backup", "archive", "retention", "payout", "dispute",
    "chargeback", "basket", "wishlist", "review", "rating", "recommendation", "store", "warehouse", "carrier",
    "label", "parcel", "route", "geo", "device", "login", "signup", "password", "otp", "identity", "role", "policy",
    "grant", "document", "contract", "signature", "template", "translation", "asset", "image", "video", "transcode",
    "playlist", "channel", "comment", "message", "thread", "presence", "inbox", "digest",
)
_PARTS = (
    "client", "service", "api", "db", "cache", "queue", "consumer", "producer", "pool", "job", "http", "grpc",
    "kafka", "redis", "s3", "oauth", "webhook", "gateway", "store", "repository", "handler", "loader", "writer",
    "reader", "fetcher", "publisher",
)
# fmt: on
_REGIONS = ("eu-central-1", "eu-west-1", "us-east-1", "us-west-2", "ap-southeast-2")
_LEVELS = ("debug", "info", "info", "info", "warn", "error")
_TOPICS = ("events", "commands", "changes", "dead-letter", "retries", "facts")
_TABLES = ("outbox", "history", "state", "archive", "snapshots", "items")


def _host(builder: ContentBuilder, team: str) -> str:
    pick = builder.pick
    other = team if builder.random.random() < 0.4 else pick(TEAMS)
    return f"{other}-{pick(SERVICES)}-{builder.number(0, 60)}.{other}.svc.cluster.local"


def _url(builder: ContentBuilder, team: str) -> str:
    if builder.random.random() < 0.2:
        return f"https://{builder.pick(_SUBJECTS)}.{builder.pick(_SUBJECTS)}s.example.io/v{builder.number(1, 4)}"
    return f"http://{_host(builder, team)}:{builder.pick((80, 8080, 8081, 9000, 3000))}/{builder.pick(_SUBJECTS)}s"


def _from_secret(builder: ContentBuilder, team: str) -> _Value:
    name = f"{builder.pick(_SUBJECTS)}-{builder.pick(('credentials', 'secrets', 'keys'))}"
    return {"secretKeyRef": {"name": name, "key": f"{builder.pick(_SUBJECTS)}-{builder.pick(('password', 'token'))}"}}


def _from_config_map(builder: ContentBuilder, team: str) -> _Value:
    return {"configMapKeyRef": {"name": f"{team}-common", "key": f"{builder.pick(_SUBJECTS)}.{builder.pick(_PARTS)}"}}


# What a setting sets, and what its values look like.
_KINDS: tuple[tuple[str, Callable[[ContentBuilder, str], _Value]], ...] = (
    ("TIMEOUT_MS", lambda builder, team: str(builder.number(1, 120) * 250)),
    ("TIMEOUT", lambda builder, team: f"{builder.number(1, 90)}s"),
    ("URL", _url),
    ("BASE_URL", _url),
    ("ENDPOINT", lambda builder, team: f"{_host(builder, team)}:{builder.pick((50051, 9090, 6565))}"),
    ("HOST", _host),
    ("PORT", lambda builder, team: str(builder.number(1024, 9999))),
    ("ENABLED", lambda builder, team: builder.pick(("true", "false"))),
    ("MAX_RETRIES", lambda builder, team: str(builder.number(0, 12))),
    ("POOL_SIZE", lambda builder, team: str(builder.number(2, 128))),
    ("BATCH_SIZE", lambda builder, team: str(builder.number(1, 200) * 10)),
    ("TTL_SECONDS", lambda builder, team: str(builder.number(1, 1440) * 60)),
    (
        "TOPIC",
        lambda builder, team: f"{team}.{builder.pick(_SUBJECTS)}.{builder.pick(_TOPICS)}.v{builder.number(1, 3)}",
    ),
    ("GROUP_ID", lambda builder, team: f"{team}-{builder.pick(_SUBJECTS)}-{builder.pick(_PARTS)}"),
    ("BUCKET", lambda builder, team: f"{team}-{builder.pick(_SUBJECTS)}-{builder.number(100_000, 999_999)}"),
    ("TABLE", lambda builder, team: f"{builder.pick(_SUBJECTS)}_{builder.pick(_TABLES)}"),
    ("PREFIX", lambda builder, team: f"/{builder.pick(_SUBJECTS)}s/{builder.pick(_SUBJECTS)}"),
    ("PASSWORD", _from_secret),
    ("API_KEY", _from_secret),
    ("SECRET", _from_secret),
    ("MODE", _from_config_map),
    ("REGION", lambda builder, team: builder.pick(_REGIONS)),
    ("LOG_LEVEL", lambda builder, team: builder.pick(_LEVELS)),
    ("CONCURRENCY", lambda builder, team: str(builder.number(1, 64))),
    ("INTERVAL", lambda builder, team: f"{builder.number(1, 60)}m"),
    ("THRESHOLD", lambda builder, team: f"0.{builder.number(1, 999):03d}"),
    ("CLIENT_ID", lambda builder, team: builder.hexadecimal(24)),
    ("ACCOUNT", lambda builder, team: str(builder.number(10**11, 10**12 - 1))),
)


def environment(builder: ContentBuilder, team: str, count: int) -> list[dict[str, Any]]:
    """About `count` EnvVars of an application of a team, each name once."""
    variables: dict[str, dict[str, Any]] = {}
    for _ in range(count):
        name, value = _setting(builder, team)
        name = name.upper()
        variables[name] = {"name": name, **({"value": value} if isinstance(value, str) else {"valueFrom": value})}
    return list(variables.values())


def _setting(builder: ContentBuilder, team: str) -> tuple[str, _Value]:
    kind, value = builder.pick(_KINDS)
    return f"{builder.pick(_SUBJECTS)}_{builder.pick(_PARTS)}_{kind}", value(builder, team)


def tracing(builder: ContentBuilder, app: str, team: str, version: str) -> list[dict[str, Any]]:
    """The variables of OpenTelemetry's SDKs, and of an error tracker."""
    attributes = (
        f"service.namespace={team},service.version={version},deployment.environment=production,"
        f"k8s.cluster.name={builder.cluster},team={team}"
    )
    found = {
        "OTEL_SERVICE_NAME": app,
        "OTEL_RESOURCE_ATTRIBUTES": attributes,
        "OTEL_EXPORTER_OTLP_ENDPOINT": "http://otel-collector.kube-system:4317",
        "OTEL_TRACES_SAMPLER_ARG": f"0.{builder.number(1, 50):02d}",
    }
    if builder.random.random() < 0.4:
        found["SENTRY_DSN"] = f"https://{builder.hexadecimal(32)}@errors.example.io/{builder.number(2, 400)}"
    return [{"name": name, "value": value} for name, value in found.items()]


def arguments(builder: ContentBuilder, team: str, count: int) -> list[str]:
    """`count` flags of a program's command line."""
    found = []
    for _ in range(count):
        name, value = _setting(builder, team)
        flag = f"--{name.lower().replace('_', '-')}"
        found.append(f"{flag}={value}" if isinstance(value, str) else flag)
    return found


def configuration_file(builder: ContentBuilder, app: str, team: str, count: int) -> str:
    """A YAML file of `count` settings, grouped by what they are about."""
    lines = [f"service: {app}", "listen: 0.0.0.0:8080"]
    for _ in range(count // 4):
        lines.append(f"{builder.pick(_SUBJECTS)}:")
        for _ in range(4):
            kind, value = builder.pick(_KINDS)
            made = value(builder, team)
            shown = made if isinstance(made, str) else f"${{{builder.pick(_SUBJECTS).upper()}_{kind}}}"
            lines.append(f"  {builder.pick(_PARTS)}_{kind.lower()}: {shown}")
    return "\n".join(lines) + "\n"
