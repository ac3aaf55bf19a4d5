"""`kprune tune` as a user sees it."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path

import pytest

from tests.cli.conftest import Kprune, fits

pytestmark = pytest.mark.oracle


def test_what_runs_code_of_the_users_is_told_before_it_runs(
    kprune: Kprune, model: Path, samples: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Path("told_data.py").write_text(
        "import numpy as np, tensorflow as tf\n"
        "def first():\n"
        f"    with np.load({str(samples / 'digits_test.npz')!r}) as held:\n"
        "        return tf.data.Dataset.from_tensor_slices((held['x'][:64], held['y'][:64]))\n"
    )
    monkeypatch.syspath_prepend(".")
    ran = kprune("tune", model, "--data", "told_data:first", "--epochs", 1, "--plot", "curve.png")
    assert ran.code == 0
    first, *rest = ran.err.splitlines()
    assert first == "note: --data runs your code: it imports told_data and calls first()"
    *epochs, last = rest
    assert [line.split("  ")[0] for line in epochs] == ["before", "epoch 1 of 1"]
    assert last.startswith("note: no data are held back")
    assert ran.out.splitlines()[-2:] == ["wrote model.tuned.keras", "drew curve.png"]
    assert Path("curve.png").read_bytes().startswith(b"\x89PNG")
    assert max(map(len, ran.out.splitlines())) <= 80


def test_an_interruption_ends_with_130_and_says_how_to_go_on(
    kprune: Kprune, model: Path, samples: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from kprune.train.checkpoint import Checkpoint

    keep = Checkpoint.keep

    def interrupted(self, live, history):
        keep(self, live, history)
        raise KeyboardInterrupt

    data = samples / "digits_test.npz"
    with monkeypatch.context() as patched:
        patched.setattr(Checkpoint, "keep", interrupted)
        ran = kprune("tune", model, "--data", data, "--epochs", 2)
    assert (ran.code, ran.out) == (130, "")
    assert ran.err.endswith(
        "note: epochs up to 1 are kept in model.tuned.keras.checkpoint; "
        "the same command with --resume goes on\n"
    )
    ran = kprune("tune", model, "--data", data, "--epochs", 2, "--resume")
    assert ran.code == 0
    assert "; resumed after epoch 1\n" in ran.out
    assert not Path("model.tuned.keras.checkpoint").exists()


def test_a_model_that_goes_to_standard_output_goes_there_alone(
    kprune: Kprune, model: Path, samples: Path
) -> None:
    ran = kprune("tune", model, "--data", samples / "digits_test.npz", "--epochs", 1, "-o", "-")
    assert ran.code == 0
    Path("piped.keras").write_bytes(ran.stdout)
    assert kprune("inspect", "piped.keras").code == 0
    assert ran.stdout.startswith(b"PK") and b"val_accuracy" not in ran.stdout[-1000:]
    assert "val_accuracy" in ran.err.splitlines()[-4]
    assert sorted(path.name for path in Path().iterdir()) == ["model.keras", "piped.keras"]


def test_a_folder_gives_a_folder(kprune: Kprune, model: Path, samples: Path) -> None:
    Path("model").mkdir()
    with zipfile.ZipFile(model) as archive:
        archive.extractall("model")
    ran = kprune("tune", "model", "--data", samples / "digits_test.npz", "--epochs", 1)
    assert (ran.code, ran.out.splitlines()[-1]) == (0, "wrote model.tuned")
    assert sorted(path.name for path in Path("model.tuned").iterdir()) == [
        "config.json", "metadata.json", "model.weights.h5",
    ]  # fmt: skip
    assert kprune("diff", "model", "model.tuned", "--exit-code").code == 5


def test_quiet_prints_the_path_alone_and_a_report_is_written_beside(
    kprune: Kprune, model: Path, samples: Path
) -> None:
    how = ("--data", samples / "digits_test.npz", "--epochs", "1")
    ran = kprune("tune", model, *how, "-q", "--report", "report.json")
    assert (ran.code, ran.out, ran.err) == (0, "model.tuned.keras\n", "")
    report = json.loads(Path("report.json").read_text())
    assert report["output"] == "model.tuned.keras" and fits(report, "tune")
    ran = kprune("tune", model, *how, "--force", "--report", "nowhere/report.json")
    assert ran.code == 4 and "nowhere" in ran.err
    assert ran.err.count("\n") <= 3  # before anything is trained
