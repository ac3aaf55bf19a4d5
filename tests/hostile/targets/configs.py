"""Data in JSON: configs, and what kprune records of its own pruning."""

from __future__ import annotations

import json
import random
from abc import abstractmethod
from functools import cache, cached_property
from pathlib import Path
from typing import Any

from tests.formats.making import METADATA, tensors_in
from tests.hostile import seeds
from tests.hostile.mutations import (
    Op,
    apply_data,
    draw_data,
    paths,
)
from tests.hostile.targets.target import Target
from tests.hostile.targets.weights import weights_in
from tests.small_models import Network, arrays


class Data(Target):
    """An input in which JSON data are changed; the first change says which of several."""

    @cached_property
    def sources(self) -> list[Any]:
        return self.trees()

    @cached_property
    def places(self) -> list[list[tuple[Any, ...]]]:
        return [paths(tree) for tree in self.sources]

    @abstractmethod
    def trees(self) -> list[Any]:
        """The good data."""

    def draw(self, rng: random.Random) -> list[Op]:
        number = rng.randrange(len(self.sources))
        return [["of", number], *draw_data(rng, self.sources[number], self.places[number])]

    def changed(self, ops: list[Op]) -> Any:
        (_, number), *changes = ops if ops and ops[0][0] == "of" else [["of", 0], *ops]
        return apply_data(self.sources[number], changes)


@cache
def networks() -> list[tuple[dict[str, Any], bytes]]:
    """Configs of many kinds of layers, each with its weights."""
    from tests.formats.making import hdf5_bytes
    from tests.small_models import layer, sequential

    found = [seeds.config() | {"compile_config": seeds.COMPILED}]
    net = Network()
    x = net("Conv2D", "a", net.input("in", 8, 8, 3), filters=6, padding="same")
    y = net("Conv2D", "c", x, filters=6, padding="same")
    x = net("Add", "add", [net("BatchNormalization", "bn", y), x])
    x = net("MaxPooling2D", "pool", x, shape=(None, 4, 4, 6))
    x = net("Flatten", "flat", x, shape=(None, 96))
    found.append(net.functional(net("Dense", "b", x, units=3)))
    net = Network()
    one, two = net.input("in", 7, 5), net.input("other", 7, 5)
    x = net("Concatenate", "join", [one, two], shape=(None, 7, 10), axis=-1)
    x = net("Dense", "a", x, units=6)
    x = net("LayerNormalization", "norm", net("Dropout", "drop", x))
    x = net("Reshape", "shape", x, shape=(None, 42), target_shape=[42])
    found.append(net.functional(net("Dense", "b", x, units=3), net("Dense", "c", x, units=2)))
    found.append(
        sequential(
            layer("Dense", "a", units=6),
            layer("ReLU", "relu"),
            layer("Dense", "b", units=3),
            shape=(5,),
        )
    )
    return [(config, hdf5_bytes(arrays(config))) for config in found]


class Config(Data):
    """config.json."""

    name = "config"
    weight = 6

    def trees(self) -> list[Any]:
        return [config for config, _ in networks()]

    def write(self, ops: list[Op], folder: Path) -> None:
        number = ops[0][1] if ops and ops[0][0] == "of" else 0
        made = seeds.keras(config=_json(self.changed(ops)), weights=networks()[number][1])
        (folder / self.file).write_bytes(made)

    def judged(self, folder: Path) -> str:
        """Tensors that keep their shape keep their values; the others lose a position."""
        try:
            before, after = (tensors_in(weights_in(folder / n)) for n in (self.file, self.output))
        except Exception as error:
            return f"output that h5py does not read: {error}"[:160]
        for path in after:
            one, other = before[path], after[path]
            if path.startswith("optimizer/"):
                continue
            if one.shape == other.shape:
                if one.tobytes() != other.tobytes():
                    return f"{path} keeps its shape and changes its values"
            elif one.ndim != other.ndim or not all(
                # Behind a Reshape a unit is several positions.
                a - b in (0, 1, 7)
                for a, b in zip(one.shape, other.shape, strict=True)
            ):
                return f"{path} has shape {other.shape} instead of {one.shape}"
        return ""


def _json(value: Any) -> bytes:
    return json.dumps(value).encode()


class Provenance(Data):
    """metadata.json, with what kprune wrote there."""

    name = "provenance"
    weight = 3

    def trees(self) -> list[Any]:
        steps = [
            {"backend": "remove", "layers": {"a": [1, 4]}, "repair": "lstsq"},
            {"backend": "mask", "layers": {"a": [2], "b": "all"}},
        ]
        plan = {"version": 1, "steps": steps}
        units = {"a": [0, 2, 3, 5, 6, 7], "b": [0, 1, 3]}
        own = {"version": "0.1.0", "plan": plan, "units": units, "trained": 1}
        return [{**METADATA, "kprune": own}]

    def write(self, ops: list[Op], folder: Path) -> None:
        made = seeds.keras(metadata=_json(self.changed(ops)))
        (folder / self.file).write_bytes(made)

    def commands(self, ops: list[Op]) -> list[list[str]]:
        unmask = ["unmask", self.file, "-o", self.output, "--force"]
        return [unmask, *super().commands(ops)]

    def judged(self, folder: Path) -> str:
        return ""


class LegacyConfig(Data):
    """The attributes `model_config` and `training_config` of a legacy file."""

    name = "legacy-config"
    file = "bad.h5"
    weight = 1

    def trees(self) -> list[Any]:
        return [seeds.legacy_config(), seeds.legacy_config(2)]

    def write(self, ops: list[Op], folder: Path) -> None:
        version = 2 if ops and ops[0] == ["of", 1] else 3
        made = seeds.legacy(config=json.dumps(self.changed(ops)), version=version)
        (folder / self.file).write_bytes(made)
