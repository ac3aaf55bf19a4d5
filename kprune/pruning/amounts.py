"""What a model costs without some units, for budgets."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from msgspec.structs import replace

from kprune.analysis.analysis import Analysis
from kprune.analysis.counts import count
from kprune.graph.weight_groups import is_state
from kprune.labels.closure import Closure
from kprune.select.ranking.budget import Measure
from kprune.surgery.provenance import with_provenance
from kprune.surgery.relocate import with_names
from kprune.surgery.remove import remove


@dataclass(frozen=True)
class Counted:
    """Parameters or operations."""

    kind: str
    analysis: Analysis

    def __call__(self, gone: np.ndarray) -> float:
        return float(getattr(count(self.analysis, gone), self.kind))

    @property
    def counts(self) -> str:
        return self.kind

    @property
    def whole(self) -> float:
        return float(getattr(count(self.analysis), self.kind))


@dataclass(frozen=True)
class Bytes:
    """The size of the file, as it would be written."""

    analysis: Analysis
    source: Any

    def __call__(self, gone: np.ndarray) -> float:
        closure = Closure(self.analysis.groups, {}, gone)
        edit = remove(self.analysis, closure)
        # What kprune writes about itself counts as well.
        metadata = with_provenance(
            self.analysis, backend="remove", units=closure.affected, options={}, gone=gone
        )
        whole = with_names(self.analysis, replace(edit, metadata=metadata))
        return float(self.source.output_size(whole))

    @property
    def counts(self) -> str:
        state = any(map(is_state, self.analysis.tensors))
        kept = "without" if self.source.drops_optimizer else "with"
        return "bytes of the file" + (f", {kept} the optimizer's state" if state else "")

    @property
    def whole(self) -> float:
        return float(self.source.bytes)


def measure_of(kind: str, analysis: Analysis, source: Any) -> Measure:
    """The measure of a kind of budget: `parameters`, `flops` or `bytes`."""
    return Bytes(analysis, source) if kind == "bytes" else Counted(kind, analysis)
