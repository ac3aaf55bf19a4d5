"""What an edit does not touch goes over bit for bit, in files that h5py laid out and Keras did not.

Every layout, number type and kind of attribute; as `.keras`, folder and `.h5`. h5py is the oracle.
"""

from __future__ import annotations

import io
import json
import zipfile
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import kprune
from kprune.edit import TensorEdit
from kprune.formats import open_model, write_model
from tests.formats.making import edit_of, hdf5_bytes, random_array, write_keras
from tests.formats.test_legacy_h5 import dense
from tests.formats.test_legacy_h5 import sequential as legacy_sequential
from tests.small_models import layer, sequential

NUMBERS = ("<f4", ">f4", "<f2", "<f8", "V2")
OTHERS = (*NUMBERS, "i1", "u1", "<i4", ">i8", "<u2", "?", "S5", "V1", "V7", "<i8")
FILES: tuple[dict[str, Any], ...] = (
    {}, {}, {"libver": "latest"}, {"libver": ("v108", "v110")}, {"track_order": True},
    {"userblock_size": 512}, {"libver": "latest", "track_order": True},
)  # fmt: skip
DATASETS: tuple[dict[str, Any], ...] = (
    {}, {}, {"chunks": True}, {"compression": "gzip", "shuffle": True}, {"compression": "lzf"},
    {"chunks": True, "fletcher32": True}, {"chunks": True, "shuffle": True},
    {"maxshape": (None,)}, {"layout": h5py.h5d.COMPACT},
    {"layout": h5py.h5d.CONTIGUOUS, "early": True},
)  # fmt: skip
NAMES = st.text("abcXYZ _-.:é木\u202e", min_size=1, max_size=8).filter(
    lambda name: name.strip(".") != ""
)
UNITS, KEPT = 5, [0, 2, 4]


@st.composite
def attribute_values(draw: st.DrawFn) -> tuple[Any, Any]:
    """A value, and the type that it is stored as (None for h5py's own)."""
    kind = draw(st.sampled_from(("text", "texts", "numbers", "fixed", "empty", "pairs", "ragged")))
    if kind == "text":
        return draw(st.text("aé木\n ", max_size=300)), None
    if kind == "texts":
        return draw(st.lists(st.text("aé木", max_size=9), min_size=1, max_size=9)), None
    if kind == "fixed":
        return np.array(draw(st.lists(st.binary(max_size=6), min_size=1, max_size=5)), "S6"), None
    if kind == "empty":
        return h5py.Empty(draw(st.sampled_from(("f4", "i8", "S3")))), None
    if kind == "pairs":
        return np.ones(draw(st.integers(0, 3)), [("a", "<i4"), ("b", ">f8"), ("c", "S3")]), None
    if kind == "ragged":
        rows = np.empty(2, object)
        rows[:] = [np.arange(draw(st.integers(1, 5)), dtype="i4"), np.arange(3, dtype="i4")]
        return rows, h5py.vlen_dtype("i4")
    return bits(draw, draw(st.sampled_from(OTHERS)), draw(shapes())), None


def shapes() -> st.SearchStrategy[tuple[int, ...]]:
    return st.lists(st.integers(0, 6), max_size=3).map(tuple)


def bits(draw: st.DrawFn, kind: str, shape: tuple[int, ...]) -> np.ndarray:
    """An array of random bits; of 0 and 1 for truth values."""
    dtype = np.dtype(kind)
    seed = draw(st.integers(0, 1000))
    size = int(np.prod(shape)) * dtype.itemsize
    high = 2 if dtype.kind == "b" else 256
    data = np.random.default_rng(seed).integers(0, high, size, dtype=np.uint8)
    return np.frombuffer(data.tobytes(), dtype).reshape(shape)


