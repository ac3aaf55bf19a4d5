"""Zeroing: which entries of which weights, checked entry by entry."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from kprune.edit import Edit
from kprune.errors import CannotPruneError
from kprune.labels.closure import close
from kprune.surgery.zero import SILENT, SILENT_FLOAT16, zero, zero_through
from tests.small_models import Network, analysed, arrays, layer, sequential


def filled(tensors: dict[str, np.ndarray], edit: Edit) -> dict[str, np.ndarray]:
    """The tensors after an edit's fills."""
    after = {path: value.copy() for path, value in tensors.items()}
    for tensor in edit.tensors:
        assert tensor.keep == () and tensor.source == tensor.path
        for fill in tensor.fills:
            index: list[Any] = [np.arange(size) for size in after[tensor.path].shape]
            index[fill.axis] = fill.positions
            for axis, positions in fill.within:
                index[axis] = np.intersect1d(index[axis], positions)
            after[tensor.path][np.ix_(*index)] = fill.value
    return after


def zeroed(config: Any, through: bool = False, **units: list[int]) -> dict[str, np.ndarray]:
    """By path of each weight that changed, where it is now 0."""
    tensors = {path: np.ones_like(value) for path, value in arrays(config).items()}
    model = analysed(config, tensors)
    chosen = {name: np.array(indices) for name, indices in units.items()}
    edit = zero_through(model, close(model.groups, chosen)) if through else zero(model, chosen)
    after = filled(tensors, edit)
    return {path: value == 0 for path, value in after.items() if (value == 0).any()}


def only(shape: tuple[int, ...], *index: Any) -> np.ndarray:
    expected = np.zeros(shape, bool)
    for one in index:
        expected[one] = True
    return expected


def same(found: dict[str, np.ndarray], expected: dict[str, np.ndarray]) -> None:
    assert found.keys() == expected.keys()
    for path, where in expected.items():
        np.testing.assert_array_equal(found[path], where, err_msg=path)


def test_a_dense_unit_is_its_column_and_its_bias() -> None:
    config = sequential(layer("Dense", "a", units=4), layer("Dense", "out", units=2), shape=[3])
    same(
        zeroed(config, a=[1, 3]),
        {
            "layers/dense/vars/0": only((3, 4), np.s_[:, 1], np.s_[:, 3]),
            "layers/dense/vars/1": only((4,), 1, 3),
        },
    )


def test_a_kernel_that_the_file_holds_twice_is_zeroed_twice() -> None:
    inner = layer("Dense", "inner", units=4)
    config = sequential(
        layer("SpectralNormalization", "a", layer=inner, power_iterations=1),
        layer("Dense", "out", units=2),
        shape=[3],
    )
    same(
        zeroed(config, a=[1]),
        {
            "layers/spectral_normalization/vars/0": only((3, 4), np.s_[:, 1]),
            "layers/spectral_normalization/layer/vars/0": only((3, 4), np.s_[:, 1]),
            "layers/spectral_normalization/layer/vars/1": only((4,), 1),
        },
    )


def test_a_recurrent_unit_is_its_columns_in_every_gate_and_its_bias() -> None:
    config = sequential(layer("LSTM", "r", units=3), layer("Dense", "out", units=2), shape=[5, 2])
    gates = np.s_[..., 1::3]
    same(
        zeroed(config, r=[1]),
        {
            "layers/lstm/cell/vars/0": only((2, 12), gates),
            "layers/lstm/cell/vars/1": only((3, 12), gates),
            "layers/lstm/cell/vars/2": only((12,), gates),
        },
    )


def test_a_depthwise_unit_is_one_multiple_of_one_input() -> None:
    config = sequential(
        layer("DepthwiseConv2D", "d", depth_multiplier=2), layer("Conv2D", "out", filters=2),
        shape=[4, 4, 3],
    )  # fmt: skip
    same(
        zeroed(config, d=[3]),
        {
            "layers/depthwise_conv2d/vars/0": only((3, 3, 3, 2), np.s_[:, :, 1, 1]),
            "layers/depthwise_conv2d/vars/1": only((6,), 3),
        },
    )


def test_zero_through_takes_what_consumers_and_normalisations_hold_as_well() -> None:
    config = sequential(
        layer("Conv2D", "c", filters=3, kernel_size=[1, 1]), layer("BatchNormalization", "bn"),
        layer("Flatten", "flat"), layer("Dense", "out", units=2), shape=[2, 2, 1],
    )  # fmt: skip
    same(
        zeroed(config, through=True, c=[2]),
        {
            "layers/conv2d/vars/0": only((1, 1, 1, 3), np.s_[..., 2]),
            "layers/conv2d/vars/1": only((3,), 2),
            **{f"layers/batch_normalization/vars/{i}": only((3,), 2) for i in range(4)},
            "layers/dense/vars/0": only((12, 2), np.s_[2::3]),
        },
    )


def test_zero_through_a_grouped_kernel_takes_each_groups_own_rows() -> None:
    net = Network()
    x = net("Conv2D", "a", net.input("in", 4, 4, 3), filters=4)
    x = net("Conv2D", "g", x, filters=6, groups=2)
    found = zeroed(net.functional(net("Conv2D", "out", x, filters=2)), through=True, a=[1, 2])
    # Input 1 is the second of group 0 (filters 0-2), input 2 the first of group 1 (filters 3-5).
    np.testing.assert_array_equal(
        found["layers/conv2d_1/vars/0"],
        only((3, 3, 2, 6), np.s_[:, :, 1, :3], np.s_[:, :, 0, 3:]),
    )


@pytest.mark.parametrize(("kind", "low"), [(np.float32, SILENT), (np.float16, SILENT_FLOAT16)])
def test_a_silenced_class_gets_a_bias_whose_exponential_is_0(kind: Any, low: float) -> None:
    config = sequential(layer("Dense", "out", units=4, activation="softmax"), shape=[3])
    tensors = {path: value.astype(kind) for path, value in arrays(config).items()}
    model = analysed(config, tensors)
    after = filled(tensors, zero(model, {"out": np.array([2])}, silence=True))
    bias = after["layers/dense/vars/1"]
    assert bias[2] == kind(low) and np.isfinite(bias[2]) and np.exp(bias[2]) == 0
    assert (after["layers/dense/vars/0"][:, 2] == 0).all()


def test_a_layer_without_bias_cannot_be_silenced() -> None:
    config = sequential(layer("Dense", "out", units=4, use_bias=False), shape=[3])
    with pytest.raises(CannotPruneError, match="'out' has no bias"):
        zero(analysed(config), {"out": np.array([0])}, silence=True)
