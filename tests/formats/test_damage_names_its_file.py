"""Whatever part of a model file is damaged, the message says which file it is."""

from __future__ import annotations

import random
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

import kprune
from tests.formats.test_legacy_h5 import two_dense, write_h5
from tests.small_models import Network, layer, sequential, write


def keras_zip(folder: Path) -> Path:
    net = Network()
    x = net("Conv2D", "conv", net.input("in", 8, 8, 3), filters=4)
    x = net("GlobalAveragePooling2D", "pool", net("BatchNormalization", "bn", x), shape=(None, 4))
    return write(folder / "named.keras", net.functional(net("Dense", "out", x, units=2)))


def keras_folder(folder: Path) -> Path:
    config = sequential(layer("Dense", "a", units=4), layer("Dense", "b", units=3), shape=[4])
    source = write(folder / "one.keras", config)
    shutil.unpack_archive(source, folder / "named", "zip")
    return folder / "named"


def legacy_h5(folder: Path) -> Path:
    return write_h5(folder / "named.h5", *two_dense())


FORMATS: dict[str, tuple[Callable[[Path], Path], int]] = {
    "keras": (keras_zip, 120),
    "keras-folder": (keras_folder, 60),
    "h5": (legacy_h5, 8),  # each starts a process
}


def damaged(data: bytes, source: random.Random) -> bytes:
    """Some of its bytes changed, left out or put in, or the end cut off."""
    at = source.randrange(len(data))
    kind = source.random()
    if kind < 0.2:
        return data[:at]
    run = source.choice([1, 1, 2, 8, 64])
    if kind < 0.7:
        return data[:at] + source.randbytes(run) + data[at + run :]
    return (
        data[:at] + data[at + run :]
        if kind < 0.85
        else data[:at] + source.randbytes(run) + data[at:]
    )


@pytest.mark.parametrize("kind", FORMATS)
def test_a_message_about_damage_names_the_file(kind: str, tmp_path: Path) -> None:
    make, times = FORMATS[kind]
    model = make(tmp_path)
    parts = [model] if model.is_file() else sorted(model.iterdir())
    whole = {part: part.read_bytes() for part in parts}
    source = random.Random(kind)
    refused = 0
    for _ in range(times):
        part = source.choice(parts)
        part.write_bytes(damaged(whole[part], source))
        try:
            kprune.inspect(model)
        except kprune.KpruneError as error:
            refused += 1
            assert error.exit_code in (3, 4), error
            assert error.exit_code == 3 or "named" in str(error), error
        part.write_bytes(whole[part])
    assert refused > times / 8
