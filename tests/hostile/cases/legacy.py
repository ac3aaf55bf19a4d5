"""Legacy `.h5` files: the architecture stands in attributes, and order says which tensor is whose."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import h5py
import numpy as np

from tests.hostile.case import add_all
from tests.hostile.seeds import legacy, legacy_config
from tests.hostile.structures import ATTRIBUTE, Hdf5

KERNEL = "model_weights/a/a/kernel"


def changed(change: Callable[[h5py.File], Any], **options: Any) -> Callable[[], bytes]:
    return lambda: legacy(change, **options)


def told(name: str, value: Any, group: str = "/", version: int = 3) -> Callable[[], bytes]:
    """A file with another value of an attribute; None leaves it out."""

    def change(file: h5py.File) -> None:
        del file[group].attrs[name]
        if value is not None:
            file[group].attrs[name] = value

    return changed(change, version=version)


def described(text: str) -> Callable[[], bytes]:
    return lambda: legacy(config=text)


def without(path: str) -> Callable[[], bytes]:
    return changed(lambda file: file.__delitem__(path))


def damaged(change: Callable[[Hdf5], Any]) -> Callable[[], bytes]:
    def make() -> bytes:
        made = Hdf5(legacy())
        change(made)
        return bytes(made.data)

    return make


def attribute(number: int, at: int, value: int, size: int) -> Callable[[], bytes]:
    """A file with other bytes in an attribute of the root."""
    return damaged(lambda f: f.put(f.message("/", ATTRIBUTE, number) + at, value, size))


def kernel_of(shape: tuple[int, ...], dtype: Any = "f4") -> Callable[[], bytes]:
    def change(file: h5py.File) -> None:
        del file[KERNEL]
        file[KERNEL] = np.zeros(shape, dtype)

    return changed(change)


def counted(f: Hdf5) -> None:
    """A list of layer names that says it is a million million long."""
    f.put(f.message("model_weights", ATTRIBUTE) + 40, 1 << 40)


def repeated_text() -> bytes:
    """Thousands of entries of a list of texts that all lead to one long text."""
    count = 3500

    def change(file: h5py.File) -> None:
        kind = h5py.string_dtype()
        values = np.array(["y" * 400_000, *["z"] * (count - 1)], dtype=kind)
        file["model_weights"].attrs.create("many", values, dtype=kind)

    made = Hdf5(legacy(change))
    at = made.data.index(b"many\0")
    long = (400_000).to_bytes(4, "little")
    start = made.data.index(long, at)
    entry = bytes(made.data[start : start + 16])
    for number in range(count):
        made.put(start + 16 * number, entry)
    return bytes(made.data)


NESTED = json.dumps(legacy_config()).replace('"units": 6', '"units": ' + "[" * 900 + "]" * 900)
add_all("legacy", {
    "no model_config": (told("model_config", None), "weights"),
    "a model_config that is empty": (described(""), "model_config"),
    "a model_config that is no JSON": (described("Sequential"), "model_config"),
    "a model_config that is a list": (described("[]"), "model_config"),
    "a model_config that is null": (described("null"), "model_config"),
    "a model_config nested 900 deep": (described(NESTED),),
    "a model_config nested a million deep": (described("[" * 10**6), "model_config"),
    "a model_config that is a number": (told("model_config", 3), "model_config"),
    "a model_config that is a matrix": (told("model_config", np.zeros((3, 3))), "model_config"),
    "a model_config that is no UTF-8": (told("model_config", np.bytes_(b"\xff\xfe{")),),
    "a training_config that is no JSON": (told("training_config", "adam"), "training_config"),
    "a training_config that is a list": (told("training_config", "[]"), "training_config"),
    "no layer_names": (told("layer_names", None, "model_weights"), "'a'"),
    "layer_names that are a number": (told("layer_names", 3, "model_weights"), "layer_names"),
    "layer_names that are numbers": (told("layer_names", [1, 2], "model_weights"), "layer_names"),
    "a layer name of no group": (
        told("layer_names", [b"x", b"a", b"nobody"], "model_weights"), "nobody"),
    "a layer name given twice": (
        told("layer_names", [b"x", b"a", b"a"], "model_weights"), "layer_names"),
    "a layer name that climbs": (
        told("layer_names", [b"x", b"../model_weights/a", b"b"], "model_weights"), "model_weights"),
    "layers in another order": (
        told("layer_names", [b"x", b"b", b"a"], "model_weights"),),
    "no weight_names": (told("weight_names", None, "model_weights/a"), "'a'"),
    "a weight name of no dataset": (
        told("weight_names", [b"a/kernel", b"a/nothing"], "model_weights/a"), "a/nothing"),
    "a weight name given twice": (
        told("weight_names", [b"a/kernel", b"a/kernel"], "model_weights/a"), "model_weights/a"),
    "weight names in another order": (
        told("weight_names", [b"a/bias", b"a/kernel"], "model_weights/a"), "a/"),
    "a weight name that climbs": (
        told("weight_names", [b"a/kernel", b"../b/b/bias"], "model_weights/a"), "b/bias"),
    "weight names that are numbers": (
        told("weight_names", np.zeros(2), "model_weights/a"), "weight_names"),
    "a weight name too many": (
        told("weight_names", [b"a/kernel", b"a/bias", b"a/more"], "model_weights/a"), "a/more"),
    "no group of weights": (without("model_weights"), "model_weights"),
    "no group of a layer": (without("model_weights/a"), "layer_names"),
    "no kernel": (without(KERNEL), "a/kernel"),
    "a kernel of another shape": (kernel_of((6, 6)), "a/kernel"),
    "a kernel of texts": (kernel_of((5, 6), "S4"), "a/kernel"),
    "a kernel of complex numbers": (kernel_of((5, 6), "c16"), "a/kernel"),
    "a soft link for a layer": (changed(lambda file: (
        file["model_weights"].move("a", "c"),
        file.__setitem__("model_weights/a", h5py.SoftLink("/model_weights/c")))), "model_weights/a"),
    "an external link for a layer": (changed(lambda file: (
        file.__delitem__("model_weights/a"),
        file.__setitem__("model_weights/a", h5py.ExternalLink("good.h5", "/model_weights/a")))),
        "model_weights/a"),
    "no HDF5 behind the signature": (lambda: b"\x89HDF\r\n\x1a\n" + bytes(500),),
    "only the signature": (lambda: b"\x89HDF\r\n\x1a\n",),
    "cut in half": (lambda: legacy()[:6000],),
    "cut by a byte": (lambda: legacy()[:-1],),
    "an end beyond the file": (damaged(lambda f: f.put(40, 1 << 40)),),
    "an attribute of a million million texts": (damaged(counted),),
    "an attribute of version 9": (attribute(2, 0, 9, 1),),
    "an attribute whose type is 65,535 bytes long": (attribute(2, 4, 0xFFFF, 2),),
    "an attribute whose shape is 65,535 bytes long": (attribute(2, 6, 0xFFFF, 2),),
    "a heap of texts without its signature": (damaged(lambda f: f.put(f.find(b"GCOL"), 0, 4)),),
    "a heap of texts larger than the file": (damaged(lambda f: f.put(f.find(b"GCOL") + 8, 1 << 40)),),
    "a heap of texts of no size": (damaged(lambda f: f.put(f.find(b"GCOL") + 8, 0)),),
    "a text in the heap larger than the heap": (
        damaged(lambda f: f.put(f.find(b"GCOL") + 16 + 8, 1 << 40)),),
    "thousands of names of one long text": (repeated_text,),
}, file="bad.h5")  # fmt: skip
