"""Carrying out a change: report and write it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from msgspec import Struct, field
from msgspec.structs import replace

from kprune.analysis.analysis import Analysis
from kprune.atomic import check_output, new_file, put
from kprune.edit import Edit
from kprune.errors import CheckError, UsageError
from kprune.faults import shown
from kprune.formats import Source, default_output, write_model
from kprune.formats.registry import SUFFIXES, refuse_other_format, suffix_of
from kprune.graph.dialects import is_keras_2
from kprune.graph.weight_groups import is_state
from kprune.opened import LiveModel, Opened, open_model
from kprune.page.result import Note
from kprune.report.build import build
from kprune.report.change import Change
from kprune.report.names_left import NamesLeft
from kprune.report.report import Report
from kprune.surgery.relocate import with_names
from kprune.types import AnyPath, Progress


class Target(Struct, frozen=True):
    """Where the result goes.

    Attributes:
        output: a path, `-` for standard output, or None for `NAME.pruned.EXT` beside the input.
        in_place: write over the input.
        force: write over an existing file.
        dry_run: write nothing.
        limits: figures of the result that must not be exceeded: `parameters`, `flops`, `bytes`, `units`.
        progress: called with (bytes done, bytes in all).
    Raises: UsageError if two places are given.
    """

    output: AnyPath | None = None
    in_place: bool = False
    force: bool = False
    dry_run: bool = False
    limits: Mapping[str, float] = field(default_factory=dict)
    progress: Progress | None = None

    def __post_init__(self) -> None:
        if self.in_place and self.output is not None:
            raise UsageError("--in-place and --output cannot be combined", do="give one of them")

    def path(self, source: Source) -> str:
        """Where a source's result goes. Raises: UsageError if that cannot be told."""
        if source.path is None and self.output is None:
            raise UsageError(
                "the model comes from standard input, so there is no file name to derive the output's name from",
                do="name the output with -o PATH, or -o - for standard output",
            )
        if self.in_place:
            return str(source.path)
        if self.output is not None:
            return str(self.output)
        return str(source.default_output or default_output(str(source.path)))

    def check(self, source: Source) -> None:
        """Called before long work. Raises: UsageError, FileError if a source's result may not go there."""
        if not self.dry_run:
            check_output(self.path(source), force=self.force or self.in_place)

    def tokens_path(self, source: Source) -> Path | None:
        """Where the table of token ids goes: beside the result; None where that has no place."""
        if self.output == "-" or (self.output is None and source.path is None):
            return None
        return self._beside(source, "tokens.json")

    def _beside(self, source: Source, name: str) -> Path:
        result = Path(self.path(source))
        # The folder of a SavedModel, `digits.pruned`, has no suffix.
        suffixed = suffix_of(result) in SUFFIXES
        return result.with_name(f"{result.stem if suffixed else result.name}.{name}")

    def names_path(self, source: Source, names: NamesLeft) -> Path:
        """Where the file of class names goes: beside the result, and called after it.

        `small.keras` and `labels.txt` give `small.labels.txt`. In place means that file as well,
        and beside standard output there is no place: then it goes beside the old one.
        """
        if names.place is not None:
            return names.place
        if self.in_place:
            return names.file
        if self.output == "-" or (self.output is None and source.path is None):
            return default_output(names.file)
        return self._beside(source, names.file.name)


def write(it: Opened, change: Change, target: Target) -> Report | LiveModel:
    """Carry out a change. A model in memory stays unchanged: a new one is loaded from the written file.

    Raises: CheckError for a result larger than allowed, FileError, UsageError.
    """
    if not it.live:
        return write_file(it, change, target)
    from kprune.runtime.keras_runtime import load

    assert it.source.path is not None
    folder = it.source.path.parent
    # Beside a model in memory there is no place for further files.
    change = replace(change, names=None, token_ids=None)
    after = folder / "pruned.keras"
    write_file(it, change, Target(after, limits=target.limits))
    with open_model(after, trust=it.source.trusted) as source:
        loaded: LiveModel = load(source, folder, compiled=True)
    return loaded


