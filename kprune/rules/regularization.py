"""Dropout and noise (keras/src/layers/regularization): nothing happens when the model is used."""

from __future__ import annotations

from kprune.labels.labels import Labels
from kprune.tracing.layer_call import LayerCall
from kprune.tracing.registry import LAYERS


@LAYERS.rule(
    "Dropout", "AlphaDropout", "GaussianDropout", "GaussianNoise",
    "SpatialDropout1D", "SpatialDropout2D", "SpatialDropout3D",
    does="passes", values="same",
)  # fmt: skip
def noise(call: LayerCall) -> Labels:
    """passes its input on unchanged; active in training only"""
    noise_shape = call.config.get("noise_shape")
    if noise_shape is not None:
        for axis, size in enumerate(noise_shape):
            if size not in (None, 1) and axis > 0 and axis < call.x.rank:
                call.size(("noise_shape", axis), call.x.axis(axis))
    return call.x
