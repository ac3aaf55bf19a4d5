"""What a model file holds, layer by layer, and what may be removed of it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np
from msgspec.structs import replace

from kprune.active_content import Kind
from kprune.analysis.analysis import Analysis
from kprune.analysis.counts import LayerCount, count
from kprune.errors import CheckError
from kprune.faults import shown
from kprune.formats import Source, open_model
from kprune.graph.model import Layer
from kprune.graph.parse import INPUT, declared_shape
from kprune.graph.weight_groups import is_state
from kprune.labels.map import UnitAxis, adapted_layers
from kprune.labels.paths import reason
from kprune.opened import LiveModel, Opened, opened
from kprune.page.figures import counted, some
from kprune.pointing import checked
from kprune.report.facts import facts
from kprune.sets import distinct
from kprune.surgery.mask import masked_layer
from kprune.surgery.optimizer import find_slots, optimizer_of
from kprune.surgery.provenance import KEY
from kprune.text import clean
from kprune.types import AnyPath
from kprune.views.inspection import ActiveItem, AxisFacts, Carried, Inspection, LayerFacts


@checked()
def inspect(
    model: AnyPath | LiveModel, *, rules: Iterable[str] = (), trust: bool = False
) -> Inspection:
    """Say what a model file holds, layer by layer, what may be removed, and tied to what.

    Args:
        model: path of a model file; `-` for standard input; or a Keras model.
        rules: files with rules for layers that kprune does not know.
        trust: whether code that is not Keras's own may be run to read the model.
    Raises: FileError if the file cannot be read, CannotPruneError if it holds no graph.
    """
    with opened(model, rules=rules, trust=trust) as found:
        return inspection(found)


def inspection(it: Opened) -> Inspection:
    """The same for an opened model."""
    analysis = it.analysis
    counts = count(analysis)
    axes = AxisFinder(analysis)
    layers = [
        _layer(analysis, axes, layer, counts.layers.get(layer.path))
        for layer in analysis.leaf_layers
        if layer.twin is None
    ]
    return Inspection(
        file=facts(it, counts),
        name=analysis.model.name,
        free=sum(row.free or 0 for row in layers),
        layers=layers,
        carries=_carried(it.source, analysis),
    )


def _layer(
    analysis: Analysis, axes: AxisFinder, layer: Layer, counted: LayerCount | None
) -> LayerFacts:
    record = analysis.map.records.get(layer)
    outputs = record.visits[0].outputs if record is not None and record.visits else []
    declared = declared_shape(layer) if layer.kind == INPUT else None
    shape = outputs[0].shape if outputs else declared
    own = list(record.axes.values()) if record is not None else []
    own = [axis for axis in own if analysis.map.axes.get(axis.address) is axis]
    main = next((axis for axis in own if axis.default and axis.name != "features"), None)
    row = LayerFacts(
        name=layer.path,
        class_=layer.kind,
        output=None if shape is None else list(shape),
        units=None if main is None else len(main),
        parameters=counted.parameters if counted else 0,
        trainable=counted.trainable if counted else 0,
        flops=counted.flops if counted else 0,
        axes=[axes.facts(axis) for axis in own if axis is not main],
        opaque="" if record is None else record.opaque,
    )
    if main is None:
        return row
    found = axes.facts(main)
    shared = ("free", "named_only", "group_size", "largest_group", "tied_to", "why_not", "mixed")
    return replace(row, **{name: getattr(found, name) for name in shared})


class AxisFinder:
    """What is known of each axis of units; what concerns all of them is worked out once."""

    def __init__(self, analysis: Analysis) -> None:
        groups = analysis.groups
        self._analysis, self._groups = analysis, groups
        self._frozen = groups.frozen()
        self._by_rule = groups.frozen(("input", "rule"))
        self._addresses = list(analysis.map.axes)
        named = np.flatnonzero(groups.owner >= 0)
        count = len(self._addresses)
        pairs = distinct(groups.of[named] * count + groups.owner[named])
        self._pair_group, self._pair_owner = np.divmod(pairs, max(count, 1))
        self._freezes = [(freeze, self._groups_of(freeze.ids)) for freeze in analysis.map.freezes]
        self._mixes = [(mix, self._groups_of(mix.ids)) for mix in analysis.map.mixes]

    def facts(self, axis: UnitAxis) -> AxisFacts:
        """All about one axis of units."""
        groups = self._groups
        frozen = self._frozen[axis.ids]
        sizes = groups.sizes[axis.ids]
        here = np.zeros(self._analysis.map.count, bool)
        here[groups.of[axis.ids]] = True
        # An output that nothing else is tied to goes when the user names it.
        answers = frozen & ~self._by_rule[axis.ids] & (sizes == 1)
        owners = distinct(self._pair_owner[here[self._pair_group]])
        mixed = (mix for mix, of in self._mixes if here[of].any())
        return AxisFacts(
            name=axis.name,
            address=axis.address,
            units=len(axis),
            free=int((~frozen).sum()),
            named_only=int(answers.sum()),
            group_size=int(np.sort(sizes)[len(sizes) // 2]) if len(sizes) else 0,
            largest_group=int(sizes.max()) if len(sizes) else 0,
            tied_to=[
                address for owner in owners if (address := self._addresses[owner]) != axis.address
            ],
            why_not=list(dict.fromkeys(self._reasons(axis, here))) if frozen.any() else [],
            mixed=list(dict.fromkeys(clean(mix.why, 300) for mix in mixed)),
        )

    def _groups_of(self, ids: np.ndarray) -> np.ndarray:
        return distinct(self._groups.of[ids])

    def _reasons(self, axis: UnitAxis, here: np.ndarray) -> Iterator[str]:
        found = False
        for freeze, of in self._freezes:
            if here[of].any():
                found = True
                yield reason(freeze)
        if not found:
            # Held through units that go only all together, such as the dimensions of a head.
            for freeze in self._groups.freezes_of(axis.ids):
                yield reason(freeze)


def _carried(source: Source, analysis: Analysis) -> Carried:
    leaves = analysis.leaf_layers
    active = source.active()
    optimizer, note = None, ""
    if any(map(is_state, source.tensors)):
        optimizer = optimizer_of(analysis)[0] or "?"
        note = find_slots(analysis).why
    pruned = analysis.metadata.get(KEY)
    version = analysis.metadata.get("keras_version")
    return Carried(
        keras_version=None if version is None else str(version),
        optimizer=optimizer,
        optimizer_note=note,
        lambdas=list(dict.fromkeys(item.place for item in active if item.kind is Kind.BYTECODE)),
        foreign={
            layer.path: layer.registered or f"{layer.module}.{layer.kind}"
            for layer in leaves
            if not layer.is_builtin and not layer.is_operation
        },
        assets=source.extras,
        masks=[
            masked for layer in analysis.model.walk() if (masked := masked_layer(layer)) is not None
        ],
        pruned=pruned,
        adapters=adapted_layers(analysis.variables),
        active=[ActiveItem.of(item) for item in active],
    )


def require_inert(model: AnyPath, found: Inspection | None = None) -> None:
    """Hold it against a file if anything in it would act when Keras loads it.

    Args:
        found: what `inspect` found; None where it could not, since the file holds no graph.
    Raises: CheckError that says what.
    """
    if found is not None:
        items = [item.text for item in found.carries.active]
    else:
        with open_model(model) as source:
            items = [str(item) for item in source.active()]
    if items:
        act = f"{counted(len(items), 'thing')} in it would act when Keras loads it"
        raise CheckError(f"{shown(model)} is not inert: {act} ({some(items, 3)})")
