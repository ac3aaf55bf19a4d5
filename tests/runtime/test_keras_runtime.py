"""Keras without chatter, and files that it cannot load: what is missing is named, and none of their code is run."""

from __future__ import annotations

import subprocess
import sys

import keras
import pytest
from keras import layers

from kprune.errors import CannotPruneError
from kprune.verification.verify import verify
from tests.running.making import saved

pytestmark = pytest.mark.oracle


def run_alone(code: str, *args: str) -> subprocess.CompletedProcess:
    """In a process of its own, where nothing was registered and Keras was not imported."""
    return subprocess.run(
        [sys.executable, "-c", code, *args], capture_output=True, text=True, check=False
    )


FRESH = """
import sys
from kprune.errors import KpruneError
from kprune.runtime.keras_import import import_keras
from kprune.verification.verify import verify
print(import_keras().ops.ones(2).shape)
for rules in ([], sys.argv[2:]):
    try:
        print(verify(sys.argv[1], sys.argv[1], rules=rules, samples=2).passed)
    except KpruneError as error:
        print(type(error).__name__, error.exit_code, error)
"""

RULES = """
import keras

@keras.saving.register_keras_serializable("kprune_tests")
class Twice(keras.layers.Layer):
    def call(self, x):
        return x * 2
"""


@pytest.fixture(scope="module")
def fresh(tmp_path_factory):
    """What a process says that imports Keras and verifies a model, without its class and with it."""
    folder = tmp_path_factory.mktemp("fresh")
    rules = folder / "my_layers.py"
    rules.write_text(RULES)
    scope: dict = {}
    exec(RULES, scope)
    path = str(
        saved(keras.Sequential([keras.Input((3,)), scope["Twice"](), layers.Dense(2)]), folder)
    )
    return run_alone(FRESH, path, str(rules))


def test_a_class_that_is_not_there_is_named_and_can_be_brought_along(fresh):
    _, refused = fresh.stdout.split("\n", 1)
    assert refused.startswith("CannotPruneError 3") and "'twice' imports" in refused, fresh
    assert "--rules" in refused and "Traceback" not in fresh.stdout + fresh.stderr
    assert refused.endswith("\nTrue\n")


def test_a_lambda_is_not_run(tmp_path):
    model = keras.Sequential([keras.Input((3,)), layers.Lambda(lambda x: x * 2), layers.Dense(2)])
    path = saved(model, tmp_path)
    with pytest.raises(CannotPruneError, match="cannot run") as error:
        verify(path, path)
    assert "'lambda' runs Python bytecode" in error.value.where


def test_keras_is_imported_without_chatter(fresh):
    assert (fresh.returncode, fresh.stderr) == (0, "")
    assert fresh.stdout.startswith("(2,)\nCannotPruneError")


def test_what_was_held_back_is_shown_when_something_fails():
    code = """
import os
from kprune.runtime.keras_import import quiet
with quiet():
    os.write(2, b"lost\\n")
try:
    with quiet():
        os.write(2, b"shown\\n")
        raise ValueError
except ValueError:
    os.write(2, b"after\\n")
"""
    assert run_alone(code).stderr == "shown\nafter\n"


def test_a_keras_that_does_not_import_is_an_error_with_its_reason(tmp_path):
    (tmp_path / "keras.py").write_text("raise ImportError('no such thing')")
    code = (
        f"import sys; sys.path.insert(0, {str(tmp_path)!r})\n"
        "from kprune.runtime.keras_runtime import import_keras\n"
        "from kprune.errors import KpruneError\n"
        "try: import_keras()\n"
        "except KpruneError as error: print(error)"
    )
    assert "why:   ImportError: no such thing" in run_alone(code).stdout
