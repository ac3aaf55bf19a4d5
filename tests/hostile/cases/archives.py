"""Zip archives that contradict themselves, lie about sizes, or hold what no model holds."""

from __future__ import annotations

import io
import stat
import struct
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path

from tests.hostile.case import add_all, bad
from tests.hostile.seeds import keras, members, weights, zipped

CENTRAL, END = b"PK\x01\x02", b"PK\x05\x06"


def entries(data: bytes) -> list[int]:
    """Where the records of the directory begin, in their order."""
    found, at = [], data.index(CENTRAL)
    while data[at : at + 4] == CENTRAL:
        found.append(at)
        name, extra, comment = struct.unpack("<HHH", data[at + 28 : at + 34])
        at += 46 + name + extra + comment
    return found


def patched(entry: int, at: int, value: bytes, *, local: int | None = None) -> bytes:
    """The good file with bytes of a record in the directory changed.

    Args:
        entry: 0 metadata.json, 1 config.json, 2 model.weights.h5.
        at: where, from the record's beginning.
        local: where the same stands in the member's own header, to be changed as well.
    """
    data = bytearray(keras())
    record = entries(bytes(data))[entry]
    data[record + at : record + at + len(value)] = value
    if local is not None:
        (header,) = struct.unpack("<I", data[record + 42 : record + 46])
        data[header + local : header + local + len(value)] = value
    return bytes(data)


def end_patched(at: int, value: bytes) -> bytes:
    """The good file with bytes of its end record changed."""
    data = bytearray(keras())
    end = data.rindex(END)
    data[end + at : end + at + len(value)] = value
    return bytes(data)


def more(*extra: tuple[str | zipfile.ZipInfo, bytes]) -> bytes:
    """The good file with further members, which may bear a name that there is already."""
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w") as archive:
        for name, content in [*members().items(), *extra]:
            info = zipfile.ZipInfo(name) if isinstance(name, str) else name
            archive.writestr(info, content)
    return data.getvalue()


def renamed(old: str, new: bytes) -> bytes:
    """An archive with a member whose name zipfile itself would not write."""
    made = more((old, b"some text"))
    assert len(old) == len(new)
    return made.replace(old.encode(), new)


def bomb(name: str, size: int) -> bytes:
    """The good file with a member that unpacks to `size` bytes of spaces from a thousandth of that."""
    block = b" " * (1 << 20)
    packer = zlib.compressobj(9, zlib.DEFLATED, -15)
    piece = packer.compress(block) + packer.flush(zlib.Z_FULL_FLUSH)
    stream = piece * (size >> 20) + b"\x03\0"
    parts = members() | {name: b""}
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w") as archive:
        for member, content in parts.items():
            if member != name:
                archive.writestr(zipfile.ZipInfo(member), content)
        archive.writestr(zipfile.ZipInfo(name), stream)
    out = bytearray(data.getvalue())
    record = entries(bytes(out))[-1]
    (header,) = struct.unpack("<I", out[record + 42 : record + 46])
    crc = 0
    for _ in range(size >> 20):
        crc = zlib.crc32(block, crc)
    for at, crc_at in ((record + 10, record + 16), (header + 8, header + 14)):
        out[at : at + 2] = struct.pack("<H", zipfile.ZIP_DEFLATED)
        out[crc_at : crc_at + 12] = struct.pack("<III", crc, len(stream), size)
    return bytes(out)


def linked() -> bytes:
    info = zipfile.ZipInfo("assets/words.txt")
    info.create_system, info.external_attr = 3, (stat.S_IFLNK | 0o777) << 16
    return more((info, b"/etc/passwd"))


def without(*names: str) -> bytes:
    return zipped({name: text for name, text in members().items() if name not in names})


def overlapping() -> bytes:
    """Two names for the very same bytes."""
    data = bytearray(more(("config.jsox", b"x")))
    first, second = entries(bytes(data))[1], entries(bytes(data))[3]
    data[second + 42 : second + 46] = data[first + 42 : first + 46]
    return bytes(data)


