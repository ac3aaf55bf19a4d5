"""HDF5 files damaged structure by structure, and what HDF5 can do that Keras never does."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable
from typing import Any

import h5py
import numpy as np

from tests.hostile.case import add_all
from tests.hostile.seeds import changed_weights, keras, tensors, weights
from tests.hostile.structures import (
    ATTRIBUTE,
    DATASPACE,
    DATATYPE,
    FILTERS,
    LAYOUT,
    Hdf5,
)

WEIGHTS, KERNEL, GROUP = "model.weights.h5", "layers/dense/vars/0", "layers/dense"
NOWHERE = (1 << 64) - 1


def named(file: h5py.File) -> None:
    """Keras names the layer that a group belongs to; the damage to attributes needs one."""
    file["layers/dense/vars"].attrs["name"] = "a"


def damaged(change: Callable[[Hdf5], Any]) -> Callable[[], bytes]:
    """A file whose weights are changed byte by byte; the checksum of the zip is right."""

    def make() -> bytes:
        made = Hdf5(weights(more=named))
        change(made)
        return keras(weights=bytes(made.data))

    return make


def message(kind: int, at: int, value: int | bytes, size: int = 8) -> Callable[[], bytes]:
    """A file whose kernel has another value in a message of its header."""
    return damaged(lambda f: f.put(f.message(KERNEL, kind) + at, value, size))


def header(at: int, value: int, size: int, path: str = KERNEL) -> Callable[[], bytes]:
    return damaged(lambda f: f.put(f.header(path) + at, value, size))


def tree(at: int, value: int, size: int = 8, path: str = GROUP) -> Callable[[], bytes]:
    return damaged(lambda f: f.put(f.group(path)[0] + at, value, size))


def heap(at: int, value: int, size: int = 8, path: str = GROUP) -> Callable[[], bytes]:
    return damaged(lambda f: f.put(f.group(path)[1] + at, value, size))


def node(at: int, value: int, size: int = 8, path: str = GROUP) -> Callable[[], bytes]:
    return damaged(lambda f: f.put(f.node(path) + at, value, size))


def superblock(at: int, value: int | bytes, size: int = 8) -> Callable[[], bytes]:
    return damaged(lambda f: f.put(at, value, size))


def attribute(at: int, value: int | bytes, size: int = 8) -> Callable[[], bytes]:
    return damaged(lambda f: f.put(f.message("layers/dense/vars", ATTRIBUTE) + at, value, size))


def cut(place: Callable[[Hdf5], int]) -> Callable[[], bytes]:
    """A file whose weights end at some structure; the zip is whole."""

    def make() -> bytes:
        made = Hdf5(weights(more=named))
        return keras(weights=bytes(made.data[: place(made)]))

    return make


def own_tree(f: Hdf5) -> None:
    """A group's B-tree whose child is itself."""
    at = f.group(GROUP)[0]
    f.put(at + 5, 1, 1).put(at + 32, at)


def sibling(f: Hdf5) -> None:
    at = f.group(GROUP)[0]
    f.put(at + 8, at).put(at + 16, at)


def own_group(f: Hdf5) -> None:
    """A group that is an entry of itself, byte for byte."""
    f.put(f.node(GROUP) + 8 + 8, f.header(GROUP))


def root_in_group(f: Hdf5) -> None:
    f.put(f.node(GROUP) + 8 + 8, f.header("/"))


def continued(f: Hdf5) -> None:
    """A header whose continuation is the header itself."""
    at = f.header(KERNEL)
    f.put(at + 16, 16, 2).put(at + 16 + 8, at).put(at + 16 + 16, 256)


def wrapping(f: Hdf5) -> None:
    at = f.message(KERNEL, DATASPACE)
    for size in (8, 16, 24, 32):  # the extents, and the most that they may become
        f.put(at + size, 1 << 33)


def with_more(change: Callable[[h5py.File], Any], **options: Any) -> Callable[[], bytes]:
    return lambda: changed_weights(change, **options)


def dataset(*shape: int, **options: Any) -> Callable[[], bytes]:
    """A file whose kernel is stored in another way."""

    def change(file: h5py.File) -> None:
        del file[KERNEL]
        file.create_dataset(KERNEL, shape or (5, 6), "f4", **options)

    return with_more(change)


