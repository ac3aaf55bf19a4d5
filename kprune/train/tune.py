"""Training on what is left, in plain Keras: the file's own loss, metrics, optimizer and its state."""

from __future__ import annotations

import dataclasses
import os
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any, Unpack

import numpy as np

from kprune.analysis.analysis import Analysis
from kprune.analysis.user_rules import load_rules
from kprune.atomic import TemporaryFolder, check_apart, check_output
from kprune.edit import Edit
from kprune.errors import UsageError
from kprune.faults import shown
from kprune.formats import Source, default_output, write_model
from kprune.formats.registry import refuse_other_format
from kprune.labels.map import TOKENS, adapted_layers
from kprune.opened import analyse, open_model, opened
from kprune.page.plot import check_plot, draw
from kprune.page.result import Note
from kprune.pointing import checked
from kprune.pruning.remove import removal
from kprune.pruning.writing import Target, write_file
from kprune.running.classes import classes_left
from kprune.running.compiling import compile_for
from kprune.running.examples import examples
from kprune.running.sources import DataSource, Given, given, named
from kprune.runtime.custom_classes import with_modules_of
from kprune.runtime.inert import not_compiled
from kprune.runtime.keras_import import keras_of
from kprune.runtime.keras_runtime import load, output_names
from kprune.runtime.lambda_code import trusted
from kprune.select.naming.class_names import output_axes
from kprune.surgery.provenance import KEY, TRAINED, is_refitted, left_units, with_training
from kprune.text import clean
from kprune.train.checkpoint import Checkpoint, Epoch, History
from kprune.train.distilling import distiller
from kprune.train.gentle_start import start_gently
from kprune.train.held_zeros import HeldZeros
from kprune.train.settings import Settings, TrainingOptions
from kprune.train.sparsity import Sparsity
from kprune.train.tune_loop import OnEpoch, Training
from kprune.train.tune_result import Tuning, panels
from kprune.train.work_folder import fingerprint
from kprune.types import AnyPath

HOLD_BACK = 0.1  # of an .npz file, unless something else is said


@checked(TrainingOptions)
def tune(
    model: AnyPath,
    *,
    data: DataSource,
    validation: DataSource | None = None,
    teacher: AnyPath | None = None,
    output: AnyPath | None = None,
    in_place: bool = False,
    force: bool = False,
    resume: bool = False,
    plot: AnyPath | None = None,
    rules: Iterable[str] = (),
    trust: bool = False,
    on_epoch: OnEpoch | None = None,
    **how: Unpack[TrainingOptions],
) -> Tuning:
    """Train a model file on, and write the best epoch.

    After each epoch the state is kept in the folder OUTPUT.checkpoint, which is removed when the
    output is written. With arrays, a run that is interrupted and resumed gives what one that
    was not interrupted gives with the same seed: to the bit where TensorFlow itself repeats, as it
    does on a CPU. A function's dataset has to repeat its order by itself; of models of Keras 2 only
    those without dropout repeat.

    Args:
        model: path of a `.keras` file or folder.
        data: inputs and targets, see `DataSource`.
        validation: the same, to judge epochs by; else a part of them is held back, but of a dataset.
        teacher: a model whose outputs are learned along with the targets (distillation).
        output, in_place, force: where the result goes; by default NAME.tuned.EXT.
        resume: go on from the last finished epoch of an interrupted run, if there was one.
        plot: a path that ends in .svg or .png, for the curves of loss and metrics.
        rules: files with rules for layers that kprune does not know; they may register classes.
        trust: whether classes that are not Keras's own may be imported from where the files say.
        on_epoch: called after each epoch with (epoch, epochs, metrics).
        how: the fields of `kprune.train.settings.Settings`: epochs, batch_size, learning_rate …
    Raises: UsageError, CannotPruneError, FileError. An interruption (KeyboardInterrupt) has a note
        that tells where the state is.
    """
    settings, rules = Settings(**how), tuple(rules)
    read = (model, data, validation, teacher, *rules)
    if plot is not None:
        check_plot(plot, force=force, apart=read)
    with (
        open_model(model, trust=trust) as source,
        TemporaryFolder() as folder,
    ):
        target = target_of(source, output, in_place, "tuned")
        check_output(target, force=force or in_place)
        check_apart({"-o": target, "--plot": plot}, read[1:])
        place = Path(folder)
        checkpoint = _checkpoint(
            target, place, settings, model=source, data=named(data), teacher=teacher,
            validation=None if validation is None else named(validation),
        )  # fmt: skip
        history = checkpoint.resumed() if resume else None
        notes = []
        if history is None:
            checkpoint.refuse_if_there(force=force)
            if resume:
                notes.append(
                    Note(
                        "resume",
                        "",
                        "there was nothing to resume: training started from the beginning",
                    )
                )
        before = 0 if history is None else history.last
        history = history or History()
        training, train_notes = _prepared(
            source, settings, data, validation, place,
            left=checkpoint.model(before) if before else None, teacher=teacher, rules=rules,
        )  # fmt: skip
        try:
            training.run(history, checkpoint, settings.epochs, settings.patience, on_epoch)
            _write(source, checkpoint, history.best, target, force=force or in_place)
        except BaseException as stopped:
            if history.last > 0 and not isinstance(stopped, Exception) and target != "-":
                stopped.add_note(
                    f"epochs up to {history.last} are kept in {shown(checkpoint.folder)}; "
                    "the same command with --resume goes on"
                )
            raise
        checkpoint.remove()
    found = Tuning(
        input=os.fspath(model),
        output=target,
        plot=None if plot is None else os.fspath(plot),
        samples=training.train.count,
        held_back=0 if training.held is None else training.held.count,
        epochs=history.judged,
        learned=history.learned,
        best=history.best,
        resumed=before,
        watched=training.watched,
        held_zero=0 if training.zeros is None else training.zeros.units,
        notes=[*notes, *train_notes],
    )
    if plot is not None:
        draw(plot, panels(found), force=force)
    return found


