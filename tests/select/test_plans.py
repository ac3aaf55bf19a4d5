from __future__ import annotations

import json
import re
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kprune.errors import PlanError, UsageError
from kprune.select.options import NORMALIZATIONS, REDUCTIONS
from kprune.select.plans import (
    Expect,
    LayerChoice,
    ModelCheck,
    Plan,
    Step,
    failed_expectations,
    parse_plan,
    plan_schema,
    plan_to_yaml,
)

MANUAL = """\
version: 1
model: {parameters: 1663370}          # optional: refuse another model
steps:
  - backend: remove
    layers:
      dense_1: [3, 7, 12]             # or any INDICES text: "0-15", "!3,7", "@drop.txt"
      conv2d_*: {criterion: l1, ratio: 0.25, round_to: 8, min_units: 8}
      mha.heads: {where: "l2 < 0.5"}
    exclude: [predictions]
expect: {parameters: "<= 1300000", exact: true}
"""
HEAD = "version: 1\nsteps:\n  - backend: remove\n    layers:\n      "


def refused(text: str, kind=PlanError) -> str:
    with pytest.raises(kind) as caught:
        parse_plan(text)
    assert type(caught.value) is PlanError
    assert caught.value.exit_code == 2
    return str(caught.value)


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


def said(what: str, line: int, shown: str, column: int, *rest: str, then: str = "") -> str:
    """The whole message: the sentence, and the line with a caret under a column."""
    end = f"; {then}" if then else ""
    dot = "" if then.endswith("?") else "."
    rows = [
        f"error: {what} in plan.yaml, line {line}{end}{dot} Nothing was written.",
        f"where: plan.yaml, line {line}",
        f"       {shown}",
        f"       {' ' * column}^",
    ]
    return "\n".join([*rows, *rest])