def chunk_bomb(file: h5py.File) -> None:
    """A chunk of a gigabyte from a megabyte."""
    del file[KERNEL]
    options = {"chunks": (1 << 14, 1 << 14), "maxshape": (None, None), "compression": "gzip"}
    made = file.create_dataset(KERNEL, (5, 6), "f4", **options)
    packer = zlib.compressobj(9)
    block = bytes(1 << 20)
    piece = packer.compress(block) + packer.flush(zlib.Z_FULL_FLUSH)
    # A stream of equal blocks; its checksum is wrong, which shows only after a gigabyte.
    made.id.write_direct_chunk((0, 0), piece + piece[2:] * 1023 + b"\x03\0" + bytes(4))


def many_chunks(file: h5py.File) -> None:
    """A million chunks that were never written."""
    del file[KERNEL]
    file.create_dataset(KERNEL, (1 << 40,), "f4", chunks=(1 << 10,), compression="gzip")


def broken_chunk(file: h5py.File) -> None:
    del file[KERNEL]
    made = file.create_dataset(KERNEL, (5, 6), "f4", chunks=(5, 6), compression="gzip")
    made.id.write_direct_chunk((0, 0), b"no deflate stream")


def short_chunk(file: h5py.File) -> None:
    del file[KERNEL]
    made = file.create_dataset(KERNEL, (5, 6), "f4", chunks=(5, 6), compression="gzip")
    made.id.write_direct_chunk((0, 0), zlib.compress(bytes(8)))


def long_chunk(file: h5py.File) -> None:
    del file[KERNEL]
    made = file.create_dataset(KERNEL, (5, 6), "f4", chunks=(5, 6), compression="gzip")
    made.id.write_direct_chunk((0, 0), zlib.compress(bytes(1 << 20)))


def virtual(file: h5py.File) -> None:
    del file[KERNEL]
    layout = h5py.VirtualLayout((5, 6), "f4")
    layout[:] = h5py.VirtualSource("good.h5", "model_weights/a/a/kernel", (5, 6))
    file.create_virtual_dataset(KERNEL, layout)


def many_links(file: h5py.File) -> None:
    for number in range(2000):
        file[f"layers/again_{number}"] = file[KERNEL]


def ladder(file: h5py.File) -> None:
    """Groups of two names each: as many paths as 2 to the 40."""
    here = file.create_group("layers/ladder")
    for _ in range(40):
        here = here.create_group("left")
        here.parent["right"] = here


def chain(depth: int) -> Callable[[h5py.File], None]:
    def change(file: h5py.File) -> None:
        here = file.create_group("layers/deep")
        for _ in range(depth):
            here = here.create_group("d")

    return change


def latest(change: Callable[[bytearray], Any]) -> Callable[[], bytes]:
    """A file in HDF5's newest format, changed byte by byte."""

    def make() -> bytes:
        data = bytearray(weights(more=named, libver="latest"))
        change(data)
        return keras(weights=bytes(data))

    return make


def flip(signature: bytes, at: int, number: int = 0) -> Callable[[bytearray], None]:
    def change(data: bytearray) -> None:
        place = -1
        for _ in range(number + 1):
            place = data.index(signature, place + 1)
        data[place + at] ^= 0xFF

    return change


def overlapping() -> bytes:
    """Two kernels that lie in the same bytes."""
    made = Hdf5(weights())
    first = made.number(made.message(KERNEL, LAYOUT) + 2)
    made.put(made.message("optimizer/vars/2", LAYOUT) + 2, first)
    return keras(weights=bytes(made.data))


def in_metadata() -> bytes:
    """A kernel whose values are the file's own structures."""
    made = Hdf5(weights())
    made.put(made.message(KERNEL, LAYOUT) + 2, 0)
    return keras(weights=bytes(made.data))


