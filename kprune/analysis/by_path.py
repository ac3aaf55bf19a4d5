"""Places of weights in `.keras` files that Keras 2 wrote, where they differ from Keras 3's.

Both name a group after the class of a layer and its number, and sub-objects after the attribute
that holds them. Keras 2's attributes are private (`_query_dense`).
"""

from __future__ import annotations

from collections.abc import Collection

from kprune.graph.weight_groups import groups_of
from kprune.labels.map import LabelMap


def find_private(label_map: LabelMap, tensors: Collection[str]) -> None:
    """Give weights that are not where Keras 3 has them the paths that Keras 2 has."""
    missing = [weight for weight in label_map.weights() if weight.path not in tensors]
    if not missing:
        return
    places = groups_of(tensors) | set(tensors)
    for weight in missing:
        found = ""
        for part in weight.path.split("/"):
            public, private = (f"{found}/{name}".lstrip("/") for name in (part, f"_{part}"))
            found = private if private in places and public not in places else public
        if found in tensors:
            weight.path = found
