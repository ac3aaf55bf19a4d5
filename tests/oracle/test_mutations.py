"""The oracle notices: break the labels on purpose, in one place, and the same check must fail.

Two kinds of mutants are made systematically, over models in which every family of layers stands:
the labels along each axis of each weight turned round, and the labels that each call gives turned
round. No shape changes, so nothing but wrong numbers can tell. Further mutants are mistakes that a
person would make.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable

import keras
import numpy as np
import pytest
from keras import layers
from msgspec.structs import replace

import kprune.graph.parse
import kprune.rules.convolutional
import kprune.rules.merging
import kprune.rules.reshaping
from kprune.errors import DamagedFileError, UnsoundOutputError
from kprune.graph.model import map_leaves
from kprune.labels.closure import close
from kprune.labels.labels import Axis, Labels
from kprune.opened import analyse, open_model
from kprune.tracing.layer_call import LayerCall
from kprune.tracing.registry import LAYERS
from kprune.tracing.trace import Tracer
from tests.oracle.law import Removal, check_removal, randomize

pytestmark = pytest.mark.oracle

# What tells that a pruned file is wrong: other outputs or counts, or Keras refuses to load it, or kprune to write it,
# or to take a file with a variable that no rule claims.
NOTICED = (AssertionError, ValueError, UnsoundOutputError, DamagedFileError)


def image(*middle):
    return keras.Sequential(
        [keras.Input((4, 5, 3)), *middle, layers.Flatten(name="flat"), layers.Dense(2, name="out")]
    )


def steps(*middle):
    return keras.Sequential([keras.Input((4, 3)), *middle, layers.Dense(2, name="out")])


def merged(merge):
    x = keras.Input((4, 5, 3))
    a, b = layers.Conv2D(6, 1, name="a")(x), layers.Conv2D(6, 2, padding="same", name="b")(x)
    return keras.Model(x, layers.Dense(2, name="out")(layers.Flatten(name="flat")(merge([a, b]))))


def conv(**options):
    return layers.Conv2D(6, 2, name="a", **options)


CASES: dict[str, tuple[Callable[[], keras.Model], dict[str, list[int]]]] = {
    "dense": (
        lambda: steps(layers.Dense(6, "relu", name="a"), layers.Dense(5, name="b")),
        {"a": [0, 3], "b": [1]},
    ),
    "conv": (lambda: image(conv(), layers.Conv2D(5, 2, name="b")), {"a": [0, 3], "b": [1]}),
    "transposed": (
        lambda: image(conv(), layers.Conv2DTranspose(6, 2, name="b")),
        {"a": [0, 3], "b": [1]},
    ),
    "depthwise": (
        lambda: image(conv(), layers.DepthwiseConv2D(2, depth_multiplier=2, name="b")),
        {"a": [0, 3]},
    ),
    "separable": (
        lambda: image(conv(), layers.SeparableConv2D(5, 2, depth_multiplier=2, name="b")),
        {"a": [0, 3], "b": [1]},
    ),
    "grouped": (
        lambda: image(
            conv(), layers.Conv2D(6, 2, groups=2, name="b"), layers.Conv2D(3, 1, name="c")
        ),
        {"a": [0, 4], "b": [0, 4]},
    ),
    "normalised": (
        lambda: image(
            conv(),
            layers.BatchNormalization(name="bn"),
            layers.PReLU(shared_axes=[1, 2], name="prelu"),
        ),
        {"a": [0, 3]},
    ),
    "prelu": (lambda: image(conv(), layers.PReLU(name="prelu")), {"a": [0, 3]}),
    "moved": (
        lambda: image(
            conv(),
            layers.Permute((2, 1, 3), name="permute"),
            layers.Reshape((12, 6), name="reshape"),
        ),
        {"a": [0, 3]},
    ),
    "turned": (
        lambda: keras.Sequential(
            [
                keras.Input((7, 7, 3)),
                conv(),
                layers.Permute((2, 3, 1), name="permute"),
                layers.Flatten(name="flat"),
                layers.Dense(2, name="out"),
            ]
        ),
        {"a": [0, 3]},
    ),
    "pooled": (
        lambda: image(
            conv(),
            layers.MaxPooling2D(2, name="pool"),
            layers.ZeroPadding2D(1, name="pad"),
            layers.UpSampling2D(2, name="up"),
        ),
        {"a": [0, 3]},
    ),
    "pooled globally": (
        lambda: image(conv(), layers.GlobalAveragePooling2D(name="pool")),
        {"a": [0, 3]},
    ),
    "rescaled": (
        lambda: image(
            conv(),
            layers.Rescaling([0.1, 0.2, 0.3, 0.4, 0.5, 0.6], name="scale"),
            layers.Normalization(
                mean=[0.1, 0.2, 0.3, 0.4, 0.5, 0.6],
                variance=[1.0, 1.2, 1.3, 1.4, 1.5, 1.6],
                name="norm",
            ),
        ),
        {"a": [0, 3]},
    ),
    "simple rnn": (lambda: steps(layers.SimpleRNN(6, name="a")), {"a": [0, 3]}),
    "lstm": (lambda: steps(layers.LSTM(6, name="a")), {"a": [0, 3]}),
    "gru": (lambda: steps(layers.GRU(6, name="a")), {"a": [0, 3]}),
    "gru before": (lambda: steps(layers.GRU(6, reset_after=False, name="a")), {"a": [0, 3]}),
    "both": (lambda: steps(layers.Bidirectional(layers.LSTM(5), name="a")), {"a": [0, 3]}),
    "each step": (lambda: steps(layers.TimeDistributed(layers.Dense(6), name="a")), {"a": [0, 3]}),
    "repeated": (
        lambda: steps(
            layers.GlobalMaxPooling1D(),
            layers.Dense(6, name="a"),
            layers.RepeatVector(3, name="repeat"),
        ),
        {"a": [0, 3]},
    ),
    "added": (lambda: merged(layers.Add(name="join")), {"a": [0, 3]}),
    "joined": (lambda: merged(layers.Concatenate(name="join")), {"a": [0, 3], "b": [1]}),
    "operations": (
        lambda: merged(lambda pair: pair[0] * np.linspace(0.5, 1.5, 6).astype("float32") + pair[1]),
        {"a": [0, 3]},
    ),
}


class Original:
    """A case's model, made and saved once for all of its mutants."""

    def __init__(self, case, folder):
        make, self.units = CASES[case]
        self.path = folder / "model.keras"
        self.model = randomize(make())
        self.model.save(self.path)
        self._weights = self.model.get_weights()

    def check(self):
        self.model.set_weights(self._weights)  # a check before may have cut recurrent kernels
        Removal(self.model, self.units, saved=self.path).check()

    def closed(self):
        """The analysis of the model, and bool (labels,): what goes."""
        with open_model(self.path) as source:
            analysis = analyse(source)
        return analysis, close(
            analysis.groups, {name: np.array(indices) for name, indices in self.units.items()}
        ).gone


