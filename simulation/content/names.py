"""Names: the teams, services and tiers that namespaces, applications and labels are named after."""

from __future__ import annotations

__all__ = ["SERVICES", "TEAMS", "TIERS"]

TEAMS = (
    "payments",
    "checkout",
    "catalog",
    "search",
    "identity",
    "billing",
    "shipping",
    "analytics",
    "media",
    "platform",
    "messaging",
    "pricing",
    "inventory",
    "fraud",
    "loyalty",
    "reports",
    "support",
    "web",
    "mobile",
    "data",
)
SERVICES = (
    "api",
    "gateway",
    "worker",
    "scheduler",
    "frontend",
    "backend",
    "consumer",
    "indexer",
    "cache",
    "mailer",
    "exporter",
    "sync",
    "ingest",
    "renderer",
    "auth",
    "ledger",
    "notifier",
    "router",
    "importer",
    "planner",
)
TIERS = ("frontend", "backend", "data", "batch")
