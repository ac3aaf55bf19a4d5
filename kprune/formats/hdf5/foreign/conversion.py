"""The program that makes a plain copy of an HDF5 file; `plain_copy.py` runs it in a child process.

libhdf5 trusts what it reads: damage can make it loop forever, crash, or allocate whatever a number
says. So this process has limits on time, memory and files, and opens nothing but the two files that
it was given: the HDF5 file as standard input, and an empty one as standard output. What goes wrong
is told as an error of kprune's, in JSON, on standard error.

It runs twice. First it writes the copy's metadata, and leaves holes for the values; then, if they
are needed, the values. Every number type, extent and attribute goes over with the bytes it has.
"""

from __future__ import annotations

import json
import math
import os
import sys
from collections.abc import Iterator
from typing import Any

import numpy as np

from kprune.errors import FileError, KpruneError
from kprune.faults import damaged, parsing, temporary
from kprune.formats.hdf5.attributes import Stored, space_of
from kprune.formats.hdf5.datatypes import VARIABLE_TEXT, Unusual, parsed
from kprune.formats.hdf5.direct_reader import read_plain
from kprune.formats.hdf5.foreign.dataset import CODE_HEAD, Dataset, check_known
from kprune.formats.hdf5.foreign.libhdf5 import h5py
from kprune.formats.hdf5.foreign.links import Links, Refused, refusal
from kprune.formats.hdf5.foreign.plain_copy import FAILED, OUT_OF_MEMORY, OUTLINE, PER_SECOND
from kprune.formats.hdf5.layout import Space, lay_out
from kprune.formats.hdf5.structures import NO_VALUES
from kprune.formats.opening import OpenFile, Window
from kprune.limits import ATTRIBUTE_BYTES, CHUNK_BYTES, HDF5_MEMORY, VALUE_BYTES, limit
from kprune.text import clean

h5a, h5s, h5t = h5py.h5a, h5py.h5s, h5py.h5t

_MEMORY_WITHOUT_PROC = 2 << 30
_CHUNK_COPIES = 4  # of a chunk, while it is unpacked
_OUT_OF_MEMORY_SIGNS = ("memory allocation failed", "unable to allocate")


def main() -> None:
    """Carry out one of the two tasks; the arguments are JSON, see `plain_copy.py`."""
    order = json.loads(sys.argv[1])
    with limit(**order["limits"]):
        try:
            _Conversion(order).run()
        except KpruneError as error:
            fields = (error.what, error.where, error.why, error.do)
            _end(FAILED, json.dumps([type(error).__name__, *fields]))
        except MemoryError:
            _end(OUT_OF_MEMORY)
    _end(0)


def _end(code: int, text: str = "") -> None:
    """End at once: nothing that HDF5 might still do matters."""
    os.write(2, text.encode(errors="replace"))
    os._exit(code)


class _Conversion:
    """One file and its copy."""

    def __init__(self, order: dict[str, Any]) -> None:
        self.task, self.where = order["task"], order["where"]
        self.file = OpenFile(0, None, order["name"])
        self.window = self.file.window(order["start"], order["size"])
        self.copy = OpenFile(1, None, "a temporary copy")
        self.sandbox = _Sandbox(order["seconds"], order["most_seconds"])

    def run(self) -> None:
        try:
            with parsing(self.file, self.where), h5py.File(self.window, "r") as hdf5:
                objects = _Objects(hdf5.id, self.window, self.where)
                if self.task == OUTLINE:
                    self._write_outline(objects)
                else:
                    self._write_values(objects)
        except Refused as error:
            if error.damaged:
                raise damaged(
                    self.file, error.why, where=f"{self.where}, {clean(error.path)}"
                ) from None
            raise refusal(self.file, self.where, error.path, error.why) from None
        except FileError as error:
            cause = error.__cause__
            text = str(cause)
            if isinstance(cause, MemoryError) or any(it in text for it in _OUT_OF_MEMORY_SIGNS):
                raise MemoryError from None
            raise

    def _write_outline(self, objects: _Objects) -> None:
        layout = lay_out(objects.in_order(), objects.attributes())
        with temporary(f"a temporary copy of {self.file}"):
            os.ftruncate(1, layout.size)
            for at, data in layout.gaps:
                _write(data, at)

    def _write_values(self, objects: _Objects) -> None:
        found = read_plain(self.copy.window(), odd=True)
        if found is None:
            raise FileError("the outline of an HDF5 file is not plain")  # the parent has read it
        self.sandbox.allow(objects.largest_chunk, sum(it.nbytes for it in found.tensors))
        for tensor in found.tensors:
            if tensor.offset is not None:
                with parsing(self.file, f"{self.where}, {clean(tensor.path)}"):
                    self._write_tensor(objects.datasets[objects.at[tensor.path]], tensor.offset)

    def _write_tensor(self, dataset: Dataset, offset: int) -> None:
        for at, data in dataset.values(self.window):
            with temporary(f"a temporary copy of {self.file}"):
                _write(data, offset + at)


def _write(data: Any, at: int) -> None:
    view = memoryview(data).cast("B")
    while view:
        done = os.pwrite(1, view, at)
        view, at = view[done:], at + done


# -- limits ----------------------------------------------------------------------------------------


