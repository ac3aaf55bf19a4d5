"""One call of a layer or of an operation, as every rule sees it: the inputs, and what happens to them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from kprune.elementwise.facts import ANYTHING, ZERO, gives_zero
from kprune.graph.model import Layer, Shape
from kprune.labels.combine import broadcast_shape, combine, units_stand_on
from kprune.labels.labels import Axis, Labels
from kprune.labels.map import LAYER, UNITS, LabelMap, LayerRecord, Mix, Several, Size
from kprune.sets import distinct

if TYPE_CHECKING:
    from kprune.labels.sizes import Number


Count = Callable[[np.ndarray], int]
"""From a bool array of survivors along an axis to what a number has to be then."""


def all_left(alive: np.ndarray) -> int:
    return int(alive.sum())


class CannotTell(Exception):
    """Raised by a rule (or on its way) that cannot say what becomes of the labels; the reason is its text."""


class RuleCall:
    """What rules for layers and rules for operations have in common.

    Attributes:
        layer: what is called; an operation of a SavedModel stands for a layer.
        xs: the labels of the tensors that come in; `x` is the first of them.
        recorded: the shapes of what goes out, by index, as the file has them.
    """

    def __init__(
        self,
        label_map: LabelMap,
        record: LayerRecord,
        xs: list[Labels],
        recorded: dict[int, Shape | None],
    ) -> None:
        self._map, self._record = label_map, record
        self.layer: Layer = record.layer
        self.xs, self.recorded = xs, recorded

    @property
    def x(self) -> Labels:
        if not self.xs:
            raise CannotTell("is called on no tensor")
        return self.xs[0]

    def shape(self, labels: Labels | None = None) -> Shape:
        """The shape of a tensor (by default the first).

        Raises: CannotTell if it is not known.
        """
        shape = (labels or self.x).shape
        if shape is None:
            raise CannotTell("is called on a tensor of unknown shape")
        return shape

    @property
    def _first(self) -> bool:
        """Whether this is the first call: what goes into a config is said once."""
        return not self._record.visits

    def gives_zero(
        self, kind: str, name: str, operands: Sequence[Any], parameters: Mapping[str, Any]
    ) -> bool:
        """Whether an element-wise function gives 0 where all weights of a unit are 0.

        Args:
            kind, name: of `kprune.elementwise.table`.
            operands: for each its labels, or a constant; None where nothing is known.
            parameters: as they are written in the config or in the node's attributes.
        """
        tensors = [one for one in operands if isinstance(one, Labels)]
        if not any(one.factors for one in tensors):
            return False
        shape = broadcast_shape([one.shape for one in tensors if one.shape is not None])
        axes = [units_stand_on(one, shape) if isinstance(one, Labels) else () for one in operands]
        # One flag speaks for all units: it holds if it does for those of each axis.
        return all(
            gives_zero(
                kind,
                name,
                [_known(o, axis in own) for o, own in zip(operands, axes, strict=True)],
                parameters,
            )
            for axis in sorted(frozenset().union(*axes))
        )

    # -- what becomes of units ------------------------------------------------------------------

    def tie(self, a: Axis | np.ndarray, b: Axis | np.ndarray) -> None:
        """Say that units stay or go as one, pair by pair. One without a partner is frozen."""
        one, other = _ids(a), _ids(b)
        if one is other:
            return
        lonely = self._map.tie(one, other, self.layer.path)
        self.freeze(lonely, f"meet positions in {self.layer.path!r} where no unit stands")

    def freeze(
        self, what: Labels | Axis | np.ndarray, why: str, do: str = "", *, subject: str = UNITS
    ) -> None:
        """Say that units cannot go.

        Args:
            why, do, subject: see `Freeze`: by default, `why` continues a sentence about the units.
        """
        self._map.freeze(_all_ids(what), why, self.layer.path, do, subject=subject)

    def mix(self, what: Labels | Axis | np.ndarray, why: str, *, kind: str = "statistic") -> None:
        """Say that a statistic is taken over units, so that removing one changes what the others give.

        Args:
            why, kind: see `Mix`.
        """
        ids = _all_ids(what)
        ids = distinct(ids[ids != 0])
        if ids.size:
            self._map.mixes.append(Mix(ids, why, self.layer.path, kind))

    def size_left(self, axis: Axis | np.ndarray) -> None:
        """Say that something must be left along an axis."""
        if self._first:
            along = axis if isinstance(axis, Axis) else Axis.of(axis)
            self._map.sizes.append(Size(self.layer, (), along))

    def keep_several(self, axes: Iterable[Axis], why: str) -> None:
        """Say that along no axis exactly one may be left: the layer would compute something else.

        Args:
            why: what it does to an axis of size 1, for a message.
        """
        self._map.several.append(Several(self.layer, tuple(axes), why))

    def demand(self, number: Number, axis: Axis, count: Count = all_left) -> None:
        """Say that a number has to be the count of what is left along an axis, wherever it is written.

        Args:
            number: an element of a shape, a beginning or an end; -1 for a size stays what it is.
            count: what it has to be instead.
        """
        if number.at is None:
            self.match_size(number, axis, whole=count is all_left)
        elif number.value is not None and not (number.value == -1 and count is all_left):
            self._rewrite(number, axis, count)

    def _rewrite(self, number: Number, axis: Axis, count: Count) -> None:
        """Have the place where a number is written follow an axis."""
        raise NotImplementedError  # a config and a graph of operations write numbers in their own ways

    def shaped(self, labels: Labels, numbers: Iterable[Number]) -> Labels:
        """Compare a result with the numbers that gave it its shape."""
        for axis, number in enumerate(numbers):
            if axis < labels.rank:
                self.demand(number, labels.axis(axis))
        return labels

    def sized(self, numbers: Sequence[Number]) -> Labels:
        """A tensor made from a shape, as zeros are: its positions are units without names."""
        known = self.recorded.get(0) or ()
        sizes = [n.value if n.value is not None and n.value >= 0 else None for n in numbers]
        if len(known) == len(sizes):
            sizes = [b if a is None else a for a, b in zip(sizes, known, strict=True)]
        result = Labels(tuple(sizes))
        for axis, (size, number) in enumerate(zip(sizes, numbers, strict=True)):
            follows = number.at is not None or (number.of and not number.lost)
            if size is not None and size > 1 and follows:
                ids = self.anonymous(size)
                extents = [1] * len(sizes)
                extents[axis] = size
                result = Labels(result.shape, (*result.factors, ids.reshape(extents)))
                self.demand(number, Axis.of(ids))
            else:
                self.use_value(number)
        return result

    def use_value(self, number: Number) -> None:
        """Say that a number is more than a size here: it must stay what it is."""
        for axis in number.of:
            self.freeze(axis, f"are counted by {self.layer.path!r}")

    def match_size(self, number: Number, axis: Axis, *, whole: bool = True) -> None:
        """Say that a size that the graph computes has to be what is left along an axis.

        Args:
            whole: whether it has to be the count of all that is left, not of a part.
        """
        why = (
            f"give a size to {self.layer.path!r} that is computed in a way that cannot be followed"
        )
        if number.lost or not whole:
            for part in (axis, *number.of):
                self.freeze(part, why)
            return
        if len(number.of) > 1:
            return  # a product of sizes follows them by itself
        if not number.of:
            self.freeze(axis, why)
            return
        (source,) = number.of
        if not axis.factors:
            self.freeze(source, why)
        elif source.plain and axis.plain and source.size == axis.size:
            self.tie(source, axis)
        elif _equally_often(source, axis):
            return  # other sizes went into the product, and it follows by itself
        elif [f.shape for f in source.factors] == [f.shape for f in axis.factors]:
            for one, other in zip(source.factors, axis.factors, strict=True):
                self.tie(one.ravel(), other.ravel())
        else:
            self.freeze(source, why)
            self.freeze(axis, why)

    def anonymous(self, size: int) -> np.ndarray:
        """Fresh labels without names: positions that are filled in, such as padding. int64 (size,)."""
        return self._map.issue(size)

    def opaque(self, why: str, do: str = "") -> Labels | list[Labels]:
        """Freeze what comes in and the layer's own units. What comes out has none; its shape is as recorded.

        Args:
            why: a clause about the layer, which it names.
            do: what a user can do about it.
        """
        for x in self.xs:
            self.freeze(x, why, do, subject=LAYER)
        # A rule may give up after it issued units: what reads them does not know them either.
        for record in self._record.whole():
            for held in record.axes.values():
                self.freeze(held.ids, why, do, subject=LAYER)
        self._record.opaque = why
        self._record.answer = self._record.answer or "opaque"
        known = [index for index, shape in self.recorded.items() if shape is not None]
        outputs = [Labels(self.recorded.get(index)) for index in range(max(known, default=0) + 1)]
        return outputs[0] if len(outputs) == 1 else outputs

    # -- what becomes of tensors ----------------------------------------------------------------

    def keep_axes_whole(self, x: Labels, axes: Iterable[int], why: str) -> Labels:
        """Say that the sizes along some axes must stay: the layer slides or folds along them.

        Units that stand along these axes alone are frozen. Units that stand along others as well are
        tied across these: they can go where the whole of such a slice goes.

        Args:
            axes: of `x`, from 0.
            why: continues a sentence whose subject is the units.
        Returns: the tensor, with nothing labelled along these axes.
        """
        held = {axis % x.rank for axis in axes} if x.shape is not None else set()
        if not any(x.varies(axis) for axis in held):
            return x
        factors = []
        for factor in x.factors:
            support = set(x.support(factor))
            if not support & held:
                factors.append(factor)
            elif support <= held:
                self.freeze(factor, why)
            else:
                first = factor[
                    tuple(slice(0, 1) if axis in held else slice(None) for axis in range(x.rank))
                ]
                self.tie(np.broadcast_to(first, factor.shape).ravel(), factor.ravel())
                factors.append(first)
        return Labels(x.shape, tuple(factors), x.keeps_zero)

    def collapse(self, x: Labels, axes: Iterable[int]) -> Labels:
        """The labels of a tensor of which some axes were brought down to size 1.

        Units that stood along these axes alone end here. Where units stood along others as well, a
        position that is left goes when all the units that stood there go.
        """
        gone = sorted({axis % x.rank for axis in axes})
        shape = tuple(1 if axis in gone else size for axis, size in enumerate(self.shape(x)))
        factors = []
        for factor in x.factors:
            support = [axis for axis, extent in enumerate(factor.shape) if extent > 1]
            if not support:
                if not set(x.support(factor)) & set(gone):
                    factors.append(factor)
                continue
            left = [axis for axis in support if axis not in gone]
            if len(left) == len(support):
                factors.append(factor)
            elif left:
                order = [*left, *(axis for axis in range(x.rank) if axis not in left)]
                members = factor.transpose(order).reshape(
                    int(np.prod([factor.shape[axis] for axis in left])), -1
                )
                extents = [factor.shape[axis] if axis in left else 1 for axis in range(x.rank)]
                factors.append(self._map.derive(np.ascontiguousarray(members)).reshape(extents))
        return Labels(shape, tuple(factors), x.keeps_zero)

    def combine(self, operands: Sequence[Labels]) -> Labels:
        """The labels of an element-wise function of several tensors, whose units are tied position by position."""
        if any(operand.shape is None for operand in operands):
            for operand in operands:
                self.freeze(operand, "are combined with a tensor of unknown shape")
            return Labels(self.recorded.get(0))
        try:
            combined = combine(operands, self._map.derive)
        except ValueError as error:
            raise CannotTell(str(error)) from error
        for a, b in combined.ties:
            self.tie(a.ravel(), b.ravel())
        for ids in combined.stuck:
            self.freeze(
                ids,
                f"meet positions in {self.layer.path!r} where the other operand has no unit that could go with them",
            )
        return combined.labels


def _all_ids(what: Labels | Axis | np.ndarray) -> np.ndarray:
    return what.all_ids() if isinstance(what, (Labels, Axis)) else what.ravel()


def _equally_often(source: Axis, axis: Axis) -> bool:
    """Whether an axis holds just the units of another, each as often."""
    if not source.plain or not axis.plain:
        return False
    (own, once), (ids, often) = (np.unique(a.ids, return_counts=True) for a in (source, axis))
    return np.array_equal(own, ids) and bool((once == 1).all() and (often == often[0]).all())


def _ids(where: Axis | np.ndarray) -> np.ndarray:
    if not isinstance(where, Axis):
        return where
    if not where.plain:
        raise CannotTell("ties units that stand along two axes at once")
    return where.ids


def _known(operand: Any, stands: bool) -> Any:
    """What is known of an operand where a unit is gone; `stands` tells whether the unit stands in it."""
    if isinstance(operand, Labels):
        return ZERO if stands and operand.keeps_zero else ANYTHING
    return ANYTHING if operand is None else operand
