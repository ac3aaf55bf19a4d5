"""The `.keras` zip: read in place, written once.

Members are stored, so the weights are read where they lie in the archive; if another zip tool has
compressed them, they are unpacked into a temporary file first. Members that kprune does not know,
such as assets, are carried over byte for byte; a member is never added, since Keras unpacks an
archive of more than three members to disk each time it loads it.
"""

from __future__ import annotations

import os
import zipfile
from collections.abc import Iterator
from contextlib import ExitStack, closing
from typing import Any, BinaryIO, cast

from msgspec import Struct

from kprune.atomic import new_file
from kprune.edit import Edit
from kprune.errors import FileError
from kprune.faults import damaged, parsing, writing
from kprune.formats import stream
from kprune.formats.bounded_json import json_object
from kprune.formats.hdf5.layout import Layout, check_layout
from kprune.formats.hdf5.tensors import Hdf5Weights
from kprune.formats.opening import OpenFile, spooled
from kprune.formats.output_tensors import Outcome, require_sound, resolve
from kprune.formats.output_tensors import layout as outcome_layout
from kprune.formats.source import Source, json_bytes
from kprune.formats.vocabularies import without_lines
from kprune.formats.zip import records as zip_records
from kprune.formats.zip.checks import Member, checked_members
from kprune.formats.zip.records import NewMember
from kprune.limits import JSON_BYTES
from kprune.text import clean
from kprune.types import AnyPath, Progress

CONFIG = "config.json"
METADATA = "metadata.json"
WEIGHTS = "model.weights.h5"
NUMPY_WEIGHTS = "model.weights.npz"
_CHUNK = 1 << 20


def open_source(file: OpenFile) -> Source:
    """Open a `.keras` zip. The source closes `file`, also if it cannot be opened."""
    return KerasZip(file)


