"""What the commands that change a model write, and what they print about it."""

from __future__ import annotations

import json
import textwrap
from pathlib import Path

import pytest

from kprune.opened import open_model
from tests.cli.conftest import Kprune, folder_as_it_is

REMOVE = ("conv_3:0-7", "hidden:0-31")


def test_the_result_stands_beside_the_input(kprune: Kprune, model: Path) -> None:
    ran = kprune("remove", model, *REMOVE)
    assert (ran.code, ran.err) == (0, "")
    assert sorted(folder_as_it_is(Path())) == ["model.keras", "model.pruned.keras"]
    assert "wrote model.pruned.keras\n" in ran.out


def test_the_table_marks_what_was_named_and_ends_in_totals(kprune: Kprune, model: Path) -> None:
    ran = kprune("remove", model, *REMOVE, "-o", "small.keras")
    size = Path("small.keras").stat().st_size
    assert ran.out == textwrap.dedent(
        f"""\
           layer      units       parameters            FLOPs
        ─────────────────────────────────────────────────────
        *  conv_3   32 → 24   6,944 →  5,208   222 k →  166 k
           bn_3                 128 →     96  1.02 k →    768
        *  hidden   64 → 32  32,832 → 12,320  65.6 k → 24.6 k
           classes       10     650 →    330  1.29 k →    650

        units           146 →     106  -27.4%
        parameters   44,354 →  21,754  -51.0%
        FLOPs       758,090 → 660,778  -12.8%
        bytes       603,175 → {size:,}  {100 * (size / 603175 - 1):.1f}%

        wrote small.keras
        """
    )


def test_units_that_go_along_are_marked(kprune: Kprune, resnet: Path) -> None:
    ran = kprune("remove", resnet, "block_1_2_conv:0,3", "--dry-run")
    rows = [line.split() for line in ran.out.splitlines() if line.startswith(("*", "+"))]
    marks = {name: mark for mark, name, *_ in rows}
    assert marks["block_1_2_conv"] == "*"
    assert marks["stem_conv"] == "+"
    assert "* named   + also removed, tied unit by unit to what was named\n" in ran.out


def test_zero_says_which_units_and_notes_what_they_still_emit(kprune: Kprune, model: Path) -> None:
    ran = kprune("zero", model, "conv_3:0-7", "--dry-run")
    assert "*  conv_3  8 of 32  0-7\n" in ran.out
    assert "units          146\n".replace(" ", "") in ran.out.replace(" ", "")
    assert ran.err.startswith("note: 'bn_3' turns the 0 of zeroed units of 'conv_3' into ")


def test_mask_and_unmask_give_the_model_back(kprune: Kprune, model: Path) -> None:
    assert kprune("mask", model, "relu_1:3", "hidden:0-7", "-o", "masked.keras").code == 0
    with open_model("masked.keras") as masked:
        names = [layer["config"]["name"] for layer in masked.config["config"]["layers"]]
    assert {"kprune_mask_relu_1", "kprune_mask_hidden"} < set(names)
    ran = kprune("unmask", "masked.keras", "-o", "again.keras")
    assert ran.code == 0
    assert "unmasked: relu_1, hidden\n" in ran.out
    with open_model(model) as old, open_model("again.keras") as new:
        assert new.config == old.config


def test_unmask_takes_only_the_masks_that_are_named(kprune: Kprune, model: Path) -> None:
    kprune("mask", model, "relu_1:3", "hidden:0-7", "-o", "masked.keras")
    kprune("unmask", "masked.keras", "hidden", "--in-place")
    with open_model("masked.keras") as masked:
        names = [layer["config"]["name"] for layer in masked.config["config"]["layers"]]
    assert "kprune_mask_relu_1" in names
    assert "kprune_mask_hidden" not in names


def test_a_threshold_masks_whole_layers_and_single_units(kprune: Kprune, model: Path) -> None:
    ran = kprune("mask", model, "hidden", "conv_1:3", "--below", "0.1", "--json")
    assert ran.json["selected"] == {"conv_1": [3], "hidden": []}


