"""Calls of functions, branches and loops, and the lists of tensors that loops fill."""

from __future__ import annotations

from typing import Any

import numpy as np

from kprune.labels.labels import Labels
from kprune.saved_model.rules.registry import op
from kprune.saved_model.tracing.op_call import OpCall
from kprune.saved_model.tracing.values import Number, TensorList, Value, computed
from kprune.tracing.rule_call import CannotTell


@op(
    "PartitionedCall",
    "StatefulPartitionedCall",
    "RemoteCall",
    does="passes",
    note="a function",
    numbers=True,
)
def function(call: OpCall) -> Any:
    return call.tracer.run(call.node.attr["f"].func.name, call.ins)


@op(
    "If",
    "StatelessIf",
    does="combines",
    note="either of two functions: what meets is tied",
    numbers=True,
)
def branch(call: OpCall) -> Any:
    one = call.tracer.run(call.node.attr["then_branch"].func.name, call.ins[1:])
    other = call.tracer.run(call.node.attr["else_branch"].func.name, call.ins[1:])
    return [_either(call, a, b) for a, b in zip(one, other, strict=True)]


@op(
    "Case",
    "StatelessCase",
    does="combines",
    note="one of several functions: what meets is tied",
    numbers=True,
)
def case(call: OpCall) -> Any:
    results = [
        call.tracer.run(held.name, call.ins[1:]) for held in call.node.attr["branches"].list.func
    ]
    joined = results[0]
    for other in results[1:]:
        joined = [_either(call, a, b) for a, b in zip(joined, other, strict=True)]
    return joined


def _either(call: OpCall, one: Value, other: Value) -> Value:
    if one.labels.shape is None or other.labels.shape is None:
        call.freeze(one.labels, f"come out of branches of {call.layer.path!r} of unknown shape")
        call.freeze(other.labels, f"come out of branches of {call.layer.path!r} of unknown shape")
        return Value(Labels(None), items=one.items)
    return Value(
        call.combine([one.labels, other.labels]), _numbers(call, one, other), items=one.items
    )


def _numbers(call: OpCall, one: Value, other: Value) -> np.ndarray | None:
    if one.numbers is None or other.numbers is None or one.numbers.shape != other.numbers.shape:
        return None
    merged = np.empty(one.numbers.shape, object)
    for index in np.ndindex(merged.shape):
        a, b = one.numbers[index], other.numbers[index]
        merged[index] = a if a is b else computed(a.value if a.value == b.value else None, [a, b])
        for number in (a, b):
            if a is not b:
                call.keep_value(number)
    return merged


@op(
    "While",
    "StatelessWhile",
    does="combines",
    note="what the loop carries is tied to what comes in",
    numbers=True,
)
def loop(call: OpCall) -> Any:
    body = call.node.attr["body"].func.name
    condition = call.node.attr["cond"].func.name
    entering = [_entering(call, value, index) for index, value in enumerate(call.ins)]
    call.tracer.run(condition, entering)
    leaving = call.tracer.run(body, entering)
    results = []
    for before, after in zip(entering, leaving, strict=True):
        if before.parameter is not None:
            results.append(before)
            continue
        results.append(_round(call, before, after))
    return results


def _entering(call: OpCall, value: Value, index: int) -> Value:
    """What a turn starts from: a number that the loop changes is not known inside it."""
    numbers = value.numbers
    if numbers is not None:
        unknown = np.empty(numbers.shape, object)
        for place in np.ndindex(numbers.shape):
            call.use_value(numbers[place]) if numbers[place].at is not None else None
            unknown[place] = Number(None, of=numbers[place].of, lost=numbers[place].lost)
        numbers = unknown
    labels = value.labels
    recorded = call.recorded.get(index)
    if labels.shape is not None and recorded is not None and len(recorded) == labels.rank:
        # What is spread over the batch inside the loop says so in the recorded shape.
        sizes = tuple(
            None if b is None and not labels.varies(a) else n
            for a, (n, b) in enumerate(zip(labels.shape, recorded, strict=True))
        )
        labels = labels.with_shape(sizes)
    return Value(labels, numbers, value.parameter, value.items)


