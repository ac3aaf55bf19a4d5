"""A small problem that a small model learns in no time, and all that training changes of a model."""

from __future__ import annotations

from pathlib import Path

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