WHOLE = {
    "- a": said("the plan is a list", 1, "- a", 0, then="it must be a mapping"),
    "3": said("the plan is a whole number", 1, "3", 0, then="it must be a mapping"),
    "steps: [{backend: zero, layers: {a: [1]}}]": said(
        "no 'version'", 1, "steps: [{backend: zero, layers: {a: [1]}}]", 0
    ),
    "version: 1": said("no 'steps'", 1, "version: 1", 0),
    "version: 2\nsteps: 1": said(
        "'version' is 2", 1, "version: 2", 0, then="this kprune reads version 1"
    ),
    'version: "1"\nsteps: 1': said(
        "'version' is text", 1, 'version: "1"', 0, then="it must be a whole number"
    ),
    "version: 1\nsteps: []": said("'steps' is empty", 2, "steps: []", 0),
    "version: 1\nsteps:": said("no value for 'steps'", 2, "steps:", 0),
    "version: 1\nsteps:\n- 3": said(
        "step 1 is a whole number", 3, "- 3", 2, then="it must be a mapping"
    ),
    "version: 1\nsteps:\n-": said("no value for step 1", 3, "-", 1),
    "version: 1\nchoose: {criterion: l1}": said(
        "unknown key 'choose'",
        2,
        "choose: {criterion: l1}",
        0,
        "do:    'kprune iterate' carries out such a plan",
    ),
    "version: 1\nstep: []": said(
        "unknown key 'step'", 2, "step: []", 0, then="did you mean 'steps'?"
    ),
    "version: 1\nsteps:\n- layers: {a: [1]}": said(
        "no 'backend' in step 1", 3, "- layers: {a: [1]}", 2
    ),
    "version: 1\nsteps:\n- backend: remov\n  layers: {a: [1]}": said(
        "'backend' is 'remov'", 3, "- backend: remov", 2, then="did you mean 'remove'?"
    ),
    "version: 1\nsteps:\n- backend: x\n  layers: {a: [1]}": said(
        "'backend' is 'x'", 3, "- backend: x", 2, then="there are zero, mask, remove, compact"
    ),
    "version: 1\nsteps:\n- backend: zero\n  layesr: {a: [1]}": said(
        "unknown key 'layesr'", 4, "  layesr: {a: [1]}", 2, then="did you mean 'layers'?"
    ),
    "version: 1\nsteps:\n- backend: zero\n  layers: {}": said(
        "'layers' is empty", 4, "  layers: {}", 2
    ),
    "version: 1\nsteps:\n- backend: zero\n  layers: [a]": said(
        "'layers' is a list", 4, "  layers: [a]", 2, then="it must be a mapping"
    ),
}
# what follows `layers:` in a plan, in line 5
PARTS = {
    "a: 3.5": ("'a' is a number", 5, 0, 6, "it must be text, a mapping or a list"),
    "a:": ("no value for 'a'", 5, 0, 6, ""),
    "a: [1, x]": ("item 2 of 'a' is text", 5, 0, 13, "it must be a whole number"),
    "a: [1,\n       true]": (
        "item 2 of 'a' is true or false", 6, 1, 7, "it must be a whole number"),
    "a: [1]\n      b: {ratio: 1, criterion: l1}": (
        "'ratio' is out of range", 6, 1, 10, "it must be less than 1"),
    "a: {ratio: 0, criterion: l1}": (
        "'ratio' is out of range", 5, 0, 10, "it must be more than 0"),
    "a: {ratio: x, criterion: l1}": ("'ratio' is text", 5, 0, 10, "it must be a number"),
    "a: {count: 0, criterion: l1}": (
        "'count' is out of range", 5, 0, 10, "it must be at least 1"),
    "a: {count: 2.5, criterion: l1}": (
        "'count' is a number", 5, 0, 10, "it must be a whole number"),
    "a: {count: true, criterion: l1}": (
        "'count' is true or false", 5, 0, 10, "it must be a whole number"),
    "a: {cuont: 3, criterion: l1}": ("unknown key 'cuont'", 5, 0, 10, "did you mean 'count'?"),
    "a: {criterion: 3, ratio: .5}": ("'criterion' is a whole number", 5, 0, 10, "it must be text"),
    "a: {criterion: , ratio: .5}": ("no value for 'criterion'", 5, 0, 10, ""),
    "a: [1]\n    backnd: 3": ("unknown key 'backnd'", 6, 1, 4, "did you mean 'backend'?"),
    "a: [1]\n    exclude: x": ("'exclude' is text", 6, 1, 4, "it must be a list"),
    "a: [1]\n    fold: 1": ("'fold' is a whole number", 6, 1, 4, "it must be true or false"),
    "a: {criterion: l1, count: 3, reduce: sun}": (
        "'reduce' is 'sun'", 5, 0, 35, "did you mean 'sum'?"),
    "a: {criterion: l1, count: 3, normalize: 3}": (
        "'normalize' is a whole number", 5, 0, 35, "it must be text"),
    "a: {criterion: l1, count: 3, max_ratio: 1}": (
        "'max_ratio' is out of range", 5, 0, 35, "it must be less than 1"),
    "a: {criterion: l1, count: 3, seed: -1}": (
        "'seed' is out of range", 5, 0, 35, "it must be at least 0"),
    "a: {criterion: l1}\n    target_params: 0.5": (
        "'target_params' is a number", 6, 1, 4, "it must be a whole number or text"),
    "a: {criterion: l1, count: 3}\n    globl: true": (
        "unknown key 'globl'", 6, 1, 4, "did you mean 'global'?"),
    "a: [1]\nmodel: {}": ("no 'parameters' in 'model'", 6, 1, 0, ""),
    "a: [1]\nmodel: {parameters: -1}": (
        "'parameters' is out of range", 6, 1, 8, "it must be at least 0"),
    "a: [1]\nexpect: {parms: 1}": ("unknown key 'parms'", 6, 1, 9, "did you mean 'parameters'?"),
    "a: [1]\nexpect: {exact: 1}": (
        "'exact' is a whole number", 6, 1, 9, "it must be true or false"),
    "a: [1]\nexpect: {units: 1.5}": (
        "'units' is a number", 6, 1, 9, "it must be a whole number or text"),
    'a: [1]\nexpect: {units: "=> 5"}': (
        "'units' is not a comparison", 6, 1, 9,
        'write a number, or a comparison such as "<= 1300000"'),
}  # fmt: skip
WHOLE |= {
    HEAD + part: said(what, line, f"      {part}".split("\n")[row], column, then=then)
    for part, (what, line, row, column, then) in PARTS.items()
}
WHOLE |= {
    HEAD + "a: {criterion: l1}": said(
        "a criterion without a limit", 5, "      a: {criterion: l1}", 10,
        "do:    give one of ratio, count and threshold"),
    HEAD + "a: {criterion: l1, ratio: 0.5, count: 3}": said(
        "a criterion with 'ratio' and 'count'", 5,
        "      a: {criterion: l1, ratio: 0.5, count: 3}", 37,
        "do:    give one of ratio, count and threshold"),
    HEAD + "a: {where: mean < 1, count: 3}": said(
        "'where' and 'count' for the same layer", 5, "      a: {where: mean < 1, count: 3}", 27),
    HEAD + "a: {min_units: 3}": said(
        "a choice with neither 'criterion' nor 'where'", 5, "      a: {min_units: 3}", 6,
        "do:    write {criterion: l1, ratio: 0.25} or {where: mean < 0.1}"),
    HEAD + "a: {criterion: l1, threshold: .nan}": said(
        "a threshold that is not a number to compare with", 5,
        "      a: {criterion: l1, threshold: .nan}", 25),
    HEAD + "a: [1]\n    outgoing: true": said(
        "'outgoing' with backend 'remove'", 6, "    outgoing: true", 4,
        "do:    'outgoing' goes with backend: zero"),
    HEAD + "a: {criterion: l1, ratio: 0.5}\n    target_params: 50%": said(
        "'ratio' under 'target_params'", 5, "      a: {criterion: l1, ratio: 0.5}", 25,
        "do:    give one of the two"),
    HEAD + "a: {criterion: l1}\n      b: {criterion: l2}\n    target_flops: 5M": said(
        "two choices under 'target_flops'", 6, "      b: {criterion: l2}", 6,
        "do:    it ranks all layers in one list, so give them one choice, or two steps"),
    HEAD + "a: [1]\n    global: true": said(
        "no criterion under 'global'", 5, "      a: [1]", 6,
        'do:    write layers: {"*": {criterion: lamp}}'),
    HEAD + "a: {criterion: l1}\n    target_params: 50%\n    target_bytes: 9k": said(
        "'target_params' and 'target_bytes'", 7, "    target_bytes: 9k", 4,
        "do:    give one of them"),
    HEAD + "a: {criterion: l1}\n    target_params: a lot": said(
        "'a lot' is no amount of parameters", 6, "    target_params: a lot", 4,
        "do:    write 40%, 1.2M or 500000"),
    HEAD + "a: [1]\n    below: 0.1": said(
        "'below' with backend 'remove'", 6, "    below: 0.1", 4,
        "do:    'below' goes with backend: mask"),
    HEAD.replace("remove", "mask") + "a: {where: mean < 1}\n    below: 0.1": said(
        "a choice by rank with 'below'", 5, "      a: {where: mean < 1}", 6),
    "version: 1\nsteps:\n- backend: zero\n  exclude: [a]": said(
        "a step without 'layers'", 3, "- backend: zero", 2,
        "do:    write layers: {dense_1: [3, 7, 12]}"),
    "version: 1\nsteps:\n- {backend: compact, data: x.npz}": said(
        "'data' with backend 'compact'", 3, "- {backend: compact, data: x.npz}", 21,
        "do:    'data' goes with backend: zero or mask or remove"),
    HEAD + "a: [1]\n    classes: [cat]": said(
        "'classes' without 'class_names'", 6, "    classes: [cat]", 4,
        "do:    write class_names: labels.txt, the names in the order of the model's outputs"),
    HEAD + "a: [1]\n    class_names: l.txt": said(
        "'class_names' without 'classes'", 6, "    class_names: l.txt", 4,
        "do:    write classes: [cat]"),
    HEAD + "a: [1]\n    class_names: l.txt\n    classes: []": said(
        "'classes' is empty", 7, "    classes: []", 4),
    HEAD + "a: [1]\n    class_names: l.txt\n    classes: {cat: 1}": said(
        "'classes' is a mapping", 7, "    classes: {cat: 1}", 4, then="it must be text or a list"),
    HEAD + "a: {criterion: l1}\n    classes: cat\n    class_names: l\n    target_params: 9": said(
        "'classes' under 'target_params'", 6, "    classes: cat", 4, "do:    make two steps of it"),
    "version: 1\nsteps:\n- backend: compact\n  classes: cat\n  class_names: l.txt": said(
        "'classes' with backend 'compact'", 4, "  classes: cat", 2,
        "do:    'classes' goes with backend: zero or mask or remove"),
    "version: 1\nsteps:" + 2 * "\n- {backend: remove, classes: cat, class_names: l.txt}": said(
        "a second step that removes classes by name", 4,
        "- {backend: remove, classes: cat, class_names: l.txt}", 20,
        "do:    name them all in one step"),
    HEAD + '"": [1]': said("no layer is named", 5, '      "": [1]', 6),
    HEAD + "a: 3,x": """\
error: '3,x' is not a list of units in plan.yaml, line 5. Nothing was written.
where: plan.yaml, line 5
       3,x
         ^
do:    write 3,7,12 or 0-7 or 0-99/2 or -1 or !3,7 or @FILE or where(EXPRESSION)""",
    HEAD + "a: [1]\n      b: {where: mean < 1 and meen > 2}": """\
error: there is no statistic 'meen' in plan.yaml, line 6. Nothing was written.
where: plan.yaml, line 6
       mean < 1 and meen > 2
                    ^^^^
do:    did you mean 'mean'?""",
    HEAD + "a:\n        where: |\n          mean <\n          oops\n": """\
error: there is no statistic 'oops' in plan.yaml, line 6. Nothing was written.
where: plan.yaml, line 6
       mean < oops >
              ^^^^
do:    NAMES""".replace(" >", " "),
}  # fmt: skip


