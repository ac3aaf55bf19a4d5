"""The table of backends: each line has code, and options that a step knows."""

from __future__ import annotations

import importlib
import inspect

import msgspec
import pytest

from kprune.select.plans.backends import BACKENDS, Backend, backends_with
from kprune.select.plans.structs import InvalidPlan, Step

OPTIONS = {field.encode_name for field in msgspec.structs.fields(Step)} - {"backend", "layers"}


@pytest.mark.parametrize("backend", BACKENDS.values(), ids=BACKENDS)
def test_each_backend_can_be_carried_out_and_replayed(backend: Backend) -> None:
    assert [*inspect.signature(backend.code.of_step).parameters] == ["asked"]
    assert [*inspect.signature(backend.code.replay).parameters] == ["analysis", "step", "pruned"]
    if backend.writing:
        module, _, function = backend.writing.partition(":")
        write = getattr(importlib.import_module(module), function)
        assert [*inspect.signature(write).parameters] == ["it", "change", "target", "step"]


@pytest.mark.parametrize("backend", BACKENDS.values(), ids=BACKENDS)
def test_the_options_of_a_backend_are_options_of_a_step(backend: Backend) -> None:
    assert set(backend.options) <= OPTIONS


def test_an_option_that_no_backend_lists_goes_with_all_of_them() -> None:
    assert {name for name in OPTIONS if not backends_with(name)} == {
        "coupled",
        "allow_output_change",
        "drop_optimizer",
    }


def test_a_step_with_a_backend_that_there_is_not_is_refused() -> None:
    with pytest.raises(InvalidPlan, match="there is no backend 'shrink'"):
        Step(backend="shrink", layers={"a": [1]})
