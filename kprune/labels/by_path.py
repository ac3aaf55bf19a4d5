"""Places of weights in `.keras` files that Keras 2 wrote, where they differ from Keras 3's.

Both name a group after the class of a layer and its number, and sub-objects after the attribute
that holds them. Keras 2's attributes are private (`_query_dense`). Keras 2.12 and 2.13 list the
layers of a model under `_layer_checkpoint_dependencies`, in which a layer that has weights stands
twice: it is saved the first time, and counted both times (keras/saving/saving_lib.py of 2.12).
"""

from __future__ import annotations

from collections.abc import Collection, Iterable

from kprune.graph.model import Model
from kprune.graph.order import snake_case
from kprune.graph.parse import INPUT
from kprune.labels.map import LabelMap

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
    _settle(model, "", _groups(tensors))


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


def _groups(tensors: Iterable[str]) -> set[str]:
    """All groups with a tensor somewhere below."""
    groups = set()
    for path in tensors:
        while (path := path.rpartition("/")[0]) and path not in groups:
            groups.add(path)
    return groups


def find_private(label_map: LabelMap, tensors: Collection[str]) -> None:
    """Give weights that are not where Keras 3 has them the paths that Keras 2 has."""
    missing = [weight for weight in label_map.weights() if weight.path not in tensors]
    if not missing:
        return
    places = _groups(tensors) | set(tensors)
    for weight in missing:
        found = ""
        for part in weight.path.split("/"):
            public, private = (f"{found}/{name}".lstrip("/") for name in (part, f"_{part}"))
            found = private if private in places and public not in places else public
        if found in tensors:
            weight.path = found