def put(file: h5py.File, path: str, value: np.ndarray, options: dict[str, Any]) -> None:
    """Create a dataset in some layout, if the value can have it."""
    if value.ndim == 0 or value.size == 0:
        file[path] = value
        return
    if "layout" not in options:
        if "maxshape" in options:
            options = {"maxshape": (None,) * value.ndim}
        file.create_dataset(path, data=value, **options)
        return
    plan = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    plan.set_layout(options["layout"])
    if options.get("early"):
        plan.set_alloc_time(h5py.h5d.ALLOC_TIME_EARLY)
    plan.set_fill_value(np.zeros((), value.dtype))
    file.require_group(path.rpartition("/")[0] or "/")
    kind = h5py.h5t.py_create(value.dtype, logical=True)
    space = h5py.h5s.create_simple(value.shape)
    made = h5py.h5d.create(file.id, path.encode(), kind, space, plan)
    made.write(h5py.h5s.ALL, h5py.h5s.ALL, np.ascontiguousarray(value), kind)


@st.composite
def weights_files(draw: st.DrawFn, legacy: bool) -> bytes:
    """A weights file (or a legacy model) of two Dense layers, and of more that Keras knows nothing of."""
    kind = draw(st.sampled_from(NUMBERS))
    home = "model_weights/{}/{}/" if legacy else "layers/dense{}/vars/"
    memory = io.BytesIO()
    with h5py.File(memory, "w", **draw(st.sampled_from(FILES))) as file:
        for number, (name, columns) in enumerate((("a", UNITS), ("b", 2))):
            store = home.format(name, name) if legacy else home.format("_1" if number else "")
            rows = UNITS if number else 4
            called = ("kernel", "bias") if legacy else ("0", "1")
            for end, shape in zip(called, ((rows, columns), (columns,)), strict=True):
                value = bits(draw, kind, shape)
                put(file, store + end, value, draw(st.sampled_from(DATASETS)))
                if kind == "V2":
                    file[store + end].attrs["dtype"] = "bfloat16"
        if legacy:
            start_legacy(file)
        add_unknown(draw, file)
    return File(memory.getvalue())


class File(bytes):
    """Bytes that are not printed, megabytes long, for each example that fails."""

    def __repr__(self) -> str:
        return f"a file of {len(self)} bytes"


def start_legacy(file: h5py.File) -> None:
    config = legacy_sequential(dense("a", UNITS), dense("b", 2))
    file.attrs["model_config"], file.attrs["keras_version"] = json.dumps(config), "3.15.1"
    file["model_weights"].attrs["layer_names"] = ["a", "b"]
    for name in "ab":
        names = [f"{name}/kernel", f"{name}/bias"]
        file[f"model_weights/{name}"].attrs["weight_names"] = names


def add_unknown(draw: st.DrawFn, file: h5py.File) -> None:
    for number in range(draw(st.integers(0, 4))):
        path = f"more/{draw(NAMES)}{number}"
        if draw(st.booleans()):
            file.create_group(path)
        else:
            value = bits(draw, draw(st.sampled_from(OTHERS)), draw(shapes()))
            if value.dtype != np.dtype("V2"):
                put(file, path, value, draw(st.sampled_from(DATASETS)))
    objects = ["/"]
    file.visit(objects.append)
    for number in range(draw(st.integers(0, 6))):
        value, dtype = draw(attribute_values())
        file[draw(st.sampled_from(objects))].attrs.create(
            f"{draw(NAMES)} {number}", value, dtype=dtype
        )


# -- what is in a file, to the last bit ------------------------------------------------------------


def stored(data: bytes) -> tuple[dict[str, Any], dict[tuple[str, str], Any]]:
    """Values and attributes, each with its extents, and its type as h5py calls it."""
    values, attributes = {}, {}

    def see(path: str, item: Any) -> None:
        if isinstance(item, h5py.Dataset):
            values[path] = item.shape, item.dtype.str, item[()].tobytes()
        else:
            values[path] = "a group"
        for name in item.attrs:
            attributes[path, name] = plain(item.attrs[name], item.attrs.get_id(name))

    with h5py.File(io.BytesIO(data)) as file:
        see("", file)
        file.visititems(see)
    return values, attributes


def plain(value: Any, held: Any) -> Any:
    if isinstance(value, h5py.Empty):
        return "empty", held.dtype.str
    array = np.asarray(value)
    content = [
        one.tolist() if isinstance(one, np.ndarray) else one for one in array.reshape(-1).tolist()
    ]
    kept = content if array.dtype == object else array.tobytes()
    return held.shape, str(held.dtype), kept


