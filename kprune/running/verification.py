"""What a verification found, as data; its JSON is what `kprune verify --json` prints."""

from __future__ import annotations

from typing import Annotated, Any

import msgspec
from msgspec import Meta, Struct

from kprune.report.report import SCHEMA, Note


class OutputDifference(Struct, frozen=True):
    """How far one output of the pruned model is from what it should be."""

    name: str
    shape: Annotated[list[int], Meta(description="without the batch; of the pruned model")]
    max_difference: Annotated[
        float | None, Meta(description="largest absolute difference; null if the shapes differ")
    ]
    relative: Annotated[
        float | None, Meta(description="the same over the largest magnitude of the expected output")
    ]
    equal: Annotated[bool, Meta(description="whether `relative` is within the tolerance")]


class ParameterCount(Struct, frozen=True):
    """One model's parameters, as Keras counts them and as kprune does from the file."""

    keras: int
    kprune: int


class Timing(Struct, frozen=True):
    """How long one batch takes in either model, in seconds: medians over pairs of calls."""

    batch_size: int
    original: float
    pruned: float
    ratio: Annotated[float, Meta(description="pruned over original")]
    middle_half: Annotated[
        list[float],
        Meta(description="quartiles of the ratio over the pairs: half of them lie between"),
    ]
    pairs: Annotated[int, Meta(description="timed calls of each model, after the warm-up")]
    device: str


class Verification(Struct, frozen=True):
    """Two models, run side by side.

    Attributes:
        against: what the pruned model was compared with: `masked original`, or `original` where
            the file does not say what was pruned.
        exact: whether the two should be equal to float rounding; if not, differences do not fail.
        passed: whether nothing was found that should not be.
        metrics: with labelled data, `before` and `after`, by name.
        time: an entry a batch size; None if it was not asked for.
    """

    kprune: str
    original: str
    pruned: str
    passed: bool
    against: str
    exact: bool
    tolerance: float
    samples: int
    seed: Annotated[int | None, Meta(description="of the random inputs; null if data were given")]
    data: str | None
    outputs: list[OutputDifference]
    parameters: dict[str, ParameterCount]
    metrics: dict[str, dict[str, float]] | None
    notes: list[Note]
    time: list[Timing] | None = None
    schema: int = SCHEMA

    def to_dict(self) -> dict[str, Any]:
        """Plain data with the keys of the JSON report."""
        found: dict[str, Any] = msgspec.to_builtins(self)
        return {
            "kprune": found.pop("kprune"),
            "schema": found.pop("schema"),
            "command": "verify",
            **found,
        }

    def to_json(self) -> str:
        return msgspec.json.format(msgspec.json.encode(self.to_dict()), indent=2).decode()
