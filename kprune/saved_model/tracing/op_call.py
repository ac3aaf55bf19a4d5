"""One operation, as a rule sees it: what comes in, and how to say what it does with it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import numpy as np

from kprune.labels.labels import Axis, Labels, Shape
from kprune.labels.map import Blocks, LabelMap, LayerRecord
from kprune.saved_model.tracing.graph import Graph, Ref, is_restored, scalar
from kprune.saved_model.tracing.parameters import Owners, Parameter
from kprune.saved_model.tracing.traced import Demand, Traced
from kprune.saved_model.tracing.values import Number, Value
from kprune.tracing.rule_call import CannotTell, Count, RuleCall


class GraphTracing(Protocol):
    """What pushes labels through TensorFlow's graphs, as a call sees it: see `GraphTracer`."""

    map: LabelMap
    traced: Traced
    owners: Owners
    graphs: dict[str, Graph]
    variables_by_node: Mapping[str, Parameter]
    constants: Mapping[tuple[str, str], Parameter]

    def input(self, call: OpCall, shape: Shape | None) -> Labels: ...

    def run(self, name: str, inputs: Sequence[Value]) -> list[Value]: ...


class OpCall(RuleCall):
    """What a rule for a TensorFlow operation is given.

    Attributes:
        node: the NodeDef.
        ins: the values that it reads.
        place: (graph, node).
    """

    def __init__(
        self,
        tracer: GraphTracing,
        record: LayerRecord,
        graph: str,
        node: Any,
        ins: Sequence[Value],
        recorded: dict[int, tuple[int | None, ...] | None],
    ) -> None:
        super().__init__(tracer.map, record, [value.labels for value in ins], recorded)
        self.tracer, self.traced = tracer, tracer.traced
        self.node, self.ins, self.place = node, list(ins), (graph, node.name)

    @property
    def op(self) -> str:
        return str(self.node.op)

    def attr(self, name: str, default: Any = None) -> Any:
        """A plain attribute: number, bool, text or list of numbers."""
        if name not in self.node.attr:
            return default
        held = self.node.attr[name]
        kind = held.WhichOneof("value")
        if kind == "s":
            return held.s.decode("utf-8", "replace")
        if kind == "list":
            return list(held.list.i) or list(held.list.f) or list(held.list.b)
        return getattr(held, kind) if kind in ("i", "f", "b") else default

    def labels(self, index: int) -> Labels:
        """The labels of an input.

        Raises: CannotTell if there is no such input.
        """
        if index >= len(self.ins):
            raise CannotTell("lacks an input")
        return self.ins[index].labels

    # -- integers -------------------------------------------------------------------------------

    def numbers(self, index: int) -> Any:
        """What is known of an integer input: an object array of Number."""
        return self.ins[index].numbers if index < len(self.ins) else None

    def constant(self, index: int) -> np.ndarray:
        """An integer input that controls the operation: axes, a permutation.

        Raises: CannotTell if it is not known before the model runs.
        """
        numbers = self.numbers(index)
        if numbers is None or any(number.value is None for number in numbers.flat):
            raise CannotTell("is controlled by a tensor that is only known at run time")
        for number in numbers.flat:
            self.use_value(number)
        return np.array([number.value for number in numbers.flat], np.int64).reshape(numbers.shape)

    def axes(self, index: int, rank: int) -> list[int]:
        """An integer input that names axes of a tensor of this rank: from 0, in order."""
        return sorted({int(axis) % max(rank, 1) for axis in self.constant(index).ravel()})

    def use_value(self, number: Number) -> None:
        super().use_value(number)
        self.keep_value(number)

    def use_values(self, *inputs: int) -> None:
        """The same for every number of some inputs."""
        for index in inputs:
            if self.ins[index].numbers is not None:
                for number in self.ins[index].numbers.flat:
                    self.use_value(number)

    def hold_numbers(self) -> None:
        """Have every number that comes in stay what it is: it is not known that these are sizes."""
        self.use_values(*range(len(self.ins)))

    def keep_value(self, number: Number) -> None:
        """Say that a number is used as a value where it is written: no size may be made of it."""
        if number.at is not None:
            self.traced.valued.add(number.at)

    def _rewrite(self, number: Number, axis: Axis, count: Count) -> None:
        if axis.factors:
            self.traced.demands.append(Demand(number.at, axis, count))
        else:
            self.keep_value(number)

    def shaped_by(self, labels: Labels, numbers: np.ndarray | None) -> Labels:
        """Compare a result with the integer input that gave it its shape, as far as that is known."""
        if numbers is None:
            self.freeze(
                labels, f"are given a shape by {self.layer.path!r} that is known only at run time"
            )
            return labels
        return self.shaped(labels, numbers.ravel())

    def sized_by(self, index: int) -> Labels:
        """A tensor made from a shape that is an integer input: see `sized`."""
        numbers = self.numbers(index)
        return Labels(self.recorded.get(0)) if numbers is None else self.sized(numbers.ravel())

    def scalar(self, index: int) -> float | None:
        """The value of an input that is a number written in the graph; None for any other."""
        return scalar(*self._source(index))

    def is_restored(self, index: int) -> bool:
        """Whether an input is read from a checkpoint."""
        return is_restored(*self._source(index))

    def _source(self, index: int) -> tuple[Graph, Ref]:
        graph, name = self.place
        known = self.tracer.graphs[graph]
        return known, known.inputs[name][index]

    # -- weights --------------------------------------------------------------------------------

    def makes(self, labels: Labels, axes: Sequence[int], uses: float) -> None:
        """Say that along these axes of a weight the operation makes units, if it is a weight.

        Args:
            uses: how often each element is used per sample.
        """
        ids = labels.all_ids()
        if not ids.size:
            return
        owners = self.tracer.owners
        owners.note_kind(int(ids[0]), self.op)
        for axis in axes:
            for label in labels.axis(axis).all_ids()[:1]:
                owners.note_units(int(label))
        owners.note_use(int(ids[0]), uses, 2.0)

    def consumes(self, index: int, labels: Labels, axis: int, *, nonzero: bool) -> None:
        """Say that units are multiplied with an input along one of its axes, and summed.

        A weight's rows can be looked at: where they are 0, nothing reads the unit. What is computed
        of the units of another layer carries their labels, and no such rows.

        Args:
            index: which input; `labels` are its.
            nonzero: whether a masked unit might give something else than 0 there.
        """
        ids = labels.axis(axis).all_ids()
        if not ids.size:
            return
        found = self.tracer.owners.find(int(ids[0])) if self.ins[index].fixed else None
        if found is not None:
            self.traced.consumed.add(found)
        else:
            self.traced.summed.append(ids)
        if nonzero:
            self.traced.nonzero.append(ids)

    def grouped(self, x: Labels, axis: int, kernel: Labels) -> bool:
        """Say that run g of the channels of `x` feeds run g of the kernel's last axis alone.

        The kernel's second-to-last axis is as long as one run, and stands for other channels in each.

        Returns: whether that could be said; it takes a kernel that is a weight as it is.
        """
        rows, outputs, along = (
            kernel.axis(kernel.rank - 2),
            kernel.axis(kernel.rank - 1),
            x.axis(axis),
        )
        held = (
            self.tracer.owners.find(int(outputs.ids[0]))
            if outputs.plain and outputs.factors
            else None
        )
        if held is None or along.size is None or not rows.size or along.size % rows.size:
            return False
        parameter, groups = held[0], along.size // rows.size
        own = [kernel.axis(number).all_ids() for number in (kernel.rank - 2, kernel.rank - 1)]
        issued = [np.zeros(0) if ids is None else ids for ids in parameter.ids[-2:]]
        if (
            not all(map(np.array_equal, own, issued))
            or not along.plain
            or x.without(axis).factors
            or len(issued[1]) % groups
        ):
            return False
        ids = along.ids if along.factors else np.zeros(along.size, np.int64)
        sides = [ids.reshape(groups, -1), issued[1].reshape(groups, -1)]
        if rows.size == 1 and along.factors:  # a filter cannot outlive its only input
            self.tie(np.repeat(ids, sides[1].shape[1]), sides[1].ravel())
        known = self.traced.grouped.get(parameter)
        if known is not None and not np.array_equal(known.sides[0], sides[0]):
            if known.sides[0].shape != sides[0].shape:
                return False
            self.tie(known.sides[0].ravel(), ids)
        assert parameter.layer is not None
        self.traced.grouped[parameter] = Blocks(parameter.layer, "groups", sides)
        self.traced.summed.append(ids)
        if not x.keeps_zero:
            self.traced.nonzero.append(ids)
        return True
