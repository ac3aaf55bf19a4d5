"""The walk that finds constant units, with the rules for every kind of layer."""

from __future__ import annotations

import kprune.surgery.constants.moving_rules
import kprune.surgery.constants.sequence_rules
import kprune.surgery.constants.summing_rules  # noqa: F401 - these fill the tables of rules
from kprune.surgery.constants.walk import Constants, border

__all__ = ["Constants", "border"]
