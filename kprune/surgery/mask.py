"""Multiplying units' outputs by 0 with stock Keras layers, so that the file loads without kprune.

A static mask is a `Rescaling` layer whose scale is a vector of ones and zeros. A dynamic mask zeroes,
at run time, what is smaller in magnitude than a threshold; it is a small Functional model
around the operation `hard_shrink`, since a Sequential takes only layers. Both are recognised by their
name, `kprune_mask_<layer>`, and `unmask` takes them out again.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from kprune.analysis.analysis import Analysis
from kprune.edit import Edit
from kprune.errors import CannotPruneError, UsageError
from kprune.graph.copies import copied
from kprune.graph.model import Layer, Model
from kprune.graph.parse import INPUT
from kprune.labels.labels import Labels
from kprune.surgery.relocate import relocate
from kprune.surgery.splice import entry_name, insert_behind, take_out
from kprune.text import clean

PREFIX = "kprune_mask_"
DYNAMIC = "kprune_below_"


def channels(analysis: Analysis, layer: Layer) -> int:
    """How many channels the output of a layer has: the range of the indices that a mask takes.

    Raises: CannotPruneError if that is not known.
    """
    width = output_labels(analysis, layer).shape or None  # a single number has no channels
    others = _outputs(analysis, layer)[1:]
    if width is not None and any(
        not other.shape or other.shape[-1] != width[-1] for other in others
    ):
        raise CannotPruneError(
            f"'{clean(layer.path)}' cannot be masked",
            why="its outputs differ in width, and a mask has one",
            do="mask the layers that read them",
        )
    if width is None or width[channel_axis(layer, len(width))] is None:
        raise CannotPruneError(
            f"'{clean(layer.path)}' cannot be masked",
            why="the width of its output is not known from the file",
        )
    return int(width[channel_axis(layer, len(width))] or 0)


def dead_channels(analysis: Analysis, layer: Layer, gone: np.ndarray) -> np.ndarray:
    """bool: which channels of a masked layer are gone.

    Args:
        gone: bool (labels,).
    """
    labels = output_labels(analysis, layer)
    return labels.axis(channel_axis(layer, labels.rank)).dead(gone)


def mask(analysis: Analysis, chosen: Mapping[str, np.ndarray]) -> Edit:
    """The edit that puts a multiplier of ones and zeros behind layers.

    Args:
        chosen: by path of a layer, with or without weights, the channels of its output to silence.
    """
    return _insert(
        analysis,
        {
            path: _static(analysis, layer_at(analysis.model, path), indices)
            for path, indices in chosen.items()
        },
    )


def mask_below(
    analysis: Analysis, chosen: Mapping[str, np.ndarray | None], threshold: float
) -> Edit:
    """The edit that zeroes, at run time, activations whose magnitude is under a threshold.

    Args:
        chosen: by path of a layer, the channels that are masked; None for all of them.
        threshold: values of at least this magnitude pass unchanged.
    """
    return _insert(
        analysis,
        {
            path: _dynamic(analysis, layer_at(analysis.model, path), indices, threshold)
            for path, indices in chosen.items()
        },
    )


def layer_at(model: Model, path: str) -> Layer:
    """The layer with a path.

    Raises: CannotPruneError if it stands inside a wrapper, where no layer can be put behind it.
    """
    for layer in model.walk():
        if layer.path == path:
            return layer
    raise CannotPruneError(
        f"'{clean(path)}' cannot be masked",
        why="it is inside another layer, where no layer can be inserted behind it",
        do="name the layer around it",
    )


# -- the layers that are put in ------------------------------------------------------------------


def _static(analysis: Analysis, layer: Layer, indices: np.ndarray) -> dict[str, Any]:
    width = channels(analysis, layer)
    scale = np.ones(width)
    scale[indices] = 0.0
    shape = output_labels(analysis, layer).shape or ()
    axis = channel_axis(layer, len(shape))
    # As many axes as follow the batch: Keras would otherwise put the vector on axis -3 where its
    # global image_data_format is channels_first (Rescaling.call).
    extents = [1] * max(len(shape) - 1, 1)
    extents[axis - 1 if axis else 0] = width
    return {
        "module": "keras.layers",
        "class_name": "Rescaling",
        "config": {
            "name": PREFIX + layer.name,
            "trainable": False,
            "dtype": copied(layer.config.get("dtype", "float32"))
            if not layer.is_operation
            else "float32",
            "scale": scale.reshape(extents).tolist(),
            "offset": 0.0,
        },
        "registered_name": None,
    }


def _dynamic(
    analysis: Analysis, layer: Layer, indices: np.ndarray | None, threshold: float
) -> dict[str, Any]:
    """input -> hard_shrink -> output; for some channels only: input - chosen * input + shrunk(chosen * input)."""
    if analysis.order is not None or str(analysis.metadata.get("keras_version", "")).startswith(
        "2"
    ):
        raise CannotPruneError(
            f"'{clean(layer.path)}' cannot be masked below a threshold",
            why="that takes the operation hard_shrink, which neither a legacy .h5 nor Keras 2 can hold",
            do="mask chosen channels instead, or save the model as .keras in Keras 3",
        )
    shape = output_labels(analysis, layer).shape
    if shape is None:
        raise CannotPruneError(
            f"'{clean(layer.path)}' cannot be masked",
            why="the shape of its output is not known from the file",
        )
    if any(
        other.shape is None or len(other.shape) != len(shape) for other in _outputs(analysis, layer)
    ):
        raise CannotPruneError(
            f"'{clean(layer.path)}' cannot be masked at run time",
            why="its outputs differ in rank, and the mask is a model that takes one",
            do="mask the layers that read them",
        )
    name = DYNAMIC + layer.name
    dtype = _dtype_name(layer)
    entry = name + "_in"

    def tensor(source: str) -> dict[str, Any]:
        return {
            "class_name": "__keras_tensor__",
            "config": {"shape": list(shape), "dtype": dtype, "keras_history": [source, 0, 0]},
        }

    def rescaling(suffix: str, on: np.ndarray) -> dict[str, Any]:
        spec = _static(analysis, layer, np.flatnonzero(~on))
        spec["config"]["name"] = name + suffix
        return {
            **spec,
            "name": name + suffix,
            "inbound_nodes": [{"args": [tensor(entry)], "kwargs": {}}],
        }

    # hard_shrink keeps what is strictly larger; a magnitude equal to the threshold is not under it.
    bound = float(np.nextafter(np.float32(threshold), np.float32(0)))
    layers: list[dict[str, Any]] = [
        {
            "module": "keras.layers",
            "class_name": INPUT,
            "config": {
                "batch_shape": list(shape),
                "dtype": dtype,
                "sparse": False,
                "ragged": False,
                "name": entry,
            },
            "registered_name": None,
            "name": entry,
            "inbound_nodes": [],
        }
    ]
    shrunk_from, result = entry, name + "_shrunk"
    if indices is not None:
        on = np.zeros(channels(analysis, layer), bool)
        on[indices] = True
        layers += [rescaling("_chosen", on), rescaling("_others", ~on)]
        shrunk_from = name + "_chosen"
    layers.append(
        {
            "module": "keras.src.ops.nn",
            "class_name": "HardShrink",
            "config": {"name": name + "_shrunk", "threshold": bound},
            "registered_name": "HardShrink",
            "name": name + "_shrunk",
            "inbound_nodes": [{"args": [tensor(shrunk_from)], "kwargs": {}}],
        }
    )
    if indices is not None:
        result = name + "_sum"
        layers.append(
            {
                "module": "keras.layers",
                "class_name": "Add",
                "config": {"name": result, "trainable": True, "dtype": dtype},
                "registered_name": None,
                "name": result,
                "inbound_nodes": [
                    {"args": [[tensor(name + "_others"), tensor(name + "_shrunk")]], "kwargs": {}}
                ],
            }
        )
    return {
        "module": "keras.src.models.functional",
        "class_name": "Functional",
        "config": {
            "name": name,
            "trainable": False,
            "layers": layers,
            "input_layers": [entry, 0, 0],
            "output_layers": [result, 0, 0],
        },
        "registered_name": "Functional",
    }


def _outputs(analysis: Analysis, layer: Layer) -> list[Labels]:
    record = analysis.map.records.get(layer.twin or layer)
    return record.visits[0].outputs if record is not None and record.visits else []


def output_labels(analysis: Analysis, layer: Layer) -> Labels:
    """The labels of a layer's first output, at its first call."""
    outputs = _outputs(analysis, layer)
    if outputs:
        return outputs[0]
    for key, labels in analysis.map.tensors.items():
        if key[0] + key[1] == layer.path:
            return labels
    return Labels(None)