def test_a_dry_run_writes_nothing_and_reports_the_same(kprune: Kprune, model: Path) -> None:
    before = folder_as_it_is(Path())
    dry = kprune("remove", model, *REMOVE, "--dry-run", "--json").json
    assert folder_as_it_is(Path()) == before
    wet = kprune("remove", model, *REMOVE, "--json").json
    assert dry["output"].pop("path") is None
    assert wet["output"].pop("path") == "model.pruned.keras"
    assert dry == wet


def test_a_dry_run_needs_no_output_for_a_model_from_a_pipe(kprune: Kprune, model: Path) -> None:
    ran = kprune("remove", "-", "conv_1:0", "--dry-run", "--json", stdin=model.read_bytes())
    assert ran.json["input"]["path"] is None
    assert ran.json["output"]["parameters"] == 44124


def test_the_same_command_gives_the_same_bytes(kprune: Kprune, model: Path) -> None:
    kprune("remove", model, *REMOVE, "-o", "one.keras")
    kprune("remove", model, *REMOVE, "-o", "two.keras")
    assert Path("one.keras").read_bytes() == Path("two.keras").read_bytes()


def test_every_way_to_name_units_gives_the_same_bytes(kprune: Kprune, model: Path) -> None:
    Path("drop.txt").write_text("1 2\n15")
    ways = [
        ["conv_1:1,2,15"],
        ["conv_1:15,2,1,1"],
        ["conv_1:!0,3-14"],
        ["conv_1:1,2", "conv_1:-1"],
        ["--layer", "conv_1", "--units", "1,2,-1"],
        ["--layer", "conv_1", "--units", "1-2", "--layer", "conv_1", "--units", "-1"],
        ["conv_1:@drop.txt"],
        ["conv_1:where(index == 1 or index == 2 or index == 15)"],
        ["conv_1", "--where", "index == 1 or index == 2 or index == 15"],
        ["--layer", "conv_1", "--where", "index == 1 or index == 2 or index == 15"],
    ]
    written = set()
    for way in ways:
        assert kprune("remove", model, *way, "-o", "out.keras", "--force", "-q").code == 0, way
        written.add(Path("out.keras").read_bytes())
    assert len(written) == 1


def test_an_option_takes_a_number_that_begins_with_a_minus(kprune: Kprune, model: Path) -> None:
    ran = kprune("remove", model, "--layer", "conv_1", "--units", "-3--1", "--dry-run", "--json")
    assert ran.json["selected"] == {"conv_1": [13, 14, 15]}


def test_indices_come_from_standard_input(kprune: Kprune, model: Path) -> None:
    ran = kprune("remove", model, "conv_1:@-", "--dry-run", "--json", stdin=b"3\n7\n")
    assert ran.json["selected"] == {"conv_1": [3, 7]}


def test_a_criterion_chooses_in_the_layers_that_are_named(kprune: Kprune, model: Path) -> None:
    for way in (["conv_1"], ["--layer", "conv_1"]):
        ran = kprune(
            "remove", model, *way, "--criterion", "l1", "--count", "4", "--dry-run", "--json"
        )
        assert list(ran.json["selected"]) == ["conv_1"]
        assert len(ran.json["selected"]["conv_1"]) == 4


def test_a_criterion_chooses_everywhere_but_in_what_is_excluded(
    kprune: Kprune, model: Path
) -> None:
    chosen = ("--criterion", "l1", "--ratio", "0.25", "--exclude", "hidden", "--dry-run", "--json")
    ran = kprune("remove", model, *chosen)
    counts = {layer: len(units) for layer, units in ran.json["selected"].items()}
    assert counts == {"conv_1": 4, "conv_2": 6, "conv_3": 8}


def test_an_expression_chooses_nothing_that_is_tied_to_what_is_excluded(
    kprune: Kprune, resnet: Path
) -> None:
    def changed(*more: str) -> set[str]:
        line = ("block_1_*", "--where", "mean < 10", *more, "--dry-run", "--json")
        return set(kprune("remove", resnet, *line).json["changed"])

    assert changed() == {"stem_conv", "block_1_1_conv", "block_1_2_conv"}
    assert changed("--exclude", "stem_conv") == {"block_1_1_conv"}


