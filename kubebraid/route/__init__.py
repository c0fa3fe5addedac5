"""One address for several groups of serving instances."""
