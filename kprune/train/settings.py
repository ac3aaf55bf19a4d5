"""How to train: the options of `tune`, and of each round of `iterate`."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TypedDict

from kprune.errors import UsageError

MAX_SEED = 2**32  # as numpy has it, and so Keras


class TrainingOptions(TypedDict, total=False):
    """The fields of `Settings` as keywords."""

    epochs: int
    batch_size: int
    learning_rate: float | None
    optimizer: str | None
    loss: str | None
    metric: str | None
    validation_split: float | None
    patience: int | None
    keep_zeros: bool
    sparsify: float | None
    seed: int


@dataclass(frozen=True)
class Settings:
    """How to train; None is the file's own, or Keras's default where it has none.

    Attributes:
        epochs, batch_size, learning_rate, optimizer, loss, metric: as Keras calls them.
        validation_split: the share that is held back; by default 0.1 of an .npz file, if there are
            no `validation` data.
        patience: stop after so many epochs without a better one; None never stops early.
        keep_zeros: hold units at zero whose weights are all zero in the file.
        sparsify: the strength of a penalty that makes groups of units small which the model can do
            without (see `kprune.train.sparsity`), such as 1e-4; None for no penalty.
        seed: of the shuffling, and of what is held back.
    """

    epochs: int = 5
    batch_size: int = 32
    learning_rate: float | None = None
    optimizer: str | None = None
    loss: str | None = None
    metric: str | None = None
    validation_split: float | None = None
    patience: int | None = None
    keep_zeros: bool = False
    sparsify: float | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        if self.epochs < 1 or self.batch_size < 1:
            raise UsageError("epochs and batch size must be at least 1")
        if self.patience is not None and self.patience < 1:
            raise UsageError(f"the patience must be at least 1, got {self.patience}")
        if not 0 <= self.seed < MAX_SEED:
            raise UsageError(f"the seed must lie between 0 and 2**32 - 1, got {self.seed}")
        if self.validation_split is not None and not 0 <= self.validation_split < 1:
            raise UsageError(
                "the validation split must be at least 0 and less than 1, "
                f"got {self.validation_split:g}"
            )
        if self.sparsify is not None and not 0 < self.sparsify < math.inf:
            raise UsageError(
                f"--sparsify must be positive, got {self.sparsify:g}",
                do="write a number such as 1e-4",
            )
        if self.learning_rate is not None and not 0 < self.learning_rate < math.inf:
            raise UsageError(
                f"the learning rate must be positive, got {self.learning_rate:g}",
                do="write a number such as 1e-4",
            )