class _Sandbox:
    """What this process may use.

    Args:
        seconds: of CPU time for metadata.
        most_seconds: for metadata and values.
    """

    def __init__(self, seconds: int, most_seconds: int) -> None:
        used = math.ceil(sum(os.times()[:2]))  # to get this far
        self.seconds = used + seconds
        self.most_seconds = used + most_seconds + 1  # at both limits at once comes SIGKILL
        self.base = _address_space()
        most = self.base + HDF5_MEMORY.value + _CHUNK_COPIES * CHUNK_BYTES.value
        self._limit("RLIMIT_AS", self.base + HDF5_MEMORY.value, most)
        self._limit("RLIMIT_CPU", self.seconds, self.most_seconds)
        self._limit("RLIMIT_CORE", 0, 0)
        self._limit("RLIMIT_NOFILE", 0, 0)  # what is open stays so, and nothing else is opened

    def allow(self, chunk: int, values: int) -> None:
        """Allow what it takes to unpack values that are known to be within the limits."""
        memory = self.base + HDF5_MEMORY.value + _CHUNK_COPIES * chunk
        self._limit("RLIMIT_AS", memory, memory)
        self._limit("RLIMIT_CPU", self.seconds + values // PER_SECOND + 1, self.most_seconds)

    def _limit(self, name: str, soft: int, hard: int) -> None:
        try:
            import resource
        except ImportError:  # not on Windows; the parent's clock stays
            return
        kind = getattr(resource, name, None)
        if kind is None:
            return
        _, most = resource.getrlimit(kind)
        if most != resource.RLIM_INFINITY:
            soft, hard = min(soft, most), min(hard, most)
        try:
            resource.setrlimit(kind, (min(soft, hard), hard))
        except (OSError, ValueError):  # a system that knows the limit and cannot set it (macOS)
            return


def _address_space() -> int:
    """Bytes that this process has now: libraries reserve far more than they use."""
    try:
        with open("/proc/self/statm", encoding="ascii") as file:
            return int(file.read().split()[0]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, ValueError):
        return _MEMORY_WITHOUT_PROC


# -- what is in the file ---------------------------------------------------------------------------


class _Objects:
    """Groups and datasets by path.

    Attributes:
        at: for each path the address of the object.
        datasets: by address.
    """

    def __init__(self, root: Any, window: Window, where: str) -> None:
        self.links = Links(root, window.file, where)
        self.window = window
        self.at: dict[str, int] = {"": self.links.root, **dict(self.links.paths())}
        self.datasets = {
            address: Dataset(found.path, found.item)
            for address, found in self.links.objects.items()
            if found.members is None
        }
        declared = 0
        for path, address in self.at.items():
            dataset = self.datasets.get(address)
            if dataset is not None:
                place = f"{where}, {clean(path)}"
                declared += dataset.nbytes
                VALUE_BYTES.check(declared - window.size, f"all up to {place}", window.file)
                CHUNK_BYTES.check(dataset.chunk_bytes, f"a chunk of {place}", window.file)

    @property
    def largest_chunk(self) -> int:
        return max((dataset.chunk_bytes for dataset in self.datasets.values()), default=0)

    def in_order(self) -> Iterator[str | Space]:
        """All of them, as they stand in the file."""
        places = {
            path: self.datasets[address].place(address) if address in self.datasets else address
            for path, address in self.at.items()
            if path
        }
        for path in sorted(places, key=lambda path: (places[path], path)):
            dataset = self.datasets.get(self.at[path])
            yield path if dataset is None else Space(path, dataset.shape, dataset.kind.code)

    def attributes(self) -> dict[str, dict[str, Stored]]:
        """What stands beside them, by path."""
        held: dict[int, dict[str, Stored]] = {}
        count = 0
        for address, found in self.links.objects.items():
            for stored in _attributes(found.path, found.item, self.window.file):
                size = len(stored.data) + sum(map(len, stored.items or ()))
                count += size + len(stored.name)
                ATTRIBUTE_BYTES.check(count, "its attributes", self.window.file)
                held.setdefault(address, {})[stored.name.decode()] = stored
        return {path: held[address] for path, address in self.at.items() if address in held}


# -- attributes ------------------------------------------------------------------------------------


def _attributes(path: str, item: Any, file: object) -> Iterator[Stored]:
    for index in range(h5a.get_num_attrs(item)):
        attribute = h5a.open(item, index=index)
        name = attribute.name
        try:
            yield _stored(name, attribute, file)
        except Unusual:
            shown = clean(name.decode(errors="replace"))
            raise Refused(
                path,
                f"its attribute '{shown}' has a type that kprune cannot carry over, "
                "such as a reference to a place in the file",
            ) from None


def _stored(name: bytes, attribute: Any, file: object) -> Stored:
    name.decode()
    kind = attribute.get_type()
    code = kind.encode()[CODE_HEAD:]
    if kind.get_class() == h5t.STRING and kind.is_variable_str():
        code = code[:4] + VARIABLE_TEXT[4:8] + code[8:]  # in memory it is one pointer
    known = parsed(code)
    check_known(known, kind)
    space = attribute.get_space()
    if space.get_simple_extent_type() == h5s.NULL:
        return Stored(name, known.code, NO_VALUES, b"", None if known.item is None else ())
    shape = tuple(int(extent) for extent in attribute.shape)
    ATTRIBUTE_BYTES.check(math.prod(shape) * known.size, f"attribute {clean(name.decode())}", file)
    if known.item is None:
        array = np.empty(shape, np.dtype(f"V{known.size}"))
        attribute.read(array, mtype=kind)
        return Stored(name, known.code, space_of(shape), array.tobytes())
    values = np.empty(shape, kind.dtype)
    attribute.read(values)
    items = tuple(_bytes(value) for value in values.reshape(-1).tolist())
    return Stored(name, known.code, space_of(shape), b"", items)


def _bytes(value: Any) -> bytes:
    """One value of variable length: a text as bytes, numbers as an array."""
    if isinstance(value, np.ndarray):
        return value.tobytes()
    return value if isinstance(value, bytes) else b""
