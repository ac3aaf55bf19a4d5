"""What an expression may contain: the tables, and a check of the syntax tree.

See `expressions.py`, which parses the text and evaluates what passed here.
"""

from __future__ import annotations

import ast
import re
from types import EllipsisType

import numpy as np

from kprune.errors import ExpressionError
from kprune.pointing import Source, did_you_mean, quoted
from kprune.select.naming.statistic_names import ALL_NAMES

MAX_LENGTH = 2000
MAX_DEPTH = 100

ARITHMETIC: dict[type[ast.operator], np.ufunc] = {
    ast.Add: np.add,
    ast.Sub: np.subtract,
    ast.Mult: np.multiply,
    ast.Div: np.true_divide,
    ast.Mod: np.remainder,
    ast.Pow: np.float_power,
}
SIGNS: dict[type[ast.unaryop], np.ufunc] = {ast.UAdd: np.positive, ast.USub: np.negative}
COMPARISONS: dict[type[ast.cmpop], np.ufunc] = {
    ast.Lt: np.less,
    ast.LtE: np.less_equal,
    ast.Gt: np.greater,
    ast.GtE: np.greater_equal,
    ast.Eq: np.equal,
    ast.NotEq: np.not_equal,
}
FUNCTIONS = {"abs": "abs(x)", "quantile": "quantile(x, q)", "rank": "rank(x)"}

# What stands in other languages, or in Python, for what is written differently here.
WRITTEN_HERE = {
    "&&": "and", "&": "and", "||": "or", "|": "or", "!": "not", "~": "not", "=": "==", "^": "**",
    "//": "/",
}  # fmt: skip
FOREIGN = re.compile(r"&&|&|\|\||\||(?<![<>=!])=(?!=)|!(?!=)|~|\^|//")
REFUSED: dict[type[ast.AST], str] = {
    ast.Attribute: "an attribute",
    ast.Lambda: "a lambda",
    ast.IfExp: "'if … else'",
    ast.NamedExpr: "an assignment",
    ast.ListComp: "a comprehension",
    ast.SetComp: "a comprehension",
    ast.DictComp: "a comprehension",
    ast.GeneratorExp: "a comprehension",
    ast.List: "a list",
    ast.Tuple: "a tuple",
    ast.Set: "a set",
    ast.Dict: "a dict",
    ast.JoinedStr: "text",
    ast.Starred: "a star",
    ast.Await: "await",
    ast.Yield: "yield",
    ast.YieldFrom: "yield",
}
WHAT_IS_ALLOWED = (
    "use names of unit statistics, numbers, comparisons, + - * / ** %, and or not,"
    " abs quantile rank, and w[...]"
)


def refusal(where: str, what: str) -> ExpressionError:
    return ExpressionError(
        f"{what} is not allowed in an expression", where=where, do=WHAT_IS_ALLOWED
    )


def one_line(text: str) -> str:
    """The text as Python's parser gets it: a line break, as in a YAML block, means nothing here."""
    return re.sub(r"\s", " ", text)


def foreign_sign(text: str, source: Source) -> ExpressionError | None:
    """The error for the first sign of another language in the text, with what is written here."""
    found = FOREIGN.search(text)
    if found is None:
        return None
    sign = found.group()
    return ExpressionError(
        f"'{sign}' has no meaning in an expression",
        where=source.at(found.start(), len(sign)),
        do=f"write '{WRITTEN_HERE[sign]}'",
    )


def share_error(where: str) -> ExpressionError:
    return ExpressionError(
        "the second argument of 'quantile' is a share from 0 to 1",
        where=where,
        do="the lower quarter is x < quantile(x, 0.25)",
    )


class Places:
    """Where a node of the tree stands in the text."""

    def __init__(self, source: Source) -> None:
        self.source = source
        self.line = one_line(source.text[source.offset :])

    def at(self, node: ast.expr) -> str:
        start = self._characters(node.col_offset)
        stop = self._characters(node.end_col_offset or node.col_offset + 1)
        return self.source.at(start, stop - start)

    def _characters(self, count: int) -> int:
        # ast counts bytes of UTF-8, a caret stands under characters
        return len(self.line.encode("utf-8", "replace")[:count].decode("utf-8", "ignore"))


