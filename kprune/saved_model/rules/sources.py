"""Where tensors come from: constants, variables, and what is made from a shape."""

from __future__ import annotations

from typing import Any

import numpy as np

from kprune.labels.labels import Labels
from kprune.saved_model.rules.registry import op
from kprune.saved_model.tracing.graph import constant
from kprune.saved_model.tracing.op_call import OpCall
from kprune.saved_model.tracing.values import Number, Value

_MOST = 4096
"""Integer constants with more elements than this say no sizes."""


@op("Const", does="issues", note="floats are weights; integers may be sizes")
def const(call: OpCall) -> Any:
    known = call.tracer.constants.get(call.place)
    if known is not None:
        return Value(known.labels, parameter=None)
    value = constant(call.node)
    if value is None:
        return Labels(call.recorded.get(0))
    if value.dtype.kind in "iu" and value.size <= _MOST:
        numbers = np.empty(value.shape, object)
        for flat, (index, number) in enumerate(np.ndenumerate(value)):
            numbers[index] = Number(int(number), at=(*call.place, flat))
        return Value(Labels(value.shape), numbers)
    return Labels(value.shape)


@op(
    "ReadVariableOp",
    "VariableV2",
    "Variable",
    "ResourceVariable",
    does="issues",
    note="a variable's value",
)
def read(call: OpCall) -> Any:
    held = call.ins[0].parameter if call.ins else call.tracer.variables_by_node.get(call.node.name)
    if held is None:
        return Labels(call.recorded.get(0))
    return held.labels


@op("VarHandleOp", does="issues", note="a variable")
def handle(call: OpCall) -> Any:
    return Value(Labels(()), parameter=call.tracer.variables_by_node.get(call.node.name))


@op(
    "AssignVariableOp",
    "AssignAddVariableOp",
    "AssignSubVariableOp",
    "Assign",
    "AssignAdd",
    "AssignSub",
    does="combines",
)
def assign(call: OpCall) -> Any:
    """what is written into a variable is tied to it"""
    held = call.ins[0].parameter
    own = (
        call.labels(0)
        if call.op in ("Assign", "AssignAdd", "AssignSub")
        else None
        if held is None
        else held.labels
    )
    value = call.labels(1)
    if own is not None and own.factors:
        if value.shape is None:
            if not call.is_restored(1):
                call.freeze(
                    own, f"are overwritten by {call.layer.path!r} with a tensor of unknown shape"
                )
        else:
            call.combine([own, value])
    return (
        []
        if call.op.endswith("VariableOp")
        else [own if own is not None else Labels(call.recorded.get(0))]
    )


@op("Fill", does="issues", note="filled from a shape, which follows", numbers=True)
def fill(call: OpCall) -> Any:
    numbers = call.numbers(0)
    result = call.sized_by(0)
    held = call.ins[1].numbers
    if held is not None:
        call.use_values(1)
        if (
            numbers is not None
            and all(n.value is not None for n in numbers.flat)
            and not result.factors
        ):
            shape = tuple(int(n.value or 0) for n in numbers.flat)
            if np.prod(shape, dtype=np.int64) <= _MOST:
                filled = np.empty(shape, object)
                filled[...] = Number(held[()].value)
                return Value(result, filled)
    return result.with_keeps_zero(call.scalar(1) == 0)


@op(
    "RandomUniform", "RandomStandardNormal", "TruncatedNormal", "RandomUniformInt",
    "StatelessRandomUniform", "StatelessRandomNormal", "StatelessTruncatedNormal",
    "StatelessRandomUniformV2", "StatelessRandomNormalV2",
    "StatelessTruncatedNormalV2", "RandomGamma", "Empty",
    does="issues", note="made from a shape, which follows", numbers=True,
)  # fmt: skip
def random(call: OpCall) -> Labels:
    call.use_values(*range(1, len(call.ins)))
    return call.sized_by(0).with_keeps_zero(False)


@op("Range", does="issues", note="counts", numbers=True)
def count(call: OpCall) -> Any:
    held = [value.numbers for value in call.ins]
    call.hold_numbers()
    if all(numbers is not None and numbers[()].value is not None for numbers in held):
        values = range(*(int(numbers[()].value) for numbers in held))
        if len(values) <= _MOST:
            found = np.empty(len(values), object)
            found[:] = [Number(value) for value in values]
            return Value(Labels((len(values),)), found)
    return Labels(call.recorded.get(0) or (None,))


@op("Placeholder", "PlaceholderWithDefault", does="issues", note="an input: its features must stay")
def placeholder(call: OpCall) -> Any:
    return call.tracer.input(call, call.recorded.get(0))


@op(
    "VarIsInitializedOp", "IsVariableInitialized", "NoOp", "SaveV2", "DisableCopyOnRead",
    "Assert", "Print", "PrintV2",
    "VariableShape", "Size",
    does="passes", note="passes on nothing that has units",
)  # fmt: skip
def nothing(call: OpCall) -> Any:
    return [Labels(shape) for shape in call.recorded.values()]
