"""Nothing that stands in a SavedModel is run, imported, called or opened by any verb, unless it is trusted."""

from __future__ import annotations

import json
import shlex
import shutil
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from kprune.cli.boundary import run
from tests.hostile.baits import Bait

pytestmark = pytest.mark.oracle
tf = pytest.importorskip("tensorflow")

from tests.hostile.graph_baits import (  # noqa: E402 - it imports TensorFlow
    EDITS,
    PAYLOADS,
    TAKEN_IF_BUILT,
    TAKEN_IF_TRUSTED,
    Initializer,
    Net,
    Payload,
    edit_metadata,
    fire,
    make_keras_model,
    saved,
    vocabulary,
    with_table,
)

CUTTING = {
    "inspect": "inspect M",
    "explain": "explain M hidden:1",
    "diff": "diff M M",
    "plan": "plan M --criterion l1 --ratio 0.25",
    "remove": "remove M hidden:1 -o OUT",
    "dry run": "remove M hidden:1 --dry-run",
    "l1": "remove M --criterion l1 --ratio 0.25 -o OUT",
    "zero": "zero M hidden:1 -o OUT",
    "mask": "mask M hidden:1 -o OUT",
    "compact": "compact M -o OUT",
}
"""Verbs that treat the model as data."""

RUNNING = {
    "verify": "verify M M",
    "verify data": "verify M M --data data.npz",
}
"""Verbs that run it."""

REFUSED = {
    "where": "remove M --where 'activation_mean < 0.1' --data data.npz -o OUT",
    "apoz": "remove M --criterion apoz --ratio 0.25 --data data.npz -o OUT",
    "sensitivity": "sensitivity M --data data.npz --ratios 0.5",
    "tune": "tune M --data data.npz --epochs 1 -o OUT",
}
"""Verbs that no SavedModel without layers can be put to."""

FIRST = {"inspect", "remove", "verify"}
"""Verbs that meet every bait each time; the others, and all of them, at night."""


