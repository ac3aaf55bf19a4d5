"""Damaged and hostile weights: a refusal in a sentence, no output, nothing left behind."""

from __future__ import annotations

import io
import random
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest

from kprune.errors import DamagedFileError, FileError, LimitError
from kprune.formats import open_model, write_model
from tests.formats.making import (
    empty_edit,
    hdf5_bytes,
    left_in,
    random_array,
    some_tensors,
    write_keras,
)


def pruned(model: Path, out: Path) -> None:
    """Open a model and write it again."""
    with open_model(model) as source:
        write_model(source, empty_edit(source), out)


def weights_range(data: bytes) -> range:
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        info = archive.getinfo("model.weights.h5")
        start = info.header_offset + 30 + len(info.filename)
        return range(start, start + info.file_size)


def test_a_flipped_bit_anywhere_in_the_weights_gives_no_output(tmp_path: Path) -> None:
    model = write_keras(tmp_path / "m.keras", some_tensors() | {"x": random_array("<f4", (2000,))})
    data = model.read_bytes()
    inside = weights_range(data)
    with open_model(model) as source:
        values = [
            tensor.offset + at
            for tensor in source.tensors.values()
            if tensor.offset
            for at in (0, tensor.nbytes - 1)
        ]
    chosen = random.Random(0)
    for place in (inside[0], inside[-1], *values, *chosen.choices(inside, k=150)):
        broken = bytearray(data)
        broken[place] ^= 1 << chosen.randrange(8)
        model.write_bytes(broken)
        with pytest.raises(FileError):
            pruned(model, tmp_path / "out.keras")
        assert left_in(tmp_path) == {"m.keras"}, place


def test_a_flipped_bit_in_a_value_is_named_as_a_wrong_checksum(tmp_path: Path) -> None:
    model = write_keras(tmp_path / "m.keras", {"x": np.zeros(5_000_000, "f4")})
    data = bytearray(model.read_bytes())
    data[15_000_000] ^= 4
    model.write_bytes(data)
    with open_model(model) as source:  # opening reads no weights
        with pytest.raises(
            DamagedFileError, match=r"where: model\.weights\.h5\nwhy: +its checksum"
        ):
            source.check_integrity()
        with pytest.raises(DamagedFileError, match=r"m\.keras is damaged"):
            write_model(source, empty_edit(source), tmp_path / "out.keras")
    assert left_in(tmp_path) == {"m.keras"}


def test_a_flipped_bit_elsewhere_is_refused_or_makes_no_difference(tmp_path: Path) -> None:
    assets = {"assets/words.txt": b"a few words"}
    model = write_keras(tmp_path / "m.keras", some_tensors(), assets=assets)
    data = model.read_bytes()
    pruned(model, tmp_path / "out.keras")
    good = (tmp_path / "out.keras").read_bytes()
    inside = weights_range(data)
    chosen = random.Random(1)
    harmless = 0
    for place in [n for n in range(len(data)) if n not in inside]:
        broken = bytearray(data)
        broken[place] ^= 1 << chosen.randrange(8)
        model.write_bytes(broken)
        (tmp_path / "out.keras").unlink(missing_ok=True)
        try:
            pruned(model, tmp_path / "out.keras")
        except FileError:
            assert left_in(tmp_path) == {"m.keras"}
        else:
            assert (tmp_path / "out.keras").read_bytes() == good, place
            harmless += 1
    assert harmless < 120, "dates, versions and mode bits only"


def test_a_file_cut_short_anywhere_is_refused(tmp_path: Path) -> None:
    data = write_keras(tmp_path / "m.keras", some_tensors()).read_bytes()
    for length in {*range(0, len(data), 97), 1, 4, len(data) - 1, len(data) - 22}:
        (tmp_path / "m.keras").write_bytes(data[:length])
        with pytest.raises(FileError):
            pruned(tmp_path / "m.keras", tmp_path / "out.keras")
    assert left_in(tmp_path) == {"m.keras"}


