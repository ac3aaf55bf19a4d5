"""The groups and datasets that the names in an HDF5 file lead to, as libhdf5 finds them.

This runs in the child (see `plain_copy.py`). Names lead to objects by hard links, of which one
object may have several, and by symbolic links inside the file. Links are followed here and not by
libhdf5, which would follow one out of the file as well.
"""

from __future__ import annotations

import posixpath
from collections.abc import Iterator
from typing import Any

from msgspec import Struct, field

from kprune.errors import FileError
from kprune.formats.hdf5.libhdf5 import h5py
from kprune.limits import HDF5_OBJECTS
from kprune.text import clean

h5d, h5g, h5l, h5o = h5py.h5d, h5py.h5g, h5py.h5l, h5py.h5o

_MOST_LINKS = 16  # symbolic ones on the way to one object
_LONGEST_PATHS = 64_000_000  # of all paths together


class Link(Struct, frozen=True):
    """One name in a group.

    Attributes:
        address: of the object, if it is a hard link.
        target: a path, if it is a symbolic link.
    """

    address: int = -1
    target: str = ""


class Found(Struct):
    """An object that hard links lead to.

    Attributes:
        path: one that leads to it by hard links alone.
        item: h5py's identifier.
        members: of a group, by name; None for a dataset.
    """

    path: str
    item: Any
    members: dict[str, Link] | None = field(default=None)


class Refused(Exception):
    """What kprune does not follow or read; carries the object's path and a clause."""

    def __init__(self, path: str, why: str, *, damaged: bool = False) -> None:
        super().__init__(path, why)
        self.path, self.why, self.damaged = path, why, damaged


class Links:
    """All objects of a file, each looked at once.

    Raises (all methods): Refused; whatever h5py raises on damage.
    """

    def __init__(self, root: Any, file: object) -> None:
        self.file = file
        self.root = h5o.get_info(root).addr
        self.objects = {self.root: Found("", root)}
        waiting = [self.root]
        while waiting:
            waiting += self._look_into(self.objects[waiting.pop()])

    def _look_into(self, group: Found) -> Iterator[int]:
        """Note what is in a group; gives the addresses of groups that were not known."""
        group.members = {}
        for name, link in _links(group):
            group.members[name] = link
            if link.target or link.address in self.objects:
                continue
            path = f"{group.path}/{name}".lstrip("/")
            item = h5o.open(group.item, name.encode())
            self.objects[link.address] = Found(path, item)
            HDF5_OBJECTS.check(len(self.objects), "it", self.file)
            if isinstance(item, h5g.GroupID):
                yield link.address
            elif not isinstance(item, h5d.DatasetID):
                raise Refused(path, "it is neither a group nor a dataset")

    def paths(self) -> Iterator[tuple[str, int]]:
        """Every path that leads to an object, and the object's address. A group comes before what is in it."""
        waiting = [("", self.root, frozenset((self.root,)))]
        count = length = 0
        while waiting:
            prefix, group, around = waiting.pop()
            for name, link in (self.objects[group].members or {}).items():
                path = prefix + name
                address = self._address(link, prefix, path)
                count, length = count + 1, length + len(path)
                HDF5_OBJECTS.check(count, "it", self.file)
                if address in around or length > _LONGEST_PATHS:
                    raise Refused(path, "it is a second name for a group that it stands in")
                yield path, address
                if self.objects[address].members is not None:
                    waiting.append((path + "/", address, around | {address}))

    def _address(self, link: Link, prefix: str, path: str) -> int:
        """Of the object that a link leads to, over symbolic links inside the file."""
        if not link.target:
            return link.address
        parts = self._parts(prefix, link.target)
        address, followed = self.root, 1
        place = "/"
        while parts:
            name = parts.pop(0)
            found = (self.objects[address].members or {}).get(name)
            if found is None or followed > _MOST_LINKS:
                raise Refused(path, "it is a link to what is not there")
            if found.target:
                followed += 1
                parts = [*self._parts(place, found.target), *parts]
                address, place = self.root, "/"
            else:
                address, place = found.address, f"{place}{name}/"
        return address

    def _parts(self, prefix: str, target: str) -> list[str]:
        """The names on the way from the root to a target. HDF5 knows `.`, and no `..`."""
        whole = target if target.startswith("/") else posixpath.join("/" + prefix, target)
        return [part for part in whole.split("/") if part not in ("", ".")]


def _links(group: Found) -> Iterator[tuple[str, Link]]:
    links: list[tuple[bytes, int, int]] = []
    group.item.links.iterate(lambda name, info: links.append((name, info.type, info.u)), info=True)
    for raw, kind, address in links:
        name = raw.decode()
        path = f"{group.path}/{name}".lstrip("/")
        if name in ("", ".") or "/" in name:
            raise Refused(path, "no object can have this name", damaged=True)
        if kind == h5l.TYPE_HARD:
            yield name, Link(address)
        elif kind == h5l.TYPE_SOFT:
            yield name, Link(target=group.item.links.get_val(raw).decode() or "/")
        else:
            raise Refused(path, "it is a link to another file, which kprune never opens")


def refusal(file: object, where: str, path: str, why: str) -> FileError:
    """The refusal of something that kprune does not read."""
    return FileError(f"cannot read {file}", where=f"{where}, {clean(path)}", why=why)
