"""Plans of rounds: read strictly, and what the schedule allows after each round."""

from __future__ import annotations

import json
import re

import pytest

from kprune.errors import PlanError
from kprune.select.plans.iteration import iteration_schema, parse_iteration_plan

PLAN = """\
version: 1
choose: {criterion: l1, normalize: layer-mean, min_units: 4, exclude: [stem_*]}
target: {parameters: 40%}
schedule: {rounds: 4}
tune: {epochs: 3, learning_rate: 1e-3}
floor: accuracy >= 0.97
"""


def with_line(old: str, new: str) -> str:
    assert old in PLAN
    return PLAN.replace(old, new)


def test_a_plan_says_what_it_says() -> None:
    plan = parse_iteration_plan(PLAN)
    assert plan.kind == "parameters"
    assert (plan.tune.epochs, plan.tune.learning_rate, plan.tune.batch_size) == (3, 0.001, 32)
    assert plan.choose.exclude == ["stem_*"]
    assert plan.limit is not None and (plan.limit.metric, plan.limit.amount) == ("accuracy", 0.97)


def test_a_floor_may_count_from_the_original() -> None:
    limit = parse_iteration_plan(with_line(">= 0.97", ">= original - 0.01")).limit
    assert limit is not None
    assert limit.relative and limit.bound(0.98) == pytest.approx(0.97)


@pytest.mark.parametrize(
    ("schedule", "expected"),
    [
        ("{rounds: 4}", [800, 640, 512, 409.6]),
        ("{rounds: 4, shape: linear}", [852.4, 704.8, 557.2, 409.6]),
        ("{step: 0.25}", [750, 562.5, 421.875, 409.6]),
    ],
)
def test_what_may_be_left_after_each_round(schedule: str, expected: list[float]) -> None:
    plan = parse_iteration_plan(with_line("{rounds: 4}", schedule))
    goals = [plan.goal(round_, 1000.0, 409.6) for round_ in (1, 2, 3, 4)]
    assert goals == pytest.approx(expected)
    assert plan.goal(9, 1000.0, 409.6) == pytest.approx(409.6)


def test_without_a_target_steps_go_on() -> None:
    text = with_line("target: {parameters: 40%}\n", "").replace("{rounds: 4}", "{step: 0.5}")
    plan = parse_iteration_plan(text)
    assert [plan.goal(round_, 1000.0, None) for round_ in (1, 2, 3)] == [500, 250, 125]


@pytest.mark.parametrize(
    ("old", "new", "line", "words"),
    [
        ("schedule:", "steps:", 4, "do:    'kprune apply' carries out such a plan"),
        ("schedule", "shedule", 4, "did you mean 'schedule'?"),
        ("epochs", "epoch", 5, "did you mean 'epochs'?"),
        ("epochs: 3", "epochs: 0", 5, "it must be at least 1"),
        ("epochs: 3", "seed: 4294967296", 5, "it must be at most 4294967295"),
        ("epochs: 3", "epochs: many", 5, "it must be a whole number"),
        ("criterion: l1, ", "", 2, "no 'criterion' in 'choose'"),
        ("criterion: l1", "criterion: l1, ratio: 0.5", 2, "unknown key 'ratio'"),
        ("layer-mean", "layer-median", 2, "did you mean 'layer-mean'"),
        ("{rounds: 4}", "{rounds: 4, step: 0.1}", 4, "'rounds' and 'step'"),
        ("{rounds: 4}", "{}", 4, "neither 'rounds' nor 'step'"),
        ("{rounds: 4}", "{rounds: 4, shape: cubic}", 4, "'shape' is 'cubic'"),
        ("{rounds: 4}", "{step: 1}", 4, "it must be less than 1"),
        ("{parameters: 40%}", "{parameters: 140%}", 3, "got 140 %"),
        ("{parameters: 40%}", "{parameters: 40%, flops: 1M}", 3, "'parameters' and 'flops'"),
        ("target: {parameters: 40%}\n", "", 1, "a plan without 'target'"),
        ("accuracy >= 0.97", "accuracy > 0.97", 6, "'floor' is not a comparison"),
        (">= 0.97", ">= original - 1%", 6, "accuracy >= original - 0.01 (one point less)"),
        (">= 0.97", ">= original + 0.01", 6, "do:    write accuracy >= original - 0.01"),
        ("accuracy >= 0.97", "loss <= original - 1", 6, "do:    write loss <= original + 1"),
        ("floor: accuracy >= 0.97", "floor:", 6, "no value for 'floor'"),
        ("stem_*", "''", 2, "item 1 of 'exclude'"),
        ("version: 1", "version: 2", 1, "this kprune reads version 1"),
        ("floor: accuracy >= 0.97", "repair: lstsqs", 6, "did you mean 'lstsq'"),
        ("floor: accuracy >= 0.97", "repair: 3", 6, "it must be true or false or text"),
    ],
)
def test_a_mistake_is_told_with_its_line(old: str, new: str, line: int, words: str) -> None:
    with pytest.raises(PlanError) as refused:
        parse_iteration_plan(with_line(old, new), "rounds.yaml")
    assert words in str(refused.value)
    assert f"rounds.yaml, line {line}" in refused.value.what
    assert "Nothing was written" in refused.value.what


@pytest.mark.parametrize(
    ("repair", "tune", "trains"),
    [("", "", True), ("true", "", False), ("noise", "", False), ("false", "", True),
     ("true", "{epochs: 1}", True), ("bias", "{}", True)],
)  # fmt: skip
def test_rounds_train_where_the_plan_says_how_and_where_nothing_is_refitted(
    repair: str, tune: str, trains: bool
) -> None:
    text = with_line("tune: {epochs: 3, learning_rate: 1e-3}\n", tune and f"tune: {tune}\n")
    plan = parse_iteration_plan(text + (repair and f"repair: {repair}\n"))
    assert plan.trains is trains
    assert plan.training.epochs == (1 if "epochs" in tune else 3)


@pytest.mark.parametrize("text", ["", "[]", "3", "version: 1"])
def test_what_is_no_plan_is_refused(text: str) -> None:
    with pytest.raises(PlanError):
        parse_iteration_plan(text)


def test_the_schema_names_every_key() -> None:
    schema = iteration_schema()
    plan = schema["$defs"]["IterationPlan"]
    assert set(plan["properties"]) == {
        "version", "choose", "schedule", "target", "floor", "repair", "tune", "model",
    }  # fmt: skip
    assert plan["required"] == ["version", "choose", "schedule"]
    assert "null" not in json.dumps(schema)
    assert re.fullmatch(plan["properties"]["floor"]["pattern"], "accuracy >= original - 0.01")
