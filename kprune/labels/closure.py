"""From chosen units to everything that is removed with them, or the reason why it cannot be."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from msgspec import Struct

from kprune.errors import CannotPruneError, FrozenUnitsError, LastUnitError, NotARectangleError
from kprune.graph.model import Layer
from kprune.labels.additions import additions
from kprune.labels.branches import dead_branches
from kprune.labels.groups import Groups
from kprune.labels.labels import Labels
from kprune.labels.map import LAYER, TOKENS, Blocks, Freeze, UnitAxis
from kprune.labels.paths import path_between, path_to_freeze, reason
from kprune.sets import distinct, without
from kprune.text import clean

Units = Mapping[str, np.ndarray]
"""By address of an axis, sorted int64 indices of its units."""


class Closure(Struct, frozen=True, eq=False):
    """Chosen units, and all units that are removed with them.

    Attributes:
        groups: the solved ties.
        chosen: by address of the axis, sorted int64 indices: the request.
        gone: bool (labels,): what is removed.
        mixed: the labels among them over which a statistic is taken: the result is then not exact.
    """

    groups: Groups
    chosen: dict[str, np.ndarray]
    gone: np.ndarray

    @property
    def affected(self) -> dict[str, np.ndarray]:
        """By address, the indices of every unit that goes, in the order of the model."""
        found = {}
        for address, axis in self.groups.map.axes.items():
            indices = np.flatnonzero(self.gone[axis.ids])
            if indices.size:
                found[address] = indices
        return found

    @property
    def coupled(self) -> dict[str, np.ndarray]:
        """By address, the units that were not chosen and are removed with them."""
        rest = {}
        for address, indices in self.affected.items():
            others = without(indices, self.chosen.get(address, np.zeros(0, np.int64)))
            if others.size:
                rest[address] = others
        return rest


def close(groups: Groups, chosen: Mapping[str, np.ndarray]) -> Closure:
    """Everything that is removed with the chosen units, whether or not that is possible.

    Args:
        chosen: by address of an axis of units, int64 indices.
    """
    ids = [groups.map.axes[address].ids[indices] for address, indices in chosen.items()]
    labels = np.concatenate([np.zeros(0, np.int64), *ids])
    return Closure(
        groups,
        {address: distinct(indices) for address, indices in chosen.items()},
        groups.spread(labels),
    )


def check(
    closure: Closure,
    *,
    allow_output_change: bool = False,
    coupled: bool = True,
    drop_branches: bool = False,
) -> None:
    """Refuse what cannot be removed.

    Args:
        drop_branches: whether a layer may vanish with its branch though not all of its units were chosen.
    Raises:
        FrozenUnitsError: a frozen unit would be removed; with the path that leads there.
        CannotPruneError: `coupled` is False and other units would be removed as well.
        LastUnitError, NotARectangleError: what is left would not be a layer, or not a block; or a
            layer would vanish that nobody chose to remove whole.
        CannotPruneError: Keras would compute something else, now that a width is 1.
    """
    _check_frozen(closure, allow_output_change)
    if not coupled and closure.coupled:
        refuse_coupled(closure)
    leaving = dead_branches(closure.groups, closure.gone) if closure.gone.any() else set()
    _check_last_unit(closure, leaving)
    if not drop_branches:
        _check_branches(closure, leaving)
    _check_rectangles(closure)
    _check_blocks(closure)
    _check_additions(closure)
    _check_several(closure)


def _check_additions(closure: Closure) -> None:
    for addition in additions(closure.groups.map):
        if addition.goes_astray(closure.gone):
            raise CannotPruneError(
                f"'{clean(addition.layer.path)}' would add along the wrong axis",
                why="one unit of what it adds would be left, and keras.ops.add treats an "
                "operand with a single size other than 1 as a bias, which it adds along the last axis or axis 1",
                do="keep two units",
            )


def _check_several(closure: Closure) -> None:
    for needed in closure.groups.map.several:
        if needed.lost(closure.gone):
            raise CannotPruneError(
                f"'{clean(needed.layer.path)}' would lose the axis on which one unit is left",
                why=needed.why,
                do="keep two units",
            )


def _check_frozen(closure: Closure, allow_output_change: bool) -> None:
    label_map = closure.groups.map
    for freeze in label_map.freezes:
        hit = freeze.ids[closure.gone[freeze.ids]]
        if not hit.size:
            continue
        if freeze.kind in ("input", "output") and allow_output_change:
            continue
        if freeze.kind == "output" and _named_itself(closure, hit):
            continue
        if freeze.kind == TOKENS and _named_tokens(closure, hit):
            continue
        raise _frozen(closure, freeze, int(hit[0]))


def _named_itself(closure: Closure, outputs: np.ndarray) -> bool:
    """Whether these outputs are only units of an output layer that were named.

    Several units of a layer are one output where their positions are folded into the batch.
    """
    owner = closure.groups.owner
    axes = list(closure.groups.map.axes)
    chosen = closure.groups.map.axes
    for label in outputs:
        group = np.flatnonzero(closure.groups.of == closure.groups.of[label])
        group = group[owner[group] >= 0]
        if len(np.unique(owner[group])) != 1:
            return False
        address = axes[owner[group[0]]]
        indices = closure.chosen.get(address)
        if indices is None or not np.isin(group, chosen[address].ids[indices]).all():
            return False
    return True


def _named_tokens(closure: Closure, rows: np.ndarray) -> bool:
    """Whether these rows of embeddings go with rows that were named."""
    of, axes = closure.groups.of, closure.groups.map.axes
    named = [
        axes[address].ids[indices]
        for address, indices in closure.chosen.items()
        if axes[address].name == TOKENS
    ]
    return bool(named) and bool(np.isin(of[rows], of[np.concatenate(named)]).all())


def _frozen(closure: Closure, freeze: Freeze, label: int) -> FrozenUnitsError:
    address, index = _who(closure, label)
    steps = (
        path_to_freeze(closure.groups, closure.groups.map.axes[address], index, freeze)
        if address
        else []
    )
    ways = {
        "input": "choose other units, or pass --allow-output-change to change what the model takes",
        "output": "choose other units, or pass --allow-output-change to change what the model gives",
        TOKENS: "name the rows: LAYER.tokens:INDICES, or --keep-tokens FILE",
        "rule": f"choose other units{_or_rule(closure, freeze)}, or use 'kprune mask', which changes no shape",
    }
    return FrozenUnitsError(
        f"cannot remove unit {index} of '{clean(address)}'",
        where=" -> ".join(clean(step) for step in steps),
        why=_why_frozen(freeze, address),
        do=freeze.do or ways[freeze.kind],
    )


def _or_rule(closure: Closure, freeze: Freeze) -> str:
    """The advice that a rule may help, if a rule would be used: kprune's own rules cannot be replaced."""
    walk = closure.groups.map.model.walk()
    layer = next((layer for layer in walk if layer.path == freeze.at), None)
    asked = layer is not None and not layer.is_builtin and not layer.is_operation
    return ", give the layer a rule (--rules my_layers.py)" if asked else ""


