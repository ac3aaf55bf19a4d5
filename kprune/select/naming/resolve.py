"""From names and indices to units of a model."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Protocol

import numpy as np

from kprune.analysis.analysis import Analysis
from kprune.errors import SpecError, UsageError
from kprune.labels.map import TOKENS, UnitAxis
from kprune.select.naming.indices import Indices, Where
from kprune.select.naming.layer_names import axes_named
from kprune.select.naming.specs import Spec, parse_layer, parse_spec, spec_from_pair
from kprune.sets import distinct
from kprune.text import clean


class Environment(Protocol):
    """Where the numbers of an expression come from."""

    def env(self, axis: UnitAxis, names: Iterable[str]) -> Mapping[str, np.ndarray]: ...


def specs_from(units: Any) -> list[Spec]:
    """Specs from what a caller gives.

    Args:
        units: a mapping from LAYER[.AXIS] to indices, a spec as text, or a sequence of specs.
    Raises: SpecError for anything else.
    """
    if isinstance(units, Mapping):
        return [spec_from_pair(str(name), indices) for name, indices in units.items()]
    if isinstance(units, (str, Spec)):
        units = [units]
    if not isinstance(units, Sequence):
        raise SpecError(
            f"units are given as a {type(units).__name__}",
            do="give a mapping such as {'dense_1': [3, 7, 12]}, or specs such as 'dense_1:3,7,12'",
        )
    return [spec if isinstance(spec, Spec) else parse_spec(spec) for spec in units]


def resolve(
    analysis: Analysis, specs: Iterable[Spec], environment: Environment
) -> dict[str, np.ndarray]:
    """Units by address of their axis, sorted int64 indices; what is named twice counts once.

    Raises: the errors of `axes_named` and of `Indices.resolve`.
    """
    chosen: dict[str, np.ndarray] = {}
    for spec in specs:
        axes = axes_named(analysis, spec)
        several = len(axes) > 1
        for axis in axes:
            indices = _rows_or_units(analysis, spec.indices, axis, environment, allow_empty=several)
            before = chosen.get(axis.address, np.zeros(0, np.int64))
            chosen[axis.address] = distinct(before, indices)
        if several and not any(chosen[axis.address].size for axis in axes):
            raise UsageError("no unit of the layers that match is chosen", where=spec.where())
    return {address: indices for address, indices in chosen.items() if indices.size}


def _rows_or_units(
    analysis: Analysis,
    indices: Indices,
    axis: UnitAxis,
    environment: Environment,
    *,
    allow_empty: bool,
) -> np.ndarray:
    """The same as `indices_of`; a file may list the rows of an embedding by their tokens as well."""
    try:
        return indices_of(indices, axis, environment, allow_empty=allow_empty)
    except SpecError:
        from kprune.select.naming.index_files import FromFile
        from kprune.select.naming.kept_tokens import rows_of_tokens

        source = getattr(environment, "source", None)
        if axis.name != TOKENS or not isinstance(indices, FromFile) or source is None:
            raise
        rows = rows_of_tokens(analysis, source, axis, indices.name, indices.base)
        if rows is None:
            raise
        return np.setdiff1d(np.arange(len(axis)), rows) if indices.complement else rows


def indices_of(
    indices: Indices, axis: UnitAxis, environment: Environment, *, allow_empty: bool = False
) -> np.ndarray:
    """Which units of one axis some indices mean."""
    env = environment.env(axis, indices.expression.names) if isinstance(indices, Where) else None
    what = f"layer '{clean(axis.address)}'"
    return indices.resolve(len(axis), what=what, env=env, allow_empty=allow_empty)


def excluded(analysis: Analysis, names: Iterable[str]) -> set[str]:
    """Addresses that `--exclude` or a plan's `exclude` leaves as they are."""
    return {axis.address for name in names for axis in axes_named(analysis, parse_layer(name))}
