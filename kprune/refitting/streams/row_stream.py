"""What the kernels of one model are summed from, on data, layer by layer."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, suppress

import numpy as np

from kprune.refitting import recurrent
from kprune.refitting.consumers import Consumer
from kprune.refitting.kernels import pieces
from kprune.refitting.streams.observing import Captured, observed
from kprune.refitting.streams.room import Room
from kprune.refitting.streams.steps import Program, Step, layers_in
from kprune.refitting.streams.values import Values, samples_at_once
from kprune.types import Progress

ROWS = 64 << 20
"""Bytes of rows that are made at once."""


def stream_rows(
    program: Program,
    consumers: Iterable[Consumer],
    inputs: Sequence[np.ndarray],
    room: Room,
    *,
    progress: Progress | None = None,
) -> Iterator[tuple[Consumer, np.ndarray]]:
    """Run a model once.

    Args:
        inputs: arrays in the order of the model's inputs, samples first.
        room: where tensors are kept.
        progress: called with (calls made, calls in all).
    Yields: a kernel, and rows of it: float32 (G, R, D). Those of one kernel come one after the
        other, but for a kernel that is called several times.
    """
    values = Values(program, inputs, samples_at_once(program, inputs), room)
    of = {id(consumer.layer): consumer for consumer in consumers}
    for number, step in enumerate(program.steps):
        found = [of[id(layer)] for layer in layers_in(step) if id(layer) in of]
        for n in range(len(values.chunks) if found else 0):
            yield from _rows_of_call(step, found, values, n)
        values.run(step)
        if progress is not None:
            progress(number + 1, len(program.steps))


def _rows_of_call(
    step: Step, consumers: Sequence[Consumer], values: Values, n: int
) -> Iterator[tuple[Consumer, np.ndarray]]:
    arguments = values.arguments(step, n)
    direct = [consumer for consumer in consumers if consumer.kind is not None]
    with ExitStack() as stack:
        seen = [stack.enter_context(observed(consumer.layer)) for consumer in direct]
        if direct:
            step.call(arguments)
    for consumer, calls in zip(direct, seen, strict=True):
        assert consumer.kind is not None
        for given, *_ in calls:
            x = np.asarray(given, np.float32)
            for part in pieces(consumer.kind, consumer.layer, x, ROWS):
                yield consumer, consumer.kind.rows(consumer.layer, x[part])
    for consumer in consumers:
        if consumer.kind is None:
            with recurrent.observed_states(consumer.layer) as states, suppress(Captured):
                step.call(arguments)
            for sequence in states:
                yield consumer, sequence.rows(sequence.x, sequence.earlier)
