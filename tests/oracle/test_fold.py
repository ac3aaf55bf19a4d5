"""`remove --fold` computes what `zero` does: constants go into biases, or it is refused."""

from __future__ import annotations

from pathlib import Path

import keras
import pytest
from keras import layers

import kprune
from kprune.errors import CannotPruneError
from tests.oracle.folding import difference, folded, randomised

pytestmark = pytest.mark.oracle


def sequential(shape, *stack):
    return randomised(keras.Sequential([keras.Input(shape), *stack]))


def functional(inputs, output):
    return randomised(keras.Model(inputs, output))


def image_head(x):
    return layers.Dense(3, name="out")(layers.Flatten()(x))


STACKS = {
    "sigmoid into dense": (
        (6,),
        [layers.Dense(8, "sigmoid", name="d"), layers.Dense(3)],
        ["dense"],
    ),
    "normalised, valid": (
        (9, 9, 3),
        [
            layers.Conv2D(8, 3, name="d"),
            layers.BatchNormalization(),
            layers.LeakyReLU(negative_slope=0.3),
            layers.MaxPooling2D(2, strides=1, padding="same"),
            layers.Conv2D(4, 3, strides=2, name="c"),
            layers.Flatten(),
            layers.Dense(3),
        ],
        ["c"],
    ),
    "pointwise, padding same": (
        (5, 5, 3),
        [
            layers.Conv2D(8, 3, padding="same", activation="softplus", name="d"),
            layers.Conv2D(4, 1, padding="same", name="c"),
            layers.GlobalAveragePooling2D(),
        ],
        ["c"],
    ),
    "no bias, normalised behind": (
        (9, 9, 3),
        [
            layers.Conv2D(8, 3, name="d"),
            layers.BatchNormalization(),
            layers.Activation("elu"),
            layers.Conv2D(4, 3, use_bias=False),
            layers.Dropout(0.5),
            layers.BatchNormalization(name="bn"),
            layers.ReLU(),
            layers.Flatten(),
            layers.Dense(3),
        ],
        ["bn"],
    ),
    "flattened": (
        (4, 4, 2),
        [
            layers.Conv2D(8, 3, padding="same", name="d"),
            layers.PReLU(shared_axes=[1, 2]),
            layers.BatchNormalization(),
            layers.Permute((3, 1, 2)),
            layers.Flatten(),
            layers.Dense(3, name="c"),
        ],
        ["c"],
    ),
    "depthwise, valid": (
        (9, 9, 3),
        [
            layers.Conv2D(8, 3, name="d"),
            layers.BatchNormalization(),
            layers.DepthwiseConv2D(3, depth_multiplier=2, activation="tanh"),
            layers.Conv2D(4, 1, name="c"),
            layers.Flatten(),
            layers.Dense(3),
        ],
        ["c"],
    ),
    "separable": (
        (9, 9, 3),
        [
            layers.Conv2D(8, 3, activation="sigmoid", name="d"),
            layers.SeparableConv2D(5, 3, depth_multiplier=2, name="c"),
            layers.Flatten(),
        ],
        ["c"],
    ),
    "grouped": (
        (7, 7, 3),
        [
            layers.Conv2D(8, 3, activation="sigmoid", name="d"),
            layers.Conv2D(6, 3, groups=2, name="c"),
            layers.Flatten(),
        ],
        ["c"],
    ),
    "rescaled": (
        (6,),
        [layers.Dense(8, name="d"), layers.Rescaling(-2.0, 0.3), layers.Dense(3, name="c")],
        ["c"],
    ),
    "einsum": (
        (5, 6),
        [
            layers.Dense(8, "sigmoid", name="d"),
            layers.EinsumDense("abc,cde->abde", (5, 3, 4), bias_axes="de", name="c"),
            layers.Flatten(),
        ],
        ["c"],
    ),
}


@pytest.mark.parametrize("name", STACKS)
def test_what_zeroed_units_give_goes_into_biases(name: str, tmp_path: Path):
    shape, stack, takers = STACKS[name]
    units = [1, 5] if name == "grouped" else [1, 2]
    report, plain = folded(sequential(shape, *stack), {"d": units}, tmp_path)
    assert plain > 1e-3, "the units give nothing, so that folding shows nothing"
    kinds = [note.layer for note in report.notes if note.kind == "folded"]
    assert [layer.split("_")[0] for layer in kinds] == [taker.split("_")[0] for taker in takers]
    assert report.exact


@pytest.mark.parametrize(
    "consumer",
    [
        layers.LSTM(5, name="c"),
        layers.GRU(5, name="c"),
        layers.GRU(5, reset_after=False, name="c"),
        layers.SimpleRNN(5, name="c"),
        layers.Bidirectional(layers.LSTM(5), name="c"),
    ],
    ids=["lstm", "gru", "gru of Keras 1", "simple", "both ways"],
)
def test_a_recurrent_layer_takes_a_constant_at_every_step(consumer, tmp_path: Path):
    model = sequential(
        (6, 4), layers.Conv1D(6, 1, activation="sigmoid", name="d"), consumer, layers.Dense(2)
    )
    _, plain = folded(model, {"d": [1, 4]}, tmp_path)
    assert plain > 1e-3


