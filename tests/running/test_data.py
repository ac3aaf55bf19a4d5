"""Data in every form that is taken are the same arrays."""

from __future__ import annotations

import itertools
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from keras import layers

import kprune
from kprune.errors import CannotPruneError, UsageError
from kprune.running.data import data_for
from kprune.running.sources import held, named

pytestmark = pytest.mark.oracle

COUNT, BATCH = 10, 4
RNG = np.random.default_rng(0)
IMAGES = RNG.normal(size=(COUNT, 6, 5, 1)).astype("float32")
KINDS = RNG.integers(0, 3, COUNT)


def network() -> Any:
    image = keras.Input((6, 5, 1), name="image")
    return keras.Model(image, layers.Dense(3, name="kind")(layers.Flatten()(image)))


def dataset(*, batched: bool, targets: bool = True) -> Any:
    import tensorflow as tf

    made = tf.data.Dataset.from_tensor_slices((IMAGES, KINDS) if targets else IMAGES)
    return made.batch(BATCH) if batched else made


class Numbered(keras.utils.PyDataset):
    """Batches by number."""

    def __len__(self) -> int:
        return -(-COUNT // BATCH)

    def __getitem__(self, number: int) -> tuple[np.ndarray, np.ndarray]:
        part = slice(number * BATCH, (number + 1) * BATCH)
        return IMAGES[part], KINDS[part]


class Listed:
    """Batches by number, of a class that is not Keras's and cannot be iterated over."""

    __len__ = Numbered.__len__

    def __getitem__(self, number: int) -> dict[str, np.ndarray]:
        x, y = Numbered().__getitem__(number)
        return {"image": x, "y": y}


def batches() -> Iterator[list[np.ndarray]]:
    """As lists, which PyTorch's loaders give."""
    for number in range(len(Numbered())):
        yield list(Numbered()[number])


def in_a_file(folder: Path) -> Path:
    np.savez(folder / "data.npz", x=IMAGES, y=KINDS)
    return folder / "data.npz"


def function_of_a_module(folder: Path) -> str:
    (folder / "own_source.py").write_text(
        "import numpy as np\ndef pair():\n    d = np.load('data.npz')\n    return d['x'], d['y']\n"
    )
    in_a_file(folder)
    return "own_source:pair"


FORMS: dict[str, Callable[[Path], Any]] = {
    "file": in_a_file,
    "name of a function": function_of_a_module,
    "pair": lambda _: (IMAGES, KINDS),
    "pair with weights": lambda _: (IMAGES, KINDS, np.ones(COUNT)),
    "pair of dicts": lambda _: ({"image": IMAGES}, {"kind": KINDS}),
    "dict of x and y": lambda _: {"x": IMAGES, "y": KINDS},
    "dict by name": lambda _: {"image": IMAGES, "labels": KINDS},
    "without a channel axis": lambda _: (IMAGES[..., 0], KINDS),
    "dataset": lambda _: dataset(batched=True),
    "dataset of samples": lambda _: dataset(batched=False),
    "PyDataset": lambda _: Numbered(),
    "batches by number": lambda _: Listed(),
    "generator": lambda _: batches(),
    "generator function": lambda _: batches,
    "list of batches": lambda _: [(IMAGES[:7], KINDS[:7]), (IMAGES[7:], KINDS[7:])],
    "function": lambda _: lambda: (IMAGES, KINDS),
    "function that gives a dataset": lambda _: lambda: dataset(batched=True),
    "tensors": lambda _: (keras.ops.convert_to_tensor(IMAGES), keras.ops.convert_to_tensor(KINDS)),
}


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [entry for entry in sys.path if entry])
    monkeypatch.delitem(sys.modules, "own_source", raising=False)
    return tmp_path


@pytest.mark.parametrize("form", FORMS)
def test_all_forms_of_the_same_data_are_the_same_arrays(form: str, here: Path) -> None:
    found = data_for(network(), FORMS[form](here))
    np.testing.assert_array_equal(found.inputs, IMAGES)
    np.testing.assert_array_equal(found.targets, KINDS)


