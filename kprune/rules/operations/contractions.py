"""Products that are summed over: matmul, einsum, tensordot. What is multiplied is tied."""

from __future__ import annotations

import string
from collections.abc import Sequence
from typing import Any

from kprune.graph.model import Constant
from kprune.labels.labels import Labels
from kprune.rules.effects.contractions import contract, matmul_letters, parse_equation
from kprune.tracing.layer_call import LayerCall
from kprune.tracing.registry import OPERATIONS
from kprune.tracing.rule_call import CannotTell


@OPERATIONS.rule("Einsum", does="combines")
def einsum(call: LayerCall) -> Labels:
    """letters that meet are tied, letters that the output lacks are summed"""
    equation = call.config.get("subscripts")
    operands = [operand for operand in call.args if isinstance(operand, (Labels, Constant))]
    if equation is None and call.args and isinstance(call.args[0], str):
        equation = call.args[0]
    if not isinstance(equation, str):
        raise CannotTell("has an equation that is not text")
    ranks = [len(call.shape(o)) if isinstance(o, Labels) else o.value.ndim for o in operands]
    letters, output = parse_equation(equation, ranks)
    return product(call, operands, letters, output)


def product(
    call: LayerCall, operands: Sequence[Any], letters: Sequence[str], output: str
) -> Labels:
    """An einsum of which some operands are arrays in the config, which are cut too."""
    given = []
    for operand, own in zip(operands, letters, strict=True):
        if isinstance(operand, Labels):
            given.append((operand, own))
            continue
        sizes = operand.value.shape
        ids = []
        factors = []
        for axis, size in enumerate(sizes):
            fresh = call.anonymous(size)
            ids.append(fresh)
            extents = [1] * len(sizes)
            extents[axis] = size
            factors.append(fresh.reshape(extents))
            meets = any(
                own[axis] in other
                for other in [*(o for i, o in enumerate(letters) if operands[i] is not operand)]
            )
            if not meets:
                call.freeze(fresh, f"are rows of an array in the config of {call.layer.path!r}")
        call.constant(operand, *ids)
        given.append((Labels(sizes, tuple(factors)), own))
    return contract(call, given, output)


@OPERATIONS.rule("Matmul", does="combines")
def matmul(call: LayerCall) -> Labels:
    """the last axis of the first with the second-to-last of the second; batches meet"""
    one, other = (call.argument(0, "x1"), call.argument(1, "x2"))
    ranks = [len(call.shape(o)) if isinstance(o, Labels) else o.value.ndim for o in (one, other)]
    left, right, output = matmul_letters(*ranks)
    return product(call, [one, other], [left, right], output)


@OPERATIONS.rule("Dot", "Inner", "Tensordot", does="combines")
def tensordot(call: LayerCall) -> Labels:
    """the named axes are multiplied and summed"""
    one, other = call.argument(0, "x1"), call.argument(1, "x2")
    ranks = [len(call.shape(o)) if isinstance(o, Labels) else o.value.ndim for o in (one, other)]
    first, second = ranks
    if call.kind == "Dot":
        axes = ([first - 1], [max(second - 2, 0)])
    elif call.kind == "Inner":
        axes = ([first - 1], [second - 1])
    else:
        value = call.argument(2, "axes", 2)
        if isinstance(value, int):
            axes = (list(range(first - value, first)), list(range(value)))
        else:
            axes = tuple([side] if isinstance(side, int) else list(side) for side in value)  # type: ignore[assignment]
    left = list(string.ascii_lowercase[:first])
    right = list(string.ascii_uppercase[:second])
    for a, b in zip(axes[0], axes[1], strict=True):
        right[b % second] = left[a % first]
    summed = {left[a % first] for a in axes[0]}
    output = "".join(letter for letter in [*left, *right] if letter not in summed)
    return product(call, [one, other], ["".join(left), "".join(right)], output)


@OPERATIONS.rule(
    "Outer",
    "Vdot",
    "Cross",
    "Kron",
    "Correlate",
    does="opaque",
    note="its sizes follow no single axis",
)
def flattened_product(call: LayerCall) -> Any:
    return call.opaque(f"{call.layer.path!r} ({call.kind}) multiplies flattened tensors")


@OPERATIONS.rule("DotProductAttention", does="combines")
def dot_product_attention(call: LayerCall) -> Labels:
    """(batch, time, heads, dim): query and key are summed over dim, heads meet; its scale depends on dim"""
    query, key, value = (
        call.made_tensor(call.argument(place, name))
        for place, name in enumerate(("query", "key", "value"))
    )
    heads = (call.shape(query)[2], call.shape(key)[2])
    mask = call.argument(4, "mask")
    of_heads = isinstance(mask, (Labels, Constant)) and (mask.shape or ())[1:2] != (1,)
    if call.argument(3, "bias") is not None or of_heads or heads[0] != heads[1]:
        for x in call.xs:
            call.freeze(
                x, f"reach {call.layer.path!r} with a bias, a mask, or key heads that are shared"
            )
        return Labels((*call.shape(query)[:-1], call.shape(value)[-1]))
    if call.argument(5, "scale") is None:
        # 1 / sqrt(dim) would change with dim.
        query = call.keep_axes_whole(
            query, [3], f"are a dimension whose number scales the scores of {call.layer.path!r}"
        )
        key = call.keep_axes_whole(
            key, [3], f"are a dimension whose number scales the scores of {call.layer.path!r}"
        )
    scores = contract(call, [(query, "bthd"), (key, "bshd")], "bhts")
    scores = call.keep_axes_whole(
        scores, [2, 3], f"stand along the time axis of {call.layer.path!r}"
    )
    value = call.keep_axes_whole(value, [1], f"stand along the time axis of {call.layer.path!r}")
    return contract(call, [(scores, "bhts"), (value, "bshd")], "bthd").with_keeps_zero(
        value.keeps_zero
    )
