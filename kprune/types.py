"""Types that many rooms speak of."""

from __future__ import annotations

import os
from collections.abc import Callable

AnyPath = str | os.PathLike[str]
"""The path of a file, as Python's own functions take it."""

Progress = Callable[[int, int], None]
"""Told how far a task is: (done, in all), called in the thread that asked for it."""

KeyPath = tuple[str | int, ...]
"""Where a value stands in nested mappings and lists: keys and positions, from outside."""
