"""Model files with a bait: something that leaves a trace if it is run, imported, called or opened.

The models are made by Keras once; the baits are put in by editing JSON, as an attacker would.
"""

from __future__ import annotations

import codecs
import ctypes
import json
import marshal
import os
import sys
import zipfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

Json = dict[str, Any]
Edit = Callable[["Bait", Json], None]

PLAN = """\
version: 1
choose: {criterion: l1}
target: {parameters: 70%}
schedule: {rounds: 2}
tune: {epochs: 1}
"""


class Watch:
    """Whether a file, or a file in a folder, is opened: also by TensorFlow's C++, which no hook sees."""

    _OPENED = 0x20

    def __init__(self, path: Path) -> None:
        self._libc = ctypes.CDLL(None, use_errno=True)
        self._fd = self._libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC)
        if self._libc.inotify_add_watch(self._fd, os.fsencode(path), self._OPENED) < 0:
            raise OSError(ctypes.get_errno(), f"cannot watch {path}")

    def opened(self) -> bool:
        """Whether it was since it was last asked."""
        try:
            return bool(os.read(self._fd, 65536))
        except BlockingIOError:
            return False

    def close(self) -> None:
        os.close(self._fd)


@dataclass
class Bait:
    """What a file is baited with.

    Attributes:
        folder: an empty one.
        module: a module there, which notes that it was imported and holds `mark`, which notes that it
            was called.
    """

    folder: Path
    module: str
    marker: Path = field(init=False)
    read: Path = field(init=False)
    made: Path = field(init=False)

    def __post_init__(self) -> None:
        self.folder.mkdir()
        self.marker, self.made = self.folder / "marker", self.folder / "made"
        self.read = self.folder / "read"
        self.read.mkdir()
        (self.read / "words.txt").write_text("1\n2\n3\n")
        (self.read / "saved_model.pb").write_bytes(b"\x08\x01")
        code = (
            f"open({str(self.marker)!r}, 'a').close()\n"
            f"def mark(*args, **kwargs):\n    open({str(self.marker)!r}, 'a').close()\n"
            "    return args[0]\n"
            "class Gain:\n    pass\n"
        )
        (self.folder / f"{self.module}.py").write_text(code)
        self._watch = Watch(self.read)

    def taken(self) -> bool:
        """Whether anything was run, imported, called or opened since it was last asked."""
        took = self.marker.exists() or self.made.exists() or self.module in sys.modules
        self.marker.unlink(missing_ok=True)
        if self.made.exists():
            self.made.rmdir()
        sys.modules.pop(self.module, None)
        return self._watch.opened() or took

    def close(self) -> None:
        self._watch.close()

    @property
    def bytecode(self) -> str:
        """A function that notes that it was run, as Keras dumps it."""
        source = f"lambda x: (__import__('pathlib').Path({str(self.marker)!r}).touch(), x)[1]"
        code = eval(source).__code__
        return codecs.encode(marshal.dumps(code), "base64").decode("ascii")

    @property
    def words(self) -> str:
        return str(self.read / "words.txt")


def activation(config: Json) -> Json:
    """The layer in the middle, which has no weights and every output reads."""
    layers: list[Json] = config["config"]["layers"]
    return next(layer for layer in layers if layer["config"]["name"] == "act")


def become(layer: Json, kind: str, /, *, module: str | None = None, **config: Any) -> None:
    """Make a layer one of another class."""
    layer["class_name"] = kind
    name = layer["config"]["name"]
    layer["config"] = {"name": name, "trainable": True, "dtype": "float32", **config}
    layer.pop("build_config", None)
    layer.pop("registered_name", None)
    if "module" in layer or module is not None:
        layer["module"], layer["registered_name"] = module or "keras.layers", None


def beside(config: Json) -> Json:
    """A copy of the layer in the middle that no output reads."""
    layer: Json = json.loads(json.dumps(activation(config)))
    layer["config"]["name"] = layer["name"] = "aside"
    config["config"]["layers"].append(layer)
    return layer


