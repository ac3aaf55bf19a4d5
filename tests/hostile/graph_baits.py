"""SavedModels with a bait: an operation, an asset or an entry of the config that leaves a trace."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from tests.hostile import baits
from tests.hostile.baits import Bait, plain_model

Hook = Callable[[Bait, Any], Any]
SPEC = tf.TensorSpec([None, 4], tf.float32)


class Net(tf.Module):
    """Two layers behind a hook."""

    def __init__(self, hook: Callable[[Any], Any] = lambda x: x) -> None:
        super().__init__()
        rng = np.random.default_rng(0)
        for name, shape in (("hidden", (4, 8)), ("out", (8, 2))):
            kernel = rng.normal(size=shape).astype("float32")
            setattr(self, f"{name}_kernel", tf.Variable(kernel, name=f"{name}/kernel"))
            setattr(self, f"{name}_bias", tf.Variable(kernel[0], name=f"{name}/bias"))
        self.hook = hook

    @tf.function(input_signature=[SPEC])
    def serve(self, x: Any) -> Any:
        x = tf.nn.relu(tf.matmul(self.hook(x), self.hidden_kernel) + self.hidden_bias)
        return {"y": tf.matmul(x, self.out_kernel) + self.out_bias}


def saved(net: Net, folder: Path) -> Path:
    tf.saved_model.save(net, str(folder), signatures=net.serve)
    return folder


# -- operations in the signature: each takes what the model is given, and gives it back --------------


def write(bait: Bait, x: Any) -> Any:
    tf.io.write_file(str(bait.marker), "x")
    return x


def read(bait: Bait, x: Any) -> Any:
    return x + 0 * tf.cast(tf.strings.length(tf.io.read_file(bait.words)), tf.float32)


def list_files(bait: Bait, x: Any) -> Any:
    return x + 0 * tf.cast(tf.size(tf.io.matching_files(f"{bait.read}/*")), tf.float32)


def text_lines(bait: Bait, x: Any) -> Any:
    lines = tf.data.TextLineDataset(bait.words).reduce(0, lambda n, line: n + 1)
    return x + 0 * tf.cast(lines, tf.float32)


def print_to_file(bait: Bait, x: Any) -> Any:
    tf.print("x", output_stream=f"file://{bait.marker}")
    return x


def debug(bait: Bait, x: Any) -> Any:
    return tf.raw_ops.DebugIdentity(
        input=x, tensor_name="x:0", debug_urls=[f"file://{bait.made}"],
        device_name="/job:localhost/replica:0/task:0/device:CPU:0",
    )  # fmt: skip


def summary(bait: Bait, x: Any) -> Any:
    writer = tf.raw_ops.SummaryWriter()
    tf.raw_ops.CreateSummaryFileWriter(
        writer=writer, logdir=str(bait.made), max_queue=1, flush_millis=1, filename_suffix=""
    )
    return x


def save(bait: Bait, x: Any) -> Any:
    tf.raw_ops.SaveV2(
        prefix=str(bait.marker), tensor_names=["x"], shape_and_slices=[""], tensors=[x]
    )
    tf.io.write_file(str(bait.marker), "x")  # what is saved has a longer name
    return x


def python(bait: Bait, x: Any) -> Any:
    return _as(x, tf.py_function(_touching(bait), [x], tf.float32))


def python_on_arrays(bait: Bait, x: Any) -> Any:
    return _as(x, tf.numpy_function(_touching(bait), [x], tf.float32))


def python_without_state(bait: Bait, x: Any) -> Any:
    return _as(x, tf.numpy_function(_touching(bait), [x], tf.float32, stateful=False))


def _touching(bait: Bait) -> Callable[[Any], Any]:
    def touch(x: Any) -> Any:
        bait.marker.touch()
        return x

    return touch


def _as(x: Any, given: Any) -> Any:
    given.set_shape(x.shape)
    return given


def shape_from_debug(bait: Bait, x: Any) -> Any:
    """TensorFlow computes shapes while it reads a graph, and runs what they follow from."""
    return tf.reshape(x, debug(bait, tf.constant([-1, 4])))


def read_in_a_branch(bait: Bait, x: Any) -> Any:
    """A function that no signature calls by name."""
    return tf.cond(tf.reduce_all(x > -9), lambda: read(bait, x), lambda: x)


def hooked(hook: Hook) -> Callable[[Bait, Path], Any]:
    return lambda bait, folder: saved(Net(lambda x: hook(bait, x)), folder)


# -- operations elsewhere --------------------------------------------------------------------------


class Initializer(tf.lookup.KeyValueTensorInitializer):  # type: ignore[misc]
    """Fills a table, and does something else as well or instead."""

    def __init__(self, act: Callable[[Any], Any], *, instead: bool = False) -> None:
        super().__init__(["a"], [1], tf.string, tf.int64)
        self._act, self._instead = act, instead

    def initialize(self, table: Any) -> Any:
        done = self._act(table)
        return done if self._instead else super().initialize(table)


def with_table(initializer: Any) -> Net:
    table = tf.lookup.StaticHashTable(initializer, -1)
    net = Net(lambda x: x + 0 * tf.cast(table.lookup(tf.constant(["a"])), tf.float32))
    net.table = table
    return net


def in_initializer(bait: Bait, folder: Path) -> None:
    saved(with_table(Initializer(lambda table: tf.io.write_file(str(bait.marker), "x"))), folder)


def table_from_a_path(bait: Bait, folder: Path) -> None:
    def fill(table: Any) -> Any:
        return tf.raw_ops.InitializeTableFromTextFileV2(
            table_handle=table.resource_handle, filename=bait.words, key_index=-2, value_index=-1
        )

    saved(with_table(Initializer(fill, instead=True)), folder)


def in_a_function_nobody_calls(bait: Bait, folder: Path) -> None:
    net = Net()
    net.aside = tf.function(lambda x: write(bait, x), input_signature=[SPEC])
    saved(net, folder)


def vocabulary(bait: Bait, folder: Path, to: Callable[[Bait], str] | None = None) -> None:
    """A table that is filled from an asset of the model's own, or from what `to` gives as its name."""
    words = tf.lookup.TextFileInitializer(
        bait.words, tf.string, tf.lookup.TextFileIndex.WHOLE_LINE,
        tf.int64, tf.lookup.TextFileIndex.LINE_NUMBER,
    )  # fmt: skip
    saved(with_table(words), folder)
    if to is not None:
        edited(folder, lambda meta: setattr(meta.asset_file_def[0], "filename", to(bait)))