def channel_axis(layer: Layer, rank: int) -> int:
    return (
        1 if layer.config.get("data_format") == "channels_first" and rank > 2 else max(rank - 1, 0)
    )


def _dtype_name(layer: Layer) -> str:
    """The dtype that a layer computes in, by the name of its policy; float32 for a policy without a name."""
    policy = layer.config.get("dtype")
    if isinstance(policy, dict):
        inner = policy.get("config")
        policy = inner.get("name") if isinstance(inner, dict) else None
    return policy.removeprefix("mixed_") if isinstance(policy, str) and policy else "float32"


# -- putting them in and taking them out ------------------------------------------------------------


def _insert(analysis: Analysis, specs: Mapping[str, dict[str, Any]]) -> Edit:
    copies: dict[int, Any] = {}
    config = copied(analysis.config, copies)
    for path, spec in specs.items():
        layer = layer_at(analysis.model, path)
        if layer.kind == INPUT:
            raise UsageError(
                f"'{clean(path)}' is the model's input, which cannot be masked",
                do="mask the layer that reads it, or set the input's values to 0",
            )
        owner = _owner(analysis.model, layer)
        target = copies[id(owner.spec["config"])]
        if "module" not in layer.spec:  # a legacy .h5 names classes alone
            spec = {
                key: value
                for key, value in spec.items()
                if key not in ("module", "registered_name")
            }
        existing = next(
            (e for e in target["layers"] if entry_name(e) == spec["config"]["name"]), None
        )
        if existing is not None:
            _compose(existing, spec)
        elif owner.is_sequential:
            at = next(
                i for i, entry in enumerate(target["layers"]) if entry_name(entry) == layer.name
            )
            target["layers"].insert(at + 1, spec)
        else:
            nodes = [call.node for call in owner.calls if call.layer is layer]
            shape = output_labels(analysis, layer).shape
            unread = {
                "shape": None if shape is None else list(shape),
                "dtype": _dtype_name(layer),
            }
            insert_behind(target, layer.name, spec, nodes, unread)
    return _renamed(analysis, config)