def test_round_to_and_min_units_leave_what_they_say(kprune: Kprune, model: Path) -> None:
    options = ("--criterion", "l2", "--ratio", "0.6", "--round-to", "8", "--min-units", "16")
    ran = kprune("remove", model, *options, "--dry-run", "--json")
    after = {row["name"]: row["units_after"] for row in ran.json["layers"] if row["units_after"]}
    # conv_1 has no more than 16 to begin with; of 24, 32 and 64 at least 16 stay, in eights.
    assert after == {"conv_2": 16, "conv_3": 16, "hidden": 32, "classes": 10}


def test_the_seed_decides_what_is_random(kprune: Kprune, model: Path) -> None:
    def chosen(seed: int) -> dict[str, list[int]]:
        options = ("--criterion", "random", "--count", "3", "--seed", seed, "--dry-run", "--json")
        selected: dict[str, list[int]] = kprune("remove", model, *options).json["selected"]
        return selected

    assert chosen(1) == chosen(1) != chosen(2)


def test_in_place_writes_over_the_input(kprune: Kprune, model: Path) -> None:
    ran = kprune("remove", model, "conv_1:0", "--in-place", "-q")
    assert (ran.code, ran.out) == (0, "model.keras\n")
    assert sorted(folder_as_it_is(Path())) == ["model.keras"]
    with open_model(model) as source:
        assert source.tensors["layers/conv2d/vars/0"].shape == (3, 3, 1, 15)


def test_an_existing_output_is_written_over_with_force_alone(kprune: Kprune, model: Path) -> None:
    Path("small.keras").write_text("something else")
    assert kprune("remove", model, "conv_1:0", "-o", "small.keras").code == 2
    assert Path("small.keras").read_text() == "something else"
    assert kprune("remove", model, "conv_1:0", "-o", "small.keras", "--force").code == 0
    with open_model("small.keras") as source:
        assert source.tensors["layers/conv2d/vars/0"].shape == (3, 3, 1, 15)


def test_quiet_prints_the_path_alone(kprune: Kprune, model: Path) -> None:
    ran = kprune("zero", model, "conv_3:0", "-q")  # which otherwise has notes
    assert (ran.out, ran.err) == ("model.pruned.keras\n", "")
    assert kprune("zero", model, "conv_3:0", "-q", "--dry-run").out == ""


def test_report_writes_the_json_as_well(kprune: Kprune, model: Path) -> None:
    ran = kprune("remove", model, "conv_1:0", "--report", "report.json", "-q")
    assert ran.out == "model.pruned.keras\n"
    written = Path("report.json").read_text()
    again = kprune("remove", model, "conv_1:0", "--force", "--json")
    assert again.out == written
    assert json.loads(written)["output"]["path"] == "model.pruned.keras"


def test_a_report_that_cannot_be_written_is_an_error_before_anything_is(
    kprune: Kprune, model: Path
) -> None:
    ran = kprune("remove", model, "conv_1:0", "--report", "nowhere/report.json")
    assert ran.code == 4
    assert ran.err.startswith("error: cannot write nowhere/report.json\n")
    assert sorted(folder_as_it_is(Path())) == ["model.keras"]


def test_the_model_alone_goes_to_standard_output(kprune: Kprune, model: Path) -> None:
    kprune("remove", model, "conv_1:0", "-o", "small.keras")
    ran = kprune("remove", model, "conv_1:0", "-o", "-")
    assert ran.stdout == Path("small.keras").read_bytes()
    assert "parameters" in ran.err  # the table
    assert "wrote" not in ran.err


@pytest.mark.parametrize("options", [["-q"], ["--json"], ["--report", "report.json", "-q"]])
def test_nothing_is_mixed_into_a_model_on_standard_output(
    kprune: Kprune, model: Path, options: list[str]
) -> None:
    kprune("zero", model, "conv_3:0", "-o", "zeroed.keras")
    ran = kprune("zero", model, "conv_3:0", "-o", "-", *options)
    assert ran.stdout == Path("zeroed.keras").read_bytes()
    if "-q" in options:
        assert ran.err == ""
    else:
        assert json.loads(ran.stderr)["output"]["path"] == "-"


