"""Rows of embeddings: which tensors hold token ids, where these come from, and what else reads them.

Token ids are values, not positions, so labels do not travel with them: after a trace they are followed
from call to call. Removing rows renumbers the ids behind them, in every tensor that comes from the
same source. So all embeddings that read a source lose the same rows (they are tied), the vocabulary in
front of them loses the same entries, and where anything else reads the ids, or where they come from
is unknown, the rows stay.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from typing import Any

import numpy as np
from msgspec import Struct

from kprune.graph.model import Layer, leaves
from kprune.labels.labels import Labels, require_room
from kprune.labels.map import TOKENS, Freeze, LabelMap, Lookup, TokenSource, Visit

WHY = "are rows for tokens, and the ids behind them would be others"
STAYS = "choose other rows"
ALL_STAY = "leave the rows of this embedding as they are; its units (the columns) may go"
LOOKUPS = frozenset({"IntegerLookup", "StringLookup", "TextVectorization"})
# They hand ids on as they are: layers, and operations of keras.ops.
PASSING = frozenset(
    "Concatenate Flatten Identity Permute RepeatVector Reshape "
    "BroadcastTo Cast Copy ExpandDims Flip GetItem Moveaxis Ravel Repeat Roll Split Squeeze Stack Swapaxes Tile "
    "Transpose".split()
)
COMPARING = frozenset({"Equal", "NotEqual", "Greater", "GreaterEqual", "Less", "LessEqual"})
MOST_COMPARED = 16
"""Comparisons hold all ids up to the constant in place: with a larger one, hardly any could go.

Ids above it stay above it, as those that are left keep their order.
"""
UNREAD = frozenset({"OnesLike", "Shape", "ZerosLike"})
"""They look at the shape of ids alone."""
_FUNCTIONS = {
    "cast": "Cast", "identity": "Copy", "stop_gradient": "Copy", "concat": "Concatenate",
    "stack": "Stack", "split": "Split", "unstack": "Split", "reshape": "Reshape", "tile": "Tile",
    "transpose": "Transpose", "expand_dims": "ExpandDims", "squeeze": "Squeeze", "reverse": "Flip",
    "roll": "Roll", "repeat": "Repeat", "broadcast_to": "BroadcastTo", "slice": "GetItem",
    "strided_slice": "GetItem", "__operators__.getitem": "GetItem", "math.equal": "Equal",
    "math.not_equal": "NotEqual", "math.greater": "Greater", "math.greater_equal": "GreaterEqual",
    "math.less": "Less", "math.less_equal": "LessEqual", "greater": "Greater", "less": "Less",
    "greater_equal": "GreaterEqual", "less_equal": "LessEqual", "shape": "Shape",
    "zeros_like": "ZerosLike", "ones_like": "OnesLike",
}  # fmt: skip
"""TensorFlow functions in Keras 2's graphs, by what they do to ids."""


def _kind(layer: Layer) -> str:
    """What a layer does to ids: its class, or the like of its function."""
    if layer.kind not in ("TFOpLambda", "SlicingOpLambda"):
        return layer.kind
    name = str(layer.config.get("function", "__operators__.getitem"))
    return _FUNCTIONS.get(name.removeprefix("compat.v1."), layer.kind)


class Vocabulary(Struct, frozen=True, eq=False):
    """What a lookup layer says of its vocabulary.

    Attributes:
        entries: those in its config, without special tokens; None if they are in files.
        special: how many special tokens stand in front: a mask, and those out of vocabulary.
        files: where it is instead, a special token a line in front; every file has all of it.
    """

    entries: tuple[Any, ...] | None
    special: tuple[Any, ...]
    files: tuple[str, ...]

    @classmethod
    def of(cls, layer: Layer, files: Collection[str]) -> Vocabulary | str:
        """What a layer and the file around it say, or why that cannot be told.

        Args:
            files: names of the further files that the model file carries.
        """
        config = layer.config
        if config.get("invert") or config.get("output_mode", "int") != "int":
            return "gives no token ids"
        special = special_tokens(layer)
        listed = config.get("vocabulary")
        if isinstance(listed, str):
            return "has its vocabulary in a file that the model does not carry"
        if isinstance(listed, (list, tuple)):
            own = tuple(listed)
            if special and own[: len(special)] == special:
                own = own[len(special) :]
            return cls(own, special, ())
        found = tuple(
            name
            for place in ("", "/_lookup_layer")
            if (name := f"assets/{layer.store}{place}/vocabulary.txt") in files
        )
        return cls(None, special, found) if found else "has a vocabulary that is not in the file"


