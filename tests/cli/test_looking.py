"""What inspect, explain, diff and rules print."""

from __future__ import annotations

import io
import textwrap
from pathlib import Path
from typing import Any

import pytest

import kprune as package
from kprune.page.tables import wrapped
from tests.cli.conftest import Kprune, edited, with_unknown_layer


def test_inspect_fits_on_one_screen_of_80_columns(kprune: Kprune, resnet: Path) -> None:
    ran = kprune("inspect", resnet)
    assert (ran.code, ran.err) == (0, "")
    lines = ran.out.splitlines()
    assert max(map(len, lines)) <= 80
    assert len(lines) <= 25
    assert not any(line.endswith(" ") for line in lines)


def test_inspect_shows_what_is_free_and_tied(kprune: Kprune, resnet: Path) -> None:
    rows = {
        row[0]: row for line in kprune("inspect", resnet).out.splitlines() if (row := line.split())
    }
    assert rows["stem_conv"][2:] == ["16", "16", "144", "18.4", "k", "tied", "A"]
    assert rows["block_1_2_conv"][-2:] == rows["stem_conv"][-2:]
    assert rows["block_3_2_conv"][-2:] == ["tied", "B"]
    assert rows["classes"][2:] == ["10", "0", "330", "650", "output"]
    assert "stem_relu" not in rows


def test_inspect_shows_all_layers_if_asked(kprune: Kprune, resnet: Path) -> None:
    assert "stem_relu" in kprune("inspect", resnet, "--all").out


def test_inspect_says_why_units_are_frozen(kprune: Kprune, model: Path) -> None:
    with_unknown_layer(model, "pool")
    out = kprune("inspect", model).out
    words = " ".join(out.split())
    assert "frozen 'pool' is a my>RankPool layer, for which kprune has no rule (conv_2)" in words
    assert words.count("has no rule") == 1  # not once more for the layer itself
    assert "carries classes that are not Keras's own: my>RankPool (pool)" in words


def test_a_rule_of_ones_own_frees_the_units(kprune: Kprune, model: Path) -> None:
    with_unknown_layer(model, "pool", "OwnPool")  # rules stay registered: a name of its own
    Path("my_layers.py").write_text(
        textwrap.dedent(
            '''
            import kprune

            @kprune.rule("my>OwnPool", does="passes")
            def rank_pool(call):
                """channel by channel"""
                x = call.keep_axes_whole(call.x, (1, 2), "are pooled over")
                return x.with_shape((None, 4, 4, 24))
            '''
        )
    )
    assert kprune("remove", model, "conv_2:0", "--dry-run").code == 3
    ran = kprune("remove", model, "conv_2:0", "--dry-run", "--rules", "my_layers.py", "--json")
    assert ran.json["changed"] == {"conv_2": [0]}
    known = kprune("rules", "my*", "--rules", "my_layers.py").out
    assert "Layers from your own rules" in known
    assert "channel by channel" in known


def test_explain_shows_road_and_cuts(kprune: Kprune, resnet: Path) -> None:
    ran = kprune("explain", resnet, "block_1_2_conv:0,3")
    assert ran.code == 0
    assert "block_1_2_conv:0,3: 2 units, which can be removed\n" in ran.out
    road = " ".join(ran.out.split("─\n")[1].partition("\n\n")[0].split())
    assert road.startswith("stem_conv 0,3 block_1_2_conv → ")
    assert "→ block_1_add →" in road
    assert road.endswith("→ stem_conv")
    assert "(3, 3, 1, 16 → 14)   filters 16 → 14\n" in ran.out


def test_explain_says_why_not_and_what_would_do(kprune: Kprune, resnet: Path) -> None:
    ran = kprune("explain", resnet, "--layer", "stem_conv", "--units", "0--1")
    assert ran.code == 0  # it has explained
    assert "why      no layer loses its last unit" in ran.out
    assert "nearest  stem_conv:0-14 can be removed\n" in ran.out


def test_diff_of_equal_models_is_one_line(kprune: Kprune, model: Path) -> None:
    ran = kprune("diff", model, model, "--exit-code")
    assert (ran.code, ran.out) == (0, "no difference: the same layers with the same values\n")


def test_diff_exits_with_5_only_if_asked(kprune: Kprune, model: Path) -> None:
    kprune("remove", model, "conv_1:0", "-o", "small.keras")
    assert kprune("diff", model, "small.keras").code == 0
    ran = kprune("diff", model, "small.keras", "--exit-code")
    assert (ran.code, ran.err) == (
        5,
        "note: the optimizer's state differs in shape, as its variables do\n",
    )
    assert "~  conv_1  16 → 15" in ran.out
    assert "same where kept" in ran.out


def test_diff_counts_values_that_differ(kprune: Kprune, model: Path) -> None:
    kprune("zero", model, "hidden:0", "-o", "zeroed.keras")
    out = kprune("diff", model, "zeroed.keras").out
    assert "~  hidden     64      32,832  513 of 32,832 differ, by up to" in out


