"""Times as Kubernetes writes them: RFC 3339 in UTC (k8s.io/apimachinery, `metav1.Time` and `metav1.MicroTime`)."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

__all__ = ["later", "micro_timestamp", "timestamp", "utc_now"]


def utc_now() -> datetime:
    """The time by this machine's clock, in UTC."""
    return datetime.now(UTC)


def timestamp(when: datetime | None = None) -> str:
    """A `metav1.Time`, in whole seconds: `2026-01-31T12:00:00Z`. Without `when`, the present time."""
    # As strftime("%Y-%m-%dT%H:%M:%SZ"), in a third of the time.
    return f"{(when or utc_now()).isoformat()[:19]}Z"


def later(time: str, seconds: int) -> str:
    """A `metav1.Time` so many seconds later: `later("2026-01-31T12:00:00Z", 30)` is `2026-01-31T12:00:30Z`."""
    return timestamp(datetime.fromisoformat(time) + timedelta(seconds=seconds))


def micro_timestamp(when: datetime) -> str:
    """A `metav1.MicroTime`, as the times of Leases are: `2026-01-31T12:00:00.250000Z`."""
    return when.strftime("%Y-%m-%dT%H:%M:%S.%fZ")
