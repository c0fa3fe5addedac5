"""Sizes in bytes as options have them: Kubernetes' quantities, `64Mi`, `1.5Gi`, `500M`.

https://kubernetes.io/docs/reference/kubernetes-api/common-definitions/quantity/
"""

from __future__ import annotations

import re

from kubebraid.command.settings import BadSetting

_DECIMAL = {"k": 10**3, "M": 10**6, "G": 10**9, "T": 10**12}
_BINARY = {"Ki": 1 << 10, "Mi": 1 << 20, "Gi": 1 << 30, "Ti": 1 << 40}
_UNITS = {"": 1, **_DECIMAL, **_BINARY}
_QUANTITY = re.compile(r"([0-9]+(?:\.[0-9]+)?)([kMGT]|[KMGT]i)?B?")


def size(option: str, text: str) -> int:
    """Bytes of an option's text: `size("--window-memory", "64Mi")` is 67,108,864.

    Raises:
        BadSetting: it is no size.
    """
    found = _QUANTITY.fullmatch(text.strip())
    if found is None:
        raise BadSetting(f"{option} {text}: a number of bytes, as in 64Mi, 1.5Gi or 500M")
    return int(float(found[1]) * _UNITS[found[2] or ""])
