"""Arrays in a config that no rule handles: the units that they may count are frozen."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from kprune.labels.labels import Axis, Labels, Shape
from kprune.labels.map import Tie
from kprune.tracing.config_arrays import DO, reason
from kprune.tracing.layer_call import LayerCall


def freeze_unclaimed(call: LayerCall, outputs: list[Labels], ties: Sequence[Tie]) -> None:
    """Freeze units along which an array in the config has its positions, and no rule spoke for it.

    Args:
        call: after its rule has run.
        outputs: what it gave.
        ties: what the rule tied; looked at only if tensors were made of arrays (`call.made`).
    """
    for array in (*call.constants, *call.config_arrays()):
        if array.place not in call.spoken:
            _hold(call, outputs, array.shape, array.shape)
    if call.made:
        met = [side for tie in ties for side in (tie.a, tie.b)]
        met += [axis.all_ids() for axis in call.weight_axes()]
        met += [labels.all_ids() for labels in outputs]
        known = np.concatenate(met) if met else np.zeros(0, np.int64)
        for tensor in call.made:
            axes = [tensor.axis(number) for number in range(tensor.rank)]
            left = [axis.size for axis in axes if not np.isin(axis.all_ids(), known).any()]
            _hold(call, outputs, tensor.shape or (), left)


def _hold(
    call: LayerCall, outputs: list[Labels], shape: Shape, sizes: Sequence[int | None]
) -> None:
    """Freeze the units along every axis of one of these sizes."""
    for axis in _axes_of(call, outputs):
        if axis.factors and axis.size in sizes:
            call.freeze(axis, reason(call.layer, shape), DO)


def _axes_of(call: LayerCall, outputs: list[Labels]) -> Iterator[Axis]:
    """Every axis of the layer along which units may stand."""
    for labels in (*call.xs, *outputs):
        for number in range(labels.rank):
            yield labels.axis(number)
    yield from call.own_axes()
