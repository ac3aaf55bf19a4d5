"""Training goes on after a removal: the optimizer's state is cut along with its variables."""

from __future__ import annotations

import keras
import numpy as np
import pytest
from keras import layers, optimizers

from kprune.verbs.change import remove
from tests.oracle.law import randomize

pytestmark = pytest.mark.oracle

GONE = {"conv": [1, 4], "dense": [0, 7]}


def build(**options):
    return randomize(
        keras.Sequential(
            [
                keras.Input((6, 6, 2), name="image"),
                layers.Conv2D(6, 3, name="conv"),
                layers.BatchNormalization(name="bn"),
                layers.ReLU(),
                layers.Flatten(),
                layers.Dense(8, "relu", name="dense", **options),
                layers.Dense(3, name="out"),
            ]
        )
    )


# By the part of a weight's path behind the model: what is left of it.
CONV = np.array([0, 2, 3, 5])
DENSE = np.array([1, 2, 3, 4, 5, 6])
ROWS = (np.arange(16)[:, None] * 6 + CONV).ravel()  # 16 places, channels side by side
KEEP = {
    "conv/kernel": (None, None, None, CONV),
    "conv/bias": (CONV,),
    "bn/gamma": (CONV,),
    "bn/beta": (CONV,),
    "bn/moving_mean": (CONV,),
    "bn/moving_variance": (CONV,),
    "dense/kernel": (ROWS, DENSE),
    "dense/bias": (DENSE,),
    "out/kernel": (DENSE, None),
    "out/bias": (None,),
}


def short(weight):
    """Layer and name; a Sequential model puts its own name before them once it was called."""
    return "/".join(weight.path.split("/")[-2:])


def sliced(array, axes):
    for axis, keep in enumerate(axes):
        if keep is not None:
            array = array.take(keep, axis)
    return array


def data(steps=3):
    rng = np.random.default_rng(0)
    return rng.normal(size=(4 * steps, 6, 6, 2)).astype("float32"), rng.integers(0, 3, 4 * steps)


def trained(optimizer, **options):
    model = build(**options)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(optimizer, loss=loss, run_eagerly=True)
    model.fit(*data(), batch_size=4, verbose=0)
    return model


def pruned(model, folder):
    model.save(folder / "before.keras")
    report = remove(str(folder / "before.keras"), GONE, output=str(folder / "after.keras"))
    return report, keras.models.load_model(folder / "after.keras")


def slots(optimizer):
    """The state by name and variable: the optimizer keeps one list for each kind of slot."""
    optimizer = getattr(optimizer, "inner_optimizer", optimizer)
    variables = optimizer._trainable_variables
    found = {}
    for name, value in vars(optimizer).items():
        own = not name.startswith("_self_") and value is not variables and name != "_variables"
        if own and isinstance(value, list) and len(value) == len(variables):
            for variable, slot in zip(variables, value, strict=True):
                found[name, short(variable)] = np.asarray(keras.ops.convert_to_numpy(slot))
    return found


def check_slots(was, now):
    assert now.keys() == was.keys()
    for (name, path), array in now.items():
        axes = KEEP[path]
        if was[name, path].ndim < len(
            axes
        ):  # Adafactor: rows have lost the last axis, columns the one before
            axes = {"_r": axes[:-1], "_c": (*axes[:-2], axes[-1])}[name] if len(axes) > 1 else ()
        np.testing.assert_array_equal(
            array, sliced(was[name, path], axes), err_msg=f"{name} of {path}"
        )


def check_training_goes_on(model, folder, slotted=True):
    was = slots(model.optimizer)
    assert bool(was) == slotted
    report, small = pruned(model, folder)
    assert not [note for note in report.notes if note.kind == "optimizer"]
    whole = {short(weight): keras.ops.convert_to_numpy(weight) for weight in model.weights}
    for weight in small.weights:
        want = sliced(whole[short(weight)], KEEP[short(weight)])
        np.testing.assert_array_equal(
            keras.ops.convert_to_numpy(weight), want, err_msg=short(weight)
        )
    check_slots(was, slots(small.optimizer))
    assert int(small.optimizer.iterations) == int(model.optimizer.iterations) > 0
    small.run_eagerly = True
    before = [np.array(weight) for weight in small.get_weights()]
    history = small.fit(*data(), batch_size=4, verbose=0)
    assert np.isfinite(history.history["loss"]).all()
    assert any(not np.array_equal(a, b) for a, b in zip(before, small.get_weights(), strict=True))


