"""Limits: named, refused with their name, raised on the command line and in Python."""

from __future__ import annotations

from contextvars import copy_context

import pytest

import kprune
from kprune.errors import LimitError, UsageError
from kprune.limits import JSON_ITEMS, TABLE, given


def test_a_refusal_names_the_limit_and_how_it_is_raised() -> None:
    with pytest.raises(LimitError) as refused:
        JSON_ITEMS.check(3_000_000, "config.json", "model.keras")
    assert str(refused.value) == (
        "error: model.keras asks for too much\n"
        "why:   config.json has 3,000,000 items; limit json-items, 2,000,000\n"
        "do:    if it is meant to be so large, raise the limit with --limit json-items=N"
    )
    assert refused.value.exit_code == 4


def test_a_limit_is_raised_and_lowered_for_what_runs_inside_the_with() -> None:
    with kprune.limit(json_items=4e6):
        JSON_ITEMS.check(3_000_000, "config.json", "model.keras")
        with kprune.limit(json_items=5), pytest.raises(LimitError):
            JSON_ITEMS.check(6, "config.json", "model.keras")
        assert given() == {"json_items": 4_000_000}
    assert JSON_ITEMS.value == JSON_ITEMS.default


def test_other_threads_have_limits_of_their_own() -> None:
    with kprune.limit(json_items=7):
        inside = copy_context()
    assert (inside.run(lambda: JSON_ITEMS.value), JSON_ITEMS.value) == (7, JSON_ITEMS.default)


def test_an_unknown_limit_is_refused_with_the_nearest_names() -> None:
    with pytest.raises(UsageError, match="no limit 'jsonitems'; did you mean 'json-items'"):
        kprune.limit(jsonitems=1).__enter__()


@pytest.mark.parametrize("value", [0, -1, float("nan"), float("inf")])
def test_a_limit_is_a_positive_number(value: float) -> None:
    with pytest.raises(UsageError, match="limit json-items must be at least 1"):
        kprune.limit(json_items=value).__enter__()


@pytest.mark.parametrize("limit", TABLE.values(), ids=TABLE)
def test_each_limit_says_what_it_bounds_and_in_which_unit(limit) -> None:
    assert limit.meaning and limit.unit.endswith("s") and limit.default >= 1
    assert limit.name == limit.name.lower() and "_" not in limit.name
