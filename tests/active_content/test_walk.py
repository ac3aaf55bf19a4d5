"""What is active in a config is found wherever it stands, and what is harmless is not taken for it."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path
from typing import Any

import pytest

from kprune.active_content import Active, Kind, active_in, active_in_keras_file
from kprune.formats import open_model

OWN = {"module": "my.layers", "class_name": "Gain", "config": {}, "registered_name": "my>Gain"}


def layer(kind: str, name: str = "x", module: str | None = "keras.layers", **config: Any) -> Any:
    found = {"class_name": kind, "config": {"name": name, **config}}
    return found if module is None else {"module": module, "registered_name": None, **found}


def function(name: str, module: str | None, registered: Any = None) -> dict[str, Any]:
    return {
        "class_name": "function",
        "config": name,
        "module": module,
        "registered_name": registered,
    }


def model(*layers: Any, **further: Any) -> dict[str, Any]:
    return {**layer("Functional", "m", "keras.src.models.functional", layers=[*layers]), **further}


def told(*layers: Any) -> list[str]:
    return [str(item) for item in active_in(model(*layers))]


ACTIVE = {
    "bytecode of Keras 3": (
        layer("Lambda", function={"class_name": "__lambda__", "config": {"code": "4wEA"}}),
        "'x' runs Python bytecode",
    ),
    "bytecode of Keras 2": (
        layer("Lambda", module=None, function=["4wEA", None, None], function_type="lambda"),
        "'x' runs Python bytecode",
    ),
    "a shape from bytecode": (
        layer("Lambda", module=None, output_shape=["4wEA", None, None], output_shape_type="lambda"),
        "'x' runs Python bytecode",
    ),
    "a function of any module": (
        layer("Lambda", function=function("system", "os", "system"), function_type="function"),
        "'x' calls os.system",
    ),
    "a function of Python's own": (
        layer("Dense", activation=function("eval", "builtins")), "'x' calls builtins.eval",
    ),
    "a function of Keras that is no activation": (
        layer("Dense", activation=function("get_file", "keras.utils")),
        "'x' calls keras.utils.get_file",
    ),
    "a function of keras.ops that calls others": (
        layer("Dense", activation=function("map", "keras.ops")), "'x' calls keras.ops.map",
    ),
    "a helper by its mere name": (
        layer("Dense", activation="deserialize_keras_object"),
        "'x' calls deserialize_keras_object",
    ),
    "a class of another module": (
        layer("Gain", module="my.layers"), "'x' imports my.layers.Gain",
    ),
    "a class that is in no module": (layer("Gain", module=None), "'x' builds Gain"),
    "a module that only looks like Keras": (
        layer("Dense", module="keras_evil.layers"), "'x' imports keras_evil.layers.Dense",
    ),
    "a class of Keras that is no layer": (
        layer("CSVLogger", module="keras.callbacks"), "'x' imports keras.callbacks.CSVLogger",
    ),
    "a function where a class should be": (
        layer("deserialize", module=None), "'x' builds deserialize",
    ),
    "a second name that Keras 2 looks for": (
        {**layer("Dense"), "registered_name": "Gain"}, "'x' imports keras.layers.Dense",
    ),
    "inside a wrapper": (
        layer("TimeDistributed", layer=layer("Gain", "own", "my.layers")),
        "'x/own' imports my.layers.Gain",
    ),
    "an initializer": (
        layer("Dense", kernel_initializer={**OWN}), "'x' imports my.layers.Gain",
    ),
    "among the arguments of a call": (
        {**layer("Add"), "inbound_nodes": [{"args": [OWN], "kwargs": {}}]},
        "'x' imports my.layers.Gain",
    ),
    "a vocabulary": (
        layer("StringLookup", vocabulary="/etc/passwd"), "'x' opens the file /etc/passwd",
    ),
    "a vocabulary elsewhere": (
        layer("TextVectorization", vocabulary="gs://bucket/words.txt"),
        "'x' opens the address gs://bucket/words.txt",
    ),
    "another program": (
        layer("TFSMLayer", filepath="/elsewhere/saved"),
        "'x' loads another program with TFSMLayer (/elsewhere/saved)",
    ),
    "a model of PyTorch": (
        layer("TorchModuleWrapper"), "'x' loads another program with TorchModuleWrapper",
    ),
    "a file that a layer of KerasHub may open": (
        layer("PositionEmbedding", module="keras_hub.src.layers", of="/etc/passwd"),
        "'x' opens the file /etc/passwd",
    ),
    "a function of TensorFlow that writes": (
        layer("TFOpLambda", function="io.write_file"), "'x' calls tf.io.write_file",
    ),
    "one that prints, into a file": (
        layer("TFOpLambda", function="print"), "'x' calls tf.print",
    ),
    "one that opens a vocabulary": (
        layer("TFOpLambda", function="random.fixed_unigram_candidate_sampler"),
        "'x' calls tf.random.fixed_unigram_candidate_sampler",
    ),
    "the same under its old name": (
        layer("SlicingOpLambda", function="compat.v1.py_func"), "'x' calls tf.compat.v1.py_func",
    ),
    "a method of any class": (
        layer("ClassMethod", cls_symbol="io.gfile.GFile", method_name="close"),
        "'x' calls tf.io.gfile.GFile.close",
    ),
    "any attribute of a tensor": (
        layer("InstanceMethod", attr_name="__reduce__"), "'x' calls tensor.__reduce__",
    ),
    "a node of a graph": (
        layer("TensorFlowOpLayer", node_def={"op": "WriteFile"}), "'x' runs the operation WriteFile",
    ),
    "a node that cannot be read": (
        layer("TensorFlowOpLayer", node_def="\n\x03abc"), "'x' runs the operation ?",
    ),
    "a known type in another module": (
        layer("InputLayer", type_spec={"class_name": "__typespec__", "config": [], "spec_name": "TensorSpec",
                                       "module": "tensorflow.python.tools.api", "registered_name": None}),
        "'x' imports tensorflow.python.tools.api.TensorSpec",
    ),
    "a type of another module": (
        layer("InputLayer", type_spec={"class_name": "__typespec__", "module": "my.types",
                                       "spec_name": "Spec", "config": [], "registered_name": None}),
        "'x' imports my.types.Spec",
    ),
}  # fmt: skip


@pytest.mark.parametrize("kind", ACTIVE)
def test_what_would_act_is_found(kind: str) -> None:
    spec, expected = ACTIVE[kind]
    assert told(spec)[0] == expected


INERT = {
    "a layer": layer("Dense", activation="relu", kernel_initializer={
        "module": "keras.initializers", "class_name": "GlorotUniform", "config": {"seed": None},
        "registered_name": None}),
    "a layer of Keras 2": layer("Dense", module=None, activation="relu"),
    "one in an inner module": layer("BatchNormalization", module="keras.src.layers.normalization.batch_normalization"),
    "a model inside": layer("Sequential", "inner", "keras", layers=[layer("Dense")]),
    "an initializer of TensorFlow": layer("Dense", kernel_initializer={
        "module": "tensorflow.python.ops.init_ops_v2", "class_name": "Constant",
        "config": {"value": 0.0}, "registered_name": "Constant"}),
    "an operation": layer("Matmul", module="keras.src.ops.numpy"),
    "an activation": layer("Dense", activation=function("relu", "builtins", "relu")),
    "one by its module": layer("Dense", activation=function("gelu", "keras.activations", "gelu")),
    "a function of keras.ops": layer("Dense", activation=function("sin", "keras.ops", "sin")),
    "a name that only registering resolves": layer("Dense", activation=function("swoosh", "builtins")),
    "a type of numbers": layer("Dense", dtype={"module": "keras", "class_name": "DTypePolicy",
                               "config": {"name": "mixed_float16"}, "registered_name": None}),
    "a vocabulary in the file": layer("StringLookup", vocabulary=["a", "/b"]),
    "arithmetic of TensorFlow": layer("TFOpLambda", function="math.add"),
    "the same under its old name": layer("TFOpLambda", function="compat.v1.nn.softmax"),
    "a slice": layer("SlicingOpLambda", function="__operators__.getitem"),
    "ragged tensors": layer("InstanceMethod", attr_name="to_tensor"),
    "an addition of an old graph": layer("TensorFlowOpLayer", node_def={"op": "AddV2"}),
    "a ragged input": layer("InputLayer", type_spec={"class_name": "__typespec__", "spec_name": "RaggedTensorSpec",
                            "module": "tensorflow.python.ops.ragged.ragged_tensor", "config": [],
                            "registered_name": None}),
    "a Lambda of an activation": layer("Lambda", function=function("relu", "keras.activations")),
    "a layer of KerasHub": layer("TransformerEncoder", module="keras_hub.src.layers.modeling.transformer_encoder"),
    "what Keras 2 registers itself": {**layer("CustomScaleLayer", module="keras.src.applications.inception_resnet_v2"),
                                      "registered_name": "Custom>CustomScaleLayer"},
    "a path in a layer of Keras": layer("Dense", note="/etc/passwd"),
}  # fmt: skip


@pytest.mark.parametrize("kind", INERT)
def test_what_is_harmless_is_not_taken_for_active(kind: str) -> None:
    assert told(INERT[kind]) == []


def test_each_is_told_once_in_the_order_of_the_file() -> None:
    own = {**OWN, "config": {"name": "b", "first": OWN, "second": OWN}}
    lookup = layer("StringLookup", "a", vocabulary="words.txt")
    assert told(lookup, own, own) == [
        "'a' opens the file words.txt", "'b' imports my.layers.Gain"
    ]  # fmt: skip


def test_what_a_model_was_compiled_with_is_told_apart() -> None:
    config = model(layer("Dense"), compile_config={"loss": function("steal", "my.losses")})
    training = {"optimizer_config": {"class_name": "Custom>Adam", "config": {}}, "loss": "get"}
    found = active_in_keras_file(config, {"training_config": training})
    assert found == (
        Active(Kind.FUNCTION, "compile_config", "my.losses.steal", "steal", compiled=True),
        Active(Kind.FUNCTION, "compile_config", "get", "get", compiled=True),
    )


def test_a_layer_cannot_pass_itself_off_as_what_the_model_was_compiled_with() -> None:
    (item,) = active_in_keras_file(model(layer("Gain", "compile_config", "my.layers")), {})
    assert not item.compiled
    assert str(item) == "'compile_config' imports my.layers.Gain"


def test_a_class_is_let_through_only_by_the_name_under_which_keras_looks_for_it() -> None:
    (by_name,) = active_in(model({**OWN}))
    assert by_name.registered == "my>Gain"
    (nameless,) = active_in(model({**OWN, "registered_name": None}))
    assert nameless.registered == ""


def test_the_walk_is_not_bounded_by_the_depth_of_the_config() -> None:
    config: Any = {**OWN}
    for _ in range(50_000):
        config = [{"a": config}]
    assert [item.what for item in active_in(config, "deep")] == ["my.layers.Gain"]


def test_a_file_tells_what_is_active_in_it(samples: Path, tmp_path: Path) -> None:
    plain, path = samples / "digits_mlp.keras", tmp_path / "m.keras"
    with zipfile.ZipFile(plain) as old, zipfile.ZipFile(path, "w") as new:
        for name in old.namelist():
            data = old.read(name)
            if name == "config.json":
                config = json.loads(data)
                config["compile_config"]["loss"] = function("steal", "my.losses")
                data = json.dumps(config).encode()
            new.writestr(name, data)
    with open_model(plain) as source:
        assert source.active() == ()
    with open_model(path) as source:
        assert [str(item) for item in source.active()] == ["compile_config calls my.losses.steal"]


@pytest.mark.parametrize("value", [[], {}, [1], 3, 2.5, True], ids=repr)
def test_what_is_no_name_is_none_that_is_known(value: Any) -> None:
    for config in (
        {**layer("Dense"), "registered_name": value},
        layer("InstanceMethod", module=None, attr_name=value),
        layer("ClassMethod", module=None, cls_symbol="RaggedTensor", method_name=value),
        layer("TensorFlowOpLayer", module=None, node_def={"op": value}),
        {**layer("Dense"), "module": value},
    ):
        assert told(config) != []