@pytest.fixture(scope="module")
def originals(tmp_path_factory):
    """By case, its model."""
    return functools.cache(lambda case: Original(case, tmp_path_factory.mktemp("case")))


def unnumbered(layer):
    """A layer's path without the number that Keras gives to a name that it made up."""
    return re.sub(r"_\d+$", "", layer.path)


@pytest.mark.parametrize("case", CASES)
def test_what_is_mutated_below_is_right_as_it_is(case, originals):
    originals(case).check()


# -- every axis of every weight -------------------------------------------------------------------


def turned(axis: Axis) -> Axis:
    return Axis(axis.size, tuple(factor[:, ::-1] for factor in axis.factors))


def weight_axes(original):
    """(layer, weight, axis) of every weight axis on which units stand that go."""
    analysis, gone = original.closed()
    return [
        (unnumbered(weight.layer), weight.name, number)
        for weight in analysis.weights
        for number, axis in enumerate(weight.axes)
        if gone[axis.all_ids()].any()
    ]


@pytest.mark.parametrize("case", CASES)
def test_labels_turned_round_on_any_axis_of_any_weight_are_noticed(case, originals, monkeypatch):
    real = LayerCall.weight
    original = originals(case)
    places = weight_axes(original)
    assert places
    for path, name, number in places:

        def weight(self, given, *axes, place=(path, name, number), **options):
            if (unnumbered(self.layer), given) == place[:2]:
                changed = [Axis.of(axis) if isinstance(axis, np.ndarray) else axis for axis in axes]
                changed[place[2]] = turned(changed[place[2]])
                axes = tuple(changed)
            real(self, given, *axes, **options)

        with monkeypatch.context() as patch:
            patch.setattr(LayerCall, "weight", weight)
            with pytest.raises(NOTICED):
                original.check()
                pytest.fail(
                    f"axis {number} of the {name} of {path} was turned round, and nobody noticed"
                )


