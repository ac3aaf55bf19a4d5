"""What a zip archive must be, beyond what Python's zipfile looks at.

A zip says everything twice, in the directory at its end and in a header before each member, and
programs differ in whom they believe. kprune takes an archive only if both agree and if its members
and its directory fill it without gap or overlap: then there is one way to read it.
"""

from __future__ import annotations

import struct
import zipfile

from msgspec import Struct

from kprune.errors import DamagedFileError, FileError
from kprune.faults import damaged, parsing
from kprune.formats.opening import OpenFile
from kprune.formats.zip import records as records
from kprune.limits import check_unpacked
from kprune.text import clean

_LONGEST_DIRECTORY = 1 << 24
_LONGEST_COMMENT = 1 << 16
_ENCRYPTED = 1 | 1 << 5 | 1 << 6 | 1 << 13  # encrypted, patched, strongly encrypted, masked
_METHODS = {zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED}


class Member(Struct, frozen=True):
    """A member of a checked archive.

    Attributes:
        info: as zipfile has it.
        offset: where its bytes begin in the archive.
    """

    info: zipfile.ZipInfo
    offset: int

    @property
    def name(self) -> str:
        return self.info.filename

    @property
    def stored(self) -> bool:
        return self.info.compress_type == zipfile.ZIP_STORED


def checked_members(archive: zipfile.ZipFile, file: OpenFile) -> list[Member]:
    """The members of an archive that zipfile has opened, in directory order.

    Raises: DamagedFileError if the archive contradicts itself; FileError if it is encrypted or
        compressed in a way that kprune does not read.
    """
    with parsing(file, "the zip archive"):
        return _Check(archive, file).members()


