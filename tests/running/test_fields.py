"""Noise in the place of data: smooth where space and time are, and of the mean and spread that the model knows."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import pytest
from keras import layers

from kprune.errors import CannotPruneError
from kprune.running.fields import Fields, field_inputs, unit_fields

pytestmark = pytest.mark.oracle


def of(shape: tuple[int | None, ...], *first: Any, **how: Any) -> Any:
    """A model that begins with some layers."""
    x = y = keras.Input(shape, **how)
    for layer in first:
        y = layer(y)
    return keras.Model(x, y)


def alike(values: np.ndarray, axis: int) -> float:
    """The correlation of neighbours along an axis."""
    along = np.moveaxis(values, axis, 0)
    return float(np.corrcoef(along[1:].ravel(), along[:-1].ravel())[0, 1])


def test_the_same_seed_draws_the_same_inputs() -> None:
    model = of((8, 8, 3), layers.Conv2D(4, 3))
    first, again, other = (field_inputs(model, 5, seed) for seed in (1, 1, 2))
    np.testing.assert_array_equal(first, again)
    assert first.shape == (5, 8, 8, 3) and first.dtype == np.float32
    assert not np.array_equal(first, other)


@pytest.mark.parametrize(("sizes", "channels"), [((20, 30, 3), 2), ((3, 20, 30), 0), ((40, 6), 1)])
def test_fields_are_smooth_along_space_and_time_alone(
    sizes: tuple[int, ...], channels: int
) -> None:
    rng = np.random.default_rng(0)
    made = unit_fields(rng, 400, sizes, channels, Fields(drift=0.0, shared=0.25))
    assert abs(made.mean()) < 0.05 and abs(made.std() - 1) < 0.05
    for axis in range(len(sizes)):
        if axis == channels:
            assert alike(made, axis + 1) == pytest.approx(0.25, abs=0.06)
        else:
            assert alike(made, axis + 1) > 0.7


def test_the_longest_wave_and_the_octaves_are_as_asked_for() -> None:
    def smoothness(**how: Any) -> float:
        rng = np.random.default_rng(0)
        return alike(unit_fields(rng, 300, (32, 32, 1), 2, Fields(drift=0.0, **how)), 1)

    assert smoothness(longest=0.02) < smoothness(longest=0.1) < smoothness(longest=0.5)
    assert smoothness(octaves=4, roughness=0.9) < smoothness(octaves=1)


def test_a_vector_is_plain_noise() -> None:
    made = field_inputs(of((50,), layers.Dense(4)), 400, 0)
    assert abs(made.mean()) < 0.02 and abs(made.std() - 1) < 0.02
    assert abs(alike(made, 1)) < 0.02


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("kernel", ["conv", "dense"])
def test_a_batch_normalization_behind_the_first_kernel_tells_mean_and_spread(
    channels: int, kernel: str
) -> None:
    """Trained on other noise, of which the fields know nothing but this."""
    keras.utils.set_random_seed(2)
    mean, spread = np.array([3.0, -1.0, 0.5])[:channels], 2.5
    shape = (9, 9, channels) if kernel == "conv" else (channels,)
    data = mean + spread * unit_fields(np.random.default_rng(7), 300, shape, len(shape) - 1)
    first = layers.Conv2D(12, 3, padding="same") if kernel == "conv" else layers.Dense(12)
    norm = layers.BatchNormalization(momentum=0.0)
    model = of(shape, first, norm, layers.ReLU())
    first.bias.assign(np.linspace(-2, 2, 12))
    model(data, training=True)
    made = field_inputs(model, 300, 0)
    np.testing.assert_allclose(
        made.reshape(-1, channels).mean(axis=0), mean, atol=0.12 * spread + 0.1
    )
    assert made.reshape(-1, channels).std(axis=0) == pytest.approx(
        np.full(channels, spread), rel=0.25
    )


def test_layers_that_scale_inputs_say_their_range_or_their_mean_and_spread() -> None:
    bytes_ = field_inputs(of((8, 8, 3), layers.Rescaling(1 / 255), layers.Conv2D(2, 3)), 64, 0)
    assert bytes_.min() == 0 and bytes_.max() == pytest.approx(255) and 60 < bytes_.mean() < 140
    around = field_inputs(
        of((8, 8, 3), layers.Rescaling(1 / 127.5, offset=-1), layers.Conv2D(2, 3)), 64, 0
    )
    assert around.min() == 0 and around.max() == pytest.approx(255)
    normal = layers.Normalization(mean=[5.0, -2.0], variance=[9.0, 0.25])
    known = field_inputs(of((16, 2), normal, layers.Conv1D(2, 3)), 300, 0).reshape(-1, 2)
    np.testing.assert_allclose(known.mean(axis=0), [5, -2], atol=0.3)
    np.testing.assert_allclose(known.std(axis=0), [3, 0.5], rtol=0.1)


def test_images_of_which_nothing_is_known_lie_between_0_and_1() -> None:
    made = field_inputs(of((8, 8, 1), layers.Flatten(), layers.Dense(2)), 64, 0)
    assert made.min() == 0 and made.max() == 1


def test_channels_may_stand_first() -> None:
    model = of((3, 16, 18), layers.Conv2D(2, 3, data_format="channels_first"))
    made = field_inputs(model, 100, 0, Fields(drift=0.0, shared=0.0))
    assert alike(made, 2) > 0.6 and alike(made, 3) > 0.6 and abs(alike(made, 1)) < 0.1


def test_what_a_nested_model_begins_with_counts() -> None:
    inner = of((8, 8, 3), layers.Rescaling(1 / 255), layers.Conv2D(2, 3))
    assert field_inputs(of((8, 8, 3), inner, layers.Flatten()), 8, 0).max() == pytest.approx(255)


def test_a_model_that_takes_whole_batches_or_open_sizes_gets_them() -> None:
    x = keras.Input(batch_shape=(4, None, None, 3))
    assert field_inputs(keras.Model(x, layers.Conv2D(2, 3)(x)), 6, 0).shape == (4, 64, 64, 3)


@pytest.mark.parametrize(
    ("dtype", "layer", "what"),
    [
        ("int32", layers.Embedding(9, 2), "tokens"),
        ("float32", layers.Embedding(9, 2), "tokens"),
        ("int32", layers.Rescaling(0.5), "integers"),
        ("string", layers.TextVectorization(vocabulary=["a", "b"]), "tokens"),
        ("bool", layers.Flatten(), "booleans"),
    ],
)
def test_noise_is_no_token_and_no_text(dtype: str, layer: Any, what: str) -> None:
    shape = (1,) if dtype == "string" else (5,)
    model = of(shape, layer, dtype=dtype, name="words")
    with pytest.raises(CannotPruneError, match="no inputs can be made up for 'words'") as refused:
        field_inputs(model, 4, 0)
    assert what in refused.value.why and "--data" in refused.value.do


def test_of_many_fields_the_surest_of_every_class_are_used() -> None:
    keras.utils.set_random_seed(0)
    x = keras.Input((6, 6, 1))
    outputs = layers.Dense(4, "softmax", kernel_initializer="normal")(layers.Flatten()(x))
    model = keras.Model(x, outputs)

    def given(candidates: int) -> np.ndarray:
        return np.asarray(model(field_inputs(model, 80, 0, Fields(candidates=candidates))))

    drawn, chosen = given(1), given(8)
    assert len(drawn) == len(chosen) == 80
    counts = [np.bincount(shares.argmax(axis=1), minlength=4) for shares in (drawn, chosen)]
    assert counts[1].min() > counts[0].min() and counts[1].max() < 0.6 * counts[0].max()
    most = int(counts[0].argmax())
    sure = [shares[shares.argmax(axis=1) == most, most] for shares in (drawn, chosen)]
    assert sure[1].mean() > sure[0].mean()
