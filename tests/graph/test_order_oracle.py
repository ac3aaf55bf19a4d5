"""Keras saves random graphs; names in its weights file judge where kprune looks for layers."""

from __future__ import annotations

import io
import json
import random
import zipfile
from pathlib import Path
from typing import Any

import h5py
import pytest

from kprune.graph import parse_model
from tests.graph.test_order import shuffled

pytestmark = pytest.mark.oracle


def random_model(seed: int, name: str = "model", nesting: int = 1) -> Any:
    """A Functional model of a dozen layers: branches, skips, shared layers, nested models."""
    import keras

    rng = random.Random(seed)
    layers = keras.layers
    inputs = [keras.Input((4,), name=f"{name}_in{i}") for i in range(rng.choice([1, 1, 2]))]
    tensors, called = list(inputs), []
    for number in range(12):
        label = f"{name}_{rng.randrange(10**6)}_{number}"
        kind = rng.randrange(7)
        if kind <= 2:
            found = layers.Dense(4, name=label)
        elif kind == 3:
            found = layers.Activation("relu", name=label)
        elif kind == 4 and called:
            found = rng.choice(called)
        elif kind == 5 and nesting:
            found = random_model(rng.randrange(10**6), label, nesting - 1)
        else:
            tensors.append(layers.Add(name=label)(rng.choices(tensors, k=2)))
            continue
        called.append(found)
        if isinstance(found, keras.Model):
            y = found([rng.choice(tensors) for _ in found.inputs])
        else:
            y = found(rng.choice(tensors))
        tensors.append(y[0] if isinstance(y, list) else y)
    ends = tensors[-1] if rng.random() < 0.5 else [tensors[-1], rng.choice(tensors[len(inputs) :])]
    # One list in, one list out, so that a nested model is called alike however many it has.
    return keras.Model(inputs, ends, name=name)


def names_in(path: Path) -> dict[str, str]:
    """By group of the weights file the `name` that Keras wrote beside the variables."""
    found = {}
    with zipfile.ZipFile(path) as archive:
        data = archive.read("model.weights.h5")

    def visit(group: str, item: Any) -> None:
        if group.endswith("/vars") and "name" in item.attrs:
            found[group.removesuffix("/vars")] = str(item.attrs["name"])

    with h5py.File(io.BytesIO(data)) as file:
        file.visititems(visit)
    return found


def test_each_layer_is_where_keras_stored_it_however_the_config_lists_them(tmp_path: Path) -> None:
    import keras

    several = 0
    for seed in range(25):
        model = random_model(seed)
        path = tmp_path / "model.keras"
        model.save(path)
        with zipfile.ZipFile(path) as archive:
            config = json.loads(archive.read("config.json"))
        judged = names_in(path)
        mixed = shuffled(config, seed)
        graph = parse_model(mixed)
        stored = {
            found.store: found.name for found in graph.walk() if found.store and not found.twin
        }
        assert {store: judged.get(store) for store in stored} == stored, seed
        # A nested model's own group has no name; every other one in the file is some layer's.
        assert {name for store, name in judged.items() if store not in ("", "vars")} <= {
            *stored.values(),
            model.name,
        }, seed
        again = keras.Model.from_config(mixed["config"])
        kept = [found.name for found in graph.layers.values() if not found.is_operation]
        assert [found.name for found in again.layers] == kept, seed
        several += any(store.endswith("dense_3") for store in stored)
    assert several >= 5  # the graphs were not trivial
