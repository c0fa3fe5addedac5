"""Expressions: the `filter` of a search, in CEL, the language of Kubernetes' own policies.

`object` is the object as JSON, `cluster` the name of its cluster: `object.spec.replicas > 3 &&
cluster.startsWith("eu-")`. An object for which the expression has no value, as without `spec.replicas`, is not
selected; `has(object.spec.replicas)` asks whether there is one. Contract: Kubernetes "Common Expression Language in
Kubernetes"; what of it there is: docs/search.md.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Any

from cel_expr_python import cel

from query.access.expressions import functions
from query.http.status import ApiError
from query.search.cel_syntax import Call, Constant, Ident, Literal, Loop, Node, children, read_tree
from query.search.narrowing import CLUSTER, OBJECT, Conditions, EntryPlace, conditions_of, early_verdict, path_of
from query.search.paths import EACH, Path, Projection, weight_of
from query.search.patterns import AT_ONCE, MOST_COST, MOST_WORK, CostlyPattern, Patterns
from query.search.quantities import quantity_functions

_LONGEST = 4096
_MOST_NODES = 500
_MOST_GROWTH = 64
_MOST_IN_LOOP = 250
_DEEPEST = 3
# Milliseconds that an object may take, for each node of a loop in cel-cpp's 10,000 steps; and where `_MOST_WORK` bounds
# it. And those of all objects that are looked at at one go.
_NODE_COST = 0.15
_WORK_COST = 10.0
_GO_COST = 40.0
# cel-cpp's own bound of how deep operators and parentheses stand within each other.
_DEEPEST_SYNTAX = 32
# What its parser says of that, and what reads its tree.
_TOO_DEEP = ("Exceeded max recursion depth", "CANCELLED: Expression recursion limit exceeded")
# So much work an object may cost: what there is of it to look at, to the power of how deep the loops are.
_MOST_WORK = 500_000
_EXTENSIONS = """
extensions:
- {name: strings}
- {name: sets}
- {name: optional}
- {name: two-var-comprehensions}
"""
_NOT_HERE = frozenset({"find", "findAll", "format", "join", "replace"})
# What takes no longer for a long operand, or not to speak of.
_QUICK = frozenset(
    {
        *("_[_]", "_[?_]", "_?._", "_&&_", "_||_", "!_", "_?_:_", "@not_strictly_false", "size", "hasValue", "orValue"),
        *("_+_", "_-_", "_*_", "_/_", "_%_", "-_", "_<_", "_<=_", "_>_", "_>=_", "startsWith", "endsWith"),
    }
)
_QUICK_WITH_CONSTANTS = frozenset({"_==_", "_!=_"})
# What looks at each element for each element, or makes many of one text.
_SQUARE = frozenset({"sets.contains", "sets.equivalent", "sets.intersects", "split"})
_PLACE = re.compile(r"<input>:(?P<line>-?[0-9]+):(?P<column>-?[0-9]+): (?P<what>[^\n]*)")
# Those that are Python's.
_OURS = {name: one for name, one in functions().items() if name not in _NOT_HERE} | quantity_functions()
_ENVIRONMENT = cel.NewEnv(
    config=cel.NewEnvConfigFromYaml(_EXTENSIONS),
    variables={OBJECT: cel.Type.DYN, CLUSTER: cel.Type.STRING},
    functions=[*_OURS.values()],
)
_PATTERNS = cel.NewEnv(variables={"pattern": cel.Type.STRING}).compile("'x'.matches(pattern)")


class FilterExpression:
    """An expression that was read. Two of the same text are equal.

    - `conditions`: what indexes can answer of it. `early`: what decides without the body; None if nothing does.
    - `at_once`: of so many objects at most it may be asked at one go; None: of any number.
    - `paths`: where in an object its values stand; `whole`: whether kind and apiVersion are among them.
    """

    def __init__(self, text: str, compiled: cel.Expression, tree: Node) -> None:
        self.text = text
        self.conditions: Conditions = conditions_of(tree)
        self.early: Callable[[EntryPlace], bool | None] | None = early_verdict(tree)
        uses = _Uses()
        uses.visit(tree, {OBJECT: ()})
        self.paths: tuple[Path, ...] = tuple(sorted(uses.paths, key=repr))
        self.whole = any(not path or path[0] in ("kind", "apiVersion") for path in self.paths)
        self._depth = max(_depth(tree, 0), 1)
        patterns = Patterns(tree, _growth(tree, {}), _OURS)
        self._patterns = patterns if patterns.uses or patterns.calls else None
        own = _at_once(tree, self._depth)
        self.at_once = own if self._patterns is None else min(AT_ONCE, own or AT_ONCE)
        self._compiled = compiled

    def __eq__(self, other: object) -> bool:
        return isinstance(other, FilterExpression) and self.text == other.text

    def __hash__(self) -> int:
        return hash(self.text)

    def __repr__(self) -> str:
        return f"FilterExpression({self.text!r})"

    def matches(self, cluster: str, data: Any) -> bool:
        """Whether it is true of an object of a cluster. `data`: the object, or what `paths` lead to in it.

        False if it has no value, or would take too long: see docs/search.md.
        """
        if self._depth > 1 and weight_of(data) ** self._depth > _MOST_WORK:
            return False
        if self._patterns is not None and self._patterns.work(data, cluster) > MOST_WORK:
            return False
        try:
            value = self._compiled.eval(data={OBJECT: data, CLUSTER: cluster})
        except (RuntimeError, TypeError, ValueError, OverflowError):
            # A key that is missing, types that do not fit, too many steps.
            return False
        return value.type() == cel.Type.BOOL and value.value() is True


def parse_expression(text: str) -> FilterExpression:
    """The expression of a text; one that was read lately is not read again.

    Raises:
        ApiError: 400, it is none, with the column; or it could take too long.
    """
    if len(text) > _LONGEST:
        raise ApiError(400, f"filter: column {_LONGEST + 1}: an expression has at most {_LONGEST} characters")
    return _parsed(text)


@lru_cache(maxsize=256)
def _parsed(text: str) -> FilterExpression:
    try:
        compiled = _ENVIRONMENT.compile(text)
    except RuntimeError as cause:
        raise ApiError(400, _told(str(cause))) from None
    except TypeError:
        raise ApiError(400, "filter: column 1: it is no text in UTF-8") from None
    if compiled.return_type() not in (cel.Type.BOOL, cel.Type.DYN):
        raise ApiError(
            400, f"filter: column 1: it must be true or false, and not {compiled.return_type().name().lower()}"
        )
    tree = read_tree(compiled.serialize())
    _check(tree, text)
    return FilterExpression(text, compiled, tree)


def _told(error: str) -> str:
    """What is wrong, and where."""
    found = _PLACE.search(error)
    what = (error.partition("\n")[0] if found is None else found["what"])[:300]
    if what.startswith(_TOO_DEEP):
        return f"filter: column 1: parts within parts, deeper than {_DEEPEST_SYNTAX}"
    if found is None or found["column"].startswith("-"):
        return f"filter: column 1: {what}"
    line = "" if found["line"] == "1" else f"line {found['line']}, "
    return f"filter: {line}column {found['column']}: {what}"


def _check(tree: Node, text: str) -> None:
    """Raises ApiError 400 for what could take too long, or too much memory, whatever the object."""
    nodes, patterns, rest = 0, [], [tree]
    while rest:
        node = rest.pop()
        nodes += 1
        rest += children(node)
        if isinstance(node, Call):
            if node.function in _NOT_HERE:
                column = text.find(node.function) + 1
                raise ApiError(400, f"filter: column {column}: {node.function} is not available in filters")
            if node.function == "cel.@mapInsert":
                # What the macros become, which cel-cpp declares and does not have.
                column = text.find("transformMap") + 1
                macro = "transformMapEntry" if text.startswith("transformMapEntry", column - 1) else "transformMap"
                raise ApiError(400, f"filter: column {column}: {macro} is not available in filters")
            if node.function == "matches":
                patterns.append(node.arguments[-1])
    if nodes > _MOST_NODES:
        raise ApiError(400, f"filter: column 1: {nodes} operands and operators; there may be {_MOST_NODES}")
    if (inside := _in_loop(tree)) > _MOST_IN_LOOP:
        raise ApiError(
            400, f"filter: column 1: {inside} operands and operators in a loop; there may be {_MOST_IN_LOOP}"
        )
    if _depth(tree, 0) > _DEEPEST:
        raise ApiError(400, f"filter: column 1: loops within loops, deeper than {_DEEPEST}")
    if _growth(tree, {}) > _MOST_GROWTH:
        raise ApiError(400, f"filter: column 1: texts or lists are added to each other more than {_MOST_GROWTH} times")
    _check_patterns(patterns, tree, text)


def _check_patterns(patterns: list[Node], tree: Node, text: str) -> None:
    """Raises ApiError 400 for regular expressions that are not written out, cost too much, or are none."""
    column = text.find("matches") + 1
    if not all(isinstance(one, Constant) for one in patterns):
        raise ApiError(400, f"filter: column {column}: the pattern of matches must be written out")
    try:
        cost = Patterns(tree, 1).cost
    except CostlyPattern as cause:
        raise ApiError(400, f"filter: column {column}: {cause}") from None
    if cost > MOST_COST:
        told = f"the patterns of matches would take too long: {cost:.0f}, of {MOST_COST}"
        raise ApiError(400, f"filter: column {column}: {told}")
    for one in patterns:
        _check_pattern(one, column)


def _check_pattern(pattern: Node, column: int) -> None:
    """Raises ApiError 400 for a regular expression that is none."""
    assert isinstance(pattern, Constant)
    try:
        # What is wrong with it, RE2 says only when it is used.
        value = _PATTERNS.eval(data={"pattern": pattern.value})
    except (RuntimeError, TypeError, ValueError) as cause:
        raise ApiError(400, f"filter: column {column}: {str(cause)[:300]}") from None
    if value.type() == cel.Type.ERROR:
        raise ApiError(400, f"filter: column {column}: {str(value.plain_value())[:300]}")


def _depth(node: Node, within: int) -> int:
    """How deep loops, and what takes the longer the more there is, stand within each other."""
    if isinstance(node, Loop):
        inner = max(_depth(one, within + 1) for one in (node.goes_on, node.step, node.result))
        # Of `map` and `filter`, cel-cpp copies what there is of the result for each element.
        own = within + 2 if isinstance(node.begin, Literal) else within + 1
        return max(own, inner, _depth(node.over, within), _depth(node.begin, within))
    deepest = within
    if isinstance(node, Call) and node.function in _SQUARE:
        deepest = within + 2
    elif within and isinstance(node, Call) and not _is_quick(node):
        deepest = within + 1
    return max([deepest, *(_depth(one, within) for one in children(node))])


def _in_loop(node: Node) -> int:
    """How many nodes there are in the largest loop, those of loops within it included; 0 without any."""
    if isinstance(node, Loop):
        own = sum(map(_nodes, (node.goes_on, node.step, node.result)))
        return max(own, _in_loop(node.over), _in_loop(node.begin))
    return max(map(_in_loop, children(node)), default=0)


def _nodes(node: Node) -> int:
    return 1 + sum(map(_nodes, children(node)))


def _at_once(tree: Node, depth: int) -> int | None:
    """Of how many objects at most it may be asked at one go; None: of any number. `depth`: as of `_depth`."""
    cost = _NODE_COST * _in_loop(tree) + (_WORK_COST if depth > 1 else 0)
    return max(int(_GO_COST / cost), 1) if cost else None


def _is_quick(node: Call) -> bool:
    if node.function in _QUICK:
        return True
    return node.function in _QUICK_WITH_CONSTANTS and any(isinstance(one, Constant) for one in children(node))


def _growth(node: Node, variables: Mapping[str, int]) -> int:
    """How many of the longest values that there are may be in one value that is made of them."""
    if isinstance(node, Ident):
        return variables.get(node.name, 1)
    if isinstance(node, Loop):
        over, begin = _growth(node.over, variables), _growth(node.begin, variables)
        inner = {**variables, node.variable: over, node.value: over, node.accumulated: begin}
        step = _growth(node.step, inner)
        return _growth(node.result, {**inner, node.accumulated: max(begin, step)})
    grown = [_growth(one, variables) for one in children(node)] or [1]
    return min(sum(grown) if isinstance(node, Call) and node.function == "_+_" else max(grown), 1 << 30)


def _selected(node: Node, variables: Mapping[str, Path | None]) -> Path | None:
    return path_of(node, variables, optional=True)


class _Uses:
    """Which paths of the object an expression uses."""

    def __init__(self) -> None:
        self.paths: set[Path] = set()

    def visit(self, node: Node, variables: Mapping[str, Path | None]) -> None:
        """Adds those of a node. `variables`: where what they stand for is in the object; None: nowhere."""
        path = _selected(node, variables)
        if path is not None:
            self.paths.add(path)
        elif isinstance(node, Loop):
            self._visit_loop(node, variables)
        elif isinstance(node, Call) and node.function == "size" and (of := _selected(children(node)[0], variables)):
            # Of a list its elements are counted, and not read.
            self.paths.add((*of, EACH, ""))
        else:
            for one in children(node):
                self.visit(one, variables)

    def _visit_loop(self, loop: Loop, variables: Mapping[str, Path | None]) -> None:
        over = _selected(loop.over, variables)
        element: Path | None = None
        if over is None:
            self.visit(loop.over, variables)
        else:
            element = (*over, EACH)
            # How many there are counts, even if none is looked at.
            self.paths.add((*element, ""))
        self.visit(loop.begin, variables)
        inner = {**variables, loop.variable: element, loop.value: element, loop.accumulated: None}
        for one in (loop.goes_on, loop.step, loop.result):
            self.visit(one, inner)


def projection_of(expression: FilterExpression | None, others: tuple[Path, ...]) -> Projection:
    """What reads of a body what an expression, and whoever uses the other paths, look at."""
    return Projection((*others, *(() if expression is None else expression.paths)))