def special_tokens(layer: Layer) -> tuple[Any, ...]:
    """What stands in front of a lookup layer's vocabulary: the mask, and what is out of vocabulary."""
    config = layer.config
    if layer.kind == "TextVectorization":
        return ("", "[UNK]")
    mask = config.get("mask_token")
    unknown = config.get("oov_token", "[UNK]" if layer.kind == "StringLookup" else -1)
    require_room(int(config.get("num_oov_indices", 1)))
    return (
        *([] if mask is None else [mask]),
        *[unknown] * int(config.get("num_oov_indices", 1)),
    )


def tokens_of(
    layer: Layer, files: Collection[str], read: Callable[[str], bytes]
) -> list[Any] | None:
    """The token of each id, special ones included; None if the file does not say.

    Args:
        files, read: names of the further files that the model file carries, and what reads one.
    """
    found = Vocabulary.of(layer, files)
    if isinstance(found, str):
        return None
    if found.entries is not None:
        return [*found.special, *found.entries]
    lines = read(found.files[0]).decode("utf-8", "replace").splitlines()
    if layer.kind != "IntegerLookup":
        return list(lines)
    return [int(line) if line.lstrip("-").isdigit() else line for line in lines]


def settle_tokens(label_map: LabelMap, files: Collection[str] = ()) -> None:
    """Tie the rows of embeddings that read the same ids, and hold those that cannot go.

    Args:
        label_map: what tracing found; `lookups` are the calls that look up ids.
        files: names of the further files that the model file carries (vocabularies).
    """
    for axis in label_map.axes.values():
        if axis.name == TOKENS:
            label_map.freezes.append(Freeze(TOKENS, axis.ids, WHY, axis.layer.path))
    _hold_rows_inside(label_map)
    lookups = label_map.lookups
    if not lookups:
        return
    flow = _Flow(label_map)
    sources: dict[Layer, list[Lookup]] = {}
    for lookup in lookups:
        found, why = flow.sources(lookup.tokens)
        if why:
            _hold(label_map, [lookup], why)
        for layer in found:
            sources.setdefault(layer, []).append(lookup)
    for layer, readers in sources.items():
        _settle_source(label_map, flow, layer, readers, files)
    _hold_different_vocabularies(label_map, files)


def _hold_rows_inside(label_map: LabelMap) -> None:
    """Hold the rows of embeddings inside layers whose code was traced: ids are not followed to there."""
    for call in label_map.traced_calls:
        for part in call.map.whole():
            for axis in part.axes.values():
                if axis.name == TOKENS:
                    label_map.freeze(axis.ids, WHY, call.record.layer.path, ALL_STAY)


def _settle_source(
    label_map: LabelMap,
    flow: _Flow,
    layer: Layer,
    readers: list[Lookup],
    files: Collection[str],
) -> None:
    """One layer that ids come from: an input, or a lookup."""
    first, *others = readers
    ids = first.axis.ids
    for other in others:
        if len(other.axis) != len(ids):
            _hold(label_map, readers, f"read {layer.path!r}, as embeddings of other sizes do")
        elif other.axis is not first.axis:
            label_map.tie(ids, other.axis.ids, layer.path)
    why, compared = flow.other_readers(layer, [lookup.layer for lookup in readers])
    if why:
        _hold(label_map, readers, why)
    if compared is not None:
        label_map.freeze(
            ids[: compared + 1], f"are compared with the token id {compared}", layer.path, STAYS
        )
    if layer.kind in LOOKUPS:
        vocabulary = Vocabulary.of(layer, files)
        if isinstance(vocabulary, str):
            _hold(label_map, readers, f"are looked up by {layer.path!r}, which {vocabulary}")
        else:
            label_map.freeze(
                ids[: len(vocabulary.special)],
                f"stand for what {layer.path!r} does not know, or masks",
                layer.path,
                STAYS,
            )
            size = len(vocabulary.special) + len(vocabulary.entries or ())
            if size > len(ids):
                _hold(label_map, readers, f"are fewer than {layer.path!r} has entries")
    label_map.token_sources.append(TokenSource(layer, ids, layer.kind in LOOKUPS))


def _hold(label_map: LabelMap, lookups: Iterable[Lookup], why: str) -> None:
    for lookup in lookups:
        label_map.freeze(lookup.axis.ids, why, lookup.layer.path, ALL_STAY)


def _hold_different_vocabularies(label_map: LabelMap, files: Collection[str]) -> None:
    """An embedding behind two lookups loses the same ids of both: these have to be the same tokens."""
    by_rows: dict[int, list[TokenSource]] = {}
    for source in label_map.token_sources:
        if source.lookup:
            by_rows.setdefault(int(source.ids[0]), []).append(source)
    for sources in by_rows.values():
        known = [Vocabulary.of(source.layer, files) for source in sources]
        same = {(it.entries, it.special) if isinstance(it, Vocabulary) else None for it in known}
        in_files = any(isinstance(it, Vocabulary) and it.entries is None for it in known)
        if len(sources) > 1 and (len(same) > 1 or in_files):
            names = ", ".join(repr(source.layer.path) for source in sources)
            for source in sources:
                label_map.freeze(
                    source.ids,
                    f"are looked up by several vocabularies ({names})",
                    source.layer.path,
                    ALL_STAY,
                )


