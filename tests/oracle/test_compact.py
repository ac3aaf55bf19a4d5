"""`compact`: models in which another tool zeroed 40 % compute the same, and are smaller."""

from __future__ import annotations

from pathlib import Path

import keras
import numpy as np
import pytest
from keras import layers

import kprune
from kprune.errors import CheckError
from tests.oracle.folding import (
    TOLERANCE,
    compacted,
    difference,
    randomised,
    zeroed_by_another_tool,
)

pytestmark = pytest.mark.oracle


def images(padding: str, *, normalised: bool, activation: str = "relu"):
    def block(filters, name):
        yield layers.Conv2D(filters, 3, padding=padding, use_bias=not normalised, name=name)
        if normalised:
            yield layers.BatchNormalization()
        yield layers.Activation(activation)

    stack = [keras.Input((12, 12, 3)), *block(10, "c1"), layers.MaxPooling2D(), *block(20, "c2")]
    stack += [
        layers.Flatten(),
        layers.Dense(30, activation="relu", name="d"),
        layers.Dense(3, name="out"),
    ]
    return randomised(keras.Sequential(stack))


def left(report):
    return {note.layer: note.text for note in report.notes if note.kind == "left"}


@pytest.mark.parametrize("biases", [False, True], ids=["zeroed biases", "other biases"])
@pytest.mark.parametrize("normalised", [False, True], ids=["bare", "normalised"])
def test_every_zeroed_filter_goes_where_nothing_is_padded(normalised, biases, tmp_path: Path):
    model = images("valid", normalised=normalised)
    zeroed = zeroed_by_another_tool(model, biases=biases)
    report = compacted(model, tmp_path)
    assert report.changed == zeroed
    assert not left(report)
    small = keras.models.load_model(tmp_path / "after.keras")
    assert [small.get_layer(name).get_weights()[0].shape[-1] for name in ("c1", "c2", "d")] == [
        6,
        12,
        18,
    ]
    assert report.output.parameters == small.count_params()


def test_filters_that_give_0_go_where_zeros_are_padded(tmp_path: Path):
    model = images("same", normalised=False)
    zeroed = zeroed_by_another_tool(model)
    assert compacted(model, tmp_path).changed == zeroed


def test_a_constant_at_a_padded_border_is_left_and_the_note_says_so(tmp_path: Path):
    model = images("same", normalised=True, activation="sigmoid")
    zeroed = zeroed_by_another_tool(model)
    report = compacted(model, tmp_path)
    # c2 is flattened, without a border: its constants go. Those of c1 reach the padding of c2.
    assert report.changed == {"c2": zeroed["c2"], "d": zeroed["d"]}
    assert "border of 'c2'" in left(report)["c1"]


@pytest.mark.parametrize("biases", [False, True], ids=["zeroed biases", "other biases"])
@pytest.mark.parametrize("padding", ["valid", "same"])
def test_a_residual_sum_loses_what_is_constant_on_both_paths(padding, biases, tmp_path: Path):
    x = keras.Input((9, 9, 3))
    a = layers.Conv2D(10, 3, padding="same", name="a")(x)
    b = layers.BatchNormalization()(layers.Conv2D(10, 1, padding=padding, name="b")(a))
    y = layers.Activation("softplus")(layers.Add()([a, b]))
    y = layers.Conv2D(5, 1, name="c")(y)
    model = randomised(
        keras.Model(x, layers.Dense(3, name="out")(layers.GlobalAveragePooling2D()(y)))
    )
    zeroed = zeroed_by_another_tool(model, 0.7, biases=biases)
    both = sorted(set(zeroed["a"]) & set(zeroed["b"]))
    assert 0 < len(both) < len(zeroed["a"])
    report = compacted(model, tmp_path)
    assert report.changed == {"a": both, "b": both, "c": zeroed["c"]}
    assert "combined by 'add" in left(report)["a"]


@pytest.mark.parametrize("kind", [layers.LSTM, layers.GRU, layers.SimpleRNN])
def test_silent_units_of_recurrent_layers_go(kind, tmp_path: Path):
    stack = [keras.Input((6, 4)), kind(10, return_sequences=True, name="r"), kind(10, name="s")]
    model = randomised(keras.Sequential([*stack, layers.Dense(2, name="out")]))
    zeroed = zeroed_by_another_tool(model)
    assert compacted(model, tmp_path).changed == zeroed


def test_an_lstm_unit_with_a_live_bias_is_no_constant(tmp_path: Path):
    model = randomised(
        keras.Sequential(
            [keras.Input((6, 4)), layers.LSTM(5, name="r"), layers.Dense(2, name="out")]
        )
    )
    kernel, recurrent, bias = model.layers[0].get_weights()
    for array in (kernel, recurrent):
        array.reshape(len(array), 4, 5)[..., 2] = 0
    model.layers[0].set_weights([kernel, recurrent, bias])  # its state grows from step to step
    assert compacted(model, tmp_path).changed == {}


def test_channels_go_through_depthwise_and_concatenation(tmp_path: Path):
    x = keras.Input((9, 9, 3))
    a = layers.ReLU()(layers.BatchNormalization()(layers.Conv2D(10, 3, name="a")(x)))
    a = layers.DepthwiseConv2D(3, activation="sigmoid", name="dw")(a)
    b = layers.Conv2D(10, 5, activation="sigmoid", name="b")(x)
    y = layers.Concatenate()([a, b])
    y = layers.Conv2D(6, 1, use_bias=False, name="c")(y)
    y = layers.BatchNormalization()(y)
    model = randomised(keras.Model(x, layers.Dense(3, name="out")(layers.Flatten()(y))))
    zeroed = zeroed_by_another_tool(model, biases=True)
    report = compacted(model, tmp_path)
    assert report.changed == {**zeroed, "dw": zeroed["a"]}


