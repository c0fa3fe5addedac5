"""Bodies in YAML: read by the C parser, without what makes a short document an endless one, or a deep one a crash."""

from __future__ import annotations

from typing import Any

import yaml

# How deep lists and mappings may stand in each other. The C parser recurses, without a look at how much stack is left;
# an object of Kubernetes is some twenty deep, a schema in a CRD some fifty.
_DEEPEST = 500


def from_yaml(body: bytes) -> Any:
    """The content of a document.

    Raises:
        ValueError: it is none, it is too deep, or it has aliases, a few of which may stand for more than memory holds.
    """
    depth = 0
    try:
        for event in yaml.parse(body, Loader=yaml.CSafeLoader):
            if isinstance(event, yaml.AliasEvent):
                raise ValueError("aliases are not taken")
            if isinstance(event, yaml.CollectionStartEvent):
                depth += 1
                if depth > _DEEPEST:
                    raise ValueError(f"lists and mappings more than {_DEEPEST} deep are not taken")
            elif isinstance(event, yaml.CollectionEndEvent):
                depth -= 1
        return yaml.load(body, Loader=yaml.CSafeLoader)
    except yaml.YAMLError as cause:
        raise ValueError(" ".join(str(cause).split())) from None
