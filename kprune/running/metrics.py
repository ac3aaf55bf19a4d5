"""How well a model does on labelled data: by its own loss and metrics, or else by accuracy."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np

from kprune.errors import UsageError
from kprune.page.result import Note
from kprune.running.classes import Classes
from kprune.running.compiling import BINARY, ONE_HOT, suggested_loss
from kprune.running.examples import Examples
from kprune.running.inputs import at
from kprune.runtime.keras_import import quiet, reason_of
from kprune.runtime.keras_runtime import is_compiled, output_names, run
from kprune.text import clean


def removed_classes(targets: Any, classes: Mapping[str, Classes], names: list[str]) -> list[Note]:
    """A note on samples that metrics leave out, as their class is gone."""
    known = _known(by_output(targets, names), classes)
    out = int((~known).sum())
    if not out:
        return []
    text = f"{out} of {len(known)} samples are of removed classes; metrics leave them out"
    return [Note("classes", "", text)]


def by_output(targets: Any, names: list[str]) -> dict[str, np.ndarray]:
    """Labels by the names of their outputs.

    Raises: UsageError for one array where there are several outputs.
    """
    if isinstance(targets, dict):
        return targets
    if len(names) != 1:
        raise UsageError(
            f"the model has {len(names)} outputs, and 'y' holds the targets of one",
            do=f"save targets by the names of the outputs ({', '.join(map(clean, names))}), or leave "
            "'y' out: the outputs are compared all the same",
        )
    return {names[0]: targets}


def _known(targets: Mapping[str, np.ndarray], classes: Mapping[str, Classes]) -> np.ndarray:
    """bool (samples,): the samples whose classes are left."""
    known = np.ones(len(next(iter(targets.values()))), bool)
    for name, own in targets.items():
        if name in classes:
            known &= classes[name].known(own)
    return known


def measured(
    model: Any,
    inputs: Any,
    outputs: list[np.ndarray],
    targets: Any,
    classes: Mapping[str, Classes],
    *,
    cut: bool,
    compiling: Callable[[Any, Examples], None] | None = None,
) -> dict[str, float]:
    """Metrics of one model, over the samples whose class is still there.

    Args:
        outputs: what it gave for the inputs.
        targets: class numbers, one-hot rows, or values shaped like the output; of several outputs
            by their names.
        classes: by output, which of its classes are left, if some went.
        cut: whether the model has only the classes that are left.
        compiling: compiles the model for what it is judged by, if not for what its file says.
    Returns: what the model was compiled with, by name; else `accuracy` for classes, and
        `mean_squared_error` for anything else.
    Raises: UsageError if the targets do not fit the model.
    """
    names = output_names(model)
    parts = by_output(targets, names)
    known = _known(parts, classes)
    if not known.any():
        raise UsageError(
            "every sample is of a class that was removed", do="give samples of those that are left"
        )
    chosen = {
        name: classes[name].renumbered(own[known]) if cut and name in classes else own[known]
        for name, own in parts.items()
    }
    x, y = at(inputs, known), chosen if isinstance(targets, dict) else chosen[names[0]]
    if compiling is not None:
        size = len(known)
        compiling(model, Examples({"x": x, "y": y, "batch_size": size}, y, size, "the data"))
    if is_compiled(model):
        return _compiled(model, y, x=x, y=y)
    found = {}
    for name, output in zip(names, outputs, strict=True):
        if name in chosen:
            prefix = f"{name}_" if len(names) > 1 else ""
            for metric, value in _inferred(output[known], chosen[name]).items():
                found[prefix + metric] = value
    return found


def evaluated(model: Any, given: Examples) -> dict[str, float]:
    """The same metrics of a model that has all its classes, in one run over the data.

    Raises: UsageError also for a dataset where the model was not compiled.
    """
    if is_compiled(model):
        return _compiled(model, given.targets, **given.arguments)
    if "y" not in given.arguments:
        raise UsageError(
            "a dataset cannot judge a model that was not compiled",
            why="the file does not say by what to judge it",
            do="save the model compiled, or save samples: np.savez(FILE, x=…, y=…)",
        )
    inputs = given.arguments["x"]
    outputs = run(model, inputs, batch_size=given.arguments["batch_size"])
    return measured(model, inputs, outputs, given.targets, {}, cut=False)


# Metrics of which Keras 2 takes more to be better, by how their names end; and kprune's own.
_UP, _DOWN = ("acc", "accuracy", "auc"), ("loss", "mean_squared_error")


def directions(model: Any, names: Iterable[str]) -> dict[str, bool | None]:
    """For each metric of a model whether more is better; None if that is not known.

    Keras 3 knows it of its own metrics (`_direction`, which ModelCheckpoint and EarlyStopping go by).
    """
    own = {}
    for metric in getattr(model, "metrics", []):
        for inner in getattr(metric, "metrics", None) or [metric]:
            own[str(inner.name)] = getattr(inner, "_direction", None)
    known = {"up": True, "down": False}
    outputs = output_names(model)

    def direction(name: str) -> bool | None:
        if name.endswith(_DOWN):
            return False
        # Keras puts the output's name before those of its metrics, where there are several outputs.
        bare = next((name[len(one) + 1 :] for one in outputs if name.startswith(f"{one}_")), name)
        up = known.get(own.get(name) or own.get(bare) or "")
        return (True if name.endswith(_UP) else None) if up is None else up

    return {name: direction(name) for name in names}


def decisive(directions: Mapping[str, bool | None], metric: str | None = None) -> str:
    """The metric to use: the one that is asked for, else the first for which it is known
    whether more is better, the loss after all others.

    Raises: UsageError if there is no such metric, or that is not known for it.
    """
    known = [name for name, up in directions.items() if up is not None]
    if metric is None and known:
        return next((name for name in known if name != "loss"), known[0])
    if metric in known:
        return str(metric)
    named = next(iter(directions), "") if metric is None else metric
    raise UsageError(
        f"the model has no metric '{clean(named)}' to go by",
        why="for some metrics it is not known whether more is better"
        if named in directions
        else "",
        do=f"choose one of {', '.join(map(clean, known)) or 'those that Keras has'}",
    )


def _compiled(model: Any, targets: Any, **arguments: Any) -> dict[str, float]:
    model.run_eagerly = True  # tracing and compiling would take longer than the run
    try:
        with quiet():
            found = model.evaluate(**arguments, verbose=0, return_dict=True)
    except Exception as error:
        raise UsageError(
            "the model cannot be evaluated on these targets by the loss and metrics of its file",
            where=f"targets of shape {targets.shape} and type {targets.dtype}"
            if isinstance(targets, np.ndarray)
            else "",
            why=clean(reason_of(error), 300),
            do="give targets as the model was trained on them; or compile the model anew, and save it",
        ) from error
    return {str(name): float(value) for name, value in found.items()}


def _inferred(output: np.ndarray, targets: np.ndarray) -> dict[str, float]:
    kind, logits = suggested_loss(targets, output)
    real = output.astype(np.float64)
    if kind == "mse":
        if targets.size != output.size:
            raise _misfit(targets, output)
        return {"mean_squared_error": float(np.mean((real.ravel() - targets.ravel()) ** 2))}
    if kind == BINARY:
        yes = real > (0.0 if logits else 0.5)
        return {"accuracy": float(np.mean(yes.ravel() == (targets.ravel() > 0.5)))}
    indices = targets.argmax(axis=-1) if kind == ONE_HOT else targets
    if indices.ndim == real.ndim and indices.shape[-1] == 1:
        indices = indices[..., 0]
    if indices.shape != output.shape[:-1]:
        raise _misfit(targets, output)
    return {"accuracy": float(np.mean(real.argmax(axis=-1) == indices))}


def _misfit(targets: np.ndarray, output: np.ndarray) -> UsageError:
    return UsageError(
        f"the targets have shape {targets.shape}, and the model gives {output.shape}",
        do="save class numbers of shape (samples,), or rows as wide as the output",
    )
