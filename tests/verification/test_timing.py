"""Two calls timed side by side: they take turns, the first ones do not count, medians are given."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import kprune
from kprune.verification import timing


class Clock:
    """A clock that only calls let go on, and what was called."""

    def __init__(self) -> None:
        self.now, self.calls = 0.0, ""

    def call(self, name: str, *seconds: float) -> Any:
        """A function that takes so long: the first time, the second …; from then on the last."""
        left = list(seconds)

        def run() -> None:
            self.calls += name
            self.now += left.pop(0) if len(left) > 1 else left[0]

        return run


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock()
    monkeypatch.setattr(timing.time, "perf_counter", lambda: made.now)
    monkeypatch.setattr(timing, "_device", lambda: "CPU")
    return made


def test_calls_take_turns_and_either_goes_first_as_often(clock: Clock) -> None:
    timing.time_calls(clock.call("a", 1.0), clock.call("b", 1.0), 1)
    assert clock.calls == "ab" * timing.WARM_UP + ("abba" * timing.LEAST)[: 2 * timing.LEAST]


def test_the_warm_up_and_a_hiccup_leave_the_medians_alone(clock: Clock) -> None:
    slow = [50.0] * timing.WARM_UP
    found = timing.time_calls(
        clock.call("a", *slow, 0.4, 9.0, 0.4), clock.call("b", *slow, 7.0, 0.1), 32
    )
    assert (found.original, found.pruned) == (pytest.approx(0.4), pytest.approx(0.1))
    assert found.ratio == pytest.approx(0.25)
    assert found.middle_half == [pytest.approx(0.25), pytest.approx(0.25)]
    assert found.batch_size == 32


def test_quick_calls_are_timed_more_often_but_not_without_end(clock: Clock) -> None:
    quick = timing.time_calls(clock.call("a", 1e-6), clock.call("b", 1e-6), 1)
    slow = timing.time_calls(clock.call("a", 60.0), clock.call("b", 60.0), 1)
    assert (quick.pairs, slow.pairs) == (timing.MOST, timing.LEAST)


@pytest.mark.oracle
def test_a_batch_repeats_samples_where_there_are_too_few() -> None:
    inputs = {"a": np.arange(3), "b": np.arange(6).reshape(3, 2)}
    batch = timing._batch(inputs, 7)
    assert batch["a"].tolist() == [0, 1, 2, 0, 1, 2, 0]
    assert batch["b"].shape == (7, 2)


@pytest.mark.oracle
def test_a_model_with_one_tenth_of_the_work_takes_less_time(tmp_path: Any) -> None:
    import keras

    inputs = keras.Input((32, 32, 16))
    wide = keras.layers.Conv2D(160, 5, name="wide")(inputs)
    keras.Model(inputs, keras.layers.Conv2D(4, 1)(wide)).save(tmp_path / "model.keras")
    kprune.remove(tmp_path / "model.keras", {"wide": "0-143"}, output=tmp_path / "small.keras")
    found = kprune.verify(
        tmp_path / "model.keras", tmp_path / "small.keras", samples=2, time=[1, 16]
    )
    assert found.time is not None
    assert [timed.batch_size for timed in found.time] == [1, 16]
    large = found.time[1]
    assert 0 < large.pruned < large.original
    assert large.ratio == pytest.approx(large.pruned / large.original)


@pytest.mark.oracle
def test_a_model_with_a_fixed_batch_is_timed_with_that_one_alone(tmp_path: Any) -> None:
    import keras

    inputs = keras.Input(batch_shape=(4, 3))
    keras.Model(inputs, keras.layers.Dense(2)(inputs)).save(tmp_path / "m.keras")
    with pytest.raises(kprune.UsageError, match="batches of 4 samples only") as refused:
        kprune.verify(tmp_path / "m.keras", tmp_path / "m.keras", time=[1, 32])
    assert refused.value.do == "give --batch-sizes 4"
    with pytest.raises(kprune.UsageError, match="a batch size must be at least 1, got 0"):
        kprune.verify(tmp_path / "m.keras", tmp_path / "m.keras", time=[0])
