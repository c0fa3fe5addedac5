"""Labels, label selectors and label-like lists as text."""

from __future__ import annotations

from collections.abc import Iterable

from query.tables.columns import Part

NONE = "<none>"


class SelectorRequirement(Part, frozen=True, gc=False):
    """One LabelSelectorRequirement."""

    key: str = ""
    operator: str = ""
    values: tuple[str, ...] = ()


class LabelSelector(Part, frozen=True, gc=False):
    """A meta/v1 LabelSelector."""

    match_labels: dict[str, str] | None = None
    match_expressions: tuple[SelectorRequirement, ...] | None = None


def format_labels(labels: dict[str, str] | None) -> str:
    """`a=b,c=d` by key, `<none>` if empty (k8s.io/apimachinery/pkg/labels: FormatLabels)."""
    if not labels:
        return NONE
    return ",".join([f"{key}={labels[key]}" for key in sorted(labels)])


def selector_text(selector: LabelSelector | None) -> str | None:
    """A selector in the query syntax, by key; "" for none or all; None if it is not a valid selector.

    k8s.io/apimachinery/pkg/apis/meta/v1: LabelSelectorAsSelector, and pkg/labels: Requirement.String.
    """
    if selector is None:
        return ""
    terms = [(key, f"{key}={value}") for key, value in (selector.match_labels or {}).items()]
    for each in selector.match_expressions or ():
        if each.operator in ("In", "NotIn"):
            if not each.values:
                return None
            word = "in" if each.operator == "In" else "notin"
            terms.append((each.key, f"{each.key} {word} ({','.join(sorted(each.values))})"))
        elif each.operator in ("Exists", "DoesNotExist"):
            if each.values:
                return None
            terms.append((each.key, each.key if each.operator == "Exists" else f"!{each.key}"))
        else:
            return None
    terms.sort(key=lambda term: term[0])
    return ",".join([text for _, text in terms])


def format_selector(selector: LabelSelector | None) -> str:
    """The selector, `<none>` if empty, `<error>` if invalid (meta/v1: FormatLabelSelector)."""
    text = selector_text(selector)
    return "<error>" if text is None else text or NONE


def go_selector(selector: LabelSelector) -> str:
    """The selector as Go prints the struct (meta/v1 generated.pb.go: LabelSelector.String)."""
    labels = selector.match_labels or {}
    matches = "".join([f"{key}: {labels[key]}," for key in sorted(labels)])
    terms = "".join(
        [
            f"LabelSelectorRequirement{{Key:{each.key},Operator:{each.operator},Values:[{' '.join(each.values)}],}},"
            for each in selector.match_expressions or ()
        ]
    )
    return (
        f"&LabelSelector{{MatchLabels:map[string]string{{{matches}}},"
        f"MatchExpressions:[]LabelSelectorRequirement{{{terms}}},}}"
    )


def list_with_more(items: Iterable[str], most: int = 3) -> str:
    """The first few items, and how many more there are; `<unset>` for none (printers.go: listWithMoreString)."""
    every = list(items)
    text = ",".join(every[:most])
    if len(every) > most:
        return f"{text} + {len(every) - most} more..."
    return text or "<unset>"
