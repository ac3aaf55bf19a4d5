"""A second law: what is removed equals what is zeroed. No layer is named, no unit picked by hand.

A random share of all units that can go is removed at once, and the same units are zeroed in the
original with everything that their consumers hold for them (`zero --outgoing`). Both files are run
in plain Keras. Where `masked.py` knows nothing of kprune's labels but some layers, this knows no
layer and relies on labels: a row cut out and a row set to 0 disagree as soon as the layers between
them move a unit elsewhere than its label.
"""

from __future__ import annotations

import json
import os
import tempfile
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

from kprune.analysis.analysis import Analysis
from kprune.errors import KpruneError
from kprune.labels.closure import check, close
from kprune.opened import analyse, open_model
from kprune.report.report import Report
from kprune.verbs.change import remove, zero
from tests.oracle.law import TOLERANCE, assert_equal, random_inputs, randomize

Units = dict[str, np.ndarray]

# One random removal of a model in `make test`, two further ones at night.
several_draws = pytest.mark.parametrize(
    "seeds",
    [pytest.param((0,), id="a draw"), pytest.param((1, 2), id="more", marks=pytest.mark.nightly)],
)


@dataclass
class Outcome:
    """One random removal.

    Attributes:
        analysis: of the original.
        chosen: by address, the units that went, without those that were removed with them.
        report: of `remove`.
    """

    analysis: Analysis
    chosen: Units
    report: Report

    @property
    def free(self) -> dict[str, int]:
        """By address, how many units can go."""
        frozen = self.analysis.groups.frozen()
        return {
            name: int((~frozen[axis.ids]).sum()) for name, axis in self.analysis.map.axes.items()
        }

    @property
    def opaque(self) -> list[str]:
        """Layers through which nothing goes, each with its reason."""
        return [record.opaque for record in self.analysis.map.records.values() if record.opaque]


def analysis_of(path: str | os.PathLike[str]) -> Analysis:
    with open_model(path) as source:
        return analyse(source)


def some_units(analysis: Analysis, share: float, rng: np.random.Generator) -> Units:
    """A random share of every axis' units that can go together, tied and balanced as they must be.

    Units over which a statistic is taken are left alone, unless there are no others.
    """
    frozen, mixed = analysis.groups.frozen(), analysis.groups.mixed()
    free = {name: np.flatnonzero(~frozen[axis.ids]) for name, axis in analysis.map.axes.items()}
    exact = {
        name: units[~mixed[analysis.map.axes[name].ids[units]]] for name, units in free.items()
    }
    taken: Units = {}
    only_exact = any(units.size for units in exact.values())
    held = mixed if only_exact else np.zeros_like(mixed)
    for name, units in (exact if only_exact else free).items():
        wanted = max(1, round(len(units) * share))
        for unit in rng.permutation(units)[:wanted]:
            for also in _candidates(analysis, name, int(unit)):
                tried = {**taken, name: np.union1d(taken.get(name, np.zeros(0, np.int64)), also)}
                if _can_go(analysis, tried, held):
                    taken = tried
                    break
    return taken


def _can_go(analysis: Analysis, units: Units, held: np.ndarray) -> bool:
    """Whether units can go together, and none that is held is removed with them: bool (labels,)."""
    closure = close(analysis.groups, units)
    try:
        check(closure)
    except KpruneError:
        return False
    return not (closure.gone & held).any()


def _candidates(analysis: Analysis, name: str, unit: int) -> Iterator[list[int]]:
    """A unit alone; with those at its place in other runs; in a row or a column of a block."""
    ids = analysis.map.axes[name].ids
    yield [unit]
    for blocks in analysis.map.blocks:
        for side in blocks.sides:
            if np.isin(ids[unit], side):
                column = side[:, np.argwhere(side == ids[unit])[0][1]]
                yield np.flatnonzero(np.isin(ids, column)).tolist()
    for step in range(2, len(ids)):
        if len(ids) % step == 0:
            yield list(range(unit % step, len(ids), step))
            yield list(range(unit - unit % step, unit - unit % step + step))


def remove_and_zero(
    path: str, share: float, seed: int, folder: Path, original: Any = None
) -> tuple[Outcome, Any, Any]:
    """Remove a random share of what can go, and zero the same.

    Args:
        original: the model in the file. It takes the zeroed weights, where nothing else differs.
    Returns: the outcome, and both models as plain Keras loads them.
    """
    analysis = analysis_of(path)
    chosen = some_units(analysis, share, np.random.default_rng(seed))
    assert chosen, "there is nothing that could go"
    removed, zeroed = str(folder / "removed.keras"), str(folder / "zeroed.keras")
    report = remove(path, chosen, output=removed, force=True)
    zero(path, chosen, outgoing=True, output=zeroed, force=True)
    small = keras.models.load_model(removed, compile=False)
    assert report.output.parameters == small.count_params() < report.input.parameters
    if original is not None and config_of(path) == config_of(zeroed):
        original.load_weights(zeroed)
    else:
        original = keras.models.load_model(zeroed, compile=False)
    return Outcome(analysis, chosen, report), small, original


def config_of(path: str) -> Any:
    with zipfile.ZipFile(path) as archive:
        return json.loads(archive.read("config.json"))


def inferred(model: Any, inputs: Any) -> list[np.ndarray]:
    """What a model gives at inference; layers of augmentation are at work unless told so."""
    found = model(inputs, training=False)
    return [np.asarray(keras.ops.convert_to_numpy(y)) for y in keras.tree.flatten(found)]


def check_random_removal(
    model: Any,
    *,
    share: float = 0.3,
    seeds: tuple[int, ...] = (0,),
    exact: bool = True,
    tolerance: float = TOLERANCE,
    tokens: int = 5,
) -> Outcome:
    """Remove at random, and hold the result against the zeroed original.

    Args:
        model: a built Keras model; its weights are randomised.
        exact: whether the units that can go can go without a change to the others. If not, the
            report has to say so, and only sizes are compared.
    """
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for seed in seeds:
            path = str(folder / "model.keras")
            randomize(model, seed).save(path)
            outcome, small, zeroed = remove_and_zero(path, share, seed, folder, model)
            assert outcome.report.exact is exact, outcome.report.notes
            inputs = random_inputs(zeroed, seed=seed, tokens=tokens)
            got = inferred(small, inputs)
            if exact:
                for one, other in zip(got, inferred(zeroed, inputs), strict=True):
                    assert_equal(one, other, tolerance)
    return outcome
