"""What passes between the calls of a model, chunk by chunk of the samples."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from kprune.refitting.streams.room import Entry, Room
from kprune.refitting.streams.steps import Place, Program, Step

CHUNK = 64 << 20
"""Bytes that the largest tensor of a chunk takes."""


def samples_at_once(program: Program, inputs: Sequence[np.ndarray]) -> int:
    """How many samples go through a call at once: all of a small model's, some of a large one's."""
    largest = max((step.size for step in program.steps), default=1)
    # Where the model does not say how long an axis is, the inputs do.
    largest *= max(
        -(-array[:1].size // size) for array, size in zip(inputs, program.sizes, strict=True)
    )
    return max(1, min(len(inputs[0]), CHUNK // (4 * largest)))


class Values:
    """The tensors of one program for all samples; each is dropped after its last reader.

    Args:
        inputs: for each input of the program, an array whose first axis is the samples.
        size: samples in a chunk.
        room: where tensors are kept.
    """

    def __init__(
        self, program: Program, inputs: Sequence[np.ndarray], size: int, room: Room
    ) -> None:
        self.program, self._room = program, room
        self._readers = {place: len(steps) for place, steps in program.readers().items()}
        for place in program.outputs:
            self._readers[place] = self._readers.get(place, 0) + 1
        count = len(inputs[0])
        self.chunks = [slice(start, min(start + size, count)) for start in range(0, count, size)]
        given = [program.taken([array[chunk] for array in inputs]) for chunk in self.chunks]
        self._held: dict[Place, list[Entry]] = {
            place: [room.take(tensors[number]) for tensors in given]
            for number, place in enumerate(program.inputs)
            if place in self._readers
        }

    def holds(self, places: Sequence[Place]) -> bool:
        """Whether these tensors are there."""
        return all(place in self._held for place in places)

    def get(self, place: Place, chunk: int) -> Any:
        """One chunk of a tensor, with its mask if it has one."""
        return self._room.back(self._held[place][chunk])

    def arguments(self, step: Step, chunk: int) -> list[Any]:
        """One chunk of all that a step reads."""
        return [self.get(place, chunk) for place in step.reads]

    def keep(self, place: Place) -> None:
        """Have a tensor stay until it is released once more."""
        self._readers[place] = self._readers.get(place, 0) + 1

    def release(self, place: Place) -> None:
        """Count off one reader of a tensor."""
        self._readers[place] -= 1
        if not self._readers[place]:
            for entry in self._held.pop(place, ()):
                self._room.drop(entry)

    def run(self, step: Step) -> None:
        """Make one call, for all samples, and drop what nobody reads any more."""
        read = [
            (number, place) for number, place in enumerate(step.writes) if self._readers.get(place)
        ]
        kept: dict[Place, list[Entry]] = {place: [] for _, place in read}
        for n in range(len(self.chunks)):
            outputs = self._call(step, n)
            for number, place in read:
                kept[place].append(self._room.take(outputs[number]))
        self._held.update(kept)
        for place in dict.fromkeys(step.reads):
            self.release(place)

    def _call(self, step: Step, chunk: int) -> list[Any]:
        from keras.src.backend import get_keras_mask

        arguments = self.arguments(step, chunk)
        outputs = step.call(arguments)
        # Attention takes the masks off what it is given, and later readers find none.
        for place, tensor in zip(step.reads, arguments, strict=True):
            self._held[place][chunk].mask = get_keras_mask(tensor)
        return outputs

    def outputs(self) -> list[np.ndarray]:
        """What the program gives, for all samples, once every step is done."""
        return [
            np.concatenate([np.asarray(self.get(place, n)) for n in range(len(self.chunks))])
            for place in self.program.outputs
        ]
