"""What each Keras layer and operation does to labels: one file per Keras family.

    core.py            InputLayer, Dense, Embedding, Identity, Masking
    lambdas.py         Lambda
    convolutional.py   Conv*, Conv*Transpose, DepthwiseConv*, SeparableConv*
    recurrent.py       SimpleRNN, LSTM, GRU
    attention.py       MultiHeadAttention, GroupQueryAttention, Attention, AdditiveAttention, Dot
    wrappers.py        Bidirectional, TimeDistributed
    normalization.py   BatchNormalization, LayerNormalization, GroupNormalization, Normalization
    pooling.py         pooling, global pooling
    reshaping.py       Flatten, Reshape, Permute, RepeatVector, padding, cropping, up-sampling
    merging.py         Add … Minimum, Concatenate
    lora.py            adapters of LoRA, beside the kernels of Dense, Conv, EinsumDense and Embedding
    activations.py     Activation and the activation layers; what each activation function mixes
    regularization.py  dropout and noise
    preprocessing.py   Rescaling and what only changes values
    shapes.py          sizes that Keras computes when it calls a layer
    effects/           what operations do to labels, once for all dialects
    operations/        nodes of keras.ops in Functional graphs
    tensorflow/        functions of TensorFlow in graphs that Keras 2 saved
    packages/          layers of keras.applications, and of KerasHub's backbones

A rule for a custom layer is registered the same way (`kprune.rule`), from a file given with
`--rules` or through the entry point group `kprune.rules`. kprune does not guess what a layer
without a rule does: units that reach it are frozen, and messages name it.
"""

from __future__ import annotations

from kprune.tracing.registry import CUSTOM, LAYERS, OPERATIONS, PACKAGES, Rule, Rules, Table

ENTRY_POINTS = "kprune.rules"

__all__ = [
    "CUSTOM",
    "ENTRY_POINTS",
    "LAYERS",
    "OPERATIONS",
    "PACKAGES",
    "Rule",
    "Rules",
    "Table",
    "builtin",
]


def _families(*modules: str) -> list[str]:
    return [f"{__name__}.{module}" for module in modules]


# A class is looked for in this order: what most models hold comes first.
LAYERS.rules.families = _families(
    "core",
    "regularization",
    "reshaping",
    "pooling",
    "activations",
    "convolutional",
    "normalization",
    "merging",
    "preprocessing",
    "recurrent",
    "wrappers",
    "attention",
    "lambdas",
    "packages.applications",
    "tensorflow.op_layers",
)
OPERATIONS.rules.families = _families(
    "operations.elementwise",
    "operations.movement",
    "operations.joining",
    "operations.indexing",
    "operations.reductions",
    "operations.contractions",
    "operations.windows",
    "operations.opaque",
)
PACKAGES.rules.families = _families("packages.keras_hub")


def builtin() -> Rules:
    """Every rule there is: kprune's own, and those registered since with `kprune.rule`."""
    return Rules(LAYERS.rules, OPERATIONS.rules, CUSTOM.rules, PACKAGES.rules)
