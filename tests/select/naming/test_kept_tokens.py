"""Tokens that a file lists."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from kprune.errors import SpecError
from kprune.select.naming.kept_tokens import _listed


def test_an_array_of_tokens_costs_no_more_than_it_holds(tmp_path: Path) -> None:
    np.save(tmp_path / "ids.npy", np.array([3, 5, 900_000_000_000]))
    assert _listed(tmp_path / "ids.npy", numbers=True) == [3, 5, 900_000_000_000]


def test_a_mask_lists_no_tokens(tmp_path: Path) -> None:
    np.save(tmp_path / "mask.npy", np.array([True, False]))
    with pytest.raises(SpecError, match="does not hold a list of tokens"):
        _listed(tmp_path / "mask.npy", numbers=True)
