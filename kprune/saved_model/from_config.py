"""A Keras 2 model built from the config in `keras_metadata.pb`, its variables filled from the checkpoint.

No graph of the file is loaded, so none runs, and a checkpoint is data. A layer that would run, import
or open something when it is built is stood in for: it has the variables and gives the shape that the
file records, and computes nothing.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from kprune.active_content import Active, active_in, active_in_keras_file
from kprune.errors import CannotPruneError, DamagedFileError, KpruneError
from kprune.faults import shown
from kprune.formats.bounded_json import json_object
from kprune.limits import JSON_BYTES
from kprune.runtime.keras_import import quiet, reason_of
from kprune.runtime.tensorflow_runtime import tensorflow, tf_keras
from kprune.saved_model.files.contents import PREFIX, Contents, reading
from kprune.saved_model.stand_ins import StandIns
from kprune.text import clean

METADATA = "keras_metadata.pb"
ROOT = "root"
AS_A_GRAPH = (
    "take keras_metadata.pb out of a copy of the folder: kprune then prunes the graph, "
    "as far as its functions allow"
)
_SPARE = 1 << 16
"""Values of variables that no checkpoint holds: seeds of random numbers, say."""
_TRAINING = "training_config"


class KerasMetadata:
    """What `keras_metadata.pb` says.

    Attributes:
        nodes: the description of each layer, metric and model, by node of the object graph.
        root: that of the model itself; {} if there is none.
        config: of the model, as a legacy file has it.
    """

    def __init__(self, folder: Path) -> None:
        from tensorflow.python.keras.protobuf import saved_metadata_pb2

        proto = saved_metadata_pb2.SavedMetadata()
        with reading(folder, METADATA):
            JSON_BYTES.check((folder / METADATA).stat().st_size, METADATA, shown(folder))
            proto.ParseFromString((folder / METADATA).read_bytes())
            self.nodes: dict[int, dict[str, Any]] = {
                node.node_id: json_object(node.metadata.encode(), shown(folder), METADATA)
                for node in proto.nodes
                if node.metadata
            }
            roots = [node.node_id for node in proto.nodes if node.node_path == ROOT]
        self.root = self.nodes.get(roots[0], {}) if roots else {}
        own = {key: self.root.get(key) for key in ("class_name", "config")}
        self.config: dict[str, Any] = self.root.get("model_config") or own
        if not (isinstance(self.config, dict) and isinstance(self.config.get("config"), dict)):
            raise DamagedFileError(
                f"{shown(folder)} is damaged",
                where=METADATA,
                why="it does not say what model it is",
                do="take that file out of a copy of the folder: kprune then prunes the graph",
            )

    def needed(self) -> tuple[Active, ...]:
        """What building the model and compiling it would run, import, call or read."""
        return active_in_keras_file(self.config, self.root)

    def active(self) -> tuple[Active, ...]:
        """The same for everything described, also for layers that are not in the model's config."""
        found = self.needed()
        known = {(item.kind, item.what, item.registered) for item in found}
        every = active_in(
            {"class_name": "Functional", "config": {"layers": [*self.nodes.values()]}}
        )
        others = (one for one in every if (one.kind, one.what, one.registered) not in known)
        return (*found, *others)


def built(
    folder: Path,
    contents: Contents,
    metadata: KerasMetadata,
    unknown: Sequence[str],
    *,
    compiled: bool,
) -> Any:
    """The model.

    Args:
        unknown: classes of layers that are stood in for.
        compiled: whether to compile it, if the file says how.
    Raises: CannotPruneError if the file describes no graph of layers, DamagedFileError if tf_keras
        does not build it or the variables are others.
    """
    stand_ins = StandIns(contents, metadata.nodes, unknown)
    with _building(folder), quiet(replay=False), _no_larger_than(contents):
        model = _from_config(_decoded(metadata.config), stand_ins.classes)
        shape = metadata.root.get("build_input_shape")
        if not model.built and shape:
            model.build(_decoded(shape))
    _fill(model, contents, stand_ins)
    if compiled and metadata.root.get(_TRAINING):
        with _building(folder), quiet(replay=False):
            _compile(model, _decoded(metadata.root[_TRAINING]))
    return model


def classes_at(items: Iterable[Active], config: Mapping[str, Any]) -> dict[Active, str]:
    """The class of the layer in which each item stands; items that stand in no layer are left out."""
    kinds = dict(_layer_kinds(config))
    found = {}
    for item in items:
        place = item.place
        while place and place not in kinds:  # deeper than a layer of the graph: in a wrapper, say
            place = place.rpartition("/")[0]
        if place:
            found[item] = kinds[place]
    return found


