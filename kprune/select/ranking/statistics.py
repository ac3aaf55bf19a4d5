"""What is known of each unit's weights: the numbers that expressions and criteria see.

Every tensor is read once, in blocks, so memory does not grow with it; only `w` needs it whole.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Protocol

import numpy as np
from msgspec import Struct, field

from kprune.analysis.analysis import Analysis
from kprune.dtypes import as_float
from kprune.errors import ExpressionError, MissingStatisticError
from kprune.labels.map import TOKENS, UnitAxis, Weight
from kprune.select.naming.statistic_names import (
    BATCHNORM_NAMES,
    DATA_NAMES,
    OUTGOING_NAMES,
    WEIGHT_NAMES,
)
from kprune.surgery.zero import incoming
from kprune.text import clean

if TYPE_CHECKING:
    from kprune.refitting.ordering.covariances import Observation

MOMENTS = WEIGHT_NAMES - {"index", "w", "bias"}
# What is neither taken in nor handed on; vector_u is the direction in which a kernel is longest.
BIASES = frozenset({"bias", "beta", "gamma", "vector_u"})


class Readable(Protocol):
    """Where tensors are read from."""

    def read(self, path: str) -> np.ndarray: ...

    def blocks(self, path: str, limit: int = ...) -> Iterable[tuple[int, np.ndarray]]: ...


class Observed(Protocol):
    """What units give on data."""

    def get(self, axis: UnitAxis, name: str) -> np.ndarray: ...

    def outputs(self, axis: UnitAxis) -> Iterator[np.ndarray]: ...


class Observing(Protocol):
    """What the weights that read units are given on data."""

    @property
    def samples(self) -> int: ...

    def observations(self, weighting: str) -> list[Observation]: ...


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


def _unit_at(ids: np.ndarray, axis: UnitAxis) -> np.ndarray:
    """int64: for the labels along an axis of a weight which unit each is, -1 for none."""
    position = np.full(max(int(ids.max(initial=0)), int(axis.ids.max())) + 1, -1, np.int64)
    position[axis.ids] = np.arange(len(axis))
    return position[ids]


def _add_products(total: np.ndarray, values: np.ndarray, units: np.ndarray) -> None:
    """Add inner products to (units, units): values (n, positions), the unit of each position."""
    inside = units >= 0
    wide, at = values[:, inside].astype(np.float64, copy=False), units[inside]
    # Gates stand side by side: each is a stretch of the unit's weights of its own.
    for start in range(0, len(at), len(total)):
        gate, here = wide[:, start : start + len(total)], at[start : start + len(total)]
        total[np.ix_(here, here)] += gate.T @ gate


class Statistics(Struct, eq=False):
    """The statistics of the units of one model file.

    Attributes:
        analysis: the model.
        source: the file its tensors are read from.
        activations: what its units give on data, if there are data.
        observed: what the weights that read them are given there.
    """

    analysis: Analysis
    source: Readable
    activations: Observed | None = None
    observed: Observing | None = None
    _moments: dict[tuple[str, bool], Moments] = field(default_factory=dict)
    _grams: dict[str, np.ndarray] = field(default_factory=dict)

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
        return self._activations(name).get(axis, name)

    def outputs(self, axis: UnitAxis) -> Iterator[np.ndarray]:
        """What the units give on the data, batch by batch: float64 (values, units).

        Raises: ExpressionError if there are no data.
        """
        return self._activations("activations").outputs(axis)

    def _activations(self, name: str) -> Observed:
        if self.activations is None:
            raise ExpressionError(
                f"'{name}' is a statistic of activations, which are not in the file",
                do="give data with --data FILE.npz, or use a statistic of the weights",
            )
        return self.activations

    def moments(self, axis: UnitAxis, *, outgoing: bool = False) -> Moments:
        """Sums over the weights that make each unit, or over what its consumers hold for it."""
        key = (axis.address, outgoing)
        if key in self._moments:
            return self._moments[key]
        if outgoing:
            places = self._outgoing(axis)
            if not places:
                raise self._lacks(axis, "weights that are read behind it")
            found = self._moments[key] = Moments.empty(len(axis))
            for weight, number in places:
                for _, values, units in self._columns(weight, [(axis, number)]):
                    found.add(values, units)
            return found
        layer = self._axes_of_layer(axis)
        self._moments |= {(own.address, False): Moments.empty(len(own)) for own in layer}
        for own, values, units in self._all_columns(layer):
            self._moments[own.address, False].add(values, units)
        return self._moments[key]

    def gram(self, axis: UnitAxis) -> np.ndarray:
        """Inner products of the units' incoming weights, float64 (units, units)."""
        if axis.address not in self._grams:
            layer = self._axes_of_layer(axis)
            self._grams |= {own.address: np.zeros((len(own), len(own))) for own in layer}
            for own, values, units in self._all_columns(layer, together=True):
                _add_products(self._grams[own.address], values, units)
        return self._grams[axis.address]

    def _axes_of_layer(self, axis: UnitAxis) -> list[UnitAxis]:
        """The axes of units of one layer that have weights of their own: they may share them.

        Raises: ExpressionError if `axis` has none.
        """
        if not self._incoming(axis):
            raise self._lacks(axis, "weights of its own")
        if axis.name == TOKENS:  # of which there may be so many that their products fit nowhere
            return [axis]
        return [
            own
            for own in self.analysis.map.axes.values()
            if own.layer is axis.layer and own.name != TOKENS and self._incoming(own)
        ]

    def _all_columns(
        self, axes: Iterable[UnitAxis], *, together: bool = False
    ) -> Iterator[tuple[UnitAxis, np.ndarray, np.ndarray]]:
        """What makes the units of some axes, each weight read once; see `_columns`."""
        readers: dict[str, tuple[Weight, list[tuple[UnitAxis, int]]]] = {}
        for axis in axes:
            for weight, number in self._incoming(axis):
                readers.setdefault(weight.path, (weight, []))[1].append((axis, number))
        for weight, wanted in readers.values():
            yield from self._columns(weight, wanted, together=together)

    def _incoming(self, axis: UnitAxis) -> list[tuple[Weight, int]]:
        return [
            (weight, number)
            for weight, number in incoming(self.analysis, axis)
            if weight.name not in BIASES and not weight.duplicate
        ]

    def _outgoing(self, axis: UnitAxis) -> list[tuple[Weight, int]]:
        """Weights of consumers that have these units along an axis that is not their own units'."""
        return [
            (weight, number)
            for weight in self.analysis.weights
            if weight.name not in BIASES and not weight.duplicate and len(weight.axes) > 1
            for number, along in enumerate(weight.axes)
            if number not in (weight.out, *weight.also) and np.isin(along.all_ids(), axis.ids).any()
        ]

    def _columns(
        self, weight: Weight, wanted: Iterable[tuple[UnitAxis, int]], *, together: bool = False
    ) -> Iterator[tuple[UnitAxis, np.ndarray, np.ndarray]]:
        """A weight in blocks, units in columns.

        Args:
            wanted: axes of units, each with the axis of the weight along which it stands.
            together: whether all units must stand in every block.
        Returns: the axis, (n, positions), and the unit of each position, -1 for none.
        """
        wanted = list(wanted)
        first, number = wanted[0]
        along = weight.axes[number]
        if len(along.factors) == 1 and len(along.factors[0]) > 1:
            # A depthwise kernel: unit m + multiplier * c stands at (c, m) of the last two axes.
            values = as_float(self.source.read(weight.path)).reshape(-1, along.factors[0].size)
            yield first, values, np.arange(len(first))
            return
        places = [_unit_at(weight.axes[number].ids, axis) for axis, number in wanted]
        whole = together and any(number == 0 for _, number in wanted)
        blocks = [(0, self.source.read(weight.path))] if whole else self.source.blocks(weight.path)
        for start, block in blocks:
            values = as_float(block)
            for (axis, number), units in zip(wanted, places, strict=True):
                here = units[start : start + len(values)] if number == 0 else units
                yield axis, np.moveaxis(values, number, -1).reshape(-1, len(here)), here

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

    def _lacks(self, axis: UnitAxis, what: str) -> MissingStatisticError:
        return MissingStatisticError(
            f"layer '{clean(axis.address)}' has no {what}",
            do="leave the layer out, or use another statistic",
        )