@pytest.mark.parametrize(
    "data", [IMAGES, {"x": IMAGES}, (IMAGES,), lambda: IMAGES, iter([IMAGES[:3], IMAGES[3:]])]
)
def test_labels_may_be_missing(data: Any) -> None:
    found = data_for(network(), data)
    assert found.targets is None
    np.testing.assert_array_equal(found.inputs, IMAGES)
    with pytest.raises(UsageError, match=r"error: targets, please\n"):
        found.needed_targets("targets, please")


def test_of_a_dataset_without_an_end_no_more_than_the_limit_is_read() -> None:
    read = []

    def endless() -> Iterator[Any]:
        for number in itertools.count():
            read.append(number)
            yield IMAGES[:BATCH], KINDS[:BATCH]

    found = data_for(network(), endless, limit=6)
    np.testing.assert_array_equal(found.inputs, np.concatenate([IMAGES[:4], IMAGES[:2]]))
    np.testing.assert_array_equal(found.targets, np.concatenate([KINDS[:4], KINDS[:2]]))
    assert read == [0, 1]
    repeated = dataset(batched=True).repeat()
    assert len(data_for(network(), repeated, limit=25)) == 25
    with pytest.raises(UsageError, match="error: the dataset given has no end"):
        data_for(network(), repeated)


def test_of_arrays_the_limit_takes_some_from_everywhere(tmp_path: Path) -> None:
    """They may be sorted by class."""
    found = data_for(network(), in_a_file(tmp_path), limit=5)
    np.testing.assert_array_equal(found.inputs, IMAGES[::2])
    np.testing.assert_array_equal(found.targets, KINDS[::2])
    assert len(data_for(network(), IMAGES, limit=COUNT + 5)) == COUNT


def pair_network() -> Any:
    """Two inputs and two outputs."""
    image, size = keras.Input((6, 5, 1), name="image"), keras.Input((2,), name="size")
    both = layers.Concatenate()([layers.Flatten()(image), size])
    outputs = [layers.Dense(width, name=name)(both) for name, width in (("kind", 3), ("far", 1))]
    return keras.Model([image, size], outputs)


SIZES, FAR = IMAGES[:, 0, :2, 0], IMAGES[:, 0, :1, 0]


@pytest.mark.parametrize(
    "data",
    [
        {"image": IMAGES, "size": SIZES, "kind": KINDS, "far": FAR},
        ({"image": IMAGES, "size": SIZES}, {"kind": KINDS, "far": FAR}),
        ([IMAGES, SIZES], [KINDS, FAR]),
        [([IMAGES[:4], SIZES[:4]], [KINDS[:4], FAR[:4]]), ([IMAGES[4:], SIZES[4:]], [KINDS[4:], FAR[4:]])],
        zip(zip(IMAGES, SIZES, strict=True), zip(KINDS, FAR, strict=True), strict=True),
    ],
    ids=["dict", "pair of dicts", "pair of lists", "batches", "samples"],
)  # fmt: skip
def test_several_inputs_and_outputs_go_by_name_or_in_the_models_order(data: Any) -> None:
    found = data_for(pair_network(), data)
    np.testing.assert_array_equal(found.inputs[0], IMAGES)
    np.testing.assert_array_equal(found.inputs[1], SIZES)
    np.testing.assert_array_equal(found.targets["kind"], KINDS)
    np.testing.assert_array_equal(found.targets["far"], FAR)


def test_several_inputs_need_no_targets() -> None:
    found = data_for(pair_network(), [IMAGES, SIZES])
    np.testing.assert_array_equal(found.inputs[1], SIZES)
    assert found.targets is None


def broken() -> Iterator[Any]:
    yield IMAGES
    raise OSError("no such bucket")


def ragged() -> Iterator[Any]:
    yield IMAGES
    yield IMAGES[:, :, :3]