OPTIMIZERS = {
    "SGD": lambda: optimizers.SGD(0.01),
    "SGD momentum": lambda: optimizers.SGD(0.01, momentum=0.9),
    "SGD nesterov": lambda: optimizers.SGD(0.01, momentum=0.9, nesterov=True),
    "RMSprop": lambda: optimizers.RMSprop(0.001),
    "RMSprop momentum": lambda: optimizers.RMSprop(0.001, momentum=0.9),
    "RMSprop centered": lambda: optimizers.RMSprop(0.001, momentum=0.9, centered=True),
    "Adam": lambda: optimizers.Adam(0.001),
    "Adam amsgrad": lambda: optimizers.Adam(0.001, amsgrad=True),
    "AdamW": lambda: optimizers.AdamW(0.001),
    "Nadam": lambda: optimizers.Nadam(0.001),
    "Adamax": lambda: optimizers.Adamax(0.001),
    "Adadelta": lambda: optimizers.Adadelta(0.1),
    "Ftrl": lambda: optimizers.Ftrl(0.01),
    "Lamb": lambda: optimizers.Lamb(0.001),
    "Adagrad": lambda: optimizers.Adagrad(0.01),
    "Lion": lambda: optimizers.Lion(0.001),
    # With its own epsilon_1 of 1e-30 Keras divides 0 by 0 here, pruned or not.
    "Adafactor": lambda: optimizers.Adafactor(0.001, epsilon_1=1e-12),
    "ema": lambda: optimizers.Adam(0.001, use_ema=True),
    "accumulation": lambda: optimizers.Adam(0.001, gradient_accumulation_steps=2),
    "ema and accumulation": lambda: optimizers.SGD(
        0.01, momentum=0.9, use_ema=True, gradient_accumulation_steps=2
    ),
    "schedule": lambda: optimizers.Adam(optimizers.schedules.ExponentialDecay(0.001, 10, 0.9)),
    "schedule, ema": lambda: optimizers.RMSprop(
        optimizers.schedules.CosineDecay(0.001, 10), use_ema=True
    ),
    "clipping": lambda: optimizers.Adam(0.001, clipnorm=1.0, weight_decay=1e-4),
    "loss scale": lambda: optimizers.LossScaleOptimizer(optimizers.Adam(0.001)),
    "loss scale, SGD": lambda: optimizers.LossScaleOptimizer(optimizers.SGD(0.01, momentum=0.9)),
    "loss scale, schedule": lambda: optimizers.LossScaleOptimizer(
        optimizers.Adam(optimizers.schedules.ExponentialDecay(0.001, 10, 0.9))
    ),
}


@pytest.mark.parametrize("kind", OPTIMIZERS)
def test_slots_are_cut_like_their_variables(tmp_path, kind):
    check_training_goes_on(trained(OPTIMIZERS[kind]()), tmp_path, slotted=kind != "SGD")


def test_sums_of_adafactor_may_have_a_length_that_no_weight_has(tmp_path):
    model = keras.Sequential(
        [keras.Input((5,)), layers.Dense(8, name="a"), layers.Dense(5, name="b")]
    )
    model.add(layers.Dense(2))
    model.compile(optimizers.Adafactor(0.001, epsilon_1=1e-12), loss="mse")
    model.optimizer.build(model.trainable_variables)
    model.save(tmp_path / "before.keras")
    remove(str(tmp_path / "before.keras"), {"b": [1]}, output=str(tmp_path / "after.keras"))
    assert keras.models.load_model(tmp_path / "after.keras").get_layer("b").units == 4