def asset_outside(bait: Bait, folder: Path) -> None:
    vocabulary(bait, folder, lambda bait: f"../../{bait.folder.name}/read/words.txt")


def asset_with_a_path(bait: Bait, folder: Path) -> None:
    vocabulary(bait, folder, lambda bait: bait.words)


def edited(folder: Path, change: Callable[[Any], Any]) -> None:
    from tensorflow.core.protobuf import saved_model_pb2

    path = folder / "saved_model.pb"
    proto = saved_model_pb2.SavedModel.FromString(path.read_bytes())
    change(proto.meta_graphs[0])
    path.write_bytes(proto.SerializeToString())


@dataclass(frozen=True)
class Payload:
    """One kind of bait.

    Attributes:
        make: writes the model.
        told: what is said of it.
        fires: what takes the bait: 'load', 'call', 'aside' (another function), 'import' (of the graph).
    """

    make: Callable[[Bait, Path], Any]
    told: str
    fires: str = "call"
    name: str = ""


def _in_signature(hook: Hook, operation: str, fires: str = "call") -> Payload:
    return Payload(hooked(hook), f"runs the operation {operation}", fires, hook.__name__)


def _elsewhere(make: Callable[[Bait, Path], Any], told: str, fires: str = "load") -> Payload:
    return Payload(make, told, fires, make.__name__)


