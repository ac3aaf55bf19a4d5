"""The inputs that a model is refitted on: some of the data, or made up where there are none."""

from __future__ import annotations

from typing import Any

from kprune.running.data import data_for
from kprune.running.fields import field_inputs
from kprune.running.sources import DataSource

SAMPLES = 1024
"""At most so many inputs are used, spread evenly over the data; as many are made up."""

SEED = 0
"""Of the inputs that are made up."""


def repair_inputs(model: Any, data: DataSource | None, samples: int = SAMPLES) -> Any:
    """Arrays in the structure in which a model takes them.

    Args:
        data: inputs in any form; None to make some up.
    Raises: UsageError or FileError for data that do not fit; CannotPruneError for a model whose
        inputs cannot be made up.
    """
    if data is None:
        return field_inputs(model, samples, SEED)
    return data_for(model, data, limit=samples).inputs
