"""Random models with arrays in their configs, widths of 1 and folded batches: what is left is right, and loads.

Keras itself loads and runs every file: an array that was not cut along does not fit there. A third of
them are held against the masked original as well, which takes as long as all the rest.
"""

from __future__ import annotations

import itertools
import tempfile
from pathlib import Path

import keras
import numpy as np
import pytest
from hypothesis import HealthCheck, Phase, event, given, note, settings
from hypothesis import strategies as st

from kprune.verbs.change import remove
from tests.oracle.choosing import choose
from tests.oracle.law import outputs, random_inputs, randomize
from tests.oracle.random_arrays import draw_array_model
from tests.oracle.test_random_graphs import check_law

pytestmark = pytest.mark.oracle

PHASES = [Phase.explicit, Phase.reuse, Phase.generate]
SLOW = [HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.large_base_example]
QUICK = settings(
    max_examples=120, deadline=None, derandomize=True, suppress_health_check=SLOW, phases=PHASES
)
LONG = settings(max_examples=5000, deadline=None, suppress_health_check=SLOW, phases=PHASES)
count = itertools.count(1)


def check(data, seed, mixed):
    model = draw_array_model(data)
    if seed % 3 == 0:
        check_law(model, seed, mixed)
    else:
        check_loading(model, seed, mixed)
    if next(count) % 25 == 0:
        keras.utils.clear_session()  # as long as a model takes, and needed now and then


def check_loading(model, seed, mixed):
    """Remove what can go of a model: Keras loads what is left, counts the same, and runs it."""
    note(f"{[(layer.name, layer.output) for layer in model.layers]}")
    with tempfile.TemporaryDirectory() as folder:
        before, after = Path(folder) / "before.keras", Path(folder) / "after.keras"
        randomize(model, seed).save(before)
        units = choose(before, 0.3, seed, mixed=mixed)
        note(f"{units}")
        if not units:
            event("nothing can go")
            return
        report = remove(str(before), units, output=str(after))
        pruned = keras.models.load_model(after, compile=False)
    assert report.output.parameters == pruned.count_params() < model.count_params()
    inputs = random_inputs(model, seed=seed)
    for got, expected in zip(outputs(pruned, inputs), outputs(model, inputs), strict=True):
        assert got.shape == expected.shape
        assert np.isfinite(got).all()


@QUICK
@given(data=st.data(), seed=st.integers(0, 2**31 - 1), mixed=st.booleans())
def test_arrays_in_configs_go_with_the_units_they_count(data, seed, mixed):
    check(data, seed, mixed)


@pytest.mark.nightly
@LONG
@given(data=st.data(), seed=st.integers(0, 2**31 - 1), mixed=st.booleans())
def test_arrays_in_configs_go_with_the_units_they_count_in_any_of_many_models(data, seed, mixed):
    check(data, seed, mixed)