# -- what every call gives ------------------------------------------------------------------------


def flipped(value):
    if not isinstance(value, Labels):
        return value
    return Labels(value.shape, tuple(np.flip(factor) for factor in value.factors), value.keeps_zero)


def labelled_calls(original):
    """Layers whose calls give units that go."""
    analysis, gone = original.closed()
    return [
        unnumbered(visit.layer)
        for visit in analysis.map.visits
        if any(gone[labels.all_ids()].any() for labels in visit.outputs)
    ]


@pytest.mark.parametrize("case", CASES)
def test_labels_turned_round_behind_any_call_are_noticed(case, originals, monkeypatch):
    real = Tracer._by_rule
    original = originals(case)
    places = labelled_calls(original)
    assert places
    for path in places:

        def by_rule(self, call, rule, path=path):
            outputs = real(self, call, rule)
            return map_leaves(flipped, outputs) if unnumbered(call.layer) == path else outputs

        with monkeypatch.context() as patch:
            patch.setattr(Tracer, "_by_rule", by_rule)
            with pytest.raises(NOTICED):
                original.check()
                pytest.fail(f"what {path} gives was turned round, and nobody noticed")


# -- mistakes that a person would make ------------------------------------------------------------


def replaced(table, kind, function):
    """A rule table's entry with another function."""
    return table.rules, kind, replace(table.rules[kind], function=function)


def flatten_channels_first(call):
    """As if Flatten walked over the channels first."""
    x, shape = call.x, call.shape()
    shape = (shape[0], shape[-1], *shape[1:-1])
    x = x.move(lambda factor: np.moveaxis(factor, -1, 1), shape)
    return kprune.rules.reshaping.reshaped(call, x, (shape[0], int(np.prod(shape[1:]))))


def reshape_in_fortran_order(call):
    x = call.x.move(
        lambda factor: factor.transpose(0, 2, 1, 3), tuple(call.shape()[i] for i in (0, 2, 1, 3))
    )
    return kprune.rules.reshaping.reshaped(call, x, (None, *call.config["target_shape"]))


def permute_the_other_way(call):
    order = np.argsort([0, *call.config["dims"]])
    shape = call.shape()
    return call.x.move(lambda factor: factor.transpose(order), tuple(shape[axis] for axis in order))


def gates_unit_by_unit(call):
    """As if the four columns of a unit stood side by side."""
    units = call.units("units")
    columns = Axis.of(np.repeat(units, 4))
    call.weight("kernel", call.x.last, columns, out=1, at="cell")
    call.weight("recurrent_kernel", units, columns, out=1, at="cell")
    call.weight("bias", columns, out=0, at="cell")
    return Labels((None, len(units)), (units[None, :],))


def without_the_recurrent_row(call):
    units = call.units("units")
    columns = Axis.of(np.tile(units, 4))
    call.weight("kernel", call.x.last, columns, out=1, at="cell")
    call.weight("recurrent_kernel", np.roll(units, 1), columns, out=1, at="cell")
    call.weight("bias", columns, out=0, at="cell")
    return Labels((None, len(units)), (units[None, :],))


def normalisation_without_beta(call):
    channels = call.x.last
    call.weight("gamma", channels)
    call.weight("moving_mean", channels, trainable=False)
    call.weight("moving_variance", channels, trainable=False)
    return call.x