def _compose(existing: dict[str, Any], spec: dict[str, Any]) -> None:
    """A second mask behind the same layer: a unit masked by either is 0."""
    if existing["class_name"] != "Rescaling":
        existing["config"] = spec["config"]
        return
    both = np.asarray(existing["config"]["scale"]) * np.asarray(spec["config"]["scale"])
    existing["config"]["scale"] = both.tolist()


def unmask(analysis: Analysis, paths: set[str] | None = None) -> tuple[Edit, list[str]]:
    """The edit that removes masks.

    Args:
        paths: of the masked layers; None for every mask.
    Returns: the edit, and the paths of the layers that were masked.
    """
    copies: dict[int, Any] = {}
    config = copied(analysis.config, copies)
    freed = []
    for layer in list(analysis.model.walk()):
        masked = masked_layer(layer)
        if masked is None or (paths is not None and masked not in paths):
            continue
        owner = _owner(analysis.model, layer)
        target = copies[id(owner.spec["config"])]
        entry = next(e for e in target["layers"] if entry_name(e) == layer.name)
        if owner.is_sequential:
            target["layers"].remove(entry)
        else:
            take_out(target, entry)
        freed.append(masked)
    return _renamed(analysis, config), freed


def masked_layer(layer: Layer) -> str | None:
    """The path of the layer that a mask stands behind; None if the layer is no mask."""
    for prefix, kind in ((PREFIX, "Rescaling"), (DYNAMIC, "Functional")):
        if layer.name.startswith(prefix) and layer.kind == kind:
            return layer.path.removesuffix(layer.name) + layer.name.removeprefix(prefix)
    return None


def _renamed(analysis: Analysis, config: dict[str, Any]) -> Edit:
    """One more or one less layer of a class renumbers the weights of the layers behind it."""
    moved = relocate(analysis, config)
    return Edit(config, analysis.metadata, moved.tensors, moved.dropped, order=moved.order)


def _owner(model: Model, layer: Layer) -> Model:
    if layer in model.layers.values():
        return model
    for inner in model.layers.values():
        if inner.inside is not None and layer.path.startswith(inner.inside.path):
            return _owner(inner.inside, layer)
    raise AssertionError(f"{layer.path} is in no model")