def _layer_kinds(config: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """(path, class) of the layers of a model and of the models inside it, these left out."""
    waiting: list[tuple[str, Any]] = [("", config)]
    while waiting:
        path, item = waiting.pop()
        own = item.get("config")
        layers = own.get("layers") if isinstance(own, dict) else None
        if not isinstance(layers, list):
            yield path, str(item.get("class_name"))
            continue
        for layer in layers:
            if isinstance(layer, dict) and isinstance(layer.get("config"), dict):
                name = layer.get("name") or layer["config"].get("name")
                waiting.append((f"{path}/{name}".lstrip("/"), layer))


@contextmanager
def _building(folder: Path) -> Iterator[None]:
    """Turn whatever tf_keras raises about a config into a refusal."""
    try:
        yield
    except KpruneError:
        raise
    except Exception as error:
        raise DamagedFileError(
            f"tf_keras does not build {shown(folder)}",
            where=METADATA,
            why=clean(reason_of(error), 300),
            do="check that tf_keras.models.load_model accepts it; with --trust, kprune reads it that way",
        ) from error


@contextmanager
def _no_larger_than(contents: Contents) -> Iterator[None]:
    """Make variables of zeros meanwhile, and not more than the checkpoint can fill."""
    tf = tensorflow()
    left = [_SPARE + sum(map(math.prod, contents.shapes.values()))]

    def create(following: Any, **given: Any) -> Any:
        shape = given.get("shape")
        if shape is not None and tf.TensorShape(shape).is_fully_defined():
            left[0] -= math.prod(tf.TensorShape(shape))
            if left[0] < 0:
                raise DamagedFileError(
                    f"{shown(contents.folder)} contradicts itself",
                    where=METADATA,
                    why="the model that it describes has more values than there are in "
                    f"{PREFIX}, which holds its variables",
                    do="get the folder again",
                )
            kind = given.get("dtype") or tf.float32
            given["initial_value"] = lambda: tf.zeros(shape, kind)
        return following(**given)

    with tf.variable_creator_scope(create):
        yield


def _decoded(value: Any) -> Any:
    """Tuples and shapes, which the file writes as objects."""
    from tf_keras.src.saving.legacy.saved_model import json_utils

    return json_utils.decode(json.dumps(value))


def _from_config(config: Any, classes: Mapping[str, type]) -> Any:
    keras = tf_keras()
    with keras.utils.custom_object_scope(dict(classes)):
        return keras.models.model_from_config(config)


def _compile(model: Any, training: Any) -> None:
    from tf_keras.src.saving.legacy import saving_utils

    said = saving_utils.compile_args_from_training_config(training)
    model.compile(**said, from_serialized=True)
    saving_utils.try_build_compiled_arguments(model)


def _fill(model: Any, contents: Contents, stand_ins: StandIns) -> None:
    """Give every variable its value.

    The checkpoint's objects hang from each other by the same names as the model's: they are walked
    side by side.
    """
    values = dict(stand_ins.keys)
    values.update(_keys(model, contents.object_graph()))
    for variable in model.weights:
        if not hasattr(variable, "assign"):
            raise CannotPruneError(
                f"{shown(contents.folder)} keeps a table of values besides its variables",
                why="only its graph fills that, and a graph is not run to read a model",
                do=AS_A_GRAPH,
            )
        key = values.get(id(variable))
        if key is None or contents.shapes.get(key) != tuple(variable.shape):
            held = "no value" if key is None else f"one of shape {contents.shapes.get(key)}"
            raise DamagedFileError(
                f"{shown(contents.folder)} contradicts itself",
                where=f"{PREFIX}, {clean(variable.name)}",
                why=f"its config describes a variable of shape {tuple(variable.shape)}, for which the "
                f"checkpoint holds {held}",
                do="check that tf_keras.models.load_model accepts it; with --trust, kprune reads it "
                "that way",
            )
        with reading(contents.folder, f"{PREFIX}, {clean(key)}"):
            variable.assign(contents.tensor(key))


def _keys(model: Any, stored: Any) -> dict[int, str]:
    """By variable (its `id`), the key of its value in the checkpoint."""
    found: dict[int, str] = {}
    seen: set[tuple[int, int]] = set()
    waiting: list[tuple[Any, int]] = [(model, 0)] if stored is not None else []
    while waiting:
        item, number = waiting.pop()
        if (id(item), number) in seen or not 0 <= number < len(stored.nodes):
            continue
        seen.add((id(item), number))
        for attribute in stored.nodes[number].attributes:
            if attribute.name == "VARIABLE_VALUE":
                found.setdefault(id(item), attribute.checkpoint_key)
        children = item._trackable_children() if hasattr(item, "_trackable_children") else {}
        waiting.extend(
            (children[child.local_name], child.node_id)
            for child in stored.nodes[number].children
            if child.local_name in children
        )
    return found
