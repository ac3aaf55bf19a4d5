"""What all tests share: the sample models, and a TensorFlow that is quiet and stays on the CPU."""

from __future__ import annotations

import fcntl
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent

# TensorFlow reads these when it is imported, in this process or in one that a test starts.
os.environ["CUDA_VISIBLE_DEVICES"] = "-1"
os.environ["KERAS_BACKEND"] = "tensorflow"
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")  # channels_first on any CPU
# A shell that starts the tests in the background has them ignore Ctrl-C, which their processes inherit.
signal.signal(signal.SIGINT, signal.default_int_handler)
if "PYTEST_XDIST_WORKER" in os.environ:
    # The workers share the cores; a pool of threads in each would only make them wait.
    os.environ.setdefault("TF_NUM_INTRAOP_THREADS", "1")
    os.environ.setdefault("TF_NUM_INTEROP_THREADS", "1")


@pytest.fixture(scope="session")
def samples() -> Path:
    """The folder of the sample models. Read only: copy a model before changing it."""
    return ROOT / "sample_models"


@pytest.fixture(scope="session")
def mission(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The 28×28 CNN with Dense(512), saved once a test run. Read only, like the samples.

    Another process builds it, so that a test without TensorFlow stays without.
    """
    folder = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        folder = folder.parent  # the run's own; below it, each worker has one
    path, partial = folder / "mission.keras", folder / "partial.keras"
    with open(folder / "mission.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not path.exists():
            script = ROOT / "sample_models" / "make_models.py"
            subprocess.run([sys.executable, script, "--mission", partial], check=True)
            partial.rename(path)
    return path


@pytest.fixture
def original(tmp_path: Path) -> Path:
    """A small model that TensorFlow can run."""
    from tests.running.making import saved, small_model

    return saved(small_model(), tmp_path)


@pytest.fixture
def small(tmp_path: Path) -> Path:
    """Where what is pruned goes."""
    return tmp_path / "small.keras"


@pytest.fixture
def eagerly() -> Iterator[None]:
    """Keras traces and compiles nothing: for few samples that takes longer than all else.

    What is trained as users train it stands in `train/test_tune.py`.
    """
    import tensorflow as tf

    tf.config.run_functions_eagerly(True)
    yield
    tf.config.run_functions_eagerly(False)