class _Flow:
    """The calls of a traced model, by the tensors that they read and give."""

    def __init__(self, label_map: LabelMap) -> None:
        self._map = label_map
        self._producers: dict[int, Visit] = {}
        for visit in label_map.visits:
            read = {id(labels) for labels in visit.inputs}
            for labels in visit.outputs:
                if id(labels) not in read:
                    self._producers.setdefault(id(labels), visit)

    def sources(self, tokens: Labels) -> tuple[list[Layer], str]:
        """The layers that a tensor of ids comes from; and why that cannot be told, if so."""
        found: dict[Layer, None] = {}
        todo, seen = [tokens], set[int]()
        while todo:
            labels = todo.pop()
            if id(labels) in seen:
                continue
            seen.add(id(labels))
            visit = self._producers.get(id(labels))
            if visit is None:
                return list(found), "are read by a layer inside another, or from a constant"
            if visit.layer.kind == "InputLayer" or visit.layer.kind in LOOKUPS:
                found[visit.layer] = None
            elif _kind(visit.layer) in PASSING and visit.inputs:
                todo += visit.inputs
            else:
                return list(found), f"are told by {visit.layer.path!r}, which computes ids"
        return list(found), ""

    def other_readers(self, source: Layer, embeddings: list[Layer]) -> tuple[str, int | None]:
        """Why ids of a source cannot be renumbered, if so; and the largest constant they are compared with."""
        ids = {
            id(labels)
            for visit in self._map.visits
            if visit.layer is source
            for labels in visit.outputs
        }
        compared: int | None = None
        for visit in self._map.visits:
            if visit.layer is source or not any(id(labels) in ids for labels in visit.inputs):
                continue
            kind = _kind(visit.layer)
            if kind in UNREAD:
                continue
            if kind in PASSING:
                ids.update(id(labels) for labels in visit.outputs)
            elif kind in COMPARING and (constant := self._constant(visit.layer)) is not None:
                compared = max(constant, compared or 0)
            elif visit.of_model:
                if any(labels.shape is None for labels in visit.inputs):
                    return f"are read by {visit.layer.path!r} from a tensor of unknown shape", None
            elif visit.layer not in embeddings:
                return f"are read by {visit.layer.path!r} too, which takes ids for numbers", None
        if any(id(labels) in ids for labels in self._given()):
            return "are given as they are by the model, or by one inside it", None
        return "", compared

    def _constant(self, layer: Layer) -> int | None:
        """The small constant that a comparison is made with, if it is one."""
        record = self._map.record(layer)
        if record.args is None or len(record.visits) != 1:
            return None
        args, kwargs = record.args
        others = [
            leaf for leaf in leaves([args, kwargs]) if not isinstance(leaf, (Labels, type(None)))
        ]
        numbers = [leaf for leaf in others if type(leaf) in (int, float)]
        if len(numbers) != 1 or len(others) != 1 or not 0 <= numbers[0] < MOST_COMPARED:
            return None
        return int(numbers[0])

    def _given(self) -> list[Labels]:
        """The outputs of the model, and of the models inside it."""
        inner = [layer.model for layer in self._map.model.walk() if layer.model is not None]
        found = []
        for model in (self._map.model, *inner):
            for ref in leaves(model.outputs):
                labels = self._map.tensors.get((model.path, *ref.key)) if ref is not None else None
                if labels is not None:
                    found.append(labels)
        return found


def entries_left(source: TokenSource, gone: np.ndarray) -> list[Any]:
    """What is left of the vocabulary in a layer's config, special tokens included where it lists them."""
    listed = source.layer.config["vocabulary"]
    special = special_tokens(source.layer)
    offset = 0 if special and tuple(listed[: len(special)]) == special else len(special)
    return [
        entry
        for entry, label in zip(listed, source.ids[offset:].tolist(), strict=False)
        if not gone[label]
    ]


def lines_gone(
    sources: Iterable[TokenSource], files: Collection[str], gone: np.ndarray
) -> Mapping[str, np.ndarray]:
    """Which lines go of the files of vocabularies: by name, sorted int64."""
    found = {}
    for source in sources:
        vocabulary = Vocabulary.of(source.layer, files) if source.lookup else ""
        if isinstance(vocabulary, Vocabulary) and gone[source.ids].any():
            for name in vocabulary.files:
                found[name] = np.flatnonzero(gone[source.ids])
    return found
