"""The inputs that a model is refitted on: some of the data, or made up where there are none."""

from __future__ import annotations

from typing import Any

import numpy as np
from msgspec import Struct

from kprune.errors import UsageError
from kprune.running.data import data_for
from kprune.running.fields import field_inputs
from kprune.running.inputs import at
from kprune.running.sources import DataSource
from kprune.runtime.keras_import import import_keras

SAMPLES = 1024
"""At most so many inputs are used, spread evenly over the data; as many are made up."""

JUDGING = 256
"""At most so many others, where there are more, say how near the result comes."""

SEED = 0
"""Of the inputs that are made up."""


FEWEST = 8
"""Weights that are fitted on fewer inputs than this fit those alone."""

HELD_OUT = 8
"""Where there are no others, one in so many is held out of a first fit, and judges that; of few, half."""


class Inputs(Struct, frozen=True, eq=False):
    """Arrays in the structure in which a model takes them.

    Attributes:
        every: what weights are fitted on in the end.
        fitting: what they are fitted on before the result is judged: without those that judge.
        judging: what the result is judged on.
        targets: of those that judge; None where there are none.
        apart: whether those that judge are none of `every`.
    """

    every: Any
    fitting: Any
    judging: Any
    targets: Any = None
    apart: bool = False


def repair_inputs(model: Any, data: DataSource | None, samples: int = SAMPLES) -> Inputs:
    """The inputs for a repair.

    Args:
        model: a Keras model.
        data: in any form; None to make some up.
        samples: how many are fitted on at most.
    Raises: UsageError or FileError for data that do not fit; CannotPruneError for a model whose
        inputs cannot be made up.
    """
    every = samples + JUDGING
    if data is None:
        inputs, targets = field_inputs(model, every, SEED), None
    else:
        found = data_for(model, data, limit=every)
        inputs, targets = found.inputs, found.targets
    arrays = import_keras().tree.flatten(inputs)
    _refuse_unfit(arrays)
    count = len(arrays[0])
    apart = count > samples
    number = count - samples if apart else max(count // HELD_OUT, min(count // 2, FEWEST))
    # Spread evenly as well: data may be in the order of their classes.
    judge = np.zeros(count, bool)
    judge[np.arange(number) * count // number] = True
    fitting = at(inputs, ~judge)
    return Inputs(
        fitting if apart else inputs, fitting, at(inputs, judge), at(targets, judge), apart
    )


def _refuse_unfit(arrays: list[np.ndarray]) -> None:
    """Raises: UsageError for inputs that say nothing, or that no sum can take."""
    if len(arrays[0]) < FEWEST:
        raise UsageError(
            f"a repair needs at least {FEWEST} inputs, got {len(arrays[0])}",
            why="weights that are fitted on fewer fit those alone",
            do="give more inputs, some hundreds if there are, or --repair noise",
        )
    if any(array.dtype.kind == "f" and not np.isfinite(array).all() for array in arrays):
        raise UsageError(
            "the inputs to refit on hold numbers that are not finite",
            do="leave out the samples with NaN or infinite numbers",
        )
