"""Expressions over one layer's units: `mean < 0.1 and not rank(l2) < 8`.

The text is parsed by `ast`, every node is checked (`expression_syntax.py`), and numpy evaluates
what passed: there is no `eval`, no attribute, no call but the three functions. What the text
alone tells (unknown names, a number where a comparison is needed) is told when it is parsed.

Every value is a float64 array with the units on its last axis, or a scalar; only `w` has more axes.
"""

from __future__ import annotations

import ast
import math
import re
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np

from kprune.errors import ExpressionError
from kprune.pointing import Source, quoted
from kprune.select.naming.expression_syntax import (
    ARITHMETIC,
    COMPARISONS,
    MAX_LENGTH,
    SIGNS,
    WHAT_IS_ALLOWED,
    Check,
    Places,
    foreign_sign,
    numpy_index,
    one_line,
    refusal,
    share_error,
)
from kprune.select.naming.statistic_names import (
    ALL_NAMES,
    BATCHNORM_NAMES,
    DATA_NAMES,
    OUTGOING_NAMES,
    WEIGHT_NAMES,
)

__all__ = [
    "ALL_NAMES",
    "BATCHNORM_NAMES",
    "DATA_NAMES",
    "OUTGOING_NAMES",
    "WEIGHT_NAMES",
    "Expression",
    "parse_expression",
]

MAX_ELEMENTS = 1 << 24  # of one intermediate result, unless an input is itself larger


@dataclass(frozen=True)
class Expression:
    """A parsed expression.

    Attributes:
        text: as it was written, without space around it.
        names: the statistics it needs, a subset of ALL_NAMES.
        source: the text it was written in, for messages.
    """

    text: str
    names: frozenset[str] = field(compare=False)
    source: Source = field(compare=False, repr=False)
    _tree: ast.expr = field(compare=False, repr=False)

    def where(self, name: str) -> str:
        """The text with carets under the first use of a name, for an error about that statistic."""
        places = Places(self.source)
        for node in ast.walk(self._tree):
            if isinstance(node, ast.Name) and node.id == name:
                return places.at(node)
        return self.source.shown()

    def evaluate(
        self, env: Mapping[str, np.ndarray], *, size: int | None = None, what: str = "the layer"
    ) -> np.ndarray:
        """Which units the expression holds for.

        Args:
            env: an array for each name: (n,), one value per unit; `w` has the units on its last
                axis. Never modified.
            size: n, where it is known; otherwise it is read off `env`.
            what: how a message calls the layer, such as `layer 'dense_1'`.
        Returns: bool (n,). A comparison with NaN does not hold, `!=` included.
        Raises: ExpressionError for a name that `env` lacks, an index outside of `w`, shapes that do
            not fit, and a result that is not one value per unit.
        """
        evaluation = _Evaluation(env, self.source, what)
        with np.errstate(all="ignore"):
            result = evaluation.value(self._tree)
        if size is None:
            name = min(self.names)
            size = int(np.shape(env[name])[-1])
        if result.shape == (size,):
            return np.array(result, dtype=bool)
        if result.ndim == 0:
            why = f"it is one value for all {size} units together"
        else:
            why = f"its shape is {_shape(result.shape)}, and there are {size} units"
        raise ExpressionError(
            f"the expression does not give one value per unit of {what}",
            where=evaluation.at(self._tree),
            why=why,
            do="name every axis of w but the last, as in w[0,0,0], or compare with a statistic",
        )


def parse_expression(text: str, *, source: Source | None = None) -> Expression:
    """Parse an expression and check everything that does not need the numbers.

    Args:
        text: the expression.
        source: the text it stands in, from the place where the expression starts.
    Raises: ExpressionError, with a caret under the place.
    """
    source = source or Source(text)
    if not text.strip():
        raise ExpressionError(
            "the expression is empty", where=source.at(0), do="write a comparison: mean < 0.1"
        )
    if len(text) > MAX_LENGTH:
        raise ExpressionError(
            f"the expression has {len(text)} characters, and the limit is {MAX_LENGTH}",
            where=source.at(MAX_LENGTH),
        )
    for comment in re.finditer("#|\\\\", text):
        raise refusal(source.at(comment.start()), quoted(comment.group()))
    inner = text.lstrip()
    piece = source.piece(len(text) - len(inner))
    tree = _parse(inner, piece)
    check = Check(piece)
    if check.kind(tree, 0) != "truth":
        raise ExpressionError(
            "the expression is a number, not a yes or no",
            where=check.at(tree),
            do="compare it with something, as in mean < 0.1",
        )
    if not check.names:
        raise ExpressionError(
            "the expression is the same for every unit",
            where=check.at(tree),
            do=f"use one of the statistics: {', '.join(sorted(ALL_NAMES))}",
        )
    return Expression(inner.rstrip(), frozenset(check.names), piece, tree)


