"""The records of a zip archive, as Keras lets Python write them: stored, dated 1980, mode 0600.

Written by hand because zipfile writes members one after the other, while kprune knows all sizes
first and all checksums last. APPNOTE.TXT 6.3 (PKWARE) is the source of the numbers.
"""

from __future__ import annotations

import struct

from msgspec import Struct

LOCAL = struct.Struct("<4s5H3I2H")
CENTRAL = struct.Struct("<4s6H3I5H2I")
END = struct.Struct("<4s4H2IH")
END64 = struct.Struct("<4sQ2H2I4Q")
LOCATOR = struct.Struct("<4sIQI")

LOCAL_SIGNATURE = b"PK\x03\x04"
CENTRAL_SIGNATURE = b"PK\x01\x02"
END_SIGNATURE = b"PK\x05\x06"
END64_SIGNATURE = b"PK\x06\x06"
LOCATOR_SIGNATURE = b"PK\x06\x07"

FULL_32 = 0xFFFFFFFF
FULL_16 = 0xFFFF
ZIP64_EXTRA = 1
UTF8 = 0x800
DESCRIPTOR = 0x8
STORED = 0

_VERSION, _VERSION_64 = 20, 45
_UNIX = 3 << 8
_DATE_1980 = (1 << 5) | 1  # the first of January; years count from 1980
_FILE_MODE = 0o600 << 16
_FOLDER_MODE = (0o040700 << 16) | 0x10  # the MS-DOS bit for a folder


class NewMember(Struct):
    """A member to be written; `crc` is filled in once its bytes are known.

    Attributes:
        name: a name ending in '/' is a folder.
        size: of the content, in bytes.
        offset: of the local header, in the archive.
        crc: CRC-32 of the content.
    """

    name: str
    size: int
    offset: int
    crc: int = 0

    @property
    def data_offset(self) -> int:
        """Where the content begins."""
        return self.offset + len(self.local_header())

    @property
    def end(self) -> int:
        return self.data_offset + self.size

    def _encoded(self) -> tuple[bytes, int]:
        try:
            return self.name.encode("ascii"), 0
        except UnicodeEncodeError:
            return self.name.encode(), UTF8

    def local_header(self) -> bytes:
        name, flags = self._encoded()
        size, extra, version = self.size, b"", _VERSION
        if size >= FULL_32:
            extra = struct.pack("<2H2Q", ZIP64_EXTRA, 16, size, size)
            size, version = FULL_32, _VERSION_64
        return (
            LOCAL.pack(
                LOCAL_SIGNATURE, version, flags, STORED, 0, _DATE_1980,
                self.crc, size, size, len(name), len(extra),
            )
            + name
            + extra
        )  # fmt: skip

    def central_record(self) -> bytes:
        name, flags = self._encoded()
        size, offset, large = self.size, self.offset, []
        if size >= FULL_32:
            large += [size, size]
            size = FULL_32
        if offset >= FULL_32:
            large.append(offset)
            offset = FULL_32
        extra = b""
        if large:
            extra = struct.pack(f"<2H{len(large)}Q", ZIP64_EXTRA, 8 * len(large), *large)
        version = _VERSION_64 if large else _VERSION
        mode = _FOLDER_MODE if self.name.endswith("/") else _FILE_MODE
        return (
            CENTRAL.pack(
                CENTRAL_SIGNATURE, _UNIX | version, version, flags, STORED, 0, _DATE_1980,
                self.crc, size, size, len(name), len(extra), 0, 0, 0, mode, offset,
            )
            + name
            + extra
        )  # fmt: skip


def directory(members: list[NewMember]) -> bytes:
    """The central directory of an archive whose members lie one behind the other, and its end."""
    start = members[-1].end
    records = b"".join(member.central_record() for member in members)
    count, size, offset = len(members), len(records), start
    end64 = b""
    if count >= FULL_16 or offset >= FULL_32:
        end64 = END64.pack(
            END64_SIGNATURE, END64.size - 12, _UNIX | _VERSION_64, _VERSION_64, 0, 0,
            count, count, size, offset,
        ) + LOCATOR.pack(LOCATOR_SIGNATURE, 0, start + size, 1)  # fmt: skip
        count, offset = min(count, FULL_16), min(offset, FULL_32)
    return records + end64 + END.pack(END_SIGNATURE, 0, 0, count, count, size, offset, 0)
