"""One property of a weights file after the other: does plain Keras load it, and what does kprune do?

kprune takes the file and keeps every untouched value bit for bit, or names the property. Keras is the
oracle of both: what it cannot load is refused, and what it can load comes out as it loads it.
"""

from __future__ import annotations

import io
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

import kprune
from kprune.errors import FileError

pytestmark = pytest.mark.oracle

KERNEL, BIAS = "layers/dense/vars/0", "layers/dense/vars/1"
Change = Callable[[h5py.File], object]


class Property:
    """A change to a weights file, and how it is laid out before that.

    Attributes:
        dataset: how each dataset with an axis is made.
        why: what kprune's refusal says; "" if it takes the file.
        loads: whether Keras loads it.
    """

    def __init__(
        self,
        change: Change = lambda file: None,
        why: str = "",
        *,
        loads: bool = True,
        dataset: dict[str, Any] | None = None,
        before: bytes = b"",
        behind: bytes = b"",
        **options: Any,
    ) -> None:
        self.change, self.why, self.loads = change, why, loads
        self.dataset, self.options = dataset or {}, options
        self.before, self.behind = before, behind

    def applied(self, weights: bytes) -> bytes:
        memory = io.BytesIO()
        with h5py.File(io.BytesIO(weights)) as old, h5py.File(memory, "w", **self.options) as new:

            def copy(path: str, item: Any) -> None:
                if isinstance(item, h5py.Dataset):
                    options = self.dataset if item.ndim else {}
                    new.create_dataset(path, data=item[()], **options)
                else:
                    new.require_group(path)
                new[path].attrs.update(item.attrs)

            old.visititems(copy)
            self.change(new)
        return self.before + memory.getvalue() + self.behind


def anew(path: str, make: Callable[[np.ndarray], Any], **attributes: str) -> Change:
    """A dataset of other values."""

    def change(file: h5py.File) -> None:
        value = make(file[path][()])
        del file[path]
        file[path] = value
        file[path].attrs.update(attributes)

    return change


def as_type(kind: str) -> Change:
    return anew(KERNEL, lambda value: value.astype(kind))


def unwritten(**options: Any) -> Change:
    def change(file: h5py.File) -> None:
        shape = file[KERNEL].shape
        del file[KERNEL]
        file.create_dataset(KERNEL, shape, "f4", **options)

    return change


def partly(file: h5py.File) -> None:
    unwritten(chunks=(2, 2), fillvalue=9)(file)
    file[KERNEL][1, 1:3] = 4


def by_plan(prepare: Callable[[Any], object]) -> Change:
    def change(file: h5py.File) -> None:
        value = file[KERNEL][()]
        del file[KERNEL]
        plan = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
        prepare(plan)
        space = h5py.h5s.create_simple(value.shape)
        made = h5py.h5d.create(file.id, KERNEL.encode(), h5py.h5t.IEEE_F32LE, space, plan)
        h5py.Dataset(made)[...] = value

    return change


def nbit(plan: Any) -> None:
    plan.set_chunk((2, 2))
    plan.set_filter(h5py.h5z.FILTER_NBIT, h5py.h5z.FLAG_OPTIONAL, ())


def put(name: str, value: Callable[[h5py.File], Any]) -> Change:
    return lambda file: file.__setitem__(name, value(file))


def beside(name: str, value: Callable[[h5py.File], Any]) -> Change:
    return lambda file: file["layers"].attrs.__setitem__(name, value(file))


def moved_aside(file: h5py.File) -> None:
    file.move(KERNEL, "other")
    file[KERNEL] = h5py.SoftLink("/other")


def opaque(size: int, **attributes: str) -> Change:
    return anew(KERNEL, lambda value: np.zeros(value.shape, f"V{size}"), **attributes)


def unknown(file: h5py.File) -> None:
    file["unknown/stuff"] = np.arange(5)
    file["unknown"].attrs["hello"] = "world"
    file.attrs["top"] = np.arange(3)


def many_attributes(file: h5py.File) -> None:
    for number in range(40):
        file["layers"].attrs[f"a{number}"] = "x" * number


