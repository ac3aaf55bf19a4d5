"""What follows a kernel: a BatchNormalization that could take a constant up, a sum with other branches."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from msgspec import Struct, field

from kprune.repair.streams.steps import Place, Program, Step
from kprune.rules import builtin


class Behind(Struct):
    """What stands behind the output of one call, as long as nothing else reads it.

    Attributes:
        normalizations: BatchNormalization layers on the way.
        others: the other summands of the sum that it ends in; empty if there is none.
        first: the BatchNormalization that reads the output itself, if that is the only reader.
    """

    normalizations: list[Any] = field(default_factory=list)
    others: list[Place] = field(default_factory=list)

    @property
    def first(self) -> Any:
        return self.normalizations[0] if self.normalizations else None


def behind(program: Program, readers: Mapping[Place, list[Step]], place: Place) -> Behind:
    """Follow an output through what treats its channels one by one, up to a sum."""
    found = Behind()
    while place not in program.outputs and len(readers.get(place, ())) == 1:
        (step,) = readers[place]
        kind = type(step.operation).__name__
        if kind == "Add":
            found.others = [other for other in step.reads if other != place]
            return found
        if len(step.reads) != 1 or len(step.writes) != 1:
            return found
        if kind == "BatchNormalization":
            found.normalizations.append(step.operation)
        elif not _hands_on(kind) and not _linear(step.operation):
            return found
        place = step.writes[0]
    return found


def _hands_on(kind: str) -> bool:
    """Whether layers of a class of Keras give what they get when a model is not trained."""
    rule = builtin().layers.get(kind)
    return rule is not None and rule.values == "same"


def _linear(operation: Any) -> bool:
    return type(operation).__name__ == "Activation" and (
        getattr(operation.activation, "__name__", "") == "linear"
    )
