"""Learning from another model's outputs (distillation), by Keras's own `keras.distillation`."""

from __future__ import annotations

from typing import Any

from kprune.errors import CannotPruneError, UsageError
from kprune.running.compiling import losses_of
from kprune.runtime.keras_import import import_keras, quiet, reason_of
from kprune.text import clean

TEMPERATURE = 3.0
SHARE = 0.5
"""How much of the loss is that of the targets; the rest is the teacher's."""


def distiller(teacher: Any, student: Any) -> Any:
    """A trainer that learns the teacher's outputs beside the targets, in terms of the student.

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
            trainer = _trainer_class(keras)(
                teacher=teacher,
                student=student,
                distillation_losses=_difference(
                    keras, [tells_classes(loss) for loss in losses_of(student)]
                ),
                student_loss_weight=SHARE,
            )
            # The student knows its loss by itself; Keras takes none for a mistake.
            trainer.compile(optimizer=student.optimizer, loss="mse")
    except (ValueError, TypeError) as error:
        raise UsageError(
            "the teacher does not fit the model",
            why=clean(reason_of(error), 300),
            do="name the model that this one was made from",
        ) from error
    return trainer


def tells_classes(loss: Any) -> bool:
    """Whether a loss, as `compile` takes it, compares classes of which one is right."""
    return "categorical" in f"{getattr(loss, 'name', '')} {loss}".lower()


def _trainer_class(keras: Any) -> Any:
    class Trainer(keras.distillation.Distiller):
        """A distiller whose share of the targets is the student's own loss, whatever that is made of.

        Keras's own takes the loss functions alone: the weights of losses and of samples, and what
        regularizers add, would count for nothing, and targets would have to have the rank of outputs.
        """

        def compute_loss(
            self,
            x: Any = None,
            y: Any = None,
            y_pred: Any = None,
            sample_weight: Any = None,
            training: bool = True,
        ) -> Any:
            if y_pred is None:
                y_pred = self(x, training=training)
            own = self.student.compute_loss(x, y, y_pred, sample_weight, training)
            (difference,) = self.distillation_losses
            taught = difference.compute_loss(self.teacher(x, training=False), y_pred)
            whole = SHARE * own + (1 - SHARE) * taught
            self.student_loss_tracker.update_state(own)
            self.distillation_loss_tracker.update_state(taught)
            self.total_loss_tracker.update_state(whole)
            return whole

    return Trainer


def _difference(keras: Any, classes: list[bool]) -> Any:
    ops = keras.ops

    class Difference(keras.distillation.DistillationLoss):
        """KL divergence of softened class probabilities; the mean square for anything else."""

        def compute_loss(self, teacher_outputs: Any, student_outputs: Any, **_: Any) -> Any:
            pairs = zip(
                classes,
                keras.tree.flatten(teacher_outputs),
                keras.tree.flatten(student_outputs),
                strict=True,
            )
            return sum(
                (self._divergence if told else self._square)(ops.stop_gradient(taught), learned)
                for told, taught, learned in pairs
            )

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
