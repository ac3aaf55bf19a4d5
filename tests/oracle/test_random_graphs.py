"""The law, over random small graphs and random choices of units."""

from __future__ import annotations

import tempfile
from pathlib import Path

import keras
import pytest
from hypothesis import HealthCheck, Phase, event, given, note, settings
from hypothesis import strategies as st

from kprune.verbs.change import remove
from tests.oracle.choosing import choose
from tests.oracle.law import assert_equal, outputs, random_inputs, randomize
from tests.oracle.masked import MaskedOriginal
from tests.oracle.random_models import draw_model

pytestmark = pytest.mark.oracle

# No shrinking: a model of ten calls takes minutes to shrink, and is small enough to read.
PHASES = [Phase.explicit, Phase.reuse, Phase.generate]
slow = [HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.large_base_example]
QUICK = settings(
    max_examples=20, deadline=None, derandomize=True, suppress_health_check=slow, phases=PHASES
)
# Some 36 a minute on one core: about an hour.
LONG = settings(max_examples=2000, deadline=None, suppress_health_check=slow, phases=PHASES)


def check(data, seed, mixed):
    """The law over one model that is drawn."""
    try:
        check_law(draw_model(data), seed, mixed)
    finally:
        # Keras holds on to what was built: a thousand models take 5 GB, and slow each other down.
        keras.utils.clear_session()


def check_law(model, seed, mixed):
    """Remove what can go of a model, and hold it against the masked original."""
    shapes = {x.name: keras.tree.map_structure(lambda y: y.shape, x.output) for x in model.layers}
    note(f"{shapes}")
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
    assert report.input.parameters == model.count_params()
    assert report.output.parameters == pruned.count_params() < model.count_params()
    inputs = random_inputs(model, seed=seed)
    got = outputs(pruned, inputs)
    if not report.exact:
        event("inexact")
        assert mixed
        return
    event("exact")
    masked = MaskedOriginal(model, report.changed)(inputs)
    for one, other in zip(got, masked, strict=True):
        assert not other.gone.any()
        assert_equal(one, other.array)


@QUICK
@given(data=st.data(), seed=st.integers(0, 2**31 - 1), mixed=st.booleans())
def test_a_removed_unit_is_one_that_nobody_reads(data, seed, mixed):
    check(data, seed, mixed)


@pytest.mark.nightly
@LONG
@given(data=st.data(), seed=st.integers(0, 2**31 - 1), mixed=st.booleans())
def test_a_removed_unit_is_one_that_nobody_reads_in_any_of_many_graphs(data, seed, mixed):
    check(data, seed, mixed)
