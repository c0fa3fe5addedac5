"""The query service: the Kubernetes API, answered from the ordered store.

`service.py` routes requests. `http` speaks HTTP: forms of requests and answers, connections, passing through. `objects`
answers GET, LIST and WATCH, `discovery` which APIs there are, `forward` passes requests on to member clusters, and
`tables` prints objects as `kubectl get` shows them.
"""
