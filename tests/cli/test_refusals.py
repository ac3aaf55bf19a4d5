# ruff: noqa: E501 - messages stand here as they are printed
"""Every refusal: its exit code, its text, and that nothing was written."""

from __future__ import annotations

import textwrap
from pathlib import Path
from typing import Any

import pytest

from tests.cli.conftest import Kprune, edited, folder_as_it_is, with_unknown_layer

# The command line behind `kprune`, and the whole of what standard error then says.
USAGE = [
    (
        "remove model.keras conv_9:1",
        """
        error: there is no layer called 'conv_9'; did you mean 'conv_3', 'conv_2' or 'conv_1'?
        where: conv_9:1
               ^^^^^^
        do:    'kprune inspect' lists the layers
        """,
    ),
    (
        "remove model.keras conv_1:99",
        """
        error: there is no unit 99 in layer 'conv_1'
        where: conv_1:99
                      ^^
        why:   it has 16 units: 0 to 15
        """,
    ),
    (
        "remove model.keras --criterion obs --target-params 50%",
        """
        error: the criterion obs needs data
        why:   it measures how well the remaining units make up for the others
        do:    give --data FILE.npz with x; targets are not needed
        """,
    ),
    (
        "remove model.keras --criterion l1 --ratio 0.5 --weighting fisher",
        """
        error: --weighting fisher does not apply to the criterion 'l1'
        do:    leave it out, or use the criterion obs
        """,
    ),
    (
        "remove model.keras --weighting fisher",
        """
        error: --weighting needs a criterion
        do:    say what ranks the units: --criterion obs --weighting fisher
        """,
    ),
    (
        "remove model.keras relu_1:1",
        """
        error: layer 'relu_1' (ReLU) has no units of its own
        where: relu_1:1
               ^^^^^^
        why:   the units that pass through it belong to conv_1
        do:    name one of those layers
        """,
    ),
    (
        "remove model.keras conv_1:!0-15",
        """
        error: no unit of layer 'conv_1' is chosen
        where: conv_1:!0-15
                      ^^^^^
        why:   it leaves out all 16 units
        """,
    ),
    (
        "remove model.keras conv_1:3,x",
        """
        error: '3,x' is not a list of units
        where: conv_1:3,x
                        ^
        do:    write 3,7,12 or 0-7 or 0-99/2 or -1 or !3,7 or @FILE or where(EXPRESSION)
        """,
    ),
    (
        "remove model.keras conv_1",
        """
        error: 'conv_1' names no units
        where: conv_1
                     ^
        do:    after the layer's name and ':' write 3,7,12 or 0-7 or 0-99/2 or -1 or !3,7 or @FILE or where(EXPRESSION)
        """,
    ),
    (
        "remove model.keras",
        """
        error: no unit is chosen
        do:    write LAYER:INDICES, such as dense_1:3,7,12
        """,
    ),
    (
        "remove model.keras --criterion l1 --ratio 0.001",
        """
        error: no unit is chosen
        why:   this share of a layer is less than one unit, or none may be removed
        do:    ask for more, or allow more to be removed (--min-units, --max-ratio, --exclude)
        """,
    ),
    (
        "remove model.keras --criterion taylor --target-params 50%",
        """
        error: 'taylor' is a statistic of activations, which are not in the file
        do:    give data with --data FILE.npz, or use a statistic of the weights
        """,
    ),
    (
        "remove model.keras --where mean>9",
        """
        error: no unit is chosen
        why:   the expression holds for no unit that may be removed
        """,
    ),
    (
        "remove model.keras --layer conv_1 --layer conv_2 --units 3",
        """
        error: --layer is given twice and --units once
        why:   the first --units belongs to the first --layer, the second to the second
        do:    give one --units for each --layer, or write LAYER:INDICES
        """,
    ),
    (
        "remove model.keras --units 3",
        """
        error: --layer is given not at all and --units once
        why:   the first --units belongs to the first --layer, the second to the second
        do:    give one --units for each --layer, or write LAYER:INDICES
        """,
    ),
    (
        "remove model.keras conv_1:1 --reduce max",
        """
        error: --reduce needs a criterion
        do:    say what ranks the units: --criterion l1 --reduce max
        """,
    ),
    (
        "remove model.keras --criterion l1 --ratio 0.5 --per-layer conv_9=0.1",
        """
        error: there is no layer called 'conv_9'; did you mean 'conv_3', 'conv_2' or 'conv_1'?
        where: conv_9
               ^^^^^^
        do:    'kprune inspect' lists the layers
        """,
    ),
    (
        "remove model.keras --criterion l1 --target-params 1M",
        """
        error: the model meets the budget as it is: it has 44,354 parameters
        do:    ask for fewer
        """,
    ),
    (
        "remove model.keras --criterion l1 --threshold nan",
        """
        error: the threshold is not a number
        why:   no score is below nan
        """,
    ),
    (
        "remove model.keras --ratio 0.5",
        """
        error: --ratio needs a criterion
        do:    say what ranks the units: --criterion l1 --ratio 0.5
        """,
    ),
    (
        "remove model.keras --criterion l1 --ratio 1.5",
        """
        error: the ratio must lie between 0 and 1, both excluded, got 1.5
        """,
    ),
    (
        "remove model.keras --where mean<0 --criterion l1 --count 1",
        """
        error: --where and --criterion cannot be combined
        do:    give one of them
        """,
    ),
    (
        "remove model.keras conv_1:0 --in-place -o other.keras",
        """
        error: --in-place and --output cannot be combined
        do:    give one of them
        """,
    ),
    (
        "remove model.keras conv_1:0 -o taken.keras",
        """
        error: taken.keras exists already
        do:    name another output with -o, or add --force
        """,
    ),
    (
        "remove - conv_1:0",
        """
        error: the model comes from standard input, so there is no file name to derive the output's name from
        do:    name the output with -o PATH, or -o - for standard output
        """,
    ),
    (
        "remove model.keras conv_1:0 --max-parameters many",
        """
        error: --max-parameters is given 'many', which is not a number
        do:    write 1300000, 1.3e6 or 1.3M
        """,
    ),
    (
        "remove model.keras conv_1:0 --count two",
        """
        error: --count takes a whole number
        do:    'kprune remove --help' shows how it is used
        """,
    ),
    (
        "remove model.keras conv_1:0 --ratio x",
        """
        error: --ratio takes a number
        do:    'kprune remove --help' shows how it is used
        """,
    ),
    (
        "remove model.keras conv_1:0 --dryrun",
        """
        error: there is no option '--dryrun'; did you mean '--dry-run'?
        do:    'kprune remove --help' shows how it is used
        """,
    ),
    (
        "remove",
        """
        error: missing argument 'MODEL'
        do:    'kprune remove --help' shows how it is used
        """,
    ),
    (
        "remoove model.keras",
        """
        error: there is no command 'remoove'; did you mean 'remove'?
        do:    'kprune --help' shows how it is used
        """,
    ),
    (
        "mask model.keras conv_1 --below -1",
        """
        error: the threshold must be positive, got -1
        why:   magnitudes are never below 0
        do:    give --below a positive number
        """,
    ),
    (
        "unmask model.keras",
        """
        error: the model has no mask to remove
        """,
    ),
    (
        "explain model.keras",
        """
        error: no unit is named
        do:    write LAYER:INDICES, such as dense_1:3,7,12
        """,
    ),
    (
        "plan model.keras conv_1:0 --backend shrink",
        """
        error: there is no backend 'shrink'
        do:    choose one of remove, zero, mask
        """,
    ),
    (
        "schema model",
        """
        error: there is no schema of 'model'
        do:    choose one of plan, iterate-plan, report, repair, inspect, explain, diff, verify, tune, iterate, sensitivity
        """,
    ),
    (
        "rules Conv9D",
        """
        error: kprune has no rule for 'Conv9D'
        do:    'kprune rules' lists those it has; --rules FILE adds your own
        """,
    ),
]


