"""Losses and metrics of a model without some classes: those that a user would write for it by hand.

Plain Keras is the judge: the pruned file is loaded and evaluated as it says itself, and a model of
the same weights is compiled by hand for the classes that are left. Class 1 of 5 goes nearly
everywhere, so that 0, 2, 3, 4 are counted 0, 1, 2, 3.
"""

from __future__ import annotations

import inspect
import re
import zipfile
from collections.abc import Callable
from typing import Any

import h5py
import keras
import numpy as np
import pytest
import tf_keras

import kprune
from tests.oracle.folding import randomised

pytestmark = pytest.mark.oracle

CLASSES = 5
RNG = np.random.default_rng(3)
X = RNG.normal(size=(64, 6)).astype("float32")
Y = RNG.integers(0, CLASSES, 64)
FORMATS = [(keras, "keras"), (tf_keras, "keras"), (tf_keras, "h5")]


def head(k: Any, width: int = CLASSES) -> Any:
    x = k.Input((6,))
    hidden = k.layers.Dense(4, activation="tanh", name="hidden")(x)
    return randomised(k.Model(x, k.layers.Dense(width, activation="softmax", name="cls")(hidden)))


def pruned(k: Any, model: Any, folder: Any, suffix: str, gone: Any) -> tuple[Any, Any]:
    """The report, and the model that plain Keras loads, compiled as its file says."""
    before, after = folder / f"model.{suffix}", folder / f"small.{suffix}"
    model.save(before)
    after.unlink(missing_ok=True)
    report = kprune.remove(before, gone if isinstance(gone, dict) else {"cls": gone}, output=after)
    return report, k.models.load_model(after)


def by_hand(k: Any, model: Any, build: Callable[..., Any], kept: list[int]) -> Any:
    """A smaller head with the weights of the classes that are left."""
    small = build(k, len(kept))
    *rest, kernel, bias = model.get_weights()
    small.set_weights([*rest, kernel[:, kept], bias[kept]])
    return small


def figures(model: Any, x: Any, y: Any) -> dict[str, float]:
    """What it is evaluated to; Keras 2 puts the output's name before a name of a metric once more with each saving."""
    model.run_eagerly = True
    found = model.evaluate(x, y, verbose=0, return_dict=True)
    return {re.sub(r"^(a_|b_)\1", r"\1", name): float(np.sum(v)) for name, v in found.items()}


def assert_same(got: dict[str, float], expected: dict[str, float]) -> None:
    assert set(got) == set(expected)
    for name, value in expected.items():
        assert got[name] == pytest.approx(value, rel=1e-4, abs=1e-6), name


def one_hot(k: Any, before: bool) -> dict[str, Any]:
    """Losses and metrics of rows, for five classes or, written by hand, for those that are left."""
    m, number, count = k.metrics, (lambda was, now: was if before else now), 5 if before else 4
    found = [
        "accuracy",
        "top_k_categorical_accuracy",
        m.Recall(class_id=number(3, 2), name="r"),
        m.Precision(class_id=number(4, 3), top_k=2, name="p"),
        m.Precision(top_k=number(5, 4), name="p_of_all"),
        m.OneHotIoU(count, target_class_ids=[1, 3] if before else [2], name="iou"),
        m.OneHotMeanIoU(count, name="mean_iou"),
        m.PrecisionAtRecall(0.5, class_id=number(2, 1), name="p_at_r"),
        m.SensitivityAtSpecificity(0.5, class_id=number(4, 3), name="s_at_s"),
        m.AUC(multi_label=True, num_labels=count, name="auc"),
        m.TopKCategoricalAccuracy(number(5, 4), name="top"),
        m.BinaryIoU(target_class_ids=[1], name="biou"),
        m.CategoricalAccuracy(name="ca"),
    ]
    alpha = [0.1, 0.9, 0.3, 0.2, 0.4] if before else [0.1, 0.3, 0.2, 0.4]
    loss = k.losses.CategoricalFocalCrossentropy(alpha=alpha, label_smoothing=0.1)
    if before:
        found.append(m.Recall(class_id=1, name="gone"))
    return {"loss": loss, "metrics": found, "weighted_metrics": [m.Recall(class_id=0, name="w")]}


