"""Attention, as layers and written by hand: heads, the dimensions of heads, the width."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import pytest
from keras import layers, ops

from tests.oracle.zeroed import check_random_removal, several_draws

pytestmark = pytest.mark.oracle

TIME, WIDTH = 6, 12


def sequence(width: int = WIDTH) -> tuple[Any, Any]:
    x = keras.Input((TIME, 8))
    return x, layers.Dense(width, name="before")(x)


def ended(x: Any, y: Any) -> Any:
    return keras.Model(x, layers.Dense(2, name="out")(y))


@several_draws
@pytest.mark.parametrize("use_bias", [True, False])
@pytest.mark.parametrize("value_dim", [None, 5])
def test_heads_and_their_dimensions_go_one_by_one(
    seeds: tuple[int, ...], use_bias: bool, value_dim: int | None
) -> None:
    x, y = sequence()
    attention = layers.MultiHeadAttention(3, 4, value_dim=value_dim, use_bias=use_bias, name="mha")
    model = ended(x, layers.Dense(4)(attention(y, y)))
    free = check_random_removal(model, seeds=seeds).free
    assert free["mha.heads"] == 3
    assert free["mha.key_dim"] == 4
    assert free["mha.value_dim"] == (value_dim or 4)
    assert free["mha"] == free["before"] == WIDTH


@several_draws
def test_attention_added_to_its_own_input_ties_the_width(seeds: tuple[int, ...]) -> None:
    x, y = sequence()
    y = layers.Add()([y, layers.MultiHeadAttention(3, 4, name="mha")(y, y)])
    outcome = check_random_removal(ended(x, layers.Dense(4)(y)), seeds=seeds)
    assert outcome.report.changed["before"] == outcome.report.changed["mha"]


@several_draws
def test_scores_that_are_given_out_carry_the_heads(seeds: tuple[int, ...]) -> None:
    x, y = sequence()
    attention = layers.MultiHeadAttention(3, 4, output_shape=7, name="mha")
    y, scores = attention(y, layers.Dense(5)(y), return_attention_scores=True)
    y = layers.Concatenate()([layers.Flatten()(y), layers.Flatten()(scores)])
    assert check_random_removal(ended(x, y), seeds=seeds).free["mha.heads"] == 3


@several_draws
@pytest.mark.parametrize("heads", [3, 6])
def test_query_heads_go_so_that_each_key_head_keeps_as_many(
    seeds: tuple[int, ...], heads: int
) -> None:
    x, y = sequence()
    model = ended(x, layers.GroupQueryAttention(4, heads, 3, name="gqa")(y, y))
    outcome = check_random_removal(model, seeds=seeds)
    assert {"gqa.heads", "gqa.head_dim"} <= set(outcome.free)


@several_draws
@pytest.mark.parametrize("scale", [True, False])
@pytest.mark.parametrize("mode", ["dot", "concat"])
def test_the_layer_attention_ties_query_and_key(
    seeds: tuple[int, ...], scale: bool, mode: str
) -> None:
    x, y = sequence()
    query = layers.Dense(5, name="query")(y)
    key = layers.Dense(5, name="key")(y)
    y = layers.Attention(use_scale=scale, score_mode=mode)([query, y, key])
    outcome = check_random_removal(ended(x, y), seeds=seeds)
    assert outcome.report.changed["query"] == outcome.report.changed["key"]


@several_draws
def test_additive_attention(seeds: tuple[int, ...]) -> None:
    x, y = sequence()
    check_random_removal(ended(x, layers.AdditiveAttention()([y, y])), seeds=seeds)


EINSUMS: dict[str, Callable[[Any], Any]] = {
    "two units' axes": lambda y: layers.EinsumDense(
        "abc,cde->abde", output_shape=(TIME, 3, 4), bias_axes="de"
    )(y),
    "two axes summed": lambda y: layers.EinsumDense(
        "abde,def->abf", output_shape=(TIME, 7), bias_axes="f", activation="relu"
    )(layers.Reshape((TIME, 3, 4))(y)),
    "an axis kept": lambda y: layers.EinsumDense("abc,cd->abd", output_shape=(TIME, 5))(y),
    "channels kept, time mixed": lambda y: layers.EinsumDense(
        "abc,bd->adc", output_shape=(4, WIDTH)
    )(y),
    "channel by channel": lambda y: layers.EinsumDense("abc,c->abc", output_shape=(TIME, WIDTH))(y),
    "ellipsis": lambda y: layers.EinsumDense("...x,xy->...y", output_shape=5, bias_axes="y")(y),
}


@several_draws
@pytest.mark.parametrize("kind", EINSUMS)
def test_einsum_dense(seeds: tuple[int, ...], kind: str) -> None:
    x, y = sequence()
    model = ended(x, layers.Flatten()(EINSUMS[kind](y)))
    assert not check_random_removal(model, seeds=seeds).opaque


def by_hand(y: Any, heads: int, size: int) -> Any:
    """Multi-head attention in plain operations, as papers' code has it."""

    def split(name: str) -> Any:
        projected = ops.reshape(layers.Dense(heads * size, name=name)(y), (-1, TIME, heads, size))
        return ops.transpose(projected, (0, 2, 1, 3))

    query, key, value = split("query"), split("key"), split("value")
    scores = ops.softmax(ops.matmul(query, ops.swapaxes(key, -1, -2)) / 2.0, axis=-1)
    mixed = ops.transpose(ops.matmul(scores, value), (0, 2, 1, 3))
    return ops.reshape(mixed, (-1, TIME, heads * size))


@several_draws
def test_attention_written_by_hand(seeds: tuple[int, ...]) -> None:
    x, y = sequence()
    outcome = check_random_removal(ended(x, by_hand(y, 3, 4)), seeds=seeds)
    assert not outcome.opaque
    assert outcome.free["query"] == outcome.free["key"] == outcome.free["value"] == 12


@several_draws
def test_a_transformer_block_written_by_hand_may_lose_its_hidden_units(
    seeds: tuple[int, ...],
) -> None:
    """What goes from the width, which is normalised over, changes the rest; the rest does not."""
    x, y = sequence()
    y = layers.LayerNormalization()(y + by_hand(y, 3, 4))
    hidden = layers.Dense(16, "gelu", name="hidden")(y)
    y = layers.LayerNormalization()(y + layers.Dense(WIDTH)(hidden))
    outcome = check_random_removal(ended(x, y), seeds=seeds)
    assert "hidden" in outcome.chosen
    assert "before" not in outcome.report.changed


@several_draws
def test_embeddings_read_forth_and_back(seeds: tuple[int, ...]) -> None:
    tokens = keras.Input((TIME,), dtype="int32")
    embedding = layers.ReversibleEmbedding(9, 8, name="tokens")
    y = embedding(tokens)
    y = layers.Dense(8)(layers.Dense(8)(y) + y)
    outcome = check_random_removal(keras.Model(tokens, embedding(y, reverse=True)), seeds=seeds)
    assert {n for name, n in outcome.free.items() if not name.endswith(".tokens")} == {8}
