"""The formats that there are, and how a file is told to be of one: by its content, not its name.

A format is a module with one function, `open_source`, which takes the opened file (or the folder's
path) and returns a `Source`. To add one, write the module and name it in the table.
"""

from __future__ import annotations

import importlib
import os
from collections.abc import Callable
from pathlib import Path

from msgspec import Struct

from kprune.atomic import STANDARD_OUTPUT
from kprune.edit import Edit
from kprune.errors import DamagedFileError, LimitError, UsageError
from kprune.faults import file_error, shown
from kprune.formats.folder_tree import check_tree
from kprune.formats.opening import STANDARD_INPUT, OpenFile, open_file
from kprune.formats.source import Source
from kprune.text import clean
from kprune.types import AnyPath, Progress


class Format(Struct, frozen=True):
    """One kind of model file.

    Attributes:
        name: as reports give it.
        module: which reads and writes it.
        starts: the first bytes of such a file; empty for a folder.
        later: where else these may stand, behind bytes that mean nothing to the format.
        holds: a file that such a folder has; empty for a file.
        suffixes: what names of such files end in; one of another format is refused for an output.
        called: such a model, in a sentence.
        why_kept, instead: why it is written in no other format, and what can be done.
    """

    name: str
    module: str
    starts: bytes = b""
    later: tuple[int, ...] = ()
    holds: str = ""
    called: str = "model"
    suffixes: tuple[str, ...] = ()
    why_kept: str = "kprune keeps the format that a model has"
    instead: str = "name an output that ends as the model's own name does"


_KERAS_KEPT = (
    "kprune keeps the format that a model has: a legacy file cannot hold all that a .keras file can"
)
_KERAS_INSTEAD = "name an output that ends in .keras; Keras itself saves that as .h5"
FORMATS = (
    Format(
        "keras", "kprune.formats.zip.keras_zip", starts=b"PK\x03\x04",
        called=".keras model", suffixes=(".keras",),
        why_kept=_KERAS_KEPT, instead=_KERAS_INSTEAD,
    ),
    Format(
        "h5", "kprune.formats.legacy_h5", starts=b"\x89HDF\r\n\x1a\n",
        later=tuple(512 << number for number in range(12)),
        called=".h5 model", suffixes=(".h5", ".hdf5"),
        instead="name an output that ends in .h5 or .keras",
    ),
    Format(
        "savedmodel", "kprune.saved_model.files.source", holds="saved_model.pb",
        called="SavedModel",
        why_kept="kprune keeps the format that a model has, and a SavedModel is a folder",
        instead="name a folder with -o",
    ),
    Format(
        "keras-folder", "kprune.formats.keras_folder", holds="config.json",
        called=".keras model in a folder",
        why_kept="kprune keeps the format that a model has, and Keras loads no folder of such a name",
        instead="name a folder with -o",
    ),
)  # fmt: skip
SUFFIXES = frozenset(suffix for kind in FORMATS for suffix in kind.suffixes)
"""What names of model files end in."""

_CONVERTERS = {
    ".tflite": ", and convert that with tf.lite.TFLiteConverter",
    ".onnx": ', and convert that with model.export(…, format="onnx") in Keras',
}
_FOREIGN = {*_CONVERTERS, *".pb .pt .pth .npz .npy .json .yaml .yml .zip .tar .gz .tgz".split()}
"""What names of files end in that are no model files of Keras's."""


def open_model(path: AnyPath, *, trust: bool = False) -> Source:
    """Open a model file or folder. This reads its config and where its weights lie, no weights.

    Args:
        path: of the file or folder; '-' for standard input.
        trust: whether code that is not Keras's own may be run to read it: code of packages that the
            file names, or in the file itself.
    Returns: a Source, to be used in a `with` or closed.
    Raises: UsageError if it is no path; FileError if it is missing, not readable or not a model;
        CannotPruneError for a folder with links that leave it, unless it is trusted;
        DamagedFileError if it is a model and its parts contradict each other.
    """
    if not isinstance(path, (str, os.PathLike)):
        raise UsageError(
            f"a model is given as '{type(path).__name__}'",
            do="give the path of a model file; a model in memory is saved to one first",
        )
    piped = os.fspath(path) == STANDARD_INPUT
    if not piped and not os.path.exists(path):
        _look_for_missing(path)
    if not piped and os.path.isdir(path):
        opener = _folder_opener(Path(path))
        check_tree(Path(path), trust=trust)
        source = opener(Path(path))
    else:
        file = open_file(path, tuple(kind.starts for kind in FORMATS if kind.starts))
        try:
            source = _file_opener(file)(file)
        except BaseException:
            file.close()
            raise
    source.trusted = trust
    return source