def as_printed(text: str) -> str:
    return textwrap.dedent(text).strip("\n") + "\n"


@pytest.mark.parametrize(("line", "message"), USAGE, ids=[line for line, _ in USAGE])
def test_a_wrong_command_exits_with_2_and_says_why(
    kprune: Kprune, model: Path, line: str, message: str
) -> None:
    Path("taken.keras").write_text("something else")
    before = folder_as_it_is(Path())
    ran = kprune(*line.split(), stdin=model.read_bytes())
    assert ran.err == as_printed(message)
    assert (ran.code, ran.out) == (2, "")
    assert folder_as_it_is(Path()) == before


CANNOT = [
    (
        "remove model.keras conv_1:0--1",
        """
        error: all 16 units of 'conv_1' would be removed
        why:   no layer loses its last unit: Keras has no layer of width 0
        do:    keep at least one of 0 to 15
        """,
    ),
    (
        "remove model.keras image:0",
        """
        error: cannot remove unit 0 of 'image'
        where: image
        why:   it is a feature of the model's input
        do:    choose other units, or pass --allow-output-change to change what the model takes
        """,
    ),
    (
        "remove model.keras conv_2:5",
        """
        error: cannot remove unit 5 of 'conv_2'
        where: conv_2 -> bn_2 -> relu_2 -> pool
        why:   'pool' is a my>RankPool layer, for which kprune has no rule, so the units that reach it are frozen
        do:    choose other units; have the layer's own code traced, which runs it (--trust); give it a rule (--rules my_layers.py); or use 'kprune mask', which changes no shape
        """,
    ),
    (
        "zero model.keras image:0",
        """
        error: 'image' is the model's input, which has no weights to zero
        do:    use 'kprune remove --allow-output-change' to remove input features
        """,
    ),
]


