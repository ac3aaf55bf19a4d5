"""How many units of which layers, by which criterion: a ratio, a count, a threshold or a budget."""

from __future__ import annotations

import fnmatch
from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np
from msgspec import field

from kprune.errors import UsageError
from kprune.select.ranking.options import OPTIONS, RankOptions
from kprune.text import clean

if TYPE_CHECKING:
    from kprune.labels.map import UnitAxis
    from kprune.select.ranking.budget import Budget
    from kprune.select.ranking.ranks import Ranking

LIMITS = ("ratio", "count", "threshold", "target")


def check_number(name: str, value: float | None) -> None:
    """Raises: UsageError for a value that an option's description rules out."""
    option = OPTIONS[name]
    if value is None:
        return
    called = name.replace("_", " ")
    if option.least is not None and value < option.least:
        raise UsageError(f"the {called} must be at least {option.least}, got {value:g}")
    above, below = option.above, option.below
    if above is not None and below is not None and not above < value < below:
        span = f"between {above} and {below}, both excluded"
        raise UsageError(f"the {called} must lie {span}, got {value:g}")


class Choice(RankOptions, frozen=True):
    """A choice of units by a criterion.

    Attributes:
        criterion: the name of a criterion.
        ratio, count, threshold, target: exactly one of them: a share of each layer's units, a
            number of units, the score below which units are removed, or a budget for the whole
            model.
        round_to: the number of remaining units is a multiple of this.
        min_units: leave at least this many.
        max_ratio: remove at most this share of any layer.
        per_layer: individual ratios for layers (or globs).
        together: rank the units of all layers in one list, not layer by layer.
        seed, reduce, normalize, weighting: see `Ranking`, also for their defaults.
    Raises: UsageError if not exactly one limit is given, or if a value makes no sense.
    """

    criterion: str
    ratio: float | None = None
    count: int | None = None
    threshold: float | None = None
    target: Budget | None = None
    together: bool = False
    per_layer: Mapping[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        _ = self.ranking  # refuses unknown words
        limits = [name for name in LIMITS if getattr(self, name) is not None]
        if len(limits) != 1 and not (not limits and self.per_layer):
            raise UsageError(
                f"criterion '{self.criterion}' is given {'no limit' if not limits else ' and '.join(limits)}",
                do="give one of --ratio, --count, --threshold and --target-…",
            )
        for name in ("ratio", "max_ratio", "count", "round_to", "min_units", "seed"):
            check_number(name, getattr(self, name))
        if self.threshold is not None and np.isnan(self.threshold):
            raise UsageError("the threshold is not a number", why="no score is below nan")
        for ratio in self.per_layer.values():
            check_number("ratio", ratio)
        for name, meant in (("a budget", self.target), ("one list of all layers", self.together)):
            if meant and self.per_layer:
                raise UsageError(
                    f"the ratio for '{clean(next(iter(self.per_layer)))}' cannot be combined with {name}",
                    do="leave out --per-layer; --max-ratio bounds every layer",
                )

    @property
    def ranking(self) -> Ranking:
        from kprune.select.ranking.ranks import Ranking

        given = self.rank_options().items()
        fields = Ranking.__dataclass_fields__
        return Ranking(self.criterion, **{name: it for name, it in given if name in fields})

    def quota(self, axis: UnitAxis, scores: np.ndarray) -> int:
        """How many of one layer's units should go, before anything is rounded."""
        for name, ratio in self.per_layer.items():
            if _is_named(axis, name):
                return int(np.floor(ratio * len(scores) + 1e-9))
        if self.ratio is not None:
            return int(np.floor(self.ratio * len(scores) + 1e-9))
        if self.count is not None:
            return min(self.count, len(scores))
        if self.threshold is not None:
            return int((scores < self.threshold).sum())
        return 0

    def allowed(self, units: int, wanted: int) -> int:
        """How many may go of `units`, so that what is left is round and not too few."""
        left = max(units - wanted, self.least(units))
        if self.round_to:
            left = -(-left // self.round_to) * self.round_to
        return max(units - left, 0)

    def staying(self, axis: UnitAxis, *, asked: bool) -> int:
        """How many units of an axis stay, whatever ranks them: layer by layer, all but its share.

        Args:
            asked: whether it is one of the layers that something is asked of.
        """
        units = len(axis)
        if self.target is not None or self.together or self.threshold is not None or not asked:
            return self.least(units)
        return units - self.allowed(units, self.quota(axis, np.zeros(units)))

    def least(self, units: int) -> int:
        """How many of `units` must stay."""
        share = 0 if self.max_ratio is None else int(np.ceil((1 - self.max_ratio) * units - 1e-9))
        return min(max(self.min_units or 1, 1, share), units)


def _is_named(axis: UnitAxis, text: str) -> bool:
    """Whether a text means the units of an axis: LAYER[.AXIS], between quotes or not, or a glob."""
    from kprune.select.naming.specs import parse_layer

    name = parse_layer(text)
    if name.exact:
        return axis.layer.path == name.layer and name.axis in (axis.name, None)
    return axis.address == text or fnmatch.fnmatchcase(axis.address, text)