def _why_frozen(freeze: Freeze, address: str) -> str:
    if freeze.kind == "input":
        tied = "" if freeze.at == address else "tied to "
        return f"it is {tied}a feature of the model's input"
    if freeze.kind == "output":
        return "it is tied to units which are the model's output"
    why = reason(freeze)
    return f"{why}, so the units that reach it are frozen" if freeze.subject == LAYER else why


def _who(closure: Closure, label: int) -> tuple[str, int]:
    """A chosen unit in a label's group, as (address, index); any unit of it if none was chosen."""
    group = closure.groups.of[label]
    for address, indices in closure.chosen.items():
        ids = closure.groups.map.axes[address].ids[indices]
        hit = np.flatnonzero(closure.groups.of[ids] == group)
        if hit.size:
            return address, int(indices[hit[0]])
    for address, axis in closure.groups.map.axes.items():
        hit = np.flatnonzero(closure.groups.of[axis.ids] == group)
        if hit.size:
            return address, int(hit[0])
    return "", -1


def refuse_coupled(closure: Closure) -> None:
    parts = [
        f"{clean(address)}:{','.join(map(str, indices[:8]))}{'…' if len(indices) > 8 else ''}"
        for address, indices in closure.coupled.items()
    ]
    raise CannotPruneError(
        "other units would be removed with the chosen ones",
        where=", ".join(parts[:6]) + (" …" if len(parts) > 6 else ""),
        why="they are tied (added or multiplied element by element, or shared), and --no-coupled was given",
        do="leave out --no-coupled, or choose units that are tied to nothing ('kprune explain' tells)",
    )


def _check_last_unit(closure: Closure, leaving: set[Layer]) -> None:
    for axis in closure.groups.map.axes.values():
        if len(axis) and axis.layer not in leaving and closure.gone[axis.ids].all():
            raise _last_unit(closure, axis)
    for size in (size for part in closure.groups.map.whole() for size in part.sizes):
        dead = size.axis.dead(closure.gone)
        if size.layer in leaving:
            continue
        if dead.size and dead.all():
            along = f" along {'.'.join(map(str, size.field))}" if size.field else ""
            raise LastUnitError(
                f"'{clean(size.layer.path)}' would have no units left{along}",
                why="Keras has no layer of width 0",
                do="keep at least one of the units that reach it",
            )


