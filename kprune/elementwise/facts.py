"""What follows from the formula of an element-wise function, with the parameters of one call."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from enum import Enum
from functools import lru_cache, partial
from typing import Any

import numpy as np

from kprune.elementwise.table import FUNCTIONS, Formula, Name


class Operand(Enum):
    """What is known of an operand that is no constant."""

    ZERO = "always 0"
    ANYTHING = "any number"


ZERO, ANYTHING = Operand.ZERO, Operand.ANYTHING

_MAGNITUDES = (1e-6, 0.01, 0.3, 0.5, 0.9, 1.0, 1.5, 2.0, 2.7, 4.0, 17.0, 1e3, 1e9)
_PROBES = np.array([*_MAGNITUDES, *(-x for x in _MAGNITUDES)])
_WHOLE = np.array([1, 2, 3, 5, 6, 7, 12, 30, -1, -2, -3, -8])


def names(kind: str, *, operands: Callable[[int], bool] = lambda count: True) -> list[str]:
    """The names of one kind.

    Args:
        kind: LAYER, ACTIVATION, OPERATION or TENSORFLOW, of `table`.
        operands: says which numbers of operands are meant.
    """
    return [name for name, known in FUNCTIONS[kind].items() if operands(known.name.operands)]


def formula(kind: str, name: str, written: Mapping[str, Any]) -> Formula | None:
    """The function of that name, its parameters bound.

    Args:
        written: where its parameters are written, by the keys of that kind of name: a config, or attributes.
    Returns: None if it is not in the table, or a parameter is no plain number.
    """
    known = FUNCTIONS[kind].get(name)
    if known is None:
        return None
    parameters = _parameters(known.name, written)
    if parameters is None:
        return None
    return partial(known.formula, **parameters) if parameters else known.formula


def gives_zero(
    kind: str, name: str, operands: Sequence[Any], written: Mapping[str, Any] | None = None
) -> bool:
    """Whether the result is 0 throughout.

    Args:
        operands: for each a number, an array, ZERO or ANYTHING.
        written: see `formula`.
    Returns: False if that cannot be told.
    """
    function = formula(kind, name, written or {})
    if function is None:
        return False
    probes = _WHOLE if FUNCTIONS[kind][name].integers else _PROBES
    try:
        with np.errstate(all="ignore"):
            result = function(*_values(operands, probes))
            if np.any(result):  # nan is not 0 either
                return False
            if not any(operand is ANYTHING for operand in operands):
                return True
            # What may be any number may be 0 as well; 0 / 0 is then the model's own affair.
            result = function(*_values(operands, np.zeros(1, probes.dtype)))
            return not np.any(np.nan_to_num(result))
    except (TypeError, ValueError, OverflowError):
        return False


def _values(operands: Sequence[Any], probes: np.ndarray) -> list[np.ndarray]:
    """Operands to try a function on; `probes` stand for any number."""
    values: list[np.ndarray] = []
    for number, operand in enumerate(operands):
        if operand is ZERO:
            values.append(np.zeros((), probes.dtype))
        elif operand is ANYTHING:
            # Turned round, so that two operands that may be anything do not always meet as equals.
            values.append(np.roll(probes, 5 * number))
        else:
            # An axis of its own: each of a constant's elements may meet each of another's.
            shape = [1] * (len(operands) + 1)
            shape[number] = -1
            values.append(np.unique(np.asarray(operand)).reshape(shape))
    return values


@lru_cache(maxsize=256)
def _homogeneous(kind: str, name: str, parameters: tuple[tuple[str, Any], ...]) -> bool:
    function = FUNCTIONS[kind][name].formula
    x = np.append(_PROBES[np.abs(_PROBES) < 100], 0.0)
    with np.errstate(all="ignore"):
        before = function(x, **dict(parameters))
        return all(
            np.allclose(function(a * x, **dict(parameters)), a * before, rtol=1e-9, atol=0.0)
            for a in (0.125, 3.0, 640.0)
        )


def homogeneous(kind: str, name: str, written: Mapping[str, Any] | None = None) -> bool:
    """Whether f(a x) = a f(x) for every a > 0, of a function of one operand.

    Args:
        written: see `formula`.
    """
    known = FUNCTIONS[kind].get(name)
    if known is None or known.name.operands != 1 or known.integers:
        return False
    parameters = _parameters(known.name, written or {})
    return parameters is not None and _homogeneous(kind, name, tuple(sorted(parameters.items())))


def keeps_zero(kind: str, name: str, written: Mapping[str, Any] | None = None) -> bool:
    """Whether f(0) = 0, of a function of one operand."""
    return gives_zero(kind, name, (ZERO,), written)


def _parameters(name: Name, written: Mapping[str, Any]) -> dict[str, Any] | None:
    """The formula's parameters as they are written; None if one of them is no number."""
    found = dict(name.defaults)
    for parameter, keys in name.parameters.items():
        value = next((written[key] for key in keys if written.get(key) is not None), None)
        while isinstance(value, Mapping):  # a numpy scalar that was serialized
            value = value.get("value", value.get("config"))
        if isinstance(value, (int, float)):
            found[parameter] = value
        elif value is not None:
            return None
    return found
