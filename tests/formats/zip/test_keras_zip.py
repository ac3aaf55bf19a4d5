"""The `.keras` zip: what goes in comes out, and the archive is the one that Keras would write."""

from __future__ import annotations

import json
import os
import shutil
import stat
import subprocess
import sys
import zipfile
from pathlib import Path

import h5py
import numpy as np
import pytest

from kprune.edit import Edit, Fill, TensorEdit
from kprune.errors import DamagedFileError, FileError
from kprune.formats import open_model, write_model
from kprune.formats.opening import OpenFile
from tests.formats.making import (
    CONFIG,
    METADATA,
    contents,
    edit_of,
    empty_edit,
    hdf5_bytes,
    random_array,
    some_tensors,
    write_keras,
)

NAMES = {"layers/dense/vars": "my_dense", "layers/half/vars": "ünï/code", "vars": "model"}


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return write_keras(tmp_path / "model.keras", some_tensors())


def same(found: np.ndarray, expected: np.ndarray) -> bool:
    kind = found.dtype == expected.dtype and found.shape == expected.shape
    return kind and found.tobytes() == expected.tobytes()


def test_every_tensor_is_listed_with_shape_and_type_and_reads_bit_for_bit(model: Path) -> None:
    expected = some_tensors()
    with open_model(model) as source:
        assert set(source.tensors) == set(expected)
        for path, value in expected.items():
            tensor = source.tensors[path]
            assert (tensor.path, tensor.shape, tensor.nbytes) == (path, value.shape, value.nbytes)
            assert same(source.read(path), value), path


def test_tensors_come_in_file_order_not_in_name_order(model: Path) -> None:
    with open_model(model) as source:
        assert list(source.tensors)[-3:] == [f"optimizer/vars/{i}" for i in (1, 10, 2)]


def test_a_tensors_offset_is_where_its_bytes_lie_in_the_archive(model: Path) -> None:
    data = model.read_bytes()
    with open_model(model) as source:
        for path, value in some_tensors().items():
            offset = source.tensors[path].offset
            if value.nbytes:
                assert offset is not None
                assert data[offset : offset + value.nbytes] == value.tobytes()
            else:
                assert offset is None


def test_blocks_are_the_tensor_in_pieces(model: Path) -> None:
    with open_model(model) as source:
        for path, value in some_tensors().items():
            if value.ndim:
                pieces = list(source.blocks(path, limit=50))
                assert [start for start, _ in pieces] == list(
                    np.cumsum([0] + [len(piece) for _, piece in pieces[:-1]])[: len(pieces)]
                )
                joined = b"".join(piece.tobytes() for _, piece in pieces)
                assert joined == value.tobytes(), path
                assert all(piece.nbytes <= 50 or len(piece) == 1 for _, piece in pieces)


def test_config_and_metadata_are_read(model: Path) -> None:
    with open_model(model) as source:
        assert source.config == CONFIG
        assert source.metadata == METADATA
        assert source.format == "keras"
        assert source.path == model
        assert source.bytes == model.stat().st_size


def test_opening_reads_no_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = write_keras(tmp_path / "big.keras", {"layers/dense/vars/0": np.zeros(4_000_000, "f4")})
    read = 0
    original = OpenFile.read_into

    def counting(self: OpenFile, view: memoryview, offset: int) -> None:
        nonlocal read
        read += view.nbytes
        original(self, view, offset)

    monkeypatch.setattr(OpenFile, "read_into", counting)
    with open_model(model) as source:
        assert 0 < read < 200_000
        source.read("layers/dense/vars/0")
    assert read > 16_000_000


