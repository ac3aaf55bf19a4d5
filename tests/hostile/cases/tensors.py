"""Weights that are not those of the config: missing, too many, of other shapes and types."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import h5py
import numpy as np

from tests.formats.making import METADATA, hdf5_bytes
from tests.hostile.case import add_all
from tests.hostile.seeds import changed_weights, keras, tensors

KERNEL, BIAS = "layers/dense/vars/0", "layers/dense/vars/1"
SLOT = "optimizer/vars/3"


def with_tensor(path: str, value: Any) -> Callable[[], bytes]:
    """A file with another value of a tensor, or without it."""

    def make() -> bytes:
        held = tensors()
        held[path] = value
        return keras(weights=hdf5_bytes({p: v for p, v in held.items() if v is not None}))

    return make


def put(change: Callable[[h5py.File], Any]) -> Callable[[], bytes]:
    return lambda: changed_weights(change)


def replaced(path: str, *arguments: Any, **options: Any) -> Callable[[], bytes]:
    """A file whose tensor at a path is made by `create_dataset` with these arguments."""

    def change(file: h5py.File) -> None:
        del file[path]
        file.create_dataset(path, *arguments, **options)

    return put(change)


def renamed(old: str, new: str) -> Callable[[], bytes]:
    return put(lambda file: file.move(old, new))


def references(file: h5py.File) -> None:
    del file[KERNEL]
    file.create_dataset(KERNEL, (5, 6), h5py.ref_dtype)


def without_group(file: h5py.File) -> None:
    del file["layers/dense"]


def group_for_a_tensor(file: h5py.File) -> None:
    del file[KERNEL]
    file.create_group(KERNEL)


def tensor_for_a_group(file: h5py.File) -> None:
    del file["layers/dense"]
    file["layers/dense"] = np.zeros(3, "f4")


F = np.float32
add_all("weights", {
    "a kernel is missing": (with_tensor(KERNEL, None), KERNEL),
    "a bias is missing": (with_tensor(BIAS, None), BIAS),
    "a layer's group is missing": (put(without_group), "layers/dense"),
    "there are none": (lambda: keras(weights=hdf5_bytes({})), "layers/dense"),
    "a kernel is transposed": (with_tensor(KERNEL, np.zeros((6, 5), F)), KERNEL),
    "a kernel with an axis too many": (with_tensor(KERNEL, np.zeros((5, 6, 1), F)), KERNEL),
    "a kernel that is a number": (with_tensor(KERNEL, F(1)), KERNEL),
    "a bias that is longer": (with_tensor(BIAS, np.zeros(7, F)), BIAS),
    "an empty kernel": (with_tensor(KERNEL, np.zeros((5, 0), F)), KERNEL),
    "a kernel of texts": (with_tensor(KERNEL, np.full((5, 6), b"word")), KERNEL),
    "a kernel of texts of any length": (
        replaced(KERNEL, (5, 6), h5py.string_dtype()), KERNEL),
    "a kernel of compounds": (
        with_tensor(KERNEL, np.zeros((5, 6), [("re", "f4"), ("im", "f4")])), KERNEL),
    "a kernel of complex numbers": (with_tensor(KERNEL, np.zeros((5, 6), "c8")), KERNEL),
    "a kernel of references": (put(references), KERNEL),
    "a kernel of arrays of other lengths": (
        replaced(KERNEL, (5, 6), h5py.vlen_dtype(np.dtype("f4"))), KERNEL),
    "a kernel of 17 bytes a number": (with_tensor(KERNEL, np.zeros((5, 6), "V17")), KERNEL),
    "a kernel of no array": (replaced(KERNEL, data=h5py.Empty("f4")), KERNEL),
    "a group for a kernel": (put(group_for_a_tensor), KERNEL),
    "a kernel for a group": (put(tensor_for_a_group), "layers/dense"),
    "numbers of tensors with a hole": (renamed(BIAS, "layers/dense/vars/2"), "vars"),
    "a tensor's number that is a word": (renamed(BIAS, "layers/dense/vars/bias"), "vars"),
    "a tensor's number below zero": (renamed(BIAS, "layers/dense/vars/-1"), "vars"),
    "a tensor's number with a zero before it": (renamed(BIAS, "layers/dense/vars/01"), "vars"),
    "two layers' weights exchanged": (
        put(lambda file: (file.move("layers/dense", "layers/x"),
                          file.move("layers/dense_1", "layers/dense"),
                          file.move("layers/x", "layers/dense_1"))), KERNEL),
    "weights of Keras 2 names": (
        renamed("layers", "_layer_checkpoint_dependencies/x"), "dense/vars/0"),
})  # fmt: skip
# These are found when values are read, or moved.
add_all("weights", {
    "a tensor too many in a layer": (with_tensor("layers/dense/vars/2", np.zeros(6, F)), "vars/2"),
    "an opaque kernel that is called nothing": (
        replaced(KERNEL, data=np.zeros((5, 6), "V2")), KERNEL),
    "a kernel of four opaque bytes a number": (
        replaced(KERNEL, data=np.zeros((5, 6), "V4")), KERNEL),
}, inspect_code=0)  # fmt: skip


def provenance(value: Any) -> Callable[[], bytes]:
    """A file that says something else about what kprune did to it."""
    return lambda: keras(metadata={**METADATA, "kprune": value})


def own(**changed: Any) -> Callable[[], bytes]:
    """A file whose key `kprune` is as kprune writes it, but for some keys."""
    step = {"backend": "remove", "layers": {"a": [1]}}
    units = {"a": [0, 2, 3, 4, 5, 6]}
    whole = {"version": "0.1.0", "plan": {"version": 1, "steps": [step]}, "units": units}
    return provenance({**whole, **changed})


def steps(*values: Any) -> Callable[[], bytes]:
    return own(plan={"version": 1, "steps": list(values)})


def left(value: Any) -> Callable[[], bytes]:
    """A file that says this of the units that are left of `a`."""
    return own(units={"a": value})


def removal(units: Any) -> dict[str, Any]:
    return {"backend": "remove", "layers": {"a": units}}


add_all("provenance", {
    "a number": (provenance(3), "kprune"),
    "a text": (provenance("0.1.0"), "kprune"),
    "a list": (provenance([1]), "kprune"),
    "null": (provenance(None), "kprune"),
    "a plan that is a list": (own(plan=[1]), "kprune.plan"),
    "a plan that is a text": (own(plan="steps"), "kprune.plan"),
    "a plan nested 90 deep": (own(plan=json.loads("[" * 90 + "]" * 90)), "kprune.plan"),
    "steps that are a number": (own(plan={"steps": 3}), "kprune.plan.steps"),
    "steps that are an object": (own(plan={"steps": {"a": 1}}), "kprune.plan.steps"),
    "a step that is a number": (steps(3), "kprune.plan.steps[0]"),
    "a step that is null": (steps(None), "kprune.plan.steps[0]"),
    "a step without a backend": (steps({"layers": {"a": [1]}}), "kprune.plan.steps[0]", "backend"),
    "a step whose layers are a list": (
        steps({"backend": "mask", "layers": [1]}), "kprune.plan.steps[0].layers"),
    "a step whose backend is a list": (
        steps({"backend": ["mask"], "layers": {"a": [1]}}), "kprune.plan.steps[0].backend"),
    "a step that names no layers": (steps({"backend": "mask"}), "kprune.plan.steps[0]"),
    "a step with units that are texts": (steps(removal(["x"])), "kprune.plan.steps[0].layers"),
    "a repair that is a list": (
        steps({**removal([1]), "repair": [1]}), "kprune.plan.steps[0].repair"),
    "units that are a list": (own(units=[1]), "kprune.units"),
    "units of a layer that are null": (left(None), "kprune.units"),
    "units of a layer that are texts": (left(["0", "1"]), "kprune.units"),
    "units of a layer that are lists": (left([[0], [1], [2], [3], [4], [5]]), "kprune.units"),
    "units of a layer that are objects": (left([{}, {}, {}, {}, {}, {}]), "kprune.units"),
    "units of a layer that are fractions": (left([0.5, 1, 2, 3, 4, 5]), "kprune.units"),
    "units of a layer that are huge": (left([10**40] * 6), "kprune.units"),
    "units of a layer that are too few": (left([0, 2]), "kprune.units.a"),
    "units below zero": (left([-1, -2, -3, -4, -5, -6]), "kprune.units"),
    "a trained that is a text": (own(trained="x"), "kprune.trained"),
    "a trained that is a list": (own(trained=[1]), "kprune.trained"),
    "a trained that is huge": (own(trained=10**30), "kprune.trained"),
    "a trained below zero": (own(trained=-5), "kprune.trained"),
    "a trained that is no number": (own(trained=float("nan")), "kprune.trained"),
})  # fmt: skip
# These are of the right form, and tell of a model that there was before.
add_all("provenance", {
    "a step with units of no layer": (steps({"backend": "remove", "layers": {"zzz": [1]}}),),
    "a step with units beyond the layer": (steps(removal([10**9])),),
    "units of a layer that is not there": (own(units={"zzz": [1, 2]}),),
}, code=0, inspect_code=0)  # fmt: skip

# Keras loads a model without the state of its optimizer: what does not fit is left out, with a note.
add_all("optimizer", {
    "a slot of another shape": (with_tensor(SLOT, np.zeros((9, 9), F)),),
    "a slot too many": (with_tensor("optimizer/vars/99", np.zeros(3, F)),),
    "a slot is missing": (with_tensor(SLOT, None),),
    "an iteration that is a matrix": (with_tensor("optimizer/vars/0", np.zeros((5, 6), "i8")),),
    "a group without slots": (put(lambda file: (
        file.move("optimizer/vars", "optimizer/x"), file.create_group("optimizer/vars"))),),
}, code=0, inspect_code=0)  # fmt: skip
add_all("optimizer", {
    "a slot of compounds": (with_tensor(SLOT, np.zeros((5, 6), [("a", "f4")])), SLOT),
    "a slot that lies in another file": (
        replaced(SLOT, (5, 6), "f4", external=[("slot.bin", 0, 120)]), SLOT),
})  # fmt: skip