def _parse(text: str, source: Source) -> ast.expr:
    """The tree of `text`; every failure of Python's parser becomes an ExpressionError."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")  # '1if' and the like: deprecated is not good enough
            return ast.parse(one_line(text), mode="eval").body
    except SyntaxError as error:
        end = len(text.rstrip())
        position = min(error.offset - 1, end) if error.offset else end  # 0 where the text ends
        if foreign := foreign_sign(text, source):
            raise foreign from None
        raise ExpressionError(
            "the expression is malformed", where=source.at(position), do=WHAT_IS_ALLOWED
        ) from None
    except (ValueError, RecursionError, MemoryError, OverflowError, Warning):
        raise ExpressionError(
            "the expression is malformed or nested too deeply", where=source.at(0)
        ) from None


def _shape(shape: tuple[int, ...]) -> str:
    return "(" + ", ".join(map(str, shape)) + ")"


class _Evaluation(Places):
    """One walk over a checked tree, with the numbers."""

    def __init__(self, env: Mapping[str, np.ndarray], source: Source, what: str) -> None:
        super().__init__(source)
        self.env, self.what = env, what
        self.limit = max([MAX_ELEMENTS, *(int(np.size(value)) for value in env.values())])

    def value(self, node: ast.expr) -> np.ndarray:
        match node:
            case ast.Constant(value=number):
                return np.asarray(number, dtype=np.float64)
            case ast.Name(id=name):
                return np.asarray(self._array(node, name), dtype=np.float64)
            case ast.Subscript():
                return np.asarray(self._indexed(node), dtype=np.float64)
            case ast.UnaryOp(op=ast.Not(), operand=operand):
                return np.logical_not(self.value(operand))
            case ast.UnaryOp(op=op, operand=operand):
                return SIGNS[type(op)](self.value(operand))
            case ast.BinOp(left=left, op=op, right=right):
                return self._both(ARITHMETIC[type(op)], node, self.value(left), self.value(right))
            case ast.BoolOp(op=op, values=values):
                joined = np.logical_and if isinstance(op, ast.And) else np.logical_or
                result = self.value(values[0])
                for value in values[1:]:
                    result = self._both(joined, node, result, self.value(value))
                return result
            case ast.Compare():
                return self._compare(node)
            case ast.Call(func=ast.Name(id=name), args=args):
                return self._call(node, name, args)
        raise AssertionError(f"{node!r} passed the check")

    def _array(self, node: ast.expr, name: str) -> np.ndarray:
        if name in self.env:
            return np.asarray(self.env[name])
        why, do = f"{self.what} has no such statistic", ""
        if name in BATCHNORM_NAMES:
            why = f"no BatchNormalization with a '{name}' stands behind {self.what}"
        elif name in DATA_NAMES:
            why, do = "activation statistics come from data", "add --data FILE.npz"
        elif name == "bias":
            why = f"{self.what} has no bias"
        raise ExpressionError(f"'{name}' is not known here", where=self.at(node), why=why, do=do)

    def _indexed(self, node: ast.Subscript) -> np.ndarray:
        base = node.value
        array = self._indexed(base) if isinstance(base, ast.Subscript) else self._array(base, "w")
        try:
            # The text between the brackets holds integers, slices of them and '...' alone.
            return np.asarray(array[numpy_index(node)])
        except IndexError as error:
            raise ExpressionError(
                f"w of {self.what} cannot be indexed like this",
                where=self.at(node),
                why=f"its shape is {_shape(array.shape)}: {error}",
            ) from None

    def _compare(self, node: ast.Compare) -> np.ndarray:
        result: np.ndarray | None = None
        left = self.value(node.left)
        for op, other in zip(node.ops, node.comparators, strict=True):
            right = self.value(other)
            holds = self._both(COMPARISONS[type(op)], node, left, right)
            if isinstance(op, ast.NotEq):  # the one comparison that numpy lets NaN pass
                holds = holds & ~np.isnan(left) & ~np.isnan(right)
            result = holds if result is None else self._both(np.logical_and, node, result, holds)
            left = right
        assert result is not None
        return result

    def _call(self, node: ast.expr, name: str, args: list[ast.expr]) -> np.ndarray:
        x = np.asarray(self.value(args[0]))
        if name == "abs":
            return np.absolute(x)
        if name == "quantile":
            share = self.value(args[1])
            if share.ndim or not 0 <= share <= 1:
                raise share_error(self.at(args[1]))
            there = x[~np.isnan(x)]
            if not there.size:
                return np.asarray(np.nan)
            if np.isfinite(there).all():
                return np.asarray(np.quantile(there, share))
            # Between an infinite value and another there is nothing to interpolate.
            return np.asarray(np.quantile(there, share, method="lower"))
        if x.ndim != 1:
            raise ExpressionError(
                "'rank' needs one value per unit",
                where=self.at(args[0]),
                why=f"this has the shape {_shape(x.shape)}",
            )
        # Equal values keep the order of the units, so that rank(x) < 8 holds for exactly 8.
        ranks = np.empty(x.shape)
        ranks[np.argsort(x, kind="stable")] = np.arange(x.size)
        ranks[np.isnan(x)] = np.nan
        return ranks

    def _both(
        self, operation: Callable[..., np.ndarray], node: ast.expr, a: np.ndarray, b: np.ndarray
    ) -> np.ndarray:
        """The operation element by element, on shapes that fit and are of a sane size."""
        try:
            shape = np.broadcast_shapes(a.shape, b.shape)
        except ValueError:
            shapes = f"{_shape(a.shape)} and {_shape(b.shape)}"
            raise ExpressionError(
                "the two sides do not fit together", where=self.at(node), why=f"{shapes} differ"
            ) from None
        if math.prod(shape) > self.limit:
            raise ExpressionError(
                "the two sides together are too large",
                where=self.at(node),
                why=f"the result would have the shape {_shape(shape)}",
            )
        return operation(a, b)