# What is no model is told apart by a module that only such files need.


def _look_for_missing(path: AnyPath) -> None:
    """Put a folder back that a killed run had set aside. Raises: FileError if there is none."""
    from kprune.atomic import put_back
    from kprune.formats import lookalikes

    if put_back(Path(path)):
        return
    if missing := lookalikes.refuse_missing(path):
        raise missing


def _folder_opener(folder: Path) -> Callable[[Path], Source]:
    from kprune.formats import lookalikes

    try:
        names = set(os.listdir(folder))
    except OSError as error:
        raise file_error(error, "read", shown(folder)) from error
    for kind in FORMATS:
        if kind.holds and kind.holds in names:
            if kind.holds == lookalikes.CONFIG:
                lookalikes.check_keras_folder(folder, names)
            return _opener(kind)
    raise lookalikes.refuse_folder(folder, names)


def _file_opener(file: OpenFile) -> Callable[[OpenFile], Source]:
    for kind in FORMATS:
        if kind.starts and _stands_at(0, kind.starts, file):
            return _opener(kind)
    from kprune.formats import lookalikes

    for kind in FORMATS if lookalikes.by_signs(file) is None else ():
        if any(_stands_at(place, kind.starts, file) for place in kind.later):
            return _opener(kind)
    raise lookalikes.refuse_file(file)


def _stands_at(place: int, data: bytes, file: OpenFile) -> bool:
    return place + len(data) <= file.size and file.read(place, len(data)) == data


def _opener(kind: Format) -> Callable[..., Source]:
    opener: Callable[..., Source] = importlib.import_module(kind.module).open_source
    return opener


def write_model(
    source: Source,
    edit: Edit,
    output: AnyPath,
    *,
    force: bool = False,
    progress: Progress | None = None,
) -> int:
    """Carry out an edit: write the model that it makes of an opened one.

    The output has the source's format, whatever its name. It is whole or not there at all, the same
    source and edit give the same bytes, and a source that does not match its checksums, or that
    changes meanwhile, gives no output.

    Args:
        source: open; the output may be the very same path (with `force`).
        output: path of the new file or folder; '-' for standard output.
        force: whether an existing output may be replaced.
        progress: called in this thread with (bytes done, bytes in all).
    Returns: bytes written.
    Raises: UsageError if the output exists or is no place for a model; DamagedFileError if the
        source turns out damaged; FileError if the system cannot write.
    """
    try:
        return source.write(edit, output, force, progress)
    except (DamagedFileError, LimitError) as error:
        error.name_file(source.name)
        raise


def suffix_of(path: AnyPath) -> str:
    """What the name of a file ends in, in small letters: `.keras`; "" for a name without suffix."""
    return Path(path).suffix.lower()


def refuse_other_format(source: Source, output: AnyPath | None) -> None:
    """Raises: UsageError if an output's name says that it is of another format than its model.

    A file ends as files of its format do, or as the input does. A folder's name may hold dots, but
    does not end as some file's does: Keras and others go by that.
    """
    if output is None or os.fspath(output) == STANDARD_OUTPUT:
        return
    own, suffix = _format_of(source), suffix_of(output)
    known = {*own.suffixes, *([suffix_of(source.path)] if source.path else [])}
    if suffix in known or (own.holds and suffix not in SUFFIXES | _FOREIGN):
        return
    written = f"as {clean(suffix, 40)}" if suffix else "to a name without suffix"
    why, do = own.why_kept, own.instead
    if own.suffixes and suffix not in SUFFIXES:
        why = "Keras tells a file's format by its name, and refuses to load this one"
        do = f"name an output that ends in {own.suffixes[0]}{_CONVERTERS.get(suffix, '')}"
    raise UsageError(f"a {own.called} is not written {written}", why=why, do=do)


def usual_suffix(source: Source) -> str:
    """What names of a source's format end in; "" for a folder."""
    return next(iter(_format_of(source).suffixes), "")


def _format_of(source: Source) -> Format:
    return next(kind for kind in FORMATS if kind.name == source.format)


def default_output(path: AnyPath) -> Path:
    """Where the result goes by default: `model.keras` gives `model.pruned.keras` beside it.

    Raises: UsageError for standard input, which has no name.
    """
    if os.fspath(path) == STANDARD_INPUT:
        raise UsageError("a model from standard input needs an output", do="name it with -o")
    given = Path(path)
    if given.name in ("", ".."):
        given = given.resolve()
    return given.with_name(f"{given.stem}.pruned{given.suffix}")
