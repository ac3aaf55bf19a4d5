"""Plans are read, printed so that they read back equal, and held against what they expect."""

from __future__ import annotations

import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kprune.select.plans.plan import (
    Expect,
    LayerChoice,
    ModelCheck,
    Plan,
    Step,
    failed_expectations,
    parse_plan,
    plan_to_yaml,
)
from tests.select.plan_texts import HEAD, MANUAL
from tests.select.random_plans import plans

# -- read -----------------------------------------------------------------------------------------


def test_the_plan_of_the_manual():
    assert parse_plan(MANUAL) == Plan(
        version=1,
        model=ModelCheck(parameters=1663370),
        steps=[
            Step(
                backend="remove",
                layers={
                    "dense_1": [3, 7, 12],
                    "conv2d_*": LayerChoice(criterion="l1", ratio=0.25, round_to=8, min_units=8),
                    "mha.heads": LayerChoice(where="l2 < 0.5"),
                },
                exclude=["predictions"],
            )
        ],
        expect=Expect(parameters="<= 1300000", exact=True),
    )


def test_a_plan_knows_its_lines():
    plan = parse_plan(MANUAL, "pruning/plan.yaml")
    assert plan.line("steps", 0, "layers", "conv2d_*") == 7
    assert plan.where("steps", 0, "layers", "mha.heads", "where") == "pruning/plan.yaml, line 8"
    assert plan.line("steps", 0, "exclude", 0) == 9
    assert plan.line("expect", "exact") == 10
    made = Plan(version=1, steps=[Step(backend="zero", layers={"a": [1]})])
    assert made.line("steps") is None
    assert made.where("steps") == ""


def test_layer_names_stay_text_and_units_take_every_form():
    text = HEAD + 'on: 0-7\n      1: "!3,7"\n      no: [-1, 3, 3]\n      1e3: 3,7\n      ~: "@a"\n'
    plan = parse_plan(text + "    exclude: [yes, 1, ~, 1.5]\n")
    assert plan.steps[0].layers == {
        "on": [0, 1, 2, 3, 4, 5, 6, 7], "1": "!3,7", "no": [-1, 3, 3], "1e3": [3, 7], "~": "@a",
    }  # fmt: skip
    assert plan.steps[0].exclude == ["yes", "1", "~", "1.5"]


def test_names_of_classes_stay_text():
    plan = parse_plan(
        "version: 1\nsteps:\n"
        "- {backend: remove, classes: [3, no, 1e3, cat], class_names: l.txt, class_layer: 7}\n"
        "- {backend: zero, classes: 3, class_names: l.txt}\n"
    )
    assert plan.steps[0].classes == ["3", "no", "1e3", "cat"]
    assert (plan.steps[0].class_layer, plan.steps[1].classes) == ("7", "3")


def test_options_are_the_flags_of_the_commands():
    plan = parse_plan(
        "version: 1\nsteps:\n"
        "- {backend: zero, layers: {a: [1]}, outgoing: true, silence: true, coupled: false}\n"
        "- {backend: remove, layers: {a: [1]}, fold: true, allow_output_change: true}\n"
    )
    zero, remove = plan.steps
    assert (zero.outgoing, zero.silence, zero.coupled, zero.fold) == (True, True, False, False)
    assert (remove.fold, remove.allow_output_change, remove.coupled) == (True, True, True)


def test_a_text_that_lists_indices_is_the_list_unless_it_is_too_long():
    text = HEAD + 'a: "0-2,7"\n      b: "0-2, 7"\n      c: "0-200000"\n      d: "7,0-2"\n'
    assert parse_plan(text).steps[0].layers == {
        "a": [0, 1, 2, 7], "b": "0-2, 7", "c": "0-200000", "d": [7, 0, 1, 2],
    }  # fmt: skip


# -- printed --------------------------------------------------------------------------------------


def test_what_is_printed_is_the_plan_of_the_manual():
    without_comments = re.sub(" +#.*", "", MANUAL)
    assert plan_to_yaml(parse_plan(MANUAL)) == without_comments


