"""Benchmarks: what a user waits for or pays for, as ratios to bare baselines measured in the same run."""