def test_attention_takes_constants_in_its_projections(tmp_path: Path):
    x = keras.Input((5, 4))
    y = layers.Dense(6, "sigmoid", name="d")(x)
    y = layers.MultiHeadAttention(2, 3, name="mha")(y, y)
    _, plain = folded(functional(x, image_head(y)), {"d": [1, 4]}, tmp_path)
    assert plain > 1e-3


def test_the_constants_of_a_sum_add_up(tmp_path: Path):
    x = keras.Input((9, 9, 3))
    a = layers.Conv2D(8, 3, activation="sigmoid", name="a")(x)
    b = layers.BatchNormalization()(layers.Conv2D(8, 3, name="b")(x))
    y = layers.Activation("softplus")(layers.Add()([a, b]))
    model = functional(x, image_head(layers.Conv2D(4, 2)(y)))
    folded(model, {"a": [1, 2], "b": [1, 2]}, tmp_path)


def test_the_other_summand_counts_as_zeroed_and_a_note_says_so(tmp_path: Path):
    x = keras.Input((9, 9, 3))
    a = layers.Conv2D(8, 3, activation="sigmoid", name="a")(x)
    y = layers.Add()([a, layers.Conv2D(8, 3, name="b")(x)])
    report, _ = folded(functional(x, image_head(y)), {"a": [3]}, tmp_path)
    (note,) = [note for note in report.notes if note.kind == "coupled"]
    assert note.layer == "b"
    assert report.selected == {"a": [3]}


def test_a_densely_connected_block_is_shifted_in_every_normalisation(tmp_path: Path):
    x = keras.Input((9, 9, 3))
    a = layers.Conv2D(8, 3, activation="sigmoid", name="a")(x)
    joined = layers.Concatenate()([a, layers.Conv2D(4, 1, use_bias=False)(a)])
    one = layers.GlobalAveragePooling2D()(
        layers.ReLU()(layers.BatchNormalization(name="n1")(joined))
    )
    other = layers.BatchNormalization(name="n2")(layers.AveragePooling2D(2)(joined))
    other = layers.GlobalMaxPooling2D()(other)
    output = layers.Add()([layers.Dense(3)(one), layers.Dense(3)(other)])
    report, plain = folded(functional(x, output), {"a": [1, 5]}, tmp_path)
    assert plain > 1e-3
    assert {"n1", "n2"} <= {note.layer for note in report.notes if note.kind == "folded"}


REFUSED = {
    "border of 'c'": [
        layers.BatchNormalization(),
        layers.Conv2D(4, 3, padding="same", name="c"),
    ],
    "border of 'pad'": [
        layers.BatchNormalization(),
        layers.ZeroPadding2D(name="pad"),
        layers.Conv2D(4, 3),
    ],
    "border of 'dw'": [
        layers.BatchNormalization(),
        layers.DepthwiseConv2D(3, padding="same", name="dw"),
        layers.Conv2D(4, 1),
    ],
    "'c' has no bias": [
        layers.BatchNormalization(),
        layers.Conv2D(4, 3, use_bias=False, name="c"),
        layers.ReLU(),
        layers.BatchNormalization(),
    ],
    "mean and variance": [layers.LayerNormalization(), layers.Conv2D(4, 1)],
}


@pytest.mark.parametrize("why", REFUSED)
def test_what_cannot_be_folded_is_refused_with_the_reason(why: str, tmp_path: Path):
    model = sequential((6, 6, 3), layers.Conv2D(8, 3, name="d"), *REFUSED[why], layers.Flatten())
    model.save(tmp_path / "m.keras")
    with pytest.raises(CannotPruneError) as refusal:
        kprune.remove(tmp_path / "m.keras", {"d": [2]}, fold=True, output=tmp_path / "o.keras")
    assert "unit 2 of 'd'" in refusal.value.what
    assert why in refusal.value.why
    assert not (tmp_path / "o.keras").exists()


def test_zeros_at_the_border_do_no_harm_to_a_unit_that_gives_0(tmp_path: Path):
    model = sequential(
        (6, 6, 3),
        layers.Conv2D(8, 3, activation="relu", name="d"),
        layers.Conv2D(4, 3, padding="same"),
        layers.Flatten(),
    )
    folded(model, {"d": [2]}, tmp_path)


def test_the_same_in_a_plan_and_verified(tmp_path: Path):
    model = sequential(
        (6,), layers.Dense(8, name="d"), layers.BatchNormalization(), layers.Dense(3)
    )
    before, after, zeroed = (tmp_path / f"{name}.keras" for name in ("a", "b", "z"))
    model.save(before)
    plan = tmp_path / "plan.yaml"
    plan.write_text(
        "version: 1\nsteps:\n  - backend: remove\n    fold: true\n    layers: {d: [1, 6]}\n"
    )
    kprune.apply(before, plan, output=after)
    kprune.zero(before, {"d": [1, 6]}, output=zeroed)
    assert difference(zeroed, after) < 1e-5
    found = kprune.verify(before, after)
    assert found.passed
    assert found.against == "masked original"
