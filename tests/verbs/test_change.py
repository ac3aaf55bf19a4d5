"""The commands as functions, from file to file: what is in the file afterwards."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import kprune
from kprune.errors import CheckError, FrozenUnitsError, LastUnitError, PlanError, UsageError
from kprune.select.plans.plan import parse_plan
from tests.formats.making import contents, left_in
from tests.small_models import Network, layer, sequential, write


def chain() -> Any:
    return sequential(
        layer("Dense", "a", units=8), layer("Dense", "b", units=6), layer("Dense", "out", units=3),
        shape=[5],
    )  # fmt: skip


@pytest.fixture
def model(tmp_path: Path) -> Path:
    (tmp_path / "in").mkdir()
    return write(tmp_path / "in" / "model.keras", chain())


def metadata(path: Path) -> dict[str, Any]:
    with zipfile.ZipFile(path) as archive:
        found: dict[str, Any] = json.loads(archive.read("metadata.json"))
    return found


def steps(*backends_and_layers: tuple[str, dict[str, Any]], **rest: Any) -> Any:
    listed = [{"backend": backend, "layers": layers} for backend, layers in backends_and_layers]
    return parse_plan(json.dumps({"version": 1, "steps": listed, **rest}))


def test_removed_columns_and_rows_are_gone_and_all_else_is_bit_for_bit(model: Path) -> None:
    out = model.with_name("out.keras")
    kprune.remove(model, {"a": [2, 5]}, output=out)
    before, after = contents(model), contents(out)
    left = [0, 1, 3, 4, 6, 7]
    np.testing.assert_array_equal(
        after["layers/dense/vars/0"], before["layers/dense/vars/0"][:, left]
    )
    np.testing.assert_array_equal(after["layers/dense/vars/1"], before["layers/dense/vars/1"][left])
    np.testing.assert_array_equal(
        after["layers/dense_1/vars/0"], before["layers/dense_1/vars/0"][left]
    )
    for path in ("layers/dense_1/vars/1", "layers/dense_2/vars/0", "layers/dense_2/vars/1"):
        assert after[path].tobytes() == before[path].tobytes()


def test_two_removals_are_one(model: Path) -> None:
    """Removing and then removing more leaves the very tensors that removing both at once does."""
    first, second, both = (model.with_name(f"{name}.keras") for name in ("first", "second", "both"))
    kprune.remove(model, {"a": [1, 4]}, output=first)
    kprune.remove(first, {"a": [0, 3], "b": [5]}, output=second)  # 0 and 5 of the original
    kprune.remove(model, {"a": [0, 1, 4, 5], "b": [5]}, output=both)
    one, other = contents(second), contents(both)
    assert one.keys() == other.keys()
    assert all(one[path].tobytes() == other[path].tobytes() for path in one)
    assert metadata(second)["kprune"]["units"] == metadata(both)["kprune"]["units"]


def test_the_same_command_gives_the_same_bytes(model: Path) -> None:
    one, other = model.with_name("one.keras"), model.with_name("other.keras")
    for path in (one, other):
        kprune.remove(model, {"a": [1]}, output=path)
    assert one.read_bytes() == other.read_bytes()


def test_the_report_counts_what_is_in_the_file(model: Path) -> None:
    out = model.with_name("out.keras")
    report = kprune.remove(model, {"a": [0], "b": [1, 2]}, output=out)
    for facts, path in ((report.input, model), (report.output, out)):
        assert facts.parameters == sum(array.size for array in contents(path).values())
        assert facts.bytes == path.stat().st_size
    assert (report.input.units, report.output.units) == (17, 14)
    # A kernel of (i, o) takes i * o multiply-adds, its bias o sums.
    assert report.output.flops == sum(2 * i * o + o for i, o in ((5, 7), (7, 4), (4, 3)))


def test_a_dry_run_reports_the_same_and_writes_nothing(model: Path) -> None:
    before = left_in(model.parent)
    dry = kprune.remove(model, {"a": [0, 3]}, dry_run=True)
    assert left_in(model.parent) == before and dry.output.path is None
    real = kprune.remove(model, {"a": [0, 3]})
    assert left_in(model.parent) == before | {"model.pruned.keras"}
    whole, told = real.to_dict(), dry.to_dict()
    assert whole["output"].pop("path") and told["output"].pop("path") is None
    assert whole == told


def test_a_limit_that_is_missed_writes_nothing(model: Path) -> None:
    before = left_in(model.parent)
    with pytest.raises(CheckError, match="--max-parameters allows 10") as caught:
        kprune.remove(model, {"a": [0]}, limits={"parameters": 10})
    assert caught.value.exit_code == 5 and left_in(model.parent) == before


def test_mask_and_unmask_give_back_every_tensor_and_the_config(model: Path) -> None:
    masked, back = model.with_name("masked.keras"), model.with_name("back.keras")
    kprune.mask(model, {"a": [0, 3]}, output=masked)
    assert metadata(masked)["kprune"]["plan"]["steps"][0]["backend"] == "mask"
    kprune.unmask(masked, output=back)
    one, other = contents(model), contents(back)
    assert one.keys() == other.keys()
    assert all(one[path].tobytes() == other[path].tobytes() for path in one)
    with zipfile.ZipFile(model) as a, zipfile.ZipFile(back) as b:
        assert json.loads(a.read("config.json")) == json.loads(b.read("config.json"))
    assert metadata(back) == metadata(model)


def test_zero_outgoing_holds_what_remove_leaves(model: Path) -> None:
    """The tensors of `remove` are those of `zero --outgoing` without their zeros."""
    zeroed, cut = model.with_name("zeroed.keras"), model.with_name("cut.keras")
    kprune.zero(model, {"a": [2, 5], "b": [0]}, outgoing=True, output=zeroed)
    kprune.remove(model, {"a": [2, 5], "b": [0]}, output=cut)
    small = contents(cut)
    for path, array in contents(zeroed).items():
        for axis in range(array.ndim):
            others = tuple(other for other in range(array.ndim) if other != axis)
            array = array.compress((array != 0).any(axis=others), axis)
        np.testing.assert_array_equal(array, small[path], err_msg=path)


def test_a_plan_of_several_steps_reports_in_terms_of_the_first_input(model: Path) -> None:
    out = model.with_name("out.keras")
    # Each step counts what the one before left: 1 2 5 6 7, then 2 6 7.
    plan = steps(
        ("remove", {"a": [0, 3, 4]}), ("remove", {"a": [0, 2], "b": [5]}), ("zero", {"a": [0]})
    )
    report = kprune.apply(model, plan, output=out)
    assert report.command == "apply" and report.backend == "remove, zero"
    assert report.selected == report.changed == {"a": [0, 1, 2, 3, 4, 5], "b": [5]}
    assert report.input.path == str(model) and report.output.path == str(out)
    assert report.input.parameters == sum(array.size for array in contents(model).values())
    (row,) = [row for row in report.layers if row.name == "a"]
    assert (row.units_before, row.units_after) == (8, 3)
    kernel = next(row for row in report.weights if row.path == "layers/dense/vars/0")
    assert (kernel.shape_before, kernel.shape_after) == ([5, 8], [5, 3])
    assert metadata(out)["kprune"]["units"]["a"] == [2, 6, 7]
    after, before = contents(out), contents(model)
    assert (after["layers/dense/vars/0"][:, 0] == 0).all()
    np.testing.assert_array_equal(
        after["layers/dense/vars/0"][:, 1:], before["layers/dense/vars/0"][:, [6, 7]]
    )
    assert left_in(model.parent) == {"model.keras", "out.keras"}


def test_units_zeroed_and_then_removed_count_once(model: Path) -> None:
    plan = steps(("zero", {"a": [1]}), ("remove", {"a": [1, 2]}))
    report = kprune.apply(model, plan, output=model.with_name("out.keras"))
    kernel = next(row for row in report.weights if row.path == "layers/dense/vars/0")
    assert kernel.kept == [None, [0, 3, 4, 5, 6, 7]]


@pytest.mark.parametrize("several", [False, True])
def test_nothing_is_written_when_an_expectation_fails(model: Path, several: bool) -> None:
    before = left_in(model.parent)
    listed = [("remove", {"a": [0]}), ("remove", {"b": [1]})][: 2 if several else 1]
    with pytest.raises(CheckError, match="expectations do not hold") as caught:
        kprune.apply(model, steps(*listed, expect={"parameters": "<= 5"}))
    assert caught.value.exit_code == 5 and "the plan expects <= 5" in caught.value.why
    assert left_in(model.parent) == before


def test_a_step_that_is_refused_leaves_nothing_of_those_before_it(model: Path) -> None:
    before = left_in(model.parent)
    with pytest.raises(UsageError) as caught:
        kprune.apply(model, steps(("remove", {"a": [0]}), ("remove", {"a": [7]})))
    assert "line" in caught.value.where
    assert left_in(model.parent) == before


def test_an_expectation_that_holds_lets_the_plan_pass(model: Path) -> None:
    plan = steps(("remove", {"a": [0]}), expect={"units": 16, "exact": True, "parameters": "< 200"})
    assert kprune.apply(model, plan).output.units == 16


def test_a_plan_for_another_model_is_refused(model: Path) -> None:
    with pytest.raises(PlanError, match="the plan is for a model of 7 parameters"):
        kprune.apply(model, steps(("remove", {"a": [0]}), model={"parameters": 7}))


def test_what_kprune_plan_prints_does_what_was_asked(model: Path) -> None:
    choice = kprune.Choice("l1", ratio=0.5)
    made = kprune.plan(model, choice=choice)
    one, other = model.with_name("one.keras"), model.with_name("other.keras")
    kprune.apply(model, made, output=one)
    kprune.remove(model, choice=choice, output=other)
    a, b = contents(one), contents(other)
    assert all(a[path].tobytes() == b[path].tobytes() for path in {*a, *b})


def test_units_tied_to_the_output_are_refused_and_nothing_is_written(tmp_path: Path) -> None:
    net = Network()
    x = net.input("in", 4)
    a, b = net("Dense", "a", x, units=3), net("Dense", "b", x, units=3)
    path = write(tmp_path / "m.keras", net.functional(net("Add", "sum", [a, b])))
    with pytest.raises(FrozenUnitsError, match="cannot remove unit 1 of 'a'"):
        kprune.remove(path, {"a": [1]})
    assert left_in(tmp_path) == {"m.keras"}
    report = kprune.remove(path, {"a": [1]}, allow_output_change=True)
    assert report.changed == {"a": [1], "b": [1]}


@pytest.mark.parametrize("name", ["digits_cnn", "digits_mlp", "digits_resnet", "digits_lstm"])
def test_sample_models_lose_what_was_asked_and_say_so(
    samples: Path, tmp_path: Path, name: str
) -> None:
    out = tmp_path / "out.keras"
    report = kprune.remove(
        samples / f"{name}.keras", choice=kprune.Choice("random", ratio=0.3), output=out
    )
    assert report.output.parameters < report.input.parameters
    stored = {p: a for p, a in contents(out).items() if not p.startswith("optimizer/")}
    assert report.output.parameters == sum(array.size for array in stored.values())
    again = kprune.inspect(out)
    assert {row.name: row.units for row in again.layers if row.name in report.changed} == {
        row.name: row.units_after for row in report.layers if row.name in report.changed
    }


def test_a_layer_vanishes_unnamed_only_with_leave_from_the_command_or_the_plan(
    tmp_path: Path,
) -> None:
    net = Network()
    x = net.input("in", 5)
    summed = net("Add", "sum", [net("Dense", name, x, units=2) for name in ("p", "q")])
    joined = net("Concatenate", "join", [summed, net("Dense", "s", x, units=3)], shape=(None, 5))
    path = write(tmp_path / "m.keras", net.functional(net("Dense", "out", joined, units=2)))
    direct, out = tmp_path / "direct.keras", tmp_path / "out.keras"
    kprune.remove(path, {"p": [0, 1]}, drop_branches=True, output=direct)
    step = {"backend": "remove", "layers": {"p": [0, 1]}}
    for told, given in (({}, True), ({"drop_branches": True}, False)):
        plan = parse_plan(json.dumps({"version": 1, "steps": [{**step, **told}]}))
        kprune.apply(path, plan, drop_branches=given, output=out, force=True)
        assert out.read_bytes() == direct.read_bytes()
    with pytest.raises(LastUnitError) as caught:
        kprune.apply(
            path,
            parse_plan(json.dumps({"version": 1, "steps": [step]})),
            output=tmp_path / "no.keras",
        )
    assert caught.value.where == "p -> sum -> q (plan.yaml, line 1)"


@pytest.mark.parametrize("given", [None, 3, ["m.keras"]])
def test_a_model_that_is_no_path_is_refused_by_name(
    model: Path, given: Any, tmp_path: Path
) -> None:
    data = tmp_path / "no.npz"
    for call in (
        lambda: kprune.remove(given, {"a": [1]}),
        lambda: kprune.inspect(given),
        lambda: kprune.explain(given, {"a": [1]}),
        lambda: kprune.plan(given, {"a": [1]}),
        lambda: kprune.verify(given, model),
        lambda: kprune.verify(model, given),
        lambda: kprune.diff(model, given),
        lambda: kprune.compact(given),
        lambda: kprune.tune(given, data=data),
        lambda: kprune.sensitivity(given, data=data),
    ):
        with pytest.raises(UsageError, match=f"a model is given as '{type(given).__name__}'"):
            call()
