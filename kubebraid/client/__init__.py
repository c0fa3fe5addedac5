"""For programs: an informer over many clusters, and the store in one's own process."""