def test_a_unit_that_nobody_reads_goes_and_with_it_what_it_alone_reads(tmp_path: Path):
    model = randomised(
        keras.Sequential(
            [
                keras.Input((5,)),
                layers.Dense(6, name="a"),
                layers.Dense(4, "tanh", name="b"),
                layers.Dense(2, name="out"),
            ]
        )
    )
    _, b, out = model.layers
    out.set_weights(
        [np.where(np.arange(4)[:, None] == 3, 0, out.get_weights()[0]), out.get_weights()[1]]
    )
    kernel, bias = b.get_weights()
    kernel[1, :3] = 0  # unit 1 of a feeds unit 3 of b alone
    b.set_weights([kernel, bias])
    assert compacted(model, tmp_path).changed == {"a": [1], "b": [3]}


@pytest.mark.parametrize("dead", [[1], [1, 5]], ids=["one of two", "both"])
def test_units_that_are_taken_apart_and_go_together_are_dead_together(dead, tmp_path: Path):
    x = keras.Input((6,))
    rows = layers.Reshape((2, 4))(layers.Dense(8, name="d")(x))
    one, other = keras.ops.unstack(rows, 2, axis=1)
    output = layers.Concatenate()([layers.Dense(3)(one), layers.Dense(3, name="out")(other)])
    model = randomised(keras.Model(x, output))
    kernel, bias = model.get_layer("d").get_weights()
    kernel[:, dead] = 0
    model.get_layer("d").set_weights([kernel, bias])
    # Units 1 and 5 stand at one place of the two rows, which share the labels of the first.
    report = compacted(model, tmp_path)
    assert set(report.changed.get("d", [])) <= set(dead)
    assert len(dead) == 2 or not report.changed


def test_weights_that_add_up_to_0_are_not_dead(tmp_path: Path):
    model = randomised(
        keras.Sequential(
            [keras.Input((4,)), layers.Dense(3, name="a"), layers.Dense(2, name="out")]
        )
    )
    kernel, bias = model.layers[0].get_weights()
    kernel[:, 1] = [1, -1, 2, -2]
    model.layers[0].set_weights([kernel, bias * 0])
    assert compacted(model, tmp_path).changed == {}


def test_nothing_dead_is_no_error_and_the_output_is_a_copy(tmp_path: Path):
    model = images("valid", normalised=True)
    report = compacted(model, tmp_path)
    assert [note.kind for note in report.notes] == ["nothing"]
    assert report.output.parameters == report.input.parameters
    assert kprune.diff(tmp_path / "before.keras", tmp_path / "after.keras").equal


def test_the_last_unit_stays(tmp_path: Path):
    model = images("valid", normalised=False)
    zeroed_by_another_tool(model, 1.0)
    report = compacted(model, tmp_path)
    assert {len(units) for units in report.changed.values()} == {9, 19, 29}
    assert all("last unit" in left(report)[name] for name in ("c1", "c2", "d"))


def test_a_layer_that_is_called_as_in_training_lets_nothing_constant_pass(tmp_path: Path):
    x = keras.Input((6,))
    y = layers.Dense(10, activation="sigmoid", name="d")(x)
    y = layers.BatchNormalization()(y, training=True)
    model = randomised(keras.Model(x, layers.Dense(3, name="out")(y)))
    zeroed_by_another_tool(model)
    report = compacted(model, tmp_path)
    assert report.changed == {}
    assert "does not follow constants" in left(report)["d"]


def test_masked_units_go_and_a_mask_without_zeros_is_taken_out(tmp_path: Path):
    model = images("valid", normalised=True)
    model.save(tmp_path / "m.keras")
    kprune.mask(tmp_path / "m.keras", {"c1": [0, 4], "d": [7]}, output=tmp_path / "masked.keras")
    report = kprune.compact(tmp_path / "masked.keras", output=tmp_path / "small.keras", check=False)
    assert report.changed == {"c1": [0, 4], "d": [7]}
    small = keras.models.load_model(tmp_path / "small.keras")
    assert not [layer.name for layer in small.layers if "mask" in layer.name]
    assert difference(tmp_path / "masked.keras", tmp_path / "small.keras") < TOLERANCE


def test_what_kprune_zeroed_is_compacted_checked_and_verified(tmp_path: Path):
    model = images("valid", normalised=True)
    model.save(tmp_path / "m.keras")
    kprune.zero(tmp_path / "m.keras", {"c1": [1, 2], "d": [3]}, output=tmp_path / "zeroed.keras")
    report = kprune.compact(
        tmp_path / "zeroed.keras", in_place=False, output=tmp_path / "small.keras"
    )
    assert report.changed == {"c1": [1, 2], "d": [3]}
    found = kprune.verify(tmp_path / "zeroed.keras", tmp_path / "small.keras")
    assert found.passed
    assert kprune.verify(tmp_path / "m.keras", tmp_path / "small.keras").passed


def test_a_result_that_computes_something_else_replaces_nothing(tmp_path: Path, monkeypatch):
    from kprune.surgery import fold

    model = images("valid", normalised=True)
    zeroed_by_another_tool(model, biases=True)
    model.save(tmp_path / "m.keras")
    before = (tmp_path / "m.keras").read_bytes()
    share = fold.removal_with_shares

    def forgetful(source, analysis, closure, constants):
        constants.summing_kernels.clear()
        return share(source, analysis, closure, constants)

    monkeypatch.setattr("kprune.pruning.compact.removal_with_shares", forgetful)
    with pytest.raises(CheckError, match="does not compute what the original does"):
        kprune.compact(tmp_path / "m.keras", in_place=True)
    assert (tmp_path / "m.keras").read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == ["m.keras"]