@pytest.mark.parametrize(("line", "message"), CANNOT, ids=[line for line, _ in CANNOT])
def test_what_the_model_does_not_allow_exits_with_3(
    kprune: Kprune, model: Path, line: str, message: str
) -> None:
    with_unknown_layer(model, "pool")
    before = folder_as_it_is(Path())
    ran = kprune(*line.split())
    assert ran.err == as_printed(message)
    assert (ran.code, ran.out) == (3, "")
    assert folder_as_it_is(Path()) == before


def test_units_that_would_go_along_are_refused_with_no_coupled(
    kprune: Kprune, resnet: Path
) -> None:
    ran = kprune("remove", resnet, "block_1_2_conv:0,3", "--no-coupled")
    assert ran.code == 3
    assert ran.err == as_printed(
        """
        error: other units would be removed with the chosen ones
        where: stem_conv:0,3
        why:   they are tied (added or multiplied element by element, or shared), and --no-coupled was given
        do:    leave out --no-coupled, or choose units that are tied to nothing ('kprune explain' tells)
        """
    )


def test_a_part_of_the_output_goes_only_when_it_may(kprune: Kprune, resnet: Path) -> None:
    # The sum itself becomes the output: a layer before it, when named, takes part of it along.
    def shorten(config: dict[str, Any]) -> None:
        kept = ("classes", "pool")
        layers = config["config"]["layers"]
        config["config"]["layers"] = [layer for layer in layers if layer["name"] not in kept]
        config["config"]["output_layers"] = ["block_3_out", 0, 0]

    edited(resnet, shorten)
    refused = kprune("remove", resnet, "block_3_2_conv:0")
    assert refused.code == 3
    assert "error: cannot remove unit 0 of 'block_3_2_conv'\n" in refused.err
    assert "-> output\n" in refused.err
    assert "why:   it is tied to units which are the model's output\n" in refused.err
    allowed = kprune("remove", resnet, "block_3_2_conv:0", "--allow-output-change", "--dry-run")
    assert allowed.code == 0


FILES = [
    (
        "inspect nowhere.keras",
        """
        error: cannot read nowhere.keras
        why:   there is no such file
        """,
    ),
    (
        "remove nowhere.keras conv_1:0",
        """
        error: cannot read nowhere.keras
        why:   there is no such file
        """,
    ),
    (
        "diff model.keras text.keras",
        """
        error: text.keras is not a model
        why:   it begins with 'hello', as neither a zip nor HDF5 does
        """,
    ),
    (
        "explain text.keras conv_1:0",
        """
        error: text.keras is not a model
        why:   it begins with 'hello', as neither a zip nor HDF5 does
        """,
    ),
    (
        "apply model.keras nowhere.yaml",
        """
        error: cannot read the plan nowhere.yaml
        why:   there is no such file
        """,
    ),
    (
        "remove model.keras conv_1:@nowhere.txt",
        """
        error: cannot read the units from nowhere.txt
        why:   No such file or directory
        do:    check the path after '@'
        """,
    ),
    (
        "inspect model.keras --rules nowhere.py",
        """
        error: cannot read the rules file nowhere.py
        why:   there is no such file
        """,
    ),
]