add_all("hdf5", {
    "empty": (lambda: keras(weights=b""), WEIGHTS),
    "another kind of file": (lambda: keras(weights=b"PK\3\4" + bytes(500)), WEIGHTS),
    "cut within the superblock": (cut(lambda f: 50), WEIGHTS),
    "cut at the first header": (cut(lambda f: f.header("/") + 8), WEIGHTS),
    "cut within the tree": (cut(lambda f: f.find(b"TREE") + 10), WEIGHTS),
    "cut within the heap": (cut(lambda f: f.find(b"HEAP") + 10), WEIGHTS),
    "cut within a table of links": (cut(lambda f: f.find(b"SNOD", 1) + 10), WEIGHTS),
    "cut within a dataset's header": (cut(lambda f: f.header(KERNEL) + 20), WEIGHTS),
    "cut by its last byte": (cut(lambda f: len(f.data) - 1), WEIGHTS),
    "a superblock of version 9": (superblock(8, 9, 1), WEIGHTS),
    "addresses of three bytes": (superblock(13, 3, 1), WEIGHTS),
    "lengths of no bytes": (superblock(14, 0, 1), WEIGHTS),
    "trees of no width": (superblock(16, 0, 4), WEIGHTS),
    "a base address beyond the file": (superblock(24, 1 << 40), WEIGHTS),
    "an end beyond the file": (superblock(40, 1 << 40), WEIGHTS),
    "an end at zero": (superblock(40, 0), WEIGHTS),
    "a root beyond the file": (superblock(64, 1 << 40), WEIGHTS),
    "a root that is nowhere": (superblock(64, NOWHERE), WEIGHTS),
    "a root that is a dataset": (
        damaged(lambda f: f.put(64, f.header(KERNEL)).put(72, 0, 4)), WEIGHTS),
    "a tree that holds itself": (damaged(own_tree), WEIGHTS),
    "a tree that is its own neighbour": (damaged(sibling), WEIGHTS),
    "a tree of 65,535 entries": (tree(6, 0xFFFF, 2), WEIGHTS),
    "a tree of another kind": (tree(4, 1, 1), WEIGHTS),
    "a tree 200 levels high": (tree(5, 200, 1), WEIGHTS),
    "a tree without its signature": (tree(0, 0, 4), WEIGHTS),
    "a tree's child beyond the file": (tree(32, 1 << 40), WEIGHTS),
    "a tree's child in a dataset": (
        damaged(lambda f: f.put(f.group(GROUP)[0] + 32, f.header(KERNEL))), WEIGHTS),
    "a heap of no size": (heap(8, 0), WEIGHTS),
    "a heap larger than the file": (heap(8, 1 << 40), WEIGHTS),
    "a heap whose size is all ones": (heap(8, NOWHERE), WEIGHTS),
    "a heap whose text is beyond the file": (heap(24, 1 << 40), WEIGHTS),
    "a heap without its signature": (heap(0, 0, 4), WEIGHTS),
    "a table of 65,535 links": (node(6, 0xFFFF, 2), WEIGHTS),
    "a table without its signature": (node(0, 0, 4), WEIGHTS),
    "a link's name beyond the heap": (node(8, 1 << 40), WEIGHTS),
    "a link to beyond the file": (node(16, 1 << 40), WEIGHTS),
    "a link to an odd address": (node(16, 12345), WEIGHTS),
    "a link into a text": (damaged(
        lambda f: f.put(f.node(GROUP) + 16, f.number(f.group(GROUP)[1] + 24))), WEIGHTS),
    "a group that holds itself": (damaged(own_group), WEIGHTS),
    "a group that holds the root": (damaged(root_in_group), WEIGHTS),
    "a link kept in its entry": (node(24, 2, 4), WEIGHTS),
    "a header of version 77": (header(0, 77, 1), WEIGHTS),
    "a header of no messages": (header(2, 0, 2), WEIGHTS),
    "a header larger than the file": (header(8, 0x7FFFFFFF, 4), WEIGHTS),
    "a header that continues in itself": (damaged(continued), WEIGHTS),
    "a message larger than its header": (
        damaged(lambda f: f.put(f.message(KERNEL, DATASPACE) - 6, 0xFFF0, 2)), WEIGHTS),
    "200 axes": (message(DATASPACE, 1, 200, 1), WEIGHTS),
    "a size beyond any memory": (message(DATASPACE, 8, 1 << 62), WEIGHTS),
    "sizes whose product wraps round": (damaged(wrapping), WEIGHTS),
    "a dataspace of version 9": (message(DATASPACE, 0, 9, 1), WEIGHTS),
    "a number of no bytes": (message(DATATYPE, 4, 0, 4), WEIGHTS),
    "a number of four gigabytes": (message(DATATYPE, 4, 0xFFFFFFFF, 4), WEIGHTS),
    "a type that there is not": (message(DATATYPE, 0, 0x1F, 1), WEIGHTS),
    "a float of odd bits": (message(DATATYPE, 8, b"\xff" * 12), WEIGHTS),
    "a layout of version 9": (message(LAYOUT, 0, 9, 1), WEIGHTS),
    "a layout of class 9": (message(LAYOUT, 1, 9, 1), WEIGHTS),
    "values beyond the file": (message(LAYOUT, 2, 1 << 40), WEIGHTS),
    "values at the end of the file": (
        damaged(lambda f: f.put(f.message(KERNEL, LAYOUT) + 2, len(f.data) - 8)), WEIGHTS),
    "two tensors in the same bytes": (overlapping, WEIGHTS, "overlap"),
    "values that are the file's structures": (in_metadata, WEIGHTS),
    "a soft link": (with_more(
        lambda f: f.__setitem__("layers/soft", h5py.SoftLink("/layers/dense"))), WEIGHTS, "layers/soft"),
    "a soft link that leads in a circle": (with_more(
        lambda f: f.__setitem__("layers/soft", h5py.SoftLink("/layers/soft"))), WEIGHTS, "layers/soft"),
    "an external link": (with_more(
        lambda f: f.__setitem__("layers/out", h5py.ExternalLink("good.h5", "/"))), WEIGHTS, "layers/out"),
    "values in another file": (
        dataset(external=[("good.keras", 0, 120)]), WEIGHTS, KERNEL),
    "a virtual dataset": (with_more(virtual), WEIGHTS, KERNEL),
    "a million million paths": (with_more(ladder), WEIGHTS),
    "a type for a tensor": (with_more(
        lambda f: f.__setitem__("layers/type", np.dtype("f4"))), WEIGHTS, "layers/type"),
    "a filter that nobody knows": (lambda: keras(weights=_with_filter(32099)), WEIGHTS, KERNEL),
    "a filter number beyond all": (lambda: keras(weights=_with_filter(65535)), WEIGHTS, KERNEL),
    "a chunk of a gigabyte": (with_more(chunk_bomb), WEIGHTS, KERNEL),
    "chunks never written": (with_more(many_chunks), WEIGHTS, KERNEL),
})  # fmt: skip


