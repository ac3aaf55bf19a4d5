"""Which units, by the measured cost of each group of layers."""

from __future__ import annotations

import numpy as np

from kprune.analysis.analysis import Analysis
from kprune.errors import UsageError
from kprune.page.result import Note
from kprune.pruning.selection import Selection
from kprune.select.naming.resolve import excluded
from kprune.select.plans.curves import Curves, read_curves
from kprune.select.plans.sensitivity import Wanted, within
from kprune.types import AnyPath


def good_enough(
    analysis: Analysis,
    selection: Selection,
    curves: Curves | AnyPath | None,
    *,
    min_accuracy: float | None,
    max_drop: float | None,
) -> tuple[dict[str, np.ndarray], list[Note]]:
    """The largest cuts that leave a model good enough; see `kprune.select.plans.sensitivity.within`.

    Args:
        selection: of which only `exclude` may be given, as the curves say which units go.
    Raises: UsageError for other selections beside this one, FileError for a file without curves.
    """
    if curves is None:
        raise UsageError(
            "a target accuracy needs measured curves",
            do="measure them (kprune sensitivity MODEL --data FILE.npz -o FILE.json), and give --sensitivity FILE.json",
        )
    if selection.units or selection.layers or not selection.by_spec:
        raise UsageError(
            "--sensitivity already determines which units are removed",
            do="leave out layers and other selections; --exclude LAYER keeps a layer whole",
        )
    wanted = Wanted(min_accuracy, max_drop)
    found = curves if isinstance(curves, Curves) else read_curves(curves)
    return within(found, wanted, analysis, excluded(analysis, selection.exclude))
