"""Sizes in Keras 2's graphs: tf.shape, what is computed of it, and tensors that are made from a shape."""

from __future__ import annotations

from typing import Any

import numpy as np

from kprune.graph.dialects import CONSTANT, legacy_rows
from kprune.graph.model import leaves
from kprune.labels.labels import Labels
from kprune.labels.sizes import ARITHMETIC, Number, calculated, product, size_number
from kprune.rules.tensorflow.registry import Function, function, written
from kprune.tracing.layer_call import LayerCall
from kprune.tracing.rule_call import CannotTell


def is_sizes(value: Any) -> bool:
    return isinstance(value, Labels) and value.numbers is not None


def tensor_of(numbers: np.ndarray) -> Labels:
    """A tensor of sizes."""
    return Labels(numbers.shape, numbers=numbers)


def _array(numbers: list[Number]) -> np.ndarray:
    result = np.empty(len(numbers), object)
    result[:] = numbers
    return result


def hold_sizes(call: LayerCall, values: Any) -> None:
    """Say that sizes are more than sizes here: they must stay what they are."""
    for value in leaves([values]):
        if is_sizes(value):
            for number in value.numbers.flat:
                call.use_value(number)


# -- what is computed of sizes ---------------------------------------------------------------------


def computed_sizes(call: LayerCall, known: Function) -> Labels | list[Labels] | None:
    """What a function makes of sizes; None if it does not work on sizes alone, or is no arithmetic."""
    operands: list[Any] = [call.args[0] if call.args else None]
    operands += [call.kwargs[name] for name in ("y", "x") if name in call.kwargs]
    tensors = [leaf for leaf in leaves(operands) if isinstance(leaf, Labels)]
    if not tensors or not all(is_sizes(one) for one in tensors):
        return None
    if known.twin in ("Stack", "Concatenate"):
        return _assembled(call, known.twin)
    first = operands[0]
    if known.twin in ("Cast", "Copy", "StopGradient"):
        return tensor_of(first.numbers)
    if known.twin == "Unstack":
        return [tensor_of(np.array(number, object)) for number in first.numbers]
    if known.twin == "Prod" and call.kwargs.get("axis") in (None, 0, [0]):
        return tensor_of(np.array(product(list(first.numbers.flat)), object))
    if (known.twin in ARITHMETIC or known.twin == "Multiply") and len(operands) == 2:
        return tensor_of(calculated(known.twin, *(_numbers(operand) for operand in operands)))
    return None


def _numbers(value: Any) -> np.ndarray:
    if isinstance(value, Labels):
        return np.asarray(value.numbers, object)
    flat = np.asarray(value)
    if flat.dtype.kind != "i":
        raise CannotTell("computes with sizes and with fractions")
    result = np.empty(flat.shape, object)
    for place, number in np.ndenumerate(flat):
        result[place] = Number(int(number))
    return result


def _assembled(call: LayerCall, kind: str) -> Labels:
    """Sizes put one after the other, with numbers from the config among them."""
    places = _places(call)
    items = call.args if len(call.args) > 1 else call.args[0]
    parts: list[Number] = []
    spots = iter(places)
    for item in items:
        for leaf in leaves([item]):
            holder = next(spots, None)
            if isinstance(leaf, Labels):
                parts += list(leaf.numbers.flat)
            else:
                parts.append(Number(int(leaf), None if holder is None else (holder, 2)))
    if kind == "Stack" and len(parts) != len(items):
        raise CannotTell("stacks several sizes")
    return tensor_of(_array(parts))


def _places(call: LayerCall) -> list[Any]:
    """For each leaf of the first argument the row in the config, if it is a number there; else None."""
    nodes = call.layer.spec.get("inbound_nodes")
    if call.graph_call is None or not nodes:
        return []
    rows = legacy_rows(nodes[call.graph_call.node])
    return [row if row[0] == CONSTANT else None for row in rows]


# -- sizes as arguments ---------------------------------------------------------------------------


def size_list(call: LayerCall, name: str) -> list[Number]:
    """An argument that is a list of sizes: numbers in the config, computed ones, or both.

    Raises: CannotTell if it is only known at run time.
    """
    value = call.kwargs.get(name)
    if isinstance(value, Labels):
        if value.numbers is None:
            raise CannotTell("is controlled by a tensor that is only known at run time")
        return list(value.numbers.flat)
    if not isinstance(value, (list, tuple)):
        raise CannotTell(f"is given no list as {name}")
    holder = written(call)[name]
    return [_element(item, (holder, index)) for index, item in enumerate(value)]


def _element(item: Any, at: Any) -> Number:
    if isinstance(item, Labels):
        if item.numbers is None or item.numbers.size != 1:
            raise CannotTell("is controlled by a tensor that is only known at run time")
        number: Number = item.numbers.ravel()[0]
        return number
    return Number(None if item is None else int(item), at)


def known_sizes(numbers: list[Number]) -> list[int | None]:
    return [number.value for number in numbers]


# -- functions ------------------------------------------------------------------------------------


@function("shape", idle="out_type")
def shape(call: LayerCall) -> Labels:
    """the sizes of a tensor"""
    x = call.x
    return tensor_of(_array([size_number(x, axis) for axis in range(len(call.shape()))]))


@function("size", idle="out_type")
def size(call: LayerCall) -> Labels:
    """the product of all sizes"""
    x = call.x
    numbers = [size_number(x, axis) for axis in range(len(call.shape()))]
    return tensor_of(np.array(product(numbers), object))


@function("rank")
def rank(call: LayerCall) -> Labels:
    """how many axes there are"""
    return tensor_of(np.array(Number(len(call.shape())), object))


@function(
    "zeros", "ones", "fill", "random.normal", "random.uniform", "random.truncated_normal",
    idle="value mean stddev minval maxval seed layout", reads_sizes=True,
)  # fmt: skip
def made_from_a_shape(call: LayerCall) -> Labels:
    """a tensor whose positions are units without names, where its sizes are written down or follow"""
    if any(isinstance(value, Labels) for value in call.kwargs.values()):
        raise CannotTell("is filled with what the model computes")
    first = call.args[0]
    if isinstance(first, Labels):
        if first.numbers is None:
            raise CannotTell("is controlled by a tensor that is only known at run time")
        numbers = list(first.numbers.flat)
    else:
        numbers = list(_assembled(call, "Concatenate").numbers.flat)
    return call.sized(numbers).with_keeps_zero(False)
