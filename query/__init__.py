"""The query service: the Kubernetes API, answered from the ordered store.

`service.py` takes requests in; `lists.py` and `watches.py` answer them; `catalogue.py` says what there is.
"""
