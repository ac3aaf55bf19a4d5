"""What is fuzzed: for each kind of input how one is drawn and made, what is run on it, and what is right.

Right is, whatever the input: an exit code of the contract, a message that names the file and is no
traceback, and no file touched unless it was written whole. Of an input that is taken, the output holds
what plain h5py and numpy make of it.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import random
import zipfile
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from functools import cache, cached_property
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from tests.formats.making import METADATA
from tests.hostile import seeds
from tests.hostile.mutations import (
    Op,
    Seed,
    apply_bytes,
    apply_data,
    busy,
    draw_bytes,
    draw_data,
    numbers_in,
    paths,
)
from tests.small_models import Network, arrays

KEPT = b"what stood here before"
CODES = {0, 2, 3, 4, 5}
WHERE = "-o"


class Ended:
    """How a command ended: its exit code and what it printed."""

    def __init__(self, code: int, out: str, err: str) -> None:
        self.code, self.out, self.err = code, out, err


class Target(ABC):
    """A kind of input.

    Attributes:
        name: of the kind.
        file: what the input is called in its folder.
        weight: how many of these, compared with others.
        tensorflow: whether TensorFlow is needed.
        beside: good files that commands are given as well.
        says_file: whether what is wrong with the file is said with its name.
    """

    name: str
    file = "bad.keras"
    weight = 1.0
    tensorflow = False
    beside: tuple[str, ...] = ()
    says_file = True

    @abstractmethod
    def draw(self, rng: random.Random) -> list[Op]:
        """Changes, drawn at random."""

    @abstractmethod
    def write(self, ops: list[Op], folder: Path) -> None:
        """Make the file that they lead to."""

    def commands(self, ops: list[Op]) -> list[list[str]]:
        """What is run on it."""
        return [
            ["inspect", self.file],
            ["remove", self.file, "a:1", "-o", self.output, "--force"],
        ]

    @property
    def output(self) -> str:
        return "out" + Path(self.file).suffix

    def fault(self, command: list[str], ended: Ended, folder: Path) -> str:
        """What is wrong with how a command ended; nothing if nothing is."""
        if ended.code not in CODES:
            return f"exit {ended.code}: {_reason(ended.err)}"
        if ended.code and "Traceback" in ended.err:
            return f"traceback: {ended.err[-200:]}"
        if ended.code == 4 and self.says_file and self.file not in ended.err:
            return f"message without the file's name: {ended.err.splitlines()[0][:100]}"
        if ended.code == 0 and WHERE in command:
            return self.judged(folder)
        return ""

    def judged(self, folder: Path) -> str:
        """What is wrong with an output that was written."""
        return ""


def _reason(err: str) -> str:
    lines = [line for line in err.splitlines() if line.startswith("why:")]
    return (lines or err.splitlines() or ["nothing said"])[-1][:160]


# -- bytes -----------------------------------------------------------------------------------------


class Bytes(Target):
    """An input that is a good file with bytes changed; the first change says which of several."""

    @cached_property
    def sources(self) -> list[Seed]:
        return [self.seed(data) for data in self.files()]

    @abstractmethod
    def files(self) -> list[bytes]:
        """The good files."""

    def seed(self, data: bytes) -> Seed:
        return Seed(data, busy(data), numbers_in(data))

    def draw(self, rng: random.Random) -> list[Op]:
        number = rng.randrange(len(self.sources))
        return [["of", number], *draw_bytes(rng, self.sources[number])]

    def changed(self, ops: list[Op]) -> bytes:
        (_, number), *changes = ops if ops and ops[0][0] == "of" else [["of", 0], *ops]
        return apply_bytes(self.sources[number].data, changes)

    def write(self, ops: list[Op], folder: Path) -> None:
        (folder / self.file).write_bytes(self.changed(ops))


class Weights(Bytes):
    """The HDF5 file inside a `.keras` file, whose checksum is right."""

    name = "hdf5"
    weight = 6

    def files(self) -> list[bytes]:
        def named(file: h5py.File) -> None:
            file["layers/dense/vars"].attrs["name"] = "a"

        return [seeds.weights(more=named)]

    def seed(self, data: bytes) -> Seed:
        with h5py.File(io.BytesIO(data)) as file:
            values = _ranges(file)
        return Seed(data, busy(data, values), numbers_in(data))

    def write(self, ops: list[Op], folder: Path) -> None:
        (folder / self.file).write_bytes(seeds.keras(weights=self.changed(ops)))

    def judged(self, folder: Path) -> str:
        return compared(
            _inside(folder / self.file), _inside(folder / self.output), CUT, optional="optimizer/"
        )


def _ranges(file: h5py.File) -> list[range]:
    """Where the values of datasets lie."""
    found: list[range] = []

    def visit(_: str, item: Any) -> None:
        if isinstance(item, h5py.Dataset) and item.id.get_offset():
            start = item.id.get_offset()
            found.append(range(start, start + item.id.get_storage_size()))

    file.visititems(visit)
    return found


class OddWeights(Weights):
    """The same in layouts that Keras reads and does not write."""

    name = "hdf5-layouts"
    weight = 3

    def files(self) -> list[bytes]:
        return [
            seeds.weights(libver="latest"),
            _stored(chunks=True, compression="gzip", shuffle=True),
            _stored(chunks=True, fletcher32=True),
            _stored(libver="latest", chunks=True, compression="gzip"),
            _stored(libver="v108", chunks=(1, 2)),
            seeds.weights(libver=("v110", "v110"), track_order=True),
            _stored(compact=True),
        ]

    def seed(self, data: bytes) -> Seed:
        return Seed(data, busy(data), numbers_in(data))


def _stored(
    *, libver: str = "earliest", compact: bool = False, chunks: Any = None, **options: Any
) -> bytes:
    """The weights file with its matrices stored in another way."""
    data = io.BytesIO()
    with h5py.File(data, "w", libver=libver) as file:
        for path, value in seeds.tensors().items():
            if compact:
                plan = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
                plan.set_layout(h5py.h5d.COMPACT)
                file.require_group(path.rpartition("/")[0])
                kind = h5py.h5t.py_create(value.dtype)
                space = (
                    h5py.h5s.create_simple(value.shape)
                    if value.ndim
                    else h5py.h5s.create(h5py.h5s.SCALAR)
                )
                made = h5py.h5d.create(file.id, path.encode(), kind, space, plan)
                made.write(h5py.h5s.ALL, h5py.h5s.ALL, np.ascontiguousarray(value))
            elif value.ndim == 2:
                file.create_dataset(path, data=value, chunks=chunks, **options)
            else:
                file[path] = value
    return data.getvalue()


class Archive(Weights):
    """The zip archive, its records above all."""

    name = "zip"
    weight = 4

    def files(self) -> list[bytes]:
        parts = seeds.members() | {"assets/words.txt": b"one\ntwo\n"}
        return [seeds.zipped(parts), seeds.zipped(parts, zipfile.ZIP_DEFLATED)]

    def seed(self, data: bytes) -> Seed:
        places = [
            at + step
            for mark in (b"PK\1\2", b"PK\3\4", b"PK\5\6")
            for at in _all(data, mark)
            for step in range(62)
        ]
        return Seed(data, places, numbers_in(data[data.index(b"PK\1\2") :]))

    def write(self, ops: list[Op], folder: Path) -> None:
        (folder / self.file).write_bytes(self.changed(ops))


def _all(data: bytes, mark: bytes) -> list[int]:
    found, at = [], data.find(mark)
    while at >= 0:
        found.append(at)
        at = data.find(mark, at + 1)
    return found


class Legacy(Bytes):
    """A legacy `.h5` file of Keras 3 or Keras 2."""

    name = "legacy"
    file = "bad.h5"
    weight = 3

    def files(self) -> list[bytes]:
        return [
            seeds.legacy(), seeds.legacy(version=2), seeds.legacy(libver="latest"),
            seeds.legacy(track_order=True),
        ]  # fmt: skip

    def judged(self, folder: Path) -> str:
        cut = {}
        for tail in ("", ":0"):
            cut |= {
                f"model_weights/a/a/kernel{tail}": 1, f"model_weights/a/a/bias{tail}": 0,
                f"model_weights/b/b/kernel{tail}": 0,
            }  # fmt: skip
        one, other = ((folder / name).read_bytes() for name in (self.file, self.output))
        return compared(one, other, cut)


CUT = {
    "layers/dense/vars/0": 1, "layers/dense/vars/1": 0, "layers/dense_1/vars/0": 0,
    **{f"layers/batch_normalization/vars/{number}": 0 for number in range(4)},
}  # fmt: skip
"""The axis of each tensor that a unit of `a` takes a slice of."""


def _inside(path: Path) -> bytes:
    with zipfile.ZipFile(path) as archive:
        return archive.read("model.weights.h5")


def values_of(data: bytes) -> dict[str, np.ndarray]:
    """Every dataset of a file that hard links lead to, as h5py reads it."""
    found: dict[str, np.ndarray] = {}

    def visit(name: str, item: Any) -> None:
        if isinstance(item, h5py.Dataset):
            found[name] = item[...]

    with h5py.File(io.BytesIO(data)) as file:
        file.visititems(visit)
    return found


def named_values(data: bytes, names: Iterable[str]) -> dict[str, np.ndarray]:
    """Datasets of a file, opened by their names, as Keras opens them."""
    with h5py.File(io.BytesIO(data)) as file:
        return {name: file[name][...] for name in names}


def compared(one: bytes, other: bytes, cut: Mapping[str, int], optional: str = "\n") -> str:
    """How an output differs from what plain h5py and numpy make of the input; nothing if it does not.

    Args:
        cut: by tensor, the axis from which the unit 1 is gone.
        optional: the beginning of names of tensors that may be left out, or cut in other ways.
    """
    try:
        after = values_of(other)
    except Exception as error:
        return f"output that h5py does not read: {type(error).__name__}: {error}"[:160]
    try:
        before = named_values(one, after)
    except Exception as error:
        return f"taken, but h5py does not read it: {type(error).__name__}: {error}"[:160]
    with contextlib.suppress(Exception):  # what cannot be listed may be read by name all the same
        before |= values_of(one)
    for path in before.keys() | after.keys():
        if path.startswith(optional):
            continue
        if path not in after or path not in before:
            return f"{path} is in only one of input and output"
        wanted = before[path]
        if path in cut:
            wanted = np.delete(wanted, 1, axis=cut[path])
        if wanted.dtype != after[path].dtype or wanted.tobytes() != after[path].tobytes():
            return f"{path} is not what h5py and numpy make of it"
    return ""


# -- data in JSON ----------------------------------------------------------------------------------


class Data(Target):
    """An input in which JSON data are changed; the first change says which of several."""

    @cached_property
    def sources(self) -> list[Any]:
        return self.trees()

    @cached_property
    def places(self) -> list[list[tuple[Any, ...]]]:
        return [paths(tree) for tree in self.sources]

    @abstractmethod
    def trees(self) -> list[Any]:
        """The good data."""

    def draw(self, rng: random.Random) -> list[Op]:
        number = rng.randrange(len(self.sources))
        return [["of", number], *draw_data(rng, self.sources[number], self.places[number])]

    def changed(self, ops: list[Op]) -> Any:
        (_, number), *changes = ops if ops and ops[0][0] == "of" else [["of", 0], *ops]
        return apply_data(self.sources[number], changes)


@cache
def networks() -> list[tuple[dict[str, Any], bytes]]:
    """Configs of many kinds of layers, each with its weights."""
    from tests.formats.making import hdf5_bytes
    from tests.small_models import layer, sequential

    found = [seeds.config() | {"compile_config": seeds.COMPILED}]
    net = Network()
    x = net("Conv2D", "a", net.input("in", 8, 8, 3), filters=6, padding="same")
    y = net("Conv2D", "c", x, filters=6, padding="same")
    x = net("Add", "add", [net("BatchNormalization", "bn", y), x])
    x = net("MaxPooling2D", "pool", x, shape=(None, 4, 4, 6))
    x = net("Flatten", "flat", x, shape=(None, 96))
    found.append(net.functional(net("Dense", "b", x, units=3)))
    net = Network()
    one, two = net.input("in", 7, 5), net.input("other", 7, 5)
    x = net("Concatenate", "join", [one, two], shape=(None, 7, 10), axis=-1)
    x = net("Dense", "a", x, units=6)
    x = net("LayerNormalization", "norm", net("Dropout", "drop", x))
    x = net("Reshape", "shape", x, shape=(None, 42), target_shape=[42])
    found.append(net.functional(net("Dense", "b", x, units=3), net("Dense", "c", x, units=2)))
    found.append(
        sequential(
            layer("Dense", "a", units=6),
            layer("ReLU", "relu"),
            layer("Dense", "b", units=3),
            shape=(5,),
        )
    )
    return [(config, hdf5_bytes(arrays(config))) for config in found]


class Config(Data):
    """config.json."""

    name = "config"
    weight = 6

    def trees(self) -> list[Any]:
        return [config for config, _ in networks()]

    def write(self, ops: list[Op], folder: Path) -> None:
        number = ops[0][1] if ops and ops[0][0] == "of" else 0
        made = seeds.keras(config=_json(self.changed(ops)), weights=networks()[number][1])
        (folder / self.file).write_bytes(made)

    def judged(self, folder: Path) -> str:
        """Tensors that keep their shape keep their values; the others lose a position."""
        try:
            before, after = (values_of(_inside(folder / n)) for n in (self.file, self.output))
        except Exception as error:
            return f"output that h5py does not read: {error}"[:160]
        for path in after:
            one, other = before[path], after[path]
            if path.startswith("optimizer/"):
                continue
            if one.shape == other.shape:
                if one.tobytes() != other.tobytes():
                    return f"{path} keeps its shape and changes its values"
            elif one.ndim != other.ndim or not all(
                # Behind a Reshape a unit is several positions.
                a - b in (0, 1, 7)
                for a, b in zip(one.shape, other.shape, strict=True)
            ):
                return f"{path} has shape {other.shape} instead of {one.shape}"
        return ""


def _json(value: Any) -> bytes:
    return json.dumps(value).encode()


class Provenance(Data):
    """metadata.json, with what kprune wrote there."""

    name = "provenance"
    weight = 3

    def trees(self) -> list[Any]:
        steps = [
            {"backend": "remove", "layers": {"a": [1, 4]}, "repair": "lstsq"},
            {"backend": "mask", "layers": {"a": [2], "b": "all"}},
        ]
        plan = {"version": 1, "steps": steps}
        units = {"a": [0, 2, 3, 5, 6, 7], "b": [0, 1, 3]}
        own = {"version": "0.1.0", "plan": plan, "units": units, "trained": 1}
        return [{**METADATA, "kprune": own}]

    def write(self, ops: list[Op], folder: Path) -> None:
        made = seeds.keras(metadata=_json(self.changed(ops)))
        (folder / self.file).write_bytes(made)

    def commands(self, ops: list[Op]) -> list[list[str]]:
        unmask = ["unmask", self.file, "-o", self.output, "--force"]
        return [unmask, *super().commands(ops)]

    def judged(self, folder: Path) -> str:
        return ""


class LegacyConfig(Data):
    """The attributes `model_config` and `training_config` of a legacy file."""

    name = "legacy-config"
    file = "bad.h5"
    weight = 1

    def trees(self) -> list[Any]:
        return [seeds.legacy_config(), seeds.legacy_config(2)]

    def write(self, ops: list[Op], folder: Path) -> None:
        version = 2 if ops and ops[0] == ["of", 1] else 3
        made = seeds.legacy(config=json.dumps(self.changed(ops)), version=version)
        (folder / self.file).write_bytes(made)


# -- texts -----------------------------------------------------------------------------------------

PLANS = (
    b"version: 1\nmodel: {parameters: 81}\nsteps:\n  - backend: remove\n    layers:\n      a: [1, 4]\n"
    b"expect: {parameters: '<= 80', exact: true}\n",
    b"version: 1\nsteps:\n  - backend: mask\n    layers:\n      'a*': {criterion: l1, ratio: 0.25, min_units: 2}\n"
    b"    exclude: [b]\n  - backend: zero\n    layers: {a: '0-2', b: '!1'}\n",
    b"version: 1\nsteps:\n  - {backend: remove, layers: {a: {where: 'l2 < 2'}}, include: [a]}\n",
)  # fmt: skip
WORDS = tuple(
    word.encode()
    for word in """version: 1|steps:|- backend: remove|layers:|a: [1]|{|}|[|]|:| |\n|\t|'|"|#|&x|*x|!!int|!x|---|...
    |>|%|@a.txt|,|-|!|0-5|0-5/2|-1|99|1e9|.nan|.inf|null|true|~|criterion: l1|ratio: 0.5|count: 2|where: |threshold: 0
    |exclude: [b]|expect: {exact: true}|model: {}|repair: true|round_to: 8|min_units: 1|<<: *x|? a|\\|\x00|\x85|\xff
    |include: [a]|all|"0-2"|version: 2""".replace("\n    |", "|").split("|")
)  # fmt: skip
SPECS = (
    b"a:1",
    b"a:0-2,4",
    b"a:0-5/2",
    b"a:!3",
    b"a:-1",
    b"'a':1",
    b"a.units:2",
    b"*:0",
    b"a:where(l2<2)",
    b"[ab]:1",
)
SPEC_WORDS = tuple(
    word.encode()
    for word in "a b bn * ? [ ] : . , - / ! @ ' \" 0 1 5 6 99 -1 where( ) l2 < units heads tokens all \\ é".split()
)
EXPRESSIONS = (
    b"l2 < 2", b"mean < 0.1 and not index == 3", b"w[0, 0] < 0", b"rank(l1) < 2", b"abs(bias) > quantile(bias, 0.5)",
    b"(std > 0.2) | (max > 1)", b"-l1 * 2 ** 2 / 3 > -9", b"gamma < 1 or outgoing_l1 > 1",
)  # fmt: skip
EXPRESSION_WORDS = tuple(
    word.encode()
    for word in """mean std min max l1 l2 absmax sparsity bias outgoing_l1 outgoing_l2 gamma beta moving_mean index w
    w[0] w[-1,:] w[9] w[...] ( ) [ ] , : < <= == != > >= + - * / // % ** & | ^ ~ << >> and or not in is if else lambda
    abs( quantile( rank( 0 1 2 99 1e400 1j 0x10 0o7 10**9 9**9**9 True None 'x' f'' . .T .__class__ __import__('os')
    x:=1 yield await {} {1} [1] \\ ; # @ é nan inf""".split()
)


class Text(Bytes):
    """An input that is a text, to which words of its language are added."""

    texts: tuple[bytes, ...]
    words: tuple[bytes, ...]
    beside = ("good.keras",)

    def files(self) -> list[bytes]:
        return list(self.texts)

    def seed(self, data: bytes) -> Seed:
        return Seed(data, (), (), self.words)

    @property
    def output(self) -> str:
        return "out.keras"


class Plan(Text):
    """A plan in YAML."""

    name, file, texts, words, weight = "plan", "bad.yaml", PLANS, WORDS, 2

    def commands(self, ops: list[Op]) -> list[list[str]]:
        return [["apply", "good.keras", self.file, "-o", self.output, "--force"]]


class Spec(Text):
    """A spec on the command line."""

    name, texts, words, weight, says_file = "spec", SPECS, (*SPEC_WORDS, b" "), 2, False

    def write(self, ops: list[Op], folder: Path) -> None:
        """It stands in no file."""

    def commands(self, ops: list[Op]) -> list[list[str]]:
        text = self.changed(ops).replace(b"\0", b"").decode(errors="replace")
        return [["remove", "good.keras", "-o", self.output, "--force", "--", text]]


class Expression(Spec):
    """An expression that chooses units."""

    name, texts, words, weight = "expression", EXPRESSIONS, (*EXPRESSION_WORDS, b" ", b"\n"), 3

    def commands(self, ops: list[Op]) -> list[list[str]]:
        text = self.changed(ops).replace(b"\0", b"").decode(errors="replace")
        return [["mask", "good.keras", "--where", text, "-o", self.output, "--force"]]


class Indices(Text):
    """A file of indices, as text or JSON."""

    name, file, weight = "indices", "bad.txt", 1
    texts = (b"1\n4\n", b"0-2, 4", b"# some\n3 5\n", b"[1, 4]")
    words = tuple(
        b'1|4|-1|99|0-2|,|\n| |#|!|@|[|]|{|}|1.5|1e3|null|"1"|\\|\x00|\xff|9999999999999999999'.split(
            b"|"
        )
    )

    def commands(self, ops: list[Op]) -> list[list[str]]:
        return [["remove", "good.keras", f"a:@{self.file}", "-o", self.output, "--force"]]


class Array(Indices):
    """A file of indices, as an array of NumPy."""

    name, file, words = "array", "bad.npy", ()

    def files(self) -> list[bytes]:
        found = []
        for value in (np.array([1, 4]), np.array([True, False] * 3), np.array([1.0, 2.0], "f4")):
            data = io.BytesIO()
            np.save(data, value)
            found.append(data.getvalue())
        return found

    def seed(self, data: bytes) -> Seed:
        return Seed(
            data,
            range(130),
            (),
            (b"'", b"(", b",", b"9999999999", b"|O", b"<f4", b"<U9", b"-1", b"{}"),
        )


# -- SavedModels -----------------------------------------------------------------------------------


class SavedModel(Bytes):
    """One part of a SavedModel folder."""

    file = "bad_saved"
    part: str
    tensorflow = True

    @cached_property
    def parts(self) -> dict[str, bytes]:
        folder = Path(os.environ[seeds.SAVED])
        return {
            str(path.relative_to(folder)): path.read_bytes()
            for path in folder.rglob("*")
            if path.is_file()
        }

    def files(self) -> list[bytes]:
        return [self.parts[self.part]]

    def write(self, ops: list[Op], folder: Path) -> None:
        for name, content in (self.parts | {self.part: self.changed(ops)}).items():
            path = folder / self.file / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)

    @property
    def output(self) -> str:
        return "out"


class Graph(SavedModel):
    """saved_model.pb."""

    name, part, weight = "savedmodel-pb", "saved_model.pb", 1


class Index(SavedModel):
    """The checkpoint's table."""

    name, part, weight = "savedmodel-index", "variables/variables.index", 0.5

    def judged(self, folder: Path) -> str:
        import tensorflow as tf

        cut = {"a/.ATTRIBUTES/VARIABLE_VALUE": 1, "bias/.ATTRIBUTES/VARIABLE_VALUE": 0,
               "b/.ATTRIBUTES/VARIABLE_VALUE": 0}  # fmt: skip
        try:
            one, other = (
                tf.train.load_checkpoint(str(folder / name / "variables/variables"))
                for name in (self.file, self.output)
            )
            for key in other.get_variable_to_shape_map():
                wanted, found = one.get_tensor(key), other.get_tensor(key)
                if key in cut:
                    wanted = np.delete(wanted, 1, axis=cut[key])
                if not np.array_equal(wanted, found):
                    return f"{key} is not what TensorFlow and numpy make of it"
        except Exception as error:
            return f"taken, but TensorFlow does not read it: {error}"[:160]
        return ""


class Shard(Index):
    """The checkpoint's values."""

    name, part, weight = "savedmodel-shard", "variables/variables.data-00000-of-00001", 0.5


TARGETS: dict[str, Target] = {
    target.name: target
    for target in (
        Archive(), Weights(), OddWeights(), Config(), Provenance(), Legacy(), LegacyConfig(), Plan(),
        Spec(), Expression(), Indices(), Array(), Graph(), Index(), Shard(),
    )
}  # fmt: skip
"""All kinds, by name."""
