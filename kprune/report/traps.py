"""Places where Keras computes something other than the config says, because of the sizes after a cut.

`keras.ops.add` on TensorFlow takes a second operand of which only one size is not 1 for a bias,
and asks first whether the tensor's *last* axis is that long, wherever the operand's own axis is (in
Keras 3.15.1, keras/src/backend/tensorflow/numpy.py). So a channels_first convolution of 7 filters
on images 5 wide is right, and becomes wrong when the filters are cut to 5. Nothing in the file can
prevent that; the report says it.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from kprune.analysis.analysis import Analysis
from kprune.graph.model import Constant, Layer
from kprune.labels.labels import Labels
from kprune.labels.map import LayerRecord
from kprune.page.result import Note
from kprune.text import clean


def bias_traps(analysis: Analysis, gone: np.ndarray) -> list[Note]:
    """A note for each layer that adds along the wrong axis after a cut, or did before it, not both.

    Args:
        gone: bool (labels,): what is removed.
    """
    notes = []
    for layer, output in _vectors_on_axis_1(analysis):
        (own, own_left), (last, last_left) = _sizes(output, gone)
        before, after = own == last > 1, own_left == last_left > 1
        name = clean(layer.path)
        why = "Keras adds its vector along the last axis where that is as long as axis 1"
        if after and not before:
            do = "take a unit more or less, or use channels_last"
            text = f"'{name}' will compute something else: {why} (now both are {own_left}); {do}"
            notes.append(Note("keras", layer.path, text))
        elif before and not after:
            text = f"'{name}' computed something else before: {why} (both were {own})"
            notes.append(Note("keras", layer.path, text))
    return notes


def _vectors_on_axis_1(analysis: Analysis) -> Iterator[tuple[Layer, Labels]]:
    """Layers that add a vector along axis 1 of a tensor of higher rank, and what they give."""
    for record in analysis.map.records.values():
        if not record.visits or not record.visits[0].outputs:
            continue
        output = record.visits[0].outputs[0]
        if (
            output.shape is not None
            and len(output.shape) > 2
            and (_bias(record) or _added(record, output))
        ):
            yield record.layer, output


def _bias(record: LayerRecord) -> bool:
    config = record.layer.config
    return config.get("data_format") == "channels_first" and "bias" in record.weights


def _added(record: LayerRecord, output: Labels) -> bool:
    """Whether the layer is an operation `x + constant` whose constant varies along axis 1 alone."""
    if record.layer.kind != "Add" or not record.layer.is_operation or record.args is None:
        return False
    args, kwargs = record.args
    second = args[1] if len(args) > 1 else kwargs.get("x2")
    if not isinstance(second, Constant):
        return False
    sizes = (1,) * (len(output.shape or ()) - second.value.ndim) + second.value.shape
    return [axis for axis, size in enumerate(sizes) if size != 1] == [1]


def _sizes(labels: Labels, gone: np.ndarray) -> tuple[tuple[int, int], tuple[int, int]]:
    """(axis 1 before, after), (last axis before, after); -1 for a size that is not known."""

    def of(axis: int) -> tuple[int, int]:
        along = labels.axis(axis)
        if along.size is None:
            return -1, -1
        return along.size, along.size - (int(along.dead(gone).sum()) if along.factors else 0)

    return of(1), of(-1)
