"""The contents of a model file, as data and as text for one screen."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Annotated, Any

import msgspec
from msgspec import Meta, Struct, field

from kprune.active_content import Active, Kind
from kprune.labels.map import TOKENS
from kprune.page.figures import counted, figure, shape, short, some
from kprune.page.page import Page
from kprune.page.result import Result
from kprune.report.facts import FileFacts
from kprune.text import clean, human_bytes

MOST_ACTIVE = 100
"""Lines about what is active in a file; the JSON has all of it."""

COLUMNS = ["~layer", "…class", "?output", ">units", ">free", ">parameters", ">FLOPs", "~note"]


class AxisFacts(Struct, frozen=True):
    """The units of one layer along one of its axes of units."""

    name: Annotated[
        str, Meta(description="units, or heads, key_dim, value_dim; features of an input")
    ]
    address: Annotated[str, Meta(description="LAYER[.AXIS], as it is written in a spec")]
    units: int
    free: Annotated[int, Meta(description="how many of them can be removed")]
    named_only: Annotated[
        int,
        Meta(description="of those that are not free: the model's answers, which go when named"),
    ]
    group_size: Annotated[
        int, Meta(description="units tied together, itself included: the typical number")
    ]
    largest_group: int
    tied_to: Annotated[list[str], Meta(description="addresses of units in the same groups")]
    why_not: Annotated[list[str], Meta(description="why some are not free")]
    mixed: Annotated[
        list[str], Meta(description="statistics taken over them: removal is not exact")
    ]


class LayerFacts(Struct, frozen=True):
    """One layer, or one operation. Units, free and the rest are those of the default axis."""

    name: str
    class_: str = msgspec.field(name="class")
    output: Annotated[
        list[int | None] | None,
        Meta(description="shape of what it gives, batch first; null if unknown"),
    ]
    units: int | None
    parameters: int
    trainable: int
    flops: int
    free: int | None = None
    named_only: int = 0
    group_size: int | None = None
    largest_group: int | None = None
    tied_to: list[str] = msgspec.field(default_factory=list)
    why_not: list[str] = msgspec.field(default_factory=list)
    mixed: list[str] = msgspec.field(default_factory=list)
    axes: Annotated[
        list[AxisFacts], Meta(description="further axes of units, such as key_dim of attention")
    ] = msgspec.field(default_factory=list)
    opaque: Annotated[
        str, Meta(description="why nothing can be removed through this layer; empty if it can")
    ] = ""


class ActiveItem(Struct, frozen=True):
    """One thing in a file that would run, import, call or read something when Keras loads it."""

    kind: Annotated[str, Meta(description=", ".join(kind.name.lower() for kind in Kind))]
    place: Annotated[str, Meta(description="path of the layer, compile_config, or empty")]
    what: Annotated[str, Meta(description="what it names: a module, function, path, address")]
    text: Annotated[str, Meta(description="the same as a sentence")]

    @classmethod
    def of(cls, item: Active) -> ActiveItem:
        return cls(item.kind.name.lower(), item.place, item.what, str(item))


class Carried(Struct, frozen=True):
    """What a file carries besides weights and a graph of Keras's own layers."""

    keras_version: str | None
    optimizer: Annotated[
        str | None, Meta(description="class of the optimizer whose state is saved")
    ]
    optimizer_note: Annotated[
        str, Meta(description="why that state would be left out, if it would")
    ]
    lambdas: Annotated[
        list[str], Meta(description="layers with Python bytecode, which kprune never runs unasked")
    ]
    foreign: Annotated[
        dict[str, str], Meta(description="by layer, classes that are not Keras's own")
    ]
    assets: Annotated[list[str], Meta(description="further files, such as vocabularies")]
    masks: Annotated[list[str], Meta(description="layers that 'kprune mask' silenced")]
    pruned: Annotated[
        dict[str, Any] | None,
        Meta(description="what kprune did to it before: version, plan, units"),
    ]
    adapters: Annotated[
        list[str], Meta(description="layers whose kernels have adapters of LoRA")
    ] = field(default_factory=list)
    active: Annotated[
        list[ActiveItem],
        Meta(
            description="what would run, import, call or read something when Keras loads the file, "
            "which kprune never does unasked"
        ),
    ] = field(default_factory=list)


