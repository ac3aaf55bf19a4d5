"""What kprune records in metadata.json: the plan that was carried out, and which original units are left.

A second pruning composes what it says, so it is checked where a file is opened: a record that is not
as kprune writes it is refused, and never taken for less than it says.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec
import numpy as np
from msgspec import Meta, Struct

from kprune.analysis.analysis import Analysis
from kprune.errors import DamagedFileError
from kprune.faults import file_error, shown
from kprune.formats.bounded_json import json_object
from kprune.limits import JSON_BYTES
from kprune.surgery.compile_config.compile_config import recompiled
from kprune.text import clean
from kprune.version import __version__

KEY = "kprune"
WHOLE_LAYERS = "whole_layers"
"""The key of a step that takes whole layers out, instead of units."""
REPAIR = "repair"
"""The key of a step after which what was left was refitted: whatever it says, values are no longer the original's."""

TRAINED = "trained"
"""The key that says how many of the steps had been done when a refitted file was last trained."""

Index = Annotated[int, Meta(ge=0, lt=1 << 53)]


class _Step(Struct):
    """One step, as far as it is read again; further keys are those of a plan."""

    backend: str
    layers: dict[str, list[Index] | Literal["all"]] | None = None
    whole_layers: list[str] | None = None
    below: float | None = None
    fold: bool = False
    outgoing: bool = False
    silence: bool = False
    repair: str | bool | dict[str, Any] | None = None


class _Steps(Struct):
    steps: list[_Step]


class _Record(Struct):
    """What stands under the key `kprune`."""

    version: str
    plan: _Steps
    units: dict[str, list[Index]]  # none of a layer that vanished with its branch
    trained: Index = 0


def check_provenance(metadata: Mapping[str, Any], name: str) -> None:
    """Check what a file says of its own past, by itself.

    Args:
        name: of the file, for messages.
    Raises: DamagedFileError if it is not as kprune writes it.
    """
    if KEY not in metadata:
        return
    try:
        record = msgspec.convert(metadata[KEY], _Record)
    except UnicodeError as error:  # half of a surrogate pair, which JSON can write
        raise _malformed(name, KEY, "a text in it is no Unicode") from error
    except msgspec.ValidationError as error:
        why, _, place = clean(error, 300).partition(" - at ")
        place = place.strip("`").removeprefix("$")
        raise _malformed(name, KEY + place, why[:1].lower() + why[1:]) from error
    for number, step in enumerate(record.plan.steps):
        if step.layers is None and step.whole_layers is None:
            why = f"it names neither layers nor {WHOLE_LAYERS}"
            raise _malformed(name, f"{KEY}.plan.steps[{number}]", why)
    if record.trained > len(record.plan.steps):
        raise _malformed(name, f"{KEY}.{TRAINED}", "it counts more steps than there are")


def check_units(analysis: Analysis, name: str) -> None:
    """Check what a file says of the units that are left against the layers that it has.

    Args:
        name: of the file, for messages.
    Raises: DamagedFileError if it lists others than a layer can have.
    """
    for address, units in left_units(analysis.metadata).items():
        axis = analysis.map.axes.get(address)
        place = f"{KEY}.units.{clean(address)}"
        if any(one >= other for one, other in pairwise(units)):
            raise _malformed(name, place, "the units are not in order, or not distinct")
        if axis is not None and len(axis) != len(units):
            why = f"it lists {len(units)} units, and the layer has {len(axis)}"
            raise _malformed(name, place, why)


def _malformed(name: str, place: str, why: str) -> DamagedFileError:
    return DamagedFileError(
        f"what {name} records of its own pruning is not as kprune writes it",
        where=place,
        why=why,
        do=f"get the file as kprune wrote it; or take the key '{KEY}' out of its metadata, and with "
        "it what later prunings and 'kprune verify' would go by",
    )


def read_record(path: Path, name: str) -> dict[str, Any]:
    """The metadata that kprune writes beside a SavedModel; {} if there is none.

    Args:
        path: of the file.
        name: how messages call the model.
    Raises: DamagedFileError if it is no JSON object, FileError if it cannot be read.
    """
    try:
        with open(path, "rb") as stream:
            data = JSON_BYTES.read(stream, shown(path))
    except FileNotFoundError:
        return {}
    except OSError as error:
        raise file_error(error, "read", shown(path)) from error
    return json_object(data, name, path.name)


