"""What kprune runs on is missing here: exit 4, and the package's name; never a bug, never the file's fault."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from pathlib import Path

import pytest

import kprune as package

COMMAND = [sys.executable, "-m", "kprune"]


def without(
    folder: Path, missing: str, *arguments: object, **more: str
) -> subprocess.CompletedProcess[str]:
    """Run the command where a package cannot be found."""
    hidden = folder / f"no_{missing}"
    hidden.mkdir(exist_ok=True)
    error = f"ModuleNotFoundError(\"No module named '{missing}'\", name='{missing}')"
    (hidden / f"{missing}.py").write_text(f"raise {error}\n")
    path = os.pathsep.join([str(hidden), *sys.path])
    environment = {**os.environ, "PYTHONPATH": path, **more}
    command = [*COMMAND, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, env=environment, check=False)


@pytest.mark.parametrize("missing", ["numpy", "typer", "msgspec"])
def test_without_a_package_that_every_command_needs(
    samples: Path, tmp_path: Path, missing: str
) -> None:
    ran = without(tmp_path, missing, "inspect", samples / "digits_cnn.keras")
    assert ran.returncode == 4, ran.stderr
    assert ran.stderr.startswith(f"error: {missing} cannot be imported\n")
    assert f"pip install {missing}" in ran.stderr and "Traceback" not in ran.stderr


def test_without_yaml_a_plan_is_not_written_and_its_package_is_named_as_pip_names_it(
    samples: Path, tmp_path: Path
) -> None:
    model = samples / "digits_cnn.keras"
    ran = without(tmp_path, "yaml", "plan", model, "--criterion", "l1", "--ratio", "0.2")
    assert ran.returncode == 4 and "pip install pyyaml" in ran.stderr


def test_a_package_that_is_broken_is_no_bug_of_kprune(samples: Path, tmp_path: Path) -> None:
    (tmp_path / "no_zlib_ng").mkdir()
    (tmp_path / "no_zlib_ng" / "zlib_ng.py").write_text(
        "raise RuntimeError('built for another ABI')\n"
    )
    path = os.pathsep.join([str(tmp_path / "no_zlib_ng"), *sys.path])
    command = [*COMMAND, "inspect", str(samples / "digits_cnn.keras")]
    environment = {**os.environ, "PYTHONPATH": path}
    ran = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    assert ran.returncode == 4, ran.stderr
    assert ran.stderr.startswith("error: zlib_ng cannot be imported\nwhy:   RuntimeError: built")


def test_without_h5py_what_kprune_reads_itself_is_read(legacy: Path, tmp_path: Path) -> None:
    assert without(tmp_path, "h5py", "inspect", legacy).returncode == 0


def test_without_h5py_a_file_of_the_newest_format_is_not_called_damaged(
    legacy: Path, tmp_path: Path
) -> None:
    import h5py

    newest = tmp_path / "newest.h5"
    with h5py.File(legacy) as old, h5py.File(newest, "w", libver="latest") as new:
        new.attrs.update(old.attrs)
        old.copy("model_weights", new)
    ran = without(tmp_path, "h5py", "inspect", newest)
    assert ran.returncode == 4
    assert ran.stderr.startswith("error: h5py, ") and "cannot be imported" in ran.stderr


@pytest.fixture
def legacy(tmp_path: Path) -> Path:
    """The least that is a legacy `.h5`."""
    import json

    import h5py

    layers = [
        {"class_name": "InputLayer", "config": {"name": "x", "batch_input_shape": [None, 3]}},
        {"class_name": "Dense", "config": {"name": "d", "units": 2, "use_bias": False}},
    ]
    config = {"class_name": "Sequential", "config": {"name": "s", "layers": layers}}
    with h5py.File(tmp_path / "model.h5", "w") as file:
        file.attrs["model_config"] = json.dumps(config)
        weights = file.create_group("model_weights")
        weights.attrs["layer_names"] = ["d"]
        weights["d/d/kernel:0"] = [[0.0, 1.0]] * 3
        weights["d"].attrs["weight_names"] = ["d/kernel:0"]
    return tmp_path / "model.h5"


@pytest.mark.parametrize(
    ("missing", "more", "said"),
    [
        ("keras", {}, "pip install keras"),
        ("tensorflow", {}, "pip install tensorflow"),
        ("jax", {"KERAS_BACKEND": "jax"}, "KERAS_BACKEND=tensorflow"),
        ("nothing", {"KERAS_BACKEND": "nonsense"}, "KERAS_BACKEND=tensorflow"),
    ],
)
def test_without_keras_or_its_backend_nothing_is_run(
    samples: Path, tmp_path: Path, missing: str, more: dict[str, str], said: str
) -> None:
    model = samples / "digits_cnn.keras"
    ran = without(tmp_path, missing, "verify", model, model, **more)
    assert ran.returncode == 4, ran.stderr
    assert "cannot be imported" in ran.stderr and said in ran.stderr


def test_the_base_of_all_errors_is_never_raised_itself() -> None:
    """It says nothing of whose fault something is, so it has no exit code to give."""
    for file in Path(package.__file__).parent.rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text())):
            made = node.func if isinstance(node, ast.Call) else None
            assert getattr(made, "id", None) != "KpruneError", f"{file}:{node.lineno}"
