"""`--classes cat,dog --class-names labels.txt`: classes go by name, and out of the file of names."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.cli.conftest import Kprune, folder_as_it_is

DIGITS = "zero one two three four five six seven eight nine".split()
NAMED = ("--classes", "three,nine", "--class-names", "labels.txt")
LEFT = "".join(f"{name}\n" for name in DIGITS if name not in ("three", "nine"))


@pytest.fixture(autouse=True)
def labels(model: Path) -> Path:
    file = Path("labels.txt")
    file.write_text("".join(f"{name}\n" for name in DIGITS))
    return file


def test_classes_by_name_are_the_units_of_the_output_layer(kprune: Kprune) -> None:
    assert kprune("remove", "model.keras", *NAMED, "-o", "named.keras").code == 0
    assert kprune("remove", "model.keras", "classes:3,9", "-o", "numbered.keras").code == 0
    assert Path("named.keras").read_bytes() == Path("numbered.keras").read_bytes()
    assert Path("named.labels.txt").read_text() == LEFT
    assert not Path("numbered.labels.txt").exists()


def test_the_names_that_are_left_stand_beside_the_result(kprune: Kprune) -> None:
    ran = kprune("remove", "model.keras", *NAMED, "-q")
    assert ran.out == "model.pruned.keras\n"
    assert Path("model.pruned.labels.txt").read_text() == LEFT
    dry = kprune("remove", "model.keras", *NAMED, "--dry-run", "--json")
    (note,) = [note for note in dry.json["notes"] if note["kind"] == "class-names"]
    assert note["layer"] == "classes" and note["text"].endswith("left: model.pruned.labels.txt")


def test_only_the_suffix_of_a_model_is_left_out_of_the_name(kprune: Kprune) -> None:
    assert kprune("remove", "model.keras", *NAMED, "-o", "v2.small.keras").code == 0
    assert Path("v2.small.labels.txt").read_text() == LEFT


def test_in_place_means_the_names_as_well(kprune: Kprune, labels: Path) -> None:
    assert kprune("remove", "model.keras", *NAMED, "--in-place").code == 0
    assert labels.read_text() == LEFT
    # The two still agree.
    ran = kprune("remove", "model.keras", "--classes", "one", "--class-names", labels, "--in-place")
    assert ran.code == 0
    assert labels.read_text() == LEFT.replace("one\n", "")


def test_a_model_on_standard_output_leaves_the_names_beside_the_old_ones(kprune: Kprune) -> None:
    ran = kprune("remove", "model.keras", *NAMED, "-o", "-")
    assert ran.code == 0 and ran.stdout.startswith(b"PK")
    assert Path("labels.pruned.txt").read_text() == LEFT


@pytest.mark.parametrize("taken", ["small.keras", "small.labels.txt"])
def test_an_output_that_exists_leaves_both_alone(kprune: Kprune, taken: str) -> None:
    Path(taken).write_text("mine")
    before = folder_as_it_is(Path())
    ran = kprune("remove", "model.keras", *NAMED, "-o", "small.keras")
    assert ran.code == 2 and f"{taken} exists already" in ran.err
    assert folder_as_it_is(Path()) == before
    assert kprune("remove", "model.keras", *NAMED, "-o", "small.keras", "--force").code == 0
    assert Path("small.labels.txt").read_text() == LEFT


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--classes", "tree"], "there is no class 'tree' in labels.txt; did you mean 'three'?"),
        (["--classes", "three", "--layer", "hidden"], "'hidden' is not an output layer"),
        (["--classes", "three", "--criterion", "l1", "--ratio", "0.5"], "cannot be combined"),
        ([], "--class-names needs --classes"),
    ],
)
def test_a_mistake_costs_nothing(kprune: Kprune, options: list[str], message: str) -> None:
    before = folder_as_it_is(Path())
    ran = kprune("remove", "model.keras", "--class-names", "labels.txt", *options)
    assert ran.code == 2 and message in ran.err
    assert folder_as_it_is(Path()) == before


def test_a_file_with_a_name_too_many_is_refused(kprune: Kprune, labels: Path) -> None:
    with labels.open("a") as file:
        file.write("ten\n")
    ran = kprune("remove", "model.keras", *NAMED)
    assert ran.code == 2
    assert "labels.txt has 11 names, and layer 'classes' 10 units" in ran.err


def test_zero_mask_and_plan_take_names_and_write_none(kprune: Kprune) -> None:
    for command, options in (("zero", ["--silence"]), ("mask", []), ("remove", ["--dry-run"])):
        ran = kprune(command, "model.keras", *NAMED, *options, "-o", f"{command}.keras", "--json")
        assert ran.json["selected"] == {"classes": [3, 9]}
    assert "classes: [3, 9]" in kprune("plan", "model.keras", *NAMED).out
    assert not list(Path().glob("*.labels.txt"))


STEP = "classes: [three, nine], class_names: labels.txt"


def plan(*steps: str) -> str:
    """A plan's file, in a folder of its own with the names."""
    Path("plans").mkdir(exist_ok=True)
    Path("plans/labels.txt").write_text(Path("labels.txt").read_text())
    rows = "".join(f"  - {{{step}}}\n" for step in steps)
    Path("plans/plan.yaml").write_text(f"version: 1\nsteps:\n{rows}")
    return "plans/plan.yaml"