def with_provenance(
    analysis: Analysis,
    *,
    backend: str,
    units: Mapping[str, np.ndarray],
    options: Mapping[str, Any],
    gone: np.ndarray | None,
) -> dict[str, Any]:
    """metadata.json with this step added.

    Args:
        units: by address, the indices that were named.
        options: further keys of the step, as a plan writes them.
        gone: bool (labels,) if units were physically removed.
    Returns: the old metadata, a legacy file's `training_config` as it is now, and the key `kprune`:
        `version`, `plan` (steps as in a YAML plan, each in terms of the file it was applied to),
        `units`, for each layer that lost any the original indices of those that are left, and
        `trained`, if the file was refitted and then trained.
    """
    before = analysis.metadata.get(KEY, {})
    steps = steps_of(analysis.metadata)
    # No index stands for all: activations below a threshold are masked wherever they are.
    layers = {
        address: [int(i) for i in indices] if len(indices) else "all"
        for address, indices in units.items()
    }
    named = {} if WHOLE_LAYERS in options else {"layers": layers}
    step: dict[str, Any] = {"backend": backend, **named, **options}
    left = dict(left_units(analysis.metadata))
    if gone is not None:
        for address, axis in analysis.map.axes.items():
            alive = np.flatnonzero(~gone[axis.ids])
            if len(alive) == len(axis):
                continue
            # A second pruning counts from what the first one left.
            known = left.get(address, range(len(axis)))
            left[address] = [known[i] for i in alive]
    metadata = analysis.metadata
    if gone is not None:
        metadata = recompiled(analysis, gone).metadata(metadata)
    return {
        **metadata,
        KEY: {
            "version": __version__,
            "plan": {"version": 1, "steps": [*steps, step]},
            "units": left,
            **{key: before[key] for key in (TRAINED,) if key in before},
        },
    }


def with_repair(metadata: Mapping[str, Any], way: str) -> dict[str, Any]:
    """metadata.json whose last step records that the rest was refitted, as a step of a plan does."""
    own = metadata[KEY]
    *steps, last = own["plan"]["steps"]
    plan = {**own["plan"], "steps": [*steps, {**last, REPAIR: way}]}
    trained = {TRAINED: min(own[TRAINED], len(steps))} if TRAINED in own else {}
    return {**metadata, KEY: {**own, "plan": plan, **trained}}


def is_refitted(metadata: Mapping[str, Any]) -> bool:
    """Whether what a file holds was refitted, and not trained since."""
    later = steps_of(metadata)[metadata.get(KEY, {}).get(TRAINED, 0) :]
    return any(step.get(REPAIR) not in (None, False) for step in later)


def with_training(metadata: Mapping[str, Any]) -> dict[str, Any]:
    """metadata.json of a file that was trained; of one that was refitted before it says so."""
    if not is_refitted(metadata):
        return dict(metadata)
    return {**metadata, KEY: {**metadata[KEY], TRAINED: len(steps_of(metadata))}}


def steps_of(metadata: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The steps that a file says it went through."""
    steps: list[dict[str, Any]] = metadata[KEY]["plan"]["steps"] if KEY in metadata else []
    return list(steps)


def left_units(metadata: Mapping[str, Any]) -> Mapping[str, list[int]]:
    """For each layer that lost units the original indices of those that are left, as a file says."""
    units: dict[str, list[int]] = metadata[KEY]["units"] if KEY in metadata else {}
    return units


def without_masks(metadata: Mapping[str, Any], freed: Iterable[str]) -> dict[str, Any]:
    """metadata.json as if some layers had never been masked.

    A mask changes no shape, so the steps before and after it stay true without it.

    Args:
        freed: paths of the layers whose masks were taken out.
    Returns: the old metadata; without the key `kprune` if nothing else was done to the file.
    """
    if KEY not in metadata:
        return dict(metadata)
    own, steps = metadata[KEY], steps_of(metadata)
    gone = set(freed)
    kept = []
    trained = own.get(TRAINED, 0)
    for number, step in enumerate(steps):
        if step["backend"] == "mask":
            layers = {path: units for path, units in step["layers"].items() if path not in gone}
            if not layers:
                trained -= number < own.get(TRAINED, 0)
                continue
            step = {**step, "layers": layers}
        kept.append(step)
    rest = {key: value for key, value in metadata.items() if key != KEY}
    if not kept and not own.get("units"):
        return rest
    since = {TRAINED: trained} if TRAINED in own else {}
    return {**rest, KEY: {**own, "plan": {**own["plan"], "steps": kept}, **since}}
