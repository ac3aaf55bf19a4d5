"""TensorFlow functions of several tensors, of which keras.ops has no such form."""

from __future__ import annotations

import string
from typing import Any

from kprune.graph.model import leaves
from kprune.labels.labels import Labels
from kprune.rules.effects.contractions import contract, matmul_letters
from kprune.rules.effects.joining import join
from kprune.rules.tensorflow.registry import argument, function, plain_list, tensor, whole_number
from kprune.tracing.layer_call import LayerCall
from kprune.tracing.registry import OPERATIONS
from kprune.tracing.rule_call import CannotTell


@function("math.add_n", "math.accumulate_n", idle="shape tensor_dtype")
def add_n(call: LayerCall) -> Labels:
    """the sum of all: what meets is tied"""
    xs = [tensor(x) for x in leaves(call.args)]
    return call.combine(xs)


FLAGS = "transpose_a transpose_b adjoint_a adjoint_b a_is_sparse b_is_sparse"


@function("linalg.matmul", "matmul", takes=f"b {FLAGS}", idle="output_type grad_a grad_b")
def matmul(call: LayerCall) -> Labels:
    """rows of the first with columns of the second, either of them turned; batches meet"""
    one, other = tensor(call.args[0]), tensor(call.kwargs.get("b"))
    first, second = len(call.shape(one)), len(call.shape(other))
    if min(first, second) < 2:
        raise CannotTell("multiplies vectors")
    turned = [
        any(call.kwargs.get(f"{verb}_{side}") for verb in ("transpose", "adjoint"))
        for side in ("a", "b")
    ]
    left, right, output = matmul_letters(first, second, turned=turned)
    return contract(call, [(one, left), (other, right)], output)


@function("linalg.matvec", takes="b transpose_a adjoint_a", idle="a_is_sparse b_is_sparse")
def matvec(call: LayerCall) -> Labels:
    """a matrix with a vector; batches meet"""
    one, other = tensor(call.args[0]), tensor(call.kwargs.get("b"))
    first, second = len(call.shape(one)), len(call.shape(other))
    batch = string.ascii_lowercase[: max(first - 2, second - 1)]
    turned = call.kwargs.get("transpose_a") or call.kwargs.get("adjoint_a")
    left = batch[len(batch) - (first - 2) :] + ("KY" if turned else "YK")
    right = batch[len(batch) - (second - 1) :] + "K"
    return contract(call, [(one, left), (other, right)], batch + "Y")


@function("tensordot", takes="b axes")
def tensordot(call: LayerCall) -> Labels:
    """the named axes are multiplied and summed"""
    operands = [tensor(call.args[0]), tensor(call.kwargs.get("b"))]
    plain_list(call, call.kwargs.get("axes"))
    view = call.seen_as("Tensordot", operands, {"axes": call.kwargs["axes"]}, {}, config={})
    result: Labels = OPERATIONS.rules["Tensordot"].function(view)
    return result


@function("nn.crelu", takes="axis")
def crelu(call: LayerCall) -> Labels:
    """relu of x and of -x, one after the other"""
    return join(call, [call.x, call.x], whole_number(call, "axis", -1)).with_keeps_zero(
        call.x.keeps_zero
    )


@function("one_hot", takes="depth axis", idle="on_value off_value")
def one_hot(call: LayerCall) -> Labels:
    """a new axis; the units that are spread out are frozen"""
    call.freeze(call.x, f"are turned into positions by {call.layer.path!r}")
    shape = call.shape()
    axis = whole_number(call, "axis", -1) % (len(shape) + 1)
    return Labels((*shape[:axis], whole_number(call, "depth"), *shape[axis:]))


@function("identity_n")
def identity_n(call: LayerCall) -> list[Any]:
    """passes its input on unchanged"""
    return [tensor(x) for x in leaves(call.args)]


@function("clip_by_norm", takes="clip_norm axes")
def clip_by_norm(call: LayerCall) -> Labels:
    """divides by the norm over some axes where that is large"""
    axes = argument(call, "axes")
    held = range(len(call.shape())) if axes is None else plain_list(call, axes).ravel()
    for axis in held:
        if not call.x.keeps_zero:
            call.mix(call.x.axis(int(axis)), f"share the norm that {call.layer.path!r} takes")
    return call.x
