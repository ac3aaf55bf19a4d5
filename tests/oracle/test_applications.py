"""Every keras.applications model, with 30 % of all units that can go removed at once.

Weights and statistics are random, inputs smaller than usual, and the softmax at the top is left
off: it would hide differences. Plain Keras is the judge (`masked.py`). Each kind of block in
`make test`, built by Keras' own functions but fewer and narrower; all forty models in `make
nightly`; with `-s` each prints its line of the table.
"""

from __future__ import annotations

import time
import zlib
from functools import partial

import keras
import numpy as np
import pytest
from keras.src.applications import convnext, densenet, efficientnet, resnet

from kprune.verbs.change import remove
from tests.oracle.choosing import choose
from tests.oracle.law import TOLERANCE, difference, outputs, randomize
from tests.oracle.masked import MaskedOriginal

pytestmark = pytest.mark.oracle

FAMILIES = {
    "ConvNeXt": ["Tiny", "Small", "Base", "Large", "XLarge"],
    "DenseNet": ["121", "169", "201"],
    "EfficientNetB": list("01234567"),
    "EfficientNetV2": ["B0", "B1", "B2", "B3", "S", "M", "L"],
    "Inception": ["V3", "ResNetV2"],
    "MobileNet": ["", "V2", "V3Small", "V3Large"],
    "NASNet": ["Mobile", "Large"],
    "ResNet": ["50", "101", "152", "50V2", "101V2", "152V2"],
    "VGG": ["16", "19"],
    "Xception": [""],
}
ALL = [family + kind for family, kinds in FAMILIES.items() for kind in kinds]
LARGER = {"InceptionV3": 96, "InceptionResNetV2": 96, "Xception": 96}


def test_the_list_of_models_is_that_of_keras():
    found = [name for name in dir(keras.applications) if name[0].isupper()]
    assert sorted(ALL) == sorted(found) and len(ALL) == 40


def build(name: str):
    size = LARGER.get(name, 64)
    make = getattr(keras.applications, name)
    return make(weights=None, input_shape=(size, size, 3), classifier_activation=None)


def res_net(stack, **options):
    def stacks(x):
        return stack(stack(x, 12, 2, stride1=1, name="conv2"), 16, 2, name="conv3")

    return resnet.ResNet(stacks, use_bias=True, **options)


# The same blocks, fewer and narrower.
SMALL = {
    "ConvNeXt": partial(convnext.ConvNeXt, (1, 1, 2, 1), (12, 16, 24, 32)),
    "DenseNet": partial(densenet.DenseNet, [2, 2, 2, 1]),
    "EfficientNet": partial(efficientnet.EfficientNet, 0.4, 0.4, 64),
    "MobileNetV2": partial(keras.applications.MobileNetV2, alpha=0.35),
    "MobileNetV3": partial(keras.applications.MobileNetV3Small, alpha=0.5),
    "ResNet": partial(res_net, resnet.stack_residual_blocks_v1, preact=False),
    "ResNetV2": partial(res_net, resnet.stack_residual_blocks_v2, preact=True),
}


def build_small(name: str):
    return SMALL[name](
        weights=None, input_shape=(64, 64, 3), classes=10, classifier_activation=None
    )


def check(name: str, original, folder) -> None:
    started = time.perf_counter()
    seed = zlib.crc32(name.encode())
    before, after = folder / "before.keras", folder / "after.keras"
    randomize(original, seed).save(before)
    units = choose(before, 0.3, seed)
    report = remove(str(before), units, output=str(after))
    assert report.exact, report.notes
    size = original.inputs[0].shape[1]
    inputs = np.random.default_rng(seed).uniform(0, 255, (2, size, size, 3)).astype("float32")
    (whole,) = outputs(original, inputs)
    (masked,) = MaskedOriginal(original, report.changed)(inputs)
    assert not masked.gone.any()
    counted = original.count_params()
    del original
    pruned = keras.models.load_model(after, compile=False)
    (got,) = outputs(pruned, inputs)
    worst = difference(got, masked.array)
    print(
        f"\n{name:<18} {counted:>11,} -> {pruned.count_params():>11,}  "
        f"units {report.input.units:>6,} -> {report.output.units:>6,}  "
        f"difference {worst:.1e}  {time.perf_counter() - started:5.1f} s"
    )
    assert report.input.parameters == counted
    assert report.output.parameters == pruned.count_params()
    assert pruned.count_params() < 0.9 * counted
    assert worst <= TOLERANCE
    assert difference(masked.array, whole) > 100 * TOLERANCE, "the units would not have been missed"
    keras.utils.clear_session()


@pytest.mark.parametrize("name", SMALL)
def test_an_application_of_few_blocks_pruned_at_random_equals_the_masked_original(name, tmp_path):
    check(name, build_small(name), tmp_path)


@pytest.mark.nightly
@pytest.mark.parametrize("name", ALL)
def test_every_application_pruned_at_random_equals_the_masked_original(name, tmp_path):
    check(name, build(name), tmp_path)
