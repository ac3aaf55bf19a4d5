"""An edit of a legacy `.h5` turned into one that makes a `.keras` file of it."""

from __future__ import annotations

from typing import Any

from msgspec.structs import replace

from kprune.analysis.analysis import Analysis
from kprune.edit import Edit, TensorEdit
from kprune.errors import CannotPruneError
from kprune.graph.copies import copied
from kprune.graph.parse import holds_graph, parse_model
from kprune.graph.weight_groups import is_state
from kprune.surgery.provenance import KEY
from kprune.text import clean
from kprune.tracing.registry import LAYERS

# A legacy file names classes alone; a `.keras` file says where each is found as well
# (keras/src/saving/serialization_lib.py).
_MODULES = {
    "Functional": ("keras.src.models.functional", "Functional"),
    "Sequential": ("keras", None),
}
_LAYERS = "keras.layers"
# Where Keras 2 finds a model's class. What it writes of the layers is in a `.keras` file what it is in
# a legacy one, as long as no class says where it is found (keras/src/layers/serialization.py of 2.15).
_MODULES_2 = {
    "Functional": ("keras.src.engine.functional", "Functional"),
    "Sequential": ("keras", None),
}
# Attributes that Keras 2 names otherwise: `_query_dense`.
_PRIVATE_2 = frozenset({"query_dense", "key_dense", "value_dense", "output_dense"})


def as_keras(analysis: Analysis, edit: Edit) -> Edit:
    """The same change with the config and the paths of a `.keras` file.

    A file of Keras 2 is written as Keras 2.14 and later write it. The optimizer's state is left
    out: Keras 3 does not restore it from an `.h5` either.

    Args:
        analysis: of a legacy `.h5`.
        edit: of that file.
    Raises: CannotPruneError if it is not known which Keras wrote the file, or a layer is not
            one of Keras's own.
    """
    version = str(analysis.metadata.get("keras_version", ""))
    old = version.startswith("2.")
    if not old and not version.startswith("3."):
        raise _refused(f"it was saved by Keras {clean(version) or 'of unknown version'}")
    adapted = next((weight.layer.path for weight in analysis.weights if weight.merged), None)
    if adapted is not None:
        raise _refused(
            f"'{clean(adapted)}' has adapters of LoRA, which a .keras file has within the kernel; "
            "Keras merges them when it saves the model as .keras"
        )
    if _holds(edit.config, "SpectralNormalization"):
        raise _refused("a SpectralNormalization has its kernel twice in a .keras file")
    config = copied(edit.config)
    config = _of_keras_2(config) if old else _with_modules(config)
    stores = _stores(config)
    changes = {change.source: change for change in edit.tensors}
    duplicates = {weight.path for weight in analysis.weights if weight.duplicate}
    known = {weight.path for weight in analysis.weights}
    before = {layer.store: layer.path for layer in analysis.model.walk() if layer.store}
    moved = []
    for path in analysis.tensors:
        if is_state(path) or path in duplicates or path in edit.dropped:
            continue
        home = analysis.home(path)
        group = home
        while group and group not in before:
            group = group.rpartition("/")[0]
        if path not in known:
            raise _refused(
                f"kprune has no rule that names the tensors of '{clean(before.get(group, path))}'"
            )
        inside = home[len(group) :]
        if old:
            inside = "/".join(
                f"_{part}" if part in _PRIVATE_2 else part for part in inside.split("/")
            )
        place = stores[before[group]] + inside
        change = changes.get(path)
        moved.append(replace(change, path=place) if change else TensorEdit(place, path))
    metadata = {"keras_version": version}
    if KEY in edit.metadata:
        metadata[KEY] = edit.metadata[KEY]
    names = {f"{store}/vars": path.rpartition("/")[2] for path, store in stores.items()}
    whole = tuple({path.partition("/")[0] for path in analysis.tensors})
    dropped = tuple(sorted({*whole, "model_weights"}))
    if old:
        places = [change.path for change in moved]
        return Edit(config, metadata, tuple(moved), dropped, groups=_variable_groups(places))
    return Edit(config, metadata, tuple(moved), dropped, lambda: names)


def _variable_groups(places: list[str]) -> tuple[str, ...]:
    """The group of the variables of every object on the way to a tensor, which Keras 2 looks for."""
    groups = {"vars"}
    for place in places:
        parts = place.split("/")[:-2]
        groups.update("/".join([*parts[:end], "vars"]) for end in range(2, len(parts) + 1))
    return tuple(sorted(groups))


def _stores(config: dict[str, Any]) -> dict[str, str]:
    return {layer.path: layer.store for layer in parse_model(config).walk() if layer.store}


def _of_keras_2(config: dict[str, Any]) -> dict[str, Any]:
    """The config of a whole model as Keras 2 writes it into a `.keras` file."""
    kind = "Functional" if config.get("class_name") == "Model" else str(config.get("class_name"))
    if kind not in _MODULES_2:
        raise _refused(f"it is a model of class {clean(kind)}")
    module, registered = _MODULES_2[kind]
    return {**config, "module": module, "class_name": kind, "registered_name": registered}


def _with_modules(value: Any) -> Any:
    """A config in which every class says where it is found. Changed in place."""
    if isinstance(value, list):
        for item in value:
            _with_modules(item)
    elif isinstance(value, dict):
        kind = value.get("class_name")
        if (
            isinstance(kind, str)
            and isinstance(value.get("config"), dict)
            and "module" not in value
            and not kind.startswith("__")
        ):
            value["module"], value["registered_name"] = _home(kind, value)
        for item in list(value.values()):
            _with_modules(item)
    return value


def _holds(value: Any, kind: str) -> bool:
    """Whether an object of a class stands somewhere in a config."""
    if isinstance(value, list):
        return any(_holds(item, kind) for item in value)
    return isinstance(value, dict) and (
        value.get("class_name") == kind or any(_holds(item, kind) for item in value.values())
    )


def _home(kind: str, spec: dict[str, Any]) -> tuple[str, str | None]:
    if holds_graph(spec):
        if kind not in _MODULES:
            raise _refused(f"it holds a model of class {clean(kind)}")
        return _MODULES[kind]
    if kind not in LAYERS.rules:
        name = spec.get("name") or spec["config"].get("name") or kind
        raise _refused(f"'{clean(name)}' is a {clean(kind)}, which is not a layer of Keras")
    return _LAYERS, None


def _refused(why: str) -> CannotPruneError:
    return CannotPruneError(
        "this legacy .h5 cannot be written as .keras",
        why=why,
        do="name an output that ends in .h5",
    )