def _round(call: OpCall, before: Value, after: Value) -> Value:
    one, other = before.labels, after.labels
    if before.items is not None:
        return before
    if one.shape is None or other.shape is None:
        for labels in (one, other):
            call.freeze(
                labels, f"are carried through {call.layer.path!r} in tensors of unknown shape"
            )
        return Value(Labels(None))
    if not one.factors and not other.factors:
        return Value(one)
    if one.keeps_zero and not other.keeps_zero:
        call.mix(one, f"go round in {call.layer.path!r}, where a masked unit gives no 0")
    joined = call.combine([one, other])
    return Value(joined.with_keeps_zero(one.keeps_zero and other.keeps_zero))


# -- lists of tensors -----------------------------------------------------------------------------


@op(
    "TensorListReserve",
    "EmptyTensorList",
    does="passes",
    note="a list; the shape of its elements follows",
    numbers=True,
)
def reserve(call: OpCall) -> Any:
    items = TensorList(None)
    _shape(call, items, 0)
    call.use_values(1)
    return Value(Labels(()), items=items)


@op(
    "TensorListFromTensor",
    does="passes",
    note="a list of what stands along the first axis",
    numbers=True,
)
def from_tensor(call: OpCall) -> Any:
    known = call.shape()
    x = call.keep_axes_whole(call.x, [0], f"are taken apart by {call.layer.path!r}")
    items = TensorList(x.move(lambda f: f.take(0, 0), known[1:]))
    _shape(call, items, 1)
    return Value(Labels(()), items=items)


@op(
    "TensorListSetItem",
    "TensorListPushBack",
    does="combines",
    note="what one list holds is tied",
    numbers=True,
)
def set_item(call: OpCall) -> Any:
    items = _items(call)
    new = call.labels(1 if call.op == "TensorListPushBack" else 2)
    if call.op == "TensorListSetItem":
        call.use_values(1)
    if items.element is None:
        items.element = new
    elif items.element.shape is None or new.shape is None:
        call.freeze(
            items.element, f"stand in a list of tensors of unknown shape at {call.layer.path!r}"
        )
        call.freeze(new, f"stand in a list of tensors of unknown shape at {call.layer.path!r}")
    else:
        keeps_zero = items.element.keeps_zero and new.keeps_zero
        items.element = call.combine([items.element, new]).with_keeps_zero(keeps_zero)
    return Value(Labels(()), items=items)


@op("TensorListGetItem", does="passes", note="one tensor of a list", numbers=True)
def get_item(call: OpCall) -> Any:
    items = _items(call)
    _shape(call, items, 2)
    call.use_values(1)
    if items.element is None:
        raise CannotTell("reads a list before anything is seen to be in it")
    return items.element


@op(
    "TensorListStack",
    "TensorListConcatV2",
    does="passes",
    note="a list as one tensor",
    numbers=True,
)
def stack(call: OpCall) -> Any:
    items = _items(call)
    _shape(call, items, 1)
    element = items.element
    if element is None:
        return Labels(call.recorded.get(0))
    if element.shape is None or call.op != "TensorListStack":
        raise CannotTell("puts together tensors of unknown shape")
    recorded = call.recorded.get(0)
    first = recorded[0] if recorded else None
    return element.move(lambda f: f[None], (first, *element.shape))


@op("TensorListLength", does="passes", note="how many there are")
def length(call: OpCall) -> Any:
    return Value(Labels(()))


def _items(call: OpCall) -> TensorList:
    items = call.ins[0].items
    if items is None:
        raise CannotTell("is given a list that is not known")
    return items


def _shape(call: OpCall, items: TensorList, index: int) -> None:
    numbers = call.numbers(index)
    if numbers is not None:
        call.traced.list_shapes.append((items, numbers, call.demand))
