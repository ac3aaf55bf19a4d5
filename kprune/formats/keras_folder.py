"""The `.keras` file as a folder, which is what unzipping one leaves (and Keras loads as well)."""

from __future__ import annotations

import os
import stat
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

from kprune.atomic import copy_file, new_folder, put_file
from kprune.edit import Edit
from kprune.errors import UsageError
from kprune.faults import file_error, parsing, shown, writing
from kprune.formats import stream
from kprune.formats.bounded_json import json_object
from kprune.formats.hdf5.layout import Layout, check_layout
from kprune.formats.hdf5.tensors import Hdf5Weights
from kprune.formats.opening import OpenFile, open_file
from kprune.formats.output_tensors import Outcome, require_sound, resolve
from kprune.formats.output_tensors import layout as outcome_layout
from kprune.formats.source import Source, json_bytes
from kprune.formats.vocabularies import without_lines
from kprune.formats.zip.keras_zip import CONFIG, METADATA, WEIGHTS
from kprune.limits import JSON_BYTES
from kprune.text import clean
from kprune.types import AnyPath, Progress


def open_source(folder: Path) -> Source:
    """Open a folder that holds a config.json."""
    return KerasFolder(folder)


class KerasFolder(Source):
    """An unzipped `.keras` file. It has no checksums: only the shapes tell whether it is whole."""

    format = "keras-folder"
    weights: Hdf5Weights

    def __init__(self, folder: Path) -> None:
        self.path = self.folder = folder
        with ExitStack() as held:
            self._files = {name: self._open(name, held) for name in (CONFIG, WEIGHTS)}
            if os.path.lexists(folder / METADATA):
                self._files[METADATA] = self._open(METADATA, held)
            self.config = self._object(CONFIG)
            self.metadata = self._object(METADATA) if METADATA in self._files else {}
            weights = Hdf5Weights(self._files[WEIGHTS].window(), WEIGHTS)
            self.weights = held.enter_context(closing(weights))
            weights.require_named_types()
            self._others = self._other_files()
            self._held = held.pop_all()
        self.bytes = sum(file.size for file in self._files.values()) + self._size_of_others()

    def _open(self, name: str, held: ExitStack) -> OpenFile:
        file = open_file(self.folder / name)
        held.callback(file.close)
        return file

    def _object(self, name: str) -> dict[str, Any]:
        file = self._files[name]
        JSON_BYTES.check(file.size, name, file)
        return json_object(file.read(0, file.size), file, name)

    def _other_files(self) -> list[str]:
        """Folders and files that kprune does not know, each folder before what is in it."""
        found = []
        for folder, folders, files in os.walk(self.folder):
            folders.sort()
            for name in (*folders, *sorted(files)):
                path = os.path.relpath(os.path.join(folder, name), self.folder)
                if path not in self._files:
                    found.append(path)
        return found

    def _size_of_others(self) -> int:
        status = [os.stat(self.folder / path) for path in self._others]
        return sum(item.st_size for item in status if stat.S_ISREG(item.st_mode))

    @property
    def extras(self) -> list[str]:
        return [path for path in self._others if not (self.folder / path).is_dir()]

    def extra(self, name: str) -> bytes:
        if name not in self._others:
            raise KeyError(name)
        try:
            return (self.folder / name).read_bytes()
        except OSError as error:
            raise file_error(error, "read", shown(self.folder / name)) from error

    def close(self) -> None:
        self._held.close()

    def output_size(self, edit: Edit) -> int:
        _, layout = self._plan(edit)
        texts = sum(map(len, self._texts(edit).values()))
        cut = self._cut_texts(edit)
        saved = sum(os.path.getsize(self.folder / name) - len(text) for name, text in cut.items())
        return layout.size + texts + self._size_of_others() - saved

    def _cut_texts(self, edit: Edit) -> dict[str, bytes]:
        """What is left of text files that lose lines."""
        cut = {}
        for name, gone in edit.without_lines.items():
            with parsing(self.folder, clean(name)):
                cut[name] = without_lines(self.extra(name), gone)
        return cut

    def _texts(self, edit: Edit) -> dict[str, bytes]:
        texts = {CONFIG: json_bytes(edit.config), METADATA: json_bytes(edit.metadata)}
        return {name: text for name, text in texts.items() if name in self._files}

    def write(self, edit: Edit, output: AnyPath, force: bool, progress: Progress | None) -> int:
        own = Path(os.path.realpath(self.folder))
        if own in Path(os.path.realpath(output)).parents:
            inside = f"{shown(output)} lies inside the model"
            raise UsageError(inside, do="name another output with -o")
        with new_folder(output, force=force, replaceable=_is_model) as new:
            cut = self._cut_texts(edit)
            for path in self._others:
                if path not in cut:
                    self._carry_over(path, new.path / path, new.name)
            for name, text in (*self._texts(edit).items(), *cut.items()):
                with writing(new.name):
                    put_file(new.path / name, text)
            self._write_weights(edit, new.path / WEIGHTS, new.name, progress)
            new.commit(self._check_unchanged)
        return self.output_size(edit)

    def _plan(self, edit: Edit) -> tuple[Outcome, Layout]:
        edit = self.settled(edit)
        outcome = resolve(self.weights.table, edit)
        require_sound(outcome, edit, self.outline)
        return outcome, outcome_layout(self.weights, outcome, edit)

    def _write_weights(self, edit: Edit, path: Path, name: str, progress: Progress | None) -> None:
        outcome, layout = self._plan(edit)
        with writing(name):
            fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
        try:
            with writing(name):
                os.ftruncate(fd, layout.size)
            target = stream.Target(fd, 0, name)
            stream.copy_weights(
                self.weights, outcome, layout, target, verify=False, progress=progress
            )
            target.checksum(layout.size)  # it is not stored, but a hole would be noticed
            check_layout(layout, fd, 0, name)
        finally:
            os.close(fd)

    def _carry_over(self, path: str, target: Path, name: str) -> None:
        source = self.folder / path
        try:
            if os.path.isdir(source):
                target.mkdir()
            else:
                # Of a link what it leads to: `check_tree` has been there.
                copy_file(source, target)
        except OSError as error:
            raise file_error(error, "write", name) from error

    def _check_unchanged(self) -> None:
        for file in self._files.values():
            file.check_unchanged()

    def check_integrity(self) -> None:
        """There is nothing to compare with: opening has checked that all bytes are there."""


def _is_model(folder: Path) -> bool:
    return all((folder / name).is_file() for name in (CONFIG, WEIGHTS))
