"""Inputs for two models, one of which has fewer tokens: only tokens that both know can be compared.

If the inputs are ids, samples with ids of removed rows are left out, and the pruned model gets the
others with their new ids. If the inputs are tokens, the pruned model treats removed tokens as
unknown: the original is made to do the same, and random inputs are drawn from the vocabulary that
is left.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from kprune.analysis.analysis import Analysis
from kprune.errors import UsageError
from kprune.formats import Source
from kprune.graph.model import Layer, TensorRef, leaves
from kprune.labels.map import TOKENS, TokenSource
from kprune.labels.tokens import special_tokens, tokens_of
from kprune.page.result import Note
from kprune.running.inputs import at
from kprune.runtime.keras_import import import_keras
from kprune.text import clean

WORDS = 8  # of a random text


@dataclass(frozen=True)
class TokenInputs:
    """Converts inputs of the original into inputs of a model with fewer rows of embeddings.

    Attributes:
        analysis: of the original.
        gone: bool (labels,).
    """

    analysis: Analysis
    gone: np.ndarray

    def __bool__(self) -> bool:
        return any(self._sources())

    def _sources(self) -> Iterator[TokenSource]:
        return (source for source in self.analysis.map.token_sources if self.gone[source.ids].any())

    def _id_inputs(self) -> Iterator[tuple[int, np.ndarray]]:
        """For each input of ids its number among the inputs, and which ids are gone: bool (rows,)."""
        refs = [ref for ref in leaves(self.analysis.model.inputs) if isinstance(ref, TensorRef)]
        names = [ref.layer for ref in refs]
        for source in self._sources():
            if not source.lookup and source.layer.path in names:
                yield names.index(source.layer.path), self.gone[source.ids]

    def drawn(self, inputs: Any, source: Source, seed: int) -> Any:
        """Random inputs, with ids that are left and texts of tokens that are left."""
        tree, rng = import_keras().tree, np.random.default_rng(seed)
        arrays = tree.flatten(inputs)
        for number, dead in self._id_inputs():
            left = np.flatnonzero(~dead)
            array = arrays[number]
            arrays[number] = left[np.asarray(array, np.int64) % len(left)].astype(array.dtype)
        for number, lookup in self._text_inputs():
            known = self._words(lookup, source, gone=False)
            if not known:
                continue
            array = arrays[number]
            texts = lookup.layer.kind == "TextVectorization"
            drawn = [
                " ".join(rng.choice(known, WORDS)) if texts else known[rng.integers(len(known))]
                for _ in range(array.size)
            ]
            dtype = object if array.dtype.kind in "OUS" else array.dtype
            arrays[number] = np.array(drawn, dtype).reshape(array.shape)
        return tree.pack_sequence_as(inputs, arrays)

    def _words(self, lookup: TokenSource, source: Source, *, gone: bool) -> list[Any]:
        """The tokens of a vocabulary that are gone, or those that are left; special ones left out."""
        words = tokens_of(lookup.layer, self.analysis.extras, source.extra) or []
        first = len(special_tokens(lookup.layer))
        return [
            word
            for word, label in zip(words[first:], lookup.ids[first:].tolist(), strict=False)
            if bool(self.gone[label]) == gone
        ]

    def _text_inputs(self) -> Iterator[tuple[int, TokenSource]]:
        """The lookups that read an input of the model directly, with the number of that input."""
        refs = [ref for ref in leaves(self.analysis.model.inputs) if isinstance(ref, TensorRef)]
        tensors = [
            self.analysis.map.tensors.get((self.analysis.model.path, *ref.key)) for ref in refs
        ]
        for source in self._sources():
            read = self.analysis.map.record(source.layer).visits[0].inputs if source.lookup else []
            found = [n for n, labels in enumerate(tensors) if read and labels is read[0]]
            if found:
                yield found[0], source

    def comparable(self, inputs: Any, targets: Any, source: Source) -> tuple[Any, Any, list[Note]]:
        """The samples of which the pruned model knows all ids.

        Raises: UsageError if there is none.
        """
        arrays = import_keras().tree.flatten(inputs)
        knows = np.ones(len(arrays[0]), bool)
        for number, dead in self._id_inputs():
            ids = np.asarray(arrays[number], np.int64)
            hit = (ids >= 0) & (ids < len(dead)) & dead[np.clip(ids, 0, len(dead) - 1)]
            knows &= ~hit.reshape(len(ids), -1).any(axis=1)
        for number, lookup in self._text_inputs():
            if not unknown_ids(lookup.layer):  # Keras refuses what such a layer does not know
                array = np.asarray(arrays[number])
                lost = self._words(lookup, source, gone=True)
                hit = np.isin(array.astype(str), [str(word) for word in lost])
                knows &= ~hit.reshape(len(array), -1).any(axis=1)
        if knows.all():
            return inputs, targets, []
        if not knows.any():
            raise UsageError(
                "every sample has a token that was removed",
                do="give data of tokens that are left",
            )
        count = int((~knows).sum())
        note = Note("tokens", "", f"{count:,} samples with removed tokens are left out")
        chosen = np.flatnonzero(knows)
        return at(inputs, chosen), at(targets, chosen), [note]

    def renumbered(self, inputs: Any) -> Any:
        """The inputs for the pruned model: with the new ids."""
        tree = import_keras().tree
        arrays = tree.flatten(inputs)
        for number, dead in self._id_inputs():
            new = np.cumsum(~dead) - 1
            array = np.asarray(arrays[number])
            ids = np.clip(array.astype(np.int64), 0, len(new) - 1)
            arrays[number] = new[ids].astype(array.dtype)
        return tree.pack_sequence_as(inputs, arrays)

    def forget(self, model: Any, *, drawn: bool) -> list[Note]:
        """Have the original treat removed tokens as unknown: their rows become the row of the unknown token.

        Args:
            drawn: whether inputs are drawn from what is left.
        Returns: a note where there are several rows for what is unknown, of which one is taken.
        """
        from kprune.runtime.keras_runtime import keras_layer

        notes = []
        for source in self._sources():
            unknown = unknown_ids(source.layer) if source.lookup else []
            if not unknown:
                continue
            for axis in self.analysis.map.axes.values():
                of = self.analysis.groups.of
                if axis.name == TOKENS and of[axis.ids[-1]] == of[source.ids[-1]]:
                    table = keras_layer(model, axis.layer.path).embeddings
                    values = import_keras().ops.convert_to_numpy(table).copy()
                    values[self.gone[axis.ids]] = values[unknown[0]]
                    table.assign(values)
            if len(unknown) > 1 and not drawn:
                path = source.layer.path
                text = f"'{clean(path)}' has {len(unknown)} places for unknown tokens, and any may be taken"
                notes.append(Note("inexact", path, text))
        return notes


def unknown_ids(layer: Layer) -> list[int]:
    """The ids that a lookup layer gives for tokens that it does not know."""
    if layer.kind == "TextVectorization":
        return [1]
    start = 0 if layer.config.get("mask_token") is None else 1
    return list(range(start, start + int(layer.config.get("num_oov_indices", 1))))
