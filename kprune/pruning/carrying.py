"""Carrying a change out: open, analyse, report, write."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import msgspec
from msgspec import Struct, field
from msgspec.structs import replace

from kprune.analysis.analysis import Analysis
from kprune.analysis.counts import count
from kprune.atomic import new_file, put
from kprune.edit import Edit
from kprune.errors import CheckError, UsageError
from kprune.faults import shown
from kprune.formats import Source, default_output, write_model
from kprune.opened import analyse, open_model
from kprune.page.result import Note
from kprune.pruning.changes import Change
from kprune.pruning.selection import NamesLeft
from kprune.report.build import build, facts
from kprune.report.report import Report
from kprune.surgery.relocate import with_names

Progress = Callable[[int, int], None]
Make = Callable[[Source, Analysis], Change]


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

    output: str | os.PathLike[str] | None = None
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
                "the model comes from standard input, so it has no name to write beside",
                do="name the output with -o PATH, or -o - for standard output",
            )
        if self.in_place:
            return str(source.path)
        if self.output is not None:
            return str(self.output)
        return str(source.default_output or default_output(str(source.path)))

    def tokens_path(self, source: Source) -> Path | None:
        """Where the table of token ids goes: beside the result; None where that has no place."""
        if self.output == "-" or (self.output is None and source.path is None):
            return None
        return self._beside(source, "tokens.json")

    def _beside(self, source: Source, name: str) -> Path:
        result = Path(self.path(source))
        # The folder of a SavedModel, `digits.pruned`, has no suffix.
        suffixed = result.suffix.lower() in (".keras", *_LEGACY)
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


def carry_out(
    model: Any, target: Target, rules: Iterable[str], make: Make, *, trust: bool = False
) -> Any:
    """Open, analyse, make the change, report, write. A live Keras model goes through a temporary file."""
    if hasattr(model, "save") and hasattr(model, "get_config"):
        return _live(model, target, rules, make, trust)
    with open_model(model, trust=trust) as source:
        return carry_out_source(source, rules, make, target)


def carry_out_source(source: Source, rules: Iterable[str], make: Make, target: Target) -> Report:
    """The same for a file that is open."""
    analysis = analyse(source, rules)
    return write(source, analysis, make(source, analysis), target)


def write(source: Source, analysis: Analysis, change: Change, target: Target) -> Report:
    path = None if target.dry_run else target.path(source)
    beside, told = companions(source, change, target)
    told += [Note("unfolded", "", text) for text in source.told]
    change = replace(change, edit=with_names(analysis, change.edit))
    counted = count(analysis)
    report = build(
        analysis,
        change.edit,
        command=change.command,
        backend=change.backend,
        before=facts(
            counted, None if source.path is None else str(source.path), source.format, source.bytes
        ),
        counted=counted,
        selected=change.selected,
        changed=change.changed,
        gone=change.gone,
        notes=[*change.notes, *told],
        exact=change.exact,
    )
    writer, edit = _writer(source, analysis, change.edit, target.output)
    if writer is not source:
        output = msgspec.structs.replace(report.output, format=writer.format)
        told = [*report.notes, Note("converted", "", _converted(source))]
        report = msgspec.structs.replace(report, output=output, notes=told)
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


def companions(
    source: Source, change: Change, target: Target
) -> tuple[dict[Path, str], list[Note]]:
    """The texts that go beside the result of a change, by place, and notes that tell where they are."""
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
    old = str(source.metadata.get("keras_version")).startswith("2.")
    reader = "Keras 2 (2.14 or newer)" if old else "Keras 3"
    return f"written as .keras, which {reader} loads uncompiled: what compile() set stays behind in the .h5"


_LEGACY = (".h5", ".hdf5")


def _writer(
    source: Source, analysis: Analysis, edit: Edit, output: str | os.PathLike[str] | None
) -> tuple[Any, Edit]:
    """What writes a source's result, and the edit as it takes it: an output's name may ask for another format.

    Raises: UsageError for a conversion that there is not; CannotPruneError if this model stands in its way.
    """
    suffix = Path(output).suffix.lower() if output is not None else ""
    if source.format == "h5" and suffix == ".keras":
        from kprune.formats.new_keras import NewKeras
        from kprune.surgery.convert import as_keras

        weights: Any = source.weights  # those of a legacy file
        return NewKeras(weights, source.outline), as_keras(analysis, edit)
    refuse_other_format(source, output)
    return source, edit


def refuse_other_format(source: Source, output: str | os.PathLike[str] | None) -> None:
    """Raises: UsageError if an output's name asks for a format into which its model is not converted."""
    suffix = Path(output).suffix.lower() if output is not None else ""
    if source.format == "savedmodel" and suffix in (".keras", *_LEGACY):
        raise UsageError(
            f"a SavedModel is not written as {suffix}",
            why="kprune keeps the format that a model has, and a SavedModel is a folder",
            do="name a folder with -o",
        )
    if source.format in ("keras", "keras-folder") and suffix in _LEGACY:
        raise UsageError(
            f"a .keras model is not written as {suffix}",
            why="kprune keeps the format that a model has: a legacy file cannot hold all that a .keras file can",
            do="name an output that ends in .keras; Keras itself saves that as .h5",
        )


def with_output(report: Report, path: str | None, size: int) -> Report:
    """The report with the place and size of what was written."""
    output = msgspec.structs.replace(report.output, path=path, bytes=size)
    return msgspec.structs.replace(report, output=output)


def check_limits(report: Report, limits: Mapping[str, float]) -> None:
    """Raises: CheckError, before anything is written, if the result would be larger than allowed."""
    for name, limit in limits.items():
        value = getattr(report.output, name)
        if value > limit:
            raise CheckError(
                f"the result would have {value:,} {name}, and --max-{name} allows {limit:,.0f}",
                do="choose more units; nothing was written",
            )


def _live(model: Any, target: Target, rules: Iterable[str], make: Make, trust: bool) -> Any:
    """Save a Keras model, change the file, load it again."""
    if target.output is not None or target.in_place or target.dry_run:
        raise UsageError(
            "output, in_place and dry_run go with model files", do="save the model first"
        )
    from kprune.runtime.keras_runtime import load
    from kprune.runtime.lambda_code import names_of

    def alone(source: Source, analysis: Analysis) -> Change:
        # Beside a model in memory there is no place for further files.
        return replace(make(source, analysis), names=None, token_ids=None)

    with tempfile.TemporaryDirectory() as folder, names_of(model):
        before, after = Path(folder) / "model.keras", Path(folder) / "pruned.keras"
        model.save(before)
        carry_out(before, Target(after, limits=target.limits), rules, alone, trust=trust)
        with open_model(after, trust=trust) as source:
            return load(source, Path(folder), compiled=True)
