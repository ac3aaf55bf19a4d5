"""A model to prune, and where the pruned one goes."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.running.making import saved, small_model


@pytest.fixture
def original(tmp_path: Path) -> Path:
    return saved(small_model(), tmp_path)


@pytest.fixture
def small(tmp_path: Path) -> Path:
    return tmp_path / "small.keras"
