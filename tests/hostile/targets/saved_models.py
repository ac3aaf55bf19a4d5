"""Parts of a SavedModel."""

from __future__ import annotations

import os
from functools import cached_property
from pathlib import Path

import numpy as np

from tests.hostile import seeds
from tests.hostile.mutations import (
    Op,
)
from tests.hostile.targets.target import Bytes


class SavedModel(Bytes):
    """One part of a SavedModel folder."""

    file = "bad_saved"
    part: str
    tensorflow = True

    @cached_property
    def parts(self) -> dict[str, bytes]:
        folder = Path(os.environ[seeds.SAVED])
        return {
            str(path.relative_to(folder)): path.read_bytes()
            for path in folder.rglob("*")
            if path.is_file()
        }

    def files(self) -> list[bytes]:
        return [self.parts[self.part]]

    def write(self, ops: list[Op], folder: Path) -> None:
        for name, content in (self.parts | {self.part: self.changed(ops)}).items():
            path = folder / self.file / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)

    @property
    def output(self) -> str:
        return "out"


class Graph(SavedModel):
    """saved_model.pb."""

    name, part, weight = "savedmodel-pb", "saved_model.pb", 1


class Index(SavedModel):
    """The checkpoint's table."""

    name, part, weight = "savedmodel-index", "variables/variables.index", 0.5

    def judged(self, folder: Path) -> str:
        import tensorflow as tf

        cut = {"a/.ATTRIBUTES/VARIABLE_VALUE": 1, "bias/.ATTRIBUTES/VARIABLE_VALUE": 0,
               "b/.ATTRIBUTES/VARIABLE_VALUE": 0}  # fmt: skip
        try:
            one, other = (
                tf.train.load_checkpoint(str(folder / name / "variables/variables"))
                for name in (self.file, self.output)
            )
            for key in other.get_variable_to_shape_map():
                wanted, found = one.get_tensor(key), other.get_tensor(key)
                if key in cut:
                    wanted = np.delete(wanted, 1, axis=cut[key])
                if not np.array_equal(wanted, found):
                    return f"{key} is not what TensorFlow and numpy make of it"
        except Exception as error:
            return f"taken, but TensorFlow does not read it: {error}"[:160]
        return ""


class Shard(Index):
    """The checkpoint's values."""

    name, part, weight = "savedmodel-shard", "variables/variables.data-00000-of-00001", 0.5
