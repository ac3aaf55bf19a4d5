"""Attention (keras/src/layers/attention). Several axes of units: heads, the dimensions of a head, the width."""

from __future__ import annotations

import string
from typing import Any

import numpy as np

from kprune.dtypes import quantizes
from kprune.labels.labels import Axis, Labels
from kprune.rules.effects.contractions import contract
from kprune.rules.shapes import positions
from kprune.tracing.layer_call import LayerCall
from kprune.tracing.registry import LAYERS
from kprune.tracing.rule_call import CannotTell


def _inputs(call: LayerCall, least: int) -> dict[str, Labels]:
    """query, value and key, given by position, by name or as a list."""
    given = call.args[0] if call.args and isinstance(call.args[0], (list, tuple)) else call.args
    found = {
        name: item
        for name, item in zip(("query", "value", "key"), given, strict=False)
        if isinstance(item, Labels)
    }
    for name in ("query", "value", "key"):
        if isinstance(call.kwargs.get(name), Labels):
            found[name] = call.kwargs[name]
    if len(found) < least:
        raise CannotTell("is not called on a query and a value")
    found.setdefault("key", found["value"])
    used = {id(x) for x in found.values()}
    for x in call.xs:
        if id(x) not in used:
            call.freeze(x, f"are a mask of {call.layer.path!r}")
    return found


def _hold_time(call: LayerCall, x: Labels) -> Labels:
    return call.keep_axes_whole(
        x, range(1, x.rank - 1), f"stand along the time axis of {call.layer.path!r}"
    )


@LAYERS.rule("MultiHeadAttention", does="issues")
def multi_head_attention(call: LayerCall) -> Any:
    """units: the width; .heads, .key_dim, .value_dim; the softmax scale is kept when key dimensions go"""
    config = call.config
    if quantizes(config.get("dtype")):
        raise CannotTell(
            "is quantized, and kprune does not cut quantized attention: prune before you quantize"
        )
    inputs = {name: _hold_time(call, x) for name, x in _inputs(call, 2).items()}
    query, key, value = inputs["query"], inputs["key"], inputs["value"]
    shape = call.shape(query)
    heads = call.units("num_heads", "heads")
    key_dim = call.units("key_dim", "key_dim")
    value_dim = call.issue(config.get("value_dim") or config["key_dim"], "value_dim")
    call.follow("value_dim", lambda alive: int(alive.sum()), Axis.of(value_dim))
    width = _width(call, query)
    steps = {"query": positions(shape[1:-1]), "key": positions(call.shape(key)[1:-1])}
    bias = config.get("use_bias", True)

    def projection(
        at: str, x: Labels, dims: np.ndarray, uses: int, *, scaled: bool = False
    ) -> None:
        call.weight(
            "kernel",
            x.last,
            heads,
            dims,
            at=at,
            uses=uses,
            out=2,
            also=(1,),
            scaled=2 if scaled else None,
        )
        call.weight(
            "bias",
            heads,
            dims,
            at=at,
            when=bias,
            uses=uses,
            flops=1,
            out=1,
            also=(0,),
            scaled=1 if scaled else None,
        )

    # Scores are divided by sqrt(key_dim); with fewer key dimensions that would be less, so the query
    # is scaled by sqrt(after / before) in its place.
    projection("query_dense", query, key_dim, steps["query"], scaled=True)
    projection("key_dense", key, key_dim, steps["key"])
    if config.get("use_gate"):
        projection("_gate_dense", query, value_dim, steps["query"])
    projection("value_dense", value, value_dim, steps["key"])
    call.weight("kernel", heads, value_dim, width, at="output_dense", uses=steps["query"], out=2)
    call.weight("bias", width, at="output_dense", when=bias, uses=steps["query"], flops=1, out=0)
    output = Labels(shape).with_last(width)
    if call.argument(5, "return_attention_scores"):
        scores = Labels((shape[0], len(heads), *shape[1:-1], *call.shape(key)[1:-1]))
        return [output, scores.with_axis(1, heads).with_keeps_zero(False)]
    return output


def _width(call: LayerCall, query: Labels) -> np.ndarray:
    """Units of the output: `output_shape`, or as wide as the query, which has to be written down once they differ."""
    given = call.config.get("output_shape")
    if given:
        sizes = [given] if isinstance(given, int) else list(given)
        if len(sizes) > 1:
            raise CannotTell("has an output of several axes")
        width = call.issue(sizes[0])
    else:
        size = call.shape(query)[-1]
        if size is None:
            raise CannotTell("is called on a query of unknown width")
        width = call.issue(size)

    def written(output: np.ndarray, fed: np.ndarray) -> Any:
        count = int(output.sum())
        return None if not given and count == int(fed.sum()) and len(fed) else [count]

    call.follow("output_shape", written, Axis.of(width), query.last)
    return width


