"""Zeroing units: the change, and the units that such a step pruned."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from msgspec.structs import replace

from kprune.analysis.analysis import Analysis
from kprune.errors import CannotPruneError, UsageError
from kprune.labels.closure import Closure, Units, close, refuse_coupled
from kprune.opened import Opened
from kprune.page.result import Note
from kprune.report.change import Change
from kprune.surgery.provenance import with_provenance
from kprune.surgery.zero import zero as zero_edit
from kprune.surgery.zero import zero_through
from kprune.text import clean

if TYPE_CHECKING:
    from kprune.pruning.pruned_units import PrunedUnits
    from kprune.pruning.steps import Asked


def zeroing(
    it: Opened,
    chosen: Units,
    notes: Iterable[Note] = (),
    *,
    outgoing: bool = False,
    silence: bool = False,
    coupled: bool = True,
) -> Change:
    """The change that zeroes units."""
    analysis, found = it.analysis, list(notes)
    options = {name: True for name, on in (("outgoing", outgoing), ("silence", silence)) if on}
    if outgoing and silence:
        raise UsageError(
            "--silence is for an output layer, which has no consumers", do="leave out --outgoing"
        )
    for address in chosen:
        if analysis.map.axes[address].name == "features":
            raise CannotPruneError(
                f"'{clean(address)}' is the model's input, which has no weights to zero",
                do="use 'kprune remove --allow-output-change' to remove input features",
            )
    changed: Units = chosen
    if outgoing:
        closure: Closure = close(analysis.groups, chosen)
        if not coupled and closure.coupled:
            refuse_coupled(closure)
        edit, changed = zero_through(analysis, closure), closure.affected
    else:
        edit = zero_edit(analysis, chosen, silence=silence)
        if not silence:
            from kprune.surgery.constants import emitted

            found += [
                Note("emits", e.layer, e.text)
                for e in emitted.emissions(analysis, it.source.read, chosen)
            ]
    metadata = with_provenance(analysis, backend="zero", units=chosen, options=options, gone=None)
    return Change(
        "zero", "zero", replace(edit, metadata=metadata), chosen, changed, None, tuple(found)
    )


def of_step(asked: Asked) -> Change:
    """The change of one step of a plan."""
    step = asked.step
    return zeroing(
        asked.it, *asked.units(), outgoing=step.outgoing, silence=step.silence, coupled=step.coupled
    )


def replay(analysis: Analysis, step: Mapping[str, Any], pruned: PrunedUnits) -> None:
    """Record the units that such a step pruned."""
    units = pruned.original(analysis, step["layers"])
    if step.get("outgoing"):
        pruned.zeroed_through = pruned.zeroed_through | close(analysis.groups, units).gone
    elif step.get("silence"):
        pruned.silence(units)
    else:
        pruned.zero(units)
