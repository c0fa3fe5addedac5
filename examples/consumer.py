"""Follows all pods of all clusters: python consumer.py nats://127.0.0.1:4222 [where it was]"""

import asyncio
import json
import sys

from deltalog import Change, Removed, subscribe
from kubebraid.command import logs


async def main(url: str, start: str = "beginning") -> None:
    async with subscribe(url, type="pods", start=start) as subscription:
        async for event in subscription:
            line: dict[str, object] = {"sequence": event.sequence}
            if isinstance(event, Change):
                delta = event.delta
                line |= {"cluster": delta.cluster, "resource": delta.resource, "type": event.type}
                line |= {"name": f"{delta.namespace}/{delta.name}", "uid": delta.uid, "bytes": len(delta.object)}
            elif isinstance(event, Removed):
                # Everything of that type (all of the cluster, if it is empty) with a lower sequence has gone.
                line |= {"cluster": event.cluster, "resource": event.resource, "type": "REMOVED"}
            print(json.dumps(line), flush=True)
            # str(event.place) is what to start from next time. Keep it where the effect is kept, in the same
            # transaction: then each change counts exactly once.


logs.configure("warning")  # on standard error
asyncio.run(main(*sys.argv[1:]))