def swallowing() -> bytes:
    """The comment of one record covers the next: a reader sees a member less."""
    data = bytearray(keras())
    first, second = entries(bytes(data))[1:3]
    length = len(data) - 22 - second
    data[first + 32 : first + 34] = struct.pack("<H", length)
    return bytes(data)


def flipped(name: str) -> bytes:
    """A bit of a member's content is another; its checksum is not."""
    data = bytearray(more(("assets/words.txt", b"one\ntwo\n")))
    data[data.index(members().get(name, b"one\ntwo\n")) + 5] ^= 1
    return bytes(data)


def zip64(sizes: bytes) -> bytes:
    """The directory's sizes of the weights stand in an extra field, which lies."""
    data = bytearray(keras())
    record = entries(bytes(data))[2]
    extra = struct.pack("<HH", 1, len(sizes)) + sizes
    data[record + 20 : record + 28] = b"\xff" * 8
    data[record + 30 : record + 32] = struct.pack("<H", len(extra))
    name = struct.unpack("<H", data[record + 28 : record + 30])[0]
    place = record + 46 + name
    data[place:place] = extra
    end = data.rindex(END)
    (length,) = struct.unpack("<I", data[end + 12 : end + 16])
    data[end + 12 : end + 16] = struct.pack("<I", length + len(extra))
    return bytes(data)


def cut(amount: int) -> Callable[[], bytes]:
    return lambda: keras()[:amount]


def methods(method: int) -> Callable[[], bytes]:
    return lambda: zipped(members(), method)


