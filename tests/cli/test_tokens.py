"""Rows of embeddings on the command line: what stays is listed in a file, what became of ids is written down."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path

import pytest

from tests.cli.conftest import Kprune
from tests.small_models import Network, write

WORDS = "assets/layers/string_lookup/vocabulary.txt"


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """Words through a vocabulary of five in assets, an embedding of eight rows, and a Dense."""
    net = Network()
    x = net.input("words", 4, dtype="string")
    ids = net("StringLookup", "look", x, num_oov_indices=1, mask_token="", oov_token="[UNK]",
              output_mode="int", invert=False, vocabulary=None, vocabulary_size=7)  # fmt: skip
    y = net("Embedding", "emb", ids, shape=(None, 4, 6), input_dim=8, output_dim=6)
    config = net.functional(
        net("Dense", "out", net("Flatten", "flat", y, shape=(None, 24)), units=2)
    )
    words = b"\n[UNK]\ncat\ndog\nfish\nbird\ncow"
    return write(tmp_path / "m.keras", config, assets={WORDS: words})


def vocabulary(path: Path) -> list[str]:
    with zipfile.ZipFile(path) as archive:
        return archive.read(WORDS).decode().split("\n")


def test_what_stays_is_listed_in_a_file(kprune: Kprune, model: Path, tmp_path: Path) -> None:
    (tmp_path / "keep.txt").write_text("dog\ncow\nunicorn\n")
    out = tmp_path / "small.keras"
    run = kprune("remove", str(model), "--keep-tokens", str(tmp_path / "keep.txt"), "-o", str(out))
    assert run.code == 0
    assert "1 of 3 listed tokens are not in the vocabulary" in run.err
    assert "'look' lost 3 entries of its vocabulary: these tokens are unknown now" in run.err
    assert vocabulary(out) == ["", "[UNK]", "dog", "cow"]
    table = json.loads((tmp_path / "small.tokens.json").read_text())
    assert table["emb"]["new_ids"] == [0, 1, None, 2, None, None, 3, None]


def test_no_table_is_left_behind_where_the_model_is_not_written(
    kprune: Kprune, model: Path, tmp_path: Path
) -> None:
    for more in (["--dry-run"], ["-o", "-"]):
        assert kprune("remove", str(model), "emb.tokens:3", *more).code == 0
        assert not list(tmp_path.glob("*.tokens.json"))
    out = tmp_path / "small.keras"
    out.write_bytes(b"")
    assert kprune("remove", str(model), "emb.tokens:3", "-o", str(out)).code == 2
    assert not list(tmp_path.glob("*.tokens.json"))


def test_in_place_the_table_stands_beside_the_model(
    kprune: Kprune, model: Path, tmp_path: Path
) -> None:
    assert kprune("remove", str(model), "emb.tokens:3", "--in-place").code == 0
    assert (tmp_path / "m.tokens.json").exists()
    assert kprune("remove", str(model), "emb.tokens:3", "--in-place").code == 0
    table = json.loads((tmp_path / "m.tokens.json").read_text())
    assert table["emb"] == {"before": 7, "after": 6, "new_ids": [0, 1, 2, None, 3, 4, 5]}
    assert vocabulary(model) == ["", "[UNK]", "cat", "bird", "cow"]


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["emb.tokens:1"], 3, "what 'look' does not know"),
        (["emb.tokens:9"], 2, "no unit 9"),
        (["--keep-tokens", "nothing.txt"], 4, "cannot read the tokens"),
        (
            ["--keep-tokens", "m.keras", "--criterion", "l1", "--ratio", "0.5"],
            2,
            "cannot be combined",
        ),
        (["--keep-tokens", "m.keras", "--layer", "flat"], 2, "has no units of its own"),
    ],
)
def test_what_cannot_be_is_refused(
    kprune: Kprune, model: Path, arguments: list[str], code: int, said: str
) -> None:
    run = kprune("remove", str(model), *arguments, "--dry-run")
    assert (run.code, said in run.err) == (code, True)


def test_rows_are_shown_and_are_no_units(kprune: Kprune, model: Path) -> None:
    shown = kprune("inspect", str(model), columns=200).out
    assert "rows for tokens: they go only when they are named ('emb.tokens:INDICES'" in shown
    assert "8 units (6 free)" in shown
    assert "emb" not in kprune("remove", str(model), "emb.tokens:3", "--dry-run", "-q").out


def test_a_plan_lists_what_stays_too(kprune: Kprune, model: Path, tmp_path: Path) -> None:
    (tmp_path / "keep.txt").write_text("dog\ncow\n")
    plan = tmp_path / "plan.yaml"
    plan.write_text(
        "version: 1\nsteps:\n  - {backend: remove, keep_tokens: {emb: keep.txt}, layers: {emb: [0]}}\n"
    )
    out = tmp_path / "small.keras"
    assert kprune("apply", model, plan, "-o", out).code == 0
    assert vocabulary(out) == ["", "[UNK]", "dog", "cow"]
    plan.write_text("version: 1\nsteps:\n  - {backend: zero, keep_tokens: {emb: keep.txt}}\n")
    run = kprune("apply", model, plan, "-o", out, "--force")
    assert run.code == 2
    assert "goes with backend: remove" in run.err
    plan.write_text("version: 1\nsteps:\n  - {backend: remove, keep_tokens: {emb: none.txt}}\n")
    run = kprune("apply", model, plan, "-o", out, "--force")
    assert (run.code, "line 3" in run.err) == (4, True)
