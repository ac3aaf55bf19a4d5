"""Wrappers of the TensorFlow Model Optimization toolkit, which stand around layers while a model is trained.

They hold masks, thresholds or quantizers beside the layer's own weights. A model is pruned without
them: the toolkit itself takes them out, and its function is named to users who meet one.
"""

from __future__ import annotations

from kprune.graph.model import Layer

PACKAGE = "tensorflow_model_optimization"

_PRUNING = "tfmot.sparsity.keras.strip_pruning"
_CLUSTERING = "tfmot.clustering.keras.strip_clustering"
# Nothing takes quantizers out again: what they wrap is the model before quantize_model.
_BEFORE = "the model as it was before tfmot.quantization.keras.quantize_model"
WRAPPERS = {
    "PruneLowMagnitude": _PRUNING,
    **dict.fromkeys(("ClusterWeights", "ClusterWeightsRNN", "ClusterWeightsMHA"), _CLUSTERING),
    **dict.fromkeys(
        ("QuantizeWrapper", "QuantizeWrapperV2", "QuantizeLayer", "QuantizeAnnotate"), _BEFORE
    ),
}


def remedy(layer: Layer) -> tuple[str, str] | None:
    """Why one of the toolkit's wrappers is in the way, and what to do; None for any other layer."""
    found = WRAPPERS.get(layer.kind)
    if found is None or layer.module.partition(".")[0] not in ("", PACKAGE):
        return None
    if found is _BEFORE:
        return "quantizes the model while it is trained", f"prune {found}, and quantize the result"
    why = f"stands around a layer while the model is trained ({found} takes it out)"
    return why, f"take the wrappers out: save {found}(model), and prune that"
