"""A file of class names without those of removed classes, written beside the result."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from msgspec import Struct
from msgspec.structs import replace

from kprune.labels.closure import Units

if TYPE_CHECKING:
    from kprune.select.naming.class_names import ClassNames


class NamesLeft(Struct, frozen=True):
    """A file of class names once some are gone.

    Attributes:
        names: all that there were, and the file.
        address: of the output layer.
        gone: which are gone, counted in that file.
        place: where the file of the rest is written; None for beside the result.
    """

    names: ClassNames
    address: str
    gone: frozenset[int]
    place: Path | None = None

    @property
    def file(self) -> Path:
        """The file that was given."""
        assert self.names.file is not None
        return self.names.file

    @property
    def text(self) -> str:
        """The new content."""
        return self.names.text_without(self.gone)

    @property
    def count(self) -> int:
        """How many names are left."""
        return len(self.names.names) - len(self.gone)

    def without(self, units: Units) -> NamesLeft:
        """The same once units of what is left are gone as well."""
        left = [index for index in range(len(self.names.names)) if index not in self.gone]
        more = (left[unit] for unit in units.get(self.address, np.zeros(0, np.int64)).tolist())
        return replace(self, gone=self.gone.union(more))