class Inspection(Result, frozen=True, kw_only=True):
    """A model file, as `kprune inspect` shows it."""

    file: FileFacts
    name: str
    free: Annotated[int, Meta(description="how many units can be removed, over all layers")]
    layers: list[LayerFacts]
    carries: Carried
    command: str = "inspect"

    def show(self, on: Page, *, all_layers: bool = False) -> None:
        """Write a table of the layers, and what the file holds besides.

        Args:
            all_layers: also layers with neither units nor weights.
        """
        sets = tied_sets(self.layers)
        rows = []
        for layer in self.layers:
            if (
                all_layers
                or layer.units is not None
                or layer.parameters
                or layer.opaque
                or _axes(layer)
            ):
                rows.append(_row(layer, sets))
                rows += [_axis_row(layer, axis, sets) for axis in _axes(layer)]
        on.table(COLUMNS, rows)
        on.print()
        on.texts(
            [
                *_legend(self, sets),
                *_totals(self),
                *_carried(self.carries),
                *_active(self.carries.active),
            ]
        )


def _axes(layer: LayerFacts) -> list[AxisFacts]:
    """The further axes of units, except the features of an input, which are no layer's own."""
    return [axis for axis in layer.axes if axis.name != "features"]


def _row(layer: LayerFacts, sets: dict[str, str]) -> list[Any]:
    return [
        clean(layer.name),
        clean(layer.class_, 40),
        shape(layer.output),
        figure(layer.units),
        figure(layer.free),
        figure(layer.parameters or None),
        short(layer.flops),
        _note(layer, sets.get(layer.name, "")),
        "dim" if layer.units is None and not _axes(layer) else None,
    ]


def _axis_row(layer: LayerFacts, axis: AxisFacts, sets: dict[str, str]) -> list[Any]:
    note = _note(axis, sets.get(axis.address, ""))
    return [
        f"  .{clean(axis.name)}",
        "",
        "",
        figure(axis.units),
        figure(axis.free),
        "",
        "",
        note,
        None,
    ]


def _note(facts: LayerFacts | AxisFacts, letters: str) -> str:
    """Why not all units are free, and what they are tied to, in a word or two; the legend has the rest."""
    words = []
    if letters:
        words.append(f"tied {letters}")
    if facts.named_only:
        words.append(TOKENS if isinstance(facts, AxisFacts) and facts.name == TOKENS else "output")
    elif facts.units is not None and facts.free is not None and facts.free < facts.units:
        words.append("frozen")
    if isinstance(facts, LayerFacts) and facts.opaque:
        words.append("opaque")
    if facts.mixed and not facts.named_only:
        words.append("mixed")
    return ", ".join(words)


def tied_sets(layers: Iterable[LayerFacts]) -> dict[str, str]:
    """A letter for each address that is tied to others: the same for all that are tied together."""
    ties: dict[str, list[str]] = {}
    for layer in layers:
        if layer.tied_to:
            ties[layer.name] = layer.tied_to
        for axis in layer.axes:
            if axis.tied_to:
                ties[axis.address] = axis.tied_to
    letters: dict[str, str] = {}
    for address in ties:
        if address in letters:
            continue
        letter = _letter(len(set(letters.values())))
        waiting = [address]
        while waiting:
            here = waiting.pop()
            if here not in letters:
                letters[here] = letter
                waiting += ties.get(here, [])
    return letters


