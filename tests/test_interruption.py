"""Signals that end a command: they raise, unless the program or its user has said otherwise."""

from __future__ import annotations

import os
import signal

import pytest

from kprune.interruption import (
    Terminated,
    end_if_asked,
    ended_by_signals,
    note_written,
    signal_behind,
    terminable,
    undisturbed,
    written,
)


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGHUP, 129)])
def test_a_signal_raises_with_the_code_of_a_shell(number: signal.Signals, code: int) -> None:
    with pytest.raises(Terminated) as ended, terminable():
        os.kill(os.getpid(), number)
        signal.pause()
    assert ended.value.code == code
    assert signal.getsignal(number) is signal.SIG_DFL


def test_a_signal_that_nohup_has_ignored_stays_so() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with terminable():
            os.kill(os.getpid(), signal.SIGHUP)
        assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)


def test_a_handler_of_the_programs_own_is_left_alone() -> None:
    seen = []
    before = signal.signal(signal.SIGTERM, lambda number, _: seen.append(number))
    try:
        with terminable():
            os.kill(os.getpid(), signal.SIGTERM)
        assert seen == [signal.SIGTERM]
    finally:
        signal.signal(signal.SIGTERM, before)


def test_a_signal_that_an_import_swallows_or_renames_still_ends_the_command() -> None:
    with ended_by_signals():
        try:
            os.kill(os.getpid(), signal.SIGINT)
            signal.pause()
        except KeyboardInterrupt:
            error = ImportError("initialization failed")
        assert isinstance(signal_behind(error), KeyboardInterrupt)
        with pytest.raises(KeyboardInterrupt):
            end_if_asked()
    with ended_by_signals():
        assert signal_behind(error) is None
        end_if_asked()


def test_a_signal_waits_until_it_is_known_that_an_output_has_its_name() -> None:
    done = []
    with pytest.raises(Terminated), ended_by_signals():
        with undisturbed():
            os.kill(os.getpid(), signal.SIGTERM)
            done.append("named")
            note_written("out.keras")
        done.append("never")
    assert done == ["named"] and written()[-1].endswith("out.keras")
    with ended_by_signals():  # the next command begins
        end_if_asked()
