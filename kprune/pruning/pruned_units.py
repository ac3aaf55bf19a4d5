"""Which units steps pruned and how, in the labels of the model as it was before."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from msgspec import Struct, field

from kprune.analysis.analysis import Analysis
from kprune.labels.closure import Units, close
from kprune.sets import distinct


class Mask(Struct, eq=False):
    """One masked layer: which channels of its output, None for all; `below` for a dynamic mask."""

    path: str
    channels: np.ndarray | None
    below: float | None = None


class PrunedUnits(Struct, eq=False):
    """The units that were pruned between two files, by how it was done.

    Attributes:
        gone: bool (labels,): what was physically removed.
        zeroed_through: bool (labels,): units of which every weight was set to 0 (`zero --outgoing`).
        zeroed, silenced: by address, units whose incoming weights are 0, or whose bias is very low.
        masks: layers whose output is multiplied.
        kept: bool (labels,): removed units whose constant contribution was added to biases.
        removed: by address, the units that were named; `gone` follows from them.
    """

    gone: np.ndarray
    zeroed_through: np.ndarray
    zeroed: dict[str, np.ndarray] = field(default_factory=dict)
    silenced: dict[str, np.ndarray] = field(default_factory=dict)
    masks: list[Mask] = field(default_factory=list)
    kept: np.ndarray | None = None
    removed: dict[str, np.ndarray] = field(default_factory=dict)

    @classmethod
    def nothing_of(cls, analysis: Analysis) -> PrunedUnits:
        """No unit was pruned yet."""
        return cls(np.zeros(analysis.map.count, bool), np.zeros(analysis.map.count, bool))

    @property
    def weightless(self) -> np.ndarray:
        """bool (labels,): the units of which every weight counts as 0."""
        gone = self.gone if self.kept is None else self.gone & ~self.kept
        return gone | self.zeroed_through

    @property
    def nothing(self) -> bool:
        return not (self.weightless.any() or self.zeroed or self.silenced or self.masks)

    def original(self, analysis: Analysis, layers: Mapping[str, Any]) -> Units:
        """Indices of units in the original; a step counts the units of the file it was applied to.

        Args:
            layers: by address, indices.
        """
        return {
            address: np.flatnonzero(~self.gone[analysis.map.axes[address].ids])[
                np.asarray(indices, np.int64)
            ]
            for address, indices in layers.items()
        }

    def remove(self, analysis: Analysis, units: Units, *, kept: bool) -> None:
        """Units were removed, with all that are tied to them.

        Args:
            kept: whether their constant contribution was added to biases.
        """
        before = self.gone
        _add(self.removed, units)
        self.gone = close(analysis.groups, self.removed).gone
        if kept:
            earlier = np.zeros_like(before) if self.kept is None else self.kept
            self.kept = earlier | (self.gone & ~before)

    def zero(self, units: Units) -> None:
        """The incoming weights of units are 0."""
        _add(self.zeroed, units)

    def silence(self, units: Units) -> None:
        """The biases of units are very low."""
        _add(self.silenced, units)


def _add(into: dict[str, np.ndarray], units: Units) -> None:
    for address, indices in units.items():
        into[address] = distinct(into.get(address, np.zeros(0, np.int64)), indices)
