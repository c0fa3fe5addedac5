"""Which member clusters there are."""
