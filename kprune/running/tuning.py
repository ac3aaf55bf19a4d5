"""Training on what is left, in plain Keras: the file's own loss, metrics, optimizer and its state."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from kprune.analysis import Analysis
from kprune.errors import CannotPruneError, UsageError
from kprune.formats import Source, default_output, open_model, write_model
from kprune.pruning.carrying import analyse
from kprune.running.inputs import Data, data_for
from kprune.running.keras_runtime import import_keras, load, quiet
from kprune.surgery.edit import Edit
from kprune.surgery.provenance import KEY
from kprune.surgery.zero import incoming
from kprune.text import clean
from kprune.version import __version__

TEMPERATURE = 3.0
Epoch = dict[str, float]
OnEpoch = Callable[[int, int, Epoch], None]


class Tuning(msgspec.Struct, frozen=True):
    """What training came to.

    Attributes:
        epochs: metrics after each epoch; the first entry is from before training.
        best: which entry of `epochs` the written model is.
        watched: the metric that decided, and whether it was taken on data held back.
        held_zero: how many zeroed units were kept at zero.
    """

    kprune: str
    input: str
    output: str
    samples: int
    held_back: int
    epochs: list[Epoch]
    best: int
    watched: str
    held_zero: int
    notes: list[str]
    schema: int = 1

    def to_dict(self) -> dict[str, Any]:
        """Plain data, for JSON."""
        found: dict[str, Any] = msgspec.to_builtins(self)
        return found


@dataclass(frozen=True)
class Settings:
    """How to train; None is the file's own, or Keras's default where it has none.

    Attributes:
        epochs, batch_size, learning_rate, optimizer, loss, metric: as Keras calls them.
        validation_split: the share that is held back, if no `validation` file is given.
        patience: stop after so many epochs without a better one; None never stops early.
        keep_zeros: hold units at zero whose weights are all zero in the file.
        seed: of the shuffling, and of what is held back.
    """

    epochs: int = 5
    batch_size: int = 32
    learning_rate: float | None = None
    optimizer: str | None = None
    loss: str | None = None
    metric: str | None = None
    validation_split: float = 0.1
    patience: int | None = None
    keep_zeros: bool = False
    seed: int = 0

    def __post_init__(self) -> None:
        if self.epochs < 1 or self.batch_size < 1:
            raise UsageError("epochs and batch size must be at least 1")
        if not 0 <= self.validation_split < 1:
            raise UsageError(
                f"a validation split of {self.validation_split:g}",
                why="it must lie between 0 and 1",
            )
        if self.learning_rate is not None and not self.learning_rate > 0:
            raise UsageError(
                f"a learning rate of {self.learning_rate:g}",
                do="give a positive number, such as 1e-4",
            )


def tune(
    model: str | os.PathLike[str],
    *,
    data: str | os.PathLike[str],
    validation: str | os.PathLike[str] | None = None,
    teacher: str | os.PathLike[str] | None = None,
    output: str | os.PathLike[str] | None = None,
    in_place: bool = False,
    force: bool = False,
    rules: Iterable[str] = (),
    on_epoch: OnEpoch | None = None,
    **how: Any,
) -> Tuning:
    """Train a model file on, and write the best epoch.

    Args:
        model: path of a `.keras` file or folder.
        data: an .npz file with `x` (or the inputs by name) and `y`.
        validation: another, to judge epochs by; else a part of `data` is held back.
        teacher: a model whose outputs are learned along with the labels (distillation).
        output, in_place, force: where the result goes; by default NAME.tuned.EXT.
        on_epoch: called after each epoch with (epoch, epochs, metrics).
        how: the fields of `Settings`: epochs, batch_size, learning_rate …
    Raises: UsageError, CannotPruneError, FileError.
    """
    settings = Settings(**how)
    with open_model(model) as source, tempfile.TemporaryDirectory() as folder:
        if source.format not in ("keras", "keras-folder"):
            raise CannotPruneError(
                f"a file of format {source.format} cannot be trained on",
                do="convert it first: kprune remove … -o NAME.keras, or save it from Keras as .keras",
            )
        target = _target(source, output, in_place)
        place = Path(folder)
        keras = import_keras()
        keras.utils.set_random_seed(settings.seed)
        live = load(source, place, compiled=True)
        notes = _prepare(live, data, settings)
        train, held = _divided(live, data, validation, settings)
        zeros = _Zeros(live, analyse(source, rules)) if settings.keep_zeros else None
        trained = _fit(live, train, held, settings, zeros, _teacher(teacher, place), on_epoch)
        saved = place / "tuned.keras"
        live.save(saved)
        _write(source, saved, target, force=force or in_place)
    return Tuning(
        kprune=__version__,
        input=os.fspath(model),
        output=target,
        samples=_count(train),
        held_back=0 if held is None else _count(held),
        epochs=trained.epochs,
        best=trained.best,
        watched=trained.watched,
        held_zero=0 if zeros is None else zeros.units,
        notes=notes,
    )


def _target(source: Source, output: str | os.PathLike[str] | None, in_place: bool) -> str:
    if in_place and output is not None:
        raise UsageError("--in-place and --output are two places", do="give one of them")
    if in_place:
        return str(source.path)
    if output is not None:
        return os.fspath(output)
    if source.path is None:
        raise UsageError(
            "the model comes from standard input, so it has no name to write beside",
            do="name the output with -o PATH",
        )
    beside = str(default_output(str(source.path)))
    return beside.replace(".pruned", ".tuned")


def _prepare(live: Any, data: Any, settings: Settings) -> list[str]:
    """Compile as the file says, with what the settings change; notes on what the file did not say."""
    keras = import_keras()
    notes = []
    own = getattr(live, "compiled", False) and live.optimizer is not None
    changes = (settings.optimizer, settings.loss, settings.metric)
    if not own or any(change is not None for change in changes):
        loss: Any = settings.loss or (live.loss if own else None)
        if loss is None:
            loss = _loss_for(live, data_for(live, data))
            notes.append("the file was not compiled: the loss follows from the labels")
        optimizer: Any = settings.optimizer or (live.optimizer if own else "adam")
        metrics = (
            [settings.metric]
            if settings.metric
            else ["accuracy"]
            if "crossentropy" in str(loss).lower()
            else []
        )
        try:
            with quiet():
                live.compile(optimizer=optimizer, loss=loss, metrics=metrics)
        except (ValueError, TypeError) as error:
            raise UsageError(
                "the model cannot be compiled like that",
                why=clean(" ".join(str(error).split()), 300),
            ) from error
    if settings.learning_rate is not None:
        if isinstance(
            getattr(live.optimizer, "_learning_rate", None),
            keras.optimizers.schedules.LearningRateSchedule,
        ):
            live.optimizer._learning_rate = keras.Variable(settings.learning_rate, trainable=False)
            notes.append("the file's learning rate schedule gave way to a fixed rate")
        else:
            live.optimizer.learning_rate = settings.learning_rate
    return notes


def _loss_for(live: Any, found: Data) -> str:
    labels = found.labels
    if labels is None:
        raise UsageError(
            "training needs labels", where=clean(found.path), do="save them as 'y' beside 'x'"
        )
    if labels.dtype.kind in "iub":
        return (
            "binary_crossentropy"
            if live.outputs[0].shape[-1] == 1
            else "sparse_categorical_crossentropy"
        )
    return (
        "categorical_crossentropy" if labels.ndim == 2 and np.allclose(labels.sum(-1), 1) else "mse"
    )


def _divided(live: Any, data: Any, validation: Any, settings: Settings) -> tuple[Data, Data | None]:
    found = data_for(live, data)
    if found.labels is None:
        raise UsageError(
            "training needs labels", where=clean(found.path), do="save them as 'y' beside 'x'"
        )
    if validation is not None:
        held = data_for(live, validation)
        if held.labels is None:
            raise UsageError(
                "validation needs labels", where=clean(held.path), do="save them as 'y' beside 'x'"
            )
        return found, held
    count = _count(found)
    back = round(count * settings.validation_split)
    if not back:
        return found, None
    order = np.random.default_rng(settings.seed).permutation(count)
    return _part(found, order[back:]), _part(found, order[:back])


def _part(data: Data, indices: np.ndarray) -> Data:
    tree = import_keras().tree
    labels = None if data.labels is None else data.labels[indices]
    return Data(tree.map_structure(lambda array: array[indices], data.inputs), labels, data.path)


def _count(data: Data) -> int:
    return len(import_keras().tree.flatten(data.inputs)[0])


def _teacher(path: Any, folder: Path) -> Any:
    if path is None:
        return None
    with open_model(path) as source:
        return load(source, folder)


class _Zeros:
    """Units whose weights are all zero in the file, held there.

    Attributes:
        units: how many.
    """

    def __init__(self, live: Any, analysis: Analysis) -> None:
        weights = [
            weight for weight in analysis.weights if weight.trainable and not weight.duplicate
        ]
        variables = list(live.trainable_variables)
        if len(weights) != len(variables) or any(
            tuple(variable.shape) != tuple(analysis.tensors[weight.path].shape)
            for weight, variable in zip(weights, variables, strict=False)
        ):
            raise CannotPruneError(
                "zeroed units cannot be held at zero",
                why="the model has layers for which kprune has no rule, so it cannot tell which variable is whose",
                do="leave out --keep-zeros, or give the layers a rule (--rules)",
            )
        of_path = {
            weight.path: variable for weight, variable in zip(weights, variables, strict=True)
        }
        self._masks: dict[str, tuple[Any, np.ndarray]] = {}
        self.units = 0
        for axis in analysis.map.axes.values():
            places = [
                (w, n, of_path[w.path]) for w, n in incoming(analysis, axis) if w.path in of_path
            ]
            silent = np.ones(len(axis), bool)
            ids = axis.ids
            for weight, number, variable in places:
                along = weight.axes[number].ids
                value = np.moveaxis(np.asarray(variable), number, -1).reshape(-1, len(along))
                alive = along[(value != 0).any(axis=0)]
                silent &= ~np.isin(ids, alive)
            if not places or not silent.any():
                continue
            self.units += int(silent.sum())
            for weight, number, variable in places:
                keep = ~np.isin(weight.axes[number].ids, ids[silent])
                shape = [1] * len(variable.shape)
                shape[number] = len(keep)
                mask = np.broadcast_to(keep.reshape(shape), variable.shape).astype(np.float32)
                before = self._masks.get(weight.path)
                self._masks[weight.path] = (variable, mask if before is None else before[1] * mask)

    def hold(self) -> None:
        """Set them to zero again, after a step has moved them."""
        for variable, mask in self._masks.values():
            variable.assign(variable * mask.astype(str(variable.dtype)))


@dataclass
class _Trained:
    epochs: list[Epoch]
    best: int
    watched: str


def _fit(
    live: Any,
    train: Data,
    held: Data | None,
    settings: Settings,
    zeros: _Zeros | None,
    teacher: Any,
    on_epoch: OnEpoch | None,
) -> _Trained:
    """Train; the model ends with the weights of its best epoch, which may be none of them."""
    keras = import_keras()
    judge = held or train
    watched = ("val_" if held is not None else "") + "loss"

    def measure() -> Epoch:
        live.run_eagerly = False
        figures = live.evaluate(
            judge.inputs, judge.labels, batch_size=settings.batch_size, verbose=0, return_dict=True
        )
        prefix = "val_" if held is not None else ""
        return {prefix + name: float(value) for name, value in figures.items()}

    with quiet():
        epochs = [measure()]
    best, weights, since = 0, live.get_weights(), 0
    if on_epoch is not None:
        on_epoch(0, settings.epochs, epochs[0])

    class AfterBatch(keras.callbacks.Callback):  # type: ignore[name-defined]
        def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
            if zeros is not None:
                zeros.hold()

    trainer = live if teacher is None else _distiller(teacher, live)
    for epoch in range(1, settings.epochs + 1):
        try:
            with quiet():
                trainer.fit(
                    train.inputs,
                    train.labels,
                    batch_size=settings.batch_size,
                    initial_epoch=epoch - 1,
                    epochs=epoch,
                    verbose=0,
                    callbacks=[AfterBatch()],
                )
                figures = measure()
        except (ValueError, TypeError) as error:
            raise UsageError(
                "the model cannot be trained on these data",
                why=f"{type(error).__name__}: {clean(' '.join(str(error).split()), 300)}",
                do="give labels as the model was trained on them, or another --loss",
            ) from error
        epochs.append(figures)
        if on_epoch is not None:
            on_epoch(epoch, settings.epochs, figures)
        if figures[watched] < epochs[best][watched]:
            best, weights, since = epoch, live.get_weights(), 0
        else:
            since += 1
            if settings.patience is not None and since >= settings.patience:
                break
    live.set_weights(weights)
    return _Trained(epochs, best, watched)


def _distiller(teacher: Any, student: Any) -> Any:
    """A trainer that learns the teacher's outputs beside the labels (Hinton et al. 2015, at temperature 3)."""
    keras = import_keras()
    ops = keras.ops

    class Softened(keras.distillation.DistillationLoss):  # type: ignore[name-defined]
        """KL divergence of softened class probabilities; the mean square for anything else."""

        def compute_loss(self, teacher_outputs: Any, student_outputs: Any, **_: Any) -> Any:
            pairs = zip(
                keras.tree.flatten(teacher_outputs),
                keras.tree.flatten(student_outputs),
                strict=True,
            )
            return sum(self._one(ops.stop_gradient(t), s) for t, s in pairs)

        def _one(self, taught: Any, learned: Any) -> Any:
            if taught.shape[-1] == 1:
                return ops.mean(ops.square(taught - learned))
            sums = ops.sum(taught, axis=-1)
            share = ops.all(ops.abs(sums - 1) < 1e-3)
            # The outputs of a softmax are log-probabilities up to a constant once their log is taken.
            hard = ops.log(ops.clip(taught, 1e-9, 1.0)), ops.log(ops.clip(learned, 1e-9, 1.0))
            p = ops.log_softmax(ops.where(share, hard[0], taught) / TEMPERATURE)
            q = ops.log_softmax(ops.where(share, hard[1], learned) / TEMPERATURE)
            return ops.mean(ops.sum(ops.exp(p) * (p - q), axis=-1)) * TEMPERATURE**2

    try:
        with quiet():
            trainer = keras.distillation.Distiller(
                teacher=teacher,
                student=student,
                distillation_losses=Softened(),
                student_loss_weight=0.5,
            )
            optimizer = student.optimizer.__class__.from_config(student.optimizer.get_config())
            trainer.compile(optimizer=optimizer, loss=student.loss)
    except (ValueError, TypeError) as error:
        raise UsageError(
            "the teacher does not fit the model", why=clean(" ".join(str(error).split()), 300)
        ) from error
    return trainer


def _write(source: Source, saved: Path, target: str, *, force: bool) -> None:
    """Write what Keras saved, whole or not at all, with what kprune knew of the file before."""
    with open_model(saved) as trained:
        metadata = dict(trained.metadata)
        if KEY in source.metadata:
            metadata[KEY] = source.metadata[KEY]
        write_model(trained, Edit(trained.config, metadata), target, force=force)
