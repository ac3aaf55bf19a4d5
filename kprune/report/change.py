"""A change that is ready to be carried out, and to be reported."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from msgspec import Struct

from kprune.edit import Edit
from kprune.labels.closure import Units
from kprune.page.result import Note
from kprune.report.names_left import NamesLeft
from kprune.report.token_ids import TokenIds

if TYPE_CHECKING:
    from kprune.report.repaired import Repaired


class Change(Struct, frozen=True, eq=False):
    """An edit with everything its report needs.

    Attributes:
        command, backend: as the report names them.
        selected, changed: what was named, and all that is affected.
        gone: bool (labels,) if units were physically removed.
        exact: whether the rest computes what it did with these units at 0.
        names: a file of class names that goes with the result.
        token_ids: those before the change, if they changed.
        repaired: the result of refitting, if there was any.
    """

    command: str
    backend: str
    edit: Edit
    selected: Units
    changed: Units
    gone: np.ndarray | None = None
    notes: tuple[Note, ...] = ()
    exact: bool = True
    names: NamesLeft | None = None
    token_ids: TokenIds | None = None
    repaired: Repaired | None = None
