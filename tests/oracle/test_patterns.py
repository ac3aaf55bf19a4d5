"""What people write between layers: gates, shuffles, shortcuts, sums, constants, contractions."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from keras import layers, ops

from kprune.errors import LastUnitError
from kprune.select.ranking.choice import Choice
from kprune.verbs.change import remove
from tests.oracle.law import assert_equal
from tests.oracle.zeroed import check_random_removal, several_draws

pytestmark = pytest.mark.oracle

RNG = np.random.default_rng(7)


def image(y: Callable[[Any], Any], channels: int = 8) -> Any:
    x = keras.Input((8, 8, 3))
    y = y(layers.Conv2D(channels, 3, padding="same", name="before")(x))
    return keras.Model(x, layers.Dense(2, name="out")(layers.Flatten()(y)))


def sequence(y: Callable[[Any], Any], width: int = 12) -> Any:
    x = keras.Input((6, 8))
    y = y(layers.Dense(width, name="before")(x))
    return keras.Model(x, layers.Dense(2, name="out")(layers.Flatten()(y)))


def constant(*shape: int) -> np.ndarray:
    return RNG.normal(size=shape).astype("float32")


def squeeze_and_excite(x: Any) -> Any:
    scores = ops.mean(x, axis=(1, 2), keepdims=True)
    scores = layers.Dense(8, "sigmoid")(layers.Dense(4, "relu", name="squeezed")(scores))
    return x * scores


def channel_shuffle(x: Any) -> Any:
    y = ops.transpose(ops.reshape(x, (-1, 8, 8, 2, 4)), (0, 1, 2, 4, 3))
    return layers.Conv2D(4, 3)(ops.reshape(y, (-1, 8, 8, 8)))


def pixel_shuffle(x: Any) -> Any:
    y = ops.transpose(ops.reshape(x, (-1, 8, 8, 2, 2, 2)), (0, 1, 3, 2, 4, 5))
    return layers.Conv2D(4, 3, strides=4)(ops.reshape(y, (-1, 16, 16, 2)))


def cifar_shortcut(x: Any) -> Any:
    """Half the size, twice the channels: the shortcut is pooled, and filled up with zeros."""
    shortcut = ops.pad(layers.AveragePooling2D(2)(x), [[0, 0], [0, 0], [0, 0], [4, 4]])
    return layers.Add()([shortcut, layers.Conv2D(16, 3, strides=2, padding="same")(x)])


def gate_by_split(x: Any) -> Any:
    value, gate = ops.split(layers.Dense(10, name="both")(x), 2, axis=-1)
    return value * ops.sigmoid(gate)


def gate_by_slice(x: Any) -> Any:
    both = layers.Dense(10, name="both")(x)
    return both[..., :5] * ops.tanh(both[..., 5:])


def stacked(x: Any) -> Any:
    y = ops.stack([x, layers.Dense(12)(x)], axis=2)
    y = ops.concatenate([ops.reshape(y, (-1, 6, 24)), x], axis=-1)
    return ops.tile(ops.repeat(y, 2, axis=-1), (1, 1, 2))


def unstacked(x: Any) -> Any:
    return ops.concatenate(ops.unstack(ops.reshape(x, (-1, 6, 3, 4)), axis=2), -1)


def moved(x: Any) -> Any:
    y = ops.flip(ops.roll(x, 3, axis=-1), axis=-1)
    return ops.take(y, [0, 3, 3, 5, 7, 11], axis=-1)


MODELS: dict[str, Callable[[], Any]] = {
    "squeeze and excite": lambda: image(squeeze_and_excite),
    "channel shuffle": lambda: image(channel_shuffle),
    "depth to space": lambda: image(lambda x: layers.Conv2D(4, 3)(ops.depth_to_space(x, 2))),
    "space to depth": lambda: image(lambda x: layers.Conv2D(4, 3)(ops.space_to_depth(x, 2))),
    "CIFAR's padded shortcut": lambda: image(cifar_shortcut),
    "a gate by split": lambda: sequence(gate_by_split),
    "a gate by slices": lambda: sequence(gate_by_slice),
    "a gated linear unit": lambda: sequence(lambda x: keras.activations.glu(layers.Dense(10)(x))),
    "constants": lambda: sequence(lambda x: (x + constant(12)) * constant(6, 12)),
    "a sum over units": lambda: sequence(lambda x: ops.sum(x, axis=-1, keepdims=True) * x),
    "moved about": lambda: sequence(moved),
    "stacked, repeated, tiled": lambda: sequence(stacked),
    "unstacked": lambda: sequence(unstacked),
    "an einsum of two": lambda: sequence(
        lambda x: layers.Dense(3)(ops.einsum("btd,bsd->bts", x, layers.Dense(12)(x)))
    ),
    "a product with a constant": lambda: sequence(lambda x: ops.matmul(x, constant(12, 5))),
    "a tensordot": lambda: sequence(lambda x: ops.tensordot(x, constant(12, 5), axes=1)),
    "expanded and squeezed": lambda: sequence(lambda x: ops.squeeze(ops.expand_dims(x, 2), 2)),
    "where and maximum": lambda: sequence(
        lambda x: ops.where(x > 0, x, x * 0.1) + ops.maximum(x, layers.Dense(12)(x))
    ),
    "axes moved, running sums": lambda: sequence(
        lambda x: ops.cumsum(ops.swapaxes(ops.moveaxis(x, 1, 2), 1, 2), axis=1)
    ),
    "mixed along time": lambda: sequence(
        lambda x: layers.Dense(4, "relu")(layers.Dense(5)(layers.Permute((2, 1))(x)))
    ),
    "groups after groups": lambda: image(
        lambda x: layers.Conv2D(4, 1)(
            layers.Conv2D(8, 3, groups=4)(layers.Conv2D(8, 3, groups=2)(x))
        )
    ),
    "depthwise after depthwise": lambda: image(
        lambda x: layers.SeparableConv2D(5, 3, depth_multiplier=2)(
            layers.DepthwiseConv2D(3, depth_multiplier=2)(x)
        )
    ),
    "spectral normalisation": lambda: sequence(
        lambda x: layers.SpectralNormalization(layers.Dense(5))(layers.UnitNormalization()(x))
    ),
}


@several_draws
@pytest.mark.parametrize("kind", MODELS)
def test_what_is_removed_equals_what_is_zeroed(seeds: tuple[int, ...], kind: str) -> None:
    outcome = check_random_removal(MODELS[kind](), seeds=seeds)
    assert not outcome.opaque
    assert "before" in outcome.report.changed


@pytest.mark.parametrize(
    "statistic",
    [
        lambda x: ops.mean(x, axis=-1, keepdims=True) * x,
        lambda x: ops.max(x, axis=-1, keepdims=True) + x,
        lambda x: ops.softmax(x, axis=-1),
        lambda x: ops.normalize(ops.exp(x), axis=-1),
    ],
    ids=["mean", "max", "softmax", "normalize"],
)
def test_a_statistic_over_units_is_said_to_change_the_rest(statistic: Callable[[Any], Any]) -> None:
    check_random_removal(sequence(statistic), exact=False)


@several_draws
def test_a_pixel_shuffle_keeps_blocks(seeds: tuple[int, ...]) -> None:
    """Four channels become four pixels of one: they go together or not at all."""
    outcome = check_random_removal(image(pixel_shuffle), seeds=seeds)
    assert not outcome.opaque
    assert outcome.report.changed["before"] in ([0, 2, 4, 6], [1, 3, 5, 7])


@pytest.mark.parametrize(
    "key", [(Ellipsis, 5), (Ellipsis, slice(2, 9)), (slice(None), Ellipsis, slice(3, None))]
)
def test_an_index_behind_an_ellipsis_follows_the_units_before_it(key: Any) -> None:
    """`x[..., 5]` is 4 once one of the units before it has gone; the ellipsis counts for one place in the config."""

    def pick(x: Any) -> Any:
        part = x[key]
        return part if len(part.shape) == 3 else ops.expand_dims(part, -1)

    check_random_removal(sequence(pick))


def test_a_share_leaves_something_of_every_part_of_a_split(tmp_path: Path) -> None:
    model = image(
        lambda x: ops.concatenate(
            [layers.Conv2D(4, 1, name=f"b{n}")(part) for n, part in enumerate(ops.split(x, 8, -1))]
        )
    )
    path, small = str(tmp_path / "m.keras"), str(tmp_path / "s.keras")
    model.save(path)
    report = remove(path, choice=Choice("l1", ratio=0.3), output=small)
    assert set(report.changed) == {f"b{n}" for n in range(8)}
    for name, gone in report.changed.items():
        for weight in model.get_layer(name).weights:
            weight.assign(np.where(np.isin(np.arange(4), gone), 0, weight.numpy()))
    rows = RNG.normal(size=(3, 8, 8, 3))
    assert_equal(keras.models.load_model(small)(rows).numpy(), model(rows).numpy())
    with pytest.raises(LastUnitError, match=r"(?m)'split.*' would have no units left$"):
        remove(path, {"before": [1]}, dry_run=True)
