"""Mutations: every small change of a module's source that a test should notice, one at a time.

A mutant is known by a text that stays the same when lines move: the function, what was there, what is there instead,
and a number where a function has the same twice:

    Cursor.advance: `store.caught_up_at >= store.unread_through` -> `True`
"""

from __future__ import annotations

import ast
import copy
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

_SWAPPED: dict[type[ast.cmpop], type[ast.cmpop]] = {
    ast.Lt: ast.LtE,
    ast.LtE: ast.Lt,
    ast.Gt: ast.GtE,
    ast.GtE: ast.Gt,
    ast.Eq: ast.NotEq,
    ast.NotEq: ast.Eq,
    ast.Is: ast.IsNot,
    ast.IsNot: ast.Is,
    ast.In: ast.NotIn,
    ast.NotIn: ast.In,
}
_OPERATORS: dict[type[ast.operator], type[ast.operator]] = {
    ast.Add: ast.Sub,
    ast.Sub: ast.Add,
    ast.Mult: ast.FloorDiv,
    ast.FloorDiv: ast.Mult,
    ast.BitOr: ast.BitAnd,
    ast.BitAnd: ast.BitOr,
}
_CALLS = {"min": "max", "max": "min", "any": "all", "all": "any", "bisect_left": "bisect_right"}
_CALLS |= {other: one for one, other in _CALLS.items()}
# States invariants for tests, and is run by them alone.
_SKIPPED = frozenset({"check"})


@dataclass(frozen=True)
class Mutant:
    """A module with one change.

    `text` names it, `function` is the qualified name of the function that it is in; `tree` is to be compiled. A test
    that runs none of `lines` of the module runs what it would without the change.
    """

    text: str
    function: str
    lines: range
    tree: ast.Module


def mutants(source: str) -> Iterator[Mutant]:
    """All mutants of a module, in the order of its source; what is not in a function is left alone."""
    tree = ast.parse(source)
    seen: Counter[str] = Counter()
    for name, function in _functions(tree, ""):
        for node, statement in _nodes(function):
            for changed in _changes(node):
                text = f"{name}: `{_text(node)}` -> `{_text(changed)}`"
                seen[text] += 1
                number = f" ({seen[text]})" if seen[text] > 1 else ""
                yield Mutant(text + number, name, _lines(statement), _with(tree, node, changed))


def _functions(node: ast.AST, prefix: str) -> Iterator[tuple[str, ast.FunctionDef]]:
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.FunctionDef) and child.name not in _SKIPPED:
            yield prefix + child.name, child
        elif isinstance(child, ast.ClassDef):
            yield from _functions(child, f"{prefix}{child.name}.")


def _nodes(function: ast.FunctionDef) -> Iterator[tuple[ast.AST, ast.stmt]]:
    """All nodes of a function's body, each with the innermost statement; not those of types, which nothing looks at."""
    waiting: list[tuple[ast.AST, ast.stmt]] = [(one, one) for one in reversed(function.body)]
    while waiting:
        node, statement = waiting.pop()
        yield node, statement
        unread = node.annotation if isinstance(node, ast.AnnAssign) else None
        children = [one for one in ast.iter_child_nodes(node) if one is not unread and not _strict(one)]
        waiting += [(one, one if isinstance(one, ast.stmt) else statement) for one in reversed(children)]


def _lines(statement: ast.stmt) -> range:
    """The lines of a statement; of one with a body (but for `match`) those before it."""
    body = getattr(statement, "body", None)
    if body:
        return range(statement.lineno, max(body[0].lineno, statement.lineno + 1))
    return range(statement.lineno, (statement.end_lineno or statement.lineno) + 1)


def _strict(node: ast.AST) -> bool:
    """Whether it is the argument of `zip` that only says what is so anyway."""
    return isinstance(node, ast.keyword) and node.arg == "strict"


def _changes(node: ast.AST) -> Iterator[ast.AST]:
    if isinstance(node, ast.Compare):
        yield ast.Compare(node.left, [_SWAPPED[type(node.ops[0])](), *node.ops[1:]], node.comparators)
    elif isinstance(node, ast.BoolOp):
        yield ast.BoolOp(ast.And() if isinstance(node.op, ast.Or) else ast.Or(), node.values)
        for at in range(len(node.values)):
            rest = node.values[:at] + node.values[at + 1 :]
            yield rest[0] if len(rest) == 1 else ast.BoolOp(node.op, rest)
    elif isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not):
        yield node.operand
    elif isinstance(node, ast.BinOp | ast.AugAssign) and type(node.op) in _OPERATORS:
        changed = copy.copy(node)
        changed.op = _OPERATORS[type(node.op)]()
        yield changed
    elif isinstance(node, ast.Constant) and type(node.value) is int:
        yield ast.Constant(node.value + 1)
    elif isinstance(node, ast.Constant) and type(node.value) is bool:
        yield ast.Constant(not node.value)
    elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in _CALLS:
        yield ast.Call(ast.Name(_CALLS[node.func.id], ast.Load()), node.args, node.keywords)
    elif isinstance(node, ast.IfExp):
        yield node.body
        yield node.orelse
    elif isinstance(node, ast.If | ast.While):
        for value in (True, False):
            branch = copy.copy(node)
            branch.test = ast.Constant(value)
            yield branch
    elif isinstance(node, ast.comprehension) and node.ifs:
        yield ast.comprehension(node.target, node.iter, [], node.is_async)
    elif isinstance(node, ast.Break):
        yield ast.Continue()
    elif isinstance(node, ast.Continue):
        yield ast.Break()
    elif _has_effect(node):
        yield ast.Pass()


def _has_effect(node: ast.AST) -> bool:
    """Whether it is a statement that can be left out, and then something does not happen."""
    if isinstance(node, ast.Expr):
        return isinstance(node.value, ast.Call)
    if isinstance(node, ast.Assign):
        targets = [
            one for target in node.targets for one in (target.elts if isinstance(target, ast.Tuple) else [target])
        ]
        return not any(isinstance(one, ast.Name) for one in targets)
    return isinstance(node, ast.Delete)


class _Replace(ast.NodeTransformer):
    def __init__(self, old: ast.AST, new: ast.AST) -> None:
        self._old = old
        self._new = new

    def visit(self, node: ast.AST) -> ast.AST:
        if node is self._old:
            return ast.copy_location(self._new, node) if "lineno" in node._attributes else self._new
        for field, value in ast.iter_fields(node):
            if isinstance(value, list):
                for at, item in enumerate(value):
                    if item is self._old or isinstance(item, ast.AST):
                        changed = self.visit(item)
                        if changed is not item:
                            made = copy.copy(node)
                            setattr(made, field, [*value[:at], changed, *value[at + 1 :]])
                            return made
            elif isinstance(value, ast.AST):
                changed = self.visit(value)
                if changed is not value:
                    made = copy.copy(node)
                    setattr(made, field, changed)
                    return made
        return node


def _with(tree: ast.Module, old: ast.AST, new: ast.AST) -> ast.Module:
    """The module with another node in the place of one; everything else is shared."""
    changed = _Replace(old, new).visit(tree)
    assert isinstance(changed, ast.Module)
    assert changed is not tree
    return ast.fix_missing_locations(changed)


def _text(node: ast.AST) -> str:
    if isinstance(node, ast.comprehension):
        return ast.unparse(ast.ListComp(node.target, [node]))
    if isinstance(node, ast.If | ast.While):
        word = "if" if isinstance(node, ast.If) else "while"
        return f"{word} {ast.unparse(node.test)}"
    return " ".join(ast.unparse(ast.fix_missing_locations(copy.copy(node))).split())