def test_commands_can_be_chained(kprune: Kprune, model: Path) -> None:
    first = kprune("remove", model, "conv_1:0", "-o", "-", "-q").stdout
    second = kprune("mask", "-", "hidden:3", "-o", "-", "-q", stdin=first).stdout
    found = kprune("inspect", "-", "--json", stdin=second).json
    assert found["carries"]["masks"] == ["hidden"]
    steps = found["carries"]["pruned"]["plan"]["steps"]
    assert [step["backend"] for step in steps] == ["remove", "mask"]


def test_a_plan_is_printed_reviewed_and_replayed(kprune: Kprune, model: Path) -> None:
    options = ("--criterion", "l1", "--ratio", "0.25")
    printed = kprune("plan", model, *options).out
    assert printed == textwrap.dedent(
        """\
        version: 1
        model: {parameters: 44354}
        steps:
          - backend: remove
            layers:
              conv_1: [3, 5, 7, 13]
              conv_2: "4-6,8-10"
              conv_3: [1, 3, 4, 10, 13, 21, 23, 28]
              hidden: [1, 7, 16, 17, 19, 26, 31, 36, 38, 44, 46, 48, 49, 51, 58, 63]
        """
    )
    assert kprune("plan", model, *options, "-o", "plan.yaml").out == ""
    assert Path("plan.yaml").read_text() == printed
    assert kprune("plan", model, *options, "-o", "plan.yaml").code == 2
    kprune("apply", model, "plan.yaml", "-o", "by_plan.keras")
    kprune("remove", model, *options, "-o", "at_once.keras")
    assert Path("by_plan.keras").read_bytes() == Path("at_once.keras").read_bytes()


def test_a_plan_as_json_is_a_plan(kprune: Kprune, model: Path) -> None:
    ran = kprune("plan", model, "conv_1:0-3", "--backend", "zero", "--json")
    assert ran.json == {
        "version": 1,
        "steps": [{"backend": "zero", "layers": {"conv_1": [0, 1, 2, 3]}}],
        "model": {"parameters": 44354},
    }
    Path("plan.json").write_text(ran.out)
    assert kprune("apply", model, "plan.json", "--dry-run").code == 0


def test_a_plan_of_several_backends_reports_sizes(kprune: Kprune, model: Path) -> None:
    Path("plan.yaml").write_text(
        "version: 1\n"
        "steps:\n"
        "  - backend: remove\n"
        "    layers: {conv_1: [0]}\n"
        "  - backend: zero\n"
        '    layers: {conv_2: "0-3"}\n'
    )
    ran = kprune("apply", model, "plan.yaml")
    assert ran.code == 0
    assert "*  conv_1  16 → 15" in ran.out
    assert sorted(folder_as_it_is(Path())) == ["model.keras", "model.pruned.keras", "plan.yaml"]


def test_a_plan_made_for_another_model_is_refused(
    kprune: Kprune, model: Path, samples: Path
) -> None:
    kprune("plan", samples / "digits_mlp.keras", "hidden_1:0", "-o", "plan.yaml")
    ran = kprune("apply", model, "plan.yaml")
    assert ran.code == 2
    assert "the plan is for a model of 11,386 parameters, and this one has 44,354" in ran.err
    assert "plan.yaml, line 2" in ran.err


def test_folding_in_a_plan_says_what_cannot_be_folded(kprune: Kprune, model: Path) -> None:
    plan = "version: 1\nsteps:\n  - {backend: remove, fold: true, layers: {%s: [0]}}\n"
    Path("plan.yaml").write_text(plan % "conv_1")  # conv_2 is padded with zeros
    ran = kprune("apply", model, "plan.yaml", "-o", "a.keras")
    assert ran.code == 3
    assert "border of 'conv_2'" in ran.err
    assert "plan.yaml, line 3" in ran.err
    assert not Path("a.keras").exists()
    Path("plan.yaml").write_text(plan % "hidden")
    assert kprune("apply", model, "plan.yaml", "-o", "a.keras").code == 0
    assert kprune("remove", model, "hidden:0", "--fold", "-o", "b.keras").code == 0
    assert Path("a.keras").read_bytes() == Path("b.keras").read_bytes()


