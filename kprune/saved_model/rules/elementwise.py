"""Element by element: labels pass, what meets is tied. Sizes are calculated alike.

`Select` stays apart from `where`: in its first version it may choose whole samples.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from kprune.elementwise.facts import keeps_zero, names
from kprune.elementwise.table import FUNCTIONS, TENSORFLOW
from kprune.labels.labels import Labels
from kprune.labels.sizes import calculated
from kprune.saved_model.rules.registry import op
from kprune.saved_model.tracing.op_call import OpCall
from kprune.saved_model.tracing.values import Value

OF_ONE = names(TENSORFLOW, operands=lambda count: count == 1)
OF_SEVERAL = names(TENSORFLOW, operands=lambda count: count != 1)

_ARITHMETIC = {
    "Add": "Add", "AddV2": "Add", "Sub": "Subtract", "Mul": "Multiply", "Maximum": "Maximum",
    "Minimum": "Minimum", "FloorDiv": "FloorDivide", "FloorMod": "Mod",
}  # fmt: skip


@op(
    *(name for name in OF_ONE if keeps_zero(TENSORFLOW, name)),
    does="passes",
    note="element by element",
)
@op(
    *(name for name in OF_ONE if not keeps_zero(TENSORFLOW, name)),
    does="passes",
    note="element by element; a masked unit gives a constant other than 0",
)
def elementwise(call: OpCall) -> Labels:
    return call.x.with_keeps_zero(call.gives_zero(TENSORFLOW, call.op, [call.x], _parameters(call)))


def _parameters(call: OpCall) -> dict[str, Any]:
    """What the node's attributes say of the function's parameters."""
    keys = [
        key for names in FUNCTIONS[TENSORFLOW][call.op].name.parameters.values() for key in names
    ]
    return {key: call.attr(key, None) for key in keys}


@op(
    "Identity",
    "IdentityN",
    "Cast",
    "EnsureShape",
    does="passes",
    note="passes its input on unchanged",
    numbers=True,
)
def unchanged(call: OpCall) -> Any:
    if call.op == "Cast" and call.ins[0].numbers is not None and not _integer(call):
        # A size that becomes a factor, such as 1 / sqrt(depth): it is smaller when units go.
        for number in call.ins[0].numbers.flat:
            for axis in number.of:
                call.mix(axis, f"are counted by {call.layer.path!r}")
            call.keep_value(number)
        return call.x
    return [Value(held.labels, held.numbers, held.parameter, held.items) for held in call.ins]


def _integer(call: OpCall) -> bool:
    return call.node.attr["DstT"].type in (3, 9, 22, 23)  # DT_INT32, DT_INT64, DT_UINT32, DT_UINT64


@op(
    *OF_SEVERAL,
    does="combines",
    note="element by element: what meets is tied",
    numbers=True,
)
def combining(call: OpCall) -> Any:
    numbers = _arithmetic(call)
    if numbers is not None:
        return Value(call.combine([held.labels for held in call.ins]), numbers)
    call.hold_numbers()
    operands = [held.labels for held in call.ins]
    if call.op.startswith("BiasAdd"):
        operands = _with_bias(call, operands)
    combined = call.combine(operands)
    _count_uses(call, operands)
    if combined.shape is None:
        return combined
    given = [
        labels if labels.factors else call.scalar(number) for number, labels in enumerate(operands)
    ]
    return combined.with_keeps_zero(call.gives_zero(TENSORFLOW, call.op, given, _parameters(call)))


def _count_uses(call: OpCall, operands: list[Labels]) -> None:
    for mine, other in ((operands[0], operands[-1]), (operands[-1], operands[0])):
        ids = mine.all_ids()
        if ids.size and other is not mine:
            shape = other.shape or ()
            total = 1.0
            for axis, size in enumerate(shape[1:], 1):
                if not (
                    mine.shape
                    and len(mine.shape) + axis >= len(shape)
                    and mine.shape[axis - len(shape)] != 1
                ):
                    total *= size or 1
            call.tracer.owners.note_use(int(ids[0]), total, 1.0)


def _with_bias(call: OpCall, operands: list[Labels]) -> list[Labels]:
    """The bias stands along the last axis, or along axis 1 (NCHW)."""
    x, bias = operands
    if call.attr("data_format", "NHWC").startswith("NC") and x.rank > 2:
        tail = (1,) * (x.rank - 2)
        size = call.shape(bias)[0]
        return [x, bias.move(lambda f: f.reshape((1, f.shape[0], *tail)), (1, size, *tail))]
    return [x, bias]


def _arithmetic(call: OpCall) -> np.ndarray | None:
    """The same done to sizes, where all operands are integers that are known."""
    held = [value.numbers for value in call.ins]
    if len(held) != 2 or any(numbers is None for numbers in held):
        return None
    for numbers in held:
        for number in numbers.flat:
            call.keep_value(number)
    return calculated(_ARITHMETIC.get(call.op, call.op), *held)


@op("Select", "SelectV2", does="combines", note="one or the other, element by element")
def select(call: OpCall) -> Labels:
    condition, one, other = (held.labels for held in call.ins)
    both = call.combine([one, other])
    if call.op == "Select" and condition.rank == 1 and both.rank > 1:
        return both  # chooses whole samples
    result = call.combine([condition, both]) if condition.rank else both
    return result.with_keeps_zero(
        one.keeps_zero and other.keeps_zero and bool(one.factors) and bool(other.factors)
    )


@op(
    "FakeQuantWithMinMaxVars",
    "FakeQuantWithMinMaxArgs",
    does="passes",
    note="one range for all units, whichever are left",
)
def fake_quantised(call: OpCall) -> Labels:
    return call.x
