"""The kernels of one model that sum over units, with the units along their rows and columns.

Every one is a batch of linear maps (G, D, M), as `kernels.py` says; a recurrent layer's two kernels,
one upon the other, are one such map.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from msgspec import Struct

from kprune.analysis.analysis import Analysis
from kprune.dtypes import as_float
from kprune.labels.map import Weight
from kprune.refitting.kernels import KernelKind, Layout, has_constant, kind_of
from kprune.refitting.recurrent import is_recurrent

Labelled = tuple[np.ndarray, ...]
Read = Callable[[str], np.ndarray]

WeightKey = tuple[str, str]
"""A weight, in a model and in what is left of it: the path of its layer, and what it is called there."""


class Variable(Struct, frozen=True, eq=False):
    """A weight of a live model.

    Attributes:
        weight: what is known of it.
        owner: the Keras layer whose own it is: a layer inside another, or a cell.
        variable: Keras's.
    """

    weight: Weight
    owner: Any
    variable: Any


def variables_of(model: Any, analysis: Analysis) -> dict[WeightKey, Variable]:
    """The weights of a live model. A layer whose variables cannot be told apart is left out.

    Args:
        analysis: of the file that the model is of.
    """
    from kprune.runtime.keras_runtime import keras_layer  # reports load this module as well

    found: dict[WeightKey, Variable] = {}
    for record in analysis.map.records.values():
        named = {
            (weight.layer.path, key): weight
            for part in record.whole()
            for key, weight in part.weights.items()
            if analysis.is_stored(weight)
        }
        try:
            layer = keras_layer(model, record.layer.path) if named else None
        except (AttributeError, StopIteration):
            continue  # it stands inside a layer whose record has its weights as well
        if layer is None:
            continue
        # Keras counts trainable ones first, and each kind in the order in which they were made.
        ordered = sorted(named.items(), key=lambda item: not item[1].trainable)
        variables = [*layer.trainable_weights, *layer.non_trainable_weights]
        shapes = [tuple(analysis.tensors[weight.path].shape) for _, weight in ordered]
        if shapes != [tuple(variable.shape) for variable in variables]:
            continue
        owners = _owners(layer)
        for (key, weight), variable in zip(ordered, variables, strict=True):
            found[key] = Variable(weight, owners.get(id(variable)), variable)
    return found


def _owners(layer: Any) -> dict[int, Any]:
    return {
        id(variable): inner
        for inner in layer._flatten_layers()
        for kind in (
            "_trainable_variables",
            "_non_trainable_variables",
        )  # not those of layers in it
        for variable in getattr(inner, kind, ())
    }


class Consumer(Struct, frozen=True, eq=False):
    """A kernel, or a recurrent layer's two.

    Attributes:
        name: of the layer, and of what in it, where it has several.
        layer: the Keras layer that is called with what is summed.
        kind, layout: how a kernel is used; None for a recurrent layer.
        weights: the kernel, or both.
        bias: whether something is added to each column, which could take a constant up.
        row_labels: int64 arrays (k, G, D): a row is gone as soon as, for any of them, all its k
            labels are; column_labels: the same of columns, (k, G, M).
    """

    name: str
    layer: Any
    kind: KernelKind | None
    layout: Layout
    weights: tuple[Weight, ...]
    bias: bool
    shape: tuple[int, int, int]
    row_labels: Labelled
    column_labels: Labelled

    @property
    def paths(self) -> tuple[str, ...]:
        """Dataset paths of the weights."""
        return tuple(weight.path for weight in self.weights)

    def matrix(self, read: Read) -> np.ndarray:
        """The weights as they are in a file, float64 (G, D, M)."""
        arrays = [as_float(read(weight.path)).astype(np.float64) for weight in self.weights]
        return self.layout.matrix(np.concatenate(arrays))

    def rows_gone(self, gone: np.ndarray) -> np.ndarray:
        """bool (G, D): the rows that go. gone: bool (labels,)."""
        return _gone(self.row_labels, gone, self.shape[:2])

    def columns_gone(self, gone: np.ndarray) -> np.ndarray:
        """bool (G, M): the columns that go."""
        return _gone(self.column_labels, gone, (self.shape[0], self.shape[2]))


def _gone(labels: Labelled, gone: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    found = np.zeros(shape, bool)
    for factor in labels:
        found |= gone[factor].all(axis=0)
    return found


def consumers_of(model: Any, variables: Mapping[WeightKey, Variable]) -> list[Consumer]:
    """The kernels of a live model that units stand along, in the order of its weights."""
    runs = {id(layer.cell): layer for layer in model._flatten_layers() if is_recurrent(layer)}
    found: dict[int, Consumer] = {}
    for place in variables.values():
        owner = place.owner
        if id(owner) in found or owner is None:
            continue
        run = runs.get(id(owner))
        consumer = _kernel(place) if run is None else _recurrent(run, variables)
        if consumer is not None and any(
            factor.any() for factor in (*consumer.row_labels, *consumer.column_labels)
        ):
            found[id(owner)] = consumer
    return list(found.values())


def _kernel(place: Variable) -> Consumer | None:
    kind = kind_of(place.owner)
    if kind is None or getattr(place.owner, kind.kernel, None) is not place.variable:
        return None
    weight, layout = place.weight, kind.layout(place.owner, len(place.weight.axes))
    kernel: Any = place.variable
    shape = _shape(layout, tuple(kernel.shape))
    return Consumer(
        _name(place),
        place.owner,
        kind,
        layout,
        (weight,),
        has_constant(place.owner),
        shape,
        _row_labels(weight, layout, shape),
        _column_labels(weight, layout, shape),
    )


def _recurrent(layer: Any, variables: Mapping[WeightKey, Variable]) -> Consumer | None:
    cell: Any = layer.cell
    of = {id(place.variable): place for place in variables.values()}
    if id(cell.kernel) not in of or id(cell.recurrent_kernel) not in of:
        return None
    kernel, recurrent = of[id(cell.kernel)].weight, of[id(cell.recurrent_kernel)].weight
    layout = Layout((), (0,), (1,))
    inputs, units = int(cell.kernel.shape[0]), int(cell.recurrent_kernel.shape[0])
    shape = (1, inputs + units, int(cell.kernel.shape[1]))
    rows = [np.pad(factor, ((0, 0), (0, units))) for factor in kernel.axes[0].factors]
    rows += [np.pad(factor, ((0, 0), (inputs, 0))) for factor in recurrent.axes[0].factors]
    return Consumer(
        kernel.layer.path,
        layer,
        None,
        layout,
        (kernel, recurrent),
        getattr(cell, "bias", None) is not None,
        shape,
        tuple(row[:, None] for row in rows),
        _column_labels(kernel, layout, shape),
    )


def _shape(layout: Layout, shape: tuple[int, ...]) -> tuple[int, int, int]:
    parts, rows, columns = layout.matrix(np.broadcast_to(np.int8(0), shape)).shape
    return parts, rows, columns


def _name(place: Variable) -> str:
    """`block/conv`, or `mha (query)` for what an attention has several of."""
    own = str(place.owner.name)
    path = place.weight.layer.path
    return path if path.rpartition("/")[2] == own else f"{path} ({own})"


def _row_labels(weight: Weight, layout: Layout, shape: tuple[int, int, int]) -> Labelled:
    if weight.grouped is not None:
        sides = weight.grouped.sides[0]  # (groups, inputs)
        return (np.tile(sides, (1, shape[1] // sides.shape[1]))[None],)
    found = [
        np.broadcast_to(line[:, None], (len(line), *shape[:2]))
        for line in _lines(weight, layout.rows)
    ]
    # What a part stands for goes with all of its units: the channel of a depthwise kernel.
    for factor in _lines(weight, layout.parts):
        found.append(np.broadcast_to(factor[:, :, None], (*factor.shape, shape[1])))
    return tuple(found)


def _column_labels(weight: Weight, layout: Layout, shape: tuple[int, int, int]) -> Labelled:
    parts, _, columns = shape
    found = []
    for line in _lines(weight, layout.columns):
        if layout.groups > 1:
            found.append(line.reshape(len(line), parts, columns))
        else:
            found.append(np.broadcast_to(line[:, None], (len(line), parts, columns)))
    for factor in _lines(weight, layout.parts):
        if weight.out in layout.parts and len(factor) == columns:
            found.append(factor.T[None])  # a depthwise kernel: the units of a channel, one a column
        else:
            found.append(np.broadcast_to(factor[:, :, None], (*factor.shape, columns)))
    return tuple(found)


def _lines(weight: Weight, axes: tuple[int, ...]) -> list[np.ndarray]:
    """For each factor of some axes of a weight, its labels at every position of all these axes: int64 (k, n)."""
    sizes = [weight.axes[axis].size or 1 for axis in axes]
    found = []
    for number, axis in enumerate(axes):
        for factor in weight.axes[axis].factors:
            form = [len(factor), *(1 for _ in axes)]
            form[1 + number] = factor.shape[1]
            wide = np.broadcast_to(factor.reshape(form), (len(factor), *sizes))
            found.append(wide.reshape(len(factor), -1))
    return found
