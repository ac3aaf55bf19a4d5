"""The structures of the oldest HDF5 format, as h5py writes them by default: of files read, and of new ones.

Source: HDF5 File Format Specification 1.1 (support.hdfgroup.org/documentation).
"""

from __future__ import annotations

import struct

UNDEFINED = (1 << 64) - 1
"""The address of what is not there."""

HIGHEST_RANK = 32

HEADER = struct.Struct("<BxHII4x")
MESSAGE = struct.Struct("<HHB3x")
TREE = struct.Struct("<4sBBHQQ")
HEAP = struct.Struct("<4sB3xQQQ")
LEAF = struct.Struct("<4sBxH")
ENTRY = struct.Struct("<QQII16s")
PAIR = struct.Struct("<QQ")
SPACE = struct.Struct("<BBB5x")
LAYOUT = struct.Struct("<BBQQ")
REFERENCE = struct.Struct("<IQI")
"""Stands in place of a value of variable length: how many items, in which heap, by which number."""

LEAF_ENTRIES, TREE_CHILDREN = 8, 32
"""Twice the two constants in the superblock."""

LEAF_SIZE = LEAF.size + LEAF_ENTRIES * ENTRY.size
TREE_SIZE = TREE.size + 8 * (2 * TREE_CHILDREN + 1)
NO_FREE_ROOM = 1
"""In a heap of names, in place of an address."""

# Messages of an object header.
NIL, DATASPACE, DATATYPE, OLD_FILL, FILL, DATA_LAYOUT = 0, 1, 3, 4, 5, 8
ATTRIBUTE, CONTINUATION, SYMBOL_TABLE, MODIFIED = 12, 16, 17, 18
CONSTANT = 1
"""The one flag of a message that h5py sets."""

LAYOUT_VERSION, CONTIGUOUS = 3, 1
NO_FILL = b"\2\2\2\1\0\0\0\0"
"""Allocated late, filled if set, which it is not."""

NO_VALUES = b"\2\0\0\2"
"""The dataspace of an attribute without values."""
