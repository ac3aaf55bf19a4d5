"""The corpus: every bad file by name, made by script; see `tests.hostile.case`."""

from __future__ import annotations

from tests.hostile.case import CASES as CASES
from tests.hostile.cases import (
    archives,  # noqa: F401 - each adds its cases
    configs,  # noqa: F401
    data,  # noqa: F401
    hdf5,  # noqa: F401
    json_texts,  # noqa: F401
    legacy,  # noqa: F401
    lookalikes,  # noqa: F401
    plans,  # noqa: F401
    saved_models,  # noqa: F401
    tensors,  # noqa: F401
)
