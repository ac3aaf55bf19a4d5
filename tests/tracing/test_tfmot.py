"""Wrappers of the TensorFlow Model Optimization toolkit are called by what takes them out."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import kprune
from kprune.errors import FrozenUnitsError, UsageError
from kprune.tracing.tfmot import PACKAGE, WRAPPERS
from tests.small_models import Network, layer, write


def wrapped(kind: str, module: str) -> dict[str, Any]:
    """A Dense in a wrapper of the toolkit between two that are bare."""
    net = Network()
    x = net("Dense", "a", net.input("in", 8), units=6)
    spec = layer(kind, "wrapped", layer=layer("Dense", "b", units=5)) | {"module": module}
    return net.functional(net("Dense", "c", net.call(spec, x, shape=(None, 5)), units=2))


@pytest.mark.parametrize("kind", WRAPPERS)
@pytest.mark.parametrize("module", ["", f"{PACKAGE}.python.core"])
def test_a_wrapper_freezes_what_reaches_it_and_says_what_takes_it_out(
    kind: str, module: str, tmp_path: Path
) -> None:
    path = write(tmp_path / "model.keras", wrapped(kind, module))
    for units in (["a:0"], ["wrapped:0"]):
        with pytest.raises((FrozenUnitsError, UsageError)) as caught:
            kprune.remove(path, units)
        assert f"is a {kind} layer" in caught.value.why
        assert "tfmot." in caught.value.do
    rows = {row.name: row for row in kprune.inspect(path).layers}
    assert rows["wrapped"].opaque and rows["a"].why_not == [rows["wrapped"].opaque]


def test_a_class_of_somebody_else_by_that_name_is_none_of_them(tmp_path: Path) -> None:
    path = write(tmp_path / "model.keras", wrapped("PruneLowMagnitude", "mine.layers"))
    with pytest.raises(FrozenUnitsError) as caught:
        kprune.remove(path, ["a:0"])
    assert "has no rule" in caught.value.why
