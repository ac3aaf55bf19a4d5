"""The paths of tensors after the list of layers changed.

Weights are stored under the class of their layer and its number among the layers of that class, so
adding or removing a layer moves those behind it.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from msgspec import Struct
from msgspec.structs import replace

from kprune.analysis.analysis import Analysis
from kprune.edit import Edit, TensorEdit
from kprune.errors import CannotPruneError
from kprune.graph.parse import parse_model
from kprune.graph.weight_groups import GROUPS, is_old, is_state
from kprune.surgery.optimizer import SlotsLeft, slots_left
from kprune.text import clean


class Relocation(Struct, frozen=True):
    """What a change of the layers does to the weights file.

    Attributes:
        tensors: every edit, with the path it has afterwards; and those that only move.
        dropped: prefixes of tensors that have no place any more.
        order: see `Edit`.
    """

    tensors: tuple[TensorEdit, ...]
    dropped: tuple[str, ...]
    order: tuple[str, ...] = ()


def relocate(
    analysis: Analysis, config: dict[str, Any], edits: Iterable[TensorEdit] = ()
) -> Relocation:
    """Paths after a change of layers.

    Args:
        config: the new config.
        edits: of tensors, under the paths that they have now.
    """
    new = parse_model(config)
    after = {layer.path: layer.store for layer in new.walk() if layer.store}
    before = {layer.path: layer.store for layer in analysis.model.walk() if layer.store}
    if is_old(analysis.tensors):
        return _keep_places(analysis, before, after, edits)
    moves = {
        store: after[path]
        for path, store in before.items()
        if path in after and after[path] != store
    }
    lost = [store for path, store in before.items() if path not in after]
    order = [path for path in before if path in after]
    reordered = order != [path for path in after if path in before]
    by_source = {edit.source: edit for edit in edits}
    slots: SlotsLeft | None = SlotsLeft({}, ())
    if reordered:
        slots = None
    elif any(_holds_variables(analysis, store) for store in lost):
        slots = slots_left(analysis, lambda path: _below(analysis.home(path), lost))
    if analysis.order is not None:
        _check_inner_order(analysis, list(after))
        gone = [path for path in analysis.tensors if _below(analysis.home(path), lost)]
        without = [GROUPS[1]] if slots is None and analysis.order.optimizer else []
        left = [edit for edit in edits if slots is None or edit.source not in slots.gone]
        listed = tuple(new.layers) if reordered else ()
        return Relocation(tuple(left), (*gone, *without, *(slots.gone if slots else ())), listed)
    dropped = list(lost)
    if slots is not None:
        dropped += slots.gone
    elif any(map(is_state, analysis.tensors)):
        dropped.append(GROUPS[0])
    tensors = []
    for path in analysis.tensors:
        if any(path == prefix or path.startswith(prefix + "/") for prefix in dropped):
            continue
        edit = by_source.get(path)
        if slots is not None and path in slots.moved:
            place = slots.moved[path]
            tensors.append(replace(edit, path=place) if edit else TensorEdit(place, path))
            continue
        group = path
        while group and group not in moves:
            # The innermost layer around a tensor decides.
            group = group.rpartition("/")[0]
        if group:
            place = moves[group] + path[len(group) :]
            edit = replace(edit, path=place) if edit else TensorEdit(place, path)
        if edit is not None:
            tensors.append(edit)
    return Relocation(tuple(tensors), tuple(dropped))


def _keep_places(
    analysis: Analysis, before: dict[str, str], after: dict[str, str], edits: Iterable[TensorEdit]
) -> Relocation:
    """In a file of Keras 2.12 or 2.13 nothing is moved; layers without weights come and go freely.

    Raises: CannotPruneError if a layer would have to move.
    """
    as_now = {
        layer.path: layer.store for layer in parse_model(analysis.config).walk() if layer.store
    }
    for path, store in before.items():
        if _holds_variables(analysis, store) and after.get(path) != as_now[path]:
            raise CannotPruneError(
                f"the weights of '{clean(path)}' would have to move in the file",
                where=clean(store),
                why="Keras 2.13 and older count layers in a way that kprune can read but not write",
                do="load the model with the Keras that wrote it, save it as .h5, and prune that",
            )
    return Relocation(tuple(edits), ())


def _holds_variables(analysis: Analysis, store: str) -> bool:
    return any(_below(analysis.home(path), [store]) for path in analysis.tensors)


def _below(path: str, stores: Iterable[str]) -> bool:
    return any(path.startswith(store + "/") for store in stores)


def _check_inner_order(analysis: Analysis, after: list[str]) -> None:
    """A legacy `.h5` lists the tensors of a nested model in one run, which no edit reorders.

    Raises: CannotPruneError if a change puts the layers of a nested model in another order.
    """
    for layer in analysis.model.layers.values():
        before = [inner.path for inner in layer.inside.walk()] if layer.inside is not None else []
        kept = set(before) & set(after)
        if [path for path in before if path in kept] != [path for path in after if path in kept]:
            raise CannotPruneError(
                f"the layers of '{clean(layer.path)}' would be in another order",
                where=clean(layer.path),
                why="a legacy .h5 stores the tensors of a nested model in the order of its layers",
                do="load the model in Keras, save it as .keras, and prune that",
            )


def with_names(analysis: Analysis, edit: Edit) -> Edit:
    """The edit with each layer's name beside its group of variables, as Keras 3 writes it, and only Keras 3."""
    if analysis.order is not None or not str(analysis.metadata.get("keras_version", "")).startswith(
        "3"
    ):
        return edit

    def names() -> dict[str, str]:
        model = parse_model(edit.config)
        own = {f"{layer.store}/vars": layer.name for layer in model.walk() if layer.store}
        return {"vars": model.name, **own}

    return replace(edit, names=names)