def test_compacting_without_anything_dead_says_so_and_gives_a_copy(
    kprune: Kprune, model: Path
) -> None:
    ran = kprune("compact", model, "--no-check", "-o", "small.keras")
    assert ran.code == 0
    assert ran.err.startswith("note: nothing to remove")
    assert kprune("diff", model, "small.keras", "--exit-code").code == 0


def test_compacting_what_was_zeroed_gives_back_what_removing_gives(
    kprune: Kprune, model: Path
) -> None:
    assert kprune("zero", model, "hidden:1,5-8", "-o", "zeroed.keras").code == 0
    ran = kprune("compact", "zeroed.keras", "--no-check", "--json", "-o", "small.keras")
    assert ran.json["command"] == "compact"
    assert ran.json["changed"] == {"hidden": [1, 5, 6, 7, 8]}
    assert ran.json["output"]["parameters"] < ran.json["input"]["parameters"]


def test_a_name_that_holds_no_text_is_printed_as_it_is(kprune: Kprune, model: Path) -> None:
    import os

    name = os.fsdecode(b"mod\xffel.keras")
    try:
        model.rename(name)
    except OSError:
        pytest.skip("the file system takes text only")
    ran = kprune("remove", name, "conv_1:0", "-q")
    assert ran.stdout == b"mod\xffel.pruned.keras\n"
    shown = kprune("remove", name, "conv_1:0", "--force", "--json")
    assert shown.json["output"]["path"] == os.fsdecode(b"mod\xffel.pruned.keras")


@pytest.mark.parametrize("options", [["--in-place"], ["-o", "copy.keras"]])
def test_where_nothing_is_dead_it_is_said_and_a_file_in_place_is_left_untouched(
    kprune: Kprune, model: Path, options: list[str]
) -> None:
    before, inode = model.read_bytes(), model.stat().st_ino
    ran = kprune("compact", model, *options)
    assert ran.code == 0 and "note: nothing to remove: no unit is dead or constant" in ran.err
    assert model.read_bytes() == before and model.stat().st_ino == inode
    last = "left as it is: model.keras" if options == ["--in-place"] else "wrote copy.keras"
    assert ran.out.endswith(f"\n\n{last}\n")
    assert ran.out.startswith("units ")  # there is no layer to show in a table
    assert kprune("compact", model, "--in-place", "-q").out == "model.keras\n"


@pytest.mark.parametrize("command", ["remove", "zero", "mask", "compact"])
@pytest.mark.parametrize(
    ("output", "advice"),
    [
        ("m", "ends in .keras"),
        ("m.tflite", "TFLiteConverter"),
        ("m.onnx", "model.export"),
        ("m.h5", "Keras itself saves"),
        ("m.keras.bak", "ends in .keras"),
    ],
)
def test_a_name_that_keras_refuses_is_refused(
    kprune: Kprune, model: Path, command: str, output: str, advice: str
) -> None:
    units = [] if command == "compact" else ["hidden:0"]
    ran = kprune(command, "model.keras", *units, "-o", output, "--force")
    assert ran.code == 2 and advice in ran.err and not Path(output).exists()
    assert kprune(command, "model.keras", *units, "-o", output, "--dry-run").code == 2


def test_an_output_may_end_as_the_input_does(kprune: Kprune, model: Path) -> None:
    model.rename("model.bin")
    assert kprune("remove", "model.bin", "hidden:0", "-o", "small.bin").code == 0
    assert kprune("remove", "model.bin", "hidden:0", "-o", "small.keras").code == 0


def test_a_plan_comes_through_a_pipe(kprune: Kprune, model: Path) -> None:
    plan = kprune("plan", model, "hidden", "--criterion", "l1", "--ratio", "0.25").out
    assert kprune("apply", model, "-", "-o", "piped.keras", stdin=plan.encode()).code == 0
    Path("plan.yaml").write_text(plan)
    kprune("apply", model, "plan.yaml", "-o", "named.keras")
    assert Path("piped.keras").read_bytes() == Path("named.keras").read_bytes()
    both = kprune("apply", "-", "-", "-o", "none.keras", stdin=b"")
    assert both.code == 2 and "cannot both come" in both.err
