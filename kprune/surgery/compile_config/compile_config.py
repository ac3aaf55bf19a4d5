"""The compile settings after classes were removed: losses and metrics count those that are left.

It stands in the config (`compile_config`), in that of each nested model that was compiled itself, and
in a legacy `.h5` beside it (`training_config`). What cannot be translated is
left out: a metric by itself; a loss with all that `compile` set, so that the model is loaded
uncompiled. Keras would report other classes' figures else, or fail.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import numpy as np
from msgspec import Struct, field

from kprune.analysis.analysis import Analysis
from kprune.graph.dialects import is_keras_2
from kprune.graph.model import Model, TensorRef, leaves
from kprune.graph.weight_groups import GROUPS
from kprune.labels.labels import Labels
from kprune.surgery.compile_config.class_fields import (
    CannotFollow,
    ClassesLeft,
    follow,
    kind_of,
    name_of,
)
from kprune.text import clean

CONFIG, TRAINING = "compile_config", "training_config"
STATE_OF_METRICS = "metrics"  # in a `.keras` file of Keras 2


class Recompiled(Struct):
    """What becomes of all that `compile` set.

    Attributes:
        specs: pairs (dict of the old config that holds a `compile_config`, the new one or None).
        training: a legacy `.h5`'s `training_config`; None if it goes.
        dropped: path prefixes of tensors that have to be left behind.
        remarks: pairs (path of the model, "" for the whole; what a reader should know).
    """

    specs: list[tuple[dict[str, Any], dict[str, Any] | None]] = field(default_factory=list)
    training: dict[str, Any] | None = None
    dropped: tuple[str, ...] = ()
    remarks: list[tuple[str, str]] = field(default_factory=list)

    def metadata(self, before: Mapping[str, Any]) -> dict[str, Any]:
        """A file's metadata with what became of its `training_config`."""
        rest = {key: value for key, value in before.items() if key != TRAINING}
        return rest if self.training is None else {**rest, TRAINING: self.training}


def recompiled(analysis: Analysis, gone: np.ndarray) -> Recompiled:
    """What becomes of all that `compile` set.

    Args:
        gone: bool (labels,): what is physically removed.
    """
    trained = analysis.metadata.get(TRAINING)
    found = Recompiled(training=trained if isinstance(trained, dict) else None)
    old = is_keras_2(analysis.metadata)
    for model in _models(analysis):
        compiled = model.spec.get(CONFIG)
        whole = model is analysis.model
        if not isinstance(compiled, dict) or not compiled:
            compiled = None
        if compiled is None and not (whole and found.training):
            continue
        outputs = _outputs(analysis, model, gone)
        if not any(output.lost for output in outputs):
            continue
        if compiled is not None:
            new = _followed(found, model, compiled, outputs, old=old, plain=False)
            found.specs.append((model.spec, new))
        if whole and found.training:
            found.training = _followed(found, model, found.training, outputs, old=old, plain=True)
    return found


def ignored_labels(analysis: Analysis) -> list[set[int]]:
    """For each output of the model the numbers that its losses and metrics ignore (`ignore_class`)."""
    outputs = _outputs(analysis, analysis.model, np.zeros(analysis.map.count, bool))
    found: list[set[int]] = [set() for _ in outputs]

    def look(item: Any, number: int) -> Any:
        config = item.get("config") if isinstance(item, dict) else None
        ignored = config.get("ignore_class") if isinstance(config, dict) else None
        if isinstance(ignored, int):
            found[number].add(ignored)
        return item

    for compiled in (analysis.config.get(CONFIG), analysis.metadata.get(TRAINING)):
        if isinstance(compiled, dict):
            old = is_keras_2(analysis.metadata)
            _Following(outputs, old, plain=False).visit(compiled, look, look)
    return found


def _followed(
    found: Recompiled,
    model: Model,
    compiled: dict[str, Any],
    outputs: list[Output],
    *,
    old: bool,
    plain: bool,
) -> dict[str, Any] | None:
    """What `compile` set for one model; adds remarks, and what has to be left behind."""
    work = _Following(outputs, old, plain)
    whole = not model.path
    try:
        new: dict[str, Any] | None = work.run(compiled)
    except CannotFollow as reason:
        new = None
        work.remarks = [
            f"all that compile() set is left out, as the loss {reason}: the model loads uncompiled"
        ]
        found.dropped += GROUPS if whole else ()
    if new != compiled and whole:
        found.dropped += (STATE_OF_METRICS,)
    found.remarks += [(model.path.rstrip("/"), text) for text in dict.fromkeys(work.remarks)]
    return new


def _models(analysis: Analysis) -> Iterator[Model]:
    """The model and all models inside it; one that stands in several places once."""
    yield analysis.model
    for record in analysis.map.records.values():
        if record.layer.model is not None:
            yield record.layer.model


class Output(Struct):
    """One output of a model.

    Attributes:
        names: by which losses and metrics are given for it.
        along: what is left along an axis, counted from the end.
    """

    names: list[str]
    labels: Labels | None
    gone: np.ndarray

    @property
    def lost(self) -> bool:
        """Whether it has lost anything."""
        rank = 0 if self.labels is None or self.labels.shape is None else self.labels.rank
        return any(self.along(axis) is not None for axis in range(-rank, 0))

    def along(self, axis: int) -> ClassesLeft | None:
        if self.labels is None or self.labels.shape is None:
            return None
        rank = self.labels.rank
        if not -rank <= axis < rank:
            return None
        dead = self.labels.axis(axis % rank).dead(self.gone)
        return ClassesLeft(np.flatnonzero(~dead), len(dead)) if dead.any() else None


