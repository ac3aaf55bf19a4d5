"""Variables and constant weights: their labels, what they are used for, and the layers that they belong to."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np

from kprune.graph.model import Layer
from kprune.labels.labels import Labels

# How Keras calls the parts of attention: they are one layer to its user.
ATTENTION = ("query", "key", "value", "attention_output")
_CELL = re.compile(r".*_cell(_\d+)?$")


@dataclass(eq=False)
class Parameter:
    """A variable, or a constant that is used like one.

    Attributes:
        name: as the model calls it: `dense_1/kernel`.
        keys: where it is in the checkpoint; a copy that the model keeps of it comes behind.
        constants: where it stands in graphs: (graph, node).
        trainable: whether training changes it.
        alone: whether its name says nothing of a layer: then it is one by itself.
        layer: whose it is; set once all names are known.
        path: `LAYER/…`, unique; how reports call the tensor.
        ids: for each axis int64 labels, or None where there are none.
        made: axes along which an operation made units of it.
        kind: the operation that it is for; "" if none says.
        uses: how often each element is used per sample; `flops` operations each time.
    """

    name: str
    shape: tuple[int, ...]
    dtype: np.dtype
    keys: list[str] = field(default_factory=list)
    constants: list[tuple[str, str]] = field(default_factory=list)
    trainable: bool = True
    alone: bool = False
    layer: Layer | None = None
    path: str = ""
    ids: list[np.ndarray | None] = field(default_factory=list)
    made: set[int] = field(default_factory=set)
    kind: str = ""
    uses: float = 0.0
    flops: float = 1.0
    _labels: Labels | None = None

    @property
    def is_float(self) -> bool:
        return self.dtype.kind == "f" or self.dtype.name in ("bfloat16", "float16")

    @property
    def leaf(self) -> str:
        return self.path.rpartition("/")[2]

    def label(self, issue: object) -> None:
        """Give every position along every axis a label; an axis of size 1 has none to lose."""
        self.ids = [
            issue(size) if size > 1 and self.is_float else None  # type: ignore[operator]
            for size in self.shape
        ]

    @property
    def labels(self) -> Labels:
        """Which units stand where in it: along each axis its own."""
        if self._labels is None:
            factors = []
            for axis, ids in enumerate(self.ids):
                if ids is not None:
                    extents = [1] * len(self.shape)
                    extents[axis] = len(ids)
                    factors.append(ids.reshape(extents))
            self._labels = Labels(self.shape, tuple(factors))
        return self._labels


class Owners:
    """From a label to the weight along whose axis it was issued; what is found of a weight is noted there.

    Args:
        parameters: labelled, in the order in which they were.
    """

    def __init__(self, parameters: Iterable[Parameter]) -> None:
        self._runs = [
            (int(ids[0]), int(ids[-1]), parameter, axis)
            for parameter in parameters
            for axis, ids in enumerate(parameter.ids)
            if ids is not None
        ]
        self._starts = np.array([start for start, _, _, _ in self._runs], np.int64)

    def find(self, label: int) -> tuple[Parameter, int] | None:
        """The weight, and the axis. None for a label that was not issued for a weight."""
        at = int(np.searchsorted(self._starts, label, "right")) - 1
        if at < 0:
            return None
        start, end, parameter, axis = self._runs[at]
        return (parameter, axis) if start <= label <= end else None

    def whole(self, labels: Labels) -> Parameter | None:
        """The weight that a tensor is, as it stands in the file. None for any other tensor."""
        found = self.find(int(labels.factors[0].flat[0])) if labels.factors else None
        return found[0] if found is not None and labels is found[0].labels else None

    def note_units(self, label: int) -> None:
        """Note that an operation made units along the axis that issued this label."""
        found = self.find(label)
        if found is not None:
            found[0].made.add(found[1])

    def note_kind(self, label: int, kind: str) -> None:
        """Note the operation that a weight is for: the first one counts."""
        found = self.find(label)
        if found is not None:
            found[0].kind = found[0].kind or kind

    def note_use(self, label: int, times: float, flops: float) -> None:
        """Note how often a weight's elements are used: the first use counts."""
        found = self.find(label)
        if found is not None and not found[0].uses:
            found[0].uses, found[0].flops = times, flops


def name_layers(parameters: Iterable[Parameter]) -> list[Layer]:
    """Find the layer of each parameter by its name: `dense_1/kernel` belongs to `dense_1`.

    A recurrent layer's cell is no layer of its own, and neither are the four projections of
    attention. A name without a `/` is a layer's, and so is one that several variables share.

    Returns: the layers, in the order of their first parameter.
    """
    parameters = list(parameters)
    scopes = {p: p.name if p.alone else _scope(p.name) for p in parameters}
    families: dict[str, set[str]] = {}
    for scope in scopes.values():
        parent, _, last = scope.rpartition("/")
        families.setdefault(parent, set()).add(last)
    layers: dict[str, Layer] = {}
    for parameter, scope in scopes.items():
        parent, _, last = scope.rpartition("/")
        short = (
            parent
            if parent and (last in ATTENTION and families[parent].issuperset(ATTENTION))
            else scope
        )
        last = short.rpartition("/")[2]
        if _CELL.match(last) and "/" in short:
            short = short.rpartition("/")[0]
        layer = layers.get(short)
        if layer is None:
            layer = layers[short] = Layer(
                short, short, "", "", None, {"class_name": "", "config": {}}, store=short
            )
        rest = parameter.name[len(short) :].lstrip("/") or "value"
        parameter.layer, parameter.path = layer, f"{short}/{rest}"
    _make_unique(parameters)
    return list(layers.values())


def _scope(name: str) -> str:
    scope, slash, _ = name.rpartition("/")
    return scope if slash else name


def _make_unique(parameters: list[Parameter]) -> None:
    taken: set[str] = set()
    for parameter in parameters:
        path, number = parameter.path, 1
        while parameter.path in taken:
            parameter.path = f"{path}_{number}"
            number += 1
        taken.add(parameter.path)
