"""A model to prune, and where the pruned one goes."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.running.making import saved, small_model


@pytest.fixture
def original(tmp_path: Path) -> Path:
    return saved(small_model(), tmp_path)


@pytest.fixture
def small(tmp_path: Path) -> Path:
    return tmp_path / "small.keras"


@pytest.fixture
def eagerly() -> Iterator[None]:
    """Keras traces and compiles nothing: for few samples that takes longer than all else.

    What is trained as users train it stands in `test_tuning.py`.
    """
    import tensorflow as tf

    tf.config.run_functions_eagerly(True)
    yield
    tf.config.run_functions_eagerly(False)
