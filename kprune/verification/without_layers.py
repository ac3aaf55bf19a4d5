"""The reference for a file from which whole layers were removed: the original without them.

The reference is made by the code that is to be verified, so it is checked by plain Keras: the
original in which every removed layer returns its input must compute the same.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from kprune.analysis.analysis import Analysis
from kprune.errors import KpruneError
from kprune.formats import Source, write_model
from kprune.formats.registry import usual_suffix
from kprune.runtime.keras_import import import_keras
from kprune.runtime.keras_runtime import keras_layer
from kprune.select.naming.layer_names import whole_layers_named
from kprune.select.naming.specs import LayerName, quote_layer
from kprune.surgery.provenance import WHOLE_LAYERS
from kprune.surgery.whole_layers import WholeLayers, find_whole_layers, take_out
from kprune.verification.replay import Unexplained, replayed

Step = Mapping[str, Any]


def taken_out(analysis: Analysis, steps: Sequence[Step]) -> WholeLayers | None:
    """The layers that some steps removed from a model; None if they removed none.

    Raises: Unexplained if they do not fit the model.
    """
    names = [name for step in steps for name in step.get(WHOLE_LAYERS, ())]
    if not names:
        return None
    try:
        quoted = [quote_layer(LayerName(layer=name, exact=True, text=name)) for name in names]
        layers = whole_layers_named(analysis, quoted)
        whole = find_whole_layers(analysis, layers, allow_output_change=True)
    except KpruneError as error:
        raise Unexplained(
            f"layers that it lost cannot be removed as whole layers here: {error.what}"
        ) from error
    _check_units(analysis, whole, steps)
    return whole


def _check_units(analysis: Analysis, whole: WholeLayers, steps: Sequence[Step]) -> None:
    """Raises: Unexplained if units went first so that other ones met once the layers were out."""
    first = next(number for number, step in enumerate(steps) if WHOLE_LAYERS in step)
    gone = replayed(analysis, steps[:first]).gone
    for wiring in whole.wirings:
        for old, new in wiring.instead.items():
            both = [analysis.map.tensors[wiring.model.path, *key] for key in (old, new)]
            for axis in range(1, both[0].rank):
                one, other = (np.flatnonzero(it.axis(axis).dead(gone)) for it in both)
                if not np.array_equal(one, other):
                    raise Unexplained("other units were removed before the layers were taken out")


def written_without(source: Source, analysis: Analysis, whole: WholeLayers, folder: Path) -> Path:
    """The original without the layers, as a file in a folder."""
    place = folder / ("without_layers" + usual_suffix(source))
    write_model(source, take_out(analysis, whole), place, force=True)
    return place


def hand_through(model: Any, whole: WholeLayers) -> None:
    """Have each of the layers return its input, and sums leave out the removed branch.

    Args:
        model: the original, as plain Keras loaded it.
    """
    for wiring in whole.wirings:
        prefix = wiring.model.path
        sums = {wiring.model.layers[name]: places for (name, _), places in wiring.addends.items()}
        for layer in {**wiring.gone, **sums}:
            called = keras_layer(model, prefix + layer.name)
            called.input_spec = None
            places = sums.get(layer, [])
            called.call = _summing(places) if layer in sums else _first


def _first(*args: Any, **kwargs: Any) -> Any:
    return _tensors(args, kwargs)[0]


def _tensors(args: Any, kwargs: Any) -> list[Any]:
    """The tensors among a call's arguments; functions of Keras 2 are given their name as well."""
    return [it for it in import_keras().tree.flatten([args, kwargs]) if hasattr(it, "shape")]


def _summing(left_out: Sequence[int]) -> Callable[..., Any]:
    def call(*args: Any, **kwargs: Any) -> Any:
        addends = _tensors(args, kwargs)
        return sum(addend for place, addend in enumerate(addends) if place not in left_out)

    return call
