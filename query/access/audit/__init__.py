"""Audit: who asked for what and what came of it, as an audit Policy wants it noted, in events of audit.k8s.io/v1."""
