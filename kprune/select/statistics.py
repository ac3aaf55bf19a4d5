"""What is known of each unit's weights: the numbers that expressions and criteria see.

Every tensor is read once, in blocks, so memory does not grow with it; only `w` needs it whole.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Protocol

import numpy as np
from msgspec import Struct, field

from kprune.analysis import Analysis
from kprune.errors import ExpressionError
from kprune.formats.numbers import as_float
from kprune.labels.map import UnitAxis, Weight
from kprune.select.names import BATCHNORM_NAMES, DATA_NAMES, OUTGOING_NAMES, WEIGHT_NAMES
from kprune.surgery.zero import incoming
from kprune.text import clean

MOMENTS = WEIGHT_NAMES - {"index", "w", "bias"}
BIASES = frozenset({"bias", "beta", "gamma"})


class Readable(Protocol):
    """Where tensors are read from."""

    def read(self, path: str) -> np.ndarray: ...

    def blocks(self, path: str, limit: int = ...) -> Iterable[tuple[int, np.ndarray]]: ...


class Observed(Protocol):
    """What units give on data."""

    def get(self, axis: UnitAxis, name: str) -> np.ndarray: ...


class Moments(Struct, eq=False):
    """Sums over each unit's weights, from which every statistic follows; float64 (units,) each."""

    count: np.ndarray
    total: np.ndarray
    squares: np.ndarray
    absolute: np.ndarray
    smallest: np.ndarray
    largest: np.ndarray
    zeros: np.ndarray

    @classmethod
    def empty(cls, units: int) -> Moments:
        zero = [np.zeros(units) for _ in range(5)]
        return cls(
            zero[0],
            zero[1],
            zero[2],
            zero[3],
            np.full(units, np.inf),
            np.full(units, -np.inf),
            zero[4],
        )

    def add(self, values: np.ndarray, units: np.ndarray) -> None:
        """Take in more weights.

        Args:
            values: (n, positions).
            units: int64 (positions,), the unit of each column; -1 for none.
        """
        wide = values.astype(np.float64, copy=False)
        for mine, figures in (
            (self.count, np.full(wide.shape[1], float(len(wide)))),
            (self.total, wide.sum(axis=0)),
            (self.squares, np.einsum("ij,ij->j", wide, wide)),
            (self.absolute, np.abs(wide).sum(axis=0)),
            (self.zeros, (wide == 0).sum(axis=0).astype(np.float64)),
        ):
            mine += _by_unit(figures, units, len(mine))
        inside = units >= 0
        np.minimum.at(self.smallest, units[inside], wide.min(axis=0)[inside])
        np.maximum.at(self.largest, units[inside], wide.max(axis=0)[inside])

    def statistic(self, name: str) -> np.ndarray:
        """One of `mean std min max l1 l2 absmax sparsity`, float64 (units,)."""
        count = np.maximum(self.count, 1)
        mean = self.total / count
        if name == "mean":
            return mean
        if name == "std":
            return np.sqrt(np.maximum(self.squares / count - mean**2, 0))
        if name == "absmax":
            return np.maximum(np.abs(self.smallest), np.abs(self.largest))
        if name == "sparsity":
            return self.zeros / count
        return {
            "min": self.smallest,
            "max": self.largest,
            "l1": self.absolute,
            "l2": np.sqrt(self.squares),
        }[name]


def _by_unit(figures: np.ndarray, units: np.ndarray, count: int) -> np.ndarray:
    inside = units >= 0
    return np.bincount(units[inside], figures[inside], minlength=count)