def test_frozen_layers_have_no_slots(tmp_path):
    model = build()
    model.get_layer("conv").trainable = False
    model.compile(optimizers.Adam(0.001), loss="mse", run_eagerly=True)
    rng = np.random.default_rng(0)
    model.fit(rng.normal(size=(8, 6, 6, 2)).astype("float32"), rng.normal(size=(8, 3)), verbose=0)
    was = slots(model.optimizer)
    assert was and not [path for _, path in was if path.startswith("conv")]
    report, small = pruned(model, tmp_path)
    assert not [note for note in report.notes if note.kind == "optimizer"]
    check_slots(was, slots(small.optimizer))


@pytest.fixture
def policy():
    """Sets the dtype policy for one test: Keras asks for it when it compiles, and when it loads."""
    yield keras.config.set_dtype_policy
    keras.config.set_dtype_policy("float32")


def test_mixed_precision_trains_on(tmp_path, policy):
    """`compile` wraps the optimizer by itself, and the file records the one that it was given."""
    policy("mixed_float16")
    model = trained("adam")
    assert isinstance(model.optimizer, optimizers.LossScaleOptimizer)
    check_training_goes_on(model, tmp_path)


def test_bfloat16_slots(tmp_path, policy):
    policy("bfloat16")
    check_training_goes_on(trained(optimizers.Adam(0.01)), tmp_path)


def test_an_optimizer_that_took_no_step_yet(tmp_path):
    model = build()
    model.compile(optimizers.Adam(0.001), loss="mse")
    _, small = pruned(model, tmp_path)
    assert small.optimizer.iterations == 0
    small.run_eagerly = True
    rng = np.random.default_rng(0)
    small.fit(rng.normal(size=(8, 6, 6, 2)).astype("float32"), rng.normal(size=(8, 3)), verbose=0)


def test_the_step_count_and_the_learning_rate_stay(tmp_path):
    model = trained(optimizers.Adam(0.00123))
    _, small = pruned(model, tmp_path)
    assert int(small.optimizer.iterations) == 3
    assert float(small.optimizer.learning_rate) == pytest.approx(0.00123)


def test_a_state_that_kprune_does_not_know_is_left_out_and_said(tmp_path):
    """Muon's layout depends on layer names and shapes."""
    model = trained(optimizers.Muon(0.001))
    report, small = pruned(model, tmp_path)
    (note,) = [note for note in report.notes if note.kind == "optimizer"]
    assert "Muon" in note.text and "new one" in note.text
    assert isinstance(small.optimizer, optimizers.Muon)
    small.run_eagerly = True
    small.fit(*data(), batch_size=4, verbose=0)


@keras.saving.register_keras_serializable("kprune_tests")
class Momentum(optimizers.SGD):
    """An optimizer of somebody's own."""


def test_the_state_of_somebodys_own_optimizer_is_left_out(tmp_path):
    report, small = pruned(trained(Momentum(0.01, momentum=0.9)), tmp_path)
    assert [note.kind for note in report.notes] == ["optimizer", "active"]
    assert isinstance(small.optimizer, Momentum)


def test_layers_of_equal_shape_keep_their_own_slots(tmp_path):
    """Slots are numbered in the order of the model's variables: the graph's, not the config's."""
    x = keras.Input((4,), name="x")
    p, q = layers.Dense(6, name="p")(x), layers.Dense(6, name="q")(x)
    out = layers.Dense(2, name="out")(layers.Concatenate()([p, layers.Dense(6, name="r")(q)]))
    model = randomize(keras.Model(x, out))
    model.compile(optimizers.Adam(0.01), loss="mse", run_eagerly=True)
    rng = np.random.default_rng(0)
    model.fit(rng.normal(size=(8, 4)).astype("float32"), rng.normal(size=(8, 2)), verbose=0)
    model.save(tmp_path / "before.keras")
    remove(
        str(tmp_path / "before.keras"),
        {"p": [0, 1], "q": [5]},
        output=str(tmp_path / "after.keras"),
    )
    was, now = (
        slots(keras.models.load_model(tmp_path / f"{name}.keras").optimizer)
        for name in ("before", "after")
    )
    for layer, kept in (("p", np.arange(2, 6)), ("q", np.arange(5))):
        for name in ("_momentums", "_velocities"):
            whole = was[name, f"{layer}/kernel"]
            assert whole.any()
            np.testing.assert_array_equal(now[name, f"{layer}/kernel"], whole[:, kept])
