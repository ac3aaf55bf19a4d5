"""Core layers (keras/src/layers/core)."""

from __future__ import annotations

from typing import Any, NoReturn

from kprune.dtypes import quantizes
from kprune.labels.labels import Axis, Labels
from kprune.labels.tokens import STAYS
from kprune.rules.activations import activate
from kprune.rules.lora import adapters, has_adapters
from kprune.rules.shapes import positions
from kprune.tracing.layer_call import LayerCall
from kprune.tracing.registry import LAYERS
from kprune.tracing.rule_call import CannotTell


@LAYERS.rule(
    "InputLayer",
    does="issues",
    note="features of the model's input, which stay unless inputs may change",
)
def input_layer(call: LayerCall) -> Any:
    """listed here for completeness: a graph starts at its inputs, and never calls one"""
    return call.opaque(f"{call.layer.path!r} is an input, and it is called like a layer")


@LAYERS.rule("Dense", does="issues")
def dense(call: LayerCall) -> Labels:
    """units: kernel (last input axis, units), bias (units)"""
    if call.config.get("quantization_config") or is_quantized(call):
        raise_quantized(call)
    units = call.units("units")
    shape = call.shape()
    uses = positions(shape[1:-1])
    trained = not has_adapters(call)
    call.weight("kernel", call.x.last, units, uses=uses, out=1, trainable=trained)
    call.weight("bias", units, when=call.config["use_bias"], uses=uses, flops=1, out=0)
    adapters(call, call.x.last, units, out=1)
    return activate(call, call.x.with_last(units))


@LAYERS.rule("Embedding", does="issues")
def embedding(call: LayerCall) -> Labels:
    """units: the dimensions of the embedding, embeddings (tokens, units); .tokens are its rows"""
    if is_quantized(call):
        raise_quantized(call)
    units = call.units("output_dim")
    rows = call.tokens("input_dim")
    call.weight("embeddings", rows, units, out=1, also=(0,), trainable=not has_adapters(call))
    adapters(call, rows, units, out=1, name="embeddings")
    tokens = call.x
    call.looked_up(tokens)
    if call.config.get("mask_zero"):
        call.freeze(rows[:1], f"are what {call.layer.path!r} masks (mask_zero)", STAYS)
    if tokens.shape is None:
        return Labels(None).with_last(units, call.recorded.get(0))
    call.freeze(tokens, f"are looked up by {call.layer.path!r} as tokens")
    return Labels(tokens.shape).with_axis(len(tokens.shape), units, (*tokens.shape, len(units)))


@LAYERS.rule("ReversibleEmbedding", does="issues")
def reversible_embedding(call: LayerCall) -> Labels:
    """units: the dimensions, the same on the way in and, reversed, on the way out to logits; .tokens are its rows"""
    if is_quantized(call):
        raise_quantized(call)
    config = call.config
    units = call.units("output_dim")
    rows = call.tokens("input_dim")
    call.weight("embeddings", rows, units, out=1, also=(0,), trainable=not has_adapters(call))
    adapters(call, rows, units, out=1, name="embeddings")
    call.weight(
        "reverse_embeddings",
        units,
        rows,
        when=not config.get("tie_weights", True),
        out=0,
    )
    x, shape = call.x, call.shape()
    if call.argument(1, "reverse", False):
        call.tie(x.last, units)
        if not x.keeps_zero:
            call.mix(units, f"are summed into logits by {call.layer.path!r}")
        return Labels((*shape[:-1], len(rows))).with_last(rows)
    call.looked_up(x)
    if config.get("mask_zero"):
        call.freeze(rows[:1], f"are what {call.layer.path!r} masks (mask_zero)", STAYS)
    call.freeze(x, f"are looked up by {call.layer.path!r} as tokens")
    return Labels(shape).with_axis(len(shape), units, (*shape, len(units)))


