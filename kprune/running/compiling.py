"""By what a model is trained: as its file says, with what the user changes; or what targets and outputs suggest."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from kprune.errors import UsageError
from kprune.page.result import Note
from kprune.running.classes import one_of_each
from kprune.running.examples import Examples
from kprune.runtime.keras_import import import_keras, quiet, reason_of
from kprune.runtime.keras_runtime import is_compiled, output_names, run
from kprune.text import clean

BINARY, ONE_HOT = "binary_crossentropy", "categorical_crossentropy"
NUMBERS = "sparse_categorical_crossentropy"


class Wishes(Protocol):
    """What a user changes; None leaves it as it is."""

    @property
    def optimizer(self) -> str | None: ...
    @property
    def loss(self) -> str | None: ...
    @property
    def metric(self) -> str | None: ...
    @property
    def learning_rate(self) -> float | None: ...


@dataclass(frozen=True)
class ByMetric:
    """The wish to judge by a metric, as `compile_for` takes wishes."""

    metric: str | None
    optimizer: str | None = None
    loss: str | None = None
    learning_rate: float | None = None


def compile_for(
    keras: Any, live: Any, train: Examples, wishes: Wishes, *, said: bool
) -> list[Note]:
    """Compile a model as its file says, with what the user changes; notes on what the file did not say.

    What is not changed stays: another optimizer leaves losses, their weights and metrics as they
    are, and another loss leaves the metrics.

    Args:
        keras: the Keras that the model belongs to.
        live: the model; compiled, where the file says how and Keras could follow.
        said: whether the file says how.
    Raises: UsageError if it cannot be compiled like that.
    """
    notes: list[Note] = []
    own = is_compiled(live) and live.optimizer is not None
    if not own:
        how, told = _suggested(keras, live, train, wishes)
        if told:
            why = (
                "Keras does not know all that the file was compiled with (--rules can register it)"
                if said
                else "the file was not compiled"
            )
            text = f"{why}: the loss follows from the targets ({told})"
            notes.append(Note("loss", "", text))
        _compile(live, how)
    elif any(wish is not None for wish in (wishes.optimizer, wishes.loss, wishes.metric)):
        how = keras.saving.deserialize_keras_object(live.get_compile_config())
        how["optimizer"] = wishes.optimizer or live.optimizer  # whose state goes on
        how["loss"] = wishes.loss or live.loss
        if wishes.loss is not None:
            how["loss_weights"] = None
        if wishes.metric is not None:
            how |= {"metrics": _of_each_output(live, [wishes.metric]), "weighted_metrics": None}
        _compile(live, how)
    if wishes.learning_rate is not None:
        notes += set_rate(keras, live, wishes.learning_rate)
    return notes


def _compile(live: Any, how: dict[str, Any]) -> None:
    try:
        with quiet():
            live.compile(**how)
    except (ValueError, TypeError) as error:
        raise UsageError(
            "the model cannot be compiled like that", why=clean(reason_of(error), 300)
        ) from error


def _of_each_output(live: Any, metrics: list[Any]) -> Any:
    """Metrics in the form that Keras takes for one output, or for several."""
    names = output_names(live)
    return metrics if len(names) == 1 else dict.fromkeys(names, metrics)


def losses_of(model: Any) -> list[Any]:
    """The loss of each output of a compiled model, in their order, as `compile` took it; None where one has none."""
    return _by_output(model, model.loss)


def weights_of(model: Any) -> list[float]:
    """What the loss of each output of a compiled model is multiplied by, in their order."""
    weights = model.get_compile_config().get("loss_weights")
    return [1.0 if weight is None else float(weight) for weight in _by_output(model, weights)]


def _by_output(model: Any, given: Any) -> list[Any]:
    """An argument of `compile` for each output: it may be one for all, a list, or go by their names."""
    names = output_names(model)
    if hasattr(given, "keys"):
        return [given.get(name) for name in names]
    return list(given) if isinstance(given, (list, tuple)) else [given] * len(names)


def inner_optimizer(live: Any) -> Any:
    """The optimizer of a compiled model; that inside a LossScaleOptimizer."""
    return getattr(live.optimizer, "inner_optimizer", live.optimizer)


def is_scheduled(keras: Any, live: Any) -> bool:
    """Whether the learning rate of a compiled model goes by the number of the step."""
    schedule = keras.optimizers.schedules.LearningRateSchedule
    return isinstance(getattr(inner_optimizer(live), "_learning_rate", None), schedule)


def set_rate(keras: Any, live: Any, rate: float) -> list[Note]:
    """Give the optimizer a learning rate; a note if a schedule gave way to it."""
    if not is_scheduled(keras, live):
        inner_optimizer(live).learning_rate = rate
        return []
    _fix_rate(live, rate)
    text = "the file's learning rate schedule gave way to a fixed rate"
    return [Note("learning-rate", "", text)]


def _fix_rate(live: Any, rate: float) -> None:
    """Put a fixed learning rate in place of a schedule; the optimizer's slots stay.

    An optimizer with a fixed rate has a variable more, so it has to be another one: Keras loads
    the variables by their order.
    """
    state = [np.asarray(variable) for variable in live.optimizer.variables]
    config = live.get_compile_config()
    optimizer = config["optimizer"]["config"]
    inner = optimizer.get("inner_optimizer")
    (optimizer if inner is None else inner["config"])["learning_rate"] = rate
    live.compile_from_config(config)
    optimizer = live.optimizer
    if not getattr(optimizer, "built", False):
        optimizer.build(live.trainable_variables)
    fixed = getattr(optimizer, "inner_optimizer", optimizer)._learning_rate
    own = [variable for variable in optimizer.variables if variable is not fixed]
    for variable, value in zip(own, state, strict=True):
        variable.assign(value)


# -- what targets and outputs suggest ---------------------------------------------------------------


def _suggested(
    keras: Any, live: Any, train: Examples, wishes: Wishes
) -> tuple[dict[str, Any], str]:
    """How to compile a model whose file does not say: arguments of `compile`, and the loss in words.

    The words are "" where the user says it.
    """
    how: dict[str, Any] = {"optimizer": wishes.optimizer or "adam", "loss": wishes.loss}
    metrics = ["accuracy"] if "crossentropy" in str(wishes.loss).lower() else []
    told = ""
    if wishes.loss is None:
        how["loss"], metrics, told = loss_for(keras, live, train)
    if wishes.metric is not None:
        metrics = [wishes.metric]
    how["metrics"] = _of_each_output(live, metrics) if metrics else None
    return how, told


def loss_for(keras: Any, live: Any, train: Examples) -> tuple[Any, list[Any], str]:
    """The loss that targets of such a form are for, with a metric, and in words.

    Raises: UsageError for several outputs.
    """
    if not isinstance(train.targets, np.ndarray):  # a structure of them
        raise UsageError(
            "the file does not say which loss it is trained with, and the targets have several parts",
            do="give --loss, or save the model compiled",
        )
    first = train.first_batch()
    (output, *_) = run(live, first, batch_size=len(import_keras().tree.flatten(first)[0]))
    kind, logits = suggested_loss(train.targets, output)
    if kind == "mse":
        return kind, [], kind
    if not logits:
        return kind, ["accuracy"], kind
    metric = keras.metrics.BinaryAccuracy("accuracy", threshold=0.0)
    return (
        loss_named(keras, kind, logits),
        [metric if kind == BINARY else "accuracy"],
        f"{kind}, from logits",
    )


def loss_named(keras: Any, kind: str, logits: bool) -> Any:
    """What `suggested_loss` gives, as Keras takes it."""
    if not logits:
        return kind
    return {
        BINARY: keras.losses.BinaryCrossentropy,
        ONE_HOT: keras.losses.CategoricalCrossentropy,
        NUMBERS: keras.losses.SparseCategoricalCrossentropy,
    }[kind](from_logits=True)


def suggested_loss(targets: np.ndarray, output: np.ndarray) -> tuple[str, bool]:
    """Keras's name of the loss that such targets are for, and whether it is to take logits.

    Class numbers and rows that choose one of the outputs are for the categorical ones, zeros and
    ones for each output for the binary one, anything else for the mean square. That outputs are
    probabilities, not logits, is seen from their values.

    Args:
        targets: (samples, …).
        output: (n, …, width), what the model gives for n samples.
    """
    width, values = output.shape[-1], output.astype(np.float64)
    shares = bool((values >= 0).all() and (values <= 1).all())
    whole = shares and bool(np.allclose(values.sum(axis=-1), 1, atol=1e-2))
    numbers = targets.dtype.kind in "iub"
    alike = targets.shape[1:] == output.shape[1:] or (
        width == 1 and targets.shape[1:] == output.shape[1:-1]
    )
    if alike and width > 1 and one_of_each(targets):
        return ONE_HOT, not whole
    # Zeros and ones that are not whole numbers may be any figures, where outputs are no probabilities.
    if alike and (numbers or shares) and np.isin(targets, (0, 1)).all():
        return BINARY, not shares
    if numbers and width > 1 and not alike:
        return NUMBERS, not whole
    return "mse", False
