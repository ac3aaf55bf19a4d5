"""A `.keras` zip made of the tensors of another file."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import TYPE_CHECKING

from msgspec import Struct

from kprune.atomic import new_file
from kprune.edit import Edit
from kprune.faults import writing
from kprune.formats import stream
from kprune.formats.hdf5.layout import Layout, check_layout, lay_out
from kprune.formats.hdf5.tensors import Hdf5Weights
from kprune.formats.output_tensors import Outcome, attributes, require_sound, resolve
from kprune.formats.source import json_bytes
from kprune.formats.zip import records as zip_records
from kprune.formats.zip.keras_zip import CONFIG, METADATA, WEIGHTS
from kprune.formats.zip.records import NewMember
from kprune.types import AnyPath, Progress

if TYPE_CHECKING:
    from kprune.checking import Outline


class NewKeras(Struct):
    """Writes what an edit makes of some weights as a `.keras` zip, as a `Source` does its own kind.

    Attributes:
        weights: of the input, which must have no checksum of its own.
        before: gives what `kprune.checking` must know of the input.
    """

    weights: Hdf5Weights
    before: Callable[[], Outline]
    format = "keras"

    def output_size(self, edit: Edit) -> int:
        """How many bytes `write` would write."""
        _, _, _, members = self._plan(edit)
        return _size(members)

    def write(self, edit: Edit, output: AnyPath, force: bool, progress: Progress | None) -> int:
        """Carry out an edit whose config and paths are those of a `.keras` file.

        Returns: bytes written.
        Raises: as `kprune.formats.write_model`.
        """
        with new_file(output, force=force) as new:
            outcome, layout, texts, members = self._plan(edit)
            with writing(new.name):
                os.ftruncate(new.fd, _size(members))
            for member in members:
                target = stream.Target(new.fd, member.data_offset, new.name)
                if member.name in texts:
                    target.put(0, [texts[member.name]])
                else:
                    stream.copy_weights(
                        self.weights, outcome, layout, target, verify=False, progress=progress
                    )
                member.crc = target.checksum(member.size)
            for member in members:
                stream.Target(new.fd, member.offset, new.name).put(0, [member.local_header()])
            end = zip_records.directory(members)
            stream.Target(new.fd, members[-1].end, new.name).put(0, [end])
            check_layout(layout, new.fd, members[-1].data_offset, new.name)
            new.commit(self.weights.file.check_unchanged)
        return _size(members)

    def _plan(self, edit: Edit) -> tuple[Outcome, Layout, dict[str, bytes], list[NewMember]]:
        outcome = resolve(self.weights.table, edit)
        require_sound(outcome, edit, self.before)
        layout = lay_out(outcome.objects, attributes(outcome, edit))
        texts = {METADATA: json_bytes(edit.metadata), CONFIG: json_bytes(edit.config)}
        members: list[NewMember] = []
        for name in (METADATA, CONFIG, WEIGHTS):
            size = len(texts[name]) if name in texts else layout.size
            members.append(NewMember(name, size, members[-1].end if members else 0))
        return outcome, layout, texts, members


def _size(members: list[NewMember]) -> int:
    return members[-1].end + len(zip_records.directory(members))
