"""Groups of a weights file: those of the optimizer, and those of layers in files of Keras 2.12 and 2.13.

These versions list the layers of a model under `_layer_checkpoint_dependencies`, in which a layer that has
weights stands twice: it is saved the first time, and counted both times (keras/saving/saving_lib.py
of 2.12).
"""

from __future__ import annotations

from collections.abc import Collection, Iterable

from kprune.graph.model import Model
from kprune.graph.order import snake_case
from kprune.graph.parse import INPUT

GROUPS = ("optimizer", "optimizer_weights")  # in a `.keras` file and in a legacy `.h5`
"""Groups of a weights file that hold the state of an optimizer."""

OLD_LAYERS = "_layer_checkpoint_dependencies"


def is_old(tensors: Iterable[str]) -> bool:
    """Whether a file was written by Keras 2.12 or 2.13."""
    return any(path.startswith(f"{OLD_LAYERS}/") for path in tensors)


def settle_stores(model: Model, tensors: Collection[str]) -> None:
    """Give each layer the store it has in a file of Keras 2.12 or 2.13.

    Args:
        model: fresh from the parser; changed.
        tensors: paths of all datasets.
    """
    _settle(model, "", groups_of(tensors))


def _settle(model: Model, prefix: str, groups: set[str]) -> None:
    counted: dict[str, int] = {}
    for layer in model.layers.values():
        if (
            layer.is_operation
            or layer.twin is not None
            or (model.is_sequential and layer.kind == INPUT)
        ):
            continue
        name = snake_case(layer.kind)
        number = counted.get(name, 0)
        layer.store = f"{prefix}{OLD_LAYERS}/{name}" + (f"_{number}" if number else "")
        counted[name] = number + (2 if layer.store in groups else 1)
        while layer.wrapped is not None:
            layer.wrapped.store = f"{layer.store}/layer"
            layer = layer.wrapped
        if layer.model is not None:
            _settle(layer.model, layer.store + "/", groups)


def groups_of(tensors: Iterable[str]) -> set[str]:
    """All groups with a tensor somewhere below."""
    groups = set()
    for path in tensors:
        while (path := path.rpartition("/")[0]) and path not in groups:
            groups.add(path)
    return groups


def is_state(path: str) -> bool:
    """Whether a dataset is a part of an optimizer's state."""
    return path.partition("/")[0] in GROUPS