@LAYERS.rule("GroupQueryAttention", "GroupedQueryAttention", does="issues")
def grouped_query_attention(call: LayerCall) -> Any:
    """units: the width, tied to the query's; .heads in equal runs that share a key head; .head_dim"""
    config = call.config
    inputs = {name: _hold_time(call, x) for name, x in _inputs(call, 2).items()}
    query, key, value = inputs["query"], inputs["key"], inputs["value"]
    shape = call.shape(query)
    shared = int(config["num_key_value_heads"])
    heads = call.units("num_query_heads", "heads")
    if len(heads) % shared:
        raise CannotTell(f"has {len(heads)} query heads for {shared} key heads")
    # A key head is read by a run of query heads, and goes with the last of them.
    key_heads = Axis(shared, (heads.reshape(shared, -1).T,))
    call.blocks("num_key_value_heads", heads.reshape(shared, -1))
    dims = call.units("head_dim", "head_dim")
    size = shape[-1]
    if size is None:
        raise CannotTell("is called on a query of unknown width")
    width = call.issue(size)
    if query.last.factors:
        call.tie(query.last, width)
    else:
        call.freeze(
            width, f"have the width of the query of {call.layer.path!r}, which has no units"
        )
    bias = config.get("use_bias", True)
    queries, keys = positions(shape[1:-1]), positions(call.shape(key)[1:-1])
    call.weight(
        "kernel",
        query.last,
        heads,
        dims,
        at="_query_dense",
        uses=queries,
        out=2,
        also=(1,),
        scaled=2,
    )
    call.weight("bias", heads, dims, at="_query_dense", when=bias, out=1, also=(0,), scaled=1)
    call.weight("kernel", key.last, key_heads, dims, at="_key_dense", uses=keys, out=2, also=(1,))
    call.weight("bias", key_heads, dims, at="_key_dense", when=bias, out=1, also=(0,))
    if config.get("use_gate"):
        call.weight(
            "kernel", query.last, heads, dims, at="_gate_dense", uses=queries, out=2, also=(1,)
        )
        call.weight("bias", heads, dims, at="_gate_dense", when=bias, out=1, also=(0,))
    call.weight(
        "kernel", value.last, key_heads, dims, at="_value_dense", uses=keys, out=2, also=(1,)
    )
    call.weight("bias", key_heads, dims, at="_value_dense", when=bias, out=1, also=(0,))
    call.weight("kernel", heads, dims, width, at="_output_dense", uses=queries, out=2)
    call.weight("bias", width, at="_output_dense", when=bias, out=0)
    output = Labels(shape).with_last(width)
    if call.argument(5, "return_attention_scores"):
        scores = Labels((shape[0], len(heads), shape[1], call.shape(key)[1]))
        return [output, scores.with_axis(1, heads).with_keeps_zero(False)]
    return output


@LAYERS.rule("Attention", "AdditiveAttention", does="combines")
def attention(call: LayerCall) -> Any:
    """query and key are tied and summed over; the values' units pass"""
    inputs = {name: _hold_time(call, x) for name, x in _inputs(call, 2).items()}
    query, key, value = inputs["query"], inputs["key"], inputs["value"]
    additive = call.kind == "AdditiveAttention"
    call.weight(
        "scale", *([query.last] if additive else []), when=call.config.get("use_scale", additive)
    )
    call.weight("concat_score_weight", when=call.config.get("score_mode") == "concat")
    scores = contract(call, [(query, "bqd"), (key, "bkd")], "bqk")
    if (additive or call.config.get("score_mode") == "concat") and not (
        query.keeps_zero and key.keeps_zero
    ):
        call.mix(
            query.last,
            f"are added and summed by {call.layer.path!r}, where a masked unit gives no 0",
        )
    shape = (*call.shape(query)[:-1], call.shape(value)[-1])
    output = value.with_shape(shape)
    if call.argument(2, "return_attention_scores"):
        return [output, scores.with_shape((shape[0], shape[1], call.shape(key)[1]))]
    return output


@LAYERS.rule("Dot", does="combines")
def dot(call: LayerCall) -> Labels:
    """the named axes are multiplied and summed; units that are 0 have no effect, also when normalised"""
    one, other = call.xs[:2]
    axes = call.config["axes"]
    axes = [axes, axes] if isinstance(axes, int) else list(axes)
    left = ["b", *string.ascii_lowercase[2 : 1 + one.rank]]
    right = ["b", *string.ascii_uppercase[1 : other.rank]]
    first, second = axes[0] % one.rank, axes[1] % other.rank
    right[second] = left[first]
    if call.config.get("normalize") and not (one.keeps_zero and other.keeps_zero):
        call.mix(one.axis(first), f"are normalised together by {call.layer.path!r}")
    output = "".join(letter for letter in dict.fromkeys([*left, *right]) if letter != left[first])
    result = contract(call, [(one, "".join(left)), (other, "".join(right))], output)
    if result.rank == 1:
        # (batch,) becomes (batch, 1).
        return Labels((*call.shape(result), 1))
    return result
