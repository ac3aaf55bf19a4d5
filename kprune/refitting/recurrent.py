"""Recurrent layers, whose own state is among their inputs: a row is [x_t, h_t-1].

The gates are fitted with the states that the original had, the layer is run, and they are fitted
once more with the states that it then has itself; the round whose states come nearest counts.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
from msgspec import Struct

from kprune.refitting.moments import Fit, Moments, bytes_for
from kprune.refitting.streams.observing import Captured
from kprune.refitting.streams.room import Entry, Room

CELLS = {"SimpleRNNCell": 1, "LSTMCell": 4, "GRUCell": 3}
"""How many times a cell's units stand side by side on the columns of its kernels."""

ROUNDS = 2


class Sequence(Struct, frozen=True, eq=False):
    """What a recurrent layer was given, and its states.

    Attributes:
        x: float32 (samples, steps, inputs), in the order in which the layer goes through them.
        h: float32 (samples, steps, units), what it gives after each step: its state, where the step counts.
        start: (samples, units), the state before the first.
        mask: bool (samples, steps), the steps that count; None if all do.
    """

    x: np.ndarray
    h: np.ndarray
    start: np.ndarray
    mask: np.ndarray | None

    @property
    def earlier(self) -> np.ndarray:
        """The state before each step. A step that does not count leaves it as it is."""
        states, state = np.empty_like(self.h), self.start
        for step in range(self.h.shape[1]):
            states[:, step] = state
            counts = True if self.mask is None else self.mask[:, step, None]
            state = np.where(counts, self.h[:, step], state)
        return states

    def rows(self, *arrays: np.ndarray) -> np.ndarray:
        """Arrays (samples, steps, n), side by side, of the steps that count: (1, rows, n)."""
        whole = np.concatenate(arrays, axis=2)
        return (whole.reshape(-1, whole.shape[2]) if self.mask is None else whole[self.mask])[None]


def is_recurrent(layer: Any) -> bool:
    """Whether a Keras layer runs one of Keras's own cells, and keeps no state between batches."""
    cell = getattr(layer, "cell", None)
    return (
        type(cell).__name__ in CELLS
        and type(cell).__module__.startswith("keras.")
        and not getattr(layer, "stateful", False)
    )


@contextmanager
def observed_states(layer: Any) -> Iterator[list[Sequence]]:
    """Record what a recurrent layer is given and its states; the call ends with `Captured`."""
    seen: list[Sequence] = []
    original = layer.call

    def call(x: Any, initial_state: Any = None, mask: Any = None, **_: Any) -> Any:
        options = {"return_sequences": True, "return_state": False}
        saved = {name: getattr(layer, name) for name in options}
        for name, value in options.items():
            object.__setattr__(layer, name, value)
        try:
            states = original(x, initial_state=initial_state, mask=mask)
        finally:
            for name, value in saved.items():
                object.__setattr__(layer, name, value)
        h = np.asarray(states, np.float32)
        first = initial_state[0] if isinstance(initial_state, (list, tuple)) else initial_state
        start = np.zeros_like(h[:, 0]) if first is None else np.asarray(first, np.float32)
        given = np.asarray(x, np.float32)
        kept = None if mask is None else np.asarray(mask, bool)
        if layer.go_backwards:
            given, kept = given[:, ::-1], None if kept is None else kept[:, ::-1]
        seen.append(Sequence(given, h, start, kept))
        raise Captured

    object.__setattr__(layer, "call", call)
    try:
        yield seen
    finally:
        object.__delattr__(layer, "call")


