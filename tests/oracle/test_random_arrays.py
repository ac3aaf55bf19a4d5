"""The law, over random models with arrays in their configs, widths of 1 and folded batches.

Keras itself loads and runs what is left: an array that was not cut along does not fit there.
"""

from __future__ import annotations

import keras
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from tests.oracle.random_arrays import draw_array_model
from tests.oracle.test_random_graphs import check_law

pytestmark = pytest.mark.oracle

PHASES = [Phase.explicit, Phase.reuse, Phase.generate]
SLOW = [HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.large_base_example]
QUICK = settings(
    max_examples=100, deadline=None, derandomize=True, suppress_health_check=SLOW, phases=PHASES
)
LONG = settings(max_examples=4000, deadline=None, suppress_health_check=SLOW, phases=PHASES)


def check(data, seed, mixed):
    try:
        check_law(draw_array_model(data), seed, mixed)
    finally:
        keras.utils.clear_session()


@QUICK
@given(data=st.data(), seed=st.integers(0, 2**31 - 1), mixed=st.booleans())
def test_arrays_in_configs_go_with_the_units_they_count(data, seed, mixed):
    check(data, seed, mixed)


@pytest.mark.nightly
@LONG
@given(data=st.data(), seed=st.integers(0, 2**31 - 1), mixed=st.booleans())
def test_arrays_in_configs_go_with_the_units_they_count_in_any_of_many_models(data, seed, mixed):
    check(data, seed, mixed)