def test_an_empty_edit_copies_every_weight_bit_for_bit(model: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.keras"
    with open_model(model) as source:
        write_model(source, empty_edit(source), out)
    found = contents(out)
    expected = some_tensors()
    assert list(found) == sorted(expected)
    for path, value in expected.items():
        assert same(found[path], value), path


def test_the_same_edit_gives_the_same_bytes(model: Path, tmp_path: Path) -> None:
    outs = [tmp_path / f"{i}.keras" for i in range(3)]
    keep = (np.array([0, 2, 6]), None)
    for out in outs:
        with open_model(model) as source:
            change = TensorEdit("layers/dense/vars/0", "layers/dense/vars/0", keep)
            write_model(source, edit_of(source, change, names=lambda: NAMES), out)
        os.utime(model)  # another day, the same file
    assert outs[0].read_bytes() == outs[1].read_bytes() == outs[2].read_bytes()


def test_writing_twice_is_writing_once(model: Path, tmp_path: Path) -> None:
    first, second = tmp_path / "1.keras", tmp_path / "2.keras"
    for before, after in ((model, first), (first, second)):
        with open_model(before) as source:
            edit = Edit(source.config, source.metadata, names=lambda: NAMES)
            write_model(source, edit, after)
    assert first.read_bytes() == second.read_bytes()


def test_the_archive_is_as_keras_writes_it(model: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.keras"
    with open_model(model) as source:
        write_model(source, empty_edit(source), out)
    with zipfile.ZipFile(out) as archive:
        assert archive.testzip() is None
        assert archive.namelist() == ["metadata.json", "config.json", "model.weights.h5"]
        assert archive.comment == b""
        for info in archive.infolist():
            assert info.compress_type == zipfile.ZIP_STORED
            assert info.date_time == (1980, 1, 1, 0, 0, 0)
            assert (info.flag_bits, info.extra, info.comment) == (0, b"", b"")
            assert (info.create_version, info.extract_version, info.create_system) == (20, 20, 3)
            assert info.external_attr == 0o600 << 16
        assert archive.read("config.json") == json.dumps(CONFIG).encode()
        assert archive.read("metadata.json") == json.dumps(METADATA).encode()


@pytest.mark.skipif(shutil.which("unzip") is None, reason="needs the unzip program")
def test_unzip_finds_nothing_to_complain_about(model: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.keras"
    with open_model(model) as source:
        write_model(source, empty_edit(source), out)
    result = subprocess.run(["unzip", "-tq", out], capture_output=True, text=True)
    assert result.returncode == 0, result.stdout
    assert "No errors" in result.stdout and "warning" not in result.stderr


def test_the_hdf5_file_is_as_keras_writes_it(tmp_path: Path) -> None:
    model = write_keras(tmp_path / "m.keras", hdf5_bytes(some_tensors(), groups=["vars"]))
    out = tmp_path / "out.keras"
    names = NAMES | {"layers/nowhere/vars": "a name does not make a group"}
    with open_model(model) as source:
        edit = Edit(source.config, source.metadata, names=lambda: names, dropped=("optimizer",))
        write_model(source, edit, out)
    with zipfile.ZipFile(out) as archive, archive.open("model.weights.h5") as member:
        data = member.read()
    assert data.startswith(b"\x89HDF\r\n\x1a\n\0"), "superblock version 0"
    (tmp_path / "w.h5").write_bytes(data)
    with h5py.File(tmp_path / "w.h5") as file:
        for group, name in NAMES.items():
            assert file[group].attrs["name"] == name
        assert dict(file["layers/half/vars/0"].attrs) == {"dtype": "bfloat16"}
        assert dict(file["layers/conv2d/vars/0"].attrs) == {}
        assert dict(file["layers/conv2d/vars"].attrs) == {}
        assert "nowhere" not in file["layers"]
        for path in (path for path in some_tensors() if not path.startswith("optimizer")):
            assert file[path].chunks is None and file[path].compression is None
            assert h5py.h5g.get_objinfo(file.id, path.encode()).mtime == 0, "no clock"


def test_metadata_costs_no_more_than_in_a_file_by_keras(tmp_path: Path) -> None:
    tensors = {f"layers/dense_{i}/vars/{j}": np.zeros(3, "f4") for i in range(50) for j in (0, 1)}
    names = {f"layers/dense_{i}/vars": f"dense_{i}" for i in range(50)}
    model = write_keras(tmp_path / "model.keras", hdf5_bytes(tensors, names=names))
    with open_model(model) as source:
        size = write_model(source, edit_of(source, names=lambda: names), tmp_path / "out.keras")
    assert size <= model.stat().st_size * 1.02


def test_empty_groups_are_there_again(tmp_path: Path) -> None:
    groups = ["layers/input_layer/vars", "layers/dropout/vars", "vars"]
    model = write_keras(tmp_path / "m.keras", hdf5_bytes(some_tensors(), groups=groups))
    with open_model(model) as source:
        write_model(source, empty_edit(source), tmp_path / "out.keras")
    with open_model(tmp_path / "out.keras") as out, open_model(model) as source:
        assert set(groups) < set(out.weights.table.groups)
        assert set(out.weights.table.groups) == set(source.weights.table.groups)


def test_dropped_prefixes_are_whole_parts_of_a_path(tmp_path: Path) -> None:
    tensors = {path: np.ones(2, "f4") for path in ("optimizer/vars/0", "optimizer2/vars/0")}
    model = write_keras(tmp_path / "m.keras", tensors)
    with open_model(model) as source:
        write_model(source, edit_of(source, dropped=("optimizer",)), tmp_path / "out.keras")
    with open_model(tmp_path / "out.keras") as out:
        assert set(out.tensors) == {"optimizer2/vars/0"}
        assert set(out.weights.table.groups) == {"optimizer2", "optimizer2/vars"}


def test_tensors_may_change_names_and_even_swap_them(model: Path, tmp_path: Path) -> None:
    one, other, third = "layers/dense/vars/0", "optimizer/vars/10", "layers/dense/vars/1"
    with open_model(model) as source:
        edit = edit_of(
            source,
            TensorEdit(one, other),
            TensorEdit(other, one),
            TensorEdit("layers/dense_9/vars/7", third),
        )
        write_model(source, edit, tmp_path / "out.keras")
    before, after = some_tensors(1) | some_tensors(), contents(tmp_path / "out.keras")
    assert same(after[one], before[other]) and same(after[other], before[one])
    assert same(after["layers/dense_9/vars/7"], before[third]) and third not in after


def test_one_tensor_may_become_several(model: Path, tmp_path: Path) -> None:
    path = "layers/dense/vars/0"
    parts = [np.arange(0, 3), np.arange(3, 7), np.array([0, 6])]
    with open_model(model) as source:
        edits = [TensorEdit(f"parts/{i}", path, (part, None)) for i, part in enumerate(parts)]
        write_model(source, edit_of(source, *edits), tmp_path / "out.keras")
    after = contents(tmp_path / "out.keras")
    for i, part in enumerate(parts):
        assert same(after[f"parts/{i}"], some_tensors()[path][part])


def test_values_may_be_new(model: Path, tmp_path: Path) -> None:
    path = "layers/dense/vars/0"
    half = random_array("V2", (3, 4), 5)
    scalar = np.array(3.5, "f4")
    turned = random_array("<f4", (6, 8), 6).T  # not C-contiguous
    with open_model(model) as source:
        edit = edit_of(
            source,
            TensorEdit(path, path, value=turned),
            TensorEdit("layers/mask/vars/0", None, value=half),
            TensorEdit("layers/mask/vars/1", None, value=scalar),
            TensorEdit("layers/mask/vars/2", None, value=np.zeros((0, 2), "i4")),
        )
        write_model(source, edit, tmp_path / "out.keras")
    after = contents(tmp_path / "out.keras")
    assert same(after[path], turned.copy())
    assert same(after["layers/mask/vars/0"], half)
    assert same(after["layers/mask/vars/1"], scalar)
    assert after["layers/mask/vars/2"].shape == (0, 2)
    with open_model(tmp_path / "out.keras") as out:
        assert out.tensors["layers/mask/vars/0"].dtype == np.dtype("V2")


def test_assets_are_carried_over_byte_for_byte_and_nothing_is_added(tmp_path: Path) -> None:
    assets = {
        "assets/layers/text/words.txt": os.urandom(3_000_000),
        "assets/é.bin": b"",
        "notes": b"mine",
    }
    model = write_keras(tmp_path / "m.keras", some_tensors(), assets=assets, metadata=None)
    with open_model(model) as source:
        assert source.metadata == {}
        write_model(source, Edit(source.config, {"kprune": {}}), tmp_path / "out.keras")
    with zipfile.ZipFile(tmp_path / "out.keras") as archive:
        assert archive.namelist() == ["config.json", "model.weights.h5", *assets]
        assert {name: archive.read(name) for name in assets} == assets


def test_a_member_that_is_a_link_is_read_and_written_as_the_text_it_is(tmp_path: Path) -> None:
    path = tmp_path / "model.keras"
    write_keras(path, some_tensors())
    link = zipfile.ZipInfo("assets/link")
    link.create_system, link.external_attr = 3, (stat.S_IFLNK | 0o777) << 16  # 3 is Unix
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr(link, "/etc/passwd")
    with open_model(path) as source:
        assert source.extra("assets/link") == b"/etc/passwd"
        write_model(source, empty_edit(source), tmp_path / "out.keras")
    with zipfile.ZipFile(tmp_path / "out.keras") as archive:
        assert archive.read("assets/link") == b"/etc/passwd"
        assert not stat.S_ISLNK(archive.getinfo("assets/link").external_attr >> 16)


def test_members_keep_the_order_they_had(tmp_path: Path) -> None:
    names = ["model.weights.h5", "assets/", "assets/x", "config.json", "metadata.json"]
    with zipfile.ZipFile(tmp_path / "m.keras", "w") as archive:
        for name in names:
            archive.writestr(name, {"model.weights.h5": hdf5_bytes({})}.get(name, b"{}"))
    with open_model(tmp_path / "m.keras") as source:
        write_model(source, empty_edit(source), tmp_path / "out.keras")
    assert zipfile.ZipFile(tmp_path / "out.keras").namelist() == names


def test_an_archive_packed_by_another_tool_is_read(tmp_path: Path) -> None:
    assets = {"assets/words.txt": b"word\n" * 1000}
    model = write_keras(
        tmp_path / "m.keras", some_tensors(), assets=assets, method=zipfile.ZIP_DEFLATED
    )
    with open_model(model) as source:
        source.check_integrity()
        write_model(source, empty_edit(source), tmp_path / "out.keras")
    assert all(same(contents(tmp_path / "out.keras")[k], v) for k, v in some_tensors().items())
    with zipfile.ZipFile(tmp_path / "out.keras") as archive:
        assert archive.read("assets/words.txt") == assets["assets/words.txt"]
        assert {info.compress_type for info in archive.infolist()} == {zipfile.ZIP_STORED}


@pytest.mark.skipif(shutil.which("zip") is None, reason="needs the zip program")
def test_an_archive_packed_by_a_streaming_tool_is_read(tmp_path: Path) -> None:
    folder = tmp_path / "unpacked"
    with zipfile.ZipFile(write_keras(tmp_path / "m.keras", some_tensors())) as archive:
        archive.extractall(folder)
    names = sorted(os.listdir(folder))
    # Into a pipe zip cannot go back to fill in sizes, so it puts descriptors behind the members.
    with open(tmp_path / "s.keras", "wb") as out:
        shell = ["sh", "-c", f"zip -q -X - {' '.join(names)} | cat"]
        subprocess.run(shell, cwd=folder, stdout=out, check=True)
    with open_model(tmp_path / "s.keras") as source:
        for path, value in some_tensors().items():
            assert same(source.read(path), value)


@pytest.mark.parametrize("libver", ["earliest", "latest"])
@pytest.mark.parametrize(
    "options",
    [
        {"chunks": (3, 2)},
        {"chunks": (3, 2), "compression": "gzip", "shuffle": True},
        {"compression": "lzf"},
    ],
)
def test_chunked_and_compressed_weights_are_read(
    tmp_path: Path, libver: str, options: dict[str, object]
) -> None:
    values = {f"layers/a/vars/{i}": random_array(kind, (8, 6), i) for i, kind in enumerate(
        ("<f4", "<f2", "V2", "?")
    )}  # fmt: skip

    def chunked(file: h5py.File) -> None:
        for path, value in values.items():
            made = file.create_dataset(path, data=value, **options)
            if value.dtype == np.dtype("V2"):
                made.attrs["dtype"] = "bfloat16"

    plain = {"layers/b/vars/0": random_array("<f4", (5,))}
    weights = hdf5_bytes(plain, more=chunked, libver=libver)
    model = write_keras(tmp_path / "m.keras", weights)
    keep = (np.array([1, 2, 7]), np.array([0, 5]))
    with open_model(model) as source:
        for path, value in values.items():
            assert same(source.read(path), value)
            blocks = [block for _, block in source.blocks(path, limit=20)]
            assert b"".join(block.tobytes() for block in blocks) == value.tobytes()
        cut = "layers/a/vars/2"
        write_model(source, edit_of(source, TensorEdit(cut, cut, keep)), tmp_path / "out.keras")
    after = contents(tmp_path / "out.keras")
    assert same(after[cut], values[cut][np.ix_(*keep)])
    assert same(after["layers/a/vars/0"], values["layers/a/vars/0"])
    assert same(after["layers/b/vars/0"], plain["layers/b/vars/0"])
    with open_model(tmp_path / "out.keras") as out:
        assert all(tensor.offset for tensor in out.tensors.values())


def test_compact_weights_are_read_and_filled(tmp_path: Path) -> None:
    value = np.arange(12, dtype="f4").reshape(3, 4)

    def compact(file: h5py.File) -> None:
        plan = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
        plan.set_layout(h5py.h5d.COMPACT)
        space = h5py.h5s.create_simple(value.shape)
        dataset = h5py.h5d.create(file.id, b"x", h5py.h5t.IEEE_F32LE, space, plan)
        dataset.write(h5py.h5s.ALL, h5py.h5s.ALL, value)

    model = write_keras(tmp_path / "m.keras", hdf5_bytes({}, more=compact))
    with open_model(model) as source:
        assert same(source.read("x"), value)
        edit = edit_of(source, TensorEdit("x", "x", fills=(Fill(1, np.array([1, 3]), -2.0),)))
        write_model(source, edit, tmp_path / "out.keras")
    expected = value.copy()
    expected[:, [1, 3]] = -2
    assert same(contents(tmp_path / "out.keras")["x"], expected)


def test_the_size_is_known_before_anything_is_written(model: Path, tmp_path: Path) -> None:
    with open_model(model) as source:
        keep = (np.array([1, 2]), None)
        edit = edit_of(source, TensorEdit("x", "layers/dense/vars/0", keep), names=lambda: NAMES)
        expected = source.output_size(edit)
        assert write_model(source, edit, tmp_path / "out.keras") == expected
    assert (tmp_path / "out.keras").stat().st_size == expected


def test_progress_reaches_its_end_and_never_goes_back(tmp_path: Path) -> None:
    model = write_keras(tmp_path / "m.keras", {"x": np.zeros((3000, 1000), "f4")})
    seen: list[tuple[int, int]] = []
    with open_model(model) as source:
        write_model(
            source,
            empty_edit(source),
            tmp_path / "out.keras",
            progress=lambda done, total: seen.append((done, total)),
        )
    assert seen == sorted(seen) and seen[-1][0] == seen[-1][1] > 12_000_000


def test_weights_in_numpys_format_are_refused_by_name(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "m.keras", "w") as archive:
        archive.writestr("config.json", "{}")
        archive.writestr("model.weights.npz", b"")
    with pytest.raises(FileError, match=r"its weights are in model\.weights\.npz"):
        open_model(tmp_path / "m.keras")


def test_a_zip_that_is_no_model_is_refused(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "m.keras", "w") as archive:
        archive.writestr("readme.txt", "hello")
    with pytest.raises(FileError, match=r"no config\.json and no model\.weights\.h5"):
        open_model(tmp_path / "m.keras")


@pytest.mark.parametrize(
    ("text", "why"),
    [
        (b"{", "Expecting property name"),
        (b"[1, 2]", "holds a list, not an object"),
        (b"\xff\xfe\xfd", "codec can't decode"),
        (b'{"a": ' + b"9" * 5000 + b"}", "more than 308 digits"),
        (b"", "Expecting value"),
    ],
)
def test_a_config_that_is_no_json_object_is_damage(tmp_path: Path, text: bytes, why: str) -> None:
    model = write_keras(tmp_path / "m.keras", {}, config=text)
    with pytest.raises(DamagedFileError, match=why):
        open_model(model)


def test_nan_in_a_config_goes_in_and_out(tmp_path: Path) -> None:
    model = write_keras(tmp_path / "m.keras", {}, config=b'{"a": NaN, "b": -Infinity}')
    with open_model(model) as source:
        write_model(source, empty_edit(source), tmp_path / "out.keras")
    with zipfile.ZipFile(tmp_path / "out.keras") as archive:
        assert archive.read("config.json") == b'{"a": NaN, "b": -Infinity}'


def test_names_that_hdf5_cannot_hold_do_not_stop_a_write(tmp_path: Path) -> None:
    model = write_keras(tmp_path / "m.keras", {"layers/a/vars/0": np.ones(1, "f4")})
    with open_model(model) as source:
        edit = edit_of(source, names=lambda: {"layers/a/vars": "a\0b\ud800"})
        write_model(source, edit, tmp_path / "out.keras")
    with open_model(tmp_path / "out.keras") as out:
        assert set(out.tensors) == {"layers/a/vars/0"}


@pytest.mark.parametrize(
    "edit",
    [
        TensorEdit("x", "not/there"),
        TensorEdit("layers/dense/vars/1", "layers/dense/vars/0"),
        TensorEdit("x", "layers/dense/vars/0", keep=(None,)),
        TensorEdit("x", "layers/dense/vars/0", keep=(np.array([7]), None)),
        TensorEdit("x", "layers/dense/vars/0", keep=(np.array([-1]), None)),
        TensorEdit("x", "layers/dense/vars/0", keep=(np.array([2, 1]), None)),
        TensorEdit("x", "layers/dense/vars/0", keep=(np.array([1, 1]), None)),
        TensorEdit("x", "layers/dense/vars/0", keep=(np.array([True] * 7), None)),
        TensorEdit("x", "layers/dense/vars/0", fills=(Fill(2, np.array([0])),)),
        TensorEdit("x", "layers/dense/vars/0", fills=(Fill(0, np.array([7])),)),
        TensorEdit("x", "layers/dense/vars/0", blocks=np.zeros((2, 1), int)),
        TensorEdit("x", None),
    ],
)
def test_an_edit_that_does_not_fit_is_a_bug_and_writes_nothing(
    model: Path, tmp_path: Path, edit: TensorEdit
) -> None:
    with open_model(model) as source, pytest.raises((ValueError, KeyError)):
        write_model(source, edit_of(source, edit), tmp_path / "out.keras")
    assert not (tmp_path / "out.keras").exists()


def test_two_tensors_of_one_name_are_noticed_before_hdf5_does(model: Path, tmp_path: Path) -> None:
    edit = TensorEdit("layers/dense/vars/1", "layers/dense/vars/0")
    with (
        open_model(model) as source,
        pytest.raises(ValueError, match=r"two tensors would be called layers/dense/vars/1"),
    ):
        source.output_size(edit_of(source, edit))


def test_reading_and_writing_import_no_tensorflow(model: Path, tmp_path: Path) -> None:
    probe = f"""
import sys
from kprune.formats import open_model, write_model
from kprune.edit import Edit
with open_model({str(model)!r}) as source:
    write_model(source, Edit(source.config, source.metadata), {str(tmp_path / "out.keras")!r})
sys.exit(len({{"tensorflow", "keras", "scipy", "sklearn", "ml_dtypes"}} & set(sys.modules)))
"""
    assert subprocess.run([sys.executable, "-c", probe]).returncode == 0
    broken = probe.replace("import sys", "import sys; sys.modules['keras'] = sys", 1)
    assert subprocess.run([sys.executable, "-c", broken]).returncode == 1