def write_file(it: Opened, change: Change, target: Target) -> Report:
    """Carry out a change of a file, and report it. Errors: as `write`."""
    source, analysis = it.source, it.analysis
    path = None if target.dry_run else target.path(source)
    beside, told = companions(source, change, target)
    told += [Note("unfolded", "", text) for text in source.told]
    change = replace(change, edit=with_names(analysis, change.edit))
    if source.drops_optimizer:
        change = replace(change, notes=_without_optimizer(source, change.notes))
    report = build(it, change, told)
    writer, edit = _writer(source, analysis, change.edit, target.output)
    if writer is not source:
        output = replace(report.output, format=writer.format)
        told = [*report.notes, Note("converted", "", _converted(source))]
        report = replace(report, output=output, notes=told)
    if target.dry_run or target.limits:
        report = with_output(report, None, writer.output_size(edit))
        check_limits(report, target.limits)
    if path is None:
        return report
    force = target.force or target.in_place
    with written_beside(beside, force=force) as commit:
        written = write_model(writer, edit, path, force=force, progress=target.progress)
        commit()
    return with_output(report, path, written)


def _without_optimizer(source: Source, notes: Iterable[Note]) -> tuple[Note, ...]:
    """The notes of a change whose result leaves the optimizer's state behind."""
    size = sum(tensor.nbytes for path, tensor in source.tensors.items() if is_state(path))
    text = "the file holds no state of an optimizer"
    if size:
        text = f"the optimizer's state ({size:,} bytes) was left behind: a training starts anew"
    own = Note("optimizer", "", text)
    return (*(note for note in notes if note.kind != own.kind), own)


def companions(
    source: Source, change: Change, target: Target
) -> tuple[dict[Path, str], list[Note]]:
    """The text files beside the result of a change, by place, and notes that name them."""
    texts: dict[Path, str] = {}
    notes = []
    if change.names is not None:
        place = target.names_path(source, change.names)
        text = f"the names of the {change.names.count} classes that are left: {shown(place)}"
        notes.append(Note("class-names", change.names.address, text))
        texts[place] = change.names.text
    if change.token_ids is not None and (table := target.tokens_path(source)) is not None:
        notes.append(Note("tokens", "", f"the new id of each old one: {shown(table)}"))
        texts[table] = change.token_ids.table(change.edit.metadata)
    return texts, notes


@contextmanager
def written_beside(texts: Mapping[Path, str], *, force: bool) -> Iterator[Callable[[], None]]:
    """Have files ready, so that they and the model come into being together or not at all.

    Returns: what gives them their names.
    """
    with ExitStack() as held:
        files = []
        for place, text in texts.items():
            file = held.enter_context(new_file(place, force=force))
            put(file, text.encode())
            files.append(file)

        def commit() -> None:
            for file in files:
                file.commit(lambda: None)

        yield commit


def _converted(source: Source) -> str:
    reader = "Keras 2 (2.14 or newer)" if is_keras_2(source.metadata) else "Keras 3"
    return f"written as .keras, which {reader} loads uncompiled: what compile() set stays behind in the .h5"


def _writer(
    source: Source, analysis: Analysis, edit: Edit, output: AnyPath | None
) -> tuple[Any, Edit]:
    """What writes a source's result, and the edit as it takes it: an output's name may ask for another format.

    Raises: UsageError for an unknown conversion; CannotPruneError if this model cannot be converted.
    """
    if source.format == "h5" and output is not None and suffix_of(output) == ".keras":
        from kprune.formats.new_keras import NewKeras
        from kprune.surgery.convert import as_keras

        weights: Any = source.weights  # those of a legacy file
        return NewKeras(weights, source.outline), as_keras(analysis, edit)
    refuse_other_format(source, output)
    return source, edit


def with_output(report: Report, path: str | None, size: int) -> Report:
    """The report with the place and size of what was written."""
    output = replace(report.output, path=path, bytes=size)
    return replace(report, output=output)


def check_limits(report: Report, limits: Mapping[str, float]) -> None:
    """Raises: CheckError, before anything is written, if the result would be larger than allowed."""
    for name, limit in limits.items():
        value = getattr(report.output, name)
        if value > limit:
            raise CheckError(
                f"the result would have {value:,} {name}, and --max-{name} allows {limit:,.0f}",
                do="choose more units; nothing was written",
            )
