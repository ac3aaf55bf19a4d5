"""SavedModel folders with parts missing, cut, exchanged, or graphs that are none."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.hostile.case import Run, add_all, writes
from tests.hostile.seeds import good

NAME = "bad_saved"
PB, INDEX = "saved_model.pb", "variables/variables.index"
SHARD = "variables/variables.data-00000-of-00001"


def of(change: Callable[[Path], Any]) -> Callable[[Path], None]:
    """The good SavedModel with something done to its folder."""

    def make(folder: Path) -> None:
        change(good("good_saved", folder).rename(folder / NAME))

    return make


def cut(name: str, share: float) -> Callable[[Path], None]:
    def change(model: Path) -> None:
        data = (model / name).read_bytes()
        (model / name).write_bytes(data[: int(len(data) * share)])

    return of(change)


def without(name: str) -> Callable[[Path], None]:
    return of(lambda model: (model / name).unlink())


def filled(name: str, content: bytes) -> Callable[[Path], None]:
    return of(lambda model: (model / name).write_bytes(content))


def flipped(name: str, place: float) -> Callable[[Path], None]:
    def change(model: Path) -> None:
        data = bytearray((model / name).read_bytes())
        data[int(len(data) * place)] ^= 0x40
        (model / name).write_bytes(data)

    return of(change)


def linked(name: str, target: str) -> Callable[[Path], None]:
    """A part is a symbolic link that leaves the folder."""

    def change(model: Path) -> None:
        path = model / name
        if path.exists():
            shutil.move(path, model.parent / "elsewhere")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.symlink_to(target or model.parent / "elsewhere")

    return of(change)


def parsed(change: Callable[[Any], Any]) -> Callable[[Path], None]:
    """The good SavedModel with its graph changed."""

    def edit(model: Path) -> None:
        from tensorflow.core.protobuf import saved_model_pb2

        proto = saved_model_pb2.SavedModel()
        proto.ParseFromString((model / PB).read_bytes())
        change(proto.meta_graphs[0])
        (model / PB).write_bytes(proto.SerializeToString())

    return of(edit)


def function(meta: Any, part: str) -> Any:
    """The function whose name holds a word."""
    return next(f for f in meta.graph_def.library.function if part in f.signature.name)


def node(meta: Any, op: str) -> Any:
    return next(n for f in meta.graph_def.library.function for n in f.node_def if n.op == op)


def no_functions(meta: Any) -> None:
    del meta.graph_def.library.function[:]


def calls_itself(meta: Any) -> None:
    """Every call leads to the function that it stands in."""
    for held in meta.graph_def.library.function:
        for one in held.node_def:
            if "f" in one.attr:
                one.attr["f"].func.name = held.signature.name


def unknown_op(meta: Any) -> None:
    node(meta, "MatMul").op = "NoSuchOperation"


def no_signature(meta: Any) -> None:
    meta.signature_def.clear()


def other_signature(meta: Any) -> None:
    for signature in meta.signature_def.values():
        for info in signature.outputs.values():
            info.name = "nobody:0"


def children_beyond(meta: Any) -> None:
    for held in meta.object_graph_def.nodes:
        for child in held.children:
            child.node_id = 10**6


def huge_constant(meta: Any) -> None:
    """A constant of a hundred million million equal numbers, which are written as one."""
    product = node(meta, "MatMul")
    owner = next(f for f in meta.graph_def.library.function if product in list(f.node_def))
    made = owner.node_def.add(name="wide", op="Const")
    made.attr["dtype"].type = 1
    tensor = made.attr["value"].tensor
    tensor.dtype = 1
    tensor.float_val.append(1.0)
    for size in (10**7, 10**7):
        tensor.tensor_shape.dim.add(size=size)
    product.input[1] = "wide:output:0"


def negative_shape(meta: Any) -> None:
    product = node(meta, "MatMul")
    shapes = product.attr["_output_shapes"].list.shape
    (shapes.add() if not shapes else shapes[0]).dim.add(size=-77)


def two_names(meta: Any) -> None:
    held = function(meta, "inner")
    held.node_def.add().CopyFrom(held.node_def[0])


def two_functions(meta: Any) -> None:
    meta.graph_def.library.function.add().CopyFrom(meta.graph_def.library.function[0])


def no_graphs(model: Path) -> None:
    (model / PB).write_bytes(b"\x08\x01")


def folder_for_pb(model: Path) -> None:
    (model / PB).unlink()
    (model / PB).mkdir()


def sparse_pb(model: Path) -> None:
    os.truncate(model / PB, 3 << 30)


def sparse_index(model: Path) -> None:
    os.truncate(model / INDEX, 3 << 30)


def other_count(model: Path) -> None:
    (model / SHARD).rename(model / "variables/variables.data-00000-of-00002")


def two_checkpoints(model: Path) -> None:
    shutil.copy(model / SHARD, model / "variables/variables.data-00000-of-00003")


def many_shards(model: Path) -> None:
    (model / "variables/variables.data-00000-of-99999999").write_bytes(b"")
    (model / SHARD).unlink()


def table(makers: dict[str, tuple[Any, ...]], inspect: int = 4, remove: int = 4) -> None:
    for name, (make, *says) in makers.items():
        add_all(
            "savedmodel",
            {name: (make,)},
            file=NAME,
            tensorflow=True,
            runs=(
                Run(("inspect", NAME), inspect, (NAME, *says) if inspect else ()),
                Run(
                    writes("out", "remove", NAME, "a:1"),
                    remove,
                    (NAME, *says) if remove == 4 else says,
                ),
            ),
        )


table({
    "saved_model.pb is empty": (filled(PB, b""), PB),
    "saved_model.pb is text": (filled(PB, b"name: 'serve'\n" * 50), PB),
    "saved_model.pb is cut in half": (cut(PB, 0.5), PB),
    "saved_model.pb is cut near its end": (cut(PB, 0.99), PB),
    "saved_model.pb without graphs": (of(no_graphs), PB),
    "saved_model.pb is a folder": (of(folder_for_pb),),
    "saved_model.pb of three gigabytes": (of(sparse_pb), PB),
    "the index is missing": (without(INDEX), INDEX),
    "the index is empty": (filled(INDEX, b""), INDEX),
    "the index is cut": (cut(INDEX, 0.6), INDEX),
    "the index has another bit": (flipped(INDEX, 0.3), INDEX),
    "the index is text": (filled(INDEX, b"index\n" * 99), INDEX),
    "the index of three gigabytes": (of(sparse_index), INDEX),
    "the shard is missing": (without(SHARD), SHARD),
    "the shard is cut": (cut(SHARD, 0.5), "variables"),
    "the shard is empty": (filled(SHARD, b""), "variables"),
    "the shard is one of two": (of(other_count), "variables.data-00001-of-00002"),
    "shards of two checkpoints": (of(two_checkpoints), "variables"),
    "one of 99,999,999 shards": (of(many_shards), "variables"),
    "an operation that there is not": (parsed(unknown_op), "__inference_inner"),
    "two nodes of one name": (parsed(two_names), PB),
    "two functions of one name": (parsed(two_functions), PB),
    "objects that are not there": (parsed(children_beyond), PB),
    "a constant of a hundred million million numbers": (parsed(huge_constant), PB),
    "a link in a circle": (linked("assets/x", "x"), "assets/x"),
})  # fmt: skip
table({
    "signatures that give what is not there": (parsed(other_signature), PB),
    "the shard has another bit": (flipped(SHARD, 0.2), "variables"),
}, inspect=0)  # fmt: skip

# Links are understood, and not followed.
table({
    "an asset that is a link out": (linked("assets/words.txt", "/etc/hostname"), "assets/words.txt"),
    "an asset that is a link to a folder": (linked("assets/etc", "/etc"), "assets/etc"),
    "a shard that is a link out": (linked(SHARD, ""), SHARD),
    "an index that is a link out": (linked(INDEX, ""), INDEX),
    "a saved_model.pb that is a link out": (linked(PB, ""), PB),
}, inspect=3, remove=3)  # fmt: skip

# Graphs that hang together in no way that kprune could follow: their units stay.
table({"no functions": (parsed(no_functions), "'a'")}, inspect=0, remove=2)
table({
    "functions that call themselves": (parsed(calls_itself), "StatefulPartitionedCall"),
    "a shape below zero": (parsed(negative_shape), "MatMul"),
}, inspect=0, remove=3)  # fmt: skip
