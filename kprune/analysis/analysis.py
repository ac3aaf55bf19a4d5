"""A model file with everything kprune knows of it: what every command starts from."""

from __future__ import annotations

import importlib
from collections.abc import Collection, Mapping
from functools import cached_property
from types import ModuleType
from typing import Any, ClassVar, Protocol

import numpy as np
from msgspec import Struct, field

from kprune.analysis.by_order import bind
from kprune.analysis.by_path import find_private
from kprune.dtypes import is_number
from kprune.errors import Cannot, DamagedFileError
from kprune.formats.source import Order
from kprune.graph import Layer, Model, parse_model
from kprune.graph.dialects import is_keras_2
from kprune.graph.model import TensorRef, leaves
from kprune.graph.parse import holds_graph, no_graph
from kprune.graph.weight_groups import is_old, settle_stores
from kprune.labels.groups import Groups
from kprune.labels.labels import Labels
from kprune.labels.map import LabelMap, LayerRecord, Weight
from kprune.labels.tokens import settle_tokens
from kprune.rules import builtin
from kprune.text import clean
from kprune.tracing.registry import package_name
from kprune.tracing.trace import trace
from kprune.tracing.unknown_shapes import stored_kernels


class RebuildCheck(Protocol):
    """Holds choices of units against what Keras makes of the model's own layers."""

    def require(self, gone: np.ndarray) -> None:
        """Raises: CannotPruneError if a layer would not come out as the rest of the model needs it."""


def _of_other_types(dtype: np.dtype) -> str:
    return f"{'texts' if dtype.kind == 'S' else 'values'} of {dtype.itemsize} bytes"


class Stored(Protocol):
    """What is needed to know of a stored tensor."""

    @property
    def shape(self) -> tuple[int, ...]: ...


