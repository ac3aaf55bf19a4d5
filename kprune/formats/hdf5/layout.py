"""HDF5 files of weights, laid out: all but the values, and where those will stand.

The metadata, a few kB per layer, stand in the gaps before and between the values. Whoever writes
the file then copies gaps and values front to back, once, at full speed.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from itertools import pairwise

from msgspec import Struct

from kprune.errors import FileError
from kprune.formats.hdf5.attributes import Stored
from kprune.formats.hdf5.new_metadata import NewDataset, NewMetadata
from kprune.formats.opening import OpenFile


class Space(Struct, frozen=True):
    """Room for one tensor.

    Attributes:
        path: of the dataset.
        shape: its extents.
        kind: its number type's code; see `kprune.formats.hdf5.datatypes`.
    """

    path: str
    shape: tuple[int, ...]
    kind: bytes


class Layout(Struct, frozen=True):
    """An HDF5 file without its values.

    Attributes:
        size: of the whole file, in bytes.
        offsets: where each tensor's values go; a tensor without values is missing.
        sizes: how many bytes they are, for the same tensors.
        gaps: (start, bytes) of all the rest, in order.
        spaces: all tensors, those without values too.
    """

    size: int
    offsets: dict[str, int]
    sizes: dict[str, int]
    gaps: list[tuple[int, bytes]]
    spaces: list[Space]


def lay_out(
    objects: Iterable[str | Space], attributes: Mapping[str, Mapping[str, Stored]]
) -> Layout:
    """Lay out a file the way Keras writes it: oldest format, contiguous, no times.

    Args:
        objects: groups (as paths) and datasets in the order in which they are created. A group that
            a path needs is created on the way.
        attributes: what stands beside groups and datasets, by path ("" for the root)
            and name.
    Raises: FileError if an attribute is longer than the format can hold.
    """
    metadata = NewMetadata(attributes)
    spaces = []
    for item in objects:
        if isinstance(item, str):
            metadata.group(item)
        else:
            metadata.dataset(NewDataset(item.path, item.shape, item.kind))
            spaces.append(item)
    content = metadata.content()
    stored = [dataset for dataset in metadata.datasets if dataset.nbytes]
    offsets = {dataset.path: dataset.values for dataset in stored}
    sizes = {dataset.path: dataset.nbytes for dataset in stored}
    return Layout(metadata.size, offsets, sizes, [(0, content), *_pads(stored)], spaces)


def _pads(stored: list[NewDataset]) -> Iterator[tuple[int, bytes]]:
    """What stands between values that do not end at a multiple of 8."""
    for dataset, following in pairwise(stored):
        end = dataset.values + dataset.nbytes
        if end < following.values:
            yield end, bytes(following.values - end)


def check_layout(layout: Layout, fd: int, start: int, name: str) -> None:
    """Read back the metadata of a file that was written, and compare it with what was laid out.

    Args:
        fd: of the file, open for reading.
        start: where the HDF5 file begins in it.
        name: how messages call it.
    Raises: FileError if it differs.
    """
    file = OpenFile(os.dup(fd), None, name)
    try:
        same = all(file.read(start + at, len(data)) == data for at, data in layout.gaps)
        why = "what stands around the values is not what was put there"
    except FileError as error:
        same, why = False, error.why or error.what
    finally:
        file.close()
    if not same:
        raise FileError(
            f"what was written to {name} does not read back, so it was thrown away",
            why=why,
            do="check the disk, then run the command again",
        )
