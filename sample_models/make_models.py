"""Make the sample models: small, really trained, in the layouts that people prune.

    python sample_models/make_models.py                    the four models and the images
    python sample_models/make_models.py --only digits_mlp  one of them
    python sample_models/make_models.py --mission PATH     the 28×28 CNN, random weights, anywhere

All take float32 images (n, 8, 8, 1) in [0, 1] and give ten class probabilities (n, 10). They were
trained on three quarters of scikit-learn's digits (1,347 of 1,797, stratified) with Keras 3.15.1
and TensorFlow 2.21 on a CPU; the accuracy is that on the last quarter, which is digits_test.npz
(`x`, and the digits `y` as int64). Each file holds Adam's slots, as files do that people trained.

    file                 layers                                           parameters  accuracy   kB
    digits_cnn.keras     Conv–BN–ReLU ×3, pool, Flatten, Dense, Dropout       44,354    0.9911  603
    digits_resnet.keras  three residual blocks, one strided shortcut          38,682    0.9889  590
    digits_mlp.keras     Sequential, three Dense                              11,386    0.9689  165
    digits_lstm.keras    the rows as time steps: LSTM, GRU                    19,146    0.9667  267
    digits_test.npz      450 images and their digits                                             18
    digits_train.npz     the 1,347 that the models were trained on                               52
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

if TYPE_CHECKING:
    import keras

HERE = Path(__file__).resolve().parent
CLASSES = 10
SEED = 7


class Digits(NamedTuple):
    """scikit-learn's digits in two parts. x: float32 (n, 8, 8, 1) in [0, 1]; y: int64 (n,)."""

    x_train: np.ndarray
    y_train: np.ndarray
    x_test: np.ndarray
    y_test: np.ndarray


def digits() -> Digits:
    """The digits that come with scikit-learn, a quarter of them held out, the same each time."""
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    x, y = load_digits(return_X_y=True)
    x = (x / 16).astype("float32").reshape(-1, 8, 8, 1)  # pixels are whole numbers from 0 to 16
    y = y.astype("int64")
    x_train, x_test, y_train, y_test = train_test_split(
        x, y, test_size=0.25, random_state=0, stratify=y
    )
    return Digits(x_train, y_train, x_test, y_test)


def digits_cnn() -> keras.Model:
    """Conv–BN–ReLU three times, then Flatten: each filter of conv_3 owns 4·4 rows of `hidden`."""
    import keras
    from keras import layers

    x = inputs = keras.Input((8, 8, 1), name="image")
    for i, filters in enumerate((16, 24, 32), start=1):
        x = layers.Conv2D(filters, 3, padding="same", name=f"conv_{i}")(x)
        x = layers.BatchNormalization(name=f"bn_{i}")(x)
        x = layers.ReLU(name=f"relu_{i}")(x)
        if i == 2:
            x = layers.MaxPooling2D(name="pool")(x)
    x = layers.Flatten(name="flatten")(x)
    x = layers.Dense(64, activation="relu", name="hidden")(x)
    x = layers.Dropout(0.3, name="dropout")(x)
    outputs = layers.Dense(CLASSES, activation="softmax", name="classes")(x)
    return keras.Model(inputs, outputs, name="digits_cnn")


def normalized_conv(x, name: str, filters: int, size: int = 3, strides: int = 1):
    """A Conv2D without a bias, and a BatchNormalization behind it."""
    from keras import layers

    x = layers.Conv2D(
        filters, size, strides=strides, padding="same", use_bias=False, name=f"{name}_conv"
    )(x)
    return layers.BatchNormalization(name=f"{name}_bn")(x)


def residual_block(x, name: str, filters: int, strides: int = 1):
    """Two convolutions and a sum; where the shape changes, the shortcut is a Conv2D as well."""
    from keras import layers

    shortcut = x
    if strides != 1 or x.shape[-1] != filters:
        shortcut = normalized_conv(x, f"{name}_shortcut", filters, size=1, strides=strides)
    x = normalized_conv(x, f"{name}_1", filters, strides=strides)
    x = layers.ReLU(name=f"{name}_1_relu")(x)
    x = normalized_conv(x, f"{name}_2", filters)
    x = layers.Add(name=f"{name}_add")([shortcut, x])
    return layers.ReLU(name=f"{name}_out")(x)


def digits_resnet() -> keras.Model:
    """Three residual blocks; the second halves the image, so its shortcut is a strided Conv2D."""
    import keras
    from keras import layers

    inputs = keras.Input((8, 8, 1), name="image")
    x = layers.ReLU(name="stem_relu")(normalized_conv(inputs, "stem", 16))
    x = residual_block(x, "block_1", 16)
    x = residual_block(x, "block_2", 32, strides=2)
    x = residual_block(x, "block_3", 32)
    x = layers.GlobalAveragePooling2D(name="pool")(x)
    outputs = layers.Dense(CLASSES, activation="softmax", name="classes")(x)
    return keras.Model(inputs, outputs, name="digits_resnet")


def digits_mlp() -> keras.Model:
    """Three Dense layers in a Sequential model."""
    import keras
    from keras import layers

    return keras.Sequential(
        [
            keras.Input((8, 8, 1), name="image"),
            layers.Flatten(name="flatten"),
            layers.Dense(96, activation="relu", name="hidden_1"),
            layers.Dense(48, activation="relu", name="hidden_2"),
            layers.Dense(CLASSES, activation="softmax", name="classes"),
        ],
        name="digits_mlp",
    )


