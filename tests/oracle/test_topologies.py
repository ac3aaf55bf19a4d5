"""Graphs as people build them: shared, nested, recurrent with states, dense, U-shaped, branched."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from keras import layers

from kprune import apply, explain, verify
from kprune.errors import LastUnitError
from kprune.opened import open_model
from kprune.select.plans.plan import parse_plan
from kprune.verbs.change import remove
from tests.oracle.law import assert_equal, outputs, randomize
from tests.oracle.zeroed import check_random_removal, several_draws

pytestmark = pytest.mark.oracle


def ended(x: Any, y: Any) -> Any:
    return keras.Model(x, layers.Dense(2, name="out")(y))


def encoder() -> Any:
    x = keras.Input((8,))
    return keras.Model(
        x, layers.Dense(5)(layers.Dense(6, "relu", name="hidden")(x)), name="encoder"
    )


def siamese() -> Any:
    one, two, shared = keras.Input((8,), name="one"), keras.Input((8,), name="two"), encoder()
    return ended([one, two], layers.Concatenate()([shared(one), shared(two)]))


def chained_twice() -> Any:
    x = keras.Input((8,))
    chain = keras.Sequential([layers.Dense(8), encoder(), layers.Dense(8)])
    return ended(x, chain(chain(x)))


def shared_across_branches() -> Any:
    x, shared = keras.Input((8, 8, 3)), layers.Conv2D(4, 3, padding="same")
    one = shared(layers.Conv2D(4, 1)(x))
    two = shared(layers.Conv2D(4, 1, activation="sigmoid")(x))
    return ended(x, layers.Flatten()(one + two))


def several_outputs() -> Any:
    x = keras.Input((8,))
    y = layers.Dense(6)(x)
    return keras.Model(x, {"one": layers.Dense(2)(layers.Dense(5)(y)), "two": layers.Dense(3)(y)})


def inputs_in_a_dict() -> Any:
    one, two = keras.Input((8,), name="u"), keras.Input((4,), name="v")
    y = layers.Concatenate()([layers.Dense(6)(one), layers.Dense(5)(two)])
    return ended({"u": one, "v": two}, y)


def an_output_in_the_middle() -> Any:
    x = keras.Input((8,))
    y = layers.Dense(6, name="given")(x)
    return keras.Model(x, [layers.Dense(2)(layers.Dense(5)(y)), y])


def functional_in_sequential() -> Any:
    x = keras.Input((7,))
    inner = keras.Model(x, layers.Dense(5)(x))
    return keras.Sequential([keras.Input((8,)), layers.Dense(7), inner, layers.Dense(3)])


def model_at_each_step() -> Any:
    x = keras.Input((5, 8))
    inner = keras.Sequential([layers.Dense(6, "relu"), layers.Dense(4)])
    return ended(x, layers.TimeDistributed(inner)(layers.Dense(7)(x)))


def dense_connectivity() -> Any:
    x = keras.Input((8, 8, 3))
    parts = [layers.Conv2D(4, 3, padding="same")(x)]
    for _ in range(4):
        joined = layers.Concatenate()(parts) if len(parts) > 1 else parts[0]
        y = layers.ReLU()(layers.BatchNormalization()(joined))
        parts.append(layers.Conv2D(3, 3, padding="same")(y))
    return ended(x, layers.GlobalAveragePooling2D()(layers.Concatenate()(parts)))


def u_net() -> Any:
    x = keras.Input((8, 8, 3))
    down = layers.Conv2D(4, 3, padding="same", activation="relu")(x)
    y = layers.Conv2D(6, 3, padding="same")(layers.MaxPooling2D()(down))
    y = layers.Concatenate()([layers.Conv2DTranspose(5, 2, strides=2)(y), down])
    return ended(x, layers.GlobalMaxPooling2D()(layers.Conv2D(3, 3, padding="same")(y)))


def states_passed_on() -> Any:
    tokens = keras.Input((6,), dtype="int32")
    y = layers.Embedding(9, 8, mask_zero=True)(tokens)
    y, hidden, cell = layers.LSTM(6, return_sequences=True, return_state=True)(y)
    return ended(tokens, layers.LSTM(6)(layers.Dense(4)(y), initial_state=[hidden, cell]))


def two_directions() -> Any:
    x = keras.Input((6, 8))
    y = layers.Bidirectional(layers.LSTM(5, return_sequences=True))(x)
    return ended(x, layers.Bidirectional(layers.GRU(4), merge_mode="sum")(y))


def states_in_two_directions() -> Any:
    x = keras.Input((6, 8))
    first = layers.LSTM(5, return_state=True, return_sequences=True)
    y, *states = layers.Bidirectional(first)(x)
    return ended(x, layers.Bidirectional(layers.LSTM(5))(y, initial_state=states))


def sizes_left_open() -> Any:
    x = keras.Input((None, None, 3))
    y = layers.Conv2D(4, 2)(layers.Conv2D(6, 2)(x))
    return ended(x, layers.GlobalAveragePooling2D()(y))


def cells_in_a_stack() -> Any:
    x = keras.Input((6, 8))
    cells = [layers.LSTMCell(5), layers.GRUCell(4), layers.SimpleRNNCell(6)]
    return ended(x, layers.RNN(cells, return_sequences=True)(layers.Dense(7)(x)))


def convolutions_in_time() -> Any:
    x = keras.Input((4, 6, 6, 3))
    y = layers.ConvLSTM2D(4, 2)(layers.ConvLSTM2D(5, 3, return_sequences=True)(x))
    return ended(x, layers.Flatten()(y))


GRAPHS = (
    siamese,
    chained_twice,
    shared_across_branches,
    several_outputs,
    inputs_in_a_dict,
    an_output_in_the_middle,
    functional_in_sequential,
    model_at_each_step,
    dense_connectivity,
    u_net,
    states_passed_on,
    two_directions,
    states_in_two_directions,
    sizes_left_open,
    cells_in_a_stack,
    convolutions_in_time,
)


@several_draws
@pytest.mark.parametrize("build", GRAPHS, ids=lambda build: build.__name__)
def test_what_is_removed_equals_what_is_zeroed(
    seeds: tuple[int, ...], build: Callable[[], Any]
) -> None:
    outcome = check_random_removal(build(), seeds=seeds)
    assert not outcome.opaque
    assert outcome.free.get("given", 0) == 0


def branches() -> Any:
    x = keras.Input((8, 8, 3))
    a = layers.Conv2D(4, 3, padding="same", name="a")(x)
    b = layers.Conv2D(5, 3, padding="same", name="b")(x)
    b = layers.ReLU(name="b_relu")(layers.BatchNormalization(name="b_norm")(b))
    c = layers.Conv2D(6, 3, padding="same", name="c")(x)
    y = layers.Conv2D(4, 3, name="d")(layers.Concatenate()([a, b, c]))
    return ended(x, layers.GlobalAveragePooling2D()(y))


@pytest.mark.parametrize(
    ("gone", "left"),
    [({"b": 5}, {"a", "c", "d"}), ({"b": 5, "a": 4}, {"c", "d"}), ({"c": 6}, {"a", "b", "d"})],
    ids=["one", "two", "the last"],
)
def test_a_branch_whose_units_all_go_leaves_the_graph(
    gone: dict[str, int], left: set[str], tmp_path: Path
) -> None:
    model = randomize(branches())
    before, after = str(tmp_path / "model.keras"), str(tmp_path / "pruned.keras")
    model.save(before)
    report = remove(before, {name: list(range(n)) for name, n in gone.items()}, output=after)
    pruned = keras.models.load_model(after)
    names = {layer.name for layer in pruned.layers}
    assert left < names
    assert not names & (set(gone) | ({"b_norm", "b_relu"} if "b" in gone else set()))
    assert pruned.count_params() == report.output.parameters
    # The original, its branches joined as zeros.
    kernel, *rest = model.get_layer("d").get_weights()
    start = {"a": 0, "b": 4, "c": 9}
    for name, count in gone.items():
        kernel[:, :, start[name] : start[name] + count] = 0
    model.get_layer("d").set_weights([kernel, *rest])
    x = np.random.default_rng(0).normal(size=(3, 8, 8, 3)).astype("float32")
    assert_equal(outputs(pruned, x)[0], outputs(model, x)[0])


def test_a_branch_vanishes_through_a_tie_only_if_that_is_asked_for(tmp_path: Path) -> None:
    """Two convolutions whose sum is one part of a Concatenate: who names one of them takes both out."""
    x = keras.Input((8, 8, 3))
    a, b = (layers.Conv2D(4, 3, padding="same", name=name)(x) for name in ("a", "b"))
    c = layers.Conv2D(6, 3, padding="same", name="c")(x)
    y = layers.Conv2D(4, 3, name="d")(layers.Concatenate()([layers.Add(name="sum")([a, b]), c]))
    model = randomize(ended(x, layers.GlobalAveragePooling2D()(y)))
    before, after = tmp_path / "model.keras", tmp_path / "pruned.keras"
    model.save(before)
    with pytest.raises(LastUnitError) as caught:
        remove(before, {"a": [0, 1, 2, 3]}, output=after)
    assert caught.value.where == "a -> sum -> b" and not after.exists()
    assert not explain(before, {"a": [0, 1, 2, 3]}).possible
    report = remove(before, {"a": [0, 1, 2, 3]}, drop_branches=True, output=after)
    assert report.changed == {"a": [0, 1, 2, 3], "b": [0, 1, 2, 3]}
    pruned = keras.models.load_model(after)
    assert not {"a", "b", "sum"} & {layer.name for layer in pruned.layers}
    kernel, *rest = model.get_layer("d").get_weights()
    kernel[:, :, :4] = 0
    model.get_layer("d").set_weights([kernel, *rest])
    x = np.random.default_rng(0).normal(size=(3, 8, 8, 3)).astype("float32")
    assert_equal(outputs(pruned, x)[0], outputs(model, x)[0])
    assert verify(before, after).passed
    with open_model(after) as made:
        steps = made.metadata["kprune"]["plan"]
    again = tmp_path / "again.keras"
    apply(before, parse_plan(json.dumps(steps)), output=again)
    assert again.read_bytes() == after.read_bytes()


def test_features_of_the_input_go_where_that_is_allowed(tmp_path: Path) -> None:
    x = keras.Input((8,), name="x")
    model = randomize(ended(x, layers.Dense(5, name="first")(x)))
    before, after = str(tmp_path / "model.keras"), str(tmp_path / "pruned.keras")
    model.save(before)
    remove(before, {"x": [3]}, output=after, allow_output_change=True)
    kernel, bias = model.get_layer("first").get_weights()
    kernel[3] = 0
    model.get_layer("first").set_weights([kernel, bias])
    values = np.random.default_rng(0).normal(size=(3, 8)).astype("float32")
    pruned = outputs(keras.models.load_model(after), np.delete(values, 3, axis=1))
    assert_equal(pruned[0], outputs(model, values)[0])
