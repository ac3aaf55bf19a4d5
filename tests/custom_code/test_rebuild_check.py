"""A custom layer that Keras would not build as its smaller inputs need it holds its units, and says why."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import pytest
from keras import ops

from kprune.errors import CannotPruneError
from kprune.verbs.change import remove
from tests.custom_code.custom_layers import Configured, check, custom, refused, saved

pytestmark = pytest.mark.oracle


@custom
class Fixed(Configured):
    """As wide as its config says by a sum, whatever comes in."""

    FIELDS: ClassVar[Mapping[str, Any]] = {"half": 4}

    def build(self, shape: Any) -> None:
        self.scale = self.add_weight(name="scale", shape=(2 * self.given["half"],))
        self.built = True

    def call(self, x: Any) -> Any:
        return x * self.scale


def test_a_width_in_the_config_stays(tmp_path: Path) -> None:
    refused(saved(tmp_path, Fixed(name="own")), "traced_tests>Fixed", "does not take fewer units")


@custom
class Unread(Fixed):
    """Holds a weight of its inputs' width that its code does not read in inference."""

    def build(self, shape: Any) -> None:
        self.scale = self.add_weight(name="scale", shape=(shape[-1],))
        self.built = True

    def call(self, x: Any, training: bool = False) -> Any:
        return x * self.scale if training else ops.relu(x)


def test_a_weight_that_follows_the_input_and_is_not_read_holds_it(tmp_path: Path) -> None:
    refused(saved(tmp_path, Unread(name="own")), "scale of shape (7,) where (8,) would be needed")


@custom
class ByWidth(Configured):
    def call(self, x: Any) -> Any:
        return x / float(x.shape[-1])


def test_code_that_computes_with_the_number_of_channels_holds_them(tmp_path: Path) -> None:
    refused(saved(tmp_path, ByWidth(name="own")), "computes with the number of units")


@custom
class Positions(Configured):
    def call(self, x: Any) -> Any:
        return x * ops.arange(x.shape[-1], dtype="float32")


def test_numbers_made_of_the_positions_of_channels_hold_them(tmp_path: Path) -> None:
    refused(saved(tmp_path, Positions(name="own")), "computes with the number of units")


@custom
class FirstFour(Configured):
    def call(self, x: Any) -> Any:
        return x[..., :4]


def test_a_slice_at_a_fixed_place_holds_what_is_before_it(tmp_path: Path) -> None:
    refused(saved(tmp_path, FirstFour(name="own")), "computes with the number of units")


@custom
class Narrow(Configured):
    """Does something else where fewer than four channels come in."""

    def call(self, x: Any) -> Any:
        return ops.tanh(x) if x.shape[-1] < 4 else ops.relu(x)


def test_a_choice_that_was_not_tried_before_is_held_against_keras(tmp_path: Path) -> None:
    path = saved(tmp_path, Narrow(name="own"))
    check(path, {}, [1, 4, 6])
    with pytest.raises(CannotPruneError, match="cannot be removed together") as caught:
        remove(path, {"a": [0, 1, 2, 3, 4]}, dry_run=True, trust=True)
    assert "computes with the number of units" in caught.value.why