def _with_filter(number: int) -> bytes:
    def change(file: h5py.File) -> None:
        del file[KERNEL]
        data = tensors()[KERNEL]
        file.create_dataset(KERNEL, data=data, chunks=(5, 6), compression="gzip")

    made = Hdf5(weights(more=change))
    at = made.message(KERNEL, FILTERS)
    made.put(at + 8, number, 2)
    return bytes(made.data)


# What libhdf5 reads all the same, and Keras with it, comes out as libhdf5 reads it.
add_all("hdf5", {
    "a header of 65,535 messages": (header(2, 0xFFFF, 2),),
    "2,000 names of one tensor": (with_more(many_links),),
    "scale and offset filter": (dataset(chunks=(5, 6), scaleoffset=3, compression=None),),
}, code=0)  # fmt: skip

# Values are read when the file is written.
add_all("hdf5", {
    "values of another size than the shape": (message(LAYOUT, 10, 8), WEIGHTS),
    "values whose size is all ones": (message(LAYOUT, 10, NOWHERE), WEIGHTS),
    "a chunk that does not unpack": (with_more(broken_chunk), WEIGHTS, KERNEL),
    "a chunk that is too short": (with_more(short_chunk), WEIGHTS, KERNEL),
    "a chunk that is too long": (with_more(long_chunk), WEIGHTS, KERNEL),
}, inspect_code=0)  # fmt: skip

add_all("hdf5", {
    "an attribute larger than the file": (attribute(6, 0xFFFF, 2), WEIGHTS),
    "an attribute of version 9": (attribute(0, 9, 1), WEIGHTS),
    "an attribute whose name is too long": (attribute(2, 0xFFFF, 2), WEIGHTS),
    "newest format, a wrong checksum of the superblock": (
        latest(lambda d: d.__setitem__(44, d[44] ^ 1)), WEIGHTS),
    "newest format, a wrong checksum of a header": (latest(flip(b"OHDR", 8, 1)), WEIGHTS),
    "newest format, cut": (latest(lambda d: d.__delitem__(slice(len(d) // 2, None))), WEIGHTS),
    "newest format, a root beyond the file": (
        latest(lambda d: d.__setitem__(slice(36, 44), struct.pack("<Q", 1 << 40))), WEIGHTS),
})  # fmt: skip
