"""The rows of every kernel of a model, against plain Keras and plain numpy."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from kprune.opened import opened
from kprune.refitting.consumers import consumers_of, variables_of
from kprune.refitting.streams.room import Room
from kprune.refitting.streams.row_stream import stream_rows
from kprune.refitting.streams.steps import Program
from tests.refitting.models import CASES
from tests.refitting.test_refit import chain, images, part, patches
from tests.running.making import saved

pytestmark = pytest.mark.oracle


def rows_of(model: Any, inputs: list[np.ndarray], folder: Any) -> dict[str, np.ndarray]:
    with opened(saved(model, folder)) as file, Room(1 << 30) as room:
        consumers = consumers_of(model, variables_of(model, file.analysis))
        found: dict[str, list[np.ndarray]] = {}
        for consumer, rows in stream_rows(Program.of(model), consumers, inputs, room):
            assert rows.shape[::2] == consumer.shape[:2]
            found.setdefault(consumer.name, []).append(rows)
    return {name: np.concatenate(parts, axis=1) for name, parts in found.items()}


def test_rows_are_what_each_kernel_is_given(tmp_path: Any) -> None:
    model, x = chain(), images(7, 7, 2)
    found = rows_of(model, [x], tmp_path)
    wanted = {
        "first": patches(x, 3),
        "second": patches(part(model, "relu", x), 3),
        "hidden": part(model, "flat", x),
        "out": part(model, "hidden", x),
    }
    assert list(found) == list(wanted)
    for name, rows in wanted.items():
        np.testing.assert_allclose(found[name][0], rows, rtol=1e-4, atol=1e-5)


def test_rows_of_a_shared_kernel_are_those_of_all_its_calls(tmp_path: Any) -> None:
    import keras

    case = CASES["shared"]()
    found = rows_of(case.model, list(case.inputs), tmp_path)
    own = keras.Input((6,))
    first = keras.Model(own, case.model.get_layer("a")(own))
    given = np.concatenate([np.asarray(first(x)) for x in case.inputs])
    name = next(name for name in found if name.startswith("dense"))
    assert sorted(map(tuple, found[name][0].round(3))) == sorted(map(tuple, given.round(3)))


def test_rows_of_a_recurrent_kernel_have_the_state_before_each_step(tmp_path: Any) -> None:
    case = CASES["simple_rnn"]()
    (x,) = case.inputs
    found = rows_of(case.model, [x], tmp_path)["a"][0].reshape(len(x), 6, -1)
    h = part(case.model, "a", x)
    np.testing.assert_allclose(found[..., :3], x, rtol=1e-5)
    np.testing.assert_allclose(found[:, 1:, 3:], h[:, :-1], rtol=1e-4, atol=1e-5)
    assert not found[:, 0, 3:].any()
