"""Sums that Keras computes along another axis once a width is 1.

`keras.ops.add` on TensorFlow treats its second operand as a bias if all of its sizes except one are
1 (in Keras 3.15.1, keras/src/backend/tensorflow/numpy.py). It adds the bias along the last axis if
that has the same length, else along axis 1 if that has, regardless of the operand's own axis. A projection of
attention with 6 heads has a bias of shape (6, key_dim); with one dimension left it is (6, 1), and on
6 time steps Keras adds it along time. Nothing in a file can prevent that.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from msgspec import Struct

from kprune.graph.model import Constant, Layer
from kprune.labels.labels import Axis, Labels
from kprune.labels.map import LabelMap, LayerRecord

_ATTENTION = frozenset({"MultiHeadAttention", "GroupQueryAttention", "GroupedQueryAttention"})
_MERGING = frozenset({"Add", "Average"})
_LEGACY = ("tf_keras", "tensorflow")  # these add as TensorFlow does


class Addition(Struct, frozen=True, eq=False):
    """One sum of a layer: the axes of both operands, batch first where there is one."""

    layer: Layer
    first: Sequence[Axis]
    second: Sequence[Axis]

    def goes_astray(self, gone: np.ndarray) -> bool:
        """Whether Keras adds along a wrong axis because a width of the second operand became 1.

        Args:
            gone: bool (labels,): what is removed.
        """
        before = [axis.size for axis in self.second]
        after = _left(self.second, gone)
        if sum(size != 1 for size in after) != 1 or sum(size != 1 for size in before) < 2:
            return False
        own = next(index for index, size in enumerate(after) if size != 1)
        first, width = _left(self.first, gone), after[own]
        if width is None or width not in (first[1], first[-1]):
            return False
        taken = len(first) - 1 if first[-1] == width else 1
        return taken != own + len(first) - len(after)


def additions(label_map: LabelMap) -> Iterator[Addition]:
    """The sums in a model whose second operand has several sizes."""
    for record in label_map.records.values():
        module = str(record.layer.spec.get("module") or "")
        if record.visits and not module.startswith(_LEGACY):
            for first, second in _operands(record):
                if len(first) > 1 and len(second) <= len(first):
                    yield Addition(record.layer, first, second)


def _operands(record: LayerRecord) -> Iterator[tuple[Sequence[Axis], Sequence[Axis]]]:
    layer, visit = record.layer, record.visits[0]
    output = _axes(visit.outputs[0]) if visit.outputs else []
    if layer.kind == "Add" and layer.is_operation and record.args is not None:
        args, kwargs = record.args
        second = args[1] if len(args) > 1 else kwargs.get("x2")
        if isinstance(second, (Labels, Constant)):
            yield output, _axes(second, output)
    elif layer.kind in _MERGING:
        for operand in visit.inputs[1:]:
            yield output, _axes(operand)
    elif layer.kind == "EinsumDense" and layer.config.get("bias_axes"):
        letters = str(layer.config["equation"]).rpartition("->")[2].replace("...", "")
        kept = [letter in layer.config["bias_axes"] for letter in letters]
        if len(kept) <= len(output) and any(kept):
            along = zip(output[len(output) - len(kept) :], kept, strict=True)
            second = [axis if own else Axis(1) for axis, own in along]
            yield output, second[kept.index(True) :]
    elif layer.kind in _ATTENTION:
        for name, weight in record.weights.items():
            if name.endswith("/bias") and len(weight.axes) == 2:
                for x in visit.inputs:
                    yield [*_axes(x)[:-1], *weight.axes], weight.axes


def _axes(operand: Labels | Constant, output: Sequence[Axis] = ()) -> list[Axis]:
    """The axes of an operand; those of a constant are cut as the output's are."""
    if isinstance(operand, Labels):
        return [operand.axis(axis) for axis in range(operand.rank)]
    sizes = operand.value.shape
    along = (
        [Axis(None)] * len(sizes)
        if len(sizes) > len(output)
        else output[-len(sizes) or len(output) :]
    )
    return [Axis(1) if size == 1 else axis for size, axis in zip(sizes, along, strict=True)]


def _left(axes: Sequence[Axis], gone: np.ndarray) -> list[int | None]:
    """What is left of each size."""
    return [
        axis.size
        if axis.size is None or not axis.factors
        else axis.size - int(axis.dead(gone).sum())
        for axis in axes
    ]
