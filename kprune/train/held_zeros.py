"""Zeroed units, held at zero while the rest of a model is trained."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from kprune.analysis.analysis import Analysis
from kprune.formats import Source, as_float
from kprune.surgery.zero import incoming, made_by
from kprune.train.variables import labels_along, trainable_variables


class HeldZeros:
    """Units whose weights are all zero in a file, held there while a model of it is trained.

    Args:
        live: the model, as Keras loaded it from this file, or from what became of it since.
        analysis: of the file.
    Attributes:
        units: how many.
    Raises: CannotPruneError if it cannot be told which variable is whose.
    """

    def __init__(self, live: Any, source: Source, analysis: Analysis) -> None:
        of_path = trainable_variables(
            live, analysis, what="zeroed units cannot be held at zero", option="--keep-zeros"
        )
        self._masks: dict[str, tuple[Any, np.ndarray]] = {}
        self.units = 0
        for axis in analysis.map.axes.values():
            places = [
                (w, n, of_path[w.path]) for w, n in made_by(analysis, axis) if w.path in of_path
            ]
            zeroed = np.ones(len(axis), bool)
            ids = axis.ids
            # A kernel with adapters of LoRA is not trained, and its units are not zero for that.
            for weight, number in incoming(analysis, axis) if places else ():
                along = labels_along(weight, number)
                # From the file: what training has brought to zero since may leave it again.
                value = as_float(source.read(weight.path))
                value = np.moveaxis(value, number, -1).reshape(-1, len(along))
                alive = along[(value != 0).any(axis=0)]
                zeroed &= ~np.isin(ids, alive)
            if not places or not zeroed.any():
                continue
            self.units += int(zeroed.sum())
            for weight, number, variable in places:
                keep = ~np.isin(labels_along(weight, number), ids[zeroed])
                shape = [
                    *variable.shape[:number],
                    *variable.shape[number + 1 :],
                    variable.shape[number],
                ]
                filled = np.empty((math.prod(shape) // len(keep), len(keep)), np.float32)
                filled[:] = keep
                mask = np.moveaxis(filled.reshape(shape), -1, number)
                before = self._masks.get(weight.path)
                self._masks[weight.path] = (variable, mask if before is None else before[1] * mask)

    def hold(self) -> None:
        """Set them to zero again, after a step has moved them."""
        for variable, mask in self._masks.values():
            # TensorFlow's dtype is no name, as Keras 3's is.
            dtype = getattr(variable.dtype, "name", variable.dtype)
            variable.assign(variable * mask.astype(dtype))
