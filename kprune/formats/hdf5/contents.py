"""What an HDF5 file of weights holds."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from msgspec import Struct, field

from kprune.errors import FileError
from kprune.faults import damaged
from kprune.formats.hdf5.attributes import Message
from kprune.formats.opening import Window
from kprune.formats.source import Tensor
from kprune.text import clean


class Marks(Struct):
    """Where in a plain file's metadata there is something that follows from sizes.

    Attributes:
        end: where the size of the file stands.
        addresses: where the address of another piece of metadata stands.
        extents: for each tensor where its extents stand, and how often: a limit may repeat them.
        storage: for each tensor where the address of its values stands, and then their size.
    """

    end: int = 0
    addresses: list[int] = field(default_factory=list)
    extents: dict[str, tuple[int, int]] = field(default_factory=dict)
    storage: dict[str, int] = field(default_factory=dict)


class Table(Struct, frozen=True):
    """What an HDF5 file of weights holds.

    Attributes:
        tensors: by path, in file order.
        groups: path of each group but the root.
        types: for each tensor its number type's code; see `kprune.formats.hdf5.datatypes`.
        places: for each tensor and group where it begins in the HDF5 file. What was written first
            stands first, so this is the order of creation.
        attributes: for each tensor and group, and "" for the root, what stands beside it: where each
            attribute's message stands, and the message. An object without any is missing.
        marks: what has to be written anew where a tensor's size changes.
    """

    tensors: Mapping[str, Tensor]
    groups: tuple[str, ...]
    types: Mapping[str, bytes]
    places: Mapping[str, int]
    attributes: Mapping[str, list[tuple[int, Message]]]
    marks: Marks


class Found(Struct):
    """The objects of a file as they are met, in any order; `table` puts them in order.

    Attributes: those of `Table`, and
        taken: where in the HDF5 file each of its own structures begins and ends.
    """

    tensors: list[Tensor] = field(default_factory=list)
    groups: list[str] = field(default_factory=list)
    types: dict[str, bytes] = field(default_factory=dict)
    places: dict[str, int] = field(default_factory=dict)
    attributes: dict[str, list[tuple[int, Message]]] = field(default_factory=dict)
    marks: Marks = field(default_factory=Marks)
    taken: list[tuple[int, int]] = field(default_factory=list)

    def table(self, window: Window, where: str) -> Table:
        """All of it, in file order.

        Args:
            window: the HDF5 file.
            where: what messages call it.
        Raises: DamagedFileError if values overlap those of another tensor, or the file's structures.
        """
        tensors = sorted(self.tensors, key=lambda tensor: (self.places[tensor.path], tensor.path))
        self._check_apart(tensors, window, where)
        return Table(
            MappingProxyType({tensor.path: tensor for tensor in tensors}),
            tuple(sorted(self.groups, key=self.places.__getitem__)),
            self.types,
            self.places,
            self.attributes,
            self.marks,
        )

    def _check_apart(self, tensors: list[Tensor], window: Window, where: str) -> None:
        """Values lie alone; that the file's structures do among themselves, their reader has seen."""
        stretches = [(start, stop, "") for start, stop in self.taken]
        stretches += [
            (
                tensor.offset - window.start,
                tensor.offset - window.start + tensor.nbytes,
                tensor.path,
            )
            for tensor in tensors
            if tensor.offset is not None
        ]
        end, before = 0, ""
        for start, stop, path in sorted(stretches):
            if start < end and (path or before):
                of = f"those of {clean(before)}" if path and before else "the file's own structures"
                raise bad(window, where, path or before, f"its values overlap {of}")
            if stop > end:
                end, before = stop, path


def bad(window: Window, where: str, path: str, why: str) -> FileError:
    """The refusal for an object that contradicts the file or itself."""
    return damaged(window.file, why, where=f"{where}, {clean(path)}")