# -- what the baits do ----------------------------------------------------------------------------


def old_lambda(bait: Bait, config: Json, layer: Json | None = None) -> None:
    """Keras 2: bytecode in a Lambda."""
    layer = layer or activation(config)
    become(
        layer, "Lambda", function=[bait.bytecode, None, None], function_type="lambda",
        output_shape=None, output_shape_type="raw", output_shape_module=None, arguments={},
    )  # fmt: skip
    layer["config"]["module"] = "builtins"


def old_lambda_aside(bait: Bait, config: Json) -> None:
    old_lambda(bait, config, beside(config))


def new_lambda(bait: Bait, config: Json, layer: Json | None = None) -> None:
    """Keras 3: the same."""
    code = {"code": bait.bytecode, "defaults": None, "closure": None}
    function = {"class_name": "__lambda__", "config": code}
    become(layer or activation(config), "Lambda", function=function, arguments={})


def new_lambda_aside(bait: Bait, config: Json) -> None:
    new_lambda(bait, config, beside(config))


def called_by_lambda(bait: Bait, config: Json) -> None:
    """Keras 2: a Lambda of a function that is only named."""
    become(
        activation(config), "Lambda", function=function_of(bait), function_type="function",
        output_shape=None, output_shape_type="raw", output_shape_module=None, arguments={},
    )  # fmt: skip
    activation(config)["config"]["module"] = None


def function_of(bait: Bait) -> Json:
    return {"class_name": "function", "module": bait.module, "config": "mark",
            "registered_name": "mark"}  # fmt: skip


def foreign(bait: Bait, config: Json) -> None:
    """A layer of a class of a module of its own."""
    become(activation(config), "Gain", module=bait.module)
    activation(config)["registered_name"] = "Gain"


def foreign_model(bait: Bait, config: Json) -> None:
    """A model of such a class, which Keras 2 imports by itself."""
    config |= {"module": bait.module, "class_name": "Gain", "registered_name": "Gain"}


def wrapped(bait: Bait, config: Json) -> None:
    """The same inside a wrapper that no output reads."""
    inner = {"module": bait.module, "class_name": "Gain", "registered_name": "Gain",
             "config": {"name": "gain"}}  # fmt: skip
    become(beside(config), "TimeDistributed", layer=inner)


def vocabulary(bait: Bait, config: Json) -> None:
    """A file that is opened while the layer is built."""
    layer = beside(config)
    become(
        layer, "IntegerLookup", dtype="int64", vocabulary=bait.words, max_tokens=None, num_oov_indices=1,
        mask_token=None, oov_token=-1, output_mode="int",
    )  # fmt: skip


def tensorflow(bait: Bait, config: Json) -> None:
    """Keras 2: a function of TensorFlow that makes a folder."""
    layer = beside(config)
    become(layer, "TFOpLambda", function="io.gfile.makedirs")
    layer["inbound_nodes"] = [["_CONSTANT_VALUE", -1, str(bait.made), {}]]


def program(bait: Bait, config: Json) -> None:
    """Keras 3: a SavedModel elsewhere."""
    become(beside(config), "TFSMLayer", filepath=str(bait.read), call_endpoint="serve",
           call_training_endpoint=None)  # fmt: skip


def loss(bait: Bait, config: Json) -> None:
    """What the model was compiled with."""
    for part in ("compile_config", "training_config"):
        if part in config:
            config[part]["loss"] = function_of(bait)


@dataclass(frozen=True)
class Payload:
    """One kind of bait in one kind of file.

    Attributes:
        file: of the models that `make_models` makes.
        told: what the refusal says of it.
        edit: puts it in.
        needs_trust: whether Keras's safe mode stops it as well, so that it is taken only where the
            file is trusted.
        compiled: whether only compiling takes it.
    """

    file: str
    told: str
    edit: Edit
    needs_trust: bool = False
    compiled: bool = False

    @property
    def name(self) -> str:
        return f"{self.edit.__name__}-{self.file}"