def joined_the_other_way(call):
    return kprune.rules.merging.join(call, call.xs[::-1], -1)


def sums_that_tie_nothing(call):
    return call.xs[0]


def depthwise_in_turns(call):
    """As if output i came from input i modulo the number of inputs."""
    geometry = kprune.rules.convolutional.Geometry(call)
    units = call.issue(geometry.inputs.size * 2)
    call.tie(np.tile(geometry.inputs.ids, 2), units)
    labels, _ = geometry.output(units)
    call.weight("depthwise_kernel", *geometry.kernel, geometry.inputs, 2, out=2)
    call.weight("bias", units, out=0)
    return labels


def transposed_kernel_the_wrong_way_round(call):
    geometry = kprune.rules.convolutional.Geometry(call)
    filters = call.units("filters")
    call.weight("kernel", *geometry.kernel, geometry.inputs, filters, out=2)
    call.weight("bias", filters, out=0)
    return geometry.x.with_axis(-1, filters, (None, 4, 5, 6))


RULES = [
    ("conv", "Flatten", flatten_channels_first),
    ("moved", "Reshape", reshape_in_fortran_order),
    ("turned", "Permute", permute_the_other_way),
    ("lstm", "LSTM", gates_unit_by_unit),
    ("lstm", "LSTM", without_the_recurrent_row),
    ("normalised", "BatchNormalization", normalisation_without_beta),
    ("joined", "Concatenate", joined_the_other_way),
    ("added", "Add", sums_that_tie_nothing),
    ("depthwise", "DepthwiseConv2D", depthwise_in_turns),
    ("transposed", "Conv2DTranspose", transposed_kernel_the_wrong_way_round),
]


@pytest.mark.parametrize(
    ("case", "kind", "mistake"), RULES, ids=lambda value: getattr(value, "__name__", value)
)
def test_a_mistake_in_a_rule_is_noticed(case, kind, mistake, originals, monkeypatch):
    originals(case).check()
    monkeypatch.setitem(*replaced(LAYERS, kind, mistake))
    with pytest.raises(NOTICED):
        originals(case).check()


def test_groups_off_by_one_are_noticed(originals, monkeypatch):
    originals("grouped").check()
    real = LayerCall.blocks
    monkeypatch.setattr(
        LayerCall,
        "blocks",
        lambda self, field, *sides: real(self, field, np.roll(sides[0], 1, axis=0), *sides[1:]),
    )
    with pytest.raises(NOTICED):
        originals("grouped").check()


def test_a_constant_that_is_not_cut_is_noticed(originals, monkeypatch):
    originals("operations").check()
    monkeypatch.setattr(LayerCall, "constant", lambda self, *_, **__: None)
    # What holds units for an array that no rule spoke for would else hide the mutant.
    monkeypatch.setattr(kprune.tracing.trace, "freeze_unclaimed", lambda *_, **__: None)
    with pytest.raises(NOTICED):
        originals("operations").check()


def test_ties_that_are_forgotten_are_noticed(originals, monkeypatch):
    originals("added").check()
    monkeypatch.setattr(LayerCall, "tie", lambda self, a, b: None)
    with pytest.raises(NOTICED):
        originals("added").check()


def test_two_layers_of_equal_shape_that_are_mixed_up_are_noticed(monkeypatch):
    """Which weights are a layer's follows from the order in which Keras counts layers."""

    def make():
        x = keras.Input((4,))
        near = layers.Dense(6, name="near")(x)
        far = layers.Dense(6, name="far")(layers.ReLU()(layers.Dense(6, name="first")(x)))
        return keras.Model(x, layers.Dense(2, name="out")(layers.Concatenate()([near, far])))

    units = {"near": [0, 3], "first": [1]}
    check_removal(make(), units)
    real = kprune.graph.parse.layer_order
    exchanged = {"near": "first", "first": "near"}
    monkeypatch.setattr(
        kprune.graph.parse,
        "layer_order",
        lambda *args: [exchanged.get(name, name) for name in real(*args)],
    )
    with pytest.raises(NOTICED):
        check_removal(make(), units)
