"""Archives that zipfile takes, and that could be read in two ways."""

from __future__ import annotations

import io
import struct
import warnings
import zipfile
from pathlib import Path

import pytest

import kprune
from kprune.errors import DamagedFileError, FileError, LimitError
from kprune.formats import open_model
from tests.formats.making import hdf5_bytes

WEIGHTS = hdf5_bytes({})
MEMBERS = {"metadata.json": b"{}", "config.json": b'{"a": 1}', "model.weights.h5": WEIGHTS}


def archive(members: list[tuple[str, bytes]] | None = None, comment: bytes = b"") -> bytes:
    buffer = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # zipfile warns of duplicate names
        with zipfile.ZipFile(buffer, "w") as file:
            for name, data in members or list(MEMBERS.items()):
                file.writestr(zipfile.ZipInfo(name), data)
            file.comment = comment
    return buffer.getvalue()


def refusal(tmp_path: Path, data: bytes) -> str:
    (tmp_path / "m.keras").write_bytes(data)
    with pytest.raises(FileError) as caught:
        open_model(tmp_path / "m.keras")
    return str(caught.value).replace(str(tmp_path), "")  # it holds the name of the test


def test_the_archive_that_the_others_are_made_from_is_fine(tmp_path: Path) -> None:
    (tmp_path / "m.keras").write_bytes(archive())
    with open_model(tmp_path / "m.keras") as source:
        assert source.config == {"a": 1}


def test_a_comment_does_no_harm(tmp_path: Path) -> None:
    (tmp_path / "m.keras").write_bytes(archive(comment=b"hello"))
    with open_model(tmp_path / "m.keras") as source:
        assert source.config == {"a": 1}


def test_two_members_of_one_name(tmp_path: Path) -> None:
    members = [*MEMBERS.items(), ("config.json", b'{"a": 2}')]
    assert "two members are called 'config.json'" in refusal(tmp_path, archive(members))


@pytest.mark.parametrize("name", ["config.json/x.txt", "config.json/", "config.json/a/b"])
def test_a_file_that_is_a_folder_as_well(tmp_path: Path, name: str) -> None:
    members = [*MEMBERS.items(), (name, b"")]
    assert f"'config.json' is a file, and '{name}' lies in it" in refusal(
        tmp_path, archive(members)
    )


def test_folders_may_have_members_of_their_own(tmp_path: Path) -> None:
    members = [*MEMBERS.items(), ("assets/", b""), ("assets/x/", b""), ("assets/x/y", b"1")]
    (tmp_path / "m.keras").write_bytes(archive(members))
    with open_model(tmp_path / "m.keras") as source:
        assert "assets/x/y" in source.extras


@pytest.mark.parametrize(
    "name", ["/etc/passwd", "../x", "a/../../x", "a\\..\\x", "C:x", "\\x", "a\0b"]
)
def test_names_that_lead_elsewhere(tmp_path: Path, name: str) -> None:
    plain = "n" * len(name)  # zipfile itself would repair some of them
    data = archive([*MEMBERS.items(), (plain, b"")])
    data = data.replace(plain.encode(), name.encode())
    assert "no member can be called" in refusal(tmp_path, data)


def test_bytes_before_between_and_behind(tmp_path: Path) -> None:
    data = archive()
    assert "directory does not lie where" in refusal(tmp_path, b"PK\x03\x04junk" + data)
    assert "behind its end" in refusal(tmp_path, data + b"junk")
    assert "directory does not lie where" in refusal(tmp_path, data + data)


def directory_at(data: bytes) -> int:
    return struct.unpack_from("<I", data, len(data) - 6)[0]


def with_gap(data: bytes, at: int, count: int) -> bytes:
    """Insert bytes and move every offset behind them."""
    start = directory_at(data)
    head, directory, end = data[:start], bytearray(data[start:-22]), bytearray(data[-22:])
    place = 0
    while place < len(directory):
        offset = struct.unpack_from("<I", directory, place + 42)[0]
        if offset >= at:
            struct.pack_into("<I", directory, place + 42, offset + count)
        place += 46 + sum(struct.unpack_from("<3H", directory, place + 28))
    struct.pack_into("<I", end, 16, start + count)
    return head[:at] + bytes(count) + head[at:] + bytes(directory) + bytes(end)


def test_bytes_that_belong_to_nothing(tmp_path: Path) -> None:
    data = archive()
    second = data.index(b"PK\x03\x04", 4)
    for at in (second, directory_at(data)):
        gapped = with_gap(data, at, 12)
        assert zipfile.ZipFile(io.BytesIO(gapped)).testzip() is None, "zipfile sees nothing"
        assert f"12 bytes at {at} belong to nothing" in refusal(tmp_path, gapped)


def test_members_that_overlap(tmp_path: Path) -> None:
    # A whole member inside of another one's content.
    inner = archive([("config.json", b'{"evil": 1}')])
    inner_member = inner[: directory_at(inner)]
    data = archive([("notes", inner_member), *MEMBERS.items()])
    start = directory_at(data)
    record = data.index(b"PK\x01\x02", data.index(b"PK\x01\x02", data.index(b"PK\x01\x02") + 1) + 1)
    assert data[record + 46 : record + 57] == b"config.json"
    changed = bytearray(data)
    with zipfile.ZipFile(io.BytesIO(inner)) as archive_:
        info = archive_.infolist()[0]
    struct.pack_into("<3I", changed, record + 16, info.CRC, info.compress_size, info.file_size)
    struct.pack_into("<I", changed, record + 42, data.index(inner_member))
    assert start
    assert "parts of it overlap" in refusal(tmp_path, bytes(changed))