class Weights(Struct, eq=False):
    """A cell's weights: kernel (inputs, gates · units), recurrent (units, gates · units), bias as Keras has it."""

    kernel: np.ndarray
    recurrent: np.ndarray
    bias: np.ndarray | None

    @classmethod
    def of(cls, cell: Any) -> Weights:
        bias = getattr(cell, "bias", None)
        return cls(
            np.asarray(cell.kernel).astype(np.float64),
            np.asarray(cell.recurrent_kernel).astype(np.float64),
            None if bias is None else np.asarray(bias).astype(np.float64),
        )

    def assign(self, cell: Any) -> None:
        cell.kernel.assign(self.kernel)
        cell.recurrent_kernel.assign(self.recurrent)
        if self.bias is not None:
            cell.bias.assign(self.bias)

    def columns(self, kept: np.ndarray) -> Weights:
        """The weights of some columns, bool (gates · units,)."""
        bias = None if self.bias is None else self.bias[..., kept]
        return Weights(self.kernel[:, kept], self.recurrent[:, kept], bias)


class Part(Struct, frozen=True):
    """Columns that are fitted together, and what they are summed from.

    Attributes:
        columns: of the kernels.
        x, h: whether the inputs, and the states, are among what is summed.
        reset: whether the states are multiplied by the reset gate first.
        row: which row of the bias; None where it has only one, or both are added.
    """

    columns: slice
    x: bool = True
    h: bool = True
    reset: bool = False
    row: int | None = None


def parts_of(cell: Any) -> list[Part]:
    """The columns of a cell in parts, each of which is linear in what it is summed from."""
    units, kind = int(cell.units), type(cell).__name__
    if kind != "GRUCell":
        return [Part(slice(0, CELLS[kind] * units))]
    gates, candidate = slice(0, 2 * units), slice(2 * units, 3 * units)
    if not cell.reset_after:
        return [Part(gates), Part(candidate, reset=True)]
    return [
        Part(gates),
        Part(candidate, h=False, row=0),
        Part(candidate, x=False, row=1),
    ]


def summed(weights: Weights, part: Part, rows: np.ndarray) -> np.ndarray:
    """What a part's columns sum up, bias included: float32 (1, R, columns)."""
    matrix, shift = matrix_of(weights, part)
    return np.asarray(rows @ matrix.astype(np.float32) + shift.astype(np.float32), np.float32)


def matrix_of(weights: Weights, part: Part) -> tuple[np.ndarray, np.ndarray]:
    """A part's weights, (D, M), and its bias, (M,)."""
    stacked = [weights.kernel[:, part.columns]] if part.x else []
    if part.h:
        stacked.append(weights.recurrent[:, part.columns])
    matrix = np.concatenate(stacked)
    shift = np.zeros(matrix.shape[1])
    if weights.bias is not None:
        bias = np.atleast_2d(weights.bias)[:, part.columns]
        shift = bias.sum(axis=0) if part.row is None else bias[part.row]
    return matrix, shift


def put(weights: Weights, part: Part, fit: Fit) -> None:
    """Write what was fitted into a cell's weights."""
    matrix, inputs = fit.matrix[0], len(weights.kernel) if part.x else 0
    if part.x:
        weights.kernel[:, part.columns] = matrix[:inputs]
    if part.h:
        weights.recurrent[:, part.columns] = matrix[inputs:]
    if weights.bias is None:
        return
    if weights.bias.ndim == 1:
        weights.bias[part.columns] = fit.shift[0]
    elif part.row is None:
        before = weights.bias[:, part.columns]
        weights.bias[0, part.columns] = fit.shift[0] - before[1]
    else:
        weights.bias[part.row, part.columns] = fit.shift[0]


def rows_of(cell: Any, weights: Weights, part: Part, given: Sequence, h: np.ndarray) -> np.ndarray:
    """What a part is summed from: (1, R, D). h: the state before each step."""
    if part.reset:
        gates = parts_of(cell)[0]
        both = np.concatenate([given.x, h], axis=2)
        units = int(cell.units)
        matrix, shift = matrix_of(weights, gates)
        r = (both @ matrix[:, units:].astype(np.float32)) + shift[units:].astype(np.float32)
        h = h * np.asarray(cell.recurrent_activation(r), np.float32)
    return given.rows(*([given.x] if part.x else []), *([h] if part.h else []))


Run = Callable[[], Sequence]
"""Runs a layer on one chunk, with the weights that it has at that moment."""