def test_long_runs_are_printed_as_ranges_and_long_lists_are_wrapped():
    scattered = [i * i for i in range(60)]
    plan = Plan(
        version=1,
        steps=[
            Step(
                backend="zero",
                layers={
                    "a": list(range(256)),
                    "b": scattered,
                    "c": [0, 1, 2],
                    "d": "0-3,7",
                    "e": [],
                },
                outgoing=True,
                coupled=False,
            )
        ],
        expect=Expect(flops=0, exact=False),
    )
    assert (
        plan_to_yaml(plan)
        == """\
version: 1
steps:
  - backend: zero
    layers:
      a: "0-255"
      b: [0, 1, 4, 9, 16, 25, 36, 49, 64, 81, 100, 121, 144, 169, 196, 225, 256, 289, 324, 361, 400,
        441, 484, 529, 576, 625, 676, 729, 784, 841, 900, 961, 1024, 1089, 1156, 1225, 1296, 1369,
        1444, 1521, 1600, 1681, 1764, 1849, 1936, 2025, 2116, 2209, 2304, 2401, 2500, 2601, 2704,
        2809, 2916, 3025, 3136, 3249, 3364, 3481]
      c: "0-2"
      d: "0-3,7"
      e: []
    outgoing: true
    coupled: false
expect: {flops: 0, exact: false}
"""
    )


def test_arrays_from_python_are_printed_as_numbers():
    step = Step(backend="remove", layers={"a": np.array([3, 7]), "b": (np.int64(1),)})
    assert step.layers == {"a": [3, 7], "b": [1]}
    assert "a: [3, 7]\n      b: [1]\n" in plan_to_yaml(Plan(version=1, steps=[step]))


@pytest.mark.parametrize("indices", [list(range(-9, 0)), list(range(150_000)), [3, 3, 3]])
def test_lists_that_no_text_stands_for_are_printed_as_they_are(indices):
    plan = Plan(version=1, steps=[Step(backend="remove", layers={"a": indices})])
    assert parse_plan(plan_to_yaml(plan)) == plan


@given(plans)
def test_a_plan_that_is_printed_reads_back_equal(plan):
    text = plan_to_yaml(plan)
    again = parse_plan(text)
    assert again == plan
    assert plan_to_yaml(again) == text


@given(plans)
def test_the_line_of_a_layer_is_the_line_with_its_name(plan):
    text = plan_to_yaml(plan)
    again = parse_plan(text)
    for count, step in enumerate(again.steps):
        for name, below in zip(step.layers, list(step.layers)[1:], strict=False):
            first, last = (again.line("steps", count, "layers", key) for key in (name, below))
            assert first is not None and last is not None and first < last
            head = "remove\n  target_params: 1" if step.target else "mask"
            head += "\n  below: 1" * (step.below is not None)
            block = f"version: 1\nsteps:\n- backend: {head}\n  layers:\n"
            block += "\n".join(text.split("\n")[first - 1 : last - 1])
            assert list(parse_plan(block).steps[0].layers) == [name]


# -- what is expected -----------------------------------------------------------------------------


FACTS = {"parameters": 100, "flops": 2000, "bytes": 4096, "units": None, "exact": False}


@pytest.mark.parametrize(
    ("expect", "failed"),
    [
        (None, []),
        (Expect(), []),
        (Expect(parameters=100, flops="<= 2000", bytes=">=4096", exact=False), []),
        (Expect(parameters="< 1_00.5", flops="== 2e3", bytes="!= 4095"), []),
        (Expect(parameters="100"), []),
        (Expect(parameters=99), ["parameters is 100, and the plan expects 99"]),
        (Expect(parameters="< 100"), ["parameters is 100, and the plan expects < 100"]),
        (Expect(parameters="> 1e2"), ["parameters is 100, and the plan expects > 1e2"]),
        (Expect(flops="!= 2000"), ["flops is 2000, and the plan expects != 2000"]),
        (Expect(exact=True), ["exact is false, and the plan expects true"]),
        (Expect(units="<= 3"), ["units is not known, and the plan expects <= 3"]),
        (
            Expect(parameters=0, bytes="<= 4095"),
            ["parameters is 100, and the plan expects 0",
             "bytes is 4096, and the plan expects <= 4095"],
        ),
    ],
)  # fmt: skip
def test_expectations_that_do_not_hold_are_told(expect, failed):
    assert failed_expectations(expect, FACTS) == failed


@given(st.integers(0, 30), st.sampled_from(["<=", ">=", "==", "!=", "<", ">"]), st.integers(0, 30))
def test_a_comparison_means_what_python_means_by_it(fact, sign, bound):
    expect = parse_plan(HEAD + f'a: [1]\nexpect: {{units: "{sign} {bound}"}}').expect
    assert (failed_expectations(expect, {"units": fact}) == []) == eval(f"{fact} {sign} {bound}")