NUMBERS = "something other than numbers"
PROPERTIES = {
    "as Keras writes it": Property(),
    "chunked": Property(dataset={"chunks": True}),
    "gzip": Property(dataset={"compression": "gzip"}),
    "gzip and shuffle": Property(dataset={"compression": "gzip", "shuffle": True}),
    "lzf": Property(dataset={"compression": "lzf"}),
    "fletcher32": Property(dataset={"fletcher32": True}),
    "scale-offset": Property(dataset={"scaleoffset": 4}),
    "n-bit": Property(by_plan(nbit)),
    "compact": Property(by_plan(lambda plan: plan.set_layout(h5py.h5d.COMPACT))),
    "newest format": Property(libver="latest"),
    "version 1.8": Property(libver=("earliest", "v108")),
    "version 1.10": Property(libver=("v110", "v110")),
    "user block": Property(userblock_size=512),
    "large user block": Property(userblock_size=4096),
    "bytes before": Property(before=b"J" * 512),
    "odd bytes before": Property(before=b"J" * 100, why="signature not found", loads=False),
    "bytes behind": Property(behind=b"junk" * 100),
    "zeros behind": Property(behind=bytes(4096)),
    "order of creation": Property(track_order=True),
    "free room": Property(fs_strategy="fsm", fs_persist=True),
    "never written": Property(unwritten()),
    "a fill value": Property(unwritten(fillvalue=0.5)),
    "partly written": Property(partly),
    "symbolic link": Property(moved_aside, "link to somewhere else", loads=False),
    "unused symbolic link": Property(
        put("x", lambda file: h5py.SoftLink("/no")), "link to somewhere else"
    ),
    "unused external link": Property(
        put("x", lambda file: h5py.ExternalLink("no.h5", "/x")), "link to somewhere else"
    ),
    "second name of a dataset": Property(put("x", lambda file: file[BIAS])),
    "second name of a group": Property(put("x", lambda file: file["layers"])),
    "circle": Property(put("layers/dense/x", lambda file: file["layers"]), "that it stands in"),
    "reference beside": Property(beside("r", lambda file: file.ref), "attribute 'r' has a type"),
    "region beside": Property(
        beside("r", lambda file: file[KERNEL].regionref[1:2, :]), "attribute 'r' has a type"
    ),
    "compound beside": Property(beside("c", lambda file: np.zeros(2, [("a", "f4"), ("b", "i2")]))),
    "40 attributes": Property(many_attributes),
    "a long attribute": Property(beside("b", lambda file: np.zeros(7500))),
    "too long an attribute": Property(
        beside("b", lambda file: np.zeros(20_000)), "160,000 bytes", libver="latest"
    ),
    "unknown objects": Property(unknown),
    "unused empty dataset": Property(put("x", lambda file: h5py.Empty("f4")), "holds no array"),
    "unused named type": Property(put("x", lambda file: np.dtype("f4")), "neither a group nor"),
    "unused texts": Property(put("x", lambda file: ["a", "b"]), NUMBERS),
    "unused short texts": Property(put("x", lambda file: np.array([b"a", b"bc"]))),
    "unused compound": Property(put("x", lambda file: np.zeros(3, [("a", "f4")])), NUMBERS),
    "unused references": Property(
        lambda file: file.create_dataset("x", data=[file.ref], dtype=h5py.ref_dtype), NUMBERS
    ),
    "big-endian": Property(as_type(">f4")),
    "float64": Property(as_type("f8")),
    "float16": Property(as_type("f2")),
    "integers": Property(as_type("i4")),
    "truth values": Property(as_type("?")),
    "complex numbers": Property(as_type("c8"), NUMBERS),
    "texts for numbers": Property(as_type("S10"), "texts of 10 bytes"),
    "long doubles": Property(as_type("longdouble"), "values of 16 bytes"),
    "one opaque byte": Property(opaque(1), "values of 1 bytes", loads=False),
    "four opaque bytes": Property(opaque(4), "values of 4 bytes", loads=False),
    "two opaque bytes": Property(opaque(2), "called nothing", loads=False),
    "bfloat16": Property(opaque(2, dtype="bfloat16")),
    "bfloat16 called otherwise": Property(opaque(2, dtype="float16"), "called nothing", loads=False),
    "float32 called bfloat16": Property(
        anew(KERNEL, lambda value: value, dtype="bfloat16"), "and is not", loads=False
    ),
    "a flat kernel": Property(anew(KERNEL, np.ravel), r"shape \(24,\)", loads=False),
    "a turned kernel": Property(anew(KERNEL, np.transpose), r"shape \(6, 4\)", loads=False),
    "a bias of rank 2": Property(anew(BIAS, lambda v: v[None]), r"shape \(1, 6\)", loads=False),
    "a bias of rank 0": Property(anew(BIAS, lambda v: v[0]), r"shape \(\)", loads=False),
    "no bias": Property(lambda file: file.__delitem__(BIAS), "is not in the file", loads=False),
}  # fmt: skip


@pytest.fixture(scope="module")
def keras() -> Any:
    return pytest.importorskip("keras")


@pytest.fixture(scope="module")
def members(keras: Any, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    keras.utils.set_random_seed(0)
    dense = keras.layers.Dense
    model = keras.Sequential([keras.Input((4,)), dense(6, name="a"), dense(3, name="b")])
    path = tmp_path_factory.mktemp("base") / "base.keras"
    model.save(path)
    with zipfile.ZipFile(path) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


@pytest.mark.parametrize("name", PROPERTIES)
def test_a_file_is_taken_as_keras_loads_it_or_the_property_is_named(
    keras: Any, members: dict[str, bytes], tmp_path: Path, name: str
) -> None:
    model, out = tmp_path / "m.keras", tmp_path / "out.keras"
    wanted = PROPERTIES[name]
    weights = wanted.applied(members["model.weights.h5"])
    with zipfile.ZipFile(model, "w") as archive:
        for member, data in members.items():
            archive.writestr(
                zipfile.ZipInfo(member), weights if member == "model.weights.h5" else data
            )
    if not wanted.loads:
        with pytest.raises((ValueError, OSError)):
            keras.saving.load_model(model)
    if wanted.why:
        with pytest.raises(FileError, match=wanted.why):
            kprune.remove(model, {"a": [1, 3]}, output=out)
        assert not out.exists()
        return
    before = keras.saving.load_model(model).get_weights()
    kprune.remove(model, {"a": [1, 3]}, output=out)
    keep = [0, 2, 4, 5]
    cut = [before[0][:, keep], before[1][keep], before[2][keep], before[3]]
    after = keras.saving.load_model(out).get_weights()
    assert [(a.dtype, a.tobytes()) for a in after] == [(c.dtype, c.tobytes()) for c in cut]
