"""The metadata of a new HDF5 file, as h5py writes them by default: the oldest format.

    superblock | for each group: header, tree of names, names | datasets' headers | heaps | values

Source: HDF5 File Format Specification 1.1 (support.hdfgroup.org/documentation).
"""

from __future__ import annotations

import math
import struct
from collections.abc import Mapping

from msgspec import Struct, field

from kprune.errors import FileError
from kprune.formats.hdf5.attributes import Stored, body, item_size, space_of
from kprune.formats.hdf5.datatypes import parsed
from kprune.formats.hdf5.global_heap import HeapWriter
from kprune.formats.hdf5.structures import (
    ATTRIBUTE,
    CONSTANT,
    CONTIGUOUS,
    DATA_LAYOUT,
    DATASPACE,
    DATATYPE,
    ENTRY,
    FILL,
    HEADER,
    HEAP,
    LAYOUT,
    LAYOUT_VERSION,
    LEAF,
    LEAF_ENTRIES,
    LEAF_SIZE,
    MESSAGE,
    NO_FILL,
    NO_FREE_ROOM,
    PAIR,
    REFERENCE,
    SYMBOL_TABLE,
    TREE,
    TREE_CHILDREN,
    TREE_SIZE,
    UNDEFINED,
)
from kprune.text import clean

_LONGEST_MESSAGE = 65528
_SIGNATURE = b"\x89HDF\r\n\x1a\n"
_SUPERBLOCK = struct.Struct("<8s8BHHIQQQQ")
_ROOM_FOR_SUPERBLOCK = 96


class NewDataset(Struct):
    """A dataset of the new file.

    Attributes:
        path: of it.
        shape: its extents.
        kind: its number type's code.
        values: where its values stand, once they are placed.
        header: where its header stands.
    """

    path: str
    shape: tuple[int, ...]
    kind: bytes
    values: int = UNDEFINED
    header: int = 0

    @property
    def nbytes(self) -> int:
        """Of its values."""
        return math.prod(self.shape) * parsed(self.kind).size


class _Group(Struct):
    path: str
    members: dict[bytes, _Group | NewDataset] = field(default_factory=dict)
    header: int = 0
    tree: int = 0
    names: int = 0


