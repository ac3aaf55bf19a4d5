"""Nothing in a Keras file is run, imported, called or opened by any verb, unless it is trusted."""

from __future__ import annotations

import shlex
import zipfile
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest

from kprune.cli.boundary import run
from kprune.runtime import keras_runtime
from tests.hostile.baits import (
    OLD_ZIP,
    PAYLOADS,
    Bait,
    Payload,
    Watch,
    baited,
    called_by_lambda,
    foreign_model,
    make_models,
    old_lambda,
    old_lambda_aside,
)

pytestmark = pytest.mark.oracle

RUNNING = {
    "verify": "verify M M",
    "verify data": "verify M M --data data.npz --metric accuracy",
    "tune": "tune M --data data.npz --epochs 1 -o OUT",
    "iterate": "iterate M plan.yaml --data data.npz -o OUT",
    "sensitivity": "sensitivity M --data data.npz --ratios 0.5",
    "where": "remove M --where 'activation_mean < 0.1' --data data.npz -o OUT",
    "apoz": "remove M --criterion apoz --ratio 0.25 --data data.npz -o OUT",
    "taylor": "remove M --criterion taylor --ratio 0.25 --data data.npz -o OUT",
    "obs": "remove M --criterion obs --ratio 0.25 --data data.npz -o OUT",
    "lstsq": "remove M hidden:1 --repair lstsq --data data.npz -o OUT",
    "noise": "remove M hidden:1 --repair noise -o OUT",
    "repair": "repair M CUT --data data.npz -o OUT",
}
"""Verbs that build or run the model."""

CUTTING = {
    "inspect": "inspect M",
    "untrusted": "inspect M --untrusted",
    "explain": "explain M hidden:1",
    "diff": "diff M M",
    "remove": "remove M hidden:1 -o OUT",
    "l1": "remove M --criterion l1 --ratio 0.25 -o OUT",
    "zero": "zero M hidden:1 -o OUT",
    "mask": "mask M hidden:1 -o OUT",
    "plan": "plan M hidden:1",
    "compact": "compact M -o OUT",
    "flatten": "flatten M -o OUT",
}
"""Verbs that treat the model as data."""


STOPPED_TWICE = (old_lambda, old_lambda_aside, called_by_lambda, foreign_model)

CODES = {"untrusted": 5, "explain": 0, "flatten": 3}
TELLING = ("inspect", "untrusted", "remove", "l1", "zero", "mask", "compact")