def digits_lstm() -> keras.Model:
    """The eight rows of the image as eight time steps of eight features: LSTM, then GRU."""
    import keras
    from keras import layers

    inputs = keras.Input((8, 8, 1), name="image")
    x = layers.Reshape((8, 8), name="rows")(inputs)
    x = layers.LSTM(48, return_sequences=True, name="lstm")(x)
    x = layers.GRU(32, name="gru")(x)
    outputs = layers.Dense(CLASSES, activation="softmax", name="classes")(x)
    return keras.Model(inputs, outputs, name="digits_lstm")


class Recipe(NamedTuple):
    """How one sample is made."""

    build: Callable[[], keras.Model]
    epochs: int


RECIPES = {
    "digits_cnn": Recipe(digits_cnn, epochs=30),
    "digits_resnet": Recipe(digits_resnet, epochs=30),
    "digits_mlp": Recipe(digits_mlp, epochs=60),
    "digits_lstm": Recipe(digits_lstm, epochs=80),
}


def make_sample(name: str, folder: Path = HERE) -> str:
    """Build, train and save one sample as `folder/name.keras`.

    Seeded: the same versions on the same machine train the same weights. The file's bytes differ
    between runs, as Keras writes the date and memory addresses (`shared_object_id`) into it.

    Returns: a line about it: parameters, held-out accuracy, size.
    """
    import keras

    recipe, data = RECIPES[name], digits()
    keras.utils.set_random_seed(SEED)
    model = recipe.build()
    # Named, as Keras would number it after others of its process: adam_1, adam_2.
    adam = keras.optimizers.Adam(name="adam")
    model.compile(adam, loss="sparse_categorical_crossentropy", metrics=["accuracy"])
    model.fit(data.x_train, data.y_train, batch_size=32, epochs=recipe.epochs, verbose=0)
    accuracy = model.evaluate(data.x_test, data.y_test, verbose=0, return_dict=True)["accuracy"]
    path = folder / f"{name}.keras"
    model.save(path)
    return described(path, f"{model.count_params():>7,} parameters, accuracy {accuracy:.4f}")


def make_split(name: str, folder: Path = HERE) -> str:
    """Save a part of the digits, arrays `x` and `y`, as `folder/digits_train.npz` or `digits_test.npz`."""
    data, path = digits()._asdict(), folder / f"digits_{name}.npz"
    np.savez_compressed(path, x=data[f"x_{name}"], y=data[f"y_{name}"])
    return described(path, f"{len(data[f'y_{name}']):,} images 8×8 and their digits")


def mission_cnn(classes: int = 62, seed: int = 0) -> keras.Model:
    """The 28×28 CNN that kprune set out from; 1,690,046 parameters, 1,663,370 with 10 classes.

    Not trained and not compiled. All weights are random, biases too, since a bias of zeros would
    hide it when a bias is cut in the wrong place.

    Args:
        classes: units of the last layer; the 62 are digits, capital and small letters.
        seed: of the weights.
    """
    import keras
    from keras import layers

    # The names are those that Keras itself gives in a fresh process. Given explicitly, they do not
    # depend on what else was built before.
    model = keras.Sequential(
        [
            keras.Input((28, 28, 1), name="input_layer"),
            layers.Conv2D(32, 5, padding="same", activation="relu", name="conv2d"),
            layers.MaxPooling2D(name="max_pooling2d"),
            layers.Conv2D(64, 5, padding="same", activation="relu", name="conv2d_1"),
            layers.MaxPooling2D(name="max_pooling2d_1"),
            layers.Flatten(name="flatten"),
            layers.Dense(512, activation="relu", name="dense"),
            layers.Dense(classes, activation="softmax", name="dense_1"),
        ],
        name="sequential",
    )
    rng = np.random.default_rng(seed)
    for weight in model.weights:
        # He's scale keeps activations near 1 from layer to layer, so that the softmax is not flat.
        scale = (2 / np.prod(weight.shape[:-1])) ** 0.5 if len(weight.shape) > 1 else 0.1
        weight.assign(scale * rng.standard_normal(weight.shape, dtype="float32"))
    return model


def make_mission(path: Path) -> str:
    """Save the mission's CNN at `path`."""
    model = mission_cnn()
    model.save(path)
    return described(path, f"{model.count_params():,} parameters, random weights")


def described(path: Path, text: str) -> str:
    return f"{path.name:<20} {text}, {path.stat().st_size / 1e3:,.0f} kB"


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description="Make the sample models of kprune.")
    parser.add_argument(
        "--only", choices=[*RECIPES, "digits_train", "digits_test"], help="make just this one"
    )
    parser.add_argument(
        "--mission", metavar="PATH", type=Path, help="make just the 28×28 CNN, here"
    )
    options = parser.parse_args(arguments)

    # Read when TensorFlow is imported, below. The CPU is fast enough, and always the same one.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    os.environ["CUDA_VISIBLE_DEVICES"] = "-1"
    os.environ["KERAS_BACKEND"] = "tensorflow"

    if options.mission:
        print(make_mission(options.mission))
        return
    for split in ("train", "test"):
        if options.only in (None, f"digits_{split}"):
            print(make_split(split), flush=True)
    for name in RECIPES:
        if options.only in (None, name):
            print(make_sample(name), flush=True)


if __name__ == "__main__":
    main()