class Analysis(Struct, eq=False, dict=True):
    """The graph of a model, its labels and groups, and the tensors that belong to them.

    Attributes:
        config, metadata: the file's own, never modified.
        tensors: what is stored, by dataset path.
        map: what tracing found; `groups` are its ties, solved.
        order: which tensors are whose, in a format that says so by order (a legacy `.h5`).
        homes: in such a format, for each dataset of a layer the path it would have in a `.keras` file.
        rebuild_check: what Keras makes of custom layers, where their own code was traced.
        extras: names of what else the file carries, vocabularies among them.
        layered: whether its layers have configs of their own, as Keras's have.
        cannot: tasks that such a model does not support, and the error for each.
        masking: the module that masks it.
    """

    config: dict[str, Any]
    metadata: dict[str, Any]
    tensors: Mapping[str, Stored]
    model: Model
    map: LabelMap
    groups: Groups
    order: Order | None = None
    homes: Mapping[str, str] = field(default_factory=dict)
    rebuild_check: RebuildCheck | None = None
    extras: Collection[str] = ()
    layered: ClassVar[bool] = True
    cannot: ClassVar[Mapping[str, Cannot]] = {}
    masking: ClassVar[str] = "kprune.surgery.mask"

    @classmethod
    def of(
        cls,
        config: dict[str, Any],
        metadata: dict[str, Any],
        tensors: Mapping[str, Stored],
        rules: Any = None,
        order: Order | None = None,
        extras: Collection[str] = (),
    ) -> Analysis:
        """Analyse a model.

        Args:
            config, metadata, tensors, order, extras: of an opened `Source`.
            rules: a `kprune.rules.Rules`; by default those that come with kprune.
        Raises:
            DamagedFileError: the config describes no model, or its weights are not those in the file.
            CannotPruneError: the config holds no graph (a subclassed model).
        """
        if not holds_graph(config):
            raise no_graph(config, traceable=order is None and not is_keras_2(metadata))
        model = parse_model(config)
        if order is None and is_old(tensors):
            settle_stores(model, tensors)
        rules = builtin() if rules is None else rules

        kernels = stored_kernels(tensors, None if order is None else order.layers)

        def traced(rules: Any) -> Analysis:
            label_map = trace(model, rules, kernels)
            homes: Mapping[str, str] = {}
            if order is not None:
                homes = bind(label_map, order.layers, tensors)
            else:
                find_private(label_map, tensors)
            settle_tokens(label_map, extras)
            groups = Groups.solve(label_map)
            return cls(
                config, metadata, tensors, model, label_map, groups, order, homes, extras=extras
            )

        found = traced(rules)
        unfit = found.unfit(rules)
        if unfit:
            found = traced(rules.without(unfit))
        found.check_weights()
        return found

    def require(self, task: str) -> None:
        """Raises: CannotPruneError if such a model cannot be put to a task."""
        if task in self.cannot:
            raise self.cannot[task].error()

    @property
    def masks(self) -> ModuleType:
        """What masks such a model: by layers in a config, or by operations in a graph."""
        return importlib.import_module(self.masking)

    def tensors_of(self, ends: Any) -> list[tuple[TensorRef, Labels]]:
        """The tensors in the structure of the model's inputs or outputs, each with its labels."""
        refs = (leaf for leaf in leaves(ends) if isinstance(leaf, TensorRef))
        known = self.map.tensors
        return [(ref, known.get((self.model.path, *ref.key), Labels(None))) for ref in refs]

    def unfit(self, rules: Any) -> set[str]:
        """Layers of packages, as `package>Class`, that another release built than the one kprune knows."""
        return {
            package_name(weight.layer)
            for weight in self.weights
            if rules.from_package(weight.layer) and not self._fits(weight)
        }

    def _fits(self, weight: Weight) -> bool:
        stored = self.tensors.get(weight.path)
        return (
            stored is not None
            and len(stored.shape) == len(weight.shape)
            and all(
                want in (None, have) for want, have in zip(weight.shape, stored.shape, strict=True)
            )
        )

    @cached_property
    def variables(self) -> list[Weight]:
        """Every weight that a rule declared, in the optimizer's order; `merged` ones among them."""
        return self.map.weights()

    @cached_property
    def weights(self) -> list[Weight]:
        """Those that the file holds."""
        return [weight for weight in self.variables if self.is_stored(weight)]

    @cached_property
    def unstored(self) -> list[Weight]:
        """Those that the file holds within others, and that Keras makes anew: adapters of LoRA."""
        return [weight for weight in self.variables if not self.is_stored(weight)]

    def is_stored(self, weight: Weight) -> bool:
        """Whether a weight is in the file by itself, as nearly all are."""
        return not weight.merged or weight.path in self.tensors

    def adapted(self, record: LayerRecord) -> bool:
        """Whether the file holds adapters beside the layer's kernel, which says less without them."""
        return any(weight.merged and self.is_stored(weight) for weight in record.weights.values())

    def home(self, path: str) -> str:
        """The path of a dataset as a `.keras` file has it: below the store of its layer."""
        return self.homes.get(path, path)

    def check_weights(self) -> None:
        """Compare every weight that a rule declared with the file.

        Tensors are found by the order in which Keras counts layers, not by name: if that went wrong
        it would show here, unless shapes happen to agree, so every weight is checked, cut or not.
        """
        for weight in self.weights:
            stored = self.tensors.get(weight.path)
            name = f"{weight.name} of '{clean(weight.layer.path)}'"
            loads = "check that the file loads in Keras"
            if self._fits(weight):
                dtype = np.dtype(getattr(stored, "dtype", np.float32))
                if is_number(dtype):
                    continue
                raise DamagedFileError(
                    f"the {name} holds {_of_other_types(dtype)} in the file, and no numbers",
                    where=weight.path,
                    do=loads,
                )
            if not weight.layer.is_builtin and self.map.record(weight.layer).answer != "traced":
                kind = clean(weight.layer.registered or weight.layer.kind)
                loads = f"correct the rule for {kind}, or {loads}"
            if stored is None:
                raise DamagedFileError(
                    f"the {name} is not in the file",
                    where=weight.path,
                    do=f"{loads}; a model saved before it was built has no weights",
                )
            raise DamagedFileError(
                f"the {name} has shape {tuple(stored.shape)} in the file, but the config requires {weight.shape}",
                where=weight.path,
                do=loads,
            )

        self._check_surplus()

    def _check_surplus(self) -> None:
        """Refuse a layer with a variable more than its class has: Keras does not load it."""
        if self.order is not None or is_old(self.tensors):
            return  # which variables are whose is not told by paths alone
        known = {weight.path for weight in self.weights}
        owners = {
            f"{weight.layer.store}/vars": weight.layer
            for weight in self.weights
            if weight.path.rpartition("/")[0] == f"{weight.layer.store}/vars"
        }
        for path in self.tensors:
            layer = owners.get(path.rpartition("/")[0])
            if layer is None or path in known or not layer.is_builtin:
                continue
            if not self.map.record(layer).opaque:  # else its rule did not get to the end
                self._refuse_surplus(layer, path)

    def _refuse_surplus(self, layer: Layer, path: str) -> None:
        from kprune.checking.layer_weights import counts_weights  # hardly any file gets here

        if counts_weights(layer.kind, layer.config):
            raise DamagedFileError(
                f"'{clean(layer.path)}' has a variable more in the file than a {clean(layer.kind)} has",
                where=path,
                do="check that the file loads in Keras",
            )

    def parameters(self, shapes: Mapping[str, tuple[int, ...]] | None = None) -> dict[str, int]:
        """How many numbers each layer holds, by the store of the layer that Keras would count them for.

        Args:
            shapes: shapes after a change, by dataset path; by default those in the file.
        """
        counts: dict[str, int] = {}
        for path, tensor in self.tensors.items():
            if path.startswith("layers/"):
                shape = (shapes or {}).get(path, tensor.shape)
                size = 1
                for extent in shape:
                    size *= extent
                counts[path] = size
        return counts

    @cached_property
    def leaf_layers(self) -> list[Layer]:
        """Layers (and operations) that are not models themselves, outer ones first."""
        return [layer for layer in self.model.walk() if layer.model is None]

    @cached_property
    def short_paths(self) -> dict[str, str]:
        """For each layer of a wrapped model its path without that model's own name: `td/conv` for `td/cnn/conv`."""
        found = {}
        for outer in self.model.walk():
            if outer.model is None and outer.inside is not None:
                for layer in outer.inside.walk():
                    found[layer.path] = f"{outer.path}/{layer.path.removeprefix(outer.inside.path)}"
        return found
