"""The first steps of training on a model that was just refitted: they must not undo it.

A refitted model is near a minimum that its optimizer has never seen. Two things undo it in the first
epoch. The slots of rewritten weights are zero while the count of steps goes on, so that Adam no longer
corrects them: its steps are up to six times what the learning rate says. And a rate at which the whole
model was trained is too large where every weight takes a step of that size, whatever its gradient.
"""

from __future__ import annotations

from typing import Any

from kprune.page.result import Note
from kprune.running.compiling import inner_optimizer, is_scheduled, set_rate
from kprune.train.settings import Settings

RATE = 1e-4
"""The largest rate for optimizers `BY_SIGN`; measured in `kprune/guide/training.md`."""

SHARE = 0.3
"""What is left of the rate of any other, whose steps go by the size of the gradients."""

BY_SIGN = frozenset({"Adam", "AdamW", "Nadam", "Adamax", "Lion", "RMSprop", "ScheduleFreeAdamW"})
"""Optimizers whose first steps have the size of the learning rate, however small a gradient is."""


def start_gently(
    keras: Any, live: Any, settings: Settings, *, said: bool, before: bool
) -> list[Note]:
    """Let the steps of a compiled model be small enough not to undo a repair.

    The optimizer counts its steps anew; and unless the settings say it, its learning rate becomes a
    smaller one. A schedule stays where it has come to smaller ones.

    Args:
        said: whether the file says how it is trained.
        before: whether the model was trained after an earlier repair, so that its rate is that of then.
    Returns: a note if the learning rate is another.
    """
    rate = float(inner_optimizer(live).learning_rate)
    gentle = _gentle(type(inner_optimizer(live)).__name__, rate, before=before)
    notes: list[Note] = []
    if settings.learning_rate is None and gentle < rate:
        notes = set_rate(keras, live, gentle)
        whose = "the file's" if said and settings.optimizer is None else "Keras's"
        text = (
            f"a learning rate of {gentle:.3g} instead of {whose} {rate:.3g}, since larger steps "
            "undo what was just refitted; --learning-rate sets another"
        )
        notes.append(Note("learning-rate", "", text))
    if not is_scheduled(keras, live):
        inner_optimizer(live).iterations.assign(0)
    return notes


def _gentle(optimizer: str, rate: float, *, before: bool) -> float:
    if optimizer in BY_SIGN:
        return min(rate, RATE)
    return rate if before else SHARE * rate
