"""The loop over epochs: train, judge, keep the state; each epoch's chance follows from seed and number.

So an epoch does the same whether or not the training was interrupted before it: the order of the
samples and what dropout drops are drawn anew at its start, and the rest of the state (weights, slots
of the optimizer) is in the checkpoint.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from kprune.errors import KpruneError, UsageError
from kprune.running.examples import Examples
from kprune.runtime.keras_import import quiet, reason_of
from kprune.text import clean
from kprune.train.checkpoint import Checkpoint, Epoch, History
from kprune.train.held_zeros import HeldZeros
from kprune.train.sparsity import PENALTY, Sparsity

OnEpoch = Callable[[int, int, Epoch], None]
HELD_BACK = "val_"


class Training:
    """A compiled Keras model, and what it learns from.

    Args:
        keras: the Keras that the model belongs to.
        live: the model.
        trainer: what is fitted: the model itself, or a distiller around it.
        train: to learn from.
        held: to judge epochs by; None judges by what it learns from.
        zeros: held after each step.
        seed: of the order of samples, and of dropout.
        sparsity: the penalty on groups of units; it counts when epochs are judged, too.
    """

    def __init__(
        self,
        keras: Any,
        live: Any,
        trainer: Any,
        train: Examples,
        held: Examples | None,
        zeros: HeldZeros | None,
        seed: int,
        sparsity: Sparsity | None = None,
    ) -> None:
        self.keras, self.live, self.trainer = keras, live, trainer
        self.train, self.held, self.zeros, self.seed = train, held, zeros, seed
        self.prefix = "" if held is None else HELD_BACK
        self.sparsity = sparsity
        if sparsity is not None:
            sparsity.join(trainer)

    @property
    def watched(self) -> str:
        """What tells which epoch is the best: the least is."""
        loss = f"{self.prefix}loss"
        return loss if self.sparsity is None else f"{loss} + {PENALTY}"

    def run(
        self,
        history: History,
        checkpoint: Checkpoint,
        epochs: int,
        patience: int | None,
        on_epoch: OnEpoch | None,
    ) -> None:
        """Train up to so many epochs; `history` grows, and `checkpoint` holds the state of each.

        Raises: UsageError if the model cannot be trained on these data.
        """
        tell = on_epoch or (lambda *_: None)
        if not history.judged:
            history.judged.append(self.judge())
            history.learned.append({})
            tell(0, epochs, history.judged[0])
        while history.last < epochs:
            if patience is not None and history.last - history.best >= patience:
                break
            epoch = history.last + 1
            history.learned.append(self._guarded(lambda: self._learn(epoch)))  # noqa: B023
            history.judged.append(self.judge())
            if self._loss(history, epoch) < self._loss(history, history.best):
                history.best = epoch
            checkpoint.keep(self.live, history)
            tell(epoch, epochs, history.judged[epoch])

    def _loss(self, history: History, epoch: int) -> float:
        figures = history.judged[epoch]
        value = figures[f"{self.prefix}loss"]
        if self.sparsity is not None:
            value += figures[PENALTY]
        return math.inf if math.isnan(value) else value  # anything is better than none

    def _guarded(self, work: Callable[[], Epoch]) -> Epoch:
        try:
            with quiet(replay=False):
                return work()
        except (KpruneError, MemoryError, OSError):
            raise
        except (
            Exception
        ) as error:  # Keras, TensorFlow and losses of the user's own raise many kinds
            raise UsageError(
                "the model cannot be trained on these data",
                why=clean(reason_of(error), 300),
                do="give targets as the model was trained on them, or another --loss",
            ) from error

    def judge(self) -> Epoch:
        """The figures of the model as it is.

        Raises: UsageError if it cannot be evaluated on these data.
        """
        return self._guarded(self._evaluated)

    def _evaluated(self) -> Epoch:
        self.live.run_eagerly = False
        judge = self.held or self.train
        figures = self.live.evaluate(**judge.arguments, verbose=0, return_dict=True)
        found = {self.prefix + str(name): float(value) for name, value in figures.items()}
        return found if self.sparsity is None else found | self.sparsity.figures()

    def _learn(self, epoch: int) -> Epoch:
        self._draw(epoch)
        callbacks = [] if self.zeros is None else [_after_each_step(self.keras, self.zeros.hold)]
        done = self.trainer.fit(
            **self.train.arguments,
            initial_epoch=epoch - 1,
            epochs=epoch,
            verbose=0,
            callbacks=callbacks,
        )
        return {str(name): float(values[-1]) for name, values in done.history.items()}

    def _draw(self, epoch: int) -> None:
        """Set whatever chance comes from, by the seed and the number of the epoch."""
        draws = np.random.default_rng([self.seed, epoch])
        self.keras.utils.set_random_seed(int(draws.integers(2**31)))
        for variable in self.live.variables:
            # Keras 3 keeps what dropout draws from in a variable, which it does not save.
            if variable.name.rpartition("/")[2] == "seed_generator_state":
                state = draws.integers(2**31, size=tuple(variable.shape))
                variable.assign(state.astype(str(variable.dtype)))


def _after_each_step(keras: Any, work: Callable[[], None]) -> Any:
    class AfterEachStep(keras.callbacks.Callback):
        def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
            work()

    return AfterEachStep()
