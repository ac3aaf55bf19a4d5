"""The inputs that a model is refitted on: some of the data, or made up where there are none."""

from __future__ import annotations

from typing import Any

import numpy as np
from msgspec import Struct

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


class Inputs(Struct, frozen=True, eq=False):
    """Arrays in the structure in which a model takes them.

    Attributes:
        fitting: what weights are fitted on.
        judging: others, or the same where there are no others.
        targets: of those that judge; None where there are none.
        apart: whether those that judge are others.
    """

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
    count = len(import_keras().tree.flatten(inputs)[0])
    if count <= samples:
        return Inputs(inputs, inputs, targets)
    # Spread evenly as well: data may be in the order of their classes.
    judge = np.zeros(count, bool)
    judge[np.arange(count - samples) * count // (count - samples)] = True
    return Inputs(at(inputs, ~judge), at(inputs, judge), at(targets, judge), apart=True)
