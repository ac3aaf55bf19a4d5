"""What is known of labels only once every operation of a SavedModel was traced."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from kprune.labels.labels import Axis
from kprune.labels.map import LAYER, LabelMap
from kprune.saved_model.tracing.traced import Demand, Traced
from kprune.saved_model.tracing.values import Place
from kprune.sets import distinct
from kprune.text import clean


def settle(traced: Traced, label_map: LabelMap) -> None:
    """Say it: what shapes of lists demand, which groups can be cut, where numbers have two meanings."""
    _settle_lists(traced)
    _settle_groups(traced, label_map)
    _settle_demands(traced, label_map)


def _settle_lists(traced: Traced) -> None:
    """The numbers that say the shape of a list's elements follow them."""
    for items, numbers, demand in traced.list_shapes:
        element = items.element
        if element is None or element.shape is None or numbers.size != element.rank:
            continue
        for axis, number in enumerate(numbers.ravel()):
            demand(number, element.axis(axis))


def _settle_groups(traced: Traced, label_map: LabelMap) -> None:
    """A grouped kernel's rows may only be shortened if nothing else is known of them."""
    known = [ids[tie.a != tie.b] for tie in label_map.ties for ids in (tie.a, tie.b)]
    known += [freeze.ids for freeze in label_map.freezes]
    known += [mix.ids for mix in label_map.mixes]
    known += [demand.axis.all_ids() for demand in traced.demands]
    elsewhere = distinct(np.concatenate(known)) if known else np.zeros(0, np.int64)
    for parameter, blocks in traced.grouped.items():
        rows = parameter.ids[-2]
        if rows is not None and np.isin(rows, elsewhere).any():
            at = clean(blocks.layer.path)
            ids = np.concatenate([side.ravel() for side in blocks.sides])
            why = f"are channels of the groups of '{at}', whose kernel is also used in another way"
            label_map.freeze(ids, why, at)
        label_map.blocks.append(blocks)


def _settle_demands(traced: Traced, label_map: LabelMap) -> None:
    """A number in a constant can follow one axis, or several that lose the same; a value must stay."""
    first: dict[Place, Demand] = {}
    for demand in traced.demands:
        at = clean(demand.place[1])
        if demand.place in traced.valued:
            why = f"'{at}' is a size and a value at once"
            label_map.freeze(demand.axis.all_ids(), why, at, subject=LAYER)
        known = first.setdefault(demand.place, demand)
        if known is not demand:
            _tie_axes(known.axis, demand.axis, f"'{at}' is the size of several axes", at, label_map)


def _tie_axes(one: Axis, other: Axis, why: str, at: str, label_map: LabelMap) -> None:
    """Have two axes lose the same, position by position; what cannot be tied so is frozen."""
    frozen: Iterable[np.ndarray] = (one.all_ids(), other.all_ids())
    if [f.shape for f in one.factors] == [f.shape for f in other.factors]:
        pairs = zip(one.factors, other.factors, strict=True)
        frozen = [label_map.tie(a.ravel(), b.ravel(), at) for a, b in pairs]
    for ids in frozen:
        label_map.freeze(ids, why, at, subject=LAYER)