def _refuse_untrainable(source: Source) -> None:
    if source.path is None:
        raise UsageError(
            "training needs a file: Keras loads no model from standard input",
            do="save it, and name it",
        )
    source.require("tune")


def target_of(source: Source, output: AnyPath | None, in_place: bool, word: str) -> str:
    """Where the result goes: by default NAME.WORD.EXT beside the input.

    Raises: UsageError, CannotPruneError for a model that cannot be trained.
    """
    _refuse_untrainable(source)
    if in_place and output is not None:
        raise UsageError("--in-place and --output cannot be combined", do="give one of them")
    if in_place:
        return str(source.path)
    if output is not None:
        refuse_other_format(source, output)
        return os.fspath(output)
    beside = default_output(str(source.path))
    name, _, suffix = beside.name.rpartition(".pruned")  # a pruned model's name says so twice
    return str(beside.with_name(f"{name}.{word}{suffix}"))


def _checkpoint(
    target: str, place: Path, settings: Settings, *, model: Source, **named: Any
) -> Checkpoint:
    """Where the state is kept: beside the output, or nowhere that lasts if that is standard output."""
    folder = place / "checkpoint" if target == "-" else Path(f"{target.rstrip('/')}.checkpoint")
    conditions = {name: None if path is None else os.fspath(path) for name, path in named.items()}
    conditions |= {
        field.name: getattr(settings, field.name)
        for field in dataclasses.fields(settings)
        if field.name not in ("epochs", "patience")  # these only say when it ends
    }
    conditions["model"] = fingerprint(model)
    return Checkpoint(folder, {name.replace("_", " "): it for name, it in conditions.items()})


def judged(
    model: AnyPath,
    *,
    data: DataSource,
    validation: DataSource | None = None,
    rules: Iterable[str] = (),
    trust: bool = False,
    **how: Unpack[TrainingOptions],
) -> Epoch:
    """The figures by which `tune` would judge a model file as it is; the arguments are its own."""
    with _unchanged(model, data, validation, rules, Settings(**how), trust=trust) as training:
        return training.judge()


def learned_from(
    model: AnyPath,
    *,
    data: DataSource,
    validation: DataSource | None = None,
    rules: Iterable[str] = (),
    trust: bool = False,
    **how: Unpack[TrainingOptions],
) -> DataSource:
    """The data without what `tune` would hold back of them; the arguments are its own."""
    with _unchanged(model, data, validation, rules, Settings(**how), trust=trust) as training:
        arguments = training.train.arguments
        return (arguments["x"], arguments["y"]) if "y" in arguments else data


@contextmanager
def _unchanged(
    model: AnyPath,
    data: DataSource,
    validation: DataSource | None,
    rules: Iterable[str],
    settings: Settings,
    *,
    trust: bool,
) -> Iterator[Training]:
    """A model file and its data as `tune` has them before it trains."""
    with (
        open_model(model, trust=trust) as source,
        TemporaryFolder() as folder,
    ):
        _refuse_untrainable(source)
        training, _ = _prepared(source, settings, data, validation, Path(folder), rules=rules)
        yield training


