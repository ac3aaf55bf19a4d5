"""Learning from another model's outputs (distillation), by Keras's own `keras.distillation`."""

from __future__ import annotations

from typing import Any

from kprune.errors import CannotPruneError, UsageError
from kprune.running.keras_runtime import import_keras, quiet
from kprune.text import clean

TEMPERATURE = 3.0
SHARE = 0.5
"""How much of the loss is that of the labels; the rest is the teacher's."""


def distiller(teacher: Any, student: Any) -> Any:
    """A trainer that learns the teacher's outputs beside the labels, in terms of the student.

    Where the student's loss is a categorical crossentropy, the two are compared as probabilities of
    classes, softened at temperature 3 (Hinton et al. 2015, "Distilling the Knowledge in a Neural
    Network"); anything else by the mean square. The student's own optimizer takes
    the steps, so its state goes on, and is saved with the student.

    Args:
        teacher, student: Keras models of the same inputs and outputs; the student is compiled.
    Raises: CannotPruneError if their Keras has no distillation, UsageError if the two do not fit.
    """
    keras = import_keras()
    if not hasattr(keras, "distillation"):
        raise CannotPruneError(
            f"the Keras that is installed ({clean(keras.__version__)}) has no keras.distillation",
            do="install a newer one (pip install -U keras), or leave out --teacher",
        )
    if not isinstance(student, keras.Model):
        raise CannotPruneError(
            "a model of Keras 2 cannot learn from a teacher",
            why="keras.distillation is a part of Keras 3",
            do="leave out --teacher",
        )
    try:
        with quiet():
            trainer = keras.distillation.Distiller(
                teacher=teacher,
                student=student,
                distillation_losses=_difference(keras, classes=tells_classes(student.loss)),
                student_loss_weight=SHARE,
            )
            trainer.compile(optimizer=student.optimizer, loss=student.loss)
    except (ValueError, TypeError) as error:
        raise UsageError(
            "the teacher does not fit the model",
            why=clean(" ".join(str(error).split()), 300),
            do="name the model that this one was made from",
        ) from error
    return trainer


def tells_classes(loss: Any) -> bool:
    """Whether a loss, as `compile` takes it, compares classes of which one is right."""
    return "categorical" in f"{getattr(loss, 'name', '')} {loss}".lower()


def _difference(keras: Any, *, classes: bool) -> Any:
    ops = keras.ops

    class Difference(keras.distillation.DistillationLoss):
        """KL divergence of softened class probabilities; the mean square for anything else."""

        def compute_loss(self, teacher_outputs: Any, student_outputs: Any, **_: Any) -> Any:
            pairs = zip(
                keras.tree.flatten(teacher_outputs),
                keras.tree.flatten(student_outputs),
                strict=True,
            )
            compare = self._divergence if classes else self._square
            return sum(compare(ops.stop_gradient(taught), learned) for taught, learned in pairs)

        def _square(self, taught: Any, learned: Any) -> Any:
            return ops.mean(ops.square(taught - learned))

        def _divergence(self, taught: Any, learned: Any) -> Any:
            # A model that ends in softmax gives probabilities, whose logarithms are logits up to a
            # constant; one that was trained with from_logits=True gives those.
            shares = ops.all(ops.abs(ops.sum(taught, axis=-1) - 1) < 1e-3)
            logs = [ops.log(ops.clip(given, 1e-9, 1.0)) for given in (taught, learned)]
            p = ops.log_softmax(ops.where(shares, logs[0], taught) / TEMPERATURE)
            q = ops.log_softmax(ops.where(shares, logs[1], learned) / TEMPERATURE)
            return ops.mean(ops.sum(ops.exp(p) * (p - q), axis=-1)) * TEMPERATURE**2

    return Difference()