def _letter(number: int) -> str:
    """A, B, … Z, AA, AB …"""
    return (_letter(number // 26 - 1) if number >= 26 else "") + chr(ord("A") + number % 26)


def _legend(found: Inspection, sets: dict[str, str]) -> Iterator[tuple[str, str]]:
    if sets:
        yield "tied", "units of layers with the same letter go together, one by one"
    outputs = [layer.name for layer in found.layers if layer.named_only]
    if outputs:
        yield (
            "output",
            f"the model's answers: they go only when '{clean(outputs[0])}' itself is named",
        )
    rows = [axis.address for layer in found.layers for axis in layer.axes if axis.name == TOKENS]
    if rows:
        named = f"'{clean(rows[0])}:INDICES', or --keep-tokens FILE"
        yield TOKENS, f"rows for tokens: they go only when they are named ({named})"
    frozen = _reasons(found.layers, "why_not")
    for label, reasons in (
        ("frozen", frozen),
        (
            "opaque",
            {
                layer.opaque: [layer.name]
                for layer in found.layers
                if layer.opaque not in ("", *frozen)
            },
        ),
        ("mixed", _reasons(found.layers, "mixed")),
    ):
        for why, names in reasons.items():
            who = "" if label == "opaque" else f" ({some([clean(name) for name in names], 4)})"
            yield label, clean(why, 300) + who


def _reasons(layers: Iterable[LayerFacts], field: str) -> dict[str, list[str]]:
    """Why units are frozen or mixed, and in which layers; outputs of the model are left out."""
    found: dict[str, list[str]] = {}
    for layer in layers:
        parts: list[LayerFacts | AxisFacts] = [layer, *_axes(layer)]
        for facts in parts:
            if facts.named_only:
                continue
            name = facts.name if isinstance(facts, LayerFacts) else facts.address
            for why in getattr(facts, field):
                found.setdefault(why, []).append(name)
    return found


def _totals(found: Inspection) -> Iterator[tuple[str, str]]:
    file = found.file
    fixed = file.parameters - file.trainable_parameters
    parts = [
        f"{file.units:,} units ({found.free:,} free)",
        f"{file.parameters:,} parameters" + (f" ({fixed:,} not trainable)" if fixed else ""),
        f"{short(file.flops) or 0} FLOPs",
        human_bytes(file.bytes),
    ]
    yield "total", ", ".join(parts)


def _carried(carried: Carried) -> Iterator[tuple[str, str]]:
    parts = []
    if carried.optimizer is not None:
        lost = f"; {carried.optimizer_note}" if carried.optimizer_note else ""
        parts.append(f"the state of the optimizer ({clean(carried.optimizer)}){lost}")
    if carried.foreign:
        names = some(
            [f"{clean(kind)} ({clean(name)})" for name, kind in carried.foreign.items()], 4
        )
        parts.append(f"classes that are not Keras's own: {names}")
    if carried.assets:
        names = some([clean(name) for name in carried.assets], 3)
        parts.append(f"{counted(len(carried.assets), 'asset')}: {names}")
    if carried.masks:
        names = some([clean(name) for name in carried.masks], 6)
        parts.append(f"masks behind {names} ('kprune unmask' takes them out)")
    if carried.adapters:
        names = some([clean(name) for name in carried.adapters], 6)
        parts.append(f"adapters of LoRA in {names}, which count as Keras counts them")
    if carried.pruned is not None:
        parts.append(_history(carried.pruned))
    for part in parts:
        yield "carries", part


def _active(items: Sequence[ActiveItem]) -> Iterator[tuple[str, str]]:
    for item in items[:MOST_ACTIVE]:
        yield "active", item.text
    if len(items) > MOST_ACTIVE:
        yield "active", f"{len(items) - MOST_ACTIVE:,} more (--json lists them)"
    if items:
        yield "", "when Keras loads the file; kprune does none of it without --trust"


def _history(pruned: dict[str, Any]) -> str:
    plan = pruned.get("plan")
    steps = plan.get("steps") if isinstance(plan, dict) else None
    done = [str(step.get("backend")) for step in steps or [] if isinstance(step, dict)]
    said = f": {some([clean(word) for word in done], 6)}" if done else ""
    return f"the history of what kprune {clean(pruned.get('version', '?'))} did to it{said}"