class NewMetadata:
    """Everything but values, for groups and datasets that are added one by one.

    Args:
        attributes: what stands beside groups and datasets, by path ("" for the root)
            and name.
    """

    def __init__(self, attributes: Mapping[str, Mapping[str, Stored]]) -> None:
        self.attributes = {path: tuple(found.values()) for path, found in attributes.items()}
        self.groups = {"": _Group("")}
        self.datasets: list[NewDataset] = []
        self.heaps = HeapWriter()
        self._in_heap: dict[tuple[str, bytes], list[tuple[int, int]]] = {}
        self._end = _ROOM_FOR_SUPERBLOCK
        self._parts: list[tuple[int, bytes]] = []

    def group(self, path: str) -> _Group:
        """Add a group, and those around it, unless they are there."""
        found = self.groups.get(path)
        if found is None:
            parent, _, name = path.rpartition("/")
            found = _Group(path)
            self._add(self.group(parent), name, found)
            self.groups[path] = found
        return found

    def dataset(self, dataset: NewDataset) -> None:
        """Add a dataset. Raises: ValueError for a second object of one name, which is a bug."""
        parent, _, name = dataset.path.rpartition("/")
        self._add(self.group(parent), name, dataset)
        self.datasets.append(dataset)

    def _add(self, group: _Group, name: str, item: _Group | NewDataset) -> None:
        if group.members.setdefault(name.encode(), item) is not item:
            raise ValueError(f"two objects would be called {name}")

    def content(self) -> bytes:
        """All metadata. The values of each dataset stand behind them, in the order of `datasets`.

        Raises: FileError if an attribute is longer than this format can hold.
        """
        for path in (*self.groups, *(dataset.path for dataset in self.datasets)):
            for stored in self.attributes.get(path, ()):
                self._check_length(path, stored)
                if stored.items is not None:
                    self._in_heap[path, stored.name] = self.heaps.put(stored.items)
        for group in self.groups.values():
            self._place_group(group)
        for dataset in self.datasets:
            dataset.header = self._take(self._header_size(dataset.path, self._of(dataset)))
        heaps = self._end
        self._end = _aligned(self.heaps.place(heaps))
        size = self._end
        self._place_values()
        for group in self.groups.values():
            self._write_group(group)
        for dataset in self.datasets:
            self._write(dataset.header, self._header(dataset.path, self._of(dataset)))
        self._write(heaps, self.heaps.content())
        self._write(0, self._superblock())
        return self._joined(size)

    @property
    def size(self) -> int:
        """Of the whole file, once `content` was called."""
        return self._end

    # -- where everything stands -------------------------------------------------------------------

    def _take(self, size: int) -> int:
        start = self._end
        self._end = _aligned(start + size)
        return start

    def _place_group(self, group: _Group) -> None:
        group.header = self._take(self._header_size(group.path, self._links(group)))
        leaves = -(-len(group.members) // LEAF_ENTRIES)
        group.tree = self._take(sum(_level_sizes(leaves)) * TREE_SIZE + leaves * LEAF_SIZE)
        names = 8 + sum(_aligned(len(name) + 1) for name in group.members)
        group.names = self._take(HEAP.size + names)

    def _place_values(self) -> None:
        for dataset in self.datasets:
            if dataset.nbytes:
                dataset.values = _aligned(self._end)
                self._end = dataset.values + dataset.nbytes

    # -- headers -----------------------------------------------------------------------------------

    def _links(self, group: _Group) -> list[tuple[int, int, bytes]]:
        """A group's own messages, as (type, flags, message)."""
        return [(SYMBOL_TABLE, 0, PAIR.pack(group.tree, group.names))]

    def _of(self, dataset: NewDataset) -> list[tuple[int, int, bytes]]:
        """A dataset's own messages."""
        size = dataset.nbytes
        place = LAYOUT.pack(LAYOUT_VERSION, CONTIGUOUS, dataset.values if size else UNDEFINED, size)
        return [
            (DATASPACE, 0, space_of(dataset.shape)),
            (DATATYPE, CONSTANT, dataset.kind),
            (FILL, CONSTANT, NO_FILL),
            (DATA_LAYOUT, 0, place),
        ]

    def _messages(
        self, path: str, own: list[tuple[int, int, bytes]]
    ) -> list[tuple[int, int, bytes]]:
        return own + [
            (ATTRIBUTE, 0, self._attribute(path, it)) for it in self.attributes.get(path, ())
        ]

    def _attribute(self, path: str, stored: Stored) -> bytes:
        if stored.items is None:
            return body(stored, b"")
        size = item_size(stored)
        places = self._in_heap[path, stored.name]
        pairs = zip(places, stored.items, strict=True)
        return body(
            stored,
            b"".join(self.heaps.reference(place, len(item) // size) for place, item in pairs),
        )

    def _check_length(self, path: str, stored: Stored) -> None:
        count = len(stored.items) * REFERENCE.size if stored.items is not None else len(stored.data)
        if count + len(stored.name) + len(stored.kind) + len(stored.space) + 64 > _LONGEST_MESSAGE:
            raise FileError(
                "an attribute is too long for the format in which kprune writes",
                where=f"{clean(path)}, {clean(stored.name.decode())}",
                why=f"it has {count:,} bytes, and an object's header holds {_LONGEST_MESSAGE:,}",
            )

    def _header_size(self, path: str, own: list[tuple[int, int, bytes]]) -> int:
        return len(self._header(path, own))

    def _header(self, path: str, own: list[tuple[int, int, bytes]]) -> bytes:
        messages = self._messages(path, own)
        parts = []
        for kind, flags, message in messages:
            padded = _aligned(len(message))
            parts += [MESSAGE.pack(kind, padded, flags), message.ljust(padded, b"\0")]
        data = b"".join(parts)
        return HEADER.pack(1, len(messages), 1, len(data)) + data

    def _superblock(self) -> bytes:
        constants = (LEAF_ENTRIES // 2, TREE_CHILDREN // 2, 0)
        places = (0, UNDEFINED, self._end, UNDEFINED)
        versions = (0, 0, 0, 0, 0, 8, 8, 0)
        return _SUPERBLOCK.pack(_SIGNATURE, *versions, *constants, *places) + _entry(
            0, self.groups[""]
        )

    # -- groups ------------------------------------------------------------------------------------

    def _write_group(self, group: _Group) -> None:
        self._write(group.header, self._header(group.path, self._links(group)))
        names = [bytes(8)]
        at, entries = 8, []
        for name, item in sorted(group.members.items()):
            entries.append((at, _entry(at, item)))
            names.append(name.ljust(_aligned(len(name) + 1), b"\0"))
            at += len(names[-1])
        place = group.names + HEAP.size
        self._write(group.names, HEAP.pack(b"HEAP", 0, at, NO_FREE_ROOM, place))
        self._write(place, b"".join(names))
        self._write_tree(group.tree, entries)

    def _write_tree(self, root: int, entries: list[tuple[int, bytes]]) -> None:
        """The leaves stand behind the nodes; the root is the first node, its level the last."""
        leaves = [
            entries[start : start + LEAF_ENTRIES] for start in range(0, len(entries), LEAF_ENTRIES)
        ]
        counts = _level_sizes(len(leaves))
        at = root + sum(counts) * TREE_SIZE
        children = []
        for leaf in leaves:
            data = LEAF.pack(b"SNOD", 1, len(leaf)) + b"".join(entry for _, entry in leaf)
            self._write(at, data.ljust(LEAF_SIZE, b"\0"))
            children.append((leaf[-1][0], at))
            at += LEAF_SIZE
        for level, count in enumerate(counts):
            children = self._write_level(
                root + sum(counts[level + 1 :]) * TREE_SIZE, level, count, children
            )

    def _write_level(
        self, start: int, level: int, count: int, children: list[tuple[int, int]]
    ) -> list[tuple[int, int]]:
        """One level of a tree. Args: children: for each one the last name in it and its address."""
        nodes = []
        lower = 0
        for number in range(count):
            held = children[number * TREE_CHILDREN : (number + 1) * TREE_CHILDREN]
            at = start + number * TREE_SIZE
            left = at - TREE_SIZE if number else UNDEFINED
            right = at + TREE_SIZE if number < count - 1 else UNDEFINED
            keys = struct.pack("<Q", lower) + b"".join(
                PAIR.pack(child, last) for last, child in held
            )
            head = TREE.pack(b"TREE", 0, level, len(held), left, right)
            self._write(at, (head + keys).ljust(TREE_SIZE, b"\0"))
            lower = held[-1][0] if held else 0
            nodes.append((lower, at))
        return nodes

    # -- bytes -------------------------------------------------------------------------------------

    def _write(self, at: int, data: bytes) -> None:
        self._parts.append((at, data))

    def _joined(self, size: int) -> bytes:
        whole = bytearray(size)
        for at, data in self._parts:
            whole[at : at + len(data)] = data
        return bytes(whole)


def _entry(name: int, item: _Group | NewDataset) -> bytes:
    """An object's entry in its group; a group's repeats where its own links are."""
    if isinstance(item, NewDataset):
        return ENTRY.pack(name, item.header, 0, 0, bytes(16))
    return ENTRY.pack(name, item.header, 1, 0, PAIR.pack(item.tree, item.names))


def _level_sizes(leaves: int) -> list[int]:
    """How many nodes each level of a tree has, from the lowest to the root alone."""
    sizes = [max(1, -(-leaves // TREE_CHILDREN))]
    while sizes[-1] > 1:
        sizes.append(-(-sizes[-1] // TREE_CHILDREN))
    return sizes


def _aligned(size: int) -> int:
    return -(-size // 8) * 8