BAD: dict[str, tuple[Any, str, str]] = {
    "shape": (IMAGES[:, :4], "error: the array given has shape", "takes (samples, 6, 5, 1)"),
    "name": ({"picture": IMAGES}, "error: the dict given has no array 'x'", "it holds picture"),
    "counts": ((IMAGES, KINDS[:3]), "arrays of the tuple given have different numbers", ""),
    "targets": (
        (IMAGES, {"sort": KINDS}),
        "targets of the tuple given belong to no output",
        "kind",
    ),
    "parts": ((IMAGES,) * 4, "has a tuple of 4 parts", "give (x, y)"),
    "nothing": ([], "error: the list given is empty", ""),
    "number": (3, "error: no data can be read from the int given", "of type int"),
    "function": (lambda: 3, "error: no data can be read from the function given", "of type int"),
    "words": ([{"image": object()}], "do not fit together", ""),
    "broken": (broken, f"error: {__name__}:broken fails", "no such bucket"),
    "ragged": (ragged, f"batches of {__name__}:ragged do not fit together", ""),
}


@pytest.mark.parametrize("kind", BAD)
def test_what_does_not_fit_is_named_as_it_was_given(kind: str) -> None:
    data, what, more = BAD[kind]
    with pytest.raises((UsageError, CannotPruneError), match=what) as refused:
        data_for(network(), data)
    assert more in str(refused.value)


def test_what_is_held_can_be_read_again() -> None:
    for data in (batches(), dataset(batched=False), Numbered()):
        again = held(data)
        for _ in range(2):
            found = data_for(network(), again)
            np.testing.assert_array_equal(found.inputs, IMAGES)
            np.testing.assert_array_equal(found.targets, KINDS)
    assert held("some.npz") == "some.npz" and held("module:function") == "module:function"


def test_reports_name_data_without_reading_them() -> None:
    names = {
        "d.npz": "d.npz",
        Path("a/d.npz"): "a/d.npz",
        "m:f": "m:f",
        broken: f"{__name__}:broken",
        (lambda: 1): "the function given",
    }
    assert {data: named(data) for data in names} == names
    assert named(IMAGES) == "the array given" and named((IMAGES,)) == "the tuple given"
    assert named(batches()) == "the generator given"
    assert named(dataset(batched=True)) == named(Numbered()) == "the dataset given"


# -- wherever data are taken ----------------------------------------------------------------------

WAYS: dict[str, Callable[[], Any]] = {
    "arrays": lambda: (IMAGES, KINDS),
    "dataset": lambda: dataset(batched=True),
    "generator": batches,
    "function": lambda: batches,
}


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """model.keras, compiled, with data.npz beside it."""
    folder = tmp_path_factory.mktemp("files")
    keras.utils.set_random_seed(1)
    image = keras.Input((6, 5, 1), name="image")
    y = layers.Conv2D(6, 3, activation="relu", name="conv")(image)
    model = keras.Model(image, layers.Dense(3, "softmax", name="kind")(layers.Flatten()(y)))
    model.compile("sgd", "sparse_categorical_crossentropy", metrics=["accuracy"])
    model.save(folder / "model.keras")
    in_a_file(folder)
    return folder / "model.keras"


@pytest.mark.parametrize("way", WAYS)
def test_criteria_verify_and_sensitivity_take_what_stands_in_no_file(way: str, file: Path) -> None:
    def outcomes(data: Callable[[], Any]) -> list[Any]:
        choice = kprune.Choice("taylor", ratio=0.5)
        report = kprune.remove(file, choice=choice, data=data(), dry_run=True)
        checked = kprune.verify(file, file, data=data())
        curves = kprune.sensitivity(file, data=data(), ratios=[0.5], criterion="apoz")
        return [
            report.changed,
            checked.metrics,
            checked.samples,
            curves.baseline,
            curves.candidates,
        ]

    assert outcomes(WAYS[way]) == outcomes(lambda: file.parent / "data.npz")


@pytest.mark.usefixtures("eagerly")
def test_training_takes_them_too(file: Path, tmp_path: Path) -> None:
    def judged(data: Any, **how: Any) -> list[dict[str, float]]:
        found = kprune.tune(
            file, data=data, output=tmp_path / "t.keras", force=True, epochs=1, batch_size=BATCH, **how
        )  # fmt: skip
        return found.epochs

    expected = judged(file.parent / "data.npz")
    assert judged((IMAGES, KINDS)) == judged(batches()) == expected
    whole = judged(file.parent / "data.npz", validation_split=0)[0]
    assert judged(dataset(batched=True))[0] == pytest.approx(whole, rel=1e-5)