def test_weights_cut_short_inside_a_whole_archive_are_refused(tmp_path: Path) -> None:
    data = hdf5_bytes(some_tensors() | {"x": random_array("<f4", (2000,))})
    for length in (0, 8, 100, len(data) // 2, len(data) - 1):
        model = write_keras(tmp_path / "m.keras", data[:length])
        with pytest.raises(DamagedFileError, match=r"model\.weights\.h5"):
            open_model(model)


def test_mutated_metadata_of_hdf5_never_escapes_as_anything_but_a_refusal(tmp_path: Path) -> None:
    data = hdf5_bytes(some_tensors(), names={"layers/dense/vars": "dense"})
    chosen = random.Random(2)
    refused = 0
    for _ in range(100):
        broken = bytearray(data)
        place = chosen.randrange(len(data))
        size = chosen.choice([1, 2, 4, 8])
        broken[place : place + size] = chosen.choice(
            [b"\xff" * size, bytes(size), chosen.randbytes(size)]
        )[: len(data) - place]
        model = write_keras(tmp_path / "m.keras", bytes(broken))
        try:
            with open_model(model) as source:
                for path in source.tensors:
                    source.read(path)
        except FileError:
            refused += 1
    assert 5 < refused < 100


def soft(file: h5py.File) -> None:
    file["layers/soft"] = h5py.SoftLink("/layers/dense")


def external(file: h5py.File) -> None:
    file["layers/external"] = h5py.ExternalLink("secret.h5", "/x")


def circle(file: h5py.File) -> None:
    file["layers/dense/round"] = file["layers"]


def to_the_root(file: h5py.File) -> None:
    file["layers/root"] = file["/"]


def storage_elsewhere(file: h5py.File) -> None:
    file.create_dataset("x", (4,), "f4", external=[("secret.bin", 0, 16)])


def virtual(file: h5py.File) -> None:
    layout = h5py.VirtualLayout((4,), "f4")
    layout[:] = h5py.VirtualSource("secret.h5", "x", (4,))
    file.create_virtual_dataset("x", layout)


def texts(file: h5py.File) -> None:
    file.create_dataset("x", data=["some", "words"])


def compound(file: h5py.File) -> None:
    file.create_dataset("x", data=np.zeros(3, [("a", "f4"), ("b", "i4")]))


def references(file: h5py.File) -> None:
    file.create_dataset("x", data=[file.ref], dtype=h5py.ref_dtype)


def nothing(file: h5py.File) -> None:
    file.create_dataset("x", dtype="f4", data=h5py.Empty("f4"))


def named_type(file: h5py.File) -> None:
    file["x"] = np.dtype("f4")


def reference_beside(file: h5py.File) -> None:
    file["layers"].attrs["place"] = file.ref


@pytest.mark.parametrize(
    ("more", "why"),
    [
        (soft, "link to somewhere else"),
        (external, "link to somewhere else"),
        (circle, "a second name"),
        (to_the_root, "a second name"),
        (storage_elsewhere, "in other files"),
        (virtual, "in other files"),
        (texts, "something other than numbers"),
        (compound, "something other than numbers"),
        (references, "something other than numbers"),
        (nothing, "holds no array"),
        (named_type, "neither a group nor a dataset"),
        (reference_beside, "attribute 'place' has a type that kprune cannot carry over"),
    ],
)
def test_what_keras_never_writes_is_refused_and_not_followed(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    more: Callable[[h5py.File], None],
    why: str,
) -> None:
    # What the links point to is there, and can be read: refusing must not depend on that.
    monkeypatch.chdir(tmp_path)
    (tmp_path / "secret.bin").write_bytes(b"0123456789abcdef")
    with h5py.File(tmp_path / "secret.h5", "w") as secret:
        secret["x"] = np.arange(4, dtype="f4")
    model = write_keras(tmp_path / "m.keras", hdf5_bytes(some_tensors(), more=more))
    with pytest.raises(FileError, match=why) as caught:
        open_model(model)
    assert "where: model.weights.h5, " in str(caught.value)


def unwritten(file: h5py.File) -> None:
    file.create_dataset("x", (1 << 40,), "f4")


def unwritten_chunks(file: h5py.File) -> None:
    file.create_dataset("x", (1 << 40,), "f4", chunks=(1 << 10,), compression="gzip")


def one_giant_chunk(file: h5py.File) -> None:
    shape = ((1 << 30) - 1,)
    dataset = file.create_dataset("x", (1,), "f4", chunks=shape, maxshape=(None,))
    dataset.id.write_direct_chunk((0,), b"1234")


@pytest.mark.parametrize("more", [unwritten, unwritten_chunks, one_giant_chunk])
def test_sizes_are_held_against_the_bytes_that_are_there(
    tmp_path: Path, more: Callable[[h5py.File], None]
) -> None:
    model = write_keras(tmp_path / "m.keras", hdf5_bytes({}, more=more))
    assert model.stat().st_size < 100_000
    with pytest.raises(LimitError, match=r"value-bytes|chunk-bytes"):
        open_model(model)


def test_tensors_may_not_share_bytes(tmp_path: Path) -> None:
    tensors = {name: random_array("<f4", (1000,), n) for n, name in enumerate("ab")}
    data = hdf5_bytes(tensors)
    offsets = [data.index(value.tobytes()) for value in tensors.values()]
    layouts = [struct.pack("<QQ", offset, 4000) for offset in offsets]  # address and size
    assert all(data.count(layout) == 1 for layout in layouts)
    for shift in (0, 400, -400):
        moved = struct.pack("<QQ", offsets[0] + shift, 4000)
        model = write_keras(tmp_path / "m.keras", data.replace(layouts[1], moved))
        with pytest.raises(DamagedFileError, match="its values overlap"):
            open_model(model)
    beyond = struct.pack("<QQ", len(data) - 3999, 4000)
    model = write_keras(tmp_path / "m.keras", data.replace(layouts[1], beyond))
    with pytest.raises(DamagedFileError, match=r"do not fit into a file|invalid dataset size"):
        open_model(model)


def test_names_in_messages_cannot_act_on_a_terminal(tmp_path: Path) -> None:
    def evil(file: h5py.File) -> None:
        file["layers/\x1b[2J\nerror: all is well\u202e"] = h5py.SoftLink("/x")

    model = write_keras(tmp_path / "m\x1b.keras", hdf5_bytes({}, more=evil))
    with pytest.raises(FileError) as caught:
        open_model(model)
    assert "\x1b" not in str(caught.value) and "\u202e" not in str(caught.value)
    assert str(caught.value).count("\n") == 2  # error, where, why


def test_a_compressed_archive_that_lies_about_its_weights_is_refused(tmp_path: Path) -> None:
    model = write_keras(tmp_path / "m.keras", some_tensors(), method=zipfile.ZIP_DEFLATED)
    data = model.read_bytes()
    with zipfile.ZipFile(model) as archive:
        info = archive.getinfo("model.weights.h5")
    size = struct.pack("<II", info.compress_size, info.file_size)
    for wrong in (info.file_size + 1, info.file_size - 1):
        model.write_bytes(data.replace(size, struct.pack("<II", info.compress_size, wrong)))
        with pytest.raises(DamagedFileError):
            open_model(model)
    broken = bytearray(data)
    broken[info.header_offset + 400] ^= 16
    model.write_bytes(broken)
    with pytest.raises(DamagedFileError):
        open_model(model)