@LAYERS.rule("EinsumDense", does="issues")
def einsum_dense(call: LayerCall) -> Labels:
    """units: the kernel's letters that only the output has; letters of the input are summed or kept"""
    from kprune.rules.effects.contractions import parse_equation

    if is_quantized(call):
        raise_quantized(call)
    x, shape, config = call.x, call.shape(), call.config
    (own, kernel), output = parse_equation(
        config["equation"], [len(shape), _kernel_rank(config["equation"])]
    )
    fresh = [letter for letter in kernel if letter not in own]
    sizes = _einsum_sizes(config, own, output, shape)
    if any(letter not in output for letter in fresh):
        raise CannotTell(f"sums over its own units ({config['equation']})")
    axes: dict[str, Axis] = {letter: x.axis(axis) for axis, letter in enumerate(own)}
    for letter in fresh:
        size = sizes[letter]
        if size is None:
            raise CannotTell(f"has units of unknown number ({config['equation']})")
        name = "units" if letter == fresh[-1] else letter
        axes[letter] = Axis.of(call.issue(size, name))
    uses = positions(sizes[letter] for letter in own if letter not in kernel and letter != own[0])
    out = kernel.index(fresh[-1]) if fresh else None
    along = [
        axes[letter] if letter in fresh else _einsum_axis(axes[letter], sizes[letter])
        for letter in kernel
    ]
    also = tuple(kernel.index(letter) for letter in fresh[:-1])
    call.weight("kernel", *along, uses=uses, out=out, also=also, trainable=not has_adapters(call))
    bias = config.get("bias_axes")
    if bias:
        letters = [letter for letter in output if letter in bias]
        call.weight(
            "bias",
            *(_einsum_axis(axes[letter], sizes[letter]) for letter in letters),
            uses=uses,
            flops=1,
            out=letters.index(fresh[-1]) if fresh and fresh[-1] in letters else None,
        )
    adapters(call, *along, out=out)
    given = config["output_shape"]
    listed = [given] if isinstance(given, int) else list(given)
    for place, letter in enumerate(output[-len(listed) :]):
        if listed[place] is not None and axes[letter].factors:
            if isinstance(given, int):
                call.follow("output_shape", lambda alive: int(alive.sum()), axes[letter])
            else:
                call.size(("output_shape", place), axes[letter])
    result = Labels(tuple(sizes[letter] for letter in output))
    kept = [letter for letter in output if letter in own]
    carried = call.collapse(x, [axis for axis, letter in enumerate(own) if letter not in output])
    order = [own.index(letter) for letter in kept]
    gone = [axis for axis in range(len(own)) if axis not in order]
    factors = []
    for factor in carried.factors:
        moved = factor.transpose([*order, *gone]).reshape([factor.shape[axis] for axis in order])
        extents = [moved.shape[kept.index(letter)] if letter in kept else 1 for letter in output]
        factors.append(
            moved.transpose([kept.index(letter) for letter in output if letter in kept]).reshape(
                extents
            )
        )
    for letter in fresh:
        factors.append(
            result.with_axis(output.index(letter), axes[letter], result.shape).factors[0]
        )
    # With a bias a position along an axis of the input gives the bias, not 0.
    labels = Labels(result.shape, tuple(factors), keeps_zero=not carried.factors or not bias)
    return activate(call, labels)


def _einsum_axis(axis: Axis, size: int | None) -> Axis | int | None:
    return axis if axis.factors else size


def _kernel_rank(equation: str) -> int:
    return len(equation.replace(" ", "").partition("->")[0].split(",")[1])


def _einsum_sizes(
    config: dict[str, Any], own: str, output: str, shape: tuple[int | None, ...]
) -> dict[str, int | None]:
    """The size of each letter: from the input, and from output_shape, which lacks the batch."""
    given = config["output_shape"]
    listed = [given] if isinstance(given, int) else list(given)
    sizes: dict[str, int | None] = dict(zip(output[-len(listed) :], listed, strict=True))
    for letter, size in zip(own, shape, strict=True):
        if size is not None or letter not in sizes:
            sizes[letter] = size
    return sizes


@LAYERS.rule("Identity", "ActivityRegularization", does="passes", values="same")
def unchanged(call: LayerCall) -> Labels:
    """passes its input on unchanged"""
    return call.x


@LAYERS.rule("Masking", does="mixes")
def masking(call: LayerCall) -> Labels:
    """masks a time step if all units are mask_value; units that are 0 have no effect if mask_value is 0"""
    value = call.config.get("mask_value", 0.0)
    if not call.x.keeps_zero or not isinstance(value, (int, float)) or value != 0:
        call.mix(call.x.last, f"decide together which time steps {call.layer.path!r} masks")
    return call.x


def is_quantized(call: LayerCall) -> bool:
    return quantizes(call.config.get("dtype"))


def raise_quantized(call: LayerCall) -> NoReturn:
    raise CannotTell(
        "is quantized, and kprune does not cut quantized weights yet: prune before you quantize"
    )
