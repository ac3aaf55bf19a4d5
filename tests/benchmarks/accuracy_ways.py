"""What `accuracy` measures: ways to choose units, stages at which a model is judged, and rows of figures."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, NamedTuple

EPOCHS = 5
SAMPLES = 256  # of the training data, for criteria on data

CUT = "cut"
TRAINED = ("tuned", "taught")  # the cut trained on, without and with the original as its teacher
INPUTS = {"noise": None, "lstsq-64": 64, "lstsq-256": 256, "lstsq-1024": 1024}
"""The stages that are a repair: on how many unlabelled inputs of the training data, None for none."""
BEST = "repaired+tuned"
REPAIRED = (*INPUTS, BEST)  # BEST is lstsq-256 and the epochs of the tuned
STAGES = (CUT, *TRAINED, *REPAIRED)


class Way(NamedTuple):
    """A way to rank the units of all layers in one list.

    Attributes:
        apart: whether a cut is repaired as it is, where the product would try equal ratios as well.
        stages: those that are measured.
    """

    name: str
    criterion: str
    normalize: str = "layer-mean"
    max_ratio: float | None = None
    weighting: str | None = None
    apart: bool = False
    stages: tuple[str, ...] = (CUT, *TRAINED)


# The scores of most criteria grow with what a layer has of weights or activations, so they are taken
# relative to the layer's mean. Those of random, lamp, taylor, hessian and obs compare as they are.
WAYS = (
    *(Way(name, name, "none") for name in ("random", "taylor", "hessian")),
    Way("lamp", "lamp", "none", stages=STAGES),
    Way("l1", "l1", stages=STAGES),
    *(Way(name, name) for name in ("l2", "mean", "fpgm", "bn-scale")),
    *(Way(name, name) for name in ("apoz", "activation-mean", "activation-std", "activation-absmax")),
    Way("l1, not normalized", "l1", "none"),
    Way("taylor, --max-ratio 0.8", "taylor", "none", 0.8),
    Way("obs", "obs", "none", stages=(CUT, *REPAIRED)),
    Way("obs, --weighting fisher", "obs", "none", weighting="fisher", stages=(CUT, *REPAIRED)),
    Way("obs, one list only", "obs", "none", apart=True, stages=("lstsq-256",)),
)  # fmt: skip


class Row(NamedTuple):
    """One figure; `accuracy` is None where the criterion cannot meet the budget."""

    model: str
    seed: int
    way: str
    removed: float
    stage: str
    accuracy: float | None
    parameters: int | None

    @property
    def key(self) -> tuple[Any, ...]:
        return self[:5]


class Results:
    """The figures there are, in a file of JSON lines that grows."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "results.jsonl"
        text = self.path.read_text() if self.path.exists() else ""
        # A run that was killed may have left half a line.
        whole = [line for line in text.split("\n")[:-1] if line.endswith("]")]
        self.rows = {row.key: row for row in (Row(*json.loads(line)) for line in whole)}

    def add(self, row: Row) -> None:
        self.rows[row.key] = row
        with self.path.open("a") as file:
            file.write(json.dumps(row) + "\n")
