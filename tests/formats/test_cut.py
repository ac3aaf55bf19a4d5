"""Cutting is numpy.take on every axis, whatever the shape, the type and the size of a block."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import h5py
import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from msgspec.structs import fields, replace

from kprune.edit import Edit, Fill, TensorEdit
from kprune.formats import as_float, cut, from_float, open_model, stream, write_model
from tests.formats.making import contents, edit_of, random_array, write_keras

KINDS = ["<f4", "<f2", "V2", "|i1", "<i8", "|b1", "<f8", ">f4", "V3"]


@st.composite
def positions(draw: Any, extent: int) -> np.ndarray:
    chosen = draw(st.sets(st.integers(0, extent - 1))) if extent else set()
    return np.array(sorted(chosen), np.int64)


@st.composite
def cases(draw: Any) -> tuple[np.ndarray, TensorEdit]:
    """An array and an edit of it: keeps, blocks, fills, in any combination."""
    shape = tuple(draw(st.lists(st.integers(0, 6), max_size=4)))
    kind = draw(st.sampled_from(KINDS))
    array = random_array(kind, shape, draw(st.integers(0, 99)))
    keep = [draw(st.none() | positions(extent)) for extent in shape]
    blocks = None
    if len(shape) >= 2 and all(shape[-2:]) and draw(st.booleans()):
        groups = draw(st.sampled_from([n for n in range(1, 7) if shape[-1] % n == 0]))
        count = draw(st.integers(0, shape[-2]))
        rows = [draw(st.permutations(range(shape[-2])))[:count] for _ in range(groups)]
        blocks = np.sort(np.array(rows, np.int64).reshape(groups, count), axis=1)
        keep[-2] = None
    value = 1.0 if array.dtype.itemsize in (2, 4, 8) else 0.0
    axes = st.integers(0, len(shape) - 1)
    fills = []
    for chosen in (
        draw(st.lists(st.lists(axes, min_size=1, max_size=3), max_size=2)) if shape else []
    ):
        (axis, along), *within = ((axis, draw(positions(shape[axis]))) for axis in chosen)
        fills.append(Fill(axis, along, value, tuple(within)))
    floats = array.dtype.kind == "f" or kind == "V2"
    scale = draw(st.sampled_from([1.0, 0.7])) if floats else 1.0
    whole = draw(st.booleans()) and all(kept is None for kept in keep)
    return array, TensorEdit("x", "x", () if whole else tuple(keep), blocks, tuple(fills), scale)


def expected(array: np.ndarray, edit: TensorEdit) -> np.ndarray:
    """What the edit means, in plain numpy."""
    result = array.copy()
    for fill in edit.fills:
        here = np.ones(array.shape, bool)
        for axis, along in ((fill.axis, fill.positions), *fill.within):
            outside = np.setdiff1d(np.arange(array.shape[axis]), along)
            here[(slice(None),) * axis + (outside,)] = False
        result[here] = from_float(fill.value, array.dtype)
    keep = list(edit.keep or (None,) * array.ndim)
    if edit.blocks is not None:
        columns = range(array.shape[-1]) if keep[-1] is None else keep[-1]
        run = array.shape[-1] // len(edit.blocks)
        shape = (*result.shape[:-2], edit.blocks.shape[1], len(columns))
        cut_out = np.empty(shape, array.dtype)
        for new, old in enumerate(columns):
            cut_out[..., new] = result[..., old][..., edit.blocks[old // run]]
        result, keep[-1] = cut_out, None
    for axis, kept in enumerate(keep):
        if kept is not None:
            result = np.take(result, kept, axis=axis)
    if edit.scale != 1.0:
        with np.errstate(invalid="ignore"):
            wide = as_float(np.ascontiguousarray(result)).astype(np.float64) * edit.scale
        result = from_float(wide, array.dtype).reshape(result.shape)
    return result


def carried_out(array: np.ndarray, edit: TensorEdit, limit: int) -> np.ndarray:
    """What the blocks make of it, each byte of the result written once."""
    data = array.tobytes()
    shape = edit.shape_after(array.shape)
    size = int(np.prod(shape)) * array.dtype.itemsize
    out, written = bytearray(size), np.zeros(size, int)
    for block in cut.blocks(edit, array.shape, array.dtype, limit):
        view = memoryview(bytearray(data[block.start : block.start + block.nbytes]))
        assert array[(*block.select, ...)].tobytes() == bytes(view)
        made = block.make(view, lambda count: np.empty(count, np.uint8)) if block.make else view
        assert len(made) == block.size and memoryview(made).contiguous
        out[block.at : block.at + block.size] = memoryview(made)
        written[block.at : block.at + block.size] += 1
    assert (written == 1).all()
    return np.frombuffer(bytes(out), array.dtype).reshape(shape)


@given(case=cases(), limit=st.integers(1, 200))
@settings(max_examples=200, deadline=None)
def test_blocks_of_any_size_make_what_numpy_makes(
    case: tuple[np.ndarray, TensorEdit], limit: int
) -> None:
    array, edit = case
    found, wanted = carried_out(array, edit, limit), expected(array, edit)
    assert found.shape == wanted.shape == edit.shape_after(array.shape)
    assert found.tobytes() == wanted.tobytes()


@given(case=cases(), span=st.sampled_from([64, 300, 1 << 20]))
@example(case=(random_array("V2", (5, 4)), TensorEdit("x", "x", (None, np.array([1, 3])))), span=64)
@settings(max_examples=60, deadline=None)
def test_so_does_a_written_file(case: tuple[np.ndarray, TensorEdit], span: int) -> None:
    array, edit = case
    around = {"a": random_array("<f4", (3,), 1), "z/b": random_array("<f4", (40,), 2)}
    with (
        TemporaryDirectory() as folder,
        pytest.MonkeyPatch.context() as patch,
    ):
        patch.setattr(stream, "SPAN", span)
        model = write_keras(Path(folder, "m.keras"), around | {"x": array})
        with open_model(model) as source:
            write_model(source, edit_of(source, edit), Path(folder, "out.keras"))
        after = contents(Path(folder, "out.keras"))
    wanted = expected(array, edit)
    assert after["x"].shape == wanted.shape
    assert after["x"].tobytes() == wanted.tobytes()
    assert all(after[path].tobytes() == value.tobytes() for path, value in around.items())


def test_a_block_never_exceeds_the_limit_whatever_the_shape() -> None:
    for shape in [(1, 1 << 20), (1 << 20, 1), (2, 3, 1 << 18), (1 << 10, 1 << 10), (7, 7, 64, 512)]:
        blocks = list(cut.blocks(None, shape, np.dtype("<f4"), 1 << 16))
        assert max(block.nbytes for block in blocks) <= 1 << 16
        assert sum(block.nbytes for block in blocks) == 4 * np.prod(shape)
        assert len(blocks) <= 2 * 4 * np.prod(shape) / (1 << 16) + shape[0]


def test_a_large_tensor_is_cut_along_both_axes(tmp_path: Path) -> None:
    array = random_array("<f4", (3000, 1100))
    keep = (np.arange(0, 3000, 3), np.delete(np.arange(1100), [0, 5, 1099]))
    model = write_keras(tmp_path / "m.keras", {"x": array})
    with open_model(model) as source:
        write_model(source, edit_of(source, TensorEdit("x", "x", keep)), tmp_path / "out.keras")
    assert contents(tmp_path / "out.keras")["x"].tobytes() == array[np.ix_(*keep)].tobytes()


@pytest.mark.parametrize("kind", ["<f4", "<f2", "V2", "<i4"])
def test_a_fill_writes_the_number_in_the_tensors_own_type(tmp_path: Path, kind: str) -> None:
    array = from_float(np.arange(12.0).reshape(3, 4), np.dtype(kind))
    model = write_keras(tmp_path / "m.keras", {"x": array})
    fills = (Fill(0, np.array([1]), 0.0), Fill(1, np.array([3]), -7.0))
    with open_model(model) as source:
        edit = edit_of(source, TensorEdit("x", "x", fills=fills))
        write_model(source, edit, tmp_path / "out.keras")
    wanted = np.array([[0, 1, 2, -7], [0, 0, 0, -7], [8, 9, 10, -7]], "f8")
    found = contents(tmp_path / "out.keras")["x"]
    assert found.tobytes() == from_float(wanted, np.dtype(kind)).tobytes()


def test_a_scale_multiplies_what_is_left_in_the_tensors_own_type(tmp_path: Path) -> None:
    arrays = {kind: from_float(np.arange(1, 5.0), np.dtype(kind)) for kind in ("<f4", "<f2", "V2")}
    model = write_keras(tmp_path / "m.keras", arrays | {"whole": np.arange(3)})
    with open_model(model) as source:
        edits = [TensorEdit(kind, kind, (np.array([0, 3]),), scale=1.5) for kind in arrays]
        write_model(source, edit_of(source, *edits), tmp_path / "out.keras")
        with pytest.raises(ValueError, match="cannot be multiplied"):
            edit = edit_of(source, TensorEdit("whole", "whole", scale=2.0))
            write_model(source, edit, tmp_path / "no.keras")
    after = contents(tmp_path / "out.keras")
    for kind in arrays:
        assert after[kind].tobytes() == from_float(np.array([1.5, 6.0]), np.dtype(kind)).tobytes()


def test_groups_are_made_with_nothing_in_them(tmp_path: Path) -> None:
    model = write_keras(tmp_path / "m.keras", {"layers/a/vars/0": np.arange(3)})
    with open_model(model) as source:
        edit = replace(edit_of(source), groups=("vars", "layers/a/cell/vars"))
        write_model(source, edit, tmp_path / "out.keras")
    with zipfile.ZipFile(tmp_path / "out.keras") as archive:
        weights = io.BytesIO(archive.read("model.weights.h5"))
    with h5py.File(weights) as file:
        assert len(file["vars"]) == len(file["layers/a/cell/vars"]) == 0
        assert len(file["layers/a/vars"]) == 1


def test_a_new_kind_of_edit_does_not_go_unnoticed() -> None:
    # Whoever adds a field must carry it out in `formats` and draw it in `cases` above.
    names = {kind: {field.name for field in fields(kind)} for kind in (TensorEdit, Fill, Edit)}
    assert names == {
        TensorEdit: {"path", "source", "keep", "blocks", "fills", "scale", "value"},
        Fill: {"axis", "positions", "value", "within"},
        Edit: {
            "config",
            "metadata",
            "tensors",
            "dropped",
            "names",
            "groups",
            "order",
            "without_lines",
        },
    }
