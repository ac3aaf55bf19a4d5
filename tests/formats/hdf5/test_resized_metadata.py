"""Metadata written anew for other sizes: libhdf5 is the oracle of what then stands in the file."""

from __future__ import annotations

import io
import random
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from msgspec.structs import replace

from kprune.edit import Edit
from kprune.errors import DamagedFileError, KpruneError
from kprune.formats import open_model
from kprune.formats.hdf5.direct_reader import read_plain
from kprune.formats.hdf5.layout import Layout, Space
from kprune.formats.hdf5.resized_metadata import moved
from kprune.formats.hdf5.tensors import Hdf5Weights
from kprune.formats.opening import open_file
from kprune.formats.output_tensors import layout as layout_of
from kprune.formats.output_tensors import resolve

TYPES = ("f2", "f4", "f8", "i1", "i4", "u8")


def written(folder: Path, fill: Callable[[h5py.File], object]) -> Hdf5Weights:
    memory = io.BytesIO()
    with h5py.File(memory, "w") as file:
        fill(file)
    path = folder / "weights.h5"
    path.write_bytes(memory.getvalue())
    return Hdf5Weights(open_file(path).window(), "weights")


def layers(seed: int, count: int) -> Callable[[h5py.File], None]:
    """Layers as Keras writes them, with all kinds of attributes beside them."""
    draw = random.Random(seed)

    def fill(file: h5py.File) -> None:
        file.attrs["title"] = "all of it"
        for number in range(count):
            group = file.create_group(f"layers/dense_{number}/vars")
            group.attrs["name"] = "é" * draw.randrange(200)
            group.attrs[draw.choice(("rate", "größe"))] = draw.random()
            if draw.random() < 0.3:
                group.attrs["names"] = ["a", "", "c" * draw.randrange(5000)]
            if draw.random() < 0.3:
                group.attrs["fixed"] = np.array([b"one", b"three"])
                group.attrs["flags"] = np.array([True, False])
            shape = tuple(draw.randrange(1, 9) for _ in range(draw.randrange(5)))
            group["0"] = np.full(shape, number % 100, draw.choice(TYPES))
            group["1"] = np.float32(number)
            if draw.random() < 0.2:
                group["none"] = np.zeros((0, 3), "f4")
            if draw.random() < 0.2:
                limited = h5py.h5s.create_simple((5,), (5,))  # its extents stand there twice
                h5py.Dataset(h5py.h5d.create(group.id, b"limited", h5py.h5t.IEEE_F32LE, limited))[
                    :
                ] = 1
        file.create_group("optimizer/vars")

    return fill


def spaces_of(weights: Hdf5Weights, shape: Callable[[tuple[int, ...]], tuple[int, ...]]) -> Any:
    table = weights.table
    return [Space(path, shape(t.shape), table.types[path]) for path, t in table.tensors.items()]


def put_together(layout: Layout, values: dict[str, np.ndarray]) -> bytes:
    """The whole file; every byte of it must come from the layout or the values, once."""
    data, filled = bytearray(layout.size), np.zeros(layout.size, int)
    parts = [*layout.gaps]
    parts += [(at, values[path].tobytes()) for path, at in layout.offsets.items()]
    for start, part in parts:
        data[start : start + len(part)] = part
        filled[start : start + len(part)] += 1
    assert (filled == 1).all()
    return bytes(data)


def attributes(file: h5py.File) -> dict[str, Any]:
    found = {"": {name: np.array(value).tolist() for name, value in file.attrs.items()}}

    def see(path: str, item: Any) -> None:
        found[path] = {name: np.array(value).tolist() for name, value in item.attrs.items()}

    file.visititems(see)
    return found


def check_cached_links(data: bytes) -> None:
    """An entry for a group repeats where its links are: a tree and a heap."""
    entries = [56]  # of the root, in the superblock
    leaf = data.find(b"SNOD")
    while leaf >= 0:
        (count,) = struct.unpack_from("<H", data, leaf + 6)
        entries += range(leaf + 8, leaf + 8 + 40 * count, 40)
        leaf = data.find(b"SNOD", leaf + 1)
    groups = 0
    for at in entries:
        cached, tree, heap = struct.unpack_from("<16xI4xQQ", data, at)
        if cached:
            groups += 1
            assert (data[tree : tree + 4], data[heap : heap + 4]) == (b"TREE", b"HEAP")
    assert groups > 1


@pytest.mark.parametrize("seed", range(12))
def test_objects_of_other_sizes_stand_where_libhdf5_looks_for_them(
    tmp_path: Path, seed: int
) -> None:
    """Cut, grown, and as they are: shapes, values, names and attributes."""
    draw = random.Random(seed)
    count = draw.choice((1, 7, 30, 300))
    weights = written(tmp_path, layers(seed, count))

    def other(shape: tuple[int, ...]) -> tuple[int, ...]:
        low, high = draw.choice(((-3, 0), (0, 0), (-3, 4)))
        return tuple(size and max(1, size + draw.randint(low, high)) for size in shape)

    spaces = spaces_of(weights, other)
    layout = moved(weights, spaces)
    assert layout is not None and layout.spaces == spaces
    draws = np.random.default_rng(seed)
    values = {
        space.path: draws.integers(0, 99, space.shape).astype(weights.tensors[space.path].dtype)
        for space in spaces
    }
    data = put_together(layout, values)
    with h5py.File(io.BytesIO(data)) as new, h5py.File(weights.file.path) as old:
        assert attributes(new) == attributes(old)
        for space in spaces:
            assert new[space.path].shape == space.shape
            assert new[space.path].dtype == weights.tensors[space.path].dtype
            assert (new[space.path][()] == values[space.path]).all(), space.path
    check_cached_links(data)
    # What was written once can be cut once more.
    (tmp_path / "new.h5").write_bytes(data)
    again = Hdf5Weights(open_file(tmp_path / "new.h5").window(), "weights")
    assert moved(again, spaces_of(again, lambda shape: shape)) is not None


