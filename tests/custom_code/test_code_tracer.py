"""Code of custom layers that makes no graph to go by is refused, and the reason is told."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import keras
import pytest
from keras import layers, ops

from kprune.errors import DamagedFileError
from kprune.verbs.change import remove
from tests.custom_code.custom_layers import UNITS, Configured, custom, refused, saved

pytestmark = pytest.mark.oracle


@custom
class Raw(Configured):
    def call(self, x: Any) -> Any:
        import tensorflow as tf

        return x * tf.reduce_mean(x)


def test_code_that_is_tensorflows_cannot_be_traced_and_says_so(tmp_path: Path) -> None:
    path = saved(tmp_path, Raw(name="own"))
    refused(path, "cannot be traced", "ValueError: A KerasTensor cannot be used")


@custom
class Noisy(Configured):
    def call(self, x: Any) -> Any:
        return x * keras.random.uniform((8,))


@custom
class ByValue(Configured):
    """Reads the values of a layer inside it."""

    def build(self, shape: Any) -> None:
        self.dense = layers.Dense(shape[-1])
        self.dense.build(shape)
        self.built = True

    def call(self, x: Any) -> Any:
        return x * ops.sum(self.dense.kernel)


@pytest.mark.parametrize("kind", [Noisy, ByValue])
def test_code_whose_numbers_are_in_no_file_holds_the_channels(kind: Any, tmp_path: Path) -> None:
    refused(saved(tmp_path, kind(name="own")), "random numbers or with the values of its weights")


@custom
class Direct(ByValue):
    def call(self, x: Any) -> Any:
        return ops.matmul(x, self.dense.kernel)


def test_the_weights_of_a_keras_layer_inside_are_its_own(tmp_path: Path) -> None:
    refused(saved(tmp_path, Direct(name="own")), "uses the weights of a layer inside it directly")


@custom
class Forgetful(Configured):
    """Its config does not hold what it was built with."""

    def __init__(self, width: int = 3, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.width = width

    def build(self, shape: Any) -> None:
        self.up = self.add_weight(name="up", shape=(shape[-1], self.width))
        self.built = True

    def call(self, x: Any) -> Any:
        return ops.matmul(x, self.up)


def test_a_config_that_builds_another_layer_is_found_out(tmp_path: Path) -> None:
    path = saved(tmp_path, Forgetful(5, name="own"))
    with pytest.raises(DamagedFileError, match=r"up of 'own' has shape \(8, 5\) in the file"):
        remove(path, {"a": UNITS}, dry_run=True, trust=True)
