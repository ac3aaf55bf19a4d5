"""Element by element: labels pass, what meets is tied, constants are cut too."""

from __future__ import annotations

from typing import Any

import numpy as np

from kprune.elementwise.facts import keeps_zero, names
from kprune.elementwise.table import OPERATION
from kprune.graph.model import Constant, array_at
from kprune.labels.combine import broadcast_shape
from kprune.labels.labels import Axis, Labels
from kprune.tracing.layer_call import LayerCall
from kprune.tracing.registry import OPERATIONS
from kprune.tracing.rule_call import CannotTell

OF_ONE = names(OPERATION, operands=lambda count: count == 1)
OF_SEVERAL = names(OPERATION, operands=lambda count: count > 1)


@OPERATIONS.rule(
    *(name for name in OF_ONE if keeps_zero(OPERATION, name)),
    does="passes",
    note="element by element",
)
@OPERATIONS.rule(
    *(name for name in OF_ONE if not keeps_zero(OPERATION, name)),
    does="passes",
    note="element by element; a masked unit gives a constant other than 0",
)
def elementwise(call: LayerCall) -> Labels:
    keeps_zero = call.gives_zero(OPERATION, call.kind, [call.x], _parameters(call))
    return with_parameters(call).with_keeps_zero(keeps_zero and not call.constants)


def with_parameters(call: LayerCall) -> Labels:
    """The labels of a function of one tensor whose parameters (bounds, slopes) may be arrays."""
    listed = (array_at(call.config, key) for key, held in call.config.items() if held)
    result = call.x
    for array in [*call.constants, *(array for array in listed if array is not None)]:
        result = with_constant(call, result, array)
    return result


@OPERATIONS.rule(
    *OF_SEVERAL,
    does="combines",
    note="element by element: what meets is tied; a constant is cut with what it meets",
)
def combining(call: LayerCall) -> Labels:
    operands = [*call.args, *call.kwargs.values()]
    tensors = [operand for operand in operands if isinstance(operand, Labels)]
    combined = call.combine(tensors)
    if combined.shape is None:
        return combined
    for operand in operands:
        if isinstance(operand, (Constant, list, tuple)):
            combined = with_constant(call, combined, operand)
    return combined.with_keeps_zero(
        call.gives_zero(
            OPERATION,
            call.kind,
            [operand.value if isinstance(operand, Constant) else operand for operand in operands],
            _parameters(call),
        )
    )


def _parameters(call: LayerCall) -> dict[str, Any]:
    """What the call and the node's config say beside the operands."""
    return {**call.config, **call.kwargs}


def with_constant(call: LayerCall, x: Labels, constant: Any) -> Labels:
    """The labels of a tensor combined with an array in the config, which is cut where units meet it."""
    if not isinstance(constant, Constant):
        if x.factors and np.size(constant) > 1:
            raise CannotTell("has a list of numbers as an operand")
        return x
    sizes = constant.shape
    try:
        shape = broadcast_shape([x.shape or (), sizes])
    except ValueError as error:
        raise CannotTell(str(error)) from error
    if len(shape) != x.rank:
        call.freeze(x, f"are combined by {call.layer.path!r} with a constant of higher rank")
        return Labels(shape)
    axes: list[Axis | int] = []
    for offset, size in enumerate(sizes):
        axis = len(shape) - len(sizes) + offset
        if size == 1:
            axes.append(1)
        elif (x.shape or ())[axis] == size:
            axes.append(x.axis(axis))
        else:
            # The constant widens an axis of size 1 (or of unknown size): no unit can go there.
            x = call.keep_axes_whole(
                x, [axis], f"are spread along an axis by a constant in {call.layer.path!r}"
            )
            axes.append(size)
    call.constant(constant, *axes)
    return x.with_shape(shape)