class Files:
    """The baited files of this run."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        make_models(folder)
        self._baits: dict[str, Bait] = {}

    def of(self, payload: Payload) -> tuple[Path, Bait]:
        """A file with this payload, and its bait."""
        path = self.folder / payload.name
        if payload.name not in self._baits:
            bait = Bait(self.folder / f"of_{payload.name}", f"bait{len(self._baits)}")
            self._baits[payload.name] = bait
            baited(self.folder / payload.file, path, lambda config: payload.edit(bait, config))
            assert run(["remove", str(path), "hidden:1", "-o", str(cut_of(path)), "--quiet"]) == 0
        return path, self._baits[payload.name]

    def close(self) -> None:
        for bait in self._baits.values():
            bait.close()


def cut_of(model: Path) -> Path:
    return model.with_name(f"cut-{model.name}")


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Files]:
    found = Files(tmp_path_factory.mktemp("baits"))
    yield found
    found.close()


@pytest.fixture
def place(
    files: Files, payload: Payload, monkeypatch: pytest.MonkeyPatch
) -> Iterator[tuple[Path, Bait]]:
    path, bait = files.of(payload)
    monkeypatch.chdir(files.folder)
    monkeypatch.syspath_prepend(str(bait.folder))
    bait.taken()
    yield path, bait
    for left in files.folder.glob("out.*"):
        left.unlink()


def code_of(line: str, model: Path, *further: str) -> int:
    names = {"M": model.name, "CUT": cut_of(model).name, "OUT": f"out{model.suffix}"}
    return run([*(names.get(word, word) for word in shlex.split(line)), *further])


# Each payload with one verb, and each verb with one payload of each Keras; by night all with all.
SHORT = {"old_lambda-old.keras", "vocabulary-new.keras"}


def pairs(verbs: dict[str, str], payloads: list[Payload]) -> list[Any]:
    first = next(iter(verbs))
    return [
        pytest.param(
            verb,
            payload,
            id=f"{verb}-{payload.name}",
            marks=() if verb == first or payload.name in SHORT else pytest.mark.nightly,
        )
        for verb in verbs
        for payload in payloads
    ]


BUILT = [payload for payload in PAYLOADS if not payload.compiled]
COMPILED = [payload for payload in PAYLOADS if payload.compiled]


@pytest.mark.parametrize(("verb", "payload"), pairs(RUNNING, BUILT))
def test_a_verb_that_runs_the_model_refuses_and_takes_no_bait(
    verb: str, payload: Payload, place: tuple[Path, Bait], capsys: pytest.CaptureFixture[str]
) -> None:
    path, bait = place
    assert code_of(RUNNING[verb], path) == 3
    assert not bait.taken()
    told = " ".join(capsys.readouterr().err.split())
    if verb in ("tune", "iterate") and path.suffix == ".h5":
        assert "cannot be trained" in told
    else:
        assert path.name in told and payload.told in told and "--trust" in told


@pytest.mark.parametrize(("verb", "payload"), pairs(CUTTING, PAYLOADS))
def test_a_verb_that_cuts_takes_no_bait_and_tells_of_it(
    verb: str, payload: Payload, place: tuple[Path, Bait], capsys: pytest.CaptureFixture[str]
) -> None:
    path, bait = place
    code = code_of(CUTTING[verb], path)
    said = capsys.readouterr()
    assert not bait.taken()
    assert code == CODES.get(verb, 0)
    if verb in TELLING:
        assert payload.told in " ".join((said.out + said.err).split())


@pytest.mark.parametrize("verb", ["verify data", "tune", "sensitivity", "taylor"])
@pytest.mark.parametrize("payload", COMPILED, ids=lambda payload: payload.name)
def test_what_a_model_was_compiled_with_is_left_out_and_named(
    verb: str, payload: Payload, place: tuple[Path, Bait], capsys: pytest.CaptureFixture[str]
) -> None:
    path, bait = place
    assert code_of(RUNNING[verb], path) == 0
    assert not bait.taken()
    assert payload.told in " ".join(capsys.readouterr().err.split())


@pytest.mark.nightly
@pytest.mark.parametrize("payload", COMPILED, ids=lambda payload: payload.name)
def test_rounds_of_training_take_no_bait(payload: Payload, place: tuple[Path, Bait]) -> None:
    path, bait = place
    assert code_of(RUNNING["iterate"], path) == 0
    assert not bait.taken()


def no_gate(*args: Any, **how: Any) -> None:
    pass


def no_lock(*args: Any) -> Any:
    return nullcontext()


@pytest.mark.parametrize("payload", PAYLOADS, ids=lambda payload: payload.name)
def test_the_bait_is_taken_where_there_is_no_gate(
    payload: Payload, place: tuple[Path, Bait], monkeypatch: pytest.MonkeyPatch
) -> None:
    """So that a bait which nobody could ever take is noticed."""
    path, bait = place
    monkeypatch.setattr(keras_runtime, "require_inert", no_gate)
    monkeypatch.setattr(keras_runtime, "may_compile", lambda *args: True)
    monkeypatch.setattr(keras_runtime, "locked", no_lock)
    verb = RUNNING["verify data" if payload.compiled else "verify"]
    code_of(verb, path, *(["--trust"] if payload.needs_trust else []))
    assert bait.taken()


@pytest.mark.parametrize(
    "payload",
    [item for item in PAYLOADS if item.edit in STOPPED_TWICE and not item.needs_trust],
    ids=lambda payload: payload.name,
)
def test_bytecode_and_imports_are_behind_a_second_lock(
    payload: Payload, place: tuple[Path, Bait], monkeypatch: pytest.MonkeyPatch
) -> None:
    path, bait = place
    monkeypatch.setattr(keras_runtime, "require_inert", no_gate)
    assert code_of(RUNNING["verify"], path) in (3, 4)
    assert not bait.taken()


def test_a_folder_of_keras_2_is_not_taken_for_a_savedmodel(
    files: Files, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """tf_keras knows no unzipped `.keras`: it would look for a SavedModel in the folder."""
    import tf_keras

    folder = tmp_path / "unzipped"
    with zipfile.ZipFile(files.folder / OLD_ZIP) as archive:
        archive.extractall(folder)
    (folder / "saved_model.pbtxt").write_text("saved_model_schema_version: 1")
    watch = Watch(folder / "saved_model.pbtxt")
    assert run(["verify", str(folder), str(folder)]) == 3
    assert not watch.opened()
    assert "reads it only as a file" in capsys.readouterr().err
    with pytest.raises(Exception):  # noqa: B017, whatever TensorFlow says of an empty graph
        tf_keras.models.load_model(folder)
    assert watch.opened()
    watch.close()
