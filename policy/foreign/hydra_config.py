"""A hydra configuration out of a pickle: OmegaConf's nodes, inert, as plain values, and its interpolations looked up.

    ${horizon}, ${policy.model.input_dim}     another value
    ${eval:'${action_dim} + 2'}               the arithmetic that Diffusion Policy's configurations use

Nothing is evaluated but whole numbers, comparisons and `a if b else c`. What cannot be resolved counts as absent.
"""

import ast
import operator
import re
from collections.abc import Callable, Mapping
from typing import Any

from ...errors import InputError
from .unpickling import Inert

MOST_NODES = 100_000  # of a configuration; nodes that share parts could tell of more than there are
DEEPEST = 40  # of nodes, and of interpolations that lead to interpolations
LONGEST = 400  # letters of an expression
LARGEST = 10**18  # of whole numbers in one
ENDLESS = f"the configuration has more than {MOST_NODES} values, or is nested without end"

REFERENCE = re.compile(r"\$\{([A-Za-z_][\w.]*)\}")
EXPRESSION = re.compile(r"\$\{eval:\s*(.*)\}", re.DOTALL)
OPERATORS: dict[type, Callable[[Any, Any], Any]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.FloorDiv: operator.floordiv,
    ast.Eq: operator.eq,
    ast.NotEq: operator.ne,
    ast.Lt: operator.lt,
    ast.LtE: operator.le,
    ast.Gt: operator.gt,
    ast.GtE: operator.ge,
}


class _Unresolved(Exception):
    """An interpolation that leads nowhere, or says more than is understood."""


class Settings:
    """A configuration that is asked by dotted paths."""

    def __init__(self, found: Any) -> None:
        """found: a DictConfig as `Inert`, or a plain mapping. Raises InputError where it is neither."""
        self._left = MOST_NODES
        self._tree = self._plain(found, 0)
        self._left = MOST_NODES  # of what interpolations lead to, all askings together
        if not isinstance(self._tree, Mapping):
            raise InputError(f"the configuration is a {type(self._tree).__name__}, wanted a mapping")

    def get(self, path: str, default: Any = None) -> Any:
        """The value at a path such as "policy.model.n_head", its interpolations resolved; `default` where there is none
        or it is null. A list or mapping is given with its own values resolved."""
        try:
            value = self._at(path, 0)
        except _Unresolved:
            return default
        return default if value is None else value

    def _count(self) -> None:
        self._left -= 1
        if self._left < 0:
            raise InputError(ENDLESS)

    # -- OmegaConf's nodes ----------------------------------------------------------------------------------------

    def _plain(self, node: Any, depth: int) -> Any:
        self._count()
        if depth > DEEPEST:
            raise InputError(ENDLESS)
        if isinstance(node, Inert):
            state = node.state
            if not isinstance(state, Mapping) or not ({"_content", "_val"} & set(state)):
                return None  # no node of a configuration
            return self._plain(state["_content"] if "_content" in state else state["_val"], depth + 1)
        if isinstance(node, Mapping):
            return {str(key): self._plain(value, depth + 1) for key, value in node.items()}
        if isinstance(node, list | tuple):
            return [self._plain(value, depth + 1) for value in node]
        return node

    # -- interpolations -------------------------------------------------------------------------------------------

    def _at(self, path: str, depth: int) -> Any:
        value: Any = self._tree
        for part in path.split("."):
            value = self._resolved(value, depth)
            if not isinstance(value, Mapping) or part not in value:
                raise _Unresolved
            value = value[part]
        return self._deep(value, depth)

    def _deep(self, value: Any, depth: int) -> Any:
        self._count()
        value = self._resolved(value, depth)
        if isinstance(value, list):
            return [self._deep(item, depth + 1) for item in value]
        if isinstance(value, Mapping):
            return {key: self._deep_or_none(item, depth + 1) for key, item in value.items()}
        return value

    def _deep_or_none(self, value: Any, depth: int) -> Any:
        try:
            return self._deep(value, depth)
        except _Unresolved:
            return None

    def _resolved(self, value: Any, depth: int) -> Any:
        if not isinstance(value, str) or "${" not in value:
            return value
        self._count()
        if depth > DEEPEST or len(value) > LONGEST:
            raise _Unresolved
        if reference := REFERENCE.fullmatch(value):
            return self._at(reference[1], depth + 1)
        if expression := EXPRESSION.fullmatch(value):
            text = REFERENCE.sub(lambda found: _written(self._at(found[1], depth + 1)), expression[1])
            return _evaluated(text.strip().strip("'\""))
        raise _Unresolved


def _written(value: Any) -> str:
    """A number as it stands in an expression; what is none as `...`, which has no value there."""
    if value is None or isinstance(value, float) or (isinstance(value, int) and abs(value) < LARGEST):
        return repr(value)
    return "..."


def _evaluated(text: str) -> Any:
    """The value of an expression of numbers, True, False, None, + - * //, comparisons and conditions."""
    if len(text) > LONGEST:
        raise _Unresolved
    try:
        return _value(ast.parse(text, mode="eval").body)
    except (SyntaxError, ValueError, TypeError, ArithmeticError, RecursionError, MemoryError):
        raise _Unresolved from None


def _value(node: ast.expr) -> Any:
    if isinstance(node, ast.Constant) and isinstance(node.value, int | float | None):
        return node.value
    if isinstance(node, ast.IfExp):
        return _value(node.body if _value(node.test) else node.orelse)
    if isinstance(node, ast.BinOp) and type(node.op) in OPERATORS:
        return OPERATORS[type(node.op)](_value(node.left), _value(node.right))
    if isinstance(node, ast.Compare) and len(node.ops) == 1 and type(node.ops[0]) in OPERATORS:
        return OPERATORS[type(node.ops[0])](_value(node.left), _value(node.comparators[0]))
    if isinstance(node, ast.BoolOp):
        values = [_value(value) for value in node.values]
        return all(values) if isinstance(node.op, ast.And) else any(values)
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not):
        return not _value(node.operand)
    raise _Unresolved