class _Check:
    def __init__(self, archive: zipfile.ZipFile, file: OpenFile) -> None:
        self.archive, self.file = archive, file

    def members(self) -> list[Member]:
        start, size, count = self._end_record()
        names = self._directory(start, size)
        infos = self.archive.infolist()
        if not len(names) == len(infos) == count:
            raise self._bad(f"its end counts {count} members, its directory holds {len(names)}")
        seen: set[str] = set()
        for info in infos:
            self._name(info, seen)
            self._method(info)
        self._no_file_is_a_folder(seen)
        members = [self._local(info, name) for info, name in zip(infos, names, strict=True)]
        self._no_gaps(members, start)
        return members

    def _end_record(self) -> tuple[int, int, int]:
        """Where the directory starts, its size, and how many members it has."""
        tail_start = max(0, self.file.size - records.END.size - _LONGEST_COMMENT)
        tail = self.file.read(tail_start, self.file.size - tail_start)
        place = len(tail) - records.END.size
        if not (tail[place:].startswith(records.END_SIGNATURE) and tail.endswith(b"\0\0")):
            place = tail.rfind(records.END_SIGNATURE)
        end = records.END.unpack_from(tail, place)
        _, disk, first_disk, here, count, size, start, comment = end
        if place + records.END.size + comment != len(tail):
            raise self._bad("something stands behind its end")
        position = tail_start + place
        full = records.FULL_16 in (here, count) or records.FULL_32 in (size, start)
        if full or self._has_locator(tail, place):
            disk, first_disk, here, count, size, start, position = self._end64(position)
        if disk or first_disk or here != count:
            raise self._bad("it is one part of several")
        if start + size != position or start != self.archive.start_dir:
            raise self._bad("its directory does not lie where its end says")
        if size > _LONGEST_DIRECTORY:
            raise self._bad(f"a directory of {size} bytes is none that Keras wrote")
        return start, size, count

    def _has_locator(self, tail: bytes, place: int) -> bool:
        before = place - records.LOCATOR.size
        return before >= 0 and tail[before:].startswith(records.LOCATOR_SIGNATURE)

    def _end64(self, position: int) -> tuple[int, int, int, int, int, int, int]:
        at = position - records.LOCATOR.size
        mark, disk, start, disks = records.LOCATOR.unpack(self.file.read(at, records.LOCATOR.size))
        if mark != records.LOCATOR_SIGNATURE or disk or disks > 1:
            raise self._bad("its zip64 locator is wrong")
        if start != at - records.END64.size:
            raise self._bad("its zip64 end does not lie where its locator says")
        end = records.END64.unpack(self.file.read(start, records.END64.size))
        if end[0] != records.END64_SIGNATURE or end[1] != records.END64.size - 12:
            raise self._bad("its zip64 end is wrong")
        _, _, _, _, disk, first_disk, here, count, size, offset = end
        return disk, first_disk, here, count, size, offset, start

    def _directory(self, start: int, size: int) -> list[bytes]:
        """The names as they stand in the directory, byte by byte."""
        data = self.file.read(start, size)
        names = []
        at = 0
        while at < size:
            record = records.CENTRAL.unpack_from(data, at)
            lengths = record[10:13]
            name = data[at + records.CENTRAL.size :][: lengths[0]]
            if record[0] != records.CENTRAL_SIGNATURE or record[13]:
                raise self._bad("its directory is wrong")
            names.append(name)
            at += records.CENTRAL.size + sum(lengths)
        if at != size:
            raise self._bad("its directory does not have the size that its end says")
        return names

    def _name(self, info: zipfile.ZipInfo, seen: set[str]) -> None:
        name = info.orig_filename
        parts = name.replace("\\", "/").split("/")
        if "\0" in name or not name or parts[0] == "" or ".." in parts or _has_drive(name):
            raise self._bad(f"no member can be called '{clean(name)}'")
        if info.filename in seen:
            raise self._bad(f"two members are called '{clean(name)}'")
        seen.add(info.filename)

    def _no_file_is_a_folder(self, names: set[str]) -> None:
        """Both `a` and `a/b` cannot be unpacked, as Keras does with an archive that has assets."""
        for name in names:
            for end in (place for place, sign in enumerate(name) if sign == "/"):
                if name[:end] in names:
                    raise self._bad(
                        f"'{clean(name[:end])}' is a file, and '{clean(name)}' lies in it"
                    )

    def _method(self, info: zipfile.ZipInfo) -> None:
        if info.flag_bits & _ENCRYPTED:
            raise FileError(f"cannot read {self.file}", why="the zip archive is encrypted")
        if info.compress_type not in _METHODS:
            raise FileError(
                f"cannot read {self.file}",
                where=clean(info.filename),
                why=f"it is compressed by zip method {info.compress_type}",
                do="unpack it and pack it again with 'zip -0'",
            )
        packed, size = info.compress_size, info.file_size
        if info.compress_type == zipfile.ZIP_STORED and packed != size:
            raise self._bad(f"'{clean(info.filename)}' is stored, and its two sizes differ")
        check_unpacked(packed, size, f"'{clean(info.filename)}'", self.file)

    def _local(self, info: zipfile.ZipInfo, name: bytes) -> Member:
        at = info.header_offset
        if at < 0 or at + records.LOCAL.size > self.file.size:
            raise self._bad(f"'{clean(info.filename)}' would begin behind the end")
        header = records.LOCAL.unpack(self.file.read(at, records.LOCAL.size))
        mark, _, flags, method, _, _, crc, packed, size, name_length, extra_length = header
        rest = self.file.read(at + records.LOCAL.size, name_length + extra_length)
        sizes = self._local_sizes(packed, size, rest[name_length:])
        told: tuple[int, ...] = (crc, *sizes)
        expected = (info.CRC, info.compress_size, info.file_size)
        if flags & records.DESCRIPTOR:  # written before the numbers were known: 0 for those
            told = tuple(new or old for new, old in zip(told, expected, strict=True))
        if (
            mark != records.LOCAL_SIGNATURE
            or flags != info.flag_bits
            or method != info.compress_type
            or rest[:name_length] != name
            or told != expected
        ):
            raise self._bad(f"directory and header of '{clean(info.filename)}' differ")
        return Member(info, at + records.LOCAL.size + name_length + extra_length)

    def _local_sizes(self, packed: int, size: int, extra: bytes) -> tuple[int, int]:
        """The sizes in a local header, which zip64 moves into its extra field."""
        at = 0
        full = records.FULL_32
        while at + 4 <= len(extra) and full in (packed, size):
            kind, length = struct.unpack_from("<2H", extra, at)
            if kind == records.ZIP64_EXTRA:
                large = list(struct.unpack_from(f"<{length // 8}Q", extra, at + 4))
                size = large.pop(0) if size == full and large else size
                packed = large.pop(0) if packed == full and large else packed
                break
            at += 4 + length
        return packed, size

    def _no_gaps(self, members: list[Member], stop: int) -> None:
        """Each byte before the directory belongs to one member, or is a descriptor behind one."""
        end, before = 0, None
        for member in sorted(members, key=lambda member: member.info.header_offset):
            self._follows(before, end, member.info.header_offset)
            end, before = member.offset + member.info.compress_size, member
        self._follows(before, end, stop)

    def _follows(self, member: Member | None, end: int, start: int) -> None:
        if start == end:
            return
        if start < end:
            raise self._bad("parts of it overlap")
        if member and member.info.flag_bits & records.DESCRIPTOR and start - end <= 24:
            found = self.file.read(end, start - end).removeprefix(b"PK\x07\x08")
            numbers = (member.info.CRC, member.info.compress_size, member.info.file_size)
            if found in (struct.pack("<3I", *numbers), struct.pack("<I2Q", *numbers)):
                return
        raise self._bad(f"{start - end} bytes at {end} belong to nothing")

    def _bad(self, why: str) -> DamagedFileError:
        return damaged(self.file, why, where="the zip archive")


def _has_drive(name: str) -> bool:
    """Whether a name starts with a Windows drive, as in `C:model.h5`."""
    return name[1:2] == ":" and name[0].isascii() and name[0].isalpha()