CONFIG, WEIGHTS = "config.json", "model.weights.h5"
add_all("zip", {
    "two members called config.json": (lambda: more((CONFIG, b"{}")), f"two members are called '{CONFIG}'"),
    "two members called model.weights.h5": (lambda: more((WEIGHTS, b"")), WEIGHTS),
    "two assets of one name": (
        lambda: more(("assets/w.txt", b"1"), ("assets/w.txt", b"2")), "assets/w.txt"),
    "two names for the same bytes": (overlapping, "config.jsox"),
    "a record hidden in a comment": (swallowing, "zip archive"),
    "a changed bit in config.json": (lambda: flipped(CONFIG), CONFIG),
    "a huge size of config.json": (
        lambda: patched(1, 24, b"\xf0\xff\xff\xff", local=22), CONFIG),
    "a huge size of the weights": (
        lambda: patched(2, 24, b"\xf0\xff\xff\xff", local=22), WEIGHTS),
    "a huge packed size of the weights": (
        lambda: patched(2, 20, b"\xf0\xff\xff\xff" * 2, local=18), "overlap"),
    "zip64 sizes beyond the file": (lambda: zip64(struct.pack("<QQ", 1 << 50, 1 << 50)),),
    "zip64 sizes below zero": (lambda: zip64(b"\xff" * 16),),
    "a zip64 field that is too short": (lambda: zip64(b"\1\2"),),
    "an encrypted config.json": (lambda: patched(1, 8, b"\1\0", local=6), "encrypted"),
    "encrypted weights": (lambda: patched(2, 8, b"\x41\0", local=6), "encrypted"),
    "an absolute name": (lambda: more(("/etc/kprune.txt", b"x")), "/etc/kprune.txt"),
    "a climbing name": (lambda: more(("../climbs.txt", b"x")), "../climbs.txt"),
    "a name that climbs later": (lambda: more(("assets/../../climbs.txt", b"x")), "climbs.txt"),
    "a name with backslashes": (
        lambda: renamed("assets/..x..x.txt", b"assets\\..\\..\\.txt"), "assets"),
    "a name with a drive": (lambda: more(("C:/kprune.txt", b"x")), "C:/kprune.txt"),
    "a name with a zero byte": (lambda: renamed("assets/x.txt", b"assets/\0.txt"), "assets"),
    "a name that is no UTF-8": (
        lambda: patched(1, 8, b"\0\x08", local=6).replace(b"config.json", b"\xff" * 11),),
    "config.json as a folder": (
        lambda: zipped({**members(config=None), "config.json/": b""}), CONFIG),
    "a folder below config.json": (lambda: more(("config.json/x.txt", b"x")), "config.json/x.txt"),
    "no config.json": (lambda: without(CONFIG), CONFIG),
    "no weights": (lambda: without(WEIGHTS), WEIGHTS),
    "no members that Keras knows": (lambda: zipped({"x.txt": b"x"}),),
    "no members at all": (lambda: zipped({}), "empty"),
    "weights as .npz": (
        lambda: zipped({**members(weights=None), "model.weights.npz": zipped({"a.npy": b""})}),
        "model.weights"),
    "a model in a zip in a zip": (lambda: zipped({"model.keras": keras()}), "model.keras"),
    "bzip2": (methods(zipfile.ZIP_BZIP2),),
    "LZMA": (methods(zipfile.ZIP_LZMA),),
    "a compression that there is not": (lambda: patched(1, 10, b"\x63\0", local=8), CONFIG),
    "another name before the member": (
        lambda: keras().replace(b"config.json", b"confiG.json", 1), CONFIG),
    "another size before the member": (
        lambda: patched(2, 24, struct.pack("<I", len(weights()) - 8)), WEIGHTS),
    "another compression before the member": (lambda: patched(1, 10, b"\x08\0"), CONFIG),
    "a number of a second disk": (lambda: end_patched(4, b"\1\0"),),
    "members on a second disk": (lambda: patched(1, 34, b"\1\0"),),
    "fewer entries than records": (lambda: end_patched(8, b"\2\0\2\0"),),
    "more entries than records": (lambda: end_patched(8, b"\x09\0\x09\0"),),
    "a directory beyond the file": (lambda: end_patched(16, b"\0\0\0\x7f"),),
    "a directory at zero": (lambda: end_patched(16, bytes(4)),),
    "a directory that is too long": (lambda: end_patched(12, b"\xff\xff\xff\x7f"),),
    "a zip64 marker without zip64": (lambda: end_patched(8, b"\xff" * 12),),
    "a member beyond the file": (lambda: patched(2, 42, b"\0\0\0\x7f"), WEIGHTS),
    "a member at the directory": (lambda: patched(2, 42, b"\xff\xff\0\0"), WEIGHTS),
    "bytes after the end": (lambda: keras() + b"more" * 100,),
    "bytes before the beginning": (lambda: b"PK\x03\x04" + bytes(60) + keras(),),
    "a second archive behind the first": (lambda: keras() + keras(),),
    "cut within the end record": (cut(-7),),
    "cut within the directory": (cut(-100),),
    "cut within the weights": (cut(9000),),
    "cut within config.json": (cut(900),),
    "cut after four bytes": (cut(4),),
    "a bomb as config.json": (lambda: bomb(CONFIG, 2 << 30), CONFIG),
    "a bomb as metadata.json": (lambda: bomb("metadata.json", 2 << 30), "metadata.json"),
    "a bomb as the weights": (lambda: bomb(WEIGHTS, 3 << 30), WEIGHTS),
})  # fmt: skip


# These show when the file is written, and everything is read for that.
add_all("zip", {
    "a changed bit in the weights": (
        lambda: patched(2, 16, b"\1\2\3\4", local=14), WEIGHTS, "checksum"),
    "a changed bit in an asset": (lambda: flipped("assets/words.txt"), "assets/words.txt"),
}, inspect_code=0)  # fmt: skip
add_all("zip", {
    "a bomb as an asset": (lambda: bomb("assets/words.txt", 4095 << 20), "assets/words.txt"),
})  # fmt: skip
# No harm is in these: a link is a member like any other, whose bytes are carried over.
add_all("zip", {
    "a member that is a symbolic link": (linked,),
    "20,000 assets": (lambda: zipped(members() | {f"assets/{n}": b"" for n in range(20_000)}),),
}, code=0, inspect_code=0)  # fmt: skip


@bad("zip", "config.json")
def sparse_config_in_a_folder(folder: Path) -> None:
    """config.json says that it has three gigabytes, none of which are on the disk."""
    (folder / "bad.keras").mkdir()
    for name, content in members().items():
        (folder / "bad.keras" / name).write_bytes(content)
    with open(folder / "bad.keras" / "config.json", "r+b") as file:
        file.truncate(3 << 30)