def numbers(k: Any, before: bool) -> dict[str, Any]:
    """The same of class numbers, where class 4 is ignored."""
    m, ignored, count = k.metrics, 4 if before else 3, 5 if before else 4
    found = [
        "accuracy",
        "sparse_top_k_categorical_accuracy",
        m.SparseTopKCategoricalAccuracy(5 if before else 4, name="top"),
        m.MeanIoU(count, sparse_y_pred=False, ignore_class=ignored, name="mean_iou"),
        m.IoU(count, target_class_ids=[3 if before else 2], sparse_y_pred=False, name="iou"),
    ]
    if before:
        found.append(m.IoU(count, target_class_ids=[1], sparse_y_pred=False, name="gone"))
    loss = k.losses.SparseCategoricalCrossentropy(ignore_class=ignored)
    return {"loss": loss, "metrics": found}


@pytest.mark.parametrize(("k", "suffix"), FORMATS)
@pytest.mark.parametrize("said", [one_hot, numbers])
def test_a_file_without_a_class_is_judged_as_one_compiled_by_hand(k, suffix, said, tmp_path):
    model = head(k)
    model.compile("sgd", **said(k, True))
    rows = said is one_hot
    if k is tf_keras:  # it stores what its metrics have counted
        figures(model, X, np.eye(CLASSES)[Y] if rows else Y)
    report, small = pruned(k, model, tmp_path, suffix, [1])
    kept = [0, 2, 3, 4]
    expected = by_hand(k, model, head, kept)
    expected.compile("sgd", **said(k, False))
    left = np.isin(Y, kept)
    y = np.searchsorted(kept, Y[left])
    y = np.eye(4)[y] if rows else y
    assert_same(figures(small, X[left], y), figures(expected, X[left], y))
    said_of = [note.text for note in report.notes if note.kind == "compiled"]
    assert any("'gone' is left out" in text for text in said_of)


def two_heads(k: Any, width: int = CLASSES, other: int = 3) -> Any:
    x = k.Input((6,))
    hidden = k.layers.Dense(4, activation="tanh", name="hidden")(x)
    b = k.layers.Dense(other, activation="softmax", name="b")(hidden)
    a = k.layers.Dense(width, activation="softmax", name="a")(hidden)
    return randomised(k.Model(x, [b, a]))


def for_two(k: Any, form: str, before: bool) -> dict[str, Any]:
    """Losses and metrics of two outputs, `b` of three classes and `a` of five, given in several forms."""
    m, focal = k.metrics, k.losses.CategoricalFocalCrossentropy
    alpha = [0.1, 0.9, 0.3, 0.2, 0.4]
    loss_a = focal(alpha=alpha if before else [alpha[i] for i in (0, 2, 3, 4)])
    loss_b = focal(alpha=[0.3, 0.2, 0.1])
    of_a = ["accuracy", m.Recall(class_id=3 if before else 2, name="r")]
    of_b = [m.Recall(class_id=2, name="r")]
    if form == "names":
        metrics: Any = {"a": of_a, "b": of_b}
        return {
            "loss": {"a": loss_a, "b": loss_b},
            "metrics": metrics,
            "loss_weights": {"a": 2.0, "b": 0.5},
        }
    if form == "order":
        return {"loss": [loss_b, loss_a], "metrics": [of_b, of_a], "loss_weights": [2.0, 0.5]}
    assert form == "one for all"
    return {
        "loss": "categorical_crossentropy",
        "metrics": [[], of_a] if k is keras else [None, of_a],
    }


@pytest.mark.parametrize("form", ["names", "order", "one for all"])
@pytest.mark.parametrize(("k", "suffix"), FORMATS)
def test_each_output_is_judged_by_what_was_given_for_it(k, suffix, form, tmp_path):
    model = two_heads(k)
    model.compile("sgd", **for_two(k, form, True))
    ya, yb = np.eye(CLASSES)[Y], np.eye(3)[Y % 3]
    figures(model, X, [yb, ya])
    _, small = pruned(k, model, tmp_path, suffix, {"a": [1]})
    kept = [0, 2, 3, 4]
    expected = two_heads(k, 4)
    cut = [w[..., kept] if w.shape[-1] == CLASSES else w for w in model.get_weights()]
    expected.set_weights(cut)
    expected.compile("sgd", **for_two(k, form, False))
    left = np.isin(Y, kept)
    y = [yb[left], ya[left][:, kept]]
    assert_same(figures(small, X[left], y), figures(expected, X[left], y))


