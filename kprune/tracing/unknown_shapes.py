"""What is known of a tensor whose shape the file does not record: from its consumer's class and kernel.

A legacy `.h5` records no shapes, and behind a layer that cannot be followed (a Lambda) none can be
worked out. Yet a Conv2D takes tensors of four axes, and as many channels as its kernel has rows.
What is found so is only as much as that: sizes along which a layer slides stay unknown.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence

from kprune.graph.model import Call, Layer, Model, Shape
from kprune.labels.labels import Labels

Kernels = Callable[[Layer], Shape | None]
"""Gives the shape of the first weight that the file holds for a layer; None if there is none."""

_SPATIAL = (
    r"(Separable|Depthwise)?Conv(olution)?[123]D(Transpose)?|(Global)?(Max|Average|Avg)Pool(ing)?[123]D"
    r"|(Cropping|ZeroPadding|UpSampling|SpatialDropout)[123]D"
)
_RECURRENT = frozenset({"LSTM", "GRU", "SimpleRNN"})
# Layers that give a tensor of the shape that they get: behind them stands what stands before them.
_KEEPING = frozenset({"Dropout", "Activation", "ReLU", "LeakyReLU", "ELU", "GaussianNoise"})
_EVERYWHERE = _KEEPING | frozenset(
    {"Dense", "Add", "Subtract", "Multiply", "Average", "Maximum", "Minimum", "GaussianDropout"}
)
_ALONG_AXIS = frozenset({"Concatenate", "Softmax", "LayerNormalization"})


def stored_kernels(
    tensors: Mapping[str, object], layers: Mapping[str, Sequence[str]] | None
) -> Kernels:
    """How to find the first weight of a layer.

    Args:
        tensors: by dataset path, with their shapes.
        layers: for each layer of the outermost model its datasets, where a file goes by their order.
    """

    def found(layer: Layer) -> Shape | None:
        if layers is None:
            path = f"{layer.store}/vars/0"
        else:
            outer = layers.get(layer.path.partition("/")[0], ())
            nested = "/" in layer.path
            own = (
                p for p in outer if not nested or p.rpartition("/")[0].endswith(f"/{layer.name}")
            )
            path = next(own, "")
        return getattr(tensors.get(path), "shape", None)

    return found


def rank_of(layer: Layer) -> int | None:
    """How many axes, the batch among them, a layer's input has by its class; None if that is open."""
    if layer.kind in _RECURRENT:
        return 3
    if re.fullmatch(_SPATIAL, layer.kind):
        return 2 + int(re.sub(r"\D", "", layer.kind))
    return None


def known_input(layer: Layer, x: Labels, kernels: Kernels) -> Labels:
    """A tensor that a layer is called on, with what the layer says of its shape where that is unknown."""
    shape = x.shape
    if shape is None:
        rank = rank_of(layer)
        if rank is None:
            return x
        shape = (None,) * rank
    axis = 1 if layer.config.get("data_format") == "channels_first" else len(shape) - 1
    if len(shape) > 1 and shape[axis] is None:
        size = _channels(layer, kernels)
        if size is not None and not x.factors:
            shape = (*shape[:axis], size, *shape[axis + 1 :])
    return x if shape == x.shape else x.with_shape(shape)


def _channels(layer: Layer, kernels: Kernels) -> int | None:
    """How many channels a layer takes, by its kernel."""
    if layer.kind == "Dense" or layer.kind in _RECURRENT:
        place = 0
    elif "Conv" in layer.kind and (rank := rank_of(layer)) is not None:
        place = rank - 1 if layer.kind.endswith("Transpose") else rank - 2
    else:
        return None
    kernel = kernels(layer)
    if kernel is None or len(kernel) <= place:
        return None
    size = kernel[place]
    return None if size is None else size * int(layer.config.get("groups") or 1)


def only_last_axis(model: Model, name: str) -> bool:
    """Whether all that is made of what a layer gives works along its last axis, however many there are.

    Then a Dense behind a tensor of unknown rank can be taken for one behind a tensor of two axes.

    Args:
        model: the outermost one, since the readers of another one's outputs are unknown.
        name: of the layer.
    """
    readers: dict[str, list[Layer]] = {}
    for call in model.calls:
        for ref in call.inputs:
            readers.setdefault(ref.layer, []).append(call.layer)
    stack, seen = list(readers.get(name, [])), {name}
    while stack:
        layer = stack.pop()
        if layer.name in seen:
            continue
        seen.add(layer.name)
        if not layer.is_builtin or not _along_last_axis(layer):
            return False
        stack += readers.get(layer.name, [])
    return True


def _along_last_axis(layer: Layer) -> bool:
    axis = layer.config.get("axis", -1)
    if isinstance(axis, list) and len(axis) == 1:
        axis = axis[0]
    if layer.kind == "BatchNormalization":  # of a built one Keras 2 stores the axis counted from 0
        return axis in (-1, 1)
    return layer.kind in _EVERYWHERE or (layer.kind in _ALONG_AXIS and axis == -1)


def widths(model: Model, kernels: Kernels) -> dict[tuple[str, int, int], int]:
    """How wide tensors are on their last axis, as the kernels of the Dense layers that read them say."""
    makers = {(call.layer.name, call.node): call for call in model.calls}
    found: dict[tuple[str, int, int], int] = {}
    for call in model.calls:
        if call.layer.kind == "Dense" and len(call.inputs) == 1:
            size = _channels(call.layer, kernels)
            before: Call | None = call
            while size is not None and before is not None and len(before.inputs) == 1:
                key = before.inputs[0].key
                found.setdefault(key, size)
                before = makers.get(key[:2])
                if before is not None and before.layer.kind not in _KEEPING:
                    break
    return found