@pytest.mark.parametrize(("line", "message"), FILES, ids=[line for line, _ in FILES])
def test_a_file_that_cannot_be_read_exits_with_4(
    kprune: Kprune, model: Path, line: str, message: str
) -> None:
    Path("text.keras").write_text("hello")
    before = folder_as_it_is(Path())
    ran = kprune(*line.split())
    assert ran.err == as_printed(message)
    assert (ran.code, ran.out) == (4, "")
    assert folder_as_it_is(Path()) == before


def test_a_damaged_file_exits_with_4_and_leaves_no_output(kprune: Kprune, model: Path) -> None:
    content = model.read_bytes()
    Path("cut.keras").write_bytes(content[: len(content) // 2])
    ran = kprune("remove", "cut.keras", "conv_1:0")
    assert ran.code == 4
    assert ran.err.startswith("error: cut.keras is damaged\n")
    assert sorted(folder_as_it_is(Path())) == ["cut.keras", "model.keras"]


def test_an_output_in_a_folder_that_is_not_there_exits_with_4(kprune: Kprune, model: Path) -> None:
    ran = kprune("remove", model, "conv_1:0", "-o", "nowhere/small.keras")
    assert ran.code == 4
    assert ran.err.startswith("error: cannot write nowhere/small.keras\nwhy:   there is no folder ")


def test_a_result_beyond_a_limit_exits_with_5(kprune: Kprune, model: Path) -> None:
    before = folder_as_it_is(Path())
    ran = kprune("remove", model, "conv_1:0", "--max-parameters", "10k")
    assert ran.code == 5
    assert ran.err == as_printed(
        """
        error: the result would have 44,124 parameters, and --max-parameters allows 10,000
        do:    choose more units; nothing was written
        """
    )
    assert folder_as_it_is(Path()) == before


@pytest.mark.parametrize(
    ("option", "value"),
    [("--max-parameters", "44.2k"), ("--max-flops", "1M"), ("--max-bytes", "1G")],
)
def test_a_result_within_a_limit_is_written(
    kprune: Kprune, model: Path, option: str, value: str
) -> None:
    assert kprune("remove", model, "conv_1:0", option, value, "-o", "small.keras").code == 0
    assert Path("small.keras").exists()


def test_a_plan_whose_expectation_fails_exits_with_5(kprune: Kprune, model: Path) -> None:
    Path("plan.yaml").write_text(
        "version: 1\n"
        "steps:\n"
        "  - backend: remove\n"
        "    layers: {conv_1: [0]}\n"
        'expect: {parameters: "<= 40000"}\n'
    )
    ran = kprune("apply", model, "plan.yaml")
    assert ran.code == 5
    assert ran.err == as_printed(
        """
        error: the plan's expectations do not hold
        where: plan.yaml, line 5
        why:   parameters is 44124, and the plan expects <= 40000
        do:    nothing was written
        """
    )
    assert not Path("model.pruned.keras").exists()


def test_a_typo_in_a_plan_is_named_with_its_line(kprune: Kprune, model: Path) -> None:
    Path("plan.yaml").write_text(
        "version: 1\nsteps:\n  - backend: remove\n    layesr: {conv_1: [0]}\n"
    )
    ran = kprune("apply", model, "plan.yaml")
    assert ran.code == 2
    assert ran.err.startswith(
        "error: unknown key 'layesr' in plan.yaml, line 4; did you mean 'layers'? "
        "Nothing was written.\n"
    )


def test_an_index_out_of_range_in_a_plan_is_named_with_its_line(
    kprune: Kprune, model: Path
) -> None:
    Path("plan.yaml").write_text(
        "version: 1\nsteps:\n  - backend: remove\n    layers:\n      conv_1: [0]\n      conv_2: [99]\n"
    )
    ran = kprune("apply", model, "plan.yaml")
    assert ran.code == 2
    assert "error: there is no unit 99 in layer 'conv_2'\n" in ran.err
    assert "plan.yaml, line 6" in ran.err


def test_a_share_may_be_given_in_percent(kprune: Kprune, model: Path) -> None:
    line = ("remove", model, "hidden", "--criterion", "l1", "--dry-run", "--json")
    assert kprune(*line, "--ratio", "25%").json == kprune(*line, "--ratio", "0.25").json
    assert kprune(*line, "--ratio", "x%").code == 2
    spread = kprune(*line, "--ratio", "0.5", "--per-layer", "hidden=25%").json
    assert len(spread["selected"]["hidden"]) == 16
