"""h5py, imported with HDF5's plugins switched off. Import it from here, so that this comes first.

HDF5 looks for shared libraries when a file names a filter that it does not know. It reads the
variable below once, while it is loaded; other programs started from here get their own value back.
"""

from __future__ import annotations

import os

_NAME = "HDF5_PLUGIN_PRELOAD"

_before = os.environ.get(_NAME)
os.environ[_NAME] = "::"
import h5py  # noqa: E402

if _before is None:
    del os.environ[_NAME]
else:
    os.environ[_NAME] = _before

__all__ = ["h5py"]