class KerasZip(Source):
    """A `.keras` archive."""

    format = "keras"
    weights: Hdf5Weights

    def __init__(self, file: OpenFile) -> None:
        self.file = file
        self.path = file.path
        self.bytes = file.size
        with ExitStack() as held:
            held.callback(file.close)
            with parsing(file, "the zip archive"):
                window = cast(BinaryIO, file.window())
                self._archive = held.enter_context(zipfile.ZipFile(window))
            names = self._archive.namelist()
            if CONFIG not in names:
                _refuse_others(file, names)
            members = checked_members(self._archive, file)
            self._members = {member.name: member for member in members}
            self._require_keras()
            self.config = self._object(CONFIG)
            self.metadata = self._object(METADATA) if METADATA in self._members else {}
            self.weights = self._open_weights(self._members[WEIGHTS], held)
            self._held = held.pop_all()

    @property
    def extras(self) -> list[str]:
        own = (CONFIG, METADATA, WEIGHTS)
        return [name for name in self._members if name not in own and not name.endswith("/")]

    def extra(self, name: str) -> bytes:
        return b"".join(self._content(self._members[name]))

    def close(self) -> None:
        self._held.close()

    def _require_keras(self) -> None:
        missing = [name for name in (CONFIG, WEIGHTS) if name not in self._members]
        if not missing:
            return
        if NUMPY_WEIGHTS in self._members:
            raise FileError(
                f"cannot read {self.file}",
                why=f"its weights are in {NUMPY_WEIGHTS}, and kprune reads {WEIGHTS} only",
                do="load the model in Keras and save it again as Keras does by default",
            )
        raise FileError(
            f"{self.file} is a zip archive, but not a Keras model",
            why=f"it has no {' and no '.join(missing)}",
        )

    def _object(self, name: str) -> dict[str, Any]:
        member = self._members[name]
        JSON_BYTES.check(member.info.file_size, name, self.file)
        return json_object(b"".join(self._content(member)), self.file, name)

    def _content(self, member: Member) -> Iterator[bytes]:
        """The bytes of a member, chunk by chunk; zipfile compares the checksum behind the last."""
        left = member.info.file_size
        with parsing(self.file, clean(member.name)), self._archive.open(member.info) as content:
            while data := content.read(_CHUNK):
                left -= len(data)
                yield data
        if left:
            raise damaged(self.file, "it is shorter than it says", where=clean(member.name))

    def _open_weights(self, member: Member, held: ExitStack) -> Hdf5Weights:
        if member.stored:
            window = self.file.window(member.offset, member.info.file_size)
        else:
            with parsing(self.file, WEIGHTS), self._archive.open(member.info) as packed:
                unpacked = spooled(packed, str(self.file), member.info.file_size)
            held.callback(unpacked.close)
            window = unpacked.window()
        weights = held.enter_context(closing(Hdf5Weights(window, WEIGHTS)))
        weights.require_named_types()
        return weights

    def output_size(self, edit: Edit) -> int:
        return self._plan(edit).size

    def write(self, edit: Edit, output: AnyPath, force: bool, progress: Progress | None) -> int:
        with new_file(output, force=force) as new:  # first, since it refuses a wrong output at once
            plan = self._plan(edit)
            with writing(new.name):
                os.ftruncate(new.fd, plan.size)
            for member in plan.members:
                target = stream.Target(new.fd, member.data_offset, new.name)
                if member.name == WEIGHTS:
                    self._copy_weights(plan, target, progress)
                elif member.name in plan.texts:
                    target.put(0, [plan.texts[member.name]])
                else:
                    self._carry_over(self._members[member.name], target)
                member.crc = target.checksum(member.size)
            for member in plan.members:
                stream.Target(new.fd, member.offset, new.name).put(0, [member.local_header()])
            end = zip_records.directory(plan.members)
            stream.Target(new.fd, plan.members[-1].end, new.name).put(0, [end])
            check_layout(plan.layout, new.fd, plan.weights.data_offset, new.name)
            new.commit(self.file.check_unchanged)
        return plan.size

    def _plan(self, edit: Edit) -> _Plan:
        edit = self.settled(edit)
        outcome = resolve(self.weights.table, edit)
        require_sound(outcome, edit, self.outline)
        layout = outcome_layout(self.weights, outcome, edit)
        texts = {CONFIG: json_bytes(edit.config), METADATA: json_bytes(edit.metadata)}
        for name, gone in edit.without_lines.items():
            with parsing(self.file, clean(name)):
                texts[name] = without_lines(self.extra(name), gone)
        members: list[NewMember] = []
        for name, member in self._members.items():
            size = layout.size if name == WEIGHTS else member.info.file_size
            size = len(texts[name]) if name in texts else size
            members.append(NewMember(name, size, members[-1].end if members else 0))
        return _Plan(outcome, layout, texts, members)

    def _copy_weights(self, plan: _Plan, target: stream.Target, progress: Progress | None) -> None:
        member = self._members[WEIGHTS]
        seen = stream.copy_weights(
            self.weights,
            plan.outcome,
            plan.layout,
            target,
            verify=member.stored,  # else zipfile did it while unpacking
            progress=progress,
        )
        self._compare(member, seen)

    def _compare(self, member: Member, seen: int | None) -> None:
        if seen is not None and seen != member.info.CRC:
            raise damaged(
                self.file,
                f"its checksum is {seen:08x}, and the archive says {member.info.CRC:08x}",
                where=clean(member.name),
            )

    def _carry_over(self, member: Member, target: stream.Target) -> None:
        at = 0
        for data in self._content(member):
            target.put(at, [data])
            at += len(data)

    def check_integrity(self) -> None:
        for member in self._members.values():
            if member.stored:
                window = self.file.window(member.offset, member.info.file_size)
                self._compare(member, stream.checksum(window))
            else:
                for _ in self._content(member):
                    pass  # reading to the end is what compares


def _refuse_others(file: OpenFile, names: list[str]) -> None:
    """Raises: FileError if the archive is known to be something else."""
    from kprune.formats.lookalikes import refuse_zip

    if other := refuse_zip(file, names):
        raise other


class _Plan(Struct):
    """An archive to be written, down to the last offset.

    Attributes:
        texts: the members that are made here, by name.
        members: all of them, in order.
    """

    outcome: Outcome
    layout: Layout
    texts: dict[str, bytes]
    members: list[NewMember]

    @property
    def weights(self) -> NewMember:
        return next(member for member in self.members if member.name == WEIGHTS)

    @property
    def size(self) -> int:
        """Of the archive, in bytes."""
        return self.members[-1].end + len(zip_records.directory(self.members))