@pytest.mark.parametrize("text", WHOLE)
def test_a_plan_that_breaks_the_schema_is_refused_with_its_line(text):
    from kprune.select.expressions import ALL_NAMES

    names = f"there are {', '.join(sorted(ALL_NAMES))}"
    assert refused(text) == WHOLE[text].replace("NAMES", names)


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
    from kprune.select.plan_yaml import write_flow, write_scalar

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


def test_a_text_that_lists_indices_is_the_list_unless_it_is_too_long():
    text = HEAD + 'a: "0-2,7"\n      b: "0-2, 7"\n      c: "0-200000"\n      d: "7,0-2"\n'
    assert parse_plan(text).steps[0].layers == {
        "a": [0, 1, 2, 7], "b": "0-2, 7", "c": "0-200000", "d": [7, 0, 1, 2],
    }  # fmt: skip


def test_a_text_that_names_no_units_in_order_is_not_taken_for_a_list():
    assert "the range runs backwards in plan.yaml, line 5" in refused(HEAD + 'a: "9,7-0"')


@pytest.mark.parametrize("indices", [list(range(-9, 0)), list(range(150_000)), [3, 3, 3]])
def test_lists_that_no_text_stands_for_are_printed_as_they_are(indices):
    plan = Plan(version=1, steps=[Step(backend="remove", layers={"a": indices})])
    assert parse_plan(plan_to_yaml(plan)) == plan


