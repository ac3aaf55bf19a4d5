"""Reasons why units are frozen, and the paths that lead there."""

from __future__ import annotations

import numpy as np

from kprune.labels.map import LAYER, Freeze
from kprune.labels.paths import reason

IDS = np.array([1, 2])


def test_a_reason_about_units_says_which_units() -> None:
    freeze = Freeze("rule", IDS, "are sliced by 'slice'", "slice")
    assert reason(freeze) == "the units there are sliced by 'slice'"


def test_a_reason_about_a_layer_is_a_clause_of_its_own() -> None:
    freeze = Freeze("rule", IDS, "'gate' is a Gate layer, which is code", "gate", subject=LAYER)
    assert reason(freeze) == "'gate' is a Gate layer, which is code"


def test_what_a_reason_is_about_is_not_read_from_its_words() -> None:
    quoted = Freeze("rule", IDS, "'as is' in 'slice'", "slice")
    plain = Freeze("rule", IDS, "Keras's own slice cuts them", "slice", subject=LAYER)
    assert reason(quoted).startswith("the units there")
    assert reason(plain) == plain.why
