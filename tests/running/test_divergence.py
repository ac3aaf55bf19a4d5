"""How far two models' outputs are apart, against what the formulas say in plain numpy."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from kprune.labels.labels import Labels
from kprune.running.divergence import (
    Divergence,
    Kind,
    OutputDivergence,
    divergence,
    kinds_of,
    over_units_left,
)

RNG = np.random.default_rng(0)
LOGITS = RNG.normal(size=(2, 50, 4))


def softmax(logits: np.ndarray) -> np.ndarray:
    shares = np.exp(logits)
    return np.asarray(shares / shares.sum(axis=-1, keepdims=True))


def sigmoid(logits: np.ndarray) -> np.ndarray:
    return np.asarray(1 / (1 + np.exp(-logits)))


def between(one: Any, other: Any, kind: Kind | None = None) -> OutputDivergence:
    kinds = {} if kind is None else {"out": kind}
    return divergence(["out"], [np.asarray(one)], [np.asarray(other)], kinds).outputs["out"]


def test_probabilities_of_classes_agree_where_the_largest_is_the_same() -> None:
    p, q = softmax(LOGITS)
    found = between(p, q)
    same = [int(np.argmax(a) == np.argmax(b)) for a, b in zip(p, q, strict=True)]
    assert found.agreement == sum(same) / 50
    assert found.kl == pytest.approx(np.mean(np.sum(p * np.log(p / q), axis=1)))
    assert found.relative_error == pytest.approx(
        np.sqrt(((p - q) ** 2).sum() / ((p - p.mean(0)) ** 2).sum())
    )


def test_logits_of_classes_are_compared_as_the_probabilities_that_they_mean() -> None:
    found, expected = between(*LOGITS, Kind.CLASS_LOGITS), between(*softmax(LOGITS))
    assert (found.agreement, found.kl) == (expected.agreement, pytest.approx(expected.kl))
    far = between(*(1e4 * LOGITS), Kind.CLASS_LOGITS)  # no exponential overflows
    assert far.kl is not None and math.isfinite(far.kl)


def test_answers_are_compared_one_by_one() -> None:
    p, q = sigmoid(LOGITS)
    found = between(p, q, Kind.ANSWERS)
    assert found.agreement == np.mean((p > 0.5) == (q > 0.5))
    kl = p * np.log(p / q) + (1 - p) * np.log((1 - p) / (1 - q))
    assert found.kl == pytest.approx(kl.mean())
    logits = between(*LOGITS, Kind.ANSWER_LOGITS)
    assert (logits.agreement, logits.kl) == (found.agreement, pytest.approx(found.kl))


def test_figures_have_a_relative_error_alone() -> None:
    one, other = LOGITS
    found = between(one, other)
    assert (found.agreement, found.kl) == (None, None)
    assert between(one + 100, other + 100).relative_error == pytest.approx(found.relative_error)
    assert between(one, np.broadcast_to(one.mean(axis=0), one.shape)).relative_error == 1


def test_equal_outputs_are_no_distance_apart() -> None:
    for kind in Kind:
        values = softmax(LOGITS[0])
        found = divergence(["out"], [values], [values], {"out": kind})
        assert found.distance == 0 and found.relative_error == 0
        assert found.agreement in (None, 1)


def test_a_model_that_is_sure_and_wrong_is_far_off_but_not_infinitely() -> None:
    found = between([[1.0, 0.0]], [[0.0, 1.0]])
    assert found.agreement == 0 and found.kl is not None and 10 < found.kl < 100


def test_what_is_no_number_agrees_with_nothing_and_is_the_worst() -> None:
    p, q = softmax(LOGITS)
    broken = divergence(["out"], [p], [np.full_like(q, np.nan)])
    assert broken.agreement == 0 and broken.distance == math.inf
    assert broken.worse(divergence(["out"], [p], [q]))


def test_several_outputs_are_ranked_by_the_mean_and_agree_no_more_than_the_least() -> None:
    p, q = softmax(LOGITS)
    one, other = LOGITS
    found = divergence(["kind", "size"], [p, one], [q, other])
    alone = between(p, q)
    assert found.agreement == alone.agreement and found.kl == alone.kl
    far = found.outputs["size"].relative_error
    assert found.distance == pytest.approx((alone.kl + far**2 / 2) / 2)
    nearer = divergence(["kind", "size"], [p, one], [q, (one + other) / 2])
    assert found.worse(nearer) and not nearer.worse(found)
    assert found.text.startswith("kind: ") and "size: relative error" in found.text
    assert found.to_dict()["outputs"]["kind"]["kl"] == alone.kl


def test_one_output_is_shown_without_its_name() -> None:
    shown = Divergence({"out": OutputDivergence(0.9921, 0.0123, 0.2)}).text
    assert shown == "99.21 % agree, KL 0.0123"


@pytest.mark.oracle
def test_activations_and_losses_tell_how_outputs_are_compared() -> None:
    import keras
    from keras import layers

    x = keras.Input((4,))
    y = layers.Dense(3)(x)
    inner = keras.Sequential([keras.Input((4,)), layers.Dense(3, "softmax")], name="inner")
    outputs = {
        "a": layers.Dense(3, "softmax", name="a")(x),
        "b": layers.Activation("sigmoid", name="b")(y),
        "c": layers.Softmax(name="c")(y),
        "d": inner(x),
        "e": layers.Dense(3, name="e")(x),
        "f": layers.Dense(1, name="f")(x),
        "g": layers.Dense(3, name="g")(x),
    }
    model = keras.Model(x, outputs)
    without = {"a": Kind.CLASSES, "b": Kind.ANSWERS, "c": Kind.CLASSES, "d": Kind.CLASSES}
    assert kinds_of(model) == without
    losses = {
        "e": keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        "f": keras.losses.BinaryCrossentropy(from_logits=True),
        "g": "mse",
    }
    model.compile("sgd", losses)
    logits = {"e": Kind.CLASS_LOGITS, "f": Kind.ANSWER_LOGITS}
    assert kinds_of(model) == without | logits
    assert kinds_of(
        keras.Sequential([keras.Input((4,)), layers.Dense(2, "softmax", name="z")])
    ) == {"z": Kind.CLASSES}


def test_probabilities_over_what_is_left_sum_to_one_along_their_own_axis() -> None:
    """Classes on axis 1, as in channels_first; places on the last axis are no probabilities."""
    values = np.random.default_rng(0).dirichlet(np.ones(4), (3, 5)).transpose(0, 2, 1)
    labels = Labels((None, 4, 5), (np.array([[[7], [8], [9], [10]]]),))
    gone = np.zeros(11, bool)
    gone[8] = True
    found, axes = over_units_left(values, labels, gone)
    wanted = np.delete(values, 1, axis=1)
    np.testing.assert_allclose(found, wanted / wanted.sum(axis=1, keepdims=True))
    assert axes == [-2]
    np.testing.assert_array_equal(over_units_left(3 * values, labels, gone)[0], 3 * wanted)
