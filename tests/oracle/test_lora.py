"""Adapters of LoRA: a `.keras` file has them within the kernels, a legacy `.h5` beside them."""

from __future__ import annotations

import zipfile

import h5py
import keras
import numpy as np
import pytest
from keras import layers

import kprune
from tests.oracle.folding import randomised

pytestmark = pytest.mark.oracle

RNG = np.random.default_rng(5)
UNITS = 6
GONE, KEPT = [1, 4], [0, 2, 3, 5]


def network(kind: str, width: int = UNITS) -> keras.Model:
    """A layer of `width` units with adapters, and a reader of them that has adapters as well."""
    if kind == "Conv2D":
        x = keras.Input((5, 5, 3))
        y = layers.GlobalAveragePooling2D()(layers.Conv2D(width, 3, name="made")(x))
    elif kind == "Embedding":
        x = keras.Input((4,), dtype="int32")
        y = layers.GlobalAveragePooling1D()(layers.Embedding(9, width, name="made")(x))
    elif kind == "EinsumDense":
        x = keras.Input((7,))
        y = layers.EinsumDense("ab,bc->ac", output_shape=width, bias_axes="c", name="made")(x)
    else:
        x = keras.Input((7,))
        y = layers.Dense(width, activation="tanh", name="made")(x)
    model = randomised(keras.Model(x, layers.Dense(3, name="read")(y)))
    for name in ("made", "read"):
        model.get_layer(name).enable_lora(2)
    return model


def inputs(model: keras.Model) -> np.ndarray:
    shape = (12, *model.inputs[0].shape[1:])
    whole = "int" in model.inputs[0].dtype
    return RNG.integers(0, 9, shape) if whole else RNG.normal(size=shape).astype("float32")


@pytest.mark.parametrize("suffix", ["keras", "h5"])
@pytest.mark.parametrize("kind", ["Dense", "Conv2D", "EinsumDense", "Embedding"])
def test_a_layer_with_adapters_loses_units_as_any_other_and_is_counted_as_keras_counts(
    kind, suffix, tmp_path
):
    model = network(kind)
    model.compile("adam", "mse")
    x = inputs(model)
    model.fit(x, RNG.normal(size=(12, 3)), epochs=2, verbose=0)
    before, after = tmp_path / f"model.{suffix}", tmp_path / f"small.{suffix}"
    model.save(before)
    report = kprune.remove(before, {"made": GONE}, output=after)
    small = keras.models.load_model(after, compile=suffix == "keras")

    # The original whose reader takes nothing from the units that went, in plain Keras.
    reader = model.get_layer("read")
    for part in (reader._kernel, reader.lora_kernel_a):
        value = part.numpy()
        value[GONE] = 0
        part.assign(value)
    np.testing.assert_allclose(small(x), model(x), rtol=1e-4, atol=1e-5)
    assert report.input.parameters == model.count_params()
    assert report.output.parameters == small.count_params()
    trained = sum(int(np.prod(variable.shape)) for variable in small.trainable_variables)
    assert report.output.trainable_parameters == trained
    found = kprune.verify(before, after)
    assert found.passed and not found.notes

    if suffix == "keras":  # of a legacy file Keras 3 restores no slots
        slots = [np.asarray(variable) for variable in model.optimizer.variables]
        for old, new in zip(slots, small.optimizer.variables, strict=True):
            cut = old
            for axis, (size, now) in enumerate(zip(old.shape, new.shape, strict=True)):
                cut = cut if size == now else cut.take(KEPT, axis)
            np.testing.assert_array_equal(new, cut)


def test_zeroed_units_with_adapters_give_what_their_activation_makes_of_0(tmp_path):
    for suffix in ("keras", "h5"):
        model, file = network("Dense"), tmp_path / f"model.{suffix}"
        model.get_layer("made").lora_kernel_b.assign(RNG.normal(size=(2, UNITS)))
        model.save(file)
        kprune.zero(file, {"made": GONE}, output=tmp_path / f"zeroed.{suffix}")
        zeroed = keras.models.load_model(tmp_path / f"zeroed.{suffix}", compile=False)
        hidden = keras.Model(zeroed.inputs, zeroed.get_layer("made").output)(inputs(model))
        assert not np.asarray(hidden)[:, GONE].any() and np.asarray(hidden)[:, KEPT].all()


def test_units_that_only_the_kernel_has_at_zero_are_not_dead(tmp_path):
    """In a legacy file the adapters add to the kernel, which by itself says little."""
    model = network("Dense")
    made = model.get_layer("made")
    kernel, bias = made._kernel.numpy(), made.bias.numpy()
    kernel[:, GONE], bias[GONE] = 0, 0
    made._kernel.assign(kernel)
    made.bias.assign(bias)
    made.lora_kernel_b.assign(RNG.normal(size=(2, UNITS)))
    model.save(tmp_path / "model.h5")
    report = kprune.compact(tmp_path / "model.h5", output=tmp_path / "small.h5")
    assert not report.changed
    with pytest.raises(kprune.CannotPruneError, match="LoRA") as refused:
        kprune.remove(tmp_path / "model.h5", {"made": [0]}, output=tmp_path / "small.keras")
    assert "LoRA" in str(refused.value)


def test_a_grouped_convolution_with_adapters_keeps_its_inputs_and_loses_filters(tmp_path):
    """Its adapters are of all groups, which may lose different inputs each."""
    x = keras.Input((5, 5, 3))
    y = layers.Conv2D(8, 3, groups=2, name="grouped")(layers.Conv2D(4, 1, name="before")(x))
    model = randomised(keras.Model(x, layers.Dense(2)(layers.GlobalMaxPooling2D()(y))))
    model.get_layer("grouped").enable_lora(2)
    model.save(tmp_path / "model.keras")
    small = tmp_path / "small.keras"
    kprune.remove(tmp_path / "model.keras", {"grouped": [1, 5]}, output=small)
    assert kprune.verify(tmp_path / "model.keras", small).passed
    with pytest.raises(kprune.CannotPruneError, match="cannot remove unit 1 of 'before'"):
        kprune.remove(tmp_path / "model.keras", {"before": [1]}, output=small, force=True)


def test_tuning_says_that_adapters_do_not_learn_from_a_file(tmp_path):
    model = network("Dense")
    model.compile("adam", "mse")
    model.save(tmp_path / "model.keras")
    x, y = inputs(model), RNG.normal(size=(12, 3))
    np.savez(tmp_path / "d.npz", x=x, y=y)
    loaded = keras.models.load_model(tmp_path / "model.keras")
    loaded.fit(x, y, verbose=0)  # as plain Keras has it
    assert not np.asarray(loaded.get_layer("made").lora_kernel_b).any()
    found = kprune.tune(
        tmp_path / "model.keras", data=tmp_path / "d.npz", output=tmp_path / "t.keras", epochs=1
    )
    assert any("LoRA" in note.text for note in found.notes)
    assert kprune.inspect(tmp_path / "t.keras").carries.adapters == ["made", "read"]
    with zipfile.ZipFile(tmp_path / "t.keras") as file, file.open("model.weights.h5") as weights:
        assert len(h5py.File(weights)["layers/dense/vars"]) == 2
