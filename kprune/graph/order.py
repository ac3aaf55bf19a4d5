"""The order of `model.layers`, on which the names of weight groups depend.

Keras does not list a Functional model's layers as the config does, but by depth: the longest way to
an output, ties in the order of a depth-first walk back from the outputs (keras/src/ops/function.py,
map_graph). Weights are stored under `layers/<class>_<how many of that class came before>` in that
order, so a config whose layers were shuffled still names the same tensors. To count in config order
instead would give two layers of equal shape each other's weights.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from functools import cache

from kprune.graph.model import Call, TensorRef

CallKey = tuple[str, int]


def layer_order(
    calls: dict[CallKey, Call], outputs: Iterable[TensorRef], unused_inputs: Iterable[str]
) -> list[str]:
    """Layer names in the order of `model.layers`, operations included.

    Args:
        calls: every call, by (layer name, node).
        outputs: the model's outputs, flattened.
        unused_inputs: names of input layers, which Keras lists even where no output needs them.
    """
    finished, first_seen = _walk_back(calls, outputs)
    in_graph = set(finished)
    depth_of_call: dict[CallKey, int] = {}
    depth_of_layer: dict[str, int] = {}
    for key in reversed(finished):
        name = key[0]
        depth = max(depth_of_call.get(key, 0), depth_of_layer.get(name, 0))
        depth_of_layer[name] = depth_of_call[key] = depth
        for ref in calls[key].inputs:
            parent = (ref.layer, ref.node)
            if parent in in_graph:
                depth_of_call[parent] = max(depth + 1, depth_of_call.get(parent, 0))
    for name in unused_inputs:
        if name not in depth_of_layer:
            depth_of_layer[name], first_seen[name] = 0, -1
    return sorted(depth_of_layer, key=lambda name: (-depth_of_layer[name], first_seen[name]))


def _walk_back(
    calls: dict[CallKey, Call], outputs: Iterable[TensorRef]
) -> tuple[list[CallKey], dict[str, int]]:
    """Calls in the order in which a depth-first walk finishes them, and when each layer was first met."""
    finished: dict[CallKey, None] = {}
    first_seen: dict[str, int] = {}
    for output in outputs:
        # Keras recurses here; a loop takes models of any depth.
        stack: list[tuple[str, int, Iterator[TensorRef] | None]] = [
            (output.layer, output.node, None)
        ]
        while stack:
            name, node, todo = stack.pop()
            key = (name, node)
            if todo is None:
                if key in finished:
                    continue
                first_seen.setdefault(name, len(first_seen))
                todo = iter(calls[key].inputs)
            for ref in todo:
                if (ref.layer, ref.node) not in finished:
                    stack.append((name, node, todo))
                    stack.append((ref.layer, ref.node, None))
                    break
            else:
                finished[key] = None
    return list(finished), first_seen


# Exported under one name, called another in Python; the config has the first, the weights file the second.
PYTHON_NAMES = {"GroupQueryAttention": "GroupedQueryAttention"}


@cache  # a model has few classes, each many times over
def snake_case(class_name: str) -> str:
    """`Conv2D` -> `conv2d`, `MultiHeadAttention` -> `multi_head_attention` (keras/src/utils/naming.py)."""
    name = re.sub(r"\W+", "", class_name)
    name = re.sub("(.)([A-Z][a-z]+)", r"\1_\2", name)
    return re.sub("([a-z])([A-Z])", r"\1_\2", name).lower()


def storage_names(class_names: Iterable[str]) -> list[str]:
    """One name a layer: the class in snake case, numbered from the second of its kind (`dense`, `dense_1`)."""
    used: dict[str, int] = {}
    names = []
    for class_name in class_names:
        name = snake_case(PYTHON_NAMES.get(class_name, class_name))
        if name in used:
            used[name] += 1
            name = f"{name}_{used[name]}"
        else:
            used[name] = 0
        names.append(name)
    return names