def test_rules_has_a_line_for_each_class(kprune: Kprune) -> None:
    ran = kprune("rules")
    for name, does in (("Dense", "issues"), ("Flatten", "passes"), ("Softmax", "mixes")):
        assert any(line.split()[:2] == [name, does] for line in ran.out.splitlines()), name
    assert max(map(len, ran.out.splitlines())) <= 80


@pytest.mark.parametrize("width", [40, 60, 120, 200])
def test_no_line_is_wider_than_the_terminal(kprune: Kprune, resnet: Path, width: int) -> None:
    for line in (
        ["inspect", resnet],
        ["explain", resnet, "block_1_2_conv:0,3"],
        ["remove", resnet, "block_1_2_conv:0,3", "--dry-run"],
    ):
        ran = kprune(*line, columns=width)
        assert max(map(len, ran.out.splitlines())) <= width


@pytest.mark.parametrize("width", [20, 40, 60, 80])
def test_no_name_and_no_figure_is_lost_on_a_narrow_page(
    kprune: Kprune, resnet: Path, width: int
) -> None:
    out = "".join(kprune("inspect", resnet, columns=width).out.split())
    for layer in kprune("inspect", resnet, "--json").json["layers"]:
        if layer["parameters"]:
            assert layer["name"] in out
            assert f"{layer['parameters']:,}" in out
    assert width > 40 or "BatchNormalization" in out  # nothing is cut short where lines are broken
    out = kprune("explain", resnet, "block_1_2_conv:0,3", columns=width).out
    assert "moving_variance" in out and "(16→14)" in "".join(out.split())


def test_text_is_broken_by_the_columns_that_it_takes() -> None:
    assert wrapped("ab cd", 5) == ["ab cd"]
    assert wrapped("  ab cd ef", 7) == ["  ab cd", "ef"]
    assert wrapped("名前 名前", 8) == ["名前", "名前"]
    assert wrapped("x 名前名前", 5) == ["x", "名前", "名前"]
    assert wrapped("名", 1) == ["名"]
    assert wrapped("", 5) == [""]


@pytest.mark.parametrize("columns", ["²", "-1", "0", "wide", ""])
def test_columns_that_are_no_number_are_passed_over(
    kprune: Kprune, model: Path, columns: str
) -> None:
    ran = kprune("inspect", model, columns=columns)
    assert ran.out == kprune("inspect", model).out


def test_names_from_a_file_cannot_repaint_the_terminal(kprune: Kprune, model: Path) -> None:
    def rename(config: dict[str, Any]) -> None:
        for layer in config["config"]["layers"]:
            if layer["name"] == "classes":
                layer["name"] = layer["config"]["name"] = "\x1b[2Jcl\nasses\u202e"
        config["config"]["output_layers"][0] = "\x1b[2Jcl\nasses\u202e"

    edited(model, rename)
    out = kprune("inspect", model).out
    assert "\x1b" not in out
    assert "\u202e" not in out
    assert "\\x1b[2Jcl\\nasses\\u202e" in out.replace("\n", "")


def test_criteria_says_of_each_what_it_is_and_what_it_needs(kprune: Kprune, tmp_path: Path) -> None:
    own = tmp_path / "own.py"
    own.write_text(
        "import kprune\n\n@kprune.criterion('breadth')\ndef breadth(units):\n"
        "    '''Largest minus smallest weight.'''\n    return units['max'] - units['min']\n"
    )
    found = kprune("criteria", "--rules", own, "--json").json
    rows = {row["name"]: row for row in found["criteria"]}
    assert rows["l1"]["needs"] == "weights" and "Li et al. 2017" in rows["l1"]["source"]
    assert rows["apoz"]["needs"] == "data" and rows["taylor"]["needs"] == "data and labels"
    assert rows["breadth"]["score"] == "Largest minus smallest weight."
    assert rows["breadth"]["source"].endswith("own.py")
    assert all(row["score"] for row in rows.values())
    names = {row["name"] for row in found["statistics"]}
    assert {"mean", "w", "gamma", "outgoing_l1", "apoz"} <= names
    text = kprune("criteria").out
    assert all(name in text for name in (*rows.keys() - {"breadth"}, *names))


def test_the_guide_lists_its_pages_and_prints_one(kprune: Kprune) -> None:
    listed = kprune("guide").out
    folder = Path(package.__file__).parent / "guide"
    pages = {path.stem: path.read_text() for path in folder.glob("*.md")}
    assert pages
    for name, text in pages.items():
        assert name in listed and text.partition("\n")[0].removeprefix("# ") in listed
        assert kprune("guide", name).out == text
    ran = kprune("guide", "repiar")
    assert ran.code == 2 and "did you mean 'repair'?" in ran.err


def test_on_a_terminal_a_page_is_laid_out(monkeypatch: pytest.MonkeyPatch) -> None:
    from kprune.page.page import Page
    from kprune.views.guide import page_of, show

    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    page = Page()
    page.stream, page.width, page.colours = Terminal(), 60, False
    show(page_of("repair"), page)
    text = page.stream.getvalue()
    assert "```console" not in text and "\x1b" not in text
    assert max(map(len, text.splitlines())) <= 60
