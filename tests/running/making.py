"""Small models and data for them, in files; and all that training changes of a model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np


def small_problem(folder: Path) -> Path:
    """model.keras, which draws lots (dropout) and has a state (Adam's, BatchNormalization's), and data.npz."""
    import keras

    rng = np.random.default_rng(0)
    x = rng.normal(size=(200, 8)).astype("float32")
    y = (x[:, :4].sum(1) > x[:, 4:].sum(1)).astype("int64")
    np.savez(folder / "data.npz", x=x, y=y)
    keras.utils.set_random_seed(0)
    model = keras.Sequential(
        [
            keras.Input((8,)),
            keras.layers.Dense(16, "relu", name="hidden"),
            keras.layers.BatchNormalization(),
            keras.layers.Dropout(0.4),
            keras.layers.Dense(2, "softmax", name="classes"),
        ]
    )
    model.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
    model.fit(x, y, epochs=20, verbose=0)
    model.save(folder / "model.keras")
    return folder


def state(path: Path) -> list[np.ndarray]:
    """All that training changes, as plain Keras loads it."""
    import keras

    model = keras.models.load_model(path)
    return [np.asarray(value) for value in (*model.weights, *model.optimizer.variables)]


def small_model() -> Any:
    """Images in, four classes out; not compiled."""
    import keras
    from keras import layers

    return keras.Sequential(
        [
            keras.Input((6, 6, 3), name="image"),
            layers.Conv2D(6, 3, name="conv"),
            layers.BatchNormalization(name="bn"),
            layers.ReLU(name="relu"),
            layers.Flatten(),
            layers.Dense(8, "sigmoid", name="dense"),
            layers.Dense(4, "softmax", name="out"),
        ]
    )


def saved(model: Any, folder: Path, name: str = "original.keras") -> Path:
    """The model with random numbers in all of its weights, in a file."""
    from tests.oracle.law import randomize

    randomize(model).save(folder / name)
    return folder / name


def npz(folder: Path, **arrays: Any) -> Path:
    np.savez(folder / "data.npz", **arrays)
    return folder / "data.npz"
