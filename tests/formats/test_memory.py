"""Memory does not grow with the file, nor with its largest tensor."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from kprune.edit import TensorEdit
from kprune.formats import open_model, stream, write_model
from kprune.formats.hdf5.datatypes import type_code
from kprune.formats.hdf5.layout import Space, lay_out
from kprune.formats.opening import OpenFile
from kprune.formats.zip.records import NewMember, directory
from tests.formats.making import edit_of, empty_edit
from tests.small_models import layer, sequential

FLOAT = type_code(np.dtype("<f4"))


@pytest.fixture
def roomy(tmp_path: Path) -> Iterator[Path]:
    """A folder that is emptied at once; pytest would keep what the last three runs left."""
    yield tmp_path
    for item in tmp_path.iterdir():
        item.unlink()


WRITER = """
import sys
import numpy as np
from kprune.formats import open_model, write_model
from kprune.edit import Edit, TensorEdit
with open_model(sys.argv[1]) as source:
    edits = []
    for path, tensor in source.tensors.items():
        keep = [np.arange(1, extent) if axis in AXES else None
                for axis, extent in enumerate(tensor.shape)]
        edits.append(TensorEdit(path, path, tuple(keep)))
    write_model(source, Edit(source.config, source.metadata, tuple(edits)), sys.argv[2])
for line in open("/proc/self/status"):
    if line.startswith("VmHWM"):
        print(int(line.split()[1]) * 1024)
"""


def sparse_model(path: Path, spaces: list[Space], content: bytes = b"{}") -> Path:
    """A `.keras` file whose weights are holes, so that it takes no disk and no time to make."""
    layout = lay_out(spaces, {})
    config = NewMember("config.json", len(content), 0)
    weights = NewMember("model.weights.h5", layout.size, config.end)
    fd = os.open(path, os.O_RDWR | os.O_CREAT)
    try:
        target = stream.Target(fd, config.data_offset, str(path))
        target.put(0, [content])
        config.crc = target.checksum(len(content))
        os.ftruncate(fd, weights.end)
        for start, data in layout.gaps:
            os.pwrite(fd, data, weights.data_offset + start)
        file = OpenFile(os.dup(fd), None)
        weights.crc = stream.checksum(file.window(weights.data_offset, weights.size))
        file.close()
        for member in (config, weights):
            os.pwrite(fd, member.local_header(), member.offset)
        os.pwrite(fd, directory([config, weights]), weights.end)
    finally:
        os.close(fd)
    return path


@pytest.mark.skipif(not os.path.exists("/proc/self/status"), reason="needs Linux's /proc")
@pytest.mark.parametrize("axes", [(), (1,), (0, 1)])
def test_writing_a_file_of_300_mb_takes_no_more_than_110(
    roomy: Path, axes: tuple[int, ...]
) -> None:
    spaces = [Space("a", (15_000, 4_000), FLOAT), Space("b", (3, 5_000_000), FLOAT)]
    model = sparse_model(roomy / "m.keras", spaces)
    assert model.stat().st_size > 300_000_000
    code = WRITER.replace("AXES", repr(axes))
    command = [sys.executable, "-c", code, str(model), str(roomy / "out.keras")]
    result = subprocess.run(command, capture_output=True, text=True, check=True)
    assert int(result.stdout) < 110_000_000
    with zipfile.ZipFile(roomy / "out.keras") as archive:
        assert archive.getinfo("model.weights.h5").file_size > 250_000_000


@pytest.mark.nightly
def test_a_cut_out_of_a_file_larger_than_4_gib_is_small(roomy: Path) -> None:
    model = sparse_model(roomy / "m.keras", [Space("x", (1_100, 1_000_000), FLOAT)])
    with zipfile.ZipFile(model) as archive:
        assert archive.getinfo("model.weights.h5").file_size > 1 << 32
    keep = (np.array([0, 1_099]), np.array([0, 5, 999_999]))
    with open_model(model) as source:
        write_model(source, edit_of(source, TensorEdit("x", "x", keep)), roomy / "out.keras")
    with open_model(roomy / "out.keras") as out:
        assert out.read("x").shape == (2, 3)
    assert (roomy / "out.keras").stat().st_size < 10_000


@pytest.mark.nightly
def test_a_file_larger_than_4_gib_is_written_with_zip64(roomy: Path) -> None:
    spaces = [Space("x", (1_100, 1_000_000), FLOAT), Space("y", (3,), FLOAT)]
    model = sparse_model(roomy / "m.keras", spaces)
    with open_model(model) as source:
        offset = source.tensors["y"].offset
        assert offset and offset > 1 << 32
        with open(model, "r+b") as file:
            file.seek(offset)
            file.write(np.arange(3, dtype="<f4").tobytes())
    # The last values were changed, so the checksum must be made anew.
    with zipfile.ZipFile(model) as archive:
        info = archive.getinfo("model.weights.h5")
        offset = info.header_offset + 30 + len(info.filename) + 20
    file_ = OpenFile(os.open(model, os.O_RDWR), None)
    weights = NewMember("model.weights.h5", info.file_size, info.header_offset)
    weights.crc = stream.checksum(file_.window(offset, info.file_size))
    config = NewMember("config.json", 2, 0, zlib.crc32(b"{}"))
    os.pwrite(file_.fd, weights.local_header(), weights.offset)
    os.pwrite(file_.fd, directory([config, weights]), weights.end)
    file_.close()
    with open_model(model) as source:
        size = write_model(source, empty_edit(source), roomy / "out.keras")
    assert (roomy / "out.keras").stat().st_size == size > 1 << 32
    with open_model(roomy / "out.keras") as out:
        assert out.read("y").tolist() == [0, 1, 2]
        out.check_integrity()


COMPACT = """
import sys
import kprune
print(*kprune.compact(sys.argv[1], output=sys.argv[2], check=False).changed)
for line in open("/proc/self/status"):
    if line.startswith("VmHWM"):
        print(int(line.split()[1]) * 1024)
"""


@pytest.mark.skipif(not os.path.exists("/proc/self/status"), reason="needs Linux's /proc")
def test_finding_what_is_dead_in_a_tensor_of_300_mb_takes_no_more_than_130(roomy: Path) -> None:
    units = 8192  # a kernel of all zeros: every unit but the last one gives its bias of 0
    config = sequential(
        layer("Dense", "a", units=units), layer("Dense", "b", units=units),
        layer("Dense", "out", units=2), shape=[64],
    )  # fmt: skip
    shapes = {"dense": (64, units), "dense_1": (units, units), "dense_2": (units, 2)}
    spaces = [
        Space(f"layers/{name}/vars/{number}", shape if number == 0 else shape[1:], FLOAT)
        for name, shape in shapes.items()
        for number in range(2)
    ]
    path = sparse_model(roomy / "model.keras", spaces, json.dumps(config).encode())
    command = [sys.executable, "-c", COMPACT, path, roomy / "small.keras"]
    ran = subprocess.run(command, capture_output=True, text=True)
    changed, peak = ran.stdout.splitlines() or pytest.fail(ran.stderr)
    assert changed == "a b"
    assert int(peak) < 130e6
