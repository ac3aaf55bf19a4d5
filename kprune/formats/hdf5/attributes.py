"""The attributes of a legacy `.h5`, read by another process with limits on time and memory.

A legacy file keeps its architecture in attributes, and libhdf5 trusts what it finds there: a
damaged one can make it loop forever in C, where Ctrl-C does not reach it, or crash. Here that
happens to a child, and the parent says that the file is damaged. The child's answer is JSON, read
like any other text from outside.
"""

from __future__ import annotations

import base64
import json
import math
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from typing import IO, Any

import numpy as np

from kprune.faults import damaged, parsing, temporary
from kprune.formats.opening import OpenFile
from kprune.packages import imported

SECONDS = 30
_LARGEST_ANSWER = 1 << 28
_LARGEST_ARRAY = 1 << 24  # of bytes in one attribute; a header holds 64 KiB, a text may be longer
_CHILD_MEMORY = 4 << 30  # of address space, which libraries reserve freely
_PROGRAM = (
    "import sys; sys.path[:] = {path!r}; from kprune.formats.hdf5.attributes import main; main()"
)

Text = str | list[str]
Attribute = Text | np.ndarray
"""A text, a list of texts, or numbers."""


class Reading:
    """A child that reads the attributes of a file meanwhile; a context manager.

    Args:
        file: the HDF5 file. The child gets its descriptor, not its name, so both read the same one.
    """

    def __init__(self, file: OpenFile) -> None:
        self.file = file
        with temporary("a temporary file"):
            self._answer: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115 - closed on exit
        program = _PROGRAM.format(path=[str(place) for place in sys.path])
        self._child = subprocess.Popen(
            [sys.executable, "-I", "-S", "-c", program],
            stdin=file.fd,
            stdout=self._answer,
            stderr=subprocess.DEVNULL,
            # numpy starts a thread per core, each with memory of its own, unless told otherwise.
            env={**os.environ, "OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"},
        )

    def __enter__(self) -> Reading:
        return self

    def __exit__(self, *_: object) -> None:
        if self._child.poll() is None:
            self._child.kill()
            self._child.wait()
        self._answer.close()

    def result(self) -> dict[str, dict[str, Attribute]]:
        """Attributes by path of the object ("" for the root) and name.

        Raises: DamagedFileError if the child could not read them, or did not come back; SetupError
            without h5py.
        """
        try:
            code = self._child.wait(SECONDS)
        except subprocess.TimeoutExpired:
            raise self._damaged(f"HDF5 did not finish reading them in {SECONDS} seconds") from None
        self._answer.seek(0)
        text = self._answer.read(_LARGEST_ANSWER + 1)
        if code < 0:
            raise self._damaged("HDF5 crashed while reading them")
        if code:  # without h5py nothing was read, and nothing is known of the file
            imported("kprune.formats.hdf5.libhdf5", what="h5py, which reads legacy .h5 files,")
        if code or len(text) > _LARGEST_ANSWER:
            raise self._damaged(text.decode(errors="replace")[:200] or "HDF5 cannot read them")
        with parsing(self.file, "its attributes"):
            return {
                path: {name: _decoded(value) for name, value in found.items()}
                for path, found in json.loads(text).items()
            }

    def _damaged(self, why: str) -> Exception:
        return damaged(self.file, why, where="its attributes")


def _decoded(value: Any) -> Attribute:
    if isinstance(value, dict):
        data = base64.b64decode(value["data"])
        return np.frombuffer(data, value["dtype"]).reshape(value["shape"])
    for text in value if isinstance(value, list) else [value]:
        text.encode()  # h5py lets bytes pass that are no UTF-8; no text that Keras wrote holds any
    found: Text = value
    return found


# -- in the child ----------------------------------------------------------------------------------


def main() -> None:
    """Read the file that is standard input; write its attributes to standard output as JSON."""
    _limit()
    from kprune.formats.hdf5.libhdf5 import h5py

    file = OpenFile(0, None)
    try:
        with h5py.File(file.window(), "r") as hdf5:
            found = {path: dict(_attributes(item)) for path, item in _objects(hdf5)}
            answer = json.dumps({path: values for path, values in found.items() if values})
    except Exception as error:  # whatever HDF5 makes of damage; the parent words it
        print(f"{type(error).__name__}: {error}")
        sys.exit(1)
    sys.stdout.write(answer)
    sys.stdout.flush()
    os._exit(0)  # nothing that HDF5 might still do matters


def _limit() -> None:
    try:
        import resource
    except ImportError:  # not on Windows; the limit on time stays
        return
    for what, value in ((resource.RLIMIT_AS, _CHILD_MEMORY), (resource.RLIMIT_CPU, SECONDS)):
        _, most = resource.getrlimit(what)
        if most == resource.RLIM_INFINITY or value <= most:
            resource.setrlimit(what, (value, most))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def _objects(hdf5: Any) -> Iterator[tuple[str, Any]]:
    """The root and all groups that hard links lead to, as (path, group)."""
    from kprune.formats.hdf5.libhdf5 import h5py

    h5g, h5l, h5o = h5py.h5g, h5py.h5l, h5py.h5o
    seen: set[int] = set()
    waiting = [("", hdf5.id)]
    while waiting:
        path, group = waiting.pop()
        yield path, group
        links: list[tuple[bytes, int, int]] = []
        group.links.iterate(
            lambda name, info, to=links: to.append((name, info.type, info.u)), info=True
        )
        for name, kind, address in links:
            if kind != h5l.TYPE_HARD or address in seen:
                continue  # the parent refuses such a file
            seen.add(address)
            item = h5o.open(group, name)
            if isinstance(item, h5g.GroupID):
                waiting.append((f"{path}/{name.decode()}".lstrip("/"), item))


def _attributes(group: Any) -> Iterator[tuple[str, Any]]:
    from kprune.formats.hdf5.libhdf5 import h5py

    attributes = h5py.AttributeManager(h5py.Group(group))
    for index in range(h5py.h5a.get_num_attrs(group)):
        name = h5py.h5a.open(group, index=index).name.decode()
        held = attributes.get_id(name)
        if math.prod(held.shape) * held.dtype.itemsize > _LARGEST_ARRAY:
            raise ValueError(f"attribute {name!r} says it is larger than {_LARGEST_ARRAY} bytes")
        value = _plain(attributes[name])
        if value is not None:
            yield name, value


def _plain(value: Any) -> Any:
    """A value as JSON has it; None for kinds that no Keras writes (references, compounds)."""
    if isinstance(value, bytes):
        return value.decode()
    if isinstance(value, str):
        return value
    array = np.asarray(value)
    if array.dtype.kind in "SO":
        texts = [_plain(item) for item in array.reshape(-1).tolist()]
        return texts if all(isinstance(text, str) for text in texts) else None
    if array.dtype.kind in "iufb":
        data = base64.b64encode(np.ascontiguousarray(array).tobytes()).decode()
        return {"dtype": array.dtype.str, "shape": array.shape, "data": data}
    return None