class Runs:
    """What one layer is given, and its states, chunk by chunk, kept in a room."""

    def __init__(self, runs: Iterable[Run], room: Room) -> None:
        self._runs, self._room = list(runs), room
        self._kept: list[tuple[list[Entry], np.ndarray | None]] = []

    def __len__(self) -> int:
        return len(self._runs)

    def run(self) -> None:
        """Run the layer, and keep that in place of what was kept before."""
        self.drop()
        for run in self._runs:
            given = run()
            arrays = (given.x, given.h, given.start)
            self._kept.append(([self._room.take(array) for array in arrays], given.mask))

    def __iter__(self) -> Iterator[Sequence]:
        for entries, mask in self._kept:
            x, h, start = (self._room.back(entry) for entry in entries)
            yield Sequence(x, h, start, mask)

    def drop(self) -> None:
        """Forget all."""
        for entries, _ in self._kept:
            for entry in entries:
                self._room.drop(entry)
        self._kept = []


class Layers(Struct, frozen=True, eq=False):
    """A recurrent layer in both models.

    Attributes:
        original, left: the Keras layers.
        kept_columns: bool, of the original's kernels; kept_units: bool, of its units.
        was, now: the runs of both.
    """

    original: Any
    left: Any
    kept_columns: np.ndarray
    kept_units: np.ndarray
    was: Runs
    now: Runs


def refit(layers: Layers, *, ridge: float) -> tuple[float, float]:
    """Refit a recurrent layer.

    Args:
        ridge: how strongly weights are held; infinite for the bias alone to change.
    Returns: the squared error of the states before and after, relative to their variance.
    """
    cell = layers.left.cell
    layers.was.run()
    layers.now.run()
    best = Weights.of(cell)
    before = least = state_error(layers)
    for number in range(ROUNDS):
        fitted = _fitted(layers, own=number > 0, ridge=ridge)
        fitted.assign(cell)
        layers.now.run()
        found = state_error(layers)
        if found < least:
            best, least = fitted, found
    best.assign(cell)
    layers.was.drop()
    layers.now.drop()
    return before, least


def _fitted(layers: Layers, *, own: bool, ridge: float) -> Weights:
    """The weights of one round. own: whether the states are the pruned layer's, else the original's."""
    result, cell = Weights.of(layers.left.cell), layers.original.cell
    whole = Weights.of(cell)
    wanted = whole.columns(layers.kept_columns)
    for wide, part in zip(parts_of(cell), parts_of(layers.left.cell), strict=True):
        matrix, shift = matrix_of(result, part)
        sums = Moments((1, *matrix.shape))
        for was, now in zip(layers.was, layers.now, strict=True):
            h = now.earlier if own else was.earlier[..., layers.kept_units]
            z = summed(wanted, part, rows_of(cell, whole, wide, was, was.earlier))
            # Gates come first, and what they reset is fitted with those that were found.
            sums.add(rows_of(layers.left.cell, result, part, now, h), z)
        free = result.bias is not None
        put(result, part, sums.fit(matrix[None], shift[None], ridge=ridge, free=free))
    return result


def bytes_at_work(cell: Any) -> int:
    """What the sums for a cell's kernels take, and solving them."""
    return max(
        bytes_for((1, *matrix_of(Weights.of(cell), part)[0].shape), 1 << 62)
        for part in parts_of(cell)
    )


def state_error(layers: Layers) -> float:
    """The squared error of the states, relative to their variance."""
    wrong = total = squares = count = 0.0
    for was, now in zip(layers.was, layers.now, strict=True):
        wanted, found = was.rows(was.h[..., layers.kept_units]), now.rows(now.h)
        wrong += float(((wanted - found) ** 2).sum(dtype=np.float64))
        total = total + wanted.sum(axis=1, dtype=np.float64)
        squares += float((wanted.astype(np.float64) ** 2).sum())
        count += wanted.shape[1]
    spread = squares - float((np.asarray(total) ** 2).sum()) / max(count, 1.0)
    return wrong / max(spread, 1e-30)