def test_one_loss_for_outputs_of_which_one_lost_classes_is_said_of_each(tmp_path):
    """Both outputs have five classes, and one loss with a weight for each."""
    focal = keras.losses.CategoricalFocalCrossentropy
    alpha = [0.1, 0.9, 0.3, 0.2, 0.4]
    model = two_heads(keras, CLASSES, CLASSES)
    model.compile("sgd", focal(alpha=alpha))
    _, small = pruned(keras, model, tmp_path, "keras", {"a": [1]})
    expected = two_heads(keras, 4, CLASSES)
    kept = [0, 2, 3, 4]
    for layer in ("hidden", "a", "b"):
        kernel, bias = model.get_layer(layer).get_weights()
        cut = [kernel[:, kept], bias[kept]] if layer == "a" else [kernel, bias]
        expected.get_layer(layer).set_weights(cut)
    expected.compile("sgd", {"b": focal(alpha=alpha), "a": focal(alpha=[alpha[i] for i in kept])})
    left = np.isin(Y, kept)
    y = [np.eye(CLASSES)[Y[left]], np.eye(CLASSES)[Y[left]][:, kept]]
    assert_same(figures(small, X[left], y), figures(expected, X[left], y))


@pytest.mark.parametrize("rows", [True, False])
@pytest.mark.parametrize(("k", "suffix"), FORMATS)
def test_over_one_class_accuracy_stays_that_of_classes(k, suffix, rows, tmp_path):
    """By the width alone Keras would take it for the accuracy of a yes or no."""
    model = head(k)
    loss = "categorical_crossentropy" if rows else "sparse_categorical_crossentropy"
    model.compile("sgd", loss, metrics=["accuracy"])
    figures(model, X, np.eye(CLASSES)[Y] if rows else Y)
    report, small = pruned(k, model, tmp_path, suffix, [0, 1, 2, 4])
    x = X[Y == 3]
    y = np.ones((len(x), 1)) if rows else np.zeros(len(x), int)
    assert figures(small, x, y)["accuracy"] == 1.0
    assert any("is 0 over one class" in note.text for note in report.notes)


@keras.saving.register_keras_serializable("compiled_tests")
class Weighted(keras.losses.Loss):
    """A loss of somebody's own, with options whose names may or may not say what they are."""

    def __init__(self, name="weighted", **options):
        super().__init__(name=name)
        self.options = options

    def call(self, y_true, y_pred):
        shares = self.options.get("class_weights", self.options.get("factors", 1.0))
        return keras.ops.mean(keras.ops.square(y_true - y_pred) * np.array(shares), axis=-1)

    def get_config(self):
        return {"name": self.name, **self.options}

    @classmethod
    def from_config(cls, config):
        return cls(**config)


def test_a_loss_of_somebodys_own_follows_by_its_options_name_or_takes_compile_along(tmp_path):
    shares = [0.1, 0.9, 0.3, 0.2, 0.4]
    kept = [0, 2, 3, 4]
    left = np.isin(Y, kept)
    y = np.eye(CLASSES)[Y[left]][:, kept]

    model = head(keras)
    model.compile("adam", Weighted(class_weights=shares), metrics=["accuracy"])
    _, small = pruned(keras, model, tmp_path, "keras", [1])
    expected = by_hand(keras, model, head, kept)
    expected.compile(
        "adam", Weighted(class_weights=[shares[i] for i in kept]), metrics=["accuracy"]
    )
    assert_same(figures(small, X[left], y), figures(expected, X[left], y))

    model.compile("adam", Weighted(factors=shares))
    model.fit(X, np.eye(CLASSES)[Y], verbose=0)
    report, small = pruned(keras, model, tmp_path, "keras", [1])
    assert not small.compiled
    (said,) = (note.text for note in report.notes if note.kind == "compiled")
    assert "the loss 'weighted' has an option 'factors'" in said
    with (
        zipfile.ZipFile(tmp_path / "small.keras") as file,
        file.open("model.weights.h5") as weights,
    ):
        assert "optimizer" not in h5py.File(weights)


