"""Which units are constant, pushed through a model like labels.

A unit whose incoming weights are 0 gives act(bias) whatever the input, a BatchNormalization behind
it makes another constant of that, and so on through everything that works channel by channel. What
is known of a tensor is kept by label (`ConstantUnits`), so layers that only move data hand it on as it is.
Where a layer sums over units, the walk notes a `SummingKernel`: what leaves nothing behind when it goes.

A layer of which nothing is said in `constant_rules` is no obstacle to units that give 0, where its
labels say that 0 stays 0. Units that give anything else cannot go where they reach it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
from msgspec import Struct, field

from kprune.analysis.analysis import Analysis
from kprune.graph.model import Call, Constant, Layer, Model, TensorRef, leaves, map_leaves
from kprune.graph.parse import INPUT
from kprune.labels.labels import Axis, Labels
from kprune.labels.map import LayerRecord, Weight
from kprune.sets import distinct, without
from kprune.surgery.constants.constant_units import NOTHING, ConstantUnits
from kprune.surgery.constants.summing_kernels import (
    BiasTarget,
    Kernel,
    Reader,
    Scan,
    SummingKernel,
    scan,
)


class Tensor(Struct, frozen=True, eq=False):
    """A tensor that goes into a layer: its labels, and what is known of its values."""

    labels: Labels
    known: ConstantUnits


class LayerVisit(Struct, eq=False):
    """One call of one layer.

    Attributes:
        record: all that tracing found of the layer.
        xs: the tensors that go in, in the order of the rule's `call.xs`.
        outputs: the labels of what comes out.
        args, kwargs: the call's arguments, with `Tensor` in place of tensors.
        model, call: where it stands in the graph; None for a layer inside a layer.
    """

    record: LayerRecord
    xs: list[Tensor]
    outputs: list[Labels]
    args: list[Any] = field(default_factory=list)
    kwargs: dict[str, Any] = field(default_factory=dict)
    model: Model | None = None
    call: Call | None = None

    @property
    def layer(self) -> Layer:
        return self.record.layer

    @property
    def config(self) -> dict[str, Any]:
        return self.record.layer.config

    @property
    def x(self) -> Tensor:
        return self.xs[0]

    def weight(self, name: str) -> Weight | None:
        return self.record.weights.get(name)


Rule = Callable[["Constants", LayerVisit], list[ConstantUnits]]

LAYERS: dict[str, Rule] = {}
OPERATIONS: dict[str, Rule] = {}


def rule(*kinds: str, table: dict[str, Rule] = LAYERS) -> Callable[[Rule], Rule]:
    """Decorator: the function answers for these classes."""

    def register(function: Rule) -> Rule:
        for kind in kinds:
            table[kind] = function
        return function

    return register


class Constants:
    """A walk over a model.

    Attributes:
        summing_kernels: by the path of a kernel, where units are summed over.
        held: by label, why a unit cannot go without a trace, wherever it is constant or not.
        lost: by label, where a constant ceased to be one.
        made: float64 (labels,): what a unit always gives where it is made; NaN for all others.
    Raises: CannotPruneError for a SavedModel, whose graph is not one of Keras's layers.
    """

    def __init__(self, analysis: Analysis, read: Reader) -> None:
        analysis.require("constants")
        self.analysis, self.read = analysis, read
        self.summing_kernels: dict[str, Any] = {}
        self.held: dict[int, str] = {}
        self.lost: dict[int, str] = {}
        self.made = np.full(analysis.map.count, np.nan)
        self._rules, self._operations = LAYERS, OPERATIONS
        self._visited: dict[Layer, int] = {}
        self._consumers: dict[int, dict[tuple[str, int, int], list[Call]]] = {}
        self.run(analysis.model, None)

    # -- the walk -------------------------------------------------------------------------------

    def run(self, model: Model, inputs: list[ConstantUnits] | None) -> list[ConstantUnits]:
        """Walk one model, as the labels' tracer did.

        Args:
            inputs: what is known of the tensors it is called on; None for the outermost.
        Returns: what is known of its outputs, flattened.
        """
        found: dict[tuple[str, int, int], ConstantUnits] = {}
        for index, ref in enumerate(leaves(model.inputs)):
            if ref is not None:
                found[ref.key] = (
                    NOTHING if inputs is None or index >= len(inputs) else inputs[index]
                )
        for call in model.calls:
            key = (call.layer.name, call.node, 0)
            if key in found or (call.layer.kind == INPUT and not call.inputs):
                continue
            outputs = self._call_in(model, call, found)
            for index, known in enumerate(outputs):
                found[(call.layer.name, call.node, index)] = known
        return [
            found.get(ref.key, NOTHING)
            for ref in leaves(model.outputs)
            if isinstance(ref, TensorRef)
        ]

    def _call_in(
        self, model: Model, call: Call, found: dict[tuple[str, int, int], ConstantUnits]
    ) -> list[ConstantUnits]:
        def known(leaf: Any) -> Any:
            return found.get(leaf.key, NOTHING) if isinstance(leaf, TensorRef) else leaf

        args = [map_leaves(known, arg) for arg in call.args]
        kwargs = {name: map_leaves(known, value) for name, value in call.kwargs.items()}
        return self.visit(self.analysis.map.record(call.layer), args, kwargs, model, call)

    def inside(self, at: LayerVisit, name: str, known: list[ConstantUnits]) -> list[ConstantUnits]:
        """Walk a layer that a layer holds."""
        return self.visit(at.record.children[name], list(known), {}, None, None)

    def visit(
        self,
        record: LayerRecord,
        args: list[Any],
        kwargs: dict[str, Any],
        model: Model | None,
        call: Call | None,
    ) -> list[ConstantUnits]:
        number = self._visited.get(record.layer, 0)
        self._visited[record.layer] = number + 1
        seen = record.visits[number]
        given = {name: value for name, value in kwargs.items() if name != "mask"}
        flat = [leaf for leaf in leaves([args, given]) if isinstance(leaf, ConstantUnits)]
        if len(flat) < len(seen.inputs):
            # An array that a layer was called on was seen as a tensor, of which nothing is known.
            args, given = (map_leaves(_of_array, held) for held in (args, given))
            flat = [leaf for leaf in leaves([args, given]) if isinstance(leaf, ConstantUnits)]
        if seen.of_model and record.layer.model is not None:
            return self.run(record.layer.model, flat)
        tensors = iter(
            [Tensor(labels, known) for labels, known in zip(seen.inputs, flat, strict=True)]
        )

        def place(leaf: Any) -> Any:
            return next(tensors) if isinstance(leaf, ConstantUnits) else leaf

        args = [map_leaves(place, arg) for arg in args]
        given = {name: map_leaves(place, given[name]) for name in sorted(given)}
        xs = [leaf for leaf in leaves([args, given]) if isinstance(leaf, Tensor)]
        at = LayerVisit(record, xs, seen.outputs, args, given, model, call)
        # Called as if it were trained, dropout drops and statistics are the batch's own.
        training = given.get("training") is True
        outputs = self.otherwise(at) if training else self._rule(record)(self, at)
        return [*outputs, *[NOTHING] * (len(seen.outputs) - len(outputs))]

    def _rule(self, record: LayerRecord) -> Rule:
        layer = record.layer
        if record.values and not record.opaque and not record.weights and not record.children:
            return Constants.pass_through
        table = self._operations if layer.is_operation else self._rules
        known = layer.is_builtin and not record.opaque and not self.analysis.adapted(record)
        rule = table.get(layer.kind) if known else None
        return rule or Constants.otherwise

    def pass_through(self, at: LayerVisit) -> list[ConstantUnits]:
        """A layer that gives what it gets, moved perhaps."""
        return [self.even(at.x)] if len(at.xs) == 1 else self.otherwise(at)

    def otherwise(self, at: LayerVisit) -> list[ConstantUnits]:
        """Any other layer: 0 passes where 0 stays 0 by the labels; no other unit may go."""
        name = (
            f"'{at.layer.path}', a {at.layer.kind}, through which kprune does not follow constants"
        )
        for x in at.xs:
            ids = x.labels.all_ids()
            self.hold(ids[x.known.at(ids) != 0], f"reach {name}")
        for inner in at.record.whole():
            for axis in inner.axes.values():
                self.hold(axis.ids, f"are made by {name}")
        if at.record.weights or at.record.children or len(at.xs) != 1:
            return []
        zero = at.x.known.only(at.x.known.values == 0)
        return [zero if labels.keeps_zero else NOTHING for labels in at.outputs]

    # -- what rules say -------------------------------------------------------------------------

    def hold(self, ids: np.ndarray, why: str) -> None:
        """Say that units cannot go without a trace."""
        for label in distinct(ids[ids != 0]):
            self.held.setdefault(int(label), why)

    def lose(self, known: ConstantUnits, kept: ConstantUnits, why: str) -> None:
        """Say why units that were constant are not any more."""
        for label in without(known.ids, kept.ids):
            self.lost.setdefault(int(label), why)

    def even(self, x: Tensor) -> ConstantUnits:
        """What is known of a tensor's units, tied ones together.

        A layer that folds one axis into another (DepthToSpace, Unstack) gives units that go
        together the label of the first: each has to have its value.
        """
        of, ids = self.analysis.groups.of, distinct(x.labels.all_ids())
        if not len(x.known.ids):
            return NOTHING
        groups = ConstantUnits.of(of[ids], x.known.at(ids))
        return x.known.only(~np.isnan(groups.at(of[x.known.ids])))

    def make(self, axes: Iterable[Axis], known: ConstantUnits) -> None:
        """Note what units give where they are made."""
        for axis in axes:
            ids = axis.all_ids()
            self.made[ids] = known.at(ids)
        self.made[0] = np.nan

    def vector(self, at: LayerVisit, name: str) -> np.ndarray | None:
        """A weight of the layer, as floats; None if it has no such weight."""
        weight = at.weight(name)
        return None if weight is None else self.read(weight.path).astype(np.float64)

    def site(
        self,
        at: LayerVisit,
        kernel: Kernel,
        values: np.ndarray,
        room: BiasTarget,
        *,
        uneven: bool = False,
    ) -> Scan:
        """Note that a layer sums over units.

        Args:
            values: float64 (rows,), what each input always gives; NaN where that is not known.
            uneven: whether zeros stand beside a constant, so that it is not constant for the kernel.
        Returns: what the kernel tells, given these values.
        """
        padded = np.zeros(len(values), bool)
        if uneven:
            padded = ~np.isnan(values) & (values != 0)
            values = np.where(padded, np.nan, values)
        found = scan(kernel, self.read, values)
        axes = tuple(kernel.weight.axes[axis] for axis in kernel.inputs)
        made = tuple(kernel.weight.axes[axis] for axis in kernel.outputs)
        before = self.summing_kernels.get(kernel.weight.path)
        if before is not None:
            # A shared layer has one bias for all its calls.
            values = np.where(before.values == values, values, np.nan)
            padded |= before.padded
        self.summing_kernels[kernel.weight.path] = SummingKernel(
            at.layer.path, kernel, axes, values, padded, made, found.uses, room
        )
        return found

    def consumers(self, model: Model, key: tuple[str, int, int]) -> list[Call] | None:
        """The calls that read a tensor; None if it is an output of its model as well."""
        if id(model) not in self._consumers:
            readers: dict[tuple[str, int, int], list[Call]] = {}
            for call in model.calls:
                for ref in call.inputs:
                    readers.setdefault(ref.key, []).append(call)
            self._consumers[id(model)] = readers
        outputs = {ref.key for ref in leaves(model.outputs) if isinstance(ref, TensorRef)}
        return None if key in outputs else self._consumers[id(model)].get(key, [])


def _of_array(leaf: Any) -> Any:
    return NOTHING if isinstance(leaf, Constant) else leaf


def number(value: Any) -> np.ndarray | None:
    """A number or an array in a config, as floats; None if it is neither."""
    if isinstance(value, Constant):
        value = value.value
    if isinstance(value, dict):
        value = (value.get("config") or {}).get("value")
    if isinstance(value, bool) or value is None:
        return None
    try:
        return np.asarray(value, np.float64)
    except (TypeError, ValueError):
        return None


def border(path: str) -> str:
    """Why a constant is not one for a layer that puts zeros around what it gets."""
    return f"their constant is not one at the border of '{path}', which puts zeros there"
