"""The groups and datasets that the names in an HDF5 file lead to, as libhdf5 finds them.

This runs in the child (see `plain_copy.py`). An object may have several names (hard links), and then
counts as several objects, as it does for Keras. Symbolic links are refused, as Keras refuses them.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from msgspec import Struct, field

from kprune.errors import FileError
from kprune.formats.hdf5.foreign.libhdf5 import h5py
from kprune.limits import HDF5_OBJECTS
from kprune.text import clean

h5d, h5g, h5l, h5o = h5py.h5d, h5py.h5g, h5py.h5l, h5py.h5o

_LONGEST_PATHS = 64_000_000  # of all paths together


class Found(Struct):
    """An object that hard links lead to.

    Attributes:
        path: one that leads to it by hard links alone.
        item: h5py's identifier.
        members: of a group, the addresses of what is in it, by name; None for a dataset.
    """

    path: str
    item: Any
    members: dict[str, int] | None = field(default=None)


class Refused(Exception):
    """What kprune does not follow or read; carries the object's path and a clause."""

    def __init__(self, path: str, why: str, *, damaged: bool = False) -> None:
        super().__init__(path, why)
        self.path, self.why, self.damaged = path, why, damaged


class Links:
    """All objects of a file, each looked at once.

    Raises (all methods): Refused; whatever h5py raises on damage.
    """

    def __init__(self, root: Any, file: object, where: str) -> None:
        self.file, self.where = file, where
        h5o.visit(root, lambda _: None)  # what libhdf5 itself does not get through is damaged
        self.root = h5o.get_info(root).addr
        self.objects = {self.root: Found("", root)}
        waiting = [self.root]
        while waiting:
            waiting += self._look_into(self.objects[waiting.pop()])

    def _look_into(self, group: Found) -> Iterator[int]:
        """Note what is in a group; gives the addresses of groups that were not known."""
        group.members = {}
        for name, address in _links(group):
            group.members[name] = address
            if address in self.objects:
                continue
            path = f"{group.path}/{name}".lstrip("/")
            item = h5o.open(group.item, name.encode())
            self.objects[address] = Found(path, item)
            HDF5_OBJECTS.check(len(self.objects), self.where, self.file)
            if isinstance(item, h5g.GroupID):
                yield address
            elif not isinstance(item, h5d.DatasetID):
                raise Refused(path, "it is neither a group nor a dataset")

    def paths(self) -> Iterator[tuple[str, int]]:
        """Every path that leads to an object, and the object's address. A group comes before what is in it."""
        waiting = [("", self.root, frozenset((self.root,)))]
        count = length = 0
        while waiting:
            prefix, group, around = waiting.pop()
            for name, address in (self.objects[group].members or {}).items():
                path = prefix + name
                count, length = count + 1, length + len(path)
                HDF5_OBJECTS.check(count, self.where, self.file)
                if address in around or length > _LONGEST_PATHS:
                    raise Refused(path, "it is a second name for a group that it stands in")
                yield path, address
                if self.objects[address].members is not None:
                    waiting.append((path + "/", address, around | {address}))


def _links(group: Found) -> Iterator[tuple[str, int]]:
    links: list[tuple[bytes, int, int]] = []
    group.item.links.iterate(lambda name, info: links.append((name, info.type, info.u)), info=True)
    for raw, kind, address in links:
        name = raw.decode()
        path = f"{group.path}/{name}".lstrip("/")
        if name in ("", ".") or "/" in name:
            raise Refused(path, "no object can have this name", damaged=True)
        if kind != h5l.TYPE_HARD:
            raise Refused(path, "it is a link to somewhere else, which kprune never follows")
        yield name, address


def refusal(file: object, where: str, path: str, why: str) -> FileError:
    """The refusal of something that kprune does not read."""
    return FileError(f"cannot read {file}", where=f"{where}, {clean(path)}", why=why)
