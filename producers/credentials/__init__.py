"""Who we are to a cluster, now: one small interface, one implementation for each kind of credential."""