class Check(Places):
    """One walk over the tree: is every node allowed, and is it a truth or a number?"""

    def __init__(self, source: Source) -> None:
        super().__init__(source)
        self.names: set[str] = set()

    def kind(self, node: ast.expr, depth: int) -> str:
        """`truth` or `number`. Raises: ExpressionError for whatever is not in the tables."""
        depth += 1
        if depth > MAX_DEPTH:
            raise ExpressionError(
                f"the expression is nested more than {MAX_DEPTH} deep", where=self.at(node)
            )
        match node:
            case ast.BoolOp(values=values):
                word = "and" if isinstance(node.op, ast.And) else "or"
                for value in values:
                    self._truth(value, depth, word)
                return "truth"
            case ast.UnaryOp(op=ast.Not(), operand=operand):
                self._truth(operand, depth, "not")
                return "truth"
            case ast.UnaryOp(op=op, operand=operand) if type(op) in SIGNS:
                self._number(operand, depth)
                return "number"
            case ast.Compare(left=left, ops=ops, comparators=others):
                for comparison in ops:
                    if type(comparison) not in COMPARISONS:
                        raise refusal(self.at(node), "'is' or 'in'")
                for operand in (left, *others):
                    self._number(operand, depth)
                return "truth"
            case ast.BinOp(left=left, op=op, right=right) if type(op) in ARITHMETIC:
                self._number(left, depth)
                self._number(right, depth)
                return "number"
            case ast.Call():
                self._call(node, depth)
                return "number"
            case ast.Subscript():
                self._subscript(node)
                return "number"
            case ast.Name(id=name):
                self._name(node, name)
                return "number"
            case ast.Constant(value=value):
                self._constant(node, value)
                return "number"
        raise self._unknown(node)

    def _truth(self, node: ast.expr, depth: int, word: str) -> None:
        if self.kind(node, depth) != "truth":
            raise ExpressionError(
                f"'{word}' joins comparisons, and this is a number",
                where=self.at(node),
                do="compare it with something, as in mean < 0.1",
            )

    def _number(self, node: ast.expr, depth: int) -> None:
        if self.kind(node, depth) != "number":
            raise ExpressionError(
                "a comparison stands where a number is needed",
                where=self.at(node),
                do="join comparisons with 'and', 'or' and 'not'",
            )

    def _call(self, node: ast.Call, depth: int) -> None:
        name = node.func.id if isinstance(node.func, ast.Name) else None
        if name is None:
            raise refusal(self.at(node.func), "a call of this kind")
        if name not in FUNCTIONS:
            if name in ALL_NAMES:
                why = f"'{name}' is a number for each unit"
                do = "write it without brackets; the functions are abs, quantile and rank"
            else:
                why, do = "", did_you_mean(name, FUNCTIONS) or "there are abs, quantile and rank"
            raise ExpressionError(
                f"there is no function {quoted(name)}", where=self.at(node.func), why=why, do=do
            )
        wanted = 2 if name == "quantile" else 1
        if node.keywords or len(node.args) != wanted:
            raise ExpressionError(
                f"'{name}' takes {'two arguments' if wanted == 2 else 'one argument'}",
                where=self.at(node),
                do=f"write {FUNCTIONS[name]}",
            )
        for argument in node.args:
            self._number(argument, depth)
        share = _literal(node.args[1]) if name == "quantile" else None
        if share is not None and not 0 <= share <= 1:
            raise share_error(self.at(node.args[1]))

    def _subscript(self, node: ast.Subscript) -> None:
        base: ast.expr = node
        while isinstance(base, ast.Subscript):
            for index in _indices(base):
                if not _is_index(index):
                    raise ExpressionError(
                        "w is indexed with whole numbers, slices of them and '...'",
                        where=self.at(index),
                        do="write w[0,0,0] or w[..., 0, :]",
                    )
            base = base.value
        if not (isinstance(base, ast.Name) and base.id == "w"):
            raise ExpressionError("only 'w' can be indexed", where=self.at(base))
        self.names.add("w")

    def _name(self, node: ast.expr, name: str) -> None:
        if name in FUNCTIONS:
            raise ExpressionError(
                f"'{name}' is a function", where=self.at(node), do=f"write {FUNCTIONS[name]}"
            )
        if name not in ALL_NAMES:
            raise ExpressionError(
                f"there is no statistic {quoted(name)}",
                where=self.at(node),
                do=did_you_mean(name, [*ALL_NAMES, *FUNCTIONS])
                or f"there are {', '.join(sorted(ALL_NAMES))}",
            )
        self.names.add(name)

    def _constant(self, node: ast.expr, value: object) -> None:
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            kinds = {str: "text", bytes: "text", complex: "a complex number"}
            raise refusal(self.at(node), kinds.get(type(value), f"'{value}'"))
        if _literal(node) is None:
            raise ExpressionError("the number is too large", where=self.at(node))

    def _unknown(self, node: ast.expr) -> ExpressionError:
        if isinstance(node, (ast.BinOp, ast.UnaryOp)):
            foreign = foreign_sign(self.line, self.source)
            if foreign:
                return foreign
        return refusal(self.at(node), REFUSED.get(type(node), "this"))


def _literal(node: ast.expr) -> float | None:
    """The number that `node` is, a sign included; None if it is not one, or too large for one."""
    match node:
        case ast.UnaryOp(op=ast.USub(), operand=operand):
            number = _literal(operand)
            return None if number is None else -number
        case ast.Constant(value=int() | float() as value):
            try:
                return float(value)
            except OverflowError:
                return None
    return None


def _indices(node: ast.Subscript) -> list[ast.expr]:
    return node.slice.elts if isinstance(node.slice, ast.Tuple) else [node.slice]


def _is_index(node: ast.expr) -> bool:
    """Whether numpy may be indexed with it: a whole number, a slice of whole numbers, or '...'."""
    if isinstance(node, ast.Slice):
        bounds = [_whole(bound) for bound in (node.lower, node.upper, node.step) if bound]
        return None not in bounds and not (node.step and bounds[-1] == 0)
    return _whole(node) is not None or (isinstance(node, ast.Constant) and node.value is ...)


def _whole(node: ast.expr) -> int | None:
    """The whole number that `node` is, a minus included; None if it is not one."""
    match node:
        case ast.UnaryOp(op=ast.USub(), operand=ast.Constant(value=int() as value)):
            return None if isinstance(value, bool) else -value
        case ast.Constant(value=int() as value):
            return None if isinstance(value, bool) else value
    return None


def numpy_index(node: ast.Subscript) -> tuple[int | slice | EllipsisType | None, ...]:
    """What stands between the brackets, for numpy. The check has seen that it is nothing else."""

    def one(part: ast.expr) -> int | slice | EllipsisType | None:
        if isinstance(part, ast.Slice):
            bounds = (part.lower, part.upper, part.step)
            return slice(*(None if bound is None else _whole(bound) for bound in bounds))
        return ... if isinstance(part, ast.Constant) and part.value is ... else _whole(part)

    return tuple(map(one, _indices(node)))