def check_faithful(
    before: bytes, after: bytes, cut: dict[str, tuple[Any, ...]], new: set[str]
) -> None:
    values, attributes = stored(before)
    found, beside = stored(after)
    assert found.keys() == values.keys()
    for path, held in values.items():
        if path not in cut:
            assert found[path] == held, path
            continue
        shape, kind, data = held
        array = np.frombuffer(data, kind).reshape(shape)[cut[path]]
        assert found[path] == (array.shape, kind, array.tobytes()), path
    changed = {key for key in attributes if beside.get(key) != attributes[key]}
    assert {name for _, name in changed | (beside.keys() - attributes.keys())} <= new


SETTINGS = settings(
    max_examples=12,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
CUT = {"layers/dense/vars/0": np.s_[:, KEPT], "layers/dense/vars/1": np.s_[KEPT],
       "layers/dense_1/vars/0": np.s_[KEPT]}  # fmt: skip
MODEL = sequential(layer("Dense", "a", units=UNITS), layer("Dense", "b", units=2), shape=[4])


@SETTINGS
@given(weights=weights_files(legacy=False), folder=st.booleans())
def test_a_keras_file_keeps_all_that_is_not_cut(
    tmp_path: Path, weights: bytes, folder: bool
) -> None:
    model, out = tmp_path / "m.keras", tmp_path / "out.keras"
    write_keras(model, weights, config=MODEL)
    if folder:
        with zipfile.ZipFile(model) as archive:
            archive.extractall(tmp_path / "m")
        kprune.remove(tmp_path / "m", {"a": [1, 3]}, output=tmp_path / "out", force=True)
        after = (tmp_path / "out" / "model.weights.h5").read_bytes()
    else:
        kprune.remove(model, {"a": [1, 3]}, output=out, force=True)
        with zipfile.ZipFile(out) as archive:
            after = archive.read("model.weights.h5")
    check_faithful(weights, after, CUT, set())


@SETTINGS
@given(model=weights_files(legacy=True))
def test_a_legacy_file_keeps_all_that_is_not_cut(tmp_path: Path, model: bytes) -> None:
    path, out = tmp_path / "m.h5", tmp_path / "out.h5"
    path.write_bytes(model)
    kprune.remove(path, {"a": [1, 3]}, output=out, force=True)
    cut = {
        "model_weights/a/a/kernel": np.s_[:, KEPT],
        "model_weights/a/a/bias": np.s_[KEPT],
        "model_weights/b/b/kernel": np.s_[KEPT],
    }
    check_faithful(model, out.read_bytes(), cut, {"model_config", "kprune"})


def test_what_stands_beside_a_layer_goes_where_its_tensors_go(tmp_path: Path) -> None:
    """A layer that was taken out lets those behind it be counted anew."""

    def notes(file: h5py.File) -> None:
        for path in ("layers", "layers/dense", "layers/dense_1/vars", "layers/dense_1/vars/0"):
            file[path].attrs["note"] = f"of {path}"

    tensors = {f"layers/dense{end}/vars/0": random_array("<f4", (3,)) for end in ("", "_1")}
    model, out = tmp_path / "m.keras", tmp_path / "out.keras"
    write_keras(model, hdf5_bytes(tensors, more=notes))
    with open_model(model) as source:
        move = TensorEdit("layers/dense/vars/0", "layers/dense_1/vars/0")
        write_model(source, edit_of(source, move, dropped=("layers/dense", "layers/dense_1")), out)
    with zipfile.ZipFile(out) as archive:
        data = archive.read("model.weights.h5")
    found = {}
    with h5py.File(io.BytesIO(data)) as file:
        file.visititems(lambda path, item: found.update({path: item.attrs.get("note")}))
    assert found == {
        "layers": "of layers",
        "layers/dense": None,
        "layers/dense/vars": "of layers/dense_1/vars",
        "layers/dense/vars/0": "of layers/dense_1/vars/0",
    }
