"""Curves as a picture: what is drawn can be read in the .svg, and the same run gives the same bytes."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from kprune.errors import FileError, SetupError, UsageError
from kprune.page.plot import Curve, Panel, check_plot, draw

LOSS = Panel(
    [Curve("_train", [0, 1, 2], [0.9, None, 0.2]), Curve("cost in $ of $x^2$", [0, 1, 2], [1, 2, 3])],
    "epoch", "loss", title="small\x1b[2J.keras", mark=(2, "best"),
)  # fmt: skip
MANY = Panel([Curve(f"layer {n}", [0.1, 0.5], [n, n + 1]) for n in range(9)], "ratio", "accuracy")


def texts(path: Path) -> set[str]:
    return {
        re.sub("<.*?>", "", found).strip()
        for found in re.findall(r"<text.*?</text>", path.read_text(), re.DOTALL)
    }


def test_an_svg_holds_every_name_as_text(tmp_path: Path) -> None:
    draw(tmp_path / "a.svg", [LOSS, MANY])
    found = texts(tmp_path / "a.svg")
    assert {"_train", "cost in $ of $x^2$", "best", "epoch", "loss", "ratio", "accuracy"} <= found
    assert r"small\x1b[2J.keras" in found
    assert {f"layer {n}" for n in range(9)} <= found
    assert {"0", "1", "2"} <= found  # not 0.25: epochs are whole


@pytest.mark.parametrize("suffix", ["svg", "png"])
def test_the_same_curves_give_the_same_bytes(tmp_path: Path, suffix: str) -> None:
    one, two = tmp_path / f"one.{suffix}", tmp_path / f"two.{suffix}"
    draw(one, [LOSS])
    two.write_text("an old one")
    with pytest.raises(UsageError, match="exists already"):
        draw(two, [LOSS])
    assert two.read_text() == "an old one"
    draw(two, [LOSS], force=True)
    assert one.read_bytes() == two.read_bytes()
    assert one.read_bytes().startswith(b"<?xml" if suffix == "svg" else b"\x89PNG")
    assert sorted(tmp_path.iterdir()) == [one, two]


def test_what_a_user_set_for_matplotlib_is_left_alone(tmp_path: Path) -> None:
    import matplotlib

    matplotlib.rcParams["axes.facecolor"] = "#123456"
    draw(tmp_path / "a.svg", [LOSS])
    assert matplotlib.rcParams["axes.facecolor"] == "#123456"
    assert "#123456" not in (tmp_path / "a.svg").read_text()
    matplotlib.rcdefaults()


def test_a_place_where_no_plot_can_be_is_refused_before_the_work(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"curve\.jpg"):
        check_plot(tmp_path / "curve.jpg")
    with pytest.raises(FileError) as refused:
        check_plot(tmp_path / "nowhere" / "curve.svg")
    assert "there is no folder" in refused.value.why
    check_plot(tmp_path / "curve.SVG")


def test_without_matplotlib_the_message_says_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(__import__("sys").modules, "matplotlib", None)
    with pytest.raises(SetupError) as refused:
        draw(tmp_path / "a.svg", [LOSS])
    assert "leave out --plot" in refused.value.do
    assert not list(tmp_path.iterdir())
