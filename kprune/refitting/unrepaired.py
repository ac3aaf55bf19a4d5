"""What is left as it was cut, and why."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from msgspec import Struct

from kprune.analysis.analysis import Analysis
from kprune.labels.map import Weight

if TYPE_CHECKING:
    from kprune.refitting.consumers import Variable, WeightKey

Why = Literal[
    "variables", "adapted", "quantized", "stateful", "cell", "class", "equation", "calls", "memory"
]
"""Why a layer is left as it was cut.

variables: which of Keras's variables its weights are cannot be told.
adapted, quantized: its kernel is changed on the way, by adapters of LoRA or by its type.
stateful: it keeps its state from one batch to the next.
cell: a recurrent layer runs another cell than LSTM's, GRU's or SimpleRNN's, or several.
class: no kernel of its class is known: a layer of a package, of the user, a ConvLSTM.
equation: an EinsumDense is no sum for each place and column.
calls: it is not called, or not as often as in the original, or its calls cannot be told apart.
memory: its least squares take more than may be taken.
"""


class Left(Struct, frozen=True):
    """A layer that is left as it was cut. `name`: its path, and what in it, where it has several kernels."""

    name: str
    why: Why


def left_out(
    analysis: Analysis,
    variables: Mapping[WeightKey, Variable],
    gone: np.ndarray,
    model: Any,
) -> list[Left]:
    """Layers that sum over units that go, and whose kernels are none that can be refitted.

    Args:
        variables: of the original.
        gone: bool (labels,).
        model: the original.
    """
    runs = {id(layer.cell): layer for layer in model._flatten_layers() if hasattr(layer, "cell")}
    found: dict[str, Left] = {}
    for record in analysis.map.records.values():
        for part in record.whole():
            for key, weight in part.weights.items():
                if not _sums_over(weight, gone) or not analysis.is_stored(weight):
                    continue
                place = variables.get((weight.layer.path, key))
                why = "variables" if place is None else _why(place.owner, runs)
                if why is not None:
                    name = weight.layer.path
                    found.setdefault(name, Left(name, why))
    return list(found.values())


def _sums_over(weight: Weight, gone: np.ndarray) -> bool:
    """Whether a kernel sums over units that go."""
    made = {axis for axis in (weight.out, *weight.also) if axis is not None}
    if weight.out is None or len(weight.axes) < 2 or weight.duplicate:
        return False
    return any(
        gone[factor].any()
        for number, axis in enumerate(weight.axes)
        if number not in made
        for factor in axis.factors
    )


def _why(owner: Any, runs: Mapping[int, Any]) -> Why | None:
    """Why a layer's kernel is none that can be refitted; None if it can."""
    # Reports name the reasons, and need nothing of what finds them.
    from kprune.refitting.kernels import KINDS, kind_of
    from kprune.refitting.recurrent import CELLS

    if id(owner) in runs:
        return _why_of_cell(owner, runs[id(owner)])
    if owner is None:
        return "variables"
    if kind_of(owner) is not None:
        return None
    if getattr(owner, "lora_enabled", False):
        return "adapted"
    if getattr(owner, "quantization_mode", None):
        return "quantized"
    if type(owner).__name__ in CELLS:
        return "cell"  # one of several, or in a wrapper
    return "equation" if type(owner).__name__ in KINDS else "class"


def _why_of_cell(cell: Any, layer: Any) -> Why | None:
    from kprune.refitting.recurrent import CELLS

    if getattr(layer, "stateful", False):
        return "stateful"
    own = type(cell).__module__.startswith("keras.")
    return None if own and type(cell).__name__ in CELLS else "cell"
