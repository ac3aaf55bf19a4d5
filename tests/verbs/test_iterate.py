"""Rounds of cutting and training: down to a target, as long as a metric holds, and across interruptions."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import kprune
from tests.running.making import small_problem, state

pytestmark = pytest.mark.oracle

PLAN = """\
version: 1
choose: {criterion: l1}
target: {parameters: 40%}
schedule: {rounds: 3}
tune: {epochs: 2, learning_rate: 0.01, batch_size: 20, validation_split: 0.25}
"""


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small_problem(tmp_path_factory.mktemp("iterating"))


def iterate(place: Path, output: Path, *changes: tuple[str, str], **how: Any) -> Any:
    """The plan above with changes, carried out."""
    text = PLAN
    for old, new in changes:
        assert old in text
        text = text.replace(old, new)
    plan = output.with_suffix(".yaml")
    plan.write_text(text)
    return kprune.iterate(
        place / "model.keras", plan, data=place / "data.npz", output=output, **how
    )


@pytest.fixture(scope="module")
def straight(place: Path) -> Any:
    """What comes of it without an interruption."""
    out = place / "straight.keras"
    return iterate(place, out, plot=place / "curve.svg"), state(out)


def left(folder: Path) -> list[str]:
    """What there is beside the plan."""
    return sorted(path.name for path in folder.iterdir() if path.suffix != ".yaml")


def test_each_round_leaves_less_until_the_target_is_met(place: Path, straight: Any) -> None:
    import keras

    found, _ = straight
    whole = found.rounds[0].parameters
    assert whole == keras.models.load_model(place / "model.keras").count_params()
    sizes = [round_.parameters for round_ in found.rounds]
    assert len(sizes) == 4 and sizes == sorted(sizes, reverse=True)
    group = 8 + 1 + 4 + 2  # a unit of `hidden`: its column and bias, BatchNormalization, its row
    for number, size in enumerate(sizes[1:], 1):
        goal = whole * 0.4 ** (number / 3)
        assert goal - group < size <= goal
    model = keras.models.load_model(place / "straight.keras")
    assert model.count_params() == sizes[-1]
    assert (found.stopped, found.written, found.met) == ("target", 3, True)


def test_the_figures_are_those_that_keras_gives(place: Path, straight: Any) -> None:
    import keras

    found, _ = straight
    with np.load(place / "data.npz") as held:
        chosen = np.random.default_rng(0).permutation(200)[:50]  # what is held back, in every round
        x, y = held["x"][chosen], held["y"][chosen]
    for path, round_ in (("model.keras", found.rounds[0]), ("straight.keras", found.rounds[-1])):
        expected = keras.models.load_model(place / path).evaluate(x, y, verbose=0, return_dict=True)
        assert round_.tuned == pytest.approx(expected, abs=1e-5)


def test_what_went_in_all_rounds_is_told_in_terms_of_the_original(
    place: Path, straight: Any
) -> None:
    with zipfile.ZipFile(place / "straight.keras") as archive:
        known = json.loads(archive.read("metadata.json"))["kprune"]
    kept = known["units"]["hidden"]
    assert len(kept) == straight[0].rounds[-1].units - 2
    assert kept == sorted(set(kept)) and set(kept) < set(range(16))
    counts = [len(step["layers"]["hidden"]) for step in known["plan"]["steps"]]
    assert len(counts) == 3 and sum(counts) == 16 - len(kept)


def test_the_optimizer_goes_on_through_all_rounds(place: Path, straight: Any) -> None:
    import keras

    steps = [
        int(keras.models.load_model(place / name).optimizer.iterations)
        for name in ("model.keras", "straight.keras")
    ]
    assert steps[1] - steps[0] == sum(round_.best for round_ in straight[0].rounds) * 8


def test_what_ranks_the_units_may_run_the_model(place: Path, tmp_path: Path) -> None:
    found = iterate(
        place,
        tmp_path / "out.keras",
        ("criterion: l1", "criterion: obs, weighting: fisher"),
        ("rounds: 3", "rounds: 1"),
        ("epochs: 2", "epochs: 1"),
    )
    assert found.met and found.rounds[1].parameters <= 0.4 * found.rounds[0].parameters


def test_the_curve_is_drawn_against_the_size(place: Path, straight: Any) -> None:
    shown = (place / "curve.svg").read_text()
    for text in ("parameters", "accuracy", "after training", "straight after the cut", "written"):
        assert f">{text}</text>" in shown, text


class Stop:
    """Interrupts at the n-th call."""

    def __init__(self, at: int) -> None:
        self.left = at

    def __call__(self, *_: Any) -> None:
        self.left -= 1
        if not self.left:
            raise KeyboardInterrupt


@pytest.mark.parametrize(
    ("hook", "at", "finished"),
    [
        pytest.param("on_epoch", 2, 0, id="in the first round", marks=pytest.mark.nightly),
        pytest.param("on_cut", 2, 1, id="between cut and training"),
    ],
)
def test_a_resumed_iteration_ends_as_one_that_was_not_interrupted(
    hook: str, at: int, finished: int, place: Path, straight: Any, tmp_path: Path
) -> None:
    out = tmp_path / "out.keras"
    with pytest.raises(KeyboardInterrupt) as stopped:
        iterate(place, out, **{hook: Stop(at)})
    kept = "rounds up to 1 are" if finished else "the first round is"
    assert stopped.value.__notes__ == [
        f"{kept} kept in {out}.rounds; the same command with --resume goes on"
    ]
    assert left(tmp_path) == ["out.keras.rounds"]
    with pytest.raises(kprune.UsageError, match="an interrupted iteration left"):
        iterate(place, out)
    with pytest.raises(kprune.UsageError, match="had another plan"):
        iterate(place, out, ("rounds: 3", "rounds: 4"), resume=True)
    epochs: list[int] = []
    found = iterate(place, out, resume=True, on_epoch=lambda epoch, *_: epochs.append(epoch))
    expected, arrays = straight
    assert found.resumed == finished
    assert epochs[0] == (2 if hook == "on_epoch" else 0)  # epoch 1 was done
    assert found.rounds == expected.rounds
    assert all((a == b).all() for a, b in zip(state(out), arrays, strict=True))
    assert left(tmp_path) == ["out.keras"]


@pytest.mark.usefixtures("eagerly")
def test_the_last_round_that_held_the_floor_is_written(place: Path, tmp_path: Path) -> None:
    """Training that learns next to nothing makes good for no cut."""
    import keras

    out = tmp_path / "out.keras"
    changes = (
        ("target: {parameters: 40%}\n", "floor: loss <= 0.5\n"),
        ("{rounds: 3}", "{step: 0.3}"),
        ("learning_rate: 0.01", "learning_rate: 1e-5"),
        ("epochs: 2", "epochs: 1"),
    )
    found = iterate(place, out, *changes)
    assert found.stopped == "floor" and found.met
    assert [round_.held for round_ in found.rounds] == [True] * (len(found.rounds) - 1) + [False]
    assert found.rounds[-1].tuned["loss"] > 0.5
    assert found.written == len(found.rounds) - 2 > 0
    kept = found.rounds[found.written]
    assert kept.tuned["loss"] <= 0.5
    assert keras.models.load_model(out).count_params() == kept.parameters
    assert left(tmp_path) == ["out.keras"]


@pytest.mark.usefixtures("eagerly")
def test_a_floor_may_count_from_what_the_original_has(place: Path, tmp_path: Path) -> None:
    """Half of the units do not go without a loss; what is written is no worse than allowed."""
    out = tmp_path / "out.keras"
    changes = (
        ("target: {parameters: 40%}\n", "floor: loss <= original + 0.1\n"),
        ("{rounds: 3}", "{step: 0.2}"),
        ("learning_rate: 0.01", "learning_rate: 1e-5"),
    )
    found = iterate(place, out, *changes)
    losses = [round_.tuned["loss"] for round_ in found.rounds]
    assert found.bound == pytest.approx(losses[0] + 0.1)
    assert found.stopped == "floor" and 0 < found.written == len(losses) - 2
    assert losses[-2] <= losses[0] + 0.1 < losses[-1]
    assert found.why == (
        f"round {found.written} is written, the last that holds loss <= {found.bound:.4f}; "
        f"round {found.written + 1} comes to {losses[-1]:.4f}"
    )
    assert found.to_dict()["why"] == found.why


@pytest.mark.parametrize(
    ("changes", "error", "words"),
    [
        ([("{parameters: 40%}", "{parameters: 5}")], kprune.CheckError, "cannot be reached"),
        ([("version: 1", "version: 1\nfloor: accuracy >= 1.5")], kprune.CheckError,
         "does not hold accuracy >= 1.5"),
        ([("version: 1", "version: 1\nfloor: recall >= 0.5")], kprune.PlanError,
         "no metric 'recall'"),
        ([("version: 1", "version: 1\nmodel: {parameters: 7}")], kprune.PlanError,
         "for a model of 7 parameters"),
        ([("criterion: l1", "criterion: l1, layers: [hiden]")], kprune.UnknownLayerError,
         "did you mean 'hidden'?"),
    ],
)  # fmt: skip
def test_what_cannot_be_is_refused_before_anything_is_trained(
    changes: list[tuple[str, str]], error: type[Exception], words: str, place: Path, tmp_path: Path
) -> None:
    seen: list[int] = []
    with pytest.raises(error, match=words.replace("?", r"\?")):
        iterate(
            place, tmp_path / "o.keras", *changes, on_epoch=lambda epoch, *_: seen.append(epoch)
        )
    assert (seen, left(tmp_path)) == ([], [])


@pytest.mark.usefixtures("eagerly")
def test_a_floor_that_the_first_round_breaks_writes_nothing(place: Path, tmp_path: Path) -> None:
    from kprune.train.tune import judged

    loss = judged(place / "model.keras", data=place / "data.npz", validation_split=0.25)["val_loss"]
    changes = (
        ("version: 1", f"version: 1\nfloor: loss <= {loss + 1e-4:.6f}"),
        ("rounds: 3", "rounds: 1"),
        ("learning_rate: 0.01", "learning_rate: 1e-7"),
        ("{parameters: 40%}", "{parameters: 25%}"),
    )
    with pytest.raises(kprune.CheckError, match="the first round does not hold") as refused:
        iterate(place, tmp_path / "out.keras", *changes)
    assert "parameters left" in refused.value.why
    assert left(tmp_path) == []


def test_a_target_that_is_met_already_gives_a_copy(place: Path, tmp_path: Path) -> None:
    found = iterate(place, tmp_path / "out.keras", ("40%", "1M"))
    assert (found.stopped, found.written, len(found.rounds)) == ("target", 0, 1)
    assert found.why.startswith("the model as it was is written: ")
    before, after = state(place / "model.keras"), state(tmp_path / "out.keras")
    assert all((a == b).all() for a, b in zip(before, after, strict=True))


REPAIRED = (
    (
        "tune: {epochs: 2, learning_rate: 0.01, batch_size: 20, validation_split: 0.25}",
        "repair: true",
    ),
    ("rounds: 3", "rounds: 2"),
    ("criterion: l1", "criterion: obs"),
)
"""Rounds that refit what each cut leaves, and train nothing."""


def held_back(place: Path, share: float) -> tuple[np.ndarray, np.ndarray]:
    """What is held back in every round."""
    with np.load(place / "data.npz") as data:
        chosen = np.random.default_rng(0).permutation(200)[: round(200 * share)]
        return data["x"][chosen], data["y"][chosen]


@pytest.fixture(scope="module")
def refitted(place: Path) -> Any:
    """Rounds of cut and repair, without an interruption."""
    out = place / "refitted.keras"
    return iterate(place, out, *REPAIRED, plot=place / "refitted.svg"), state(out)


def test_rounds_of_cut_and_repair_need_no_training(place: Path, refitted: Any) -> None:
    import keras

    found, _ = refitted
    assert (found.repair, found.trained, found.stopped) == ("lstsq", False, "target")
    for round_ in found.rounds[1:]:
        assert (round_.epochs, round_.best) == (0, 0)
        assert round_.repaired == round_.tuned
    last = found.rounds[-1]
    assert last.tuned["loss"] < last.cut["loss"]
    written = keras.models.load_model(place / "refitted.keras")
    expected = written.evaluate(*held_back(place, 0.1), verbose=0, return_dict=True)
    assert last.tuned == pytest.approx(expected, abs=1e-5)
    with zipfile.ZipFile(place / "refitted.keras") as archive:
        known = json.loads(archive.read("metadata.json"))["kprune"]
    assert [step["repair"] for step in known["plan"]["steps"]] == ["lstsq", "lstsq"]


def test_the_figures_before_a_repair_are_those_of_the_cut_alone(
    place: Path, refitted: Any, tmp_path: Path
) -> None:
    import keras

    with zipfile.ZipFile(place / "refitted.keras") as archive:
        known = json.loads(archive.read("metadata.json"))["kprune"]
    out = tmp_path / "cut.keras"
    kprune.remove(place / "model.keras", known["plan"]["steps"][0]["layers"], output=out)
    cut = keras.models.load_model(out).evaluate(*held_back(place, 0.1), verbose=0, return_dict=True)
    assert refitted[0].rounds[1].cut == pytest.approx(cut, abs=1e-5)


def test_a_table_and_a_curve_tell_what_each_part_of_a_round_came_to(
    place: Path, refitted: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    from kprune.page.page import Page

    found, _ = refitted
    found.show(Page())
    shown = capsys.readouterr().out
    assert "repaired" in shown and "tuned" not in shown
    curve = (place / "refitted.svg").read_text()
    assert ">after the repair</text>" in curve and ">after training</text>" not in curve


def test_resumed_rounds_of_repair_end_as_those_that_were_not_interrupted(
    place: Path, refitted: Any, tmp_path: Path
) -> None:
    out = tmp_path / "out.keras"
    with pytest.raises(KeyboardInterrupt):
        iterate(place, out, *REPAIRED, on_cut=Stop(2))
    found = iterate(place, out, *REPAIRED, resume=True)
    expected, arrays = refitted
    assert found.resumed == 1
    assert found.rounds == expected.rounds
    assert all((a == b).all() for a, b in zip(state(out), arrays, strict=True))


@pytest.mark.usefixtures("eagerly")
def test_training_goes_on_from_the_repair(place: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.keras"
    changes = (("rounds: 3", "rounds: 1"), ("version: 1", "version: 1\nrepair: bias"))
    found = iterate(place, out, *changes)
    assert (found.repair, found.trained) == ("bias", True)
    assert [note.kind for note in found.notes] == []
    last = found.rounds[-1]
    assert last.repaired is not None and last.repaired != last.cut
    assert last.epochs == 2 and last.tuned["loss"] < last.repaired["loss"]


@pytest.mark.usefixtures("eagerly")
def test_every_round_trains_gently_after_its_repair(place: Path, tmp_path: Path) -> None:
    import keras

    out = tmp_path / "out.keras"
    changes = (
        ("rounds: 3", "rounds: 2"),
        ("learning_rate: 0.01, ", ""),
        ("version: 1", "version: 1\nrepair: true"),
    )
    found = iterate(place, out, *changes)
    assert [note.kind for note in found.notes] == ["learning-rate"]
    last = found.rounds[-1]
    assert last.number == 2 and last.best > 0
    optimizer = keras.models.load_model(out).optimizer
    assert float(optimizer.learning_rate) == pytest.approx(1e-4)
    assert int(optimizer.iterations) == last.best * 8  # counted anew after the second repair
    with zipfile.ZipFile(out) as archive:
        assert json.loads(archive.read("metadata.json"))["kprune"]["trained"] == 2


def test_no_repair_is_fitted_on_what_is_held_back(place: Path) -> None:
    from kprune.train.tune import learned_from

    x, y = learned_from(place / "model.keras", data=place / "data.npz", validation_split=0.25)
    held, _ = held_back(place, 0.25)
    assert x.shape == (150, 8) and y.shape == (150,)
    assert not (x[:, None] == held[None]).all(axis=2).any()


def test_a_teacher_of_nothing_is_refused(place: Path, tmp_path: Path) -> None:
    with pytest.raises(kprune.UsageError, match="trains nothing"):
        iterate(place, tmp_path / "out.keras", *REPAIRED, teacher=place / "model.keras")
