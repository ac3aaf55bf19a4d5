"""The new ids of tokens: a table beside the result, and notes for its reader."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from msgspec import Struct

from kprune.analysis.analysis import Analysis
from kprune.labels.map import TOKENS
from kprune.page.result import Note
from kprune.surgery.provenance import left_units
from kprune.text import clean


def token_notes(analysis: Analysis, gone: np.ndarray) -> Iterator[Note]:
    """What callers of a model have to do, or know, after rows of embeddings were removed.

    Args:
        gone: bool (labels,).
    """
    for source in analysis.map.token_sources:
        size = source.layer.config.get("vocabulary_size") if source.lookup else None
        count = int(gone[source.ids[:size]].sum())  # rows behind the vocabulary belong to no token
        if not count:
            continue
        path = source.layer.path
        entries = f"{count:,} entr{'y' if count == 1 else 'ies'} of its vocabulary"
        if not source.lookup:
            text = (
                f"'{clean(path)}' takes token ids, which are others now: callers have to renumber them, "
                "and to leave out those that are gone"
            )
        elif source.layer.config.get("num_oov_indices", 1) == 0:
            text = f"'{clean(path)}' lost {entries}, and refuses these tokens from now on"
        else:
            text = f"'{clean(path)}' lost {entries}: these tokens are unknown now"
        yield Note("tokens", path, text)


class TokenIds(Struct, frozen=True, eq=False):
    """The token ids that callers use before a change.

    Attributes:
        metadata: metadata.json of the model that they are made for.
        rows: how many rows its embeddings have, by the address of the rows.
    """

    metadata: Mapping[str, Any]
    rows: Mapping[str, int]

    @classmethod
    def changed_by(cls, analysis: Analysis, gone: np.ndarray) -> TokenIds | None:
        """The ids of a model, if any are others once some labels are gone.

        Args:
            gone: bool (labels,).
        """
        rows = {address: axis for address, axis in analysis.map.axes.items() if axis.name == TOKENS}
        if not any(gone[axis.ids].any() for axis in rows.values()):
            return None
        return cls(analysis.metadata, {address: len(axis) for address, axis in rows.items()})

    def table(self, after: Mapping[str, Any]) -> str:
        """The new id of each old one, null for one that is gone, by embedding; as JSON.

        {"emb": {"before": 4, "after": 3, "new_ids": [0, null, 1, 2]}}

        Args:
            after: metadata.json of the result.
        """
        earlier, found = left_units(self.metadata), {}
        for address, left in left_units(after).items():
            if address not in self.rows or earlier.get(address) == left:
                continue
            old = earlier.get(address, range(self.rows[address]))
            places = {id_: new for new, id_ in enumerate(left)}
            found[address.removesuffix(f".{TOKENS}")] = {
                "before": len(old),
                "after": len(left),
                "new_ids": [places.get(id_) for id_ in old],
            }
        return json.dumps(found) + "\n"
