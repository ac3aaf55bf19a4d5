"""Each system call of a command that writes fails in turn, and the process is killed at each.

The old file stands to the last byte, or the new one is whole; nothing hidden is left after the next
run; a failure ends with exit code 4 and a message that names the file.
"""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.hostile.injection import FORMATS, VARIANTS, WAYS, build

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
FULL_AND_SHORT = f"{errno.ENOSPC},-1"


def carried_out(
    folder: Path, task: str, kind: str, way: str, variant: str, *more: object, library: Path | None
) -> dict[str, int]:
    """The counts of `tests.hostile.injection`."""
    environment = dict(os.environ)
    if library is not None:
        environment["LD_PRELOAD"] = str(library)
    line = [sys.executable, "-m", "tests.hostile.injection", task, folder / "case", kind, way]
    ran = subprocess.run(
        [*map(str, line), variant, *map(str, more)],
        env=environment,
        capture_output=True,
        text=True,
        cwd=Path(__file__).parents[2],
    )
    assert ran.returncode == 0, ran.stderr
    found: dict[str, int] = json.loads(ran.stdout)
    return found


@pytest.fixture(scope="session")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The C library's calls, watched."""
    found = build(tmp_path_factory.mktemp("injection")) if sys.platform == "linux" else None
    if found is None:
        pytest.skip("no C compiler")
    return found


@pytest.mark.parametrize(
    ("kind", "way", "variant"),
    [
        ("keras", "force", "usual"),
        ("keras", "new", "bare"),
        ("keras-folder", "in-place", "usual"),
        ("keras-folder", "force", "bare"),
        ("h5", "in-place", "usual"),
    ],
)
def test_a_call_that_fails_leaves_the_old_file_or_a_whole_new_one(
    tmp_path: Path, kind: str, way: str, variant: str
) -> None:
    # An .h5 is read by a child process, which takes its time.
    which = FULL_AND_SHORT if kind != "h5" else str(errno.ENOSPC)
    found = carried_out(tmp_path, "faults", kind, way, variant, which, library=None)
    assert "broken" not in found, found
    assert found["refused"] > 3 and found["written"] > 3


@pytest.mark.parametrize(
    ("kind", "way", "variant"),
    [
        ("keras", "in-place", "usual"),
        ("keras", "force", "bare"),
        ("keras-folder", "force", "usual"),
        ("keras-folder", "in-place", "bare"),
    ],
)
def test_a_process_that_is_killed_leaves_the_old_file_or_a_whole_new_one(
    tmp_path: Path, kind: str, way: str, variant: str
) -> None:
    found = carried_out(tmp_path, "kills", kind, way, variant, library=None)
    assert "broken" not in found, found
    assert found["kills"] > 10 and found["old"] > 3 and found["new"] > 0 and found["left"] > 0


GRID = [(kind, way, variant) for kind in FORMATS for way in WAYS for variant in VARIANTS]


@pytest.mark.nightly
@pytest.mark.parametrize("watched", ["in Python", "in the library"])
@pytest.mark.parametrize(("kind", "way", "variant"), GRID)
def test_no_fault_in_the_whole_grid_breaks_a_file(
    tmp_path: Path, library: Path, kind: str, way: str, variant: str, watched: str
) -> None:
    preloaded = library if watched == "in the library" else None
    found = carried_out(tmp_path, "faults", kind, way, variant, library=preloaded)
    print(found)
    assert "broken" not in found, found


@pytest.mark.nightly
@pytest.mark.parametrize(("kind", "way", "variant"), GRID)
def test_no_kill_in_the_whole_grid_breaks_a_file(
    tmp_path: Path, library: Path, kind: str, way: str, variant: str
) -> None:
    found = carried_out(tmp_path, "kills", kind, way, variant, 20, library=library)
    print(found)
    assert "broken" not in found, found
