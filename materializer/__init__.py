"""The materializer: replays the log into an ordered store in memory, and keeps it current.

Pure and synchronous: `entry` (one object), `filter` (what a request selects), `order`, `indexes` and `type_store` (one
resource type), `cluster_facts` (what control records say), `store` (everything, fed message by message), `cursor` and
`resume` (what a watch is shown, and from where), `originals` and `versions` (resourceVersions, the clusters' and ours).

Around it: `materializer` (the run, and the way of one message), `served` (the store of this moment), `freshness` (how
old it may be), `waiting` (who waits for what), `history_guard` and `integrity` (whether the log is still what was
read), `persistence`, `snapshot` and `image` (a store in a file), `timing` (how long each waits).
"""