names = st.text(st.characters(exclude_categories=["Cs"]), min_size=1).filter(str.strip)
runs = st.lists(st.tuples(st.integers(0, 300), st.integers(1, 200)), max_size=5)
index_lists = (
    st.lists(st.integers(-(2**70), 2**70), max_size=5)
    | st.lists(st.integers(0, 400), unique=True).map(sorted)
    | runs.map(lambda pairs: sorted({i for start, n in pairs for i in range(start, start + n)}))
)
index_texts = st.sampled_from(
    ["0-7", "!3,7", " 0-7", "@drop.txt", "where(mean < 0.1)", "-1", "7,3"]
)
optional_count = st.none() | st.integers(1, 10**12)
shares = st.floats(0, 1, exclude_min=True, exclude_max=True)
finite = st.floats(allow_nan=False, allow_infinity=False)
limits = (
    st.builds(lambda v: {"ratio": v}, shares)
    | st.builds(lambda v: {"count": v}, st.integers(1, 10**9))
    | st.builds(lambda v: {"threshold": v}, finite)
)
ranked = {
    "criterion": st.text(st.characters(exclude_categories=["Cs"])),
    "round_to": optional_count,
    "min_units": optional_count,
    "max_ratio": st.none() | shares,
    "seed": st.none() | st.integers(0, 2**40),
    "reduce": st.none() | st.sampled_from(REDUCTIONS),
    "normalize": st.none() | st.sampled_from(NORMALIZATIONS),
}
choices = st.builds(
    lambda limit, rest: LayerChoice(**limit, **rest), limits, st.fixed_dictionaries(ranked)
) | st.sampled_from(
    [LayerChoice(where=text) for text in ("mean < 0.1", "w[0,0,0] < 0\n", "not (gamma >= 1e-3)")]
)  # fmt: skip