PAYLOADS = [
    _in_signature(write, "WriteFile"),
    _in_signature(read, "ReadFile"),
    _in_signature(list_files, "MatchingFiles"),
    _in_signature(text_lines, "TextLineDataset"),
    _in_signature(print_to_file, "PrintV2"),
    _in_signature(debug, "DebugIdentity"),
    _in_signature(summary, "CreateSummaryFileWriter"),
    _in_signature(save, "SaveV2"),
    _in_signature(python, "EagerPyFunc"),
    _in_signature(python_on_arrays, "PyFunc"),
    _in_signature(python_without_state, "PyFuncStateless"),
    _in_signature(shape_from_debug, "DebugIdentity", "import"),
    _in_signature(read_in_a_branch, "ReadFile"),
    _elsewhere(in_initializer, "runs the operation WriteFile"),
    _elsewhere(in_a_function_nobody_calls, "runs the operation WriteFile", "aside"),
    _elsewhere(table_from_a_path, "runs the operation InitializeTableFromTextFileV2"),
    _elsewhere(asset_outside, "'assets' opens the file ../"),
    _elsewhere(asset_with_a_path, "'assets' opens the file /"),
]


def fire(payload: Payload, folder: Path) -> None:
    """Do what takes the bait."""
    if payload.fires == "import":
        from tensorflow.core.protobuf import saved_model_pb2
        from tensorflow.python.framework.function_def_to_graph import function_def_to_graph_def

        proto = saved_model_pb2.SavedModel.FromString((folder / "saved_model.pb").read_bytes())
        library = proto.meta_graphs[0].graph_def.library
        for function in library.function:
            with tf.Graph().as_default():  # what made the file may be gone, with the functions
                tf.graph_util.import_graph_def(tf.compat.v1.GraphDef(library=library))
                graph_def, _ = function_def_to_graph_def(function)
            graph_def.library.CopyFrom(library)
            with tf.Graph().as_default():
                tf.graph_util.import_graph_def(graph_def)
        return
    loaded = tf.saved_model.load(str(folder))
    x = tf.zeros((3, 4))
    if payload.fires == "call":
        loaded.signatures["serving_default"](x)
    elif payload.fires == "aside":
        loaded.aside(x)


# -- Keras 2's own file beside the graph -----------------------------------------------------------


def make_keras_model(folder: Path) -> None:
    """A SavedModel that Keras 2 wrote, with the layers that `tests.hostile.baits` puts its baits in."""
    import tf_keras

    model = plain_model(tf_keras, "x")
    model.compile("sgd", "sparse_categorical_crossentropy")
    model.save(folder, save_format="tf")


def edit_metadata(folder: Path, edit: Callable[[dict[str, Any]], None]) -> None:
    """Change what `keras_metadata.pb` says of the model, as if it were the config of an `.h5`."""
    from tensorflow.python.keras.protobuf import saved_metadata_pb2

    path = folder / "keras_metadata.pb"
    proto = saved_metadata_pb2.SavedMetadata.FromString(path.read_bytes())
    root = next(node for node in proto.nodes if node.node_path == "root")
    said = json.loads(root.metadata)
    config = {**said["model_config"], "training_config": said["training_config"]}
    edit(config)
    said["training_config"] = config.pop("training_config")
    said["model_config"], said["config"] = config, config["config"]
    root.metadata = json.dumps(said)
    for layer in config["config"]["layers"]:
        for node in proto.nodes:
            own = json.loads(node.metadata)
            if own.get("name") == layer["config"]["name"] and node is not root:
                own.update({key: layer[key] for key in ("class_name", "config")})
                node.metadata = json.dumps(own)
    path.write_bytes(proto.SerializeToString())


def words(bait: Bait, config: dict[str, Any]) -> None:
    """A file that is opened while the layer is built."""
    layer = baits.beside(config)
    baits.become(layer, "StringLookup", vocabulary=bait.words, output_mode="int")
    layer["config"]["dtype"] = "int64"


EDITS = {
    edit.__name__: edit
    for edit in (
        baits.old_lambda, baits.old_lambda_aside, baits.called_by_lambda, baits.foreign,
        baits.tensorflow, baits.loss, words,
    )
}  # fmt: skip
"""Changes of what the file says of its layers."""

TAKEN_IF_TRUSTED = ("old_lambda",)
TAKEN_IF_BUILT = ("called_by_lambda", "tensorflow", "words")
"""Baits that tf_keras takes when it loads the file, and when it is given the config alone. It refuses
the others by itself; but that is not what kprune counts on."""
