"""Search: what a LIST or WATCH asks for beyond Kubernetes' own selectors, by URL query and by label alike."""