def test_sizes_as_they_are_give_the_file_as_it_is(tmp_path: Path) -> None:
    weights = written(tmp_path, layers(3, 20))
    layout = moved(weights, spaces_of(weights, lambda shape: shape))
    assert layout is not None
    values = {path: weights.read(path) for path in weights.tensors}
    assert put_together(layout, values) == (tmp_path / "weights.h5").read_bytes()


def test_values_and_metadata_stay_as_aligned_as_they_were(tmp_path: Path) -> None:
    weights = written(tmp_path, layers(5, 40))
    layout = moved(
        weights, spaces_of(weights, lambda shape: tuple(-(-size // 2) for size in shape))
    )
    assert layout is not None
    for path, at in layout.offsets.items():
        assert (at - weights.table.places[path]) % 8 == 0


@pytest.mark.parametrize("name", ["digits_cnn", "digits_lstm", "digits_mlp", "digits_resnet"])
def test_the_models_that_keras_wrote_are_understood(samples: Path, name: str) -> None:
    with open_model(samples / f"{name}.keras") as source:
        weights = source.weights  # type: ignore[attr-defined]
        assert moved(weights, spaces_of(weights, lambda shape: shape)) is not None


def test_another_rank_or_type_or_nothing_left_is_left_to_libhdf5(tmp_path: Path) -> None:
    weights = written(tmp_path, lambda file: file.__setitem__("x", np.ones((4, 3), "f4")))
    (space,) = spaces_of(weights, lambda shape: shape)
    assert moved(weights, [space]) is not None
    assert moved(weights, [replace(space, shape=(12,))]) is None
    assert moved(weights, [replace(space, shape=(0, 3))]) is None
    assert moved(weights, [replace(space, kind=b"other")]) is None


def test_bytes_behind_the_end_are_left_to_libhdf5(tmp_path: Path) -> None:
    weights = written(tmp_path, layers(1, 3))
    path = tmp_path / "longer.h5"
    path.write_bytes((tmp_path / "weights.h5").read_bytes() + bytes(64))
    longer = Hdf5Weights(open_file(path).window(), "weights")
    assert moved(weights, spaces_of(weights, lambda shape: shape)) is not None
    assert moved(longer, spaces_of(longer, lambda shape: shape)) is None


def test_damage_never_gives_a_file_that_libhdf5_reads_as_something_else(tmp_path: Path) -> None:
    """Whatever byte is wrong, cut files hold what the damaged one held, or nothing is laid out."""
    written(tmp_path, layers(2, 4))
    whole = (tmp_path / "weights.h5").read_bytes()
    draw = random.Random(23)
    laid_out = 0
    for number in range(600):
        data = bytearray(whole)
        for _ in range(draw.choice((1, 1, 3))):
            data[draw.randrange(len(data))] = draw.choice((0, 1, 255, draw.randrange(256)))
        path = tmp_path / f"{number % 2}.h5"
        path.write_bytes(data)
        file = open_file(path)
        found = read_plain(file.window())
        if found is not None:
            try:
                weights = Hdf5Weights(file.window(), "weights")
                spaces = spaces_of(weights, lambda shape: tuple(-(-size // 2) for size in shape))
                layout = moved(weights, spaces)
            except KpruneError:
                continue  # its own tests say what is refused there
            if layout is not None:
                laid_out += 1
                table = layout.sizes
                assert sum(table.values()) + sum(len(d) for _, d in layout.gaps) == layout.size
                new = put_together(layout, {p: np.zeros(n, "u1") for p, n in table.items()})
                (tmp_path / "new.h5").write_bytes(new)
                again = read_plain(open_file(tmp_path / "new.h5").window())
                assert again is not None
                assert {t.path: t.shape for t in again.tensors} == {s.path: s.shape for s in spaces}
        file.close()
    assert laid_out > 200


def test_a_text_that_is_not_there_is_not_passed_on(tmp_path: Path) -> None:
    """libhdf5 may hang or crash on it; a model is not read with it, and nothing is written."""
    written(tmp_path, layers(1, 3))
    data = bytearray((tmp_path / "weights.h5").read_bytes())
    data[data.index(b"GCOL")] = 0
    (tmp_path / "weights.h5").write_bytes(data)
    weights = Hdf5Weights(open_file(tmp_path / "weights.h5").window(), "weights")
    with pytest.raises(DamagedFileError, match=r"attribute 'title'"):
        moved(weights, spaces_of(weights, lambda shape: shape))


def test_a_group_that_takes_the_place_of_another_is_not_taken_for_it(tmp_path: Path) -> None:
    """As many groups as before, and not the same ones."""

    def fill(file: h5py.File) -> None:
        file["x"] = np.ones(3, "f4")
        file.create_group("old")

    weights = written(tmp_path, fill)
    edit = Edit({}, {}, dropped=("old",), groups=("new",))
    outcome = resolve(weights.table, edit)
    data = put_together(layout_of(weights, outcome, edit), {"x": np.ones(3, "f4")})
    with h5py.File(io.BytesIO(data)) as file:
        assert set(file) == {"x", "new"}
