"""The original and what is left of it, side by side: one kernel after the other is refitted.

Each kernel is given, for the inputs that it has in the pruned model, the outputs that it had in the
original. What comes behind it then sees what it saw before, as nearly as the units that are left allow.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, suppress
from functools import partial
from typing import Any, Literal

import numpy as np
from msgspec import Struct

from kprune.refitting import recurrent
from kprune.refitting.attention import KeySums, key_layer, queries_for
from kprune.refitting.following import Branches, Following, measure
from kprune.refitting.kernels import constant_of, has_constant, pieces, put_constant
from kprune.refitting.moments import Fit, Means, Sums, bytes_for, sums_for
from kprune.refitting.outcomes import Left, Refitted, Why
from kprune.refitting.pairs import Pair
from kprune.refitting.recurrent import is_recurrent
from kprune.refitting.streams.observing import Captured, observed
from kprune.refitting.streams.room import Room
from kprune.refitting.streams.row_stream import ROWS
from kprune.refitting.streams.steps import Key, Place, Program, Step, layers_in
from kprune.refitting.streams.values import Values, samples_at_once
from kprune.running.noise import without_noise
from kprune.types import Progress

Way = Literal["lstsq", "bias", "bn"]
Call = tuple[Step, Step]
"""One call of a kernel's layer: the original's, and that of what is left."""


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
        pruned_inputs: those of the pruned model, where it takes others: inputs that lost features.
        left: layers that are no pairs, and why.
        progress: called with (calls made, calls in all).
    Attributes:
        refitted: the kernels, in the order in which they were fitted. One that is given what the
            original is given, and makes the same of it, is none of them.
        left: what is left as it was cut.
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
        pruned_inputs: Sequence[np.ndarray] | None = None,
        left: Sequence[Left] = (),
        progress: Progress | None = None,
    ) -> None:
        self.original, self.pruned, self.pairs, self.room = original, pruned, pairs, room
        self.way, self.ridge, self.progress = way, ridge, progress
        size = samples_at_once(original, inputs)
        self.before = Values(original, inputs, size, room)
        self.after = Values(pruned, pruned_inputs or inputs, size, room)
        self.samples = len(inputs[0])
        self.follows = Following(pruned)
        self.branches = Branches(Following(original), self.follows, self.before, self.after)
        self.of_key = _aligned(original, pruned)
        self.made: set[Key] = set()  # calls of the original
        # Tensors that are what others are in the original.
        self.same: dict[Place, Place] = {}
        if pruned_inputs is None:
            self.same.update(zip(pruned.inputs, original.inputs, strict=True))
        self.writer = {place: step for step in original.steps for place in step.writes}
        self.fitted: set[int] = set()
        self.known: dict[Key, list[Pair]] = {}
        self.keys: dict[int, tuple[KeySums, np.ndarray]] = {}
        self.calls = self._calls()
        self.refitted: list[Refitted] = []
        self.left = list(left)
        for calls in self.calls.values():
            for old, _ in calls:
                for place in old.reads:
                    self.before.keep(place)

    def _calls(self) -> dict[int, list[Call]]:
        """The calls in which each kernel is used."""
        found: dict[int, list[Call]] = {}
        for step in self.pruned.steps:
            for pair in self._pairs_in(step):
                found.setdefault(id(pair), []).append((self.of_key[step.key], step))
        return found

    def _pairs_in(self, step: Step) -> list[Pair]:
        if step.key not in self.known:
            old = self.of_key.get(step.key)
            layers = [] if old is None else layers_in(old)
            self.known[step.key] = [
                self.pairs[id(layer)] for layer in layers if id(layer) in self.pairs
            ]
        return self.known[step.key]

    def run(self) -> None:
        """Make all calls of the pruned model, and refit every kernel before its own.

        Where a layer draws random numbers, both models are given their means.
        """
        waiting = list(self.pruned.steps)
        with without_noise():
            while waiting:
                step = self._next(waiting)
                waiting.remove(step)
                self._advance(step)
                if self.progress is not None:
                    count = len(self.pruned.steps)
                    self.progress(count - len(waiting), count)
        for pair in self.pairs.values():
            if id(pair) not in self.fitted and self.way != "bn":
                self.left.append(Left(pair.consumer.name, "calls"))

    def _next(self, waiting: Sequence[Step]) -> Step:
        """The first call that can be made without a fit, else whose kernels have all that they are used on.

        What follows a kernel is then known when another branch of a sum is fitted.
        """
        ready = [step for step in waiting if self.after.holds(step.reads)]
        unfitted = {
            step.key: [pair for pair in self._pairs_in(step) if id(pair) not in self.fitted]
            for step in ready
        }
        for step in ready:
            if not unfitted[step.key] or self.way == "bn":
                return step
        for step in ready:
            calls = [call for pair in unfitted[step.key] for _, call in self.calls[id(pair)]]
            if all(self.after.holds(call.reads) for call in calls):
                return step
        return ready[0]

    def _advance(self, step: Step) -> None:
        old, pairs = self.of_key.get(step.key), self._pairs_in(step)
        if old is not None:
            self._reach(old)
            if self.way == "bn":
                self._measure(step)
            else:
                for pair in pairs:
                    self._refit_once(pair)
            self._make(old)
            self._compare(old, step)
            for place in old.reads * len(pairs):
                self.before.release(place)
        self.after.run(step)

    def _compare(self, old: Step, step: Step) -> None:
        """Note whether a call gives what the original gives."""
        if self._fed_alike(old, step) and _same_weights(old.operation, step.operation):
            self.same.update(zip(step.writes, old.writes, strict=True))

    def _fed_alike(self, old: Step, step: Step) -> bool:
        """Whether a call is given what the original is given."""
        return [self.same.get(place) for place in step.reads] == list(old.reads)

    def _reach(self, old: Step) -> None:
        """Make the calls of the original that one depends on."""
        wanted = [old]
        while wanted:
            missing = [
                self.writer[place]
                for place in wanted[-1].reads
                if not self.before.holds([place]) and place in self.writer
            ]
            missing = [step for step in missing if step.key not in self.made]
            wanted += missing
            if not missing and (step := wanted.pop()) is not old:
                self._make(step)

    def _make(self, old: Step) -> None:
        if old.key not in self.made:
            self.made.add(old.key)
            self.before.run(old)

    # -- one kernel --------------------------------------------------------------------------------

    def _refit_once(self, pair: Pair) -> None:
        if id(pair) in self.fitted:
            return
        self.fitted.add(id(pair))
        calls = self.calls[id(pair)]
        for old, _ in calls:
            self._reach(old)
        if self._exact(pair, calls):
            return
        if pair.scale != 1.0 and self.way == "lstsq":
            self._fit_keys(pair, calls)
        refit = self._refit_recurrent if is_recurrent(pair.consumer.layer) else self._refit_kernel
        why = refit(pair, calls)
        if why is not None:
            self.left.append(Left(pair.consumer.name, why))

    def _exact(self, pair: Pair, calls: Sequence[Call]) -> bool:
        """Whether a layer makes of the original's inputs what the original makes, and nothing else is amiss."""
        return (
            not pair.rows_gone.any()
            and all(self._fed_alike(old, step) for old, step in calls)
            and pair.unchanged()
            and all(
                self.same.get(other) == one
                for old, step in calls
                for one, other in self.branches.others(pair, old, step)
            )
        )

    def _fit_keys(self, pair: Pair, calls: Sequence[Call]) -> None:
        """Find out how the keys that are left express those that the queries of a kernel met."""
        keys = self.pairs.get(id(key_layer(pair.consumer.layer, layers_in(calls[0][0]))))
        if keys is None:
            return
        self._refit_once(keys)
        sums = KeySums(keys)
        for old, step in calls:
            for n in range(len(self.after.chunks) if self.after.holds(step.reads) else 0):
                with observed(keys.consumer.layer) as was:
                    old.call(self.before.arguments(old, n))
                with observed(keys.left) as now:
                    step.call(self.after.arguments(step, n))
                for (_, one, _), (_, other, _) in zip(was, now, strict=True):
                    sums.add(np.asarray(one, np.float32), np.asarray(other, np.float32))
        self.keys[id(pair)] = sums, sums.maps(self.ridge)

    def _refit_kernel(self, pair: Pair, calls: Sequence[Call]) -> Why | None:
        layer, matrix = pair.left, pair.matrix()
        shift = constant_of(layer, (matrix.shape[0], matrix.shape[2]))
        taking = None
        if getattr(layer, "bias", None) is None and len(calls) == 1:
            taking = self.follows.taking(calls[0][1], pair.kind, layer)
        free = has_constant(layer) or taking is not None
        with ExitStack() as stack:
            sums: Sums | None = None
            for places, x, z in self._rows(pair, calls):
                if sums is None:
                    rows = places * self.samples * len(calls)
                    size = 0 if self.way == "bias" else bytes_for(matrix.shape, rows)
                    if size > self.room.limit:
                        return "memory"
                    stack.enter_context(self.room.reserved(size))
                    sums = (
                        Means(matrix, shift) if self.way == "bias" else sums_for(matrix.shape, rows)
                    )
                sums.add(x, z)
            if sums is None:
                return "calls"
            fit = sums.fit(matrix, shift, ridge=self.ridge, free=free)
        if not np.isfinite(fit.after + np.abs(fit.matrix).max() + np.abs(fit.shift).max()):
            return "numbers"
        self._write(pair, fit, taking)
        return None

    def _write(self, pair: Pair, fit: Fit, taking: Any) -> None:
        pair.kernel.assign(pair.layout.array(fit.matrix, pair.kernel.shape))
        if has_constant(pair.left):
            put_constant(pair.left, fit.shift)
        elif taking is not None:
            mean = taking.moving_mean
            mean.assign(np.asarray(mean, np.float64) - fit.shift.reshape(mean.shape))
        self.refitted.append(Refitted(pair.consumer.name, fit.before, fit.after))

    def _rows(
        self, pair: Pair, calls: Sequence[Call]
    ) -> Iterator[tuple[int, np.ndarray, np.ndarray]]:
        """Rows and targets of all calls, some at a time; and how many rows a sample has."""
        kind, layer = pair.kind, pair.left
        for old, step in calls:
            for n in range(len(self.after.chunks)):
                for x, wanted, own in self._given(pair, old, step, n):
                    z = self._targets(pair, old, step, n, wanted)
                    places = z.shape[1] // len(x)
                    for part in pieces(kind, layer, x, ROWS):
                        rows = kind.rows(layer if own else pair.consumer.layer, x[part])
                        start = part.start * places
                        rows = rows if own else pair.rows(rows)
                        yield places, rows, z[:, start : start + rows.shape[1]]

    def _given(
        self, pair: Pair, old: Step, step: Step, n: int
    ) -> Iterator[tuple[np.ndarray, Made, bool]]:
        """What a layer is given in one chunk of one call, and what the original's makes.

        Gives as well whether that is given to what is left of it. A call that waits for another one
        of the same kernel is taken as the original makes it.
        """
        with observed(pair.consumer.layer) as was:
            outputs = old.call(self.before.arguments(old, n))
        own = self.after.holds(step.reads)
        now = self._inputs(pair, step, n, len(was)) if own else [x for x, *_ in was]
        for (_, linear, made), x in zip(was, now, strict=False):
            alone = made is linear and made is outputs[0]
            yield np.asarray(x, np.float32), Made(np.asarray(linear, np.float32), alone), own

    def _inputs(self, pair: Pair, step: Step, n: int, count: int) -> list[Any]:
        """What the pruned model's layer is given in one chunk of a call, each of several times."""
        arguments = self.after.arguments(step, n)
        if step.operation is pair.left and len(arguments) == count == 1:
            return arguments
        with observed(pair.left, stop=count == 1) as seen, suppress(Captured):
            step.call(arguments)
        return [x for x, *_ in seen]

    def _targets(self, pair: Pair, old: Step, step: Step, n: int, wanted: Made) -> np.ndarray:
        """What is wanted of the columns that are left: (G, R, M)."""
        z = pair.kind.columns(pair.consumer.layer, wanted.linear)
        keys = self.keys.get(id(pair))
        z = pair.columns(z) if keys is None else queries_for(pair, *keys, z)
        if pair.scale != 1.0:
            z = z * np.float32(pair.scale)
        if wanted.alone and len(self.calls[id(pair)]) == 1:
            z = z + self.branches.lacking(pair, old, step, n, wanted.linear.shape)
        return z

    def _refit_recurrent(self, pair: Pair, calls: Sequence[Call]) -> Why | None:
        layer, left = pair.consumer.layer, pair.left
        size = recurrent.bytes_at_work(left.cell)
        if size > self.room.limit:
            return "memory"
        chunks = [
            (old, step, n)
            for old, step in calls
            for n in range(len(self.after.chunks))
            if self.after.holds(step.reads)
        ]
        kept = ~pair.columns_gone[0]
        layers = recurrent.Layers(
            layer,
            left,
            kept,
            kept[: int(layer.cell.units)],
            recurrent.Runs(
                [partial(_states, layer, self.before, old, n) for old, _, n in chunks], self.room
            ),
            recurrent.Runs(
                [partial(_states, left, self.after, step, n) for _, step, n in chunks], self.room
            ),
        )
        with self.room.reserved(size):
            before, after = recurrent.refit(
                layers, ridge=np.inf if self.way == "bias" else self.ridge
            )
        if not np.isfinite(after):
            return "numbers"
        self.refitted.append(Refitted(pair.consumer.name, before, after))
        return None

    def _measure(self, step: Step) -> None:
        """Have a BatchNormalization expect what it is now given."""
        layer, old = step.operation, self.of_key[step.key]
        if type(layer).__name__ != "BatchNormalization" or self._fed_alike(old, step):
            return
        chunks = range(len(self.after.chunks))
        measure(layer, (np.asarray(self.after.arguments(step, n)[0], np.float64) for n in chunks))


class Made(Struct, frozen=True, eq=False):
    """What the original's layer makes before its activation; `alone`: whether the call gives just that."""

    linear: np.ndarray
    alone: bool


def _aligned(original: Program, pruned: Program) -> dict[Key, Step]:
    """The original's calls by their key in both models.

    A layer of which some calls are gone has none: it is not known which of them are left.
    """
    was, now = (Counter(step.key[0] for step in program.steps) for program in (original, pruned))
    return {step.key: step for step in original.steps if was[step.key[0]] == now[step.key[0]]}


def _same_weights(one: Any, other: Any) -> bool:
    """Whether two layers or operations have the same weights."""
    first, second = getattr(one, "weights", []), getattr(other, "weights", [])
    return len(first) == len(second) and all(
        tuple(a.shape) == tuple(b.shape) and np.array_equal(a, b)
        for a, b in zip(first, second, strict=True)
    )


def _states(layer: Any, values: Values, step: Step, n: int) -> recurrent.Sequence:
    """What a recurrent layer is given in one chunk of a call, and its states."""
    with recurrent.observed_states(layer) as seen, suppress(Captured):
        step.call(values.arguments(step, n))
    return seen[0]
