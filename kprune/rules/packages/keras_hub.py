"""Layers of KerasHub's backbones: BERT, GPT-2, Llama, Mistral, Qwen, Phi-3, Gemma, ViT, T5.

These are composites: a whole block of attention and feed-forward is one layer, with sizes of its
own that a config entry holds:

    intermediate_dim   the units between the two halves of a feed-forward (ViT: mlp_dim)
    heads              attention heads, where the config says how large a head is

Where it does not say (TransformerEncoder, Llama, Qwen2 …), the size of a head is worked out from
the width and the number of heads, so that with one head less every other would change: no axis of
heads there. And the width of the stream that runs through all blocks stays as it is: every block
adds to it, normalises over it and, for many, cuts its heads from it.

Weights stand under the attributes that hold the inner layers (keras_hub/src, release 0.32). Each is
held against the file; a release that built a layer otherwise loses its rule, and nothing else.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from kprune.labels.labels import Axis, Labels
from kprune.labels.map import LAYER
from kprune.limits import MODEL_CALLS
from kprune.rules.attention import multi_head_attention
from kprune.rules.core import is_quantized, raise_quantized
from kprune.rules.shapes import positions
from kprune.tracing.layer_call import LayerCall
from kprune.tracing.registry import PACKAGES
from kprune.tracing.rule_call import CannotTell

HUB = "keras_hub>"


class Block:
    """What the rules of composites share: the call, the width of its stream, how often it runs.

    Args:
        call: of a layer that takes a stream (batch, time, width) and gives one of the same shape.
        passing: tensors among the call's arguments whose units are not held here.
        heads_follow: whether the size of a head is worked out from the width.
    Raises: CannotTell if the width is not known.
    """

    def __init__(self, call: LayerCall, *passing: Any, heads_follow: bool = True) -> None:
        if is_quantized(call):
            raise_quantized(call)
        self.call, self.config = call, call.config
        self.shape = call.shape()
        width = self.shape[-1]
        if width is None:
            raise CannotTell("is called on a tensor of unknown width")
        self.width = width
        self.steps = positions(self.shape[1:-1])
        self.heads = np.zeros(0, np.int64)  # those that were issued
        why = (
            f"{call.layer.path!r} adds to this stream, normalises over it and works the size of its "
            "heads out from its width, which stays"
            if heads_follow
            else f"{call.layer.path!r} adds to this stream and normalises over it, so its width stays"
        )
        for x in call.xs:
            if not any(x is other for other in passing):
                call.freeze(x, why, subject=LAYER)

    @property
    def stream(self) -> Labels:
        return Labels(self.shape)

    def bias_norm(self, *at: str) -> None:
        """LayerNormalization of the stream: gamma, beta."""
        for place in at:
            self.call.weight("gamma", self.width, at=place, uses=self.steps)
            self.call.weight("beta", self.width, at=place)

    def norm(self, *at: str, size: int | None = None) -> None:
        """A normalisation with a scale alone, of the stream or of each head."""
        for place in at:
            self.call.weight("scale", size or self.width, at=place, uses=self.steps)

    def dense(
        self, at: str, into: Any, out: Any, *, bias: bool = False, made: int | None = None
    ) -> None:
        """A Dense, or an EinsumDense of two axes."""
        self.call.weight("kernel", into, out, at=at, uses=self.steps, out=made)
        self.call.weight("bias", out, at=at, when=bias, uses=self.steps, flops=1, out=made and 0)

    def feed_forward(
        self, first: str, last: str, *, gate: str = "", bias: bool = False,
        field: str = "intermediate_dim", divided: int = 1,
    ) -> None:  # fmt: skip
        """Wide in the middle; with a gate, two halves are multiplied there.

        Args:
            first, last, gate: where the three matrices are held.
            field: the config entry, and the axis; it counts `divided` times the units.
        """
        size = int(self.config[field]) // divided
        units = self.call.issue(size, field)
        self.call.follow(field, lambda alive: int(alive.sum()) * divided, Axis.of(units))
        self.dense(first, self.width, units, bias=bias, made=1)
        if gate:
            self.dense(gate, self.width, units, bias=bias, made=1)
        self.dense(last, units, self.width, bias=bias)

    def attention(self, at: str, heads: int, size: int, *, bias: bool = True) -> None:
        """MultiHeadAttention as Keras has it, whose heads stay."""
        for name in ("query", "key", "value"):
            place = f"{at}/{name}_dense"
            self.call.weight("kernel", self.width, heads, size, at=place, uses=self.steps)
            self.call.weight("bias", heads, size, at=place, when=bias, uses=self.steps, flops=1)
        place = f"{at}/output_dense"
        self.call.weight("kernel", heads, size, self.width, at=place, uses=self.steps)
        self.call.weight("bias", self.width, at=place, when=bias, uses=self.steps, flops=1)

    def shared_heads(self, *, issued: bool) -> tuple[Any, Any]:
        """Query heads, and key heads that runs of them share: labels, or sizes where they stay."""
        queries, keys = int(self.config["num_query_heads"]), int(self.config["num_key_value_heads"])
        if not issued:
            return queries, keys
        if queries % keys:
            raise CannotTell(f"has {queries} query heads for {keys} key heads")
        heads = self.heads = self.call.units("num_query_heads", "heads")
        self.call.blocks("num_key_value_heads", heads.reshape(keys, -1))
        return heads, Axis(keys, (heads.reshape(keys, -1).T,))

    def grouped_attention(
        self, at: str, heads: Any, key_heads: Any, size: int, *, underscore: str = "",
        heads_first: bool = False, bias: bool = False,
    ) -> None:  # fmt: skip
        """Attention in which runs of query heads share a key and a value.

        Args:
            heads_first: whether kernels are (heads, width, size), else (width, heads, size).
            bias: whether query, key and value have one; the output never does.
        """
        made = 0 if heads_first else 1
        for name, own in (("query", heads), ("key", key_heads), ("value", key_heads)):
            place = f"{at}/{underscore}{name}_dense"
            axes = (own, self.width, size) if heads_first else (self.width, own, size)
            own_axis = made if isinstance(own, np.ndarray) else None
            self.call.weight("kernel", *axes, at=place, uses=self.steps, out=own_axis)
            self.call.weight("bias", own, size, at=place, when=bias, out=own_axis and 0)
        place = f"{at}/{underscore}output_dense"
        self.call.weight("kernel", heads, size, self.width, at=place, uses=self.steps)


# -- BERT, GPT-2 and their kin --------------------------------------------------------------------


def _head_size(block: Block, heads: int) -> int:
    return block.width // heads


@PACKAGES.rule(HUB + "TransformerEncoder", does="issues")
def transformer_encoder(call: LayerCall) -> Any:
    """.intermediate_dim; heads stay, as their size is worked out from the width"""
    block = Block(call)
    heads = int(call.config["num_heads"])
    block.attention("_self_attention_layer", heads, _head_size(block, heads))
    block.bias_norm("_self_attention_layer_norm", "_feedforward_layer_norm")
    block.feed_forward("_feedforward_intermediate_dense", "_feedforward_output_dense", bias=True)
    if call.argument(4, "return_attention_scores"):
        time = block.shape[1]
        return [block.stream, Labels((block.shape[0], heads, time, time))]
    return block.stream


@PACKAGES.rule(HUB + "TransformerDecoder", does="issues")
def transformer_decoder(call: LayerCall) -> Any:
    """.intermediate_dim; heads stay, as their size is worked out from the width"""
    block = Block(call)
    heads = int(call.config["num_heads"])
    encoder = call.config.get("encoder_sequence_shape")
    if encoder and encoder[-1] != block.width:
        raise CannotTell("attends to a sequence of another width")
    block.attention("_self_attention_layer", heads, _head_size(block, heads))
    block.bias_norm("_self_attention_layer_norm")
    if encoder:
        block.attention("_cross_attention_layer", heads, _head_size(block, heads))
        block.bias_norm("_cross_attention_layer_norm")
    block.feed_forward("_feedforward_intermediate_dense", "_feedforward_output_dense", bias=True)
    block.bias_norm("_feedforward_layer_norm")
    if call.argument(6, "self_attention_cache") is not None:
        raise CannotTell("is called with a cache")
    return block.stream


# A layer of its own where somebody uses it alone: config, weights and scale are those of Keras's.
PACKAGES.rule(HUB + "CachedMultiHeadAttention", does="issues")(multi_head_attention)


@PACKAGES.rule(HUB + "PositionEmbedding", does="passes")
def position_embedding(call: LayerCall) -> Labels:
    """embeddings (positions, the input's last axis); only the shape of the input matters"""
    call.weight("embeddings", int(call.config["sequence_length"]), call.x.last)
    return call.x.without(*range(call.x.rank - 1))


@PACKAGES.rule(HUB + "TokenAndPositionEmbedding", does="issues")
def token_and_position_embedding(call: LayerCall) -> Labels:
    """units: the dimensions of both embeddings, which are added"""
    config, shape = call.config, call.shape()
    units = call.units("embedding_dim")
    tokens = int(config["vocabulary_size"])
    call.freeze(call.x, f"are looked up by {call.layer.path!r} as tokens")
    call.weight("embeddings", tokens, units, at="token_embedding", out=1)
    tied = config.get("tie_weights", True)
    call.weight("reverse_embeddings", units, tokens, at="token_embedding", when=not tied, out=0)
    call.weight("embeddings", int(config["sequence_length"]), units, at="position_embedding", out=1)
    return Labels(shape).with_axis(len(shape), units, (*shape, len(units)))


@PACKAGES.rule(HUB + "RotaryEmbedding", does="opaque", note="turns pairs of its features")
def rotary_embedding(call: LayerCall) -> Any:
    """pairs of features are turned by angles that depend on how many there are"""
    return call.opaque(
        f"{call.layer.path!r} turns its features in pairs, by angles that depend on their number"
    )


@PACKAGES.rule(
    HUB + "SinePositionEncoding",
    does="opaque",
    note="its waves depend on how many features there are",
)
def sine_position_encoding(call: LayerCall) -> Any:
    """a wave for each feature, whose length depends on how many there are"""
    return call.opaque(
        f"{call.layer.path!r} gives waves whose lengths depend on the number of features"
    )


# -- decoders with a gated feed-forward -----------------------------------------------------------


def _decoder(call: LayerCall, size: int | None, *, bias: bool = False) -> Block:
    """The block of Llama, Mistral and Qwen. `size` is that of a head, None if it is worked out."""
    block = Block(call, heads_follow=size is None)
    heads, key_heads = block.shared_heads(issued=size is not None)
    size = size or _head_size(block, int(call.config["num_query_heads"]))
    block.grouped_attention(
        "_self_attention_layer", heads, key_heads, size, underscore="_", bias=bias
    )
    block.norm("_self_attention_layernorm", "_feedforward_layernorm")
    block.feed_forward(
        "_feedforward_intermediate_dense",
        "_feedforward_output_dense",
        gate="_feedforward_gate_dense",
    )
    return block


@PACKAGES.rule(HUB + "LlamaTransformerDecoder", does="issues")
def llama_decoder(call: LayerCall) -> Labels:
    """.intermediate_dim; heads stay, as their size is worked out from the width"""
    return _decoder(call, None).stream


@PACKAGES.rule(HUB + "QwenTransformerDecoder", does="issues")
def qwen_decoder(call: LayerCall) -> Labels:
    """.intermediate_dim; heads stay, as their size is worked out from the width"""
    return _decoder(call, None, bias=True).stream


@PACKAGES.rule(HUB + "Qwen3TransformerDecoder", does="issues")
def qwen3_decoder(call: LayerCall) -> Labels:
    """.intermediate_dim; .heads in equal runs that share a key head"""
    size = call.config.get("head_dim")
    block = _decoder(call, size)
    size = size or _head_size(block, int(call.config["num_query_heads"]))
    at = "_self_attention_layer/"
    block.norm(at + "_query_dense_layer_norm", at + "_key_dense_layer_norm", size=size)
    return block.stream


@PACKAGES.rule(HUB + "MistralTransformerDecoder", does="issues")
def mistral_decoder(call: LayerCall) -> Labels:
    """.intermediate_dim; .heads in equal runs that share a key head"""
    width = call.shape()[-1] or 0
    size = call.config.get("head_dim") or width // int(call.config["num_query_heads"])
    block = _decoder(call, size)
    # Left open, the size would be worked out from the heads that are left.
    call.follow("head_dim", lambda alive: size, Axis.of(block.heads))
    return block.stream


@PACKAGES.rule(HUB + "Phi3Decoder", does="issues")
def phi3_decoder(call: LayerCall) -> Labels:
    """.intermediate_dim; heads stay, as their size is worked out from the width"""
    block = Block(call)
    heads, key_heads = block.shared_heads(issued=False)
    block.grouped_attention("attention", heads, key_heads, _head_size(block, heads))
    block.norm("pre_attention_layernorm", "post_attention_layernorm")
    block.feed_forward(
        "feedforward_intermediate_dense", "feedforward_output_dense", gate="feedforward_gate_dense"
    )
    return block.stream


@PACKAGES.rule(HUB + "GemmaDecoderBlock", HUB + "Gemma3DecoderBlock", does="issues")
def gemma_decoder(call: LayerCall) -> Labels:
    """.intermediate_dim; .heads in equal runs that share a key head"""
    config = call.config
    block = Block(call, heads_follow=False)
    heads, key_heads = block.shared_heads(issued=True)
    size = int(config["head_dim"])
    block.grouped_attention("attention", heads, key_heads, size, heads_first=True)
    if config.get("use_query_key_norm"):
        block.norm("attention/query_norm", "attention/key_norm", size=size)
    block.norm("pre_attention_norm", "pre_ffw_norm")
    for name in ("attention", "ffw"):
        if config.get(f"use_post_{name}_norm"):
            block.norm(f"post_{name}_norm")
    # Gemma's entry counts both halves of the gate; Gemma 3 has another one that says by how much.
    halves = 2 if call.kind == "GemmaDecoderBlock" else int(config.get("gate_dim_reduction", 1))
    block.feed_forward("gating_ffw", "ffw_linear", gate="gating_ffw_2", divided=halves)
    return block.stream


@PACKAGES.rule(
    *(
        HUB + name
        for name in (
            "RMSNormalization",
            "LlamaLayerNorm",
            "MistralLayerNormalization",
            "Phi3LayerNorm",
            "QwenLayerNorm",
            "Qwen3LayerNorm",
            "T5LayerNorm",
        )
    ),
    does="mixes",
)
def rms_norm(call: LayerCall) -> Labels:
    """scale (the last axis); computes a mean of squares over it"""
    call.weight("scale", call.x.last, uses=positions(call.shape()[1:-1]))
    call.mix(call.x.last, f"share the mean square that {call.layer.path!r} takes")
    return call.x


# -- T5 -------------------------------------------------------------------------------------------


@PACKAGES.rule(HUB + "T5TransformerLayer", does="issues")
def t5_layer(call: LayerCall) -> Any:
    """.intermediate_dim; .heads, those of a stack together: they share a bias by distance"""
    config = call.config
    bias = call.argument(2, "position_bias")
    block = Block(call, bias, heads_follow=False)
    heads = call.units("num_heads", "heads")
    size = int(config["key_value_dim"])
    inner = Axis.of(heads).repeat(size)
    parts = ["self_attention", "cross_attention"] if config["is_decoder"] else ["self_attention"]
    for part in parts:
        for name in ("query", "key", "value"):
            block.dense(f"{part}/{name}_projector", block.width, inner, made=1)
        block.dense(f"{part}/output_projector", inner, block.width)
        block.norm(f"{part}_layer_norm")
    if config.get("use_relative_attention_bias"):
        call.weight("relative_attention_bias", 32, heads, at="self_attention", out=1)
    gated = config.get("use_gated_activation", False)
    gate = "gate_projector" if gated else ""
    block.feed_forward("input_projector", "output_projector", gate=gate)
    block.norm("layer_norm")
    if isinstance(bias, Labels):
        call.tie(bias.axis(1), heads)
    if call.argument(6, "self_attention_cache") is not None:
        raise CannotTell("is called with a cache")
    return [block.stream, Labels((None, len(heads), None, None)).with_axis(1, heads)]


# -- ViT ------------------------------------------------------------------------------------------


@PACKAGES.rule(HUB + "ViTPatchingAndEmbedding", does="issues")
def vit_patches(call: LayerCall) -> Labels:
    """units: class token, patch kernel and bias, position embeddings"""
    config, shape = call.config, call.shape()
    call.freeze(call.x, f"are cut into patches by {call.layer.path!r}")
    units = call.units("hidden_dim")
    high, wide = config["patch_size"]
    grid = [side // patch for side, patch in zip(config["image_size"], (high, wide), strict=True)]
    token = bool(config.get("use_class_token", True))
    count = positions(grid) + token
    call.weight("class_token", 1, 1, units, when=token, out=2)
    at, uses = "patch_embedding", positions(grid)
    call.weight(
        "kernel", high, wide, int(config.get("num_channels", 3)), units, at=at, uses=uses, out=3
    )
    bias = config.get("use_patch_bias", True)
    call.weight("bias", units, at=at, when=bias, uses=uses, flops=1, out=0)
    call.weight("embeddings", count, units, at="position_embedding", out=1)
    return Labels((shape[0], count, len(units))).with_last(units)


@PACKAGES.rule(HUB + "ViTEncoder", does="issues")
def vit_encoder(call: LayerCall) -> Labels:
    """.mlp_dim, the same in all its blocks; heads stay, their size is worked out from the width"""
    config = call.config
    block = Block(call)
    heads = int(config["num_heads"])
    MODEL_CALLS.check(int(config["num_layers"]), call.layer.path, "the model")
    for number in range(int(config["num_layers"])):
        at = "encoder_layers/vi_t_encoder_block" + (f"_{number}" if number else "")
        block.attention(
            f"{at}/mha", heads, _head_size(block, heads), bias=config.get("use_mha_bias", True)
        )
        block.bias_norm(f"{at}/layer_norm_1", f"{at}/layer_norm_2")
        bias = config.get("use_mlp_bias", True)
        block.feed_forward(f"{at}/mlp/dense_1", f"{at}/mlp/dense_2", bias=bias, field="mlp_dim")
    block.bias_norm("layer_norm")
    return block.stream
