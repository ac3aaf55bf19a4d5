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


@pytest.mark.parametrize(
    ("output", "names"),
    [("v2.small.keras", "v2.small.labels.txt"), ("small.model", "small.model.labels.txt")],
)
def test_only_the_suffix_of_a_model_is_left_out_of_the_name(
    kprune: Kprune, output: str, names: str
) -> None:
    assert kprune("remove", "model.keras", *NAMED, "-o", output).code == 0
    assert Path(names).read_text() == LEFT


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
        (["--classes", "three", "--criterion", "l1", "--ratio", "0.5"], "two ways to choose"),
        ([], "--class-names goes with --classes"),
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
