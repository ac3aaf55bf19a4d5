"""Whether Keras rebuilds a custom layer without some units as kprune expects.

The code of such a layer was traced as a graph, and labels pushed through it. For a choice of units
that graph is rewritten as any Functional model would be: this is what the smaller file needs. Then
the layer is traced again, from its config as it will stand in the smaller file, on inputs of the
smaller shapes: this is what Keras will make of it. The two have to be the same, operation by
operation and number by number, and so have the shapes of all weights.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from kprune.analysis.analysis import Analysis
from kprune.errors import CannotPruneError
from kprune.graph.model import leaves, map_leaves
from kprune.labels.closure import Closure, close
from kprune.labels.labels import Labels
from kprune.labels.map import LAYER, LabelMap, TracedCall, Weight
from kprune.labels.nearest import completed
from kprune.surgery.rewrite import Rewriter
from kprune.text import clean
from kprune.tracing.code_graph import CodeTracer, Tensor, Untraceable, canonical

# A rule would not help: Keras builds the layer from its code and config, whatever kprune is told.
OTHERS = (
    "choose other units; have the layer take its sizes from its input, and save the model again; or "
    "use 'kprune mask', which changes no shape"
)


@dataclass(frozen=True)
class Problem:
    """A layer that Keras would not make as it is needed; `why` goes on after its name and class."""

    call: TracedCall
    why: str

    @property
    def text(self) -> str:
        layer = self.call.record.layer
        kind = clean(layer.registered or layer.kind)
        return f"'{clean(layer.path)}' is a {kind} layer, {self.why}"


@dataclass
class RebuildChecker:
    """Holds choices of units against what Keras makes of the custom layers.

    Attributes:
        analysis: of a model in which layers were traced.
        code_tracer: what traced them.
    """

    analysis: Analysis
    code_tracer: CodeTracer
    _tried: dict[bytes, Problem | None] = field(default_factory=dict)

    def require(self, gone: np.ndarray) -> None:
        """Raises: CannotPruneError if some layer would not come out as it is needed.

        Args:
            gone: bool (labels,).
        """
        problem = self.problem(gone)
        if problem is not None:
            raise CannotPruneError(
                "these units cannot be removed together",
                where=clean(problem.call.record.layer.path),
                why=problem.text,
                do=OTHERS,
            )

    def problem(self, gone: np.ndarray) -> Problem | None:
        """What stands in the way of a choice; None if nothing does."""
        key = np.packbits(gone).tobytes()
        if key not in self._tried:
            rewriter = Rewriter(self.analysis.config, self.analysis.map, gone)
            rewriter.run()
            found = self._problems(self.analysis.map, rewriter, gone)
            self._tried[key] = next(found, None)
        return self._tried[key]

    def _problems(self, map_: LabelMap, rewriter: Rewriter, gone: np.ndarray) -> Iterator[Problem]:
        for call in map_.traced_calls:
            if not _touched(call, gone):
                continue
            inner = Rewriter(call.traced.config, call.map, gone)
            wanted = inner.run()
            why = self._differs(call, rewriter, wanted, gone)
            if why:
                yield Problem(call, why)
            yield from self._problems(call.map, inner, gone)

    def _differs(
        self, call: TracedCall, rewriter: Rewriter, wanted: dict[str, Any], gone: np.ndarray
    ) -> str:
        """How a layer that is traced again differs from what is wanted; "" if it does not."""

        shapes = iter(
            [
                tuple(rewriter.shape(labels, labels.shape))
                for labels in leaves(list(call.arguments))
                if isinstance(labels, Labels) and labels.shape is not None
            ]
        )
        arguments = map_leaves(
            lambda leaf: Tensor(next(shapes), leaf.dtype) if isinstance(leaf, Tensor) else leaf,
            call.described,
        )
        try:
            traces = self.code_tracer.trace(rewriter.new(call.record.layer.spec), arguments)
        except Untraceable as reason:
            failed = f"which does not take fewer units ({reason.error})"
            return failed if reason.error else str(reason)
        traced = next((d for d in traces if d.masked == call.traced.masked), None)
        if traced is None:
            return "which takes a mask of time steps at some sizes only"
        again = list(traced.whole.all_weights())
        for weight, held in zip(call.weights, again, strict=False):
            shape = _shape_left(weight, gone)
            if held.shape != shape:
                return (
                    f"which Keras builds with a {clean(weight.name)} of shape {held.shape} where "
                    f"{shape} would be needed, as its config or its code fixes that size"
                )
        if len(again) != len(call.weights):
            return f"which Keras builds with {len(again)} weights instead of {len(call.weights)}"
        if canonical(traced.config) != canonical(wanted):
            return "whose code computes with the number of units"
        return ""


def settle(analysis: Analysis, code_tracer: CodeTracer) -> RebuildChecker:
    """Freeze the units of which no choice comes out as it is needed.

    Every axis on which units stand as they enter such a layer, or that its weights have, is tried
    with some choices; where Keras does not make what is needed, none of its units may go. Choices
    that were not tried are held against Keras when they are carried out.
    """
    checker = RebuildChecker(analysis, code_tracer)
    groups = analysis.groups
    tried: set[bytes] = set()
    for call in [call for part in analysis.map.whole() for call in part.traced_calls]:
        for ids in _axes(call):
            units = np.unique(groups.of[ids[ids != 0]])
            if not units.size or units.tobytes() in tried:
                continue
            tried.add(units.tobytes())
            free = units[~groups.frozen(("input", "rule"))[units]]
            closures = (_closure(analysis, sample) for sample in _samples(free))
            problems = (
                checker.problem(closure.gone) for closure in closures if closure is not None
            )
            problem = next((found for found in problems if found is not None), None)
            if problem is not None:
                at = problem.call.record.layer.path
                analysis.map.freeze(units, problem.text, at, OTHERS, subject=LAYER)
    return checker


def _axes(call: TracedCall) -> Iterator[np.ndarray]:
    """The labels along each axis on which units enter a layer, or that it has itself."""
    for labels in (*leaves(list(call.arguments)), *call.record.held.values()):
        if isinstance(labels, Labels):
            for factor in labels.factors:
                yield factor.ravel()
    for axis in call.map.axes.values():
        yield axis.ids


def _samples(units: np.ndarray) -> Iterator[np.ndarray]:
    """Choices to try: one at either end, and a third of them."""
    if len(units) > 1:
        yield units[:1]
        yield units[-1:]
    if len(units) > 4:
        yield units[1::3]


def _closure(analysis: Analysis, ids: np.ndarray) -> Closure | None:
    """A choice that works and holds some labels; None if there is none, or if a user could not name it."""
    gone = analysis.groups.spread(ids)
    chosen = {
        address: np.flatnonzero(gone[axis.ids])
        for address, axis in analysis.map.axes.items()
        if gone[axis.ids].any()
    }
    return completed(close(analysis.groups, chosen), allow_output_change=True) if chosen else None


def _touched(call: TracedCall, gone: np.ndarray) -> bool:
    """Whether any label goes that stands in the layer."""
    tensors = any(gone[labels.all_ids()].any() for labels in call.map.tensors.values())
    return tensors or any(gone[axis.all_ids()].any() for w in call.weights for axis in w.axes)


def _shape_left(weight: Weight, gone: np.ndarray) -> tuple[int, ...]:
    return tuple((axis.size or 0) - int(axis.dead(gone).sum()) for axis in weight.axes)
