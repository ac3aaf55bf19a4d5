"""What is computed of element-wise functions, with the parameters of one call."""

from __future__ import annotations

import numpy as np

from kprune.elementwise.facts import ANYTHING, ZERO, gives_zero, homogeneous, keeps_zero, names
from kprune.elementwise.table import ACTIVATION, FUNCTIONS, LAYER, OPERATION, TENSORFLOW


def test_a_parameter_decides_whether_zero_stays_zero():
    assert keeps_zero(OPERATION, "Clip", {"x_min": 0, "x_max": 6})
    assert not keeps_zero(OPERATION, "Clip", {"x_min": 1, "x_max": 6})
    assert keeps_zero(LAYER, "ReLU", {"max_value": 6.0})
    assert not keeps_zero(LAYER, "ReLU", {"negative_slope": 0.1, "threshold": 0.5})
    assert not keeps_zero(OPERATION, "Threshold", {"threshold": 1.0, "default_value": 2.0})
    assert keeps_zero(OPERATION, "Threshold", {"threshold": 1.0, "default_value": 0.0})


def test_a_parameter_that_is_no_number_decides_nothing():
    assert not keeps_zero(OPERATION, "Clip", {"x_min": {"class_name": "?"}, "x_max": [1, 2]})
    assert keeps_zero(
        LAYER, "ReLU", {"max_value": {"class_name": "__numpy__", "config": {"value": 6.0}}}
    )


def test_a_constant_operand_decides_as_well():
    assert gives_zero(OPERATION, "Greater", [ZERO, 0.5])
    assert not gives_zero(OPERATION, "Greater", [ZERO, -0.5])
    assert gives_zero(OPERATION, "Power", [ZERO, 2])
    assert not gives_zero(OPERATION, "Power", [ZERO, 0])
    assert gives_zero(TENSORFLOW, "ClipByValue", [ZERO, 0.0, 6.0])
    assert not gives_zero(TENSORFLOW, "ClipByValue", [ZERO, 0.5, 6.0])
    assert gives_zero(OPERATION, "Maximum", [ZERO, np.array([-1.0, 0.0, -2.0])])
    assert not gives_zero(OPERATION, "Maximum", [ZERO, np.array([-1.0, 0.1])])


def test_a_product_with_zero_is_zero_whatever_the_other_factor_is():
    assert gives_zero(OPERATION, "Multiply", [ZERO, ANYTHING])
    assert gives_zero(TENSORFLOW, "Mul", [ANYTHING, ZERO])
    assert gives_zero(OPERATION, "Divide", [ZERO, ANYTHING])
    assert not gives_zero(OPERATION, "Divide", [ZERO, ZERO])
    assert not gives_zero(OPERATION, "Divide", [ANYTHING, ZERO])
    assert not gives_zero(OPERATION, "Add", [ZERO, ANYTHING])
    assert not gives_zero(OPERATION, "Equal", [ZERO, ANYTHING])
    assert not gives_zero(OPERATION, "Maximum", [ZERO, ANYTHING])
    assert not gives_zero(OPERATION, "Power", [ZERO, ANYTHING])
    assert gives_zero(OPERATION, "Where", [ANYTHING, ZERO, ZERO])


def test_a_positive_factor_passes_through_what_is_homogeneous():
    passing = {name for name in names(ACTIVATION) if homogeneous(ACTIVATION, name)}
    assert passing == {"linear", "relu", "leaky_relu"}
    assert homogeneous(LAYER, "LeakyReLU", {"negative_slope": 0.7})
    assert not homogeneous(LAYER, "ReLU", {"max_value": 6.0})
    assert not homogeneous(OPERATION, "LogicalNot")
    assert not homogeneous(OPERATION, "Multiply")


def test_keras_and_tensorflow_names_of_one_function_agree():
    """A function's row is its only place, so two ways can differ only where two rows do."""
    formulas: dict[object, set[bool]] = {}
    for kind in (OPERATION, TENSORFLOW):
        for name in names(kind):
            known = FUNCTIONS[kind][name]
            zeros = [ZERO] * (known.name.operands or 2)
            if not known.name.parameters and not known.name.defaults:
                formulas.setdefault(known.formula, set()).add(gives_zero(kind, name, zeros))
    assert all(len(answers) == 1 for answers in formulas.values())
