"""What libhdf5 finds in files that may be damaged: read by a process of its own, which may crash."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from kprune.formats.hdf5.contents import Table

Summary = dict[str, Any]
"""Groups, and for each dataset [extents, bytes of a value, offset or None], both by path."""

_PROGRAM = """
import hashlib, json, resource, sys
import h5py

resource.setrlimit(resource.RLIMIT_AS, (4 << 30, 4 << 30))
resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def summary(name):
    groups, datasets, values = [], {}, {}

    def see(path, item):
        path = path.decode() if isinstance(path, bytes) else path
        if isinstance(item, h5py.Group):
            groups.append(path)
            return
        data = item.id
        kind = data.get_type()
        size = kind.get_size()
        nbytes = size
        for extent in item.shape:
            nbytes *= extent
        datasets[path] = [list(item.shape), size, data.get_offset() if nbytes else None]
        if nbytes < 1 << 20 and kind.get_class() in (h5py.h5t.INTEGER, h5py.h5t.FLOAT):
            values[path] = hashlib.sha1(item[()].tobytes()).hexdigest()

    with h5py.File(name, "r") as file:
        file.visititems(see)
    return {"groups": sorted(groups), "datasets": datasets, "values": values}


for name in sys.stdin.read().split("\\n"):
    resource.setrlimit(resource.RLIMIT_CPU, (sum(map(int, resource.getrusage(resource.RUSAGE_SELF)[:2])) + 10,) * 2)
    try:
        print(json.dumps(summary(name)), flush=True)
    except Exception as error:
        print("null", flush=True)
"""


def judged(files: Sequence[Path]) -> list[Summary | None]:
    """What each file holds; None for one that libhdf5 refuses, or that crashes or hangs it."""
    found: list[Summary | None] = []
    while len(found) < len(files):
        names = "\n".join(map(str, files[len(found) :]))
        ran = subprocess.run(
            [sys.executable, "-c", _PROGRAM], input=names, capture_output=True, text=True
        )
        found += [json.loads(line) for line in ran.stdout.splitlines()]
        if len(found) < len(files):
            found.append(None)
    return found


def summary(table: Table) -> Summary:
    """The same of what kprune found, without values."""
    return {
        "groups": sorted(table.groups),
        "datasets": {
            path: [list(it.shape), it.dtype.itemsize, it.offset]
            for path, it in table.tensors.items()
        },
    }


def agrees(table: Table, judge: Summary) -> bool:
    """Whether kprune found what libhdf5 found."""
    return summary(table) == {key: judge[key] for key in ("groups", "datasets")}
