"""What does not fit into memory waits in files, and comes back as it was."""

from __future__ import annotations

import numpy as np
import pytest

from kprune.refitting.streams.room import Room


def arrays(count: int) -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    return [rng.normal(size=(10, 10)).astype(np.float32) for _ in range(count)]  # 400 bytes each


def test_the_oldest_goes_first_and_all_come_back() -> None:
    with Room(1000) as room:
        given = arrays(5)
        entries = [room.take(array) for array in given]
        assert [entry.file is None for entry in entries] == [False, False, False, True, True]
        assert (room.used, room.most, room.spilled) == (800, 800, 1200) or room.most <= 1200
        for entry, array in zip(entries, given, strict=True):
            assert np.array_equal(room.back(entry), array)


def test_the_last_stays_though_it_is_too_large() -> None:
    with Room(100) as room:
        (array,) = arrays(1)
        assert room.back(room.take(array)) is array
        assert room.most == 400


def test_what_is_reserved_makes_others_go() -> None:
    with Room(1000) as room:
        entries = [room.take(array) for array in arrays(2)]
        with room.reserved(500):
            assert [entry.file is None for entry in entries] == [False, True]
            assert room.used == 900
        assert room.used == 400


def test_what_is_dropped_takes_no_room_and_no_file() -> None:
    with Room(1000) as room:
        entries = [room.take(array) for array in arrays(4)]
        files = [entry.file for entry in entries if entry.file is not None]
        for entry in entries:
            room.drop(entry)
        assert room.used == 0 and files
        assert not any(file.exists() for file in files)


def test_the_folder_goes_with_the_room() -> None:
    with Room(100) as room:
        entries = [room.take(array) for array in arrays(3)]
        folder = next(entry.file for entry in entries if entry.file is not None).parent
        assert folder.exists()
    assert not folder.exists()


@pytest.mark.oracle
@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16", "int32", "bool"])
def test_tensors_come_back_with_type_and_mask(dtype: str) -> None:
    from keras import ops
    from keras.src.backend import get_keras_mask, set_keras_mask

    tensor = ops.cast(ops.convert_to_tensor(arrays(1)[0] > 0), dtype)
    mask = ops.ones((10, 10), "bool")
    set_keras_mask(tensor, mask)
    with Room(50) as room:
        entry = room.take(tensor)
        room.take(ops.zeros((100,)))
        assert entry.file is not None
        found = room.back(entry)
        assert found.dtype == tensor.dtype
        assert np.array_equal(ops.convert_to_numpy(found), ops.convert_to_numpy(tensor))
        assert get_keras_mask(found) is mask
