"""Hypothesis without a clock: these tests are quick, and the machines they share are not."""

from __future__ import annotations

from hypothesis import settings

settings.register_profile("select", deadline=None)
settings.load_profile("select")
