"""The command: settings, embedded NATS, and the assembly of producers, materializer and query service."""

__version__ = "0.1.0"