def _prepared(
    source: Source,
    settings: Settings,
    data: DataSource | Given,
    validation: DataSource | None,
    place: Path,
    *,
    left: Path | None = None,
    teacher: Any = None,
    rules: Iterable[str] = (),
) -> tuple[Training, list[Note]]:
    """The model, compiled, and its data.

    Args:
        place: a temporary folder.
        left: what an interrupted training left of the model; it is compiled already.
    """
    keras = keras_of(source)
    load_rules(rules)
    keras.utils.set_random_seed(settings.seed)
    with (
        open_model(left, trust=source.trusted)
        if left is not None
        else nullcontext(source) as opened
    ):
        live = load(opened, place, compiled=True)
    share, data = settings.validation_split, given(data)
    if share is None:
        share = 0.0 if validation is not None or data.is_dataset else HOLD_BACK
    elif share and validation is not None:
        raise UsageError(
            "--validation and --validation-split cannot be combined", do="give one of them"
        )
    size, seed = settings.batch_size, settings.seed
    analysis = analyse(source, rules)
    classes = classes_left(analysis, output_names(live))
    train, held = examples(live, data, size, hold_back=share, seed=seed, classes=classes)
    if validation is not None:
        held, _ = examples(live, validation, size, hold_back=0.0, seed=seed, classes=classes)
    said = bool(source.config.get("compile_config"))
    notes = [] if left is not None else compile_for(keras, live, train, settings, said=said)
    if left is None and is_refitted(source.metadata):
        before = TRAINED in source.metadata[KEY]
        notes += start_gently(keras, live, settings, said=said, before=before)
    notes += [*trusted(source), *not_compiled(source), *train.notes]
    if held is None:
        text = "no data are held back: epochs are judged by those the model learns from"
        notes.append(Note("validation", "", text))
    if analysis.unstored:
        names = ", ".join(f"'{clean(name)}'" for name in adapted_layers(analysis.unstored)[:4])
        text = (
            f"adapters of LoRA ({names}) do not learn: Keras loads both of a pair as zeros, and the "
            "kernel behind them is frozen; enable them anew in Python to train them"
        )
        notes.append(Note("adapters", "", text))
    zeros = HeldZeros(live, source, analysis) if settings.keep_zeros else None
    trainer = live
    if teacher is not None:
        trainer = _with_teacher(teacher, live, analysis, place, rules, trust=source.trusted)
    sparsity = None
    if settings.sparsify is not None:
        sparsity = Sparsity(live, analysis, settings.sparsify)
    return Training(keras, live, trainer, train, held, zeros, seed, sparsity), notes


def _with_teacher(
    path: Any, live: Any, analysis: Analysis, place: Path, rules: Iterable[str], *, trust: bool
) -> Any:
    """A trainer with a teacher, which first loses the classes that the model has lost."""
    answers = {axis.address for axis in output_axes(analysis)}
    # Token ids are others as well: the teacher has to know them as its student does.
    answers |= {axis.address for axis in analysis.map.axes.values() if axis.name == TOKENS}
    left = {
        address: kept
        for address, kept in left_units(analysis.metadata).items()
        if address in answers
    }
    if not left:
        with open_model(path, trust=trust) as source:
            return distiller(load(source, place), live)
    with opened(path, rules=rules, trust=trust) as teacher:
        gone = _lost_beyond(teacher.analysis, left)
        if not gone:
            return distiller(load(teacher.source, place), live)
        cut = place / "teacher.keras"
        write_file(teacher, removal(teacher, gone), Target(cut))
    with open_model(cut, trust=trust) as source:
        return distiller(load(source, place), live)


def _lost_beyond(teacher: Analysis, left: Mapping[str, Sequence[int]]) -> dict[str, np.ndarray]:
    """Units of a teacher that are gone from its student: by address, indices in the teacher.

    Args:
        left: what is left of the student, as the original counts it; the teacher may have lost some as well.
    """
    found = {}
    for address, kept in left.items():
        axis = teacher.map.axes.get(address)
        if axis is None:
            continue
        own = np.asarray(left_units(teacher.metadata).get(address, range(len(axis))))
        if len(own) == len(axis) > len(kept) and np.isin(kept, own).all():
            found[address] = np.flatnonzero(~np.isin(own, kept))
    return found


def _write(source: Source, checkpoint: Checkpoint, best: int, target: str, *, force: bool) -> None:
    """Write the best epoch, whole or not at all, with what kprune knew of the file before."""
    if best == 0:
        write_as_it_is(source, target, force=force)
        return
    saved = checkpoint.model(best)
    with TemporaryFolder() as folder:
        if source.format == "keras-folder":  # and so is the output
            shutil.unpack_archive(saved, folder, "zip")
            saved = Path(folder)
        with open_model(saved) as trained:
            metadata = dict(trained.metadata)
            if KEY in source.metadata:
                metadata[KEY] = with_training(source.metadata)[KEY]
            config = with_modules_of(source.config, trained.config)
            write_model(trained, Edit(config, metadata), target, force=force)


def write_as_it_is(source: Source, target: str, *, force: bool) -> None:
    """Copy a model file, whole or not at all."""
    write_model(source, Edit(source.config, source.metadata), target, force=force)