class Statistics(Struct, eq=False):
    """The statistics of the units of one model file.

    Attributes:
        analysis: the model.
        source: the file its tensors are read from.
        activations: what its units give on data, if there are data.
    """

    analysis: Analysis
    source: Readable
    activations: Observed | None = None
    _moments: dict[tuple[str, bool], Moments] = field(default_factory=dict)

    def env(self, axis: UnitAxis, names: Iterable[str]) -> dict[str, np.ndarray]:
        """The named statistics of one axis of units: (units,) each; `w` with the units last.

        Raises: ExpressionError for a statistic that these units do not have.
        """
        return {name: self._one(axis, name) for name in names}

    def _one(self, axis: UnitAxis, name: str) -> np.ndarray:
        if name == "index":
            return np.arange(len(axis))
        if name in MOMENTS:
            return self.moments(axis).statistic(name)
        if name in OUTGOING_NAMES:
            return self.moments(axis, outgoing=True).statistic(name.removeprefix("outgoing_"))
        if name == "w":
            return self._kernel(axis)
        if name == "bias":
            return self._bias(axis)
        if name in BATCHNORM_NAMES:
            return self._normalisation(axis, name)
        if name in DATA_NAMES:
            return self.on_data(axis, name)
        raise AssertionError(name)

    def on_data(self, axis: UnitAxis, name: str) -> np.ndarray:
        """A figure of the units' activations; see `kprune.running.activations`.

        Raises: ExpressionError if there are no data.
        """
        if self.activations is None:
            raise ExpressionError(
                f"'{name}' is a statistic of activations, which are not in the file",
                do="give data with --data FILE.npz, or use a statistic of the weights",
            )
        return self.activations.get(axis, name)

    def moments(self, axis: UnitAxis, *, outgoing: bool = False) -> Moments:
        """Sums over the weights that make each unit, or over what its consumers hold for it."""
        key = (axis.address, outgoing)
        if key not in self._moments:
            found = Moments.empty(len(axis))
            places = self._outgoing(axis) if outgoing else self._incoming(axis)
            if not places:
                raise self._lacks(
                    axis, "weights that are read behind it" if outgoing else "weights of its own"
                )
            for weight, number in places:
                self._read_into(found, weight, number, axis)
            self._moments[key] = found
        return self._moments[key]

    def gram(self, axis: UnitAxis) -> np.ndarray:
        """Inner products of the units' incoming weights, float64 (units, units)."""
        places = self._incoming(axis)
        if not places:
            raise self._lacks(axis, "weights of its own")
        total = np.zeros((len(axis), len(axis)))
        for weight, number in places:
            for values, units in self._columns(weight, number, axis):
                inside = units >= 0
                wide = values[:, inside].astype(np.float64, copy=False)
                at = units[inside]
                if np.array_equal(at, np.arange(len(axis))):
                    total += wide.T @ wide
                    continue
                # Gates stand side by side: each is a stretch of the unit's weights of its own.
                for start in range(0, len(at), len(axis)):
                    gate = wide[:, start : start + len(axis)]
                    total += gate.T @ gate
        return total

    def _incoming(self, axis: UnitAxis) -> list[tuple[Weight, int]]:
        return [
            (weight, number)
            for weight, number in incoming(self.analysis, axis)
            if weight.name not in BIASES
        ]

    def _outgoing(self, axis: UnitAxis) -> list[tuple[Weight, int]]:
        """Weights of consumers that have these units along an axis that is not their own units'."""
        return [
            (weight, number)
            for weight in self.analysis.weights
            if weight.name not in BIASES and len(weight.axes) > 1
            for number, along in enumerate(weight.axes)
            if number not in (weight.out, *weight.also) and np.isin(along.all_ids(), axis.ids).any()
        ]

    def _read_into(self, moments: Moments, weight: Weight, number: int, axis: UnitAxis) -> None:
        for values, units in self._columns(weight, number, axis):
            moments.add(values, units)

    def _columns(
        self, weight: Weight, number: int, axis: UnitAxis
    ) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """A weight in blocks, units in columns: (n, positions), and the unit of each position, -1 for none."""
        along = weight.axes[number]
        if len(along.factors) == 1 and len(along.factors[0]) > 1:
            # A depthwise kernel: unit m + multiplier * c stands at (c, m) of the last two axes.
            values = as_float(self.source.read(weight.path)).reshape(-1, along.factors[0].size)
            yield values, np.arange(len(axis))
            return
        position = np.full(
            max(int(along.ids.max(initial=0)), int(axis.ids.max())) + 1, -1, np.int64
        )
        position[axis.ids] = np.arange(len(axis))
        units = position[along.ids]
        for start, block in self.source.blocks(weight.path):
            values = as_float(block)
            if number == 0:
                values = values.reshape(len(values), -1).T
                yield values, units[start : start + values.shape[1]]
            else:
                yield np.moveaxis(values, number, -1).reshape(-1, len(units)), units

    def _kernel(self, axis: UnitAxis) -> np.ndarray:
        places = self._incoming(axis)
        if not places:
            raise self._lacks(axis, "kernel")
        weight, number = places[0]
        values = as_float(self.source.read(weight.path))
        along = weight.axes[number]
        if len(along.factors) == 1 and len(along.factors[0]) > 1:
            return values.reshape(*values.shape[:-2], -1)
        values = np.moveaxis(values, number, -1)
        gates = values.shape[-1] // len(axis)
        # Gates of a recurrent layer: (input, gates, units).
        return values if gates <= 1 else values.reshape(*values.shape[:-1], gates, len(axis))

    def _bias(self, axis: UnitAxis) -> np.ndarray:
        for weight, _ in incoming(self.analysis, axis):
            if (
                weight.name == "bias"
                and weight.axes[-1].size == len(axis)
                and len(weight.axes) == 1
            ):
                return as_float(self.source.read(weight.path))
        raise self._lacks(axis, "bias with an entry for each unit")

    def _normalisation(self, axis: UnitAxis, name: str) -> np.ndarray:
        """gamma, beta … of the BatchNormalization that the units reach first."""
        for weight in self.analysis.weights:
            if weight.layer.kind != "BatchNormalization" or weight.name != name:
                continue
            ids = weight.axes[0].ids
            if len(ids) == len(axis) and np.array_equal(ids, axis.ids):
                return as_float(self.source.read(weight.path))
        raise self._lacks(axis, f"BatchNormalization with {name} right behind it")

    def _lacks(self, axis: UnitAxis, what: str) -> ExpressionError:
        return ExpressionError(
            f"layer '{clean(axis.address)}' has no {what}",
            do="leave the layer out, or use another statistic",
        )
