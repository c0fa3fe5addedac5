"""The wire format: what messages of the log say, pure functions and types without IO."""
