"""The version, on its own so that the build backend reads it without importing kprune."""

from __future__ import annotations

__version__ = "0.1.0"
