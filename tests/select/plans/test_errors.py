"""A plan that is not as the schema says is refused, with its line and what was meant."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kprune.errors import PlanError, UsageError
from kprune.select.naming.expressions import ALL_NAMES
from kprune.select.plans.plan import LayerChoice, Step, parse_plan
from kprune.select.plans.yaml_text import write_flow, write_scalar
from tests.select.plan_texts import HEAD, REFUSED


def refused(text: str) -> str:
    with pytest.raises(PlanError) as caught:
        parse_plan(text)
    assert type(caught.value) is PlanError
    assert caught.value.exit_code == 2
    return str(caught.value)


@pytest.mark.parametrize("text", REFUSED)
def test_a_plan_that_breaks_the_schema_is_refused_with_its_line(text):
    names = f"there are {', '.join(sorted(ALL_NAMES))}"
    assert refused(text) == REFUSED[text].replace("NAMES", names)


def test_the_sentence_of_the_manual_for_an_unknown_key():
    with pytest.raises(PlanError) as caught:
        parse_plan("steps:\n- layesr: {}\n  backend: zero\nversion: 1\n")
    assert caught.value.what == (
        "unknown key 'layesr' in plan.yaml, line 2; did you mean 'layers'? Nothing was written."
    )


words = st.sampled_from(
    ["version", "steps", "backend", "layers", "exclude", "model", "expect", "fold", "parameters",
     "exact", "criterion", "ratio", "where", "zero", "remove", "mask", "mean < 1", "a", "0-7", "@x",
     "!1", "<= 3", "` - at `$.steps[...]", "` - at `$", "", "on", "\x1b[2J"]
)  # fmt: skip
trees = st.recursive(
    words | st.integers() | st.floats() | st.booleans() | st.none(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(words, inner, max_size=4),
)
steplike = st.fixed_dictionaries(
    {"backend": st.sampled_from(["zero", "remove"]), "layers": st.dictionaries(words, trees)},
    optional={"exclude": trees, "fold": trees, "` - at `$": trees},
)


@given(
    trees
    | st.fixed_dictionaries(
        {"version": st.just(1), "steps": st.lists(trees | steplike, max_size=2)},
        optional={"model": trees, "expect": trees, "x": trees},
    )
)
def test_any_data_is_a_plan_or_refused(data):
    def written(value: Any) -> str:
        if isinstance(value, dict):
            return (
                "{" + ", ".join(f"? {write_scalar(k)} : {written(value[k])}" for k in value) + "}"
            )
        if isinstance(value, list):
            return "[" + ", ".join(map(written, value)) + "]"
        return "~" if value is None else write_flow([value])[1:-1]

    try:
        parse_plan(written(data))
    except PlanError as error:
        assert error.what.endswith("Nothing was written.")
        assert "\x1b" not in str(error)


def test_an_invalid_choice_made_in_python_is_a_usage_error():
    for make in (
        lambda: LayerChoice(criterion="l1", ratio=0.5, count=3),
        lambda: LayerChoice(where="mean < 1", ratio=0.5),
        lambda: Step(backend="remove", layers={"a": LayerChoice(criterion="l1")}),
        lambda: Step(backend="remove", layers={}),
        lambda: Step(backend="remove", layers={"a": [1]}, silence=True),
    ):
        with pytest.raises(UsageError):
            make()


def test_a_text_that_names_no_units_in_order_is_not_taken_for_a_list():
    assert "the range runs backwards in plan.yaml, line 5" in refused(HEAD + 'a: "9,7-0"')
