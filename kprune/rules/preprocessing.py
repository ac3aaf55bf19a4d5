"""Preprocessing that only changes values (keras/src/layers/preprocessing)."""

from __future__ import annotations

from typing import Any

import numpy as np

from kprune.labels.labels import Labels, Shape
from kprune.rules.shapes import replaced, spatial_axes
from kprune.tracing.layer_call import LayerCall
from kprune.tracing.registry import LAYERS


@LAYERS.rule("Rescaling", does="passes")
def rescaling(call: LayerCall) -> Labels:
    """scale and offset may be numbers, or arrays along the last axes, which are cut"""
    for field in ("scale", "offset"):
        value = call.config[field]
        if isinstance(value, dict):
            value = value["config"]["value"]
        depth = 0
        sizes = []
        while isinstance(value, list):
            sizes.append(len(value))
            value, depth = value[0], depth + 1
        if not depth:
            continue
        rank = len(call.shape())
        axes = [call.x.axis(rank - depth + i) if size != 1 else 1 for i, size in enumerate(sizes)]
        call.constant(field, *axes)
    return call.x.with_keeps_zero(call.x.keeps_zero and not np.any(_number(call.config["offset"])))


def _number(value: Any) -> Any:
    return value["config"]["value"] if isinstance(value, dict) else value


PASSING = (
    "CenterCrop RandomBrightness RandomContrast RandomCrop RandomErasing RandomFlip RandomGaussianBlur RandomInvert "
    "RandomPerspective RandomRotation RandomSharpness RandomShear RandomTranslation RandomZoom RandomElasticTransform "
    "Resizing"
).split()
HOLDING = {
    "works on the colours of pictures": (
        "AugMix AutoContrast ContrastLimitedAdaptiveHistogramEqualization CutMix Equalization MixUp RandAugment "
        "RandomColorDegeneration RandomColorJitter RandomGrayscale RandomHue RandomPosterization RandomSaturation "
        "Solarization MaxNumBoundingBoxes"
    ),
    "turns values into numbers of bins, categories or tokens": (
        "CategoryEncoding Discretization HashedCrossing Hashing IntegerLookup StringLookup TextVectorization"
    ),
    "is a transform along whole axes": "MelSpectrogram STFTSpectrogram",
    "runs a program of another framework": "FlaxLayer JaxLayer TFSMLayer TorchModuleWrapper",
    "holds layers that kprune does not look into": "Pipeline Wrapper",
    "is the base class of layers, and does nothing": "Layer",
    "is a part of a recurrent layer, not a layer to be called": "LSTMCell GRUCell SimpleRNNCell StackedRNNCells",
}
ONE_BY_ONE = frozenset("Discretization HashedCrossing Hashing IntegerLookup StringLookup".split())


@LAYERS.rule(*PASSING, does="passes", note="pixel by pixel or position by position; channels pass")
def positions_change(call: LayerCall) -> Labels:
    shape = call.shape()
    spatial = [
        axis for axis in spatial_axes(call.config.get("data_format"), len(shape)) if len(shape) > 2
    ]
    x = call.keep_axes_whole(
        call.x, spatial, f"stand along an axis that {call.layer.path!r} changes"
    )
    sizes = [call.config.get("height"), call.config.get("width")]
    if call.kind in ("CenterCrop", "RandomCrop", "Resizing") and None not in sizes:
        return x.with_shape(replaced(shape, spatial[-2:], sizes)).with_keeps_zero(False)
    return x.with_keeps_zero(False)


def _encoded(call: LayerCall) -> Shape | None:
    """The shape of numbers of bins, categories or tokens, which a legacy `.h5` does not record; None if open."""
    shape, config = call.x.shape, call.config
    if shape is None or len(shape) < 2:
        return None
    if call.kind == "CategoryEncoding":
        mode = config.get("output_mode", "multi_hot")
        if mode == "one_hot" and shape[-1] != 1:
            return None if shape[-1] is None else (*shape, config["num_tokens"])
        return (*shape[:-1], config["num_tokens"])
    if config.get("output_mode", "int") != "int":
        depth = config.get("max_tokens" if config.get("pad_to_max_tokens") else "vocabulary_size")
        counted = call.kind in ("IntegerLookup", "StringLookup") and isinstance(depth, int)
        spread = config["output_mode"] == "one_hot" and shape[-1] != 1
        return (shape[0], depth) if counted and not spread and len(shape) == 2 else None
    if call.kind == "TextVectorization":
        return (shape[0], config.get("output_sequence_length"))
    return shape if call.kind in ONE_BY_ONE else None


def _hold(reason: str, names: list[str]) -> None:
    @LAYERS.rule(*names, does="opaque", note=reason)
    def hold(call: LayerCall) -> Any:
        result = call.opaque(f"{call.layer.path!r} ({call.kind}) {reason}")
        if isinstance(result, Labels) and result.shape is None and call.xs:
            return result.with_shape(_encoded(call))
        return result


for _reason, _names in HOLDING.items():
    _hold(_reason, _names.split())