def _last_unit(closure: Closure, axis: UnitAxis) -> LastUnitError:
    chosen = closure.chosen.get(axis.address, np.zeros(0, np.int64))
    whole = len(chosen) == len(axis)
    return LastUnitError(
        f"all {len(axis)} units of '{clean(axis.address)}' would be removed"
        + ("" if whole else ", counting the units tied to the chosen ones"),
        where="" if whole else " -> ".join(clean(step) for step in _way_to(closure, axis, chosen)),
        why="no layer loses its last unit: Keras has no layer of width 0",
        do=f"keep at least one of 0 to {len(axis) - 1}",
    )


def _check_branches(closure: Closure, leaving: set[Layer]) -> None:
    """A layer vanishes only if every unit of it was chosen."""
    for axis in closure.groups.map.axes.values():
        if not len(axis) or axis.layer not in leaving or not closure.gone[axis.ids].all():
            continue
        chosen = closure.chosen.get(axis.address, np.zeros(0, np.int64))
        if len(chosen) == len(axis):
            continue
        only = f"only {len(chosen)} of its" if len(chosen) else "none of its"
        raise LastUnitError(
            f"'{clean(axis.layer.path)}' would vanish with its branch, and {only} {len(axis)} units "
            f"{'was' if len(chosen) == 1 else 'were'} chosen",
            where=" -> ".join(clean(step) for step in _way_to(closure, axis, chosen)),
            why="its other units are tied to the chosen ones, and a layer of width 0 cannot stay",
            do=f"keep at least one unit that it is tied to, choose every unit of '{clean(axis.address)}' as well, "
            "or pass --drop-branches to 'kprune remove' or 'kprune apply'",
        )


def _way_to(closure: Closure, axis: UnitAxis, chosen: np.ndarray) -> list[str]:
    """The path from a chosen unit to one of `axis` that was not chosen and is removed with it."""
    groups = closure.groups
    label = int(axis.ids[without(np.arange(len(axis)), chosen)[0]])
    address, index = _who(closure, label)
    if address in closure.chosen and address != axis.address:
        return path_between(groups, groups.map.axes[address], index, axis)
    group = groups.of[label]
    ties = [tie.at for tie in groups.map.ties if (groups.of[tie.a] == group).any()]
    return list(dict.fromkeys([axis.layer.path, *ties]))


def _check_rectangles(closure: Closure) -> None:
    seen: set[int] = set()
    tensors = (item for part in closure.groups.map.whole() for item in part.tensors.items())
    for (prefix, layer, _, _), labels in tensors:
        for factor in labels.factors:
            if id(factor) in seen or sum(extent > 1 for extent in factor.shape) < 2:
                continue
            seen.add(id(factor))
            if not is_rectangle(~closure.gone[factor]):
                raise NotARectangleError(
                    f"the rest of the output of '{clean(prefix + layer)}' would not be a rectangular block",
                    where=clean(prefix + layer),
                    why=f"its units stand along several axes at once ({_along(labels, factor)}), and each "
                    "axis must lose whole rows",
                    do="choose the units of whole rows or columns ('kprune explain' tells which belong together)",
                )


def is_rectangle(alive: np.ndarray) -> bool:
    """Whether the True entries are all combinations of some positions along each axis."""
    block = np.ones((1,) * alive.ndim, bool)
    for axis in range(alive.ndim):
        others = tuple(other for other in range(alive.ndim) if other != axis)
        block = block & alive.any(axis=others, keepdims=True)
    return bool((alive == block).all())


def _along(labels: Labels, factor: np.ndarray) -> str:
    return " x ".join(str(extent) for extent in factor.shape if extent > 1)


def _check_blocks(closure: Closure) -> None:
    for blocks in (blocks for part in closure.groups.map.whole() for blocks in part.blocks):
        message = unbalanced(blocks, closure.gone)
        if message:
            raise CannotPruneError(
                f"the {blocks.field} of '{clean(blocks.layer.path)}' would be uneven",
                where=clean(blocks.layer.path),
                why=message,
                do="take the same number of units from each group, or whole groups",
            )


def unbalanced(blocks: Blocks, gone: np.ndarray) -> str:
    """Why a choice does not leave equal runs; "" if it does."""
    counts = [(~gone[side]).sum(axis=1) for side in blocks.sides]
    empty = counts[0] == 0
    for count in counts:
        if ((count == 0) != empty).any():
            return "a group would be left with inputs and no outputs, or the other way round"
        left = distinct(count[count > 0])
        if len(left) > 1:
            return f"its groups would keep {', '.join(map(str, left))} units: they must stay equal"
        if not len(left):
            return "no group would be left"
    return ""
