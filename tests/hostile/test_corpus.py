"""Every file of the corpus is refused in a sentence, at once, in little memory, and changes nothing."""

from __future__ import annotations

import io
import zipfile
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

import h5py
import numpy as np
import pytest

from tests.hostile import seeds
from tests.hostile.case import OUTPUT, Case, Run
from tests.hostile.corpus import CASES
from tests.hostile.sandbox import Outcome, Sandbox

SECONDS, MEGABYTES = 5, 300
KEPT = b"what stood here before"


@pytest.fixture(scope="module")
def sandbox() -> Iterator[Sandbox]:
    with Sandbox() as made:
        yield made


@pytest.fixture(scope="module")
def tensorflow_sandbox() -> Iterator[Sandbox]:
    with Sandbox(tensorflow=True) as made:
        yield made


def names(*, tensorflow: bool) -> list[str]:
    return [name for name, case in CASES.items() if case.tensorflow is tensorflow]


@pytest.mark.parametrize("name", names(tensorflow=False))
def test_a_bad_file_is_refused_when_it_is_to_be_cut(
    name: str, sandbox: Sandbox, tmp_path: Path
) -> None:
    tried(CASES[name], sandbox, tmp_path, CASES[name].runs[-1:])


@pytest.mark.parametrize("name", names(tensorflow=True)[::5])
def test_a_bad_file_is_refused_beside_tensorflow(
    name: str, tensorflow_sandbox: Sandbox, tmp_path: Path
) -> None:
    tried(CASES[name], tensorflow_sandbox, tmp_path, CASES[name].runs[-1:])


@pytest.mark.nightly
@pytest.mark.parametrize("name", CASES)
def test_a_bad_file_is_refused_by_every_command(
    name: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    kind = "tensorflow_sandbox" if CASES[name].tensorflow else "sandbox"
    tried(CASES[name], request.getfixturevalue(kind), tmp_path, CASES[name].runs)


def tried(case: Case, sandbox: Sandbox, folder: Path, runs: Sequence[Run]) -> None:
    """Make a case's file, run commands on it, and hold each against what is expected."""
    for name in case.beside:
        seeds.good(name, folder)
    made = sandbox.make(folder, case.name)
    assert made.code == 0, made.err
    for suffix in (".keras", ".h5"):
        (folder / OUTPUT).with_suffix(suffix).write_bytes(KEPT)
    before = seeds.files(folder)
    for run in runs:
        outcome = sandbox.run(folder, *run.arguments)
        check(run, outcome)
        if run.code or run.arguments[0] in ("inspect", "diff"):
            assert seeds.files(folder) == before, run.arguments
        else:
            assert_cut(folder, run)


def check(run: Run, outcome: Outcome) -> None:
    shown = f"{' '.join(run.arguments)[:200]} -> {outcome.code}\n{outcome.err[-2000:]}"
    assert outcome.code == run.code, shown
    assert outcome.seconds < SECONDS, shown
    assert outcome.megabytes < MEGABYTES, shown
    if run.code:
        assert "error: " in outcome.err, shown
        assert "Traceback" not in outcome.err, shown
        for words in run.says:
            assert words in outcome.err, f"{words!r} is not in\n{shown}"


def assert_cut(folder: Path, run: Run) -> None:
    """A file that was taken after all is what plain zipfile, h5py and numpy make of it."""
    output = run.arguments[run.arguments.index("-o") + 1]
    kernel = "layers/dense/vars/0"
    found = []
    for path in (folder / run.arguments[1], folder / output):
        with (
            zipfile.ZipFile(path) as archive,
            h5py.File(io.BytesIO(archive.read("model.weights.h5"))) as file,
        ):
            found.append(file[kernel][...])
    assert np.array_equal(np.delete(found[0], 1, axis=1), found[1])


def test_the_corpus_is_as_large_as_the_guide_says() -> None:
    """The table in the guide counts the files."""
    assert len(CASES) >= 160
    assert min(Counter(name.split("/")[0] for name in CASES).values()) >= 2