@st.composite
def steps(draw) -> Step:
    backend = draw(st.sampled_from(["zero", "mask", "remove", "compact"]))
    if backend == "compact":
        which = draw(st.dictionaries(names, index_lists | index_texts, max_size=2))
        return Step(
            backend="compact", layers=which, merge=draw(st.booleans()), check=draw(st.booleans())
        )
    budget = backend == "remove" and draw(st.booleans())
    below = backend == "mask" and not budget and draw(st.booleans())
    if budget:
        choice = LayerChoice(**draw(st.fixed_dictionaries(ranked)))
        layers = st.dictionaries(names, st.just(choice), min_size=1, max_size=4)
    else:
        values = index_lists | index_texts
        values |= st.just("all") if below else choices
        layers = st.dictionaries(names, values, min_size=1, max_size=4)
    target = draw(st.sampled_from(["target_params", "target_flops", "target_bytes"]))
    classed = not budget and not below and draw(st.booleans())
    named = {
        "classes": draw(st.lists(names, min_size=1, max_size=4) | names),
        "class_names": draw(names),
        "class_layer": draw(st.none() | names),
    }
    return Step(
        backend=backend,
        layers={} if classed and draw(st.booleans()) else draw(layers),
        **(named if classed else {}),
        below=0.25 if below else None,
        data=draw(st.none() | names),
        together=budget and draw(st.booleans()),
        **({target: draw(st.sampled_from(["40%", "1.2M", 9000]))} if budget else {}),
        exclude=draw(st.lists(names, max_size=4)),
        outgoing=backend == "zero" and draw(st.booleans()),
        silence=backend == "zero" and draw(st.booleans()),
        fold=backend == "remove" and draw(st.booleans()),
        coupled=draw(st.booleans()),
        allow_output_change=draw(st.booleans()),
    )


amounts = (
    st.none() | st.integers(0, 10**15) | st.sampled_from(["<= 1300000", ">1e6", "7", " != 3 "])
)
plans = st.builds(
    Plan,
    version=st.just(1),
    steps=st.lists(steps(), min_size=1, max_size=3).filter(
        lambda made: sum(step.classes is not None and step.backend == "remove" for step in made) < 2
    ),
    model=st.none() | st.builds(ModelCheck, parameters=st.integers(0, 10**12)),
    expect=st.none()
    | st.builds(Expect, amounts, amounts, amounts, amounts, st.none() | st.booleans()),
)


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


TEXTS = (("exclude",), ("classes",), ("class_layer",))


