"""The materializer: replays the log into an ordered store in memory.

`store.py` is the heart, pure and synchronous; `cursor.py` reads changes from it; `materializer.py` keeps one
store current from one log.
"""
