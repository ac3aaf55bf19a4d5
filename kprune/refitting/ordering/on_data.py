"""A model file and data for it: what its consumers are given there, found out when it is first asked for."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from msgspec.structs import replace

from kprune.analysis.analysis import Analysis
from kprune.atomic import TemporaryFolder
from kprune.formats import Source
from kprune.refitting.inputs import repair_inputs
from kprune.refitting.ordering.covariances import Observation
from kprune.refitting.ordering.fisher import information_of
from kprune.refitting.ordering.observations import observe
from kprune.refitting.streams.room import MEMORY
from kprune.running.sources import DataSource
from kprune.runtime.keras_import import import_keras
from kprune.runtime.keras_runtime import load
from kprune.types import Progress


@dataclass(eq=False)
class OnData:
    """What a model's consumers are given on data.

    Attributes:
        source: the model file; analysis: of it.
        data: inputs in any form; labels are not needed. None for inputs that are made up.
        memory: bytes; see `observe`.
        seed: of the answers that are drawn for the weighting `fisher`.
    """

    source: Source
    analysis: Analysis
    data: DataSource | None
    memory: int = MEMORY
    seed: int = 0
    progress: Progress | None = None
    _found: dict[str, list[Observation]] = field(default_factory=dict)
    _loaded: tuple[Any, Any] | None = None

    @property
    def samples(self) -> int:
        """How many inputs there are."""
        return len(import_keras().tree.flatten(self._model()[1])[0])

    def observations(self, weighting: str) -> list[Observation]:
        """What the consumers are given, and how much an error of each output counts.

        Raises: CannotPruneError for a model that is not run layer by layer; UsageError or FileError
            for data that do not fit.
        """
        if weighting not in self._found:
            self._found[weighting] = (
                self._relative() if weighting == "relmean" else self._informed()
            )
        return self._found[weighting]

    def _relative(self) -> list[Observation]:
        model, inputs = self._model()
        flat = import_keras().tree.flatten(inputs)
        return observe(model, self.analysis, flat, memory=self.memory, progress=self.progress)

    def _informed(self) -> list[Observation]:
        """The same, with outputs weighted by their Fisher information."""
        model, inputs = self._model()
        plain = self.observations("relmean")
        consumers: Any = [one.consumer for one in plain]
        found = information_of(model, consumers, inputs, seed=self.seed)
        # A recurrent layer, of which nothing is known, counts as much as the others on average.
        usual = float(np.mean([one.whole for one in found.values()])) if found else 1.0
        return [
            replace(one, weights=found[id(one.consumer)].squares)
            if id(one.consumer) in found
            else replace(one, importance=usual)
            for one in plain
        ]

    def _model(self) -> tuple[Any, Any]:
        """The model, and inputs in the structure in which it takes them."""
        if self._loaded is None:
            self.analysis.require("observe layers")
            with TemporaryFolder() as folder:
                model = load(self.source, Path(folder), compiled=True)
            self._loaded = model, repair_inputs(model, self.data).every
        return self._loaded
