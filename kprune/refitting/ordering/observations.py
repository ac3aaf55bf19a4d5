"""The covariances of all consumers of a model, in one run over data."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from msgspec import Struct

from kprune.analysis.analysis import Analysis
from kprune.errors import CannotPruneError
from kprune.refitting.consumers import Consumer, consumers_of, variables_of
from kprune.refitting.following import Following
from kprune.refitting.ordering.covariances import Covariance, Observation
from kprune.refitting.streams.room import MEMORY, Room
from kprune.refitting.streams.row_stream import stream_rows
from kprune.refitting.streams.steps import Program, Step, layers_in
from kprune.types import Progress

NOISE = 1e-10
"""A variance under this share of the mean square is rounding of float32."""


def observe(
    model: Any,
    analysis: Analysis,
    inputs: Sequence[np.ndarray],
    *,
    memory: int = MEMORY,
    progress: Progress | None = None,
) -> list[Observation]:
    """Run a model, and keep the covariance of what each of its consumers is given.

    Half of the memory is for covariances, of which elimination needs as much again; where they
    would be more, the widest are kept by channels.

    Args:
        model: a live Functional or Sequential model; analysis: of its file.
        inputs: arrays in the order of its inputs, samples first.
        memory: bytes.
        progress: called with (calls made, calls in all).
    Raises: CannotPruneError for another kind of model.
    """
    try:
        program = Program.of(model)
    except CannotPruneError as error:
        error.do = "use another criterion, or convert the model"
        raise
    consumers = consumers_of(model, variables_of(model, analysis))
    centred = _constants_do_no_harm(program, consumers)
    places = _places(consumers, memory // 4)
    sums = {
        id(consumer): _Sums(consumer.shape, count)
        for consumer, count in zip(consumers, places, strict=True)
    }
    with Room(memory // 2) as room:
        for consumer, rows in stream_rows(program, consumers, inputs, room, progress=progress):
            sums[id(consumer)].add(rows)
    return [
        Observation(consumer, sums[id(consumer)].covariance(centred=centred[id(consumer)]))
        for consumer in consumers
        if sums[id(consumer)].count
    ]


def _constants_do_no_harm(program: Program, consumers: Sequence[Consumer]) -> Mapping[int, bool]:
    """For each consumer whether a bias, or a BatchNormalization behind it, takes constants up."""
    calls: dict[int, list[Step]] = {}
    for step in program.steps:
        for layer in layers_in(step):
            calls.setdefault(id(layer), []).append(step)
    follows = Following(program)

    def taken_up(consumer: Consumer) -> bool:
        own, kind = calls.get(id(consumer.layer), []), consumer.kind
        return consumer.bias or (
            kind is not None
            and len(own) == 1
            and own[0].operation is consumer.layer
            and follows.taking(own[0], kind, consumer.layer) is not None
        )

    return {id(consumer): taken_up(consumer) for consumer in consumers}


def _places(consumers: Sequence[Consumer], limit: int) -> list[int]:
    """For each consumer in how many places its rows are divided, so that all covariances fit.

    Those go by channels first that save most.
    """
    places = [1] * len(consumers)
    sizes = [8 * parts * rows * rows for parts, rows, _ in (one.shape for one in consumers)]
    widest = sorted(range(len(consumers)), key=lambda number: -sizes[number])
    for number in widest:
        if sum(sizes) <= limit:
            break
        places[number] = _repeats(consumers[number])
        sizes[number] //= places[number] ** 2
    return places


def _repeats(consumer: Consumer) -> int:
    """How often the same units stand along the rows, one after the other."""
    rows = consumer.shape[1]
    for times in range(rows, 1, -1):
        if rows % times == 0 and all(
            (
                factor.reshape(*factor.shape[:2], times, -1) == factor[:, :, None, : rows // times]
            ).all()
            for factor in consumer.row_labels
        ):
            return times
    return 1


class _Sums(Struct):
    """Sums over the rows of one consumer, taken about the first of them so that little is lost to rounding.

    Attributes:
        shape: (G, D, M) of the consumer; places: how often each channel stands along its rows.
        count: rows so far, times the places.
    """

    shape: tuple[int, int, int]
    places: int
    count: int = 0
    about: Any = None
    total: Any = None
    products: Any = None

    def add(self, rows: np.ndarray) -> None:
        """Count rows in: float32 (G, R, D)."""
        parts = len(rows)
        flat = rows.reshape(parts, -1, self.shape[1] // self.places)
        if self.about is None:
            width = flat.shape[2]
            self.about = flat.mean(axis=1, keepdims=True, dtype=np.float64).astype(np.float32)
            self.total, self.products = np.zeros((parts, width)), np.zeros((parts, width, width))
        shifted = flat - self.about
        self.count += flat.shape[1]
        self.total += shifted.sum(axis=1, dtype=np.float64)
        self.products += shifted.transpose(0, 2, 1) @ shifted

    def covariance(self, *, centred: bool) -> Covariance:
        """About the mean, or about 0."""
        mean = self.total / self.count
        found = self.products / self.count - mean[:, :, None] * mean[:, None, :]
        whole = (self.about[:, 0] + mean).astype(np.float64)
        still = np.einsum("gdd->gd", found) <= NOISE * whole**2
        found[np.broadcast_to(still[:, :, None] | still[:, None, :], found.shape)] = 0
        if not centred:
            found += whole[:, :, None] * whole[:, None, :]
        return Covariance(found, self.places)
