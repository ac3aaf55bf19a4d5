"""What is fuzzed: for each kind of input how one is drawn and made, what is run on it, and what is right.

Right is, whatever the input: an exit code of the contract, a message that names the file and is no
traceback, and no file touched unless it was written whole. Of an input that is taken, the output holds
what plain h5py and numpy make of it.
"""

from __future__ import annotations

from tests.hostile.targets.configs import Config, LegacyConfig, Provenance
from tests.hostile.targets.saved_models import Graph, Index, Shard
from tests.hostile.targets.target import KEPT, WHERE, Ended, Target
from tests.hostile.targets.texts import Array, Expression, Indices, Plan, Spec
from tests.hostile.targets.weights import Archive, Legacy, OddWeights, Weights, compared

__all__ = ["KEPT", "TARGETS", "WHERE", "Ended", "Spec", "Target", "compared"]

TARGETS: dict[str, Target] = {
    target.name: target
    for target in (
        Archive(), Weights(), OddWeights(), Config(), Provenance(), Legacy(), LegacyConfig(), Plan(),
        Spec(), Expression(), Indices(), Array(), Graph(), Index(), Shard(),
    )
}  # fmt: skip
"""All kinds, by name."""
