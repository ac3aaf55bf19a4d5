"""The original and what is left of it, side by side: one kernel after the other is refitted.

Each kernel is given, for the inputs that it has in the pruned model, the outputs that it had in the
original. What comes behind it then sees what it saw before, as nearly as the units that are left allow.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from typing import Any, Literal

import numpy as np
from msgspec import Struct

from kprune.repair import recurrent
from kprune.repair.following import Behind, behind
from kprune.repair.kernels import pieces
from kprune.repair.moments import Fit, sums_for
from kprune.repair.pairs import Pair
from kprune.repair.recurrent import is_recurrent
from kprune.repair.streams.observing import Captured, observed
from kprune.repair.streams.room import Room
from kprune.repair.streams.row_stream import ROWS, Progress
from kprune.repair.streams.steps import Key, Program, Step, layers_in
from kprune.repair.streams.values import Values, samples_at_once

Way = Literal["lstsq", "bias", "bn"]


class Refitted(Struct, frozen=True):
    """What became of one kernel: the squared error of its outputs, relative to their variance."""

    name: str
    before: float
    after: float


class Refit:
    """Refits the kernels of a pruned model, in place.

    Args:
        original, pruned: the calls of both models.
        pairs: by the identity of the original's layer.
        inputs: arrays in the order of the models' inputs, samples first.
        room: where tensors are kept.
        way: `lstsq` fits kernels and biases; `bias` biases alone; `bn` measures the statistics of
            BatchNormalization anew.
        ridge: how strongly weights are held where they are.
        progress: called with (calls made, calls in all).
    Attributes:
        refitted: the kernels, in the order in which they were fitted.
    """

    def __init__(
        self,
        original: Program,
        pruned: Program,
        pairs: Mapping[int, Pair],
        inputs: Sequence[np.ndarray],
        room: Room,
        *,
        way: Way = "lstsq",
        ridge: float,
        progress: Progress | None = None,
    ) -> None:
        self.original, self.pruned, self.pairs = original, pruned, pairs
        self.way, self.ridge, self.progress = way, ridge, progress
        size = samples_at_once(original, len(inputs[0]))
        self.before = Values(original, inputs, size, room)
        self.after = Values(pruned, inputs, size, room)
        self.samples = len(inputs[0])
        self.readers, self.old_readers = pruned.readers(), original.readers()
        self.of_key = {step.key: step for step in original.steps}
        self.made: set[Key] = set()  # calls of the original
        self.fitted: set[int] = set()
        self.calls = self._calls()
        self.refitted: list[Refitted] = []

    def _calls(self) -> dict[int, list[Step]]:
        """The calls of the pruned model in which each kernel is used."""
        found: dict[int, list[Step]] = {}
        for step in self.pruned.steps:
            for pair in self._pairs_in(step):
                found.setdefault(id(pair), []).append(step)
        return found

    def _pairs_in(self, step: Step) -> list[Pair]:
        old = self.of_key.get(step.key)
        layers = [] if old is None else layers_in(old)
        return [self.pairs[id(layer)] for layer in layers if id(layer) in self.pairs]

    def run(self) -> None:
        """Make all calls of the pruned model, and refit every kernel before its own."""
        waiting = list(self.pruned.steps)
        while waiting:
            step = self._next(waiting)
            waiting.remove(step)
            self._advance(step)
            if self.progress is not None:
                count = len(self.pruned.steps)
                self.progress(count - len(waiting), count)

    def _next(self, waiting: Sequence[Step]) -> Step:
        """The first call that can be made, and whose kernels have all that they are used on."""
        ready = [step for step in waiting if self.after.holds(step.reads)]
        for step in ready:
            shared = [pair for pair in self._pairs_in(step) if id(pair) not in self.fitted]
            calls = [call for pair in shared for call in self.calls[id(pair)]]
            if all(self.after.holds(call.reads) for call in calls):
                return step
        return ready[0]

    def _advance(self, step: Step) -> None:
        old = self.of_key.get(step.key)
        if old is not None:
            self._reach(old)
            if self.way == "bn":
                self._measure(step)
            else:
                for pair in self._pairs_in(step):
                    if id(pair) not in self.fitted:
                        self.fitted.add(id(pair))
                        self._refit(pair)
            self._make(old)
        self.after.run(step)

    def _reach(self, old: Step) -> None:
        """Make the calls of the original that one depends on."""
        for step in self.original.steps:
            if self.before.holds(old.reads) or step is old:
                return
            if step.key not in self.made and self.before.holds(step.reads):
                self._make(step)

    def _make(self, old: Step) -> None:
        if old.key not in self.made:
            self.made.add(old.key)
            self.before.run(old)

    def _refit(self, pair: Pair) -> None:
        calls = [(self.of_key[step.key], step) for step in self.calls[id(pair)]]
        for old, _ in calls:
            self._reach(old)
        calls = [(old, step) for old, step in calls if self.before.holds(old.reads)]
        if is_recurrent(pair.consumer.layer):
            self._refit_recurrent(pair, calls)
            return
        fit, follows = self._fit(pair, calls)
        if fit is None:
            return
        pair.kernel.assign(pair.layout.array(fit.matrix, pair.kernel.shape))
        bias = getattr(pair.left, "bias", None)
        if bias is not None:
            bias.assign(fit.shift.reshape(bias.shape))
        elif follows is not None:
            mean = follows.moving_mean
            mean.assign(np.asarray(mean) - fit.shift.reshape(mean.shape))
        self.refitted.append(Refitted(pair.consumer.name, fit.before, fit.after))

    def _fit(self, pair: Pair, calls: Sequence[tuple[Step, Step]]) -> tuple[Fit | None, Any]:
        """The weights of one kernel; and the BatchNormalization that takes a constant up, if one must."""
        kind, matrix = pair.consumer.kind, pair.layout.matrix(np.asarray(pair.kernel, np.float64))
        assert kind is not None
        bias, taking = getattr(pair.left, "bias", None), None
        shift = np.zeros((matrix.shape[0], matrix.shape[2]))
        if bias is not None:
            shift = np.asarray(bias, np.float64).reshape(shift.shape)
        elif len(calls) == 1:
            taking = behind(self.pruned, self.readers, calls[0][1].writes[0]).first
        sums = None
        for old, step in calls:
            for n in range(len(self.after.chunks)):
                for x, z in self._rows(pair, old, step, n):
                    if sums is None:
                        whole = x.shape[1] * self.samples * len(calls)
                        samples = self.after.chunks[0].stop
                        sums = sums_for(matrix.shape, whole // samples)
                    sums.add(x, z)
        if sums is None:
            return None, None
        ridge = self.ridge if self.way == "lstsq" else np.inf
        free = bias is not None or taking is not None
        return sums.fit(matrix, shift, ridge=ridge, free=free), taking

    def _rows(
        self, pair: Pair, old: Step, step: Step, n: int
    ) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Rows and targets of one chunk of one call, some at a time."""
        kind, layer = pair.consumer.kind, pair.left
        assert kind is not None
        for given, wanted, alone in self._wanted(pair, old, n):
            z = pair.columns(kind.columns(pair.consumer.layer, wanted))
            own = self._given(pair, step, n) if self.after.holds(step.reads) else None
            if alone:
                z = z + self._lacking(pair, old, step, n)
            x = given if own is None else own
            places = z.shape[1] // len(x)
            for part in pieces(kind, layer, x, ROWS):
                # A call that waits for another one of this kernel is taken as the original makes it.
                whole = pair.consumer.layer if own is None else layer
                rows = kind.rows(whole, x[part])
                rows = pair.rows(rows) if own is None else rows
                start = part.start * places
                yield rows, z[:, start : start + rows.shape[1]]

    def _wanted(
        self, pair: Pair, old: Step, n: int
    ) -> Iterator[tuple[np.ndarray, np.ndarray, bool]]:
        """What the original's kernel is given and makes of it, before its activation, in one chunk.

        Gives as well whether that is what the call gives.
        """
        with observed(pair.consumer.layer) as seen:
            outputs = old.call(self.before.arguments(old, n))
        for x, linear, made in seen[:1]:
            alone = made is linear and made is outputs[0]
            yield np.asarray(x, np.float32), np.asarray(linear, np.float32), alone

    def _given(self, pair: Pair, step: Step, n: int) -> np.ndarray:
        """What the pruned model's layer is given in one chunk."""
        arguments = self.after.arguments(step, n)
        if step.operation is pair.left and len(arguments) == 1:
            return np.asarray(arguments[0], np.float32)
        with observed(pair.left, stop=True) as seen, suppress(Captured):
            step.call(arguments)
        return np.asarray(seen[0][0], np.float32)

    def _lacking(self, pair: Pair, old: Step, step: Step, n: int) -> np.ndarray:
        """What the other branches of a sum behind a kernel lack, in terms of its own outputs: (G, R, M)."""
        nothing = np.zeros((1, 1, 1), np.float32)
        now = behind(self.pruned, self.readers, step.writes[0])
        was = behind(self.original, self.old_readers, old.writes[0])
        if len(now.others) != len(was.others) or not now.others:
            return nothing
        if not (self.after.holds(now.others) and self.before.holds(was.others)):
            return nothing  # they come later, and are corrected themselves
        assert pair.consumer.kind is not None
        columns, total = pair.consumer.kind.columns, nothing
        for one, other in zip(was.others, now.others, strict=True):
            before = columns(pair.consumer.layer, np.asarray(self.before.get(one, n), np.float32))
            after = columns(pair.left, np.asarray(self.after.get(other, n), np.float32))
            total = total + pair.columns(before) - after
        factor = _undone(now)
        if factor.size > 1:
            factor = factor.reshape(len(total), 1, -1)
        return np.asarray(total * factor, np.float32)

    def _refit_recurrent(self, pair: Pair, calls: Sequence[tuple[Step, Step]]) -> None:
        layer, left = pair.consumer.layer, pair.left
        calls = [(old, step) for old, step in calls if self.after.holds(step.reads)]

        def chunks() -> Iterator[tuple[recurrent.Sequence, recurrent.Sequence]]:
            for old, step in calls:
                for n in range(len(self.after.chunks)):
                    with recurrent.observed_states(layer) as was, suppress(Captured):
                        old.call(self.before.arguments(old, n))
                    with recurrent.observed_states(left) as now, suppress(Captured):
                        step.call(self.after.arguments(step, n))
                    yield was[0], now[0]

        kept = ~pair.columns_gone[0]
        before, after = recurrent.refit(
            layer, left, kept, kept[: int(layer.cell.units)], chunks,
            ridge=self.ridge if self.way == "lstsq" else np.inf,
        )  # fmt: skip
        self.refitted.append(Refitted(pair.consumer.name, before, after))

    def _measure(self, step: Step) -> None:
        """Have a BatchNormalization expect what it is now given."""
        layer = step.operation
        if type(layer).__name__ != "BatchNormalization":
            return
        total, squares, count = 0.0, 0.0, 0
        for n in range(len(self.after.chunks)):
            x = np.asarray(self.after.arguments(step, n)[0], np.float64)
            x = np.moveaxis(x, layer.axis, -1).reshape(-1, x.shape[layer.axis])
            total, squares, count = total + x.sum(0), squares + (x**2).sum(0), count + len(x)
        mean = np.asarray(total / count)
        layer.moving_mean.assign(mean)
        layer.moving_variance.assign(np.maximum(squares / count - mean**2, 0.0))


def _undone(follows: Behind) -> np.ndarray:
    """What a change behind normalizations is multiplied by to be one in front of them.

    Returns: float64 (channels,) or (1,); 0 for channels of which they let little through.
    """
    factor = np.ones(1, np.float64)
    for layer in follows.normalizations:
        variance = np.asarray(layer.moving_variance, np.float64) + layer.epsilon
        slope = (np.asarray(layer.gamma, np.float64) if layer.scale else 1.0) / np.sqrt(variance)
        strong = np.abs(slope) > 1e-3 * np.abs(slope).max()
        factor = factor * np.where(strong, 1 / np.where(strong, slope, 1.0), 0.0)
    return factor
