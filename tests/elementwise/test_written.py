"""Element-wise functions as configs write them, against plain statements of their definitions."""

from __future__ import annotations

import math

import numpy as np
import pytest

from kprune.elementwise.table import ACTIVATION, FUNCTIONS
from kprune.elementwise.written import activation_formula, written_activation, written_layer


def layer_formula(kind, config):
    return written_layer(kind, config).formula


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
    assert set(PLAIN) == set(FUNCTIONS[ACTIVATION])


@pytest.mark.parametrize("name", FUNCTIONS[ACTIVATION])
def test_an_activation_is_what_its_definition_says(name):
    function = activation_formula(name)
    assert function is not None
    expected = [PLAIN[name](float(x)) for x in X]
    np.testing.assert_allclose(function(X), expected, rtol=1e-7, atol=1e-9)


def test_parameters_of_activation_layers_are_heeded():
    relu = layer_formula("ReLU", {"negative_slope": 0.1, "max_value": 2.0, "threshold": 0.5})
    np.testing.assert_allclose(relu(np.array([-1.0, 0.4, 0.7, 5.0])), [-0.15, -0.01, 0.7, 2.0])
    assert layer_formula("LeakyReLU", {"negative_slope": 0.5})(np.array([-2.0]))[0] == -1.0
    assert layer_formula("LeakyReLU", {"alpha": 0.25})(np.array([-2.0]))[0] == -0.5
    np.testing.assert_allclose(
        layer_formula("ELU", {"alpha": 2.0})(np.array([-1.0])), 2 * (math.exp(-1) - 1)
    )
    nested = {"module": "keras.layers", "class_name": "ELU", "config": {"alpha": 3.0}}
    np.testing.assert_allclose(activation_formula(nested)(np.array([-1.0])), 3 * math.expm1(-1))


def test_an_activation_over_all_units_or_of_unknown_make_has_no_function():
    assert activation_formula("softmax") is None
    assert activation_formula({"class_name": "function", "config": "mine", "module": "me"}) is None


def test_a_layer_in_the_place_of_an_activation_keeps_its_parameters():
    nested = {"module": "keras.layers", "class_name": "ReLU", "config": {"max_value": 6.0}}
    assert written_activation(nested).keeps_zero
    assert not written_activation(nested).homogeneous
    assert written_activation("sigmoid").keeps_zero is False
    assert written_layer("Multiply", {}) is None