def test_an_ignored_class_that_goes_is_still_ignored_where_its_number_is_free(tmp_path):
    model = head(keras)
    for ignored, left in ((4, 4), (0, None), (255, 255), (-1, -1)):
        loss = keras.losses.SparseCategoricalCrossentropy(ignore_class=ignored)
        model.compile("sgd", loss)
        _, small = pruned(keras, model, tmp_path, "keras", [ignored] if 0 <= ignored < 5 else [2])
        assert small.get_compile_config()["loss"]["config"]["ignore_class"] == left


def test_a_nested_model_that_was_compiled_itself_follows_its_own_outputs(tmp_path):
    inner = randomised(
        keras.Sequential([keras.Input((6,)), keras.layers.Dense(5, name="q")], name="inner")
    )
    inner.compile("sgd", keras.losses.CategoricalFocalCrossentropy(alpha=[0.1, 0.9, 0.3, 0.2, 0.4]))
    x = keras.Input((6,))
    model = keras.Model(x, keras.layers.Dense(2, name="last")(inner(x)))
    _, small = pruned(keras, model, tmp_path, "keras", {"inner/q": [1]})
    loss = small.get_layer("inner").get_compile_config()["loss"]
    assert loss["config"]["alpha"] == [0.1, 0.3, 0.2, 0.4]


def test_what_says_nothing_of_classes_stays_byte_for_byte(tmp_path):
    model = head(keras)
    model.compile("adam", "mse", metrics=["mae", "accuracy"], loss_weights=[2.0])
    report, small = pruned(keras, model, tmp_path, "keras", [1])
    assert not [note for note in report.notes if note.kind == "compiled"]
    assert (
        small.get_compile_config()
        == keras.models.load_model(tmp_path / "model.keras").get_compile_config()
    )


@pytest.mark.parametrize(("k", "suffix"), [*FORMATS, (keras, "h5")])
def test_verify_gives_the_figures_of_plain_keras(k, suffix, tmp_path):
    model = head(k)
    metrics = [k.metrics.Recall(class_id=3, name="r"), k.metrics.OneHotMeanIoU(CLASSES, name="iou")]
    model.compile("sgd", k.losses.CategoricalCrossentropy(label_smoothing=0.1), metrics=metrics)
    rows = np.eye(CLASSES)[Y]
    figures(model, X, rows)
    report, small = pruned(k, model, tmp_path, suffix, [1])
    np.savez(tmp_path / "d.npz", x=X, y=rows)
    found = kprune.verify(report.input.path, report.output.path, data=tmp_path / "d.npz")
    left = Y != 1
    assert found.passed and found.metrics is not None
    assert_same(found.metrics["before"], figures(model, X[left], rows[left]))
    assert_same(found.metrics["after"], figures(small, X[left], rows[left][:, [0, 2, 3, 4]]))


REVIEWED = set(
    "alpha apply_class_balancing average axis beta class_aggregation class_id curve delta dtype fn "
    "from_logits from_sorted_ids gamma ignore_class k kwargs label_smoothing label_weights margin "
    "multi_label name normalizer num_classes num_labels num_regressors num_thresholds precision q "
    "recall reduction remove_diagonal self sensitivity shape sparse_y_pred sparse_y_true specificity "
    "summation_method target_class_ids threshold thresholds top_k".split()
)


def test_every_option_of_keras_losses_and_metrics_was_looked_at():
    """One that is new may count classes: then it belongs into the table of those that do."""
    for k in (keras, tf_keras):
        for room, base in ((k.losses, k.losses.Loss), (k.metrics, k.metrics.Metric)):
            for held in vars(room).values():
                if isinstance(held, type) and issubclass(held, base):
                    options = set(inspect.signature(held.__init__).parameters)
                    assert options <= REVIEWED, (held, options - REVIEWED)


def test_a_class_that_is_counted_from_the_end_stays_that_class(tmp_path):
    model = head(keras)
    model.compile("sgd", "mse", metrics=[keras.metrics.Recall(class_id=-2, name="r")])
    _, small = pruned(keras, model, tmp_path, "keras", [4])
    assert small.get_compile_config()["metrics"][0]["config"]["class_id"] == 3