@pytest.mark.parametrize(
    ("field", "width", "value"),
    [(6, 2, 1), (8, 2, 8), (14, 4, 1), (18, 4, 3), (22, 4, 3), (30, 1, ord("C"))],
)
def test_headers_that_contradict_the_directory(
    tmp_path: Path, field: int, width: int, value: int
) -> None:
    changed = bytearray(archive())
    header = changed.index(b"PK\x03\x04", 4)  # config.json's
    changed[header + field : header + field + width] = value.to_bytes(width, "little")
    message = refusal(tmp_path, bytes(changed))
    assert "directory and header of 'config.json' differ" in message


def test_a_directory_that_is_shorter_than_its_count(tmp_path: Path) -> None:
    for here, total in ((2, 2), (4, 4), (3, 4), (0, 0)):
        changed = bytearray(archive())
        struct.pack_into("<2H", changed, len(changed) - 14, here, total)
        refusal(tmp_path, bytes(changed))


def test_a_comment_that_swallows_a_record(tmp_path: Path) -> None:
    members = [("a.txt", b"1"), *MEMBERS.items()]
    changed = bytearray(archive(members))
    first = changed.index(b"PK\x01\x02")
    second = changed.index(b"PK\x01\x02", first + 1)
    third = changed.index(b"PK\x01\x02", second + 1)
    struct.pack_into("<H", changed, first + 32, third - second)  # a.txt's comment
    assert len(zipfile.ZipFile(io.BytesIO(changed)).namelist()) == 3, "zipfile sees nothing"
    assert "its end counts 4 members" in refusal(tmp_path, bytes(changed))


def test_a_record_that_reaches_beyond_the_directory(tmp_path: Path) -> None:
    changed = bytearray(archive())
    last = changed.rindex(b"PK\x01\x02")
    struct.pack_into("<H", changed, last + 32, 5)  # a comment that is not there
    assert len(zipfile.ZipFile(io.BytesIO(changed)).namelist()) == 3, "zipfile sees nothing"
    assert "does not have the size that its end says" in refusal(tmp_path, bytes(changed))


def test_a_stored_member_with_two_sizes(tmp_path: Path) -> None:
    changed = bytearray(archive())
    for signature, field in ((b"PK\x03\x04", 22), (b"PK\x01\x02", 24)):
        struct.pack_into("<I", changed, changed.rindex(signature) + field, len(WEIGHTS) + 1)
    message = refusal(tmp_path, bytes(changed))
    assert "'model.weights.h5' is stored, and its two sizes differ" in message


def test_an_archive_in_several_parts(tmp_path: Path) -> None:
    for offset in (4, 6):
        changed = bytearray(archive())
        changed[len(changed) - 22 + offset] = 1
        assert "one part of several" in refusal(tmp_path, bytes(changed))


def test_an_encrypted_archive(tmp_path: Path) -> None:
    data = archive()
    for flag in (1, 1 << 6, 1 << 13):
        changed = bytearray(data)
        for signature, field in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
            struct.pack_into("<H", changed, changed.index(signature) + field, flag)
        assert "encrypted" in refusal(tmp_path, bytes(changed))


def test_a_compression_that_kprune_does_not_read(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "m.keras", "w", zipfile.ZIP_BZIP2) as file:
        for name, data in MEMBERS.items():
            file.writestr(name, data)
    with pytest.raises(FileError, match="zip method 12") as caught:
        open_model(tmp_path / "m.keras")
    assert not isinstance(caught.value, DamagedFileError)


def test_sizes_in_zip64_fields_are_read(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "m.keras", "w") as file:
        for name, data in MEMBERS.items():
            with file.open(zipfile.ZipInfo(name), "w", force_zip64=True) as member:
                member.write(data)
    with open_model(tmp_path / "m.keras") as source:
        assert source.config == {"a": 1}


def test_a_zip64_end_is_read_and_checked(tmp_path: Path) -> None:
    data = archive()
    start = directory_at(data)
    size = len(data) - 22 - start
    record = struct.pack("<4sQ2H2I4Q", b"PK\x06\x06", 44, 45, 45, 0, 0, 3, 3, size, start)
    locator = struct.pack("<4sIQI", b"PK\x06\x07", 0, start + size, 1)
    end = struct.pack("<4s4H2IH", b"PK\x05\x06", 0, 0, 0xFFFF, 0xFFFF, *[0xFFFFFFFF] * 2, 0)
    (tmp_path / "m.keras").write_bytes(data[:-22] + record + locator + end)
    with open_model(tmp_path / "m.keras") as source:
        assert source.config == {"a": 1}
    for wrong in (
        record + locator.replace(struct.pack("<Q", start + size), struct.pack("<Q", start)),
        record[:24] + struct.pack("<Q", 4) + record[32:] + locator,
        record[:32] + struct.pack("<Q", 4) + record[40:] + locator,
        record + b"\0" + locator,
    ):
        refusal(tmp_path, data[:-22] + wrong + end)


def test_a_bomb_is_refused_before_it_goes_off(tmp_path: Path) -> None:
    for size, refused in ((1 << 20, False), ((1 << 20) + 1, True)):
        with zipfile.ZipFile(tmp_path / "m.keras", "w", zipfile.ZIP_DEFLATED) as file:
            for name, data in MEMBERS.items():
                file.writestr(name, data)
            file.writestr("assets/zeros", bytes(size))
        if refused:
            with kprune.limit(unpacked_bytes=1 << 20), pytest.raises(LimitError) as caught:
                open_model(tmp_path / "m.keras")
            why = f"'assets/zeros' has {size:,} bytes; limit unpacked-bytes, 1,048,576"
            assert caught.value.why == why
        else:
            with kprune.limit(unpacked_bytes=1 << 20):
                open_model(tmp_path / "m.keras").close()
