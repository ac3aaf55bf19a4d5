"""Changes of a .keras file's parts that kprune knows nothing of."""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py

Change = Callable[[Any], Any]


def rewritten(
    path: Path,
    *,
    config: Change | None = None,
    metadata: Change | None = None,
    weights: Change | None = None,
) -> None:
    """Change a file's parts in place, behind kprune's back."""
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    for name, change in (("config.json", config), ("metadata.json", metadata)):
        if change is not None:
            value = json.loads(members[name])
            members[name] = json.dumps(change(value) or value).encode()
    if weights is not None:
        buffer = io.BytesIO(members["model.weights.h5"])
        with h5py.File(buffer, "r+") as file:
            weights(file)
        members["model.weights.h5"] = buffer.getvalue()
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in members.items():
            archive.writestr(name, data)