def _outputs(analysis: Analysis, model: Model, gone: np.ndarray) -> list[Output]:
    refs = [ref for ref in leaves(model.outputs) if isinstance(ref, TensorRef)]
    keys = sorted(model.outputs) if isinstance(model.outputs, dict) else []
    counts: dict[str, int] = {}
    found = []
    for number, ref in enumerate(refs):
        times = counts.get(ref.layer, 0)
        counts[ref.layer] = times + 1
        # Keras 2 counts an output layer that stands there again.
        names = [ref.layer] if not times else [f"{ref.layer}_{times}"]
        if len(keys) == len(refs):
            names.insert(0, keys[number])
        labels = analysis.map.tensors.get((model.path, *ref.key))
        found.append(Output(names, labels, gone))
    return found


Leaf = Callable[[Any, int], Any]
"""Takes a loss or metric and the number of its output, gives what stands in its place."""


class _Following:
    """Carries classes through the structure of losses and metrics that `compile` was given."""

    def __init__(self, outputs: list[Output], old: bool, plain: bool) -> None:
        self.outputs, self.old, self.plain = outputs, old, plain
        self.remarks: list[str] = []
        self.losses: list[Any] = [None] * len(outputs)

    def run(self, compiled: dict[str, Any]) -> dict[str, Any]:
        """Raises: CannotFollow for a loss."""
        new = self.visit(compiled, self._loss, self._metric)
        self._remark_on_one_class()
        return new

    def visit(self, compiled: dict[str, Any], loss: Leaf, metric: Leaf) -> dict[str, Any]:
        """What `compile` was given, with what functions make of each loss and metric of each output."""
        new = dict(compiled)
        if compiled.get("loss"):
            new["loss"] = self._structure(compiled["loss"], loss, self._one_each)
        for name in ("metrics", "weighted_metrics"):
            if compiled.get(name):
                new[name] = self._structure(compiled[name], metric, self._metrics_each)
        return new

    def _structure(self, value: Any, leaf: Leaf, is_each: Callable[[Any], bool]) -> Any:
        """What `compile` was given, for all outputs: one for all, or by their order or names."""
        every = range(len(self.outputs))
        if len(self.outputs) == 1:
            return self._part(value, leaf, 0)
        if isinstance(value, dict) and not _is_leaf(value):
            return {key: self._of(key, item, leaf) for key, item in value.items()}
        if isinstance(value, list) and is_each(value):
            return [self._part(item, leaf, n) for n, item in enumerate(value)]
        parts = [self._part(value, leaf, n) for n in every]
        if all(part == parts[0] for part in parts):
            return parts[0]
        names = [output.names[0] for output in self.outputs]
        return dict(zip(names, parts, strict=True)) if len({*names}) == len(names) else parts

    def _of(self, key: str, item: Any, leaf: Leaf) -> Any:
        for number, output in enumerate(self.outputs):
            if key in output.names:
                return self._part(item, leaf, number)
        return item

    def _part(self, value: Any, leaf: Leaf, number: int) -> Any:
        """What is given for one output: one or several, in lists or by names."""
        if _is_leaf(value):
            return leaf(value, number)
        if isinstance(value, dict):
            return {key: self._part(item, leaf, number) for key, item in value.items()}
        parts = [self._part(item, leaf, number) for item in value]
        kept = [
            part
            for part, item in zip(parts, value, strict=True)
            if part is not None or item is None
        ]
        return kept or ([None] if self.old and value else kept)

    def _one_each(self, value: list[Any]) -> bool:
        return len(value) == len(self.outputs)

    def _metrics_each(self, value: list[Any]) -> bool:
        """Whether a list has an entry for each output. A flat one is for every output in Keras 2."""
        flat = all(_is_leaf(item) and item is not None for item in value)
        return len(value) == len(self.outputs) and not (self.old and flat)

    def _loss(self, item: Any, number: int) -> Any:
        if item is None:
            return None
        self.losses[number] = item
        try:
            return self._followed(item, number, "loss", kind_of(item))
        except CannotFollow as reason:
            raise CannotFollow(f"'{clean(name_of(item))}' {reason}") from None

    def _metric(self, item: Any, number: int) -> Any:
        if item is None:
            return None
        try:
            return self._followed(item, number, "metric", kind_of(self.losses[number]))
        except CannotFollow as reason:
            name = clean(name_of(item))
            self.remarks.append(
                f"the metric '{name}' is left out of what compile() set: it {reason}"
            )
            return None

    def _followed(self, item: Any, number: int, role: str, loss_kind: str) -> Any:
        output = self.outputs[number]
        if not output.lost:
            return item
        found = follow(item, output.along, loss_kind=loss_kind, plain=self.plain)
        called = f"the {role} '{clean(name_of(item))}'"
        if found.changed and not found.remarks:
            self.remarks.append(f"{called} counts the classes that are left ({_listed(found)})")
        self.remarks += [f"{called} {remark}" for remark in found.remarks]
        return found.item

    def _remark_on_one_class(self) -> None:
        for loss, output in zip(self.losses, self.outputs, strict=True):
            left = output.along(-1)
            kind = kind_of(loss)
            if left is not None and left.count == 1 and "categorical" in kind and "cross" in kind:
                self.remarks.append(
                    f"the loss '{clean(name_of(loss))}' is 0 over one class, whatever the model gives"
                )


def _listed(found: Any) -> str:
    return ", ".join(name for name in found.changed)


def _is_leaf(value: Any) -> bool:
    """Whether it is one loss or metric: by name, or a dict with its class."""
    return not isinstance(value, (dict, list)) or (
        isinstance(value, dict) and "class_name" in value
    )


def texts(found: Recompiled) -> Iterable[tuple[str, str]]:
    """The remarks, for models inside the model with the name of theirs."""
    for path, text in found.remarks:
        yield path, (f"in '{clean(path)}', {text}" if path else text)
