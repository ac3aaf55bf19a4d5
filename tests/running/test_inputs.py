"""What models are run on: inputs of every kind, drawn at random or read from a file that fits them."""

from __future__ import annotations

import keras
import numpy as np
import pytest
from keras import layers

from kprune.errors import FileError, UsageError
from kprune.verbs.change import remove
from kprune.verification.verify import verify
from tests.running.making import npz, saved

pytestmark = pytest.mark.oracle


def test_several_inputs_of_every_kind(tmp_path, small):
    words = keras.Input((None,), dtype="int32", name="words")
    image = keras.Input((None, None, 2), name="image")
    numbers = keras.Input((3,), name="numbers")
    flags = keras.Input((2,), dtype="bool", name="flags")
    a = layers.GlobalAveragePooling1D()(layers.Embedding(4, 6, name="embedding")(words))
    b = layers.GlobalAveragePooling2D()(layers.Conv2D(6, 3, name="conv")(image))
    c = layers.Concatenate()([layers.Add()([a, b]), numbers, keras.ops.cast(flags, "float32")])
    path = saved(
        keras.Model([words, image, numbers, flags], layers.Dense(2, name="out")(c)), tmp_path
    )
    remove(str(path), {"conv": [1]}, output=str(small))
    assert verify(path, small, samples=3).passed
    arrays = {
        "words": np.zeros((2, 5), int),
        "image": np.ones((2, 9, 9, 2)),
        "numbers": np.ones((2, 3)),
        "flags": np.ones((2, 2), bool),
    }
    assert verify(path, small, data=npz(tmp_path, **arrays)).samples == 2
    del arrays["numbers"]
    with pytest.raises(UsageError, match="no array 'numbers'"):
        verify(path, small, data=npz(tmp_path, **arrays))


def test_inputs_in_a_dict(tmp_path, small):
    x, y = keras.Input((4,), name="one"), keras.Input((3,), name="two")
    a = layers.Add()([layers.Dense(6, name="a")(x), layers.Dense(6, name="b")(y)])
    path = saved(
        keras.Model({"second": y, "first": x}, {"z": layers.Dense(2, name="out")(a)}), tmp_path
    )
    remove(str(path), {"a": [1]}, output=str(small))
    assert verify(path, small, samples=3).passed
    data = npz(tmp_path, first=np.ones((2, 4)), second=np.ones((2, 3)))
    assert verify(path, small, data=data).samples == 2


def test_tokens_stay_below_what_the_embedding_holds(tmp_path):
    words = keras.Input((50,), dtype="int32")
    y = layers.Embedding(3, 4)(layers.Identity()(words))
    path = saved(keras.Model(words, layers.Flatten()(y)), tmp_path)
    assert verify(path, path, samples=20).passed


def test_a_fixed_batch(tmp_path, small):
    model = keras.Sequential(
        [
            keras.Input((4, 3), batch_size=3),
            layers.LSTM(6, stateful=True, name="a"),
            layers.Dense(2),
        ]
    )
    path = saved(model, tmp_path)
    remove(str(path), {"a": [1]}, output=str(small))
    found = verify(path, small, samples=8)
    assert found.passed and found.samples == 6


def test_greyscale_images_come_without_a_channel_axis(tmp_path):
    path = saved(
        keras.Sequential([keras.Input((6, 6, 1)), layers.Flatten(), layers.Dense(2)]), tmp_path
    )
    assert verify(path, path, data=npz(tmp_path, x=np.ones((3, 6, 6)))).samples == 3


# -- what does not fit ----------------------------------------------------------------------------


BAD_DATA = {
    "missing": ({"images": np.ones((3, 6, 6, 3))}, "has no array 'x'", "it holds images"),
    "shape": ({"x": np.ones((3, 5, 6, 3))}, r"has shape \(3, 5, 6, 3\)", "6, 6, 3"),
    "rank": ({"x": np.ones(3)}, r"has shape \(3,\)", "6, 6, 3"),
    "counts": ({"x": np.ones((3, 6, 6, 3)), "y": np.ones(4)}, "different numbers of samples", ""),
    "empty": ({"x": np.ones((0, 6, 6, 3))}, "are empty", ""),
    "targets": ({"x": np.ones((3, 6, 6, 3)), "y": np.ones((3, 7))}, "targets have shape", ""),
}


@pytest.mark.parametrize("kind", BAD_DATA)
def test_data_that_do_not_fit_are_said_to(original, tmp_path, kind):
    arrays, what, more = BAD_DATA[kind]
    with pytest.raises(UsageError, match=what) as error:
        verify(original, original, data=npz(tmp_path, **arrays))
    assert more in str(error.value)


def test_files_that_are_no_data(original, tmp_path):
    with pytest.raises(FileError, match="cannot read") as missing:
        verify(original, original, data=tmp_path / "none.npz")
    assert "no such file" in str(missing.value)
    np.save(tmp_path / "single.npy", np.ones(3))
    (tmp_path / "text.npz").write_text("x,y\n")
    np.savez(tmp_path / "pickled.npz", x=np.array([{}], dtype=object))
    for name in ("single.npy", "text.npz", "pickled.npz"):
        with pytest.raises(FileError):
            verify(original, original, data=tmp_path / name)