def test_a_plan_removes_classes_by_name(kprune: Kprune) -> None:
    """Its file of names is beside it; what is left of them goes beside the result."""
    named = plan(f"backend: remove, {STEP}")
    Path("labels.txt").unlink()
    assert kprune("apply", "model.keras", named, "-o", "planned.keras").code == 0
    assert kprune("remove", "model.keras", "classes:3,9", "-o", "numbered.keras").code == 0
    assert Path("planned.keras").read_bytes() == Path("numbered.keras").read_bytes()
    assert Path("planned.labels.txt").read_text() == LEFT
    assert kprune("apply", "model.keras", named, "--in-place").code == 0
    assert Path("plans/labels.txt").read_text() == LEFT


@pytest.mark.parametrize(
    ("steps", "gone"),
    [
        ([f"backend: remove, {STEP}", "backend: remove, layers: {hidden: [0]}"], {3, 9}),
        ([f"backend: remove, {STEP}", "backend: remove, layers: {classes: [0, 3]}"], {0, 3, 4, 9}),
        ([f"backend: remove, {STEP}", "backend: zero, layers: {classes: [0]}"], {3, 9}),
        ([f"backend: remove, layers: {{hidden: [0]}}, {STEP}, class_layer: classes",
          "backend: compact"], {3, 9}),
        ([f"backend: mask, {STEP}", "backend: remove, layers: {hidden: [0]}"], None),
    ],
)  # fmt: skip
def test_the_names_follow_all_steps_of_a_plan(
    kprune: Kprune, steps: list[str], gone: set[int] | None
) -> None:
    before = set(Path().rglob("*labels*"))
    assert kprune("apply", "model.keras", plan(*steps), "-q").out == "model.pruned.keras\n"
    written = set(Path().rglob("*labels*")) - before - {Path("plans/labels.txt")}
    if gone is None:
        assert not written
    else:
        assert written == {Path("model.pruned.labels.txt")}
        left = [name for index, name in enumerate(DIGITS) if index not in gone]
        assert Path("model.pruned.labels.txt").read_text().split() == left


def test_compacting_last_writes_the_names_though_there_is_something_to_compact(
    kprune: Kprune,
) -> None:
    zeroed = "backend: zero, layers: {hidden: [5]}"
    steps = plan(f"backend: remove, {STEP}", zeroed, "backend: compact")
    ran = kprune("apply", "model.keras", steps, "-o", "small.keras", "--json")
    assert ran.json["changed"]["hidden"] == [5]
    assert Path("small.labels.txt").read_text() == LEFT
    assert [note["kind"] for note in ran.json["notes"]].count("class-names") == 1
    taken = kprune("apply", "model.keras", steps, "-o", "other.keras")
    assert taken.code == 0
    Path("other.keras").unlink()
    assert kprune("apply", "model.keras", steps, "-o", "other.keras").code == 2
    assert not Path("other.keras").exists()


def test_a_plan_with_a_name_that_is_none_tells_its_line(kprune: Kprune) -> None:
    named = plan(f"backend: remove, {STEP.replace('three', 'tree')}")
    before = folder_as_it_is(Path())
    ran = kprune("apply", "model.keras", named)
    assert ran.code == 2
    assert "there is no class 'tree'" in ran.err and "plan.yaml, line 3" in ran.err
    assert "three" not in ran.err  # a plan may name any file, to have its content told
    assert folder_as_it_is(Path()) == before


def test_in_place_means_the_names_whatever_steps_there_are(kprune: Kprune) -> None:
    named = plan(f"backend: remove, {STEP}", "backend: remove, layers: {hidden: [0]}")
    assert kprune("apply", "model.keras", named, "--in-place").code == 0
    assert Path("plans/labels.txt").read_text() == LEFT
    assert not Path("model.labels.txt").exists()


def test_a_plan_of_several_steps_takes_a_model_from_a_pipe(kprune: Kprune) -> None:
    steps = plan(f"backend: remove, {STEP}", "backend: remove, layers: {hidden: [0]}")
    model = Path("model.keras").read_bytes()
    assert kprune("apply", "-", steps, "-o", "piped.keras", stdin=model).code == 0
    assert kprune("apply", "model.keras", steps, "-o", "named.keras").code == 0
    assert Path("piped.keras").read_bytes() == Path("named.keras").read_bytes()
