"""Quantities in expressions: `quantity("500Mi").isLessThan(quantity("1Gi"))`, as Kubernetes' own CEL library has them.

k8s.io/apiserver pkg/cel/library/quantity.go; the grammar is that of k8s.io/apimachinery pkg/api/resource. A quantity is
a CEL double here, exact up to 2^53.
"""

from __future__ import annotations

import re

from cel_expr_python import cel

_FORM = re.compile(
    r"(?P<number>[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+))"
    r"(?:(?P<unit>[KMGTPE]i|[numkMGTPE])|(?P<exponent>[eE][+-]?[0-9]{1,2}))?"
)
_BINARY = {unit: 1024.0**power for power, unit in enumerate(("Ki", "Mi", "Gi", "Ti", "Pi", "Ei"), 1)}
_TIMES = {"k": 1e3, "M": 1e6, "G": 1e9, "T": 1e12, "P": 1e15, "E": 1e18} | _BINARY
_PARTS = {"n": 1e9, "u": 1e6, "m": 1e3}
# What has no more than this is a whole number as a double.
_EXACT = 2.0**53


def parse_quantity(text: str) -> float:
    """The number that a quantity says. Example: "1.5Gi" is 1610612736, "250m" is 0.25.

    Raises:
        ValueError: it is none.
    """
    found = _FORM.fullmatch(text) if len(text) <= 64 else None
    if found is None:
        raise ValueError("quantities must match the regular expression of Kubernetes' resource.Quantity")
    if found["exponent"]:
        return float(text)
    number, unit = float(found["number"]), found["unit"]
    # Divided, as a thousandth itself is no double.
    return number / _PARTS[unit] if unit in _PARTS else number * _TIMES[unit] if unit else number


def _is_quantity(text: str) -> bool:
    try:
        parse_quantity(text)
    except ValueError:
        return False
    return True


def _as_integer(value: float) -> int:
    if not value.is_integer() or abs(value) > _EXACT:
        raise ValueError("cannot convert value to integer")
    return int(value)


def quantity_functions() -> dict[str, cel.FunctionDecl]:
    """By names: `quantity`, `isQuantity`, `isGreaterThan`, `isLessThan`, `compareTo`, `asInteger` and so on."""
    number, boolean, integer, text = cel.Type.DOUBLE, cel.Type.BOOL, cel.Type.INT, cel.Type.STRING

    def made(
        name: str, takes: list[cel.Type], gives: cel.Type, work: object, *, member: bool = True
    ) -> tuple[str, cel.FunctionDecl]:
        overload = cel.Overload(f"{name}_quantity", return_type=gives, parameters=takes, is_member=member, impl=work)
        return name, cel.FunctionDecl(name, [overload])

    every = [
        made("quantity", [text], number, parse_quantity, member=False),
        made("isQuantity", [text], boolean, _is_quantity, member=False),
        made("isGreaterThan", [number, number], boolean, lambda one, other: one > other),
        made("isLessThan", [number, number], boolean, lambda one, other: one < other),
        made("compareTo", [number, number], integer, lambda one, other: (one > other) - (one < other)),
        made("sign", [number], integer, lambda one: (one > 0) - (one < 0)),
        made("add", [number, number], number, lambda one, other: one + other),
        made("sub", [number, number], number, lambda one, other: one - other),
        made("isInteger", [number], boolean, lambda one: one.is_integer() and abs(one) <= _EXACT),
        made("asInteger", [number], integer, _as_integer),
        made("asApproximateFloat", [number], number, float),
    ]
    return dict(every)