def conforms(value: Any, schema: dict[str, Any], root: dict[str, Any]) -> bool:
    """JSON Schema, as much of it as `plan_schema` uses; an unknown keyword is an error."""
    if isinstance(schema, bool):
        return schema
    types = {"object": dict, "array": list, "string": str, "integer": int, "boolean": bool}
    for keyword, said in schema.items():
        match keyword:
            case "$schema" | "title" | "description" | "default" | "$defs" | "then" | "else":
                holds = True
            case "allOf":
                holds = all(conforms(value, one, root) for one in said)
            case "if":
                branch = "then" if conforms(value, said, root) else "else"
                holds = conforms(value, schema.get(branch, {}), root)
            case "const":
                holds = value == said
            case "$ref":
                holds = conforms(value, root["$defs"][said.removeprefix("#/$defs/")], root)
            case "type" if said == "number":
                holds = isinstance(value, (int, float)) and not isinstance(value, bool)
            case "type":
                holds = isinstance(value, types[said]) and (
                    said != "integer" or not isinstance(value, bool)
                )
            case "enum":
                holds = value in said
            case "anyOf":
                holds = any(conforms(value, one, root) for one in said)
            case "oneOf":
                holds = sum(conforms(value, one, root) for one in said) == 1
            case "required":
                holds = not isinstance(value, dict) or set(said) <= set(value)
            case "properties":
                holds = not isinstance(value, dict) or all(
                    conforms(value[key], said[key], root) for key in said if key in value
                )
            case "additionalProperties":
                rest = set(value) - set(schema.get("properties", {})) if type(value) is dict else ()
                holds = all(said is not False and conforms(value[key], said, root) for key in rest)
            case "dependentRequired":
                holds = not isinstance(value, dict) or all(
                    set(said[key]) <= set(value) for key in said if key in value
                )
            case "items":
                holds = not isinstance(value, list) or all(conforms(v, said, root) for v in value)
            case "minItems" | "minProperties":
                holds = not isinstance(value, (list, dict)) or len(value) >= said
            case "maxProperties":
                holds = len(value) <= said
            case "minimum":
                holds = not isinstance(value, (int, float)) or value >= said
            case "exclusiveMinimum":
                holds = not isinstance(value, (int, float)) or value > said
            case "exclusiveMaximum":
                holds = not isinstance(value, (int, float)) or value < said
            case "pattern":
                holds = not isinstance(value, str) or re.search(said, value) is not None
            case _:
                raise AssertionError(f"this test does not know {keyword!r}")
        if not holds:
            return False
    return True


@given(plans)
def test_the_schema_accepts_what_the_parser_accepts(plan):
    from kprune.select.plan_yaml import read_yaml

    schema = json.loads(json.dumps(plan_schema()))
    text = plan_to_yaml(plan)
    data = read_yaml(text, "p", as_text=lambda path: path[2:3] in TEXTS).data
    assert conforms(data, schema, schema)


BEYOND_A_SCHEMA = (
    "outgoing: true", ".nan", '"": [1]', "a: 3,x", "meen", "oops", "below: 0.1", "data: x", "a lot",
    "global: true", "target_bytes: 9k", "target_flops: 5M", "classes: cat",
)  # fmt: skip


@pytest.mark.parametrize(
    "text", [text for text in WHOLE if not any(part in text for part in BEYOND_A_SCHEMA)]
)
def test_the_schema_refuses_what_the_parser_refuses(text):
    from kprune.select.plan_yaml import read_yaml

    schema = plan_schema()
    data = read_yaml(text, "p", as_text=lambda path: path[2:3] in TEXTS).data
    assert not conforms(data, schema, schema)


def test_the_schema_describes_its_keys_for_an_editor():
    schema = plan_schema()
    assert schema["$schema"] == "https://json-schema.org/draft/2020-12/schema"
    for part in ("Step", "LayerChoice"):
        for name, field in schema["$defs"][part]["properties"].items():
            assert field.get("description"), f"{part}.{name}"
    assert "null" not in json.dumps(schema)


def test_specs_and_indices_do_not_import_yaml():
    import subprocess
    import sys

    probe = (
        "import sys; from kprune.select import specs; specs.parse_spec('a:where(mean<1)')\n"
        "sys.exit(any(name in sys.modules for name in ('yaml', 'difflib')))"
    )
    assert subprocess.run([sys.executable, "-c", probe], check=False).returncode == 0
    probe = probe.replace("parse_spec", "parse_spec; import yaml; specs.parse_spec")
    assert subprocess.run([sys.executable, "-c", probe], check=False).returncode == 1
