"""Text files beside the weights (vocabularies, one entry a line) without some of their lines."""

from __future__ import annotations

import numpy as np


def without_lines(content: bytes, gone: np.ndarray) -> bytes:
    """The text without some lines, as Keras writes it.

    Args:
        content: UTF-8; lines end where Python's `splitlines` ends them, as Keras reads them.
        gone: sorted int64, from 0.
    Raises: UnicodeDecodeError.
    """
    dead = set(gone.tolist())
    lines = content.decode("utf-8").splitlines()
    return "\n".join(line for at, line in enumerate(lines) if at not in dead).encode()
