"""Constants pushed through a model, against what numpy says of the same formulas."""

from __future__ import annotations

import math

import numpy as np
import pytest

from kprune.labels.labels import Labels
from kprune.surgery.activation_values import FUNCTIONS, activation_function, layer_function
from kprune.surgery.edit import Fill
from kprune.surgery.fold import filled
from kprune.surgery.known import NOTHING, Known, read_off

X = np.array([-4.0, -3.0, -1.0, -0.6, -0.5, 0.0, 0.3, 0.5, 1.0, 3.0, 6.5])

# Each activation once more, number by number, from its definition in Keras's documentation.
PLAIN = {
    "linear": lambda x: x,
    "relu": lambda x: x if x > 0 else 0.0,
    "relu6": lambda x: min(max(x, 0.0), 6.0),
    "leaky_relu": lambda x: x if x > 0 else 0.2 * x,
    "elu": lambda x: x if x > 0 else math.exp(x) - 1,
    "selu": lambda x: 1.05070098 * (x if x > 0 else 1.67326324 * (math.exp(x) - 1)),
    "celu": lambda x: x if x > 0 else math.exp(x) - 1,
    "gelu": lambda x: x * 0.5 * math.erfc(-x / math.sqrt(2)),
    "silu": lambda x: x / (1 + math.exp(-x)),
    "swish": lambda x: x / (1 + math.exp(-x)),
    "mish": lambda x: x * math.tanh(math.log(1 + math.exp(x))),
    "sigmoid": lambda x: 1 / (1 + math.exp(-x)),
    "hard_sigmoid": lambda x: min(max(x / 6 + 0.5, 0.0), 1.0),
    "hard_silu": lambda x: x * min(max(x / 6 + 0.5, 0.0), 1.0),
    "hard_swish": lambda x: x * min(max(x / 6 + 0.5, 0.0), 1.0),
    "hard_tanh": lambda x: min(max(x, -1.0), 1.0),
    "hard_shrink": lambda x: x if abs(x) > 0.5 else 0.0,
    "soft_shrink": lambda x: math.copysign(max(abs(x) - 0.5, 0.0), x),
    "tanh": math.tanh,
    "tanh_shrink": lambda x: x - math.tanh(x),
    "softplus": lambda x: math.log(1 + math.exp(x)),
    "softsign": lambda x: x / (abs(x) + 1),
    "sparse_plus": lambda x: 0.0 if x <= -1 else (x if x >= 1 else 0.25 * (x + 1) ** 2),
    "sparse_sigmoid": lambda x: min(max(0.5 * (x + 1), 0.0), 1.0),
    "squareplus": lambda x: (x + math.sqrt(x * x + 4)) / 2,
    "exponential": math.exp,
    "log_sigmoid": lambda x: -math.log(1 + math.exp(-x)),
}


def test_every_activation_has_a_plain_statement():
    assert set(PLAIN) == set(FUNCTIONS)


@pytest.mark.parametrize("name", FUNCTIONS)
def test_an_activation_is_what_its_definition_says(name):
    function = activation_function(name)
    assert function is not None
    expected = [PLAIN[name](float(x)) for x in X]
    np.testing.assert_allclose(function(X), expected, rtol=1e-7, atol=1e-9)


def test_parameters_of_activation_layers_are_heeded():
    relu = layer_function("ReLU", {"negative_slope": 0.1, "max_value": 2.0, "threshold": 0.5})
    np.testing.assert_allclose(relu(np.array([-1.0, 0.4, 0.7, 5.0])), [-0.15, -0.01, 0.7, 2.0])
    assert layer_function("LeakyReLU", {"negative_slope": 0.5})(np.array([-2.0]))[0] == -1.0
    assert layer_function("LeakyReLU", {"alpha": 0.25})(np.array([-2.0]))[0] == -0.5
    np.testing.assert_allclose(
        layer_function("ELU", {"alpha": 2.0})(np.array([-1.0])), 2 * (math.exp(-1) - 1)
    )
    nested = {"module": "keras.layers", "class_name": "ELU", "config": {"alpha": 3.0}}
    np.testing.assert_allclose(activation_function(nested)(np.array([-1.0])), 3 * math.expm1(-1))


def test_an_activation_over_all_units_or_of_unknown_make_has_no_function():
    assert activation_function("softmax") is None
    assert activation_function({"class_name": "function", "config": "mine", "module": "me"}) is None


def test_a_unit_is_known_only_if_it_has_one_value_wherever_it_stands():
    ids = np.array([[1, 2, 3], [1, 2, 0]])
    values = np.array([[5.0, 6.0, 7.0], [5.0, 6.5, np.nan]])
    known = Known.of(ids, values)
    assert known.ids.tolist() == [1, 3]
    assert known.values.tolist() == [5.0, 7.0]
    assert Known.of(np.array([4, 4]), np.array([1.0, np.nan])).ids.size == 0


def test_values_are_found_again_by_label():
    known = Known.of(np.array([3, 9]), np.array([0.5, -1.0]))
    np.testing.assert_array_equal(known.at(np.array([9, 1, 3, 0])), [-1.0, np.nan, 0.5, np.nan])
    assert np.isnan(NOTHING.at(np.array([1]))).all()


def test_values_over_a_tensor_broadcast_as_its_labels_do():
    labels = Labels((None, 4, 4, 3), (np.array([1, 2, 3]).reshape(1, 1, 1, 3),))
    known = Known.of(np.array([2]), np.array([7.0]))
    over = known.over(labels)
    assert over.shape == (1, 1, 1, 3)
    assert over[0, 0, 0, 1] == 7.0
    np.testing.assert_array_equal(np.isnan(over).ravel(), [True, False, True])
    back = read_off(labels, over)
    assert back.ids.tolist() == [2]
    # A value that differs along an axis on which the unit is everywhere is none.
    assert read_off(labels, np.arange(48.0).reshape(1, 4, 4, 3)).ids.size == 0


@pytest.mark.parametrize("start", [0, 2])
def test_values_are_filled_in_by_run_of_rows(start):
    array = np.arange(24.0).reshape(6, 4)
    fills = (
        Fill(1, np.array([1, 3])),
        Fill(0, np.array([0, 3]), 9.0, within=((1, np.array([2])),)),
    )
    expected = array.copy()
    expected[:, [1, 3]] = 0.0
    expected[[0, 3], 2] = 9.0
    np.testing.assert_array_equal(filled(array[start:], fills, start), expected[start:])
    assert array[0, 1] == 1.0