class Files:
    """The baited folders of this run."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.baits: dict[str, Bait] = {}
        x = np.random.default_rng(0).normal(size=(8, 4)).astype("float32")
        np.savez(folder / "data.npz", x=x)

    def of(self, payload: Payload) -> tuple[Path, Bait]:
        path = self.folder / payload.name
        if payload.name not in self.baits:
            payload.make(self.bait(payload.name), path)
        return path, self.baits[payload.name]

    def bait(self, name: str) -> Bait:
        self.baits[name] = Bait(self.folder / f"of_{name}", f"graph_bait{len(self.baits)}")
        return self.baits[name]


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Files]:
    found = Files(tmp_path_factory.mktemp("graphs"))
    yield found
    for bait in found.baits.values():
        bait.close()


@pytest.fixture
def place(files: Files, payload: Payload, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, Bait]:
    path, bait = files.of(payload)
    monkeypatch.chdir(files.folder)
    taken(bait)
    return path, bait


def taken(bait: Bait) -> bool:
    found = bait.made.is_dir()
    shutil.rmtree(bait.made, ignore_errors=True)
    return bait.taken() or found


def code_of(line: str, model: Path, *further: str) -> int:
    shutil.rmtree(model.parent / "out", ignore_errors=True)
    names = {"M": model.name, "OUT": "out"}
    return run([*(names.get(word, word) for word in shlex.split(line)), *further])


def every(verbs: dict[str, str]) -> list[Any]:
    """The verbs, those that meet no bait but at night marked."""
    return [
        name if name in FIRST else pytest.param(name, marks=pytest.mark.nightly) for name in verbs
    ]


BY_NAME = pytest.mark.parametrize("payload", PAYLOADS, ids=lambda payload: payload.name)


@BY_NAME
def test_the_bait_is_taken_when_tensorflow_is_given_the_model(
    payload: Payload, place: tuple[Path, Bait]
) -> None:
    path, bait = place
    fire(payload, path)
    assert taken(bait)


@BY_NAME
@pytest.mark.parametrize("verb", every(CUTTING))
def test_a_verb_that_cuts_takes_no_bait(
    verb: str, payload: Payload, place: tuple[Path, Bait]
) -> None:
    path, bait = place
    assert code_of(CUTTING[verb], path) == 0
    assert not taken(bait)


@BY_NAME
@pytest.mark.parametrize("verb", every(RUNNING))
def test_a_verb_that_runs_the_graph_refuses_and_names_the_operation(
    verb: str, payload: Payload, place: tuple[Path, Bait], capsys: pytest.CaptureFixture[str]
) -> None:
    path, bait = place
    assert code_of(RUNNING[verb], path) == 3
    assert not taken(bait)
    told = capsys.readouterr().err
    assert path.name in told and payload.told in " ".join(told.split()) and "--trust" in told


@pytest.mark.nightly
@BY_NAME
@pytest.mark.parametrize("verb", REFUSED)
def test_a_verb_that_needs_layers_takes_no_bait(
    verb: str, payload: Payload, place: tuple[Path, Bait]
) -> None:
    path, bait = place
    assert code_of(REFUSED[verb], path) in (2, 3)
    assert not taken(bait)


@BY_NAME
def test_inspect_lists_it_and_fails_where_it_is_asked_to(
    payload: Payload, place: tuple[Path, Bait], capsys: pytest.CaptureFixture[str]
) -> None:
    path, bait = place
    assert code_of("inspect M --untrusted --json", path) == 5
    assert not taken(bait)
    active = json.loads(capsys.readouterr().out)["carries"]["active"]
    assert any(payload.told in item["text"] for item in active)


@pytest.mark.parametrize("payload", PAYLOADS[:1], ids=["write"])
def test_what_is_cut_from_it_is_noted_and_a_trusted_one_is_run(
    payload: Payload, place: tuple[Path, Bait], capsys: pytest.CaptureFixture[str]
) -> None:
    path, bait = place
    assert code_of("remove M hidden:1 -o OUT", path) == 0
    assert payload.told in " ".join(capsys.readouterr().err.split())
    small = path.parent / "out"
    assert run(["verify", path.name, small.name, "--trust", "--json"]) == 0
    assert taken(bait)
    notes = json.loads(capsys.readouterr().out)["notes"]
    assert any(note["kind"] == "trusted" and "WriteFile" in note["text"] for note in notes)


def test_a_model_without_a_bait_is_run_also_with_a_vocabulary_of_its_own(
    files: Files, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(files.folder)
    saved(Net(), files.folder / "plain")
    vocabulary(files.bait("words"), files.folder / "words")
    for name in ("plain", "words"):
        assert code_of("inspect M --untrusted", files.folder / name) == 0
        assert code_of("remove M hidden:1 -o OUT", files.folder / name) == 0
        assert run(["verify", name, "out"]) == 0


# -- what Keras 2 says beside the graph --------------------------------------------------------------


@pytest.fixture(scope="module")
def keras_model(files: Files) -> Path:
    make_keras_model(files.folder / "keras")
    return files.folder / "keras"


@pytest.fixture
def keras_place(
    keras_model: Path, files: Files, edit: str, monkeypatch: pytest.MonkeyPatch
) -> tuple[Path, Bait]:
    path = files.folder / f"keras_{edit}"
    if not path.exists():
        bait = files.bait(path.name)
        shutil.copytree(keras_model, path)
        edit_metadata(path, lambda config: EDITS[edit](bait, config))
    monkeypatch.chdir(files.folder)
    monkeypatch.syspath_prepend(str(files.baits[path.name].folder))
    taken(files.baits[path.name])
    return path, files.baits[path.name]


@pytest.mark.parametrize("edit", EDITS)
@pytest.mark.parametrize("verb", every({**CUTTING, **RUNNING, **REFUSED}))
def test_what_keras_2_says_of_its_layers_is_not_carried_out(
    verb: str, edit: str, keras_place: tuple[Path, Bait]
) -> None:
    path, bait = keras_place
    code = code_of({**CUTTING, **RUNNING, **REFUSED}[verb], path)
    assert not taken(bait)
    assert code in (0, 2, 3)
    if verb == "remove":
        assert code == 3 and not (path.parent / "out").exists()


@pytest.mark.parametrize("edit", TAKEN_IF_TRUSTED)
def test_that_bait_is_taken_if_the_file_is_trusted(
    edit: str, keras_place: tuple[Path, Bait]
) -> None:
    path, bait = keras_place
    code_of("remove M hidden:1 -o OUT", path, "--trust")
    assert taken(bait)


@pytest.mark.parametrize("edit", TAKEN_IF_BUILT)
def test_that_bait_is_taken_if_the_gate_is_open(
    edit: str, keras_place: tuple[Path, Bait], monkeypatch: pytest.MonkeyPatch
) -> None:
    from kprune.saved_model import keras2

    path, bait = keras_place
    monkeypatch.setattr(keras2.KerasMetadata, "needed", lambda self: ())
    monkeypatch.setattr(keras2, "locked", lambda *_: nullcontext())
    code_of("remove M hidden:1 -o OUT", path)
    assert taken(bait)


def test_a_graph_beside_the_layers_of_keras_2_is_not_run_either(
    keras_model: Path, files: Files, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The initializer that Keras would run when it loads the model."""
    import tf_keras

    bait, path = files.bait("keras_graph"), files.folder / "keras_graph"
    inputs = tf_keras.Input((4,), name="x")
    model = tf_keras.Model(inputs, tf_keras.layers.Dense(2, name="hidden")(inputs))
    model.net = with_table(Initializer(lambda table: tf.io.write_file(str(bait.marker), "x")))
    model.save(path, save_format="tf")
    monkeypatch.chdir(files.folder)
    tf_keras.models.load_model(path)
    assert taken(bait)
    for line in ("inspect M", "remove M hidden:1 -o OUT"):
        assert code_of(line, path) in (0, 3)
        assert not taken(bait)
    assert code_of("verify M M", path) == 3 and not taken(bait)


# -- links -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("verb", [*CUTTING, *RUNNING])
def test_a_file_behind_a_link_is_not_opened(
    verb: str, files: Files, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path = files.folder / "linked"
    if not path.exists():
        saved(Net(), path)
        (path / "assets" / "words.txt").symlink_to(files.bait("linked").words)
    monkeypatch.chdir(files.folder)
    bait = files.baits["linked"]
    taken(bait)
    assert code_of({**CUTTING, **RUNNING}[verb], path) == 3
    assert not taken(bait)
    assert "assets/words.txt" in capsys.readouterr().err
    if verb == "remove":
        assert code_of(CUTTING[verb], path, "--trust") == 0
        assert taken(bait)
