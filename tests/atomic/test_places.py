"""Where an output may go, as far as that can be told before the work."""

from __future__ import annotations

import pytest

from kprune.atomic import check_output
from kprune.errors import UsageError


def test_a_terminal_is_refused_before_long_work(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdout.isatty", lambda: True, raising=False)
    with pytest.raises(UsageError, match="standard output does not take a model file"):
        check_output("-", force=False)