OLD, OLD_ZIP, NEW, NEW_H5 = "old.h5", "old.keras", "new.keras", "new.h5"

PAYLOADS = [
    Payload(OLD, "'act' runs Python bytecode", old_lambda),
    Payload(OLD, "'aside' runs Python bytecode", old_lambda_aside),
    Payload(OLD_ZIP, "'act' runs Python bytecode", old_lambda, needs_trust=True),
    Payload(NEW, "'act' runs Python bytecode", new_lambda, needs_trust=True),
    Payload(NEW, "'aside' runs Python bytecode", new_lambda_aside, needs_trust=True),
    Payload(NEW_H5, "'act' runs Python bytecode", new_lambda, needs_trust=True),
    Payload(OLD_ZIP, "'act' calls bait", called_by_lambda),
    Payload(OLD_ZIP, "the model imports bait", foreign_model),
    Payload(NEW, "'act' imports bait", foreign, needs_trust=True),
    Payload(NEW, "'aside/gain' imports bait", wrapped, needs_trust=True),
    *(Payload(file, "'aside' opens the file", vocabulary) for file in (OLD, OLD_ZIP)),
    Payload(NEW, "'aside' opens the file", vocabulary, needs_trust=True),
    *(Payload(file, "calls tf.io.gfile.makedirs", tensorflow) for file in (OLD, OLD_ZIP)),
    Payload(NEW, "'aside' loads another program", program, needs_trust=True),
    Payload(OLD_ZIP, "compile_config calls bait", loss, compiled=True),
    Payload(NEW, "compile_config calls bait", loss, needs_trust=True, compiled=True),
]


# -- files ----------------------------------------------------------------------------------------


def plain_model(module: Any, takes: str = "in") -> Any:
    """The model in which payloads take the place of layers, made by a Keras."""
    module.utils.set_random_seed(0)
    inputs = module.Input((4,), name=takes)
    x = module.layers.Dense(8, "relu", name="hidden")(inputs)
    x = module.layers.Dense(6, name="second")(x)
    x = module.layers.Activation("relu", name="act")(x)
    return module.Model(inputs, module.layers.Dense(2, "softmax", name="out")(x))


def make_models(folder: Path) -> None:
    """The plain models, one for each kind of file, with data and a plan beside them."""
    import keras
    import tf_keras

    for module, files in ((keras, (NEW, NEW_H5)), (tf_keras, (OLD, OLD_ZIP))):
        model = plain_model(module)
        model.compile("sgd", "sparse_categorical_crossentropy", metrics=["accuracy"])
        for file in files:
            model.save(folder / file)
    x = np.random.default_rng(0).normal(size=(24, 4)).astype("float32")
    np.savez(folder / "data.npz", x=x, y=(x[:, 0] > x[:, 1]).astype("int64"))
    (folder / "plan.yaml").write_text(PLAN)


def baited(plain: Path, to: Path, edit: Callable[[Json], None]) -> None:
    """Copy a model file with another config."""
    if plain.suffix == ".keras":
        with zipfile.ZipFile(plain) as old, zipfile.ZipFile(to, "w") as new:
            for name in old.namelist():
                data = old.read(name)
                if name == "config.json":
                    config = json.loads(data)
                    edit(config)
                    data = json.dumps(config).encode()
                new.writestr(name, data)
        return
    import h5py

    to.write_bytes(plain.read_bytes())
    with h5py.File(to, "r+") as file:
        config = json.loads(file.attrs["model_config"])
        config["training_config"] = json.loads(file.attrs["training_config"])
        edit(config)
        file.attrs["training_config"] = json.dumps(config.pop("training_config"))
        file.attrs["model_config"] = json.dumps(config)
