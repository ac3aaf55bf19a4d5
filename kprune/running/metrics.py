"""How well a model does on labelled data: by its own loss and metrics, or else by accuracy."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np

from kprune.errors import UsageError
from kprune.report.report import Note
from kprune.running.examples import Examples
from kprune.running.keras_runtime import import_keras, is_compiled, quiet, reason_of, run
from kprune.text import clean


@dataclass(frozen=True)
class Classes:
    """Which classes of an output layer are left.

    Attributes:
        number: how many there were; 0 if none went.
        kept: int64, the original indices of those that are left.
    """

    number: int = 0
    kept: np.ndarray | None = None

    def known(self, labels: np.ndarray) -> np.ndarray:
        """bool (samples,): the samples whose class is left."""
        if self.kept is None:
            return np.ones(len(labels), bool)
        return np.isin(_indices(labels, self.number), self.kept)

    def renumbered(self, labels: np.ndarray) -> np.ndarray:
        """Labels as a model counts them that has only the classes that are left."""
        if self.kept is None:
            return labels
        if labels.ndim > 1 and labels.shape[-1] == self.number:
            return labels[..., self.kept]
        return np.searchsorted(self.kept, labels)

    def notes(self, labels: np.ndarray) -> list[Note]:
        """A note on samples that were left out."""
        out = int((~self.known(labels)).sum())
        if not out:
            return []
        return [
            Note(
                "classes",
                "",
                f"{out} of {len(labels)} samples are of removed classes; metrics leave them out",
            )
        ]


def measured(
    model: Any,
    inputs: Any,
    outputs: list[np.ndarray],
    labels: np.ndarray,
    classes: Classes,
    *,
    cut: bool,
) -> dict[str, float]:
    """Metrics of one model, over the samples whose class is still there.

    Args:
        outputs: what it gave for the inputs.
        labels: class numbers, one-hot rows, or targets shaped like the output.
        cut: whether the model has only the classes that are left.
    Returns: what the model was compiled with, by name; else `accuracy` for classes, and
        `mean_squared_error` for anything else.
    Raises: UsageError if the labels do not fit the model.
    """
    if len(outputs) != 1:
        raise UsageError(
            f"the model has {len(outputs)} outputs, and labels are understood for one",
            do="leave 'y' out of the data: the outputs are compared all the same",
        )
    known = classes.known(labels)
    if not known.any():
        raise UsageError(
            "every sample is of a class that was removed", do="give samples of those that are left"
        )
    chosen = classes.renumbered(labels[known]) if cut else labels[known]
    if is_compiled(model):
        tree = import_keras().tree
        inputs = tree.map_structure(lambda array: array[known], inputs)
        return _compiled(model, chosen, x=inputs, y=chosen)
    return _inferred(outputs[0][known], chosen)


def evaluated(model: Any, given: Examples) -> dict[str, float]:
    """The same metrics of a model that has all its classes, in one run over the data.

    Raises: UsageError also for a dataset where the model was not compiled.
    """
    if is_compiled(model):
        return _compiled(model, given.labels, **given.arguments)
    if "y" not in given.arguments:
        raise UsageError(
            "a dataset cannot judge a model that was not compiled",
            why="the file does not say by what to judge it",
            do="save the model compiled, or save samples: np.savez(FILE, x=…, y=…)",
        )
    inputs = given.arguments["x"]
    outputs = run(model, inputs, batch_size=given.arguments["batch_size"])
    return measured(model, inputs, outputs, given.labels, Classes(), cut=False)


# Metrics of which Keras 2 takes more to be better, by how their names end; and kprune's own.
_UP, _DOWN = ("acc", "accuracy", "auc"), ("loss", "mean_squared_error")


def directions(model: Any, names: Iterable[str]) -> dict[str, bool | None]:
    """For each metric of a model whether more is better; None where nobody knows.

    Keras 3 knows it of its own metrics (`_direction`, which ModelCheckpoint and EarlyStopping go by).
    """
    own = {}
    for metric in getattr(model, "metrics", []):
        for inner in getattr(metric, "metrics", None) or [metric]:
            own[str(inner.name)] = getattr(inner, "_direction", None)
    known = {"up": True, "down": False}

    def direction(name: str) -> bool | None:
        if name in _DOWN:
            return False
        return known.get(own.get(name) or "", True if name.endswith(_UP) else None)

    return {name: direction(name) for name in names}


def _compiled(model: Any, labels: Any, **arguments: Any) -> dict[str, float]:
    model.run_eagerly = True  # tracing and compiling would take longer than the run
    try:
        with quiet():
            found = model.evaluate(**arguments, verbose=0, return_dict=True)
    except Exception as error:
        raise UsageError(
            "the model cannot be evaluated on these labels",
            where=f"labels of shape {labels.shape} and type {labels.dtype}"
            if isinstance(labels, np.ndarray)
            else "",
            why=clean(reason_of(error), 300),
            do="give labels as the model was trained on them",
        ) from error
    return {str(name): float(value) for name, value in found.items()}


def _inferred(output: np.ndarray, labels: np.ndarray) -> dict[str, float]:
    width = output.shape[-1]
    real = output.astype(np.float64)
    if (
        labels.shape == output.shape
        and not (width > 1 and _one_hot(labels))
        and labels.dtype.kind == "f"
    ):
        return {"mean_squared_error": float(np.mean((real - labels) ** 2))}
    if width == 1:
        if labels.size != output.size:
            raise _misfit(labels, output)
        return {"accuracy": float(np.mean((real.ravel() > 0.5) == (labels.ravel() > 0.5)))}
    indices = _indices(labels, width)
    if indices.shape != output.shape[:-1]:
        raise _misfit(labels, output)
    return {"accuracy": float(np.mean(real.argmax(axis=-1) == indices))}


def _one_hot(labels: np.ndarray) -> bool:
    return bool(np.isin(labels, (0, 1)).all() and (labels.sum(axis=-1) == 1).all())


def _indices(labels: np.ndarray, width: int) -> np.ndarray:
    """Class numbers, from numbers or one-hot rows."""
    if labels.ndim > 1 and labels.shape[-1] == width and width > 1:
        return labels.argmax(axis=-1)
    if labels.ndim > 1 and labels.shape[-1] == 1:
        return labels[..., 0]
    return labels


def _misfit(labels: np.ndarray, output: np.ndarray) -> UsageError:
    return UsageError(
        f"the labels have shape {labels.shape}, and the model gives {output.shape}",
        do="save class numbers of shape (samples,), or rows as wide as the output",
    )
