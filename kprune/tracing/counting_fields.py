"""Numbers in the config of a traced layer that count units, found by building it with one less.

Its code is run with a smaller number, and the weights are compared. A number counts units if every
size that becomes smaller with it equals this number, and the same units stand along all these axes.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from kprune.graph.model import leaves, map_leaves
from kprune.labels.labels import Axis, Labels
from kprune.labels.map import LayerRecord, Weight
from kprune.tracing.code_graph import CodeTracer, Held, Tensor, Untraceable
from kprune.tracing.layer_call import LayerCall
from kprune.types import KeyPath

_OTHER = ("name", "dtype", "trainable")  # entries that every layer has


@dataclass
class Fields:
    """One traced layer, at its first call.

    Attributes:
        described: the arguments of the call, with a `Tensor` in place of each tensor.
        made: paths of weights whose last axis is that of what they make.
    """

    call: LayerCall
    record: LayerRecord
    code_tracer: CodeTracer
    described: Any
    made: set[str]

    def find(self, weights: list[Weight], rows: np.ndarray) -> None:
        """Enter the numbers that are found.

        Args:
            weights: of the layer, in Keras's order, those of the layers inside it among them.
            rows: labels of the rows of embeddings inside it, which are no units.
        """
        numbers = dict(_numbers(self.call.config))
        entering = np.concatenate([np.zeros(0, np.int64), *(x.all_ids() for x in self.call.xs)])
        for path, size in numbers.items():
            smaller = self._built({path: size - 1}, self.described)
            ids = None if smaller is None else _following(weights, smaller, size)
            if ids is not None and not np.isin(ids, [*entering, *rows]).any():
                self._own(path, ids)
        for ids in self._entering_axes():
            same = [path for path, size in numbers.items() if size == len(ids)]
            if same:
                self._of_input(weights, ids, same)

    # -- units of its own -----------------------------------------------------------------------

    def _own(self, path: KeyPath, ids: np.ndarray) -> None:
        name = ".".join(map(str, path))
        self.call.adopt("units" if name in ("units", "filters") else name, ids)
        self.call.size(path, ids)
        for weight in self.record.weights.values():
            last = weight.axes[-1] if weight.axes else Axis(None)
            made = len(weight.axes) == 1 or weight.path in self.made
            if made and np.array_equal(last.ids, ids):
                weight.out = len(weight.axes) - 1

    # -- units that come in ---------------------------------------------------------------------

    def _entering_axes(self) -> Iterator[np.ndarray]:
        """The units along each axis of what comes in, each once."""
        seen: set[bytes] = set()
        for labels in self._labels():
            for axis in range(1, labels.rank):
                ids = labels.axis(axis).ids
                if len(ids) > 1 and ids.all() and ids.tobytes() not in seen:
                    seen.add(ids.tobytes())
                    yield ids

    def _labels(self) -> list[Labels]:
        found = leaves([self.call.args, self.call.kwargs])
        return [leaf for leaf in found if isinstance(leaf, Labels)]

    def _of_input(self, weights: list[Weight], ids: np.ndarray, same: Sequence[KeyPath]) -> None:
        """Find which numbers have to go down with the units that come in, if any.

        Args:
            same: the numbers that are as many as the units.
        """
        fewer = self._fewer(ids)
        choices = [(), *((path,) for path in same), *([tuple(same)] if len(same) > 1 else [])]
        for paths in choices:
            smaller = self._built(dict.fromkeys(paths, len(ids) - 1), fewer)
            if smaller is not None and _shrinks(weights, smaller, ids):
                for path in paths:
                    self.call.size(path, ids)
                return

    def _fewer(self, ids: np.ndarray) -> Any:
        """The arguments of the call with one less of these units."""
        labels = iter(self._labels())

        def fewer(leaf: Any) -> Any:
            if not isinstance(leaf, Tensor):
                return leaf
            here = next(labels)
            shape = [
                size - 1 if size is not None and np.array_equal(here.axis(axis).ids, ids) else size
                for axis, size in enumerate(leaf.shape)
            ]
            return Tensor(tuple(shape), leaf.dtype)

        return map_leaves(fewer, self.described)

    def _built(self, changed: dict[KeyPath, int], described: Any) -> list[Held] | None:
        """The weights that the layer has with some other numbers; None if it does not work with them."""
        layer = self.call.layer
        config = copy.deepcopy(layer.config)
        for path, number in changed.items():
            holder: Any = config
            for part in path[:-1]:
                holder = holder[part]
            holder[path[-1]] = number
        spec = {key: value for key, value in layer.spec.items() if key != "build_config"}
        try:
            traces = self.code_tracer.trace({**spec, "config": config}, described)
        except Untraceable:
            return None
        return list(traces[0].whole.all_weights())


def _numbers(config: dict[str, Any]) -> Iterator[tuple[KeyPath, int]]:
    """Every whole number in a config that may count units, and where it stands."""
    for name, value in config.items():
        if name in _OTHER:
            continue
        if type(value) is int and value > 1:
            yield (name,), value
        elif isinstance(value, list):
            for index, item in enumerate(value):
                if type(item) is int and item > 1:
                    yield (name, index), item


def _following(weights: list[Weight], smaller: list[Held], size: int) -> np.ndarray | None:
    """The units along the axes that became one smaller; None if these are not one set of units."""
    if len(weights) != len(smaller):
        return None
    ids: np.ndarray | None = None
    for weight, held in zip(weights, smaller, strict=True):
        if len(weight.axes) != len(held.shape):
            return None
        for axis, after in zip(weight.axes, held.shape, strict=True):
            if axis.size == after:
                continue
            if (axis.size, after) != (size, size - 1) or not axis.ids.all():
                return None
            if ids is not None and not np.array_equal(ids, axis.ids):
                return None
            ids = axis.ids
    return ids


def _shrinks(weights: list[Weight], smaller: list[Held], ids: np.ndarray) -> bool:
    """Whether just those axes became one smaller along which these units stand."""
    if len(weights) != len(smaller):
        return False
    for weight, held in zip(weights, smaller, strict=True):
        if len(weight.axes) != len(held.shape):
            return False
        for axis, after in zip(weight.axes, held.shape, strict=True):
            gone = 1 if np.array_equal(axis.ids, ids) else 0
            if axis.size is None or axis.size - gone != after:
                return False
    return True
