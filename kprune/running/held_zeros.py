"""Zeroed units, held at zero while the rest of a model is trained."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from kprune.analysis import Analysis
from kprune.errors import CannotPruneError
from kprune.formats import Source, as_float
from kprune.labels.map import Weight
from kprune.surgery.zero import incoming


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
        weights = [
            weight for weight in analysis.weights if weight.trainable and not weight.duplicate
        ]
        variables = list(live.trainable_variables)
        if len(weights) != len(variables) or any(
            tuple(variable.shape) != tuple(analysis.tensors[weight.path].shape)
            for weight, variable in zip(weights, variables, strict=False)
        ):
            raise CannotPruneError(
                "zeroed units cannot be held at zero",
                why="the model has layers for which kprune has no rule, so it cannot tell which variable is whose",
                do="leave out --keep-zeros, or give the layers a rule (--rules)",
            )
        of_path = {
            weight.path: variable for weight, variable in zip(weights, variables, strict=True)
        }
        self._masks: dict[str, tuple[Any, np.ndarray]] = {}
        self.units = 0
        for axis in analysis.map.axes.values():
            places = [
                (w, n, of_path[w.path]) for w, n in incoming(analysis, axis) if w.path in of_path
            ]
            silent = np.ones(len(axis), bool)
            ids = axis.ids
            for weight, number, _ in places:
                along = _labels(weight, number)
                # From the file: what training has brought to zero since may leave it again.
                value = as_float(source.read(weight.path))
                value = np.moveaxis(value, number, -1).reshape(-1, len(along))
                alive = along[(value != 0).any(axis=0)]
                silent &= ~np.isin(ids, alive)
            if not places or not silent.any():
                continue
            self.units += int(silent.sum())
            for weight, number, variable in places:
                keep = ~np.isin(_labels(weight, number), ids[silent])
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
            variable.assign(variable * mask.astype(str(variable.dtype)))


def _labels(weight: Weight, number: int) -> np.ndarray:
    """The label of each position of a weight, if its axis `number` is moved to the end.

    Where several units stand at one position (a depthwise kernel), the axis behind tells them
    apart, and is then the one before it.
    """
    along = weight.axes[number]
    return along.factors[0].ravel() if len(along.factors) == 1 else along.ids
