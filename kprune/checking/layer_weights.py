"""Which weights a layer has and of which shape, from its config and the shapes of its inputs.

Written down from what Keras saves, layer by layer (keras/src/layers), and from nothing else in kprune:
this is what the rules' work is held against.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from msgspec import Struct

from kprune.checking.configs import Config, at, axes_of, channels, first, numbers, plain_name, times
from kprune.checking.shapes import MaybeShape, agree
from kprune.dtypes import quantizes
from kprune.graph.model import Shape


class Expected(Struct, frozen=True):
    """A weight that a layer must have.

    Attributes:
        name: Keras's.
        shape: None where a size is not known.
        at: the object inside the layer that holds it, such as `cell`; "" for the layer itself.
        trainable: as Keras counts it, unless the layer is frozen.
        initializer: the key of the config that holds its initializer.
        again: whether it is another one once more, which a legacy `.h5` lists but once.
        multiple: what its first size is a multiple of, where that is all that is known of it.
    """

    name: str
    shape: Shape
    at: str = ""
    trainable: bool = True
    initializer: str = ""
    again: bool = False
    multiple: int = 1

    def fits(self, shape: Shape) -> bool:
        """Whether a stored tensor's shape may be this one's."""
        return agree(tuple(shape), self.shape) and (
            not shape or (shape[0] or 0) % self.multiple == 0
        )


Weights = list[Expected]


def expected_weights(kind: str, config: Config, inputs: Sequence[MaybeShape]) -> Weights | None:
    """The weights of a layer of Keras's own, in Keras's order.

    Args:
        inputs: shapes of what it is called on, batch first.
    Returns: None for a layer of which this is not known.
    """
    find = WEIGHTS.get(plain_name(kind))
    if find is None or quantizes(config.get("dtype")):
        return None
    return find(config, inputs)


def counts_weights(kind: str, config: Config) -> bool:
    """Whether it is known how many weights a layer of Keras's own has, whatever it is called on."""
    own = plain_name(kind)
    return own in WEIGHTS and own != "Normalization" and not quantizes(config.get("dtype"))


def weight(name: str, *shape: int | None, when: Any = True, **more: Any) -> Weights:
    """One weight with the initializer of its name, or none if a condition does not hold."""
    more.setdefault("initializer", f"{name}_initializer")
    return [Expected(name, shape, **more)] if when else []


# -- layer by layer -------------------------------------------------------------------------------


def _dense(config: Config, inputs: Sequence[MaybeShape]) -> Weights:
    units = config["units"]
    return [
        *weight("kernel", at(first(inputs), -1), units),
        *weight("bias", units, when=config.get("use_bias", True)),
    ]


def _window(config: Config, rank: int) -> list[int]:
    return numbers(config["kernel_size"], rank)


def _convolution(rank: int) -> Callable[[Config, Sequence[MaybeShape]], Weights]:
    def find(config: Config, inputs: Sequence[MaybeShape]) -> Weights:
        inside, filters = channels(config, inputs), config["filters"]
        rows = None if inside is None else inside // int(config.get("groups", 1))
        return [
            *weight("kernel", *_window(config, rank), rows, filters),
            *weight("bias", filters, when=config.get("use_bias", True)),
        ]

    return find


def _transposed(rank: int) -> Callable[[Config, Sequence[MaybeShape]], Weights]:
    def find(config: Config, inputs: Sequence[MaybeShape]) -> Weights:
        filters = config["filters"]
        return [
            *weight("kernel", *_window(config, rank), filters, channels(config, inputs)),
            *weight("bias", filters, when=config.get("use_bias", True)),
        ]

    return find


def _depthwise(rank: int) -> Callable[[Config, Sequence[MaybeShape]], Weights]:
    def find(config: Config, inputs: Sequence[MaybeShape]) -> Weights:
        inside, multiplier = channels(config, inputs), int(config.get("depth_multiplier", 1))
        return [
            *weight(
                "kernel", *_window(config, rank), inside, multiplier,
                initializer="depthwise_initializer",
            ),
            *weight("bias", times(inside, multiplier), when=config.get("use_bias", True)),
        ]  # fmt: skip

    return find


def _separable(rank: int) -> Callable[[Config, Sequence[MaybeShape]], Weights]:
    def find(config: Config, inputs: Sequence[MaybeShape]) -> Weights:
        inside, multiplier = channels(config, inputs), int(config.get("depth_multiplier", 1))
        filters = config["filters"]
        return [
            *weight(
                "depthwise_kernel", *_window(config, rank), inside, multiplier,
                initializer="depthwise_initializer",
            ),
            *weight(
                "pointwise_kernel", *[1] * rank, times(inside, multiplier), filters,
                initializer="pointwise_initializer",
            ),
            *weight("bias", filters, when=config.get("use_bias", True)),
        ]  # fmt: skip

    return find


def _batch_normalization(config: Config, inputs: Sequence[MaybeShape]) -> Weights | None:
    if config.get("renorm"):
        return None  # has further statistics
    shape = [at(first(inputs), axis) for axis in axes_of(config)]
    return [
        *weight("gamma", *shape, when=config.get("scale", True)),
        *weight("beta", *shape, when=config.get("center", True)),
        *weight("moving_mean", *shape, trainable=False),
        *weight("moving_variance", *shape, trainable=False),
    ]


def _scaled_and_centred(config: Config, inputs: Sequence[MaybeShape]) -> Weights:
    shape = [at(first(inputs), axis) for axis in axes_of(config)]
    rms = config.get("rms_scaling", False)
    return [
        *weight("gamma", *shape, when=config.get("scale", True) or rms),
        *weight("beta", *shape, when=config.get("center", True) and not rms),
    ]


def _rms_normalization(config: Config, inputs: Sequence[MaybeShape]) -> Weights:
    shape = [at(first(inputs), axis) for axis in axes_of(config)]
    return weight("scale", *shape, initializer="")


def _normalization(config: Config, inputs: Sequence[MaybeShape]) -> Weights:
    if config.get("mean") is not None:
        return []
    axis = config.get("axis", -1)
    shape = [] if axis is None else [at(first(inputs), one) for one in axes_of(config)]
    return [
        *weight("mean", *shape, trainable=False),
        *weight("variance", *shape, trainable=False),
        *weight("count", trainable=False),
    ]


def _embedding(config: Config, inputs: Sequence[MaybeShape]) -> Weights:
    return weight("embeddings", config["input_dim"], config["output_dim"])


def _reversible_embedding(config: Config, inputs: Sequence[MaybeShape]) -> Weights:
    rows, width = config["input_dim"], config["output_dim"]
    return [
        *weight("embeddings", rows, width),
        *weight("reverse_embeddings", width, rows, when=not config.get("tie_weights", True)),
    ]


def _prelu(config: Config, inputs: Sequence[MaybeShape]) -> Weights | None:
    shape = list(first(inputs)[1:])
    if not shape:
        return None
    for axis in config.get("shared_axes") or []:
        shape[axis - 1 if axis > 0 else axis] = 1
    return weight("alpha", *shape)


def _cell(gates: int) -> Callable[[Config, Sequence[MaybeShape]], Weights]:
    def find(config: Config, inputs: Sequence[MaybeShape]) -> Weights:
        units = config["units"]
        # GRUCell.build: with reset_after the input bias and the recurrent bias are kept apart.
        rows = [2] if gates == 3 and config.get("reset_after", True) else []
        return [
            *weight("kernel", at(first(inputs), -1), gates * units),
            *weight("recurrent_kernel", units, gates * units, initializer="recurrent_initializer"),
            *weight("bias", *rows, gates * units, when=config.get("use_bias", True)),
        ]

    return find


def _in_cell(find: Callable[[Config, Sequence[MaybeShape]], Weights]) -> Any:
    """The same weights, held by the layer's cell."""

    def inside(config: Config, inputs: Sequence[MaybeShape]) -> Weights:
        found = find(config, inputs)
        return [
            Expected(one.name, one.shape, "cell", one.trainable, one.initializer) for one in found
        ]

    return inside


def _recurrent_convolution(rank: int) -> Callable[[Config, Sequence[MaybeShape]], Weights]:
    def find(config: Config, inputs: Sequence[MaybeShape]) -> Weights:
        axis = 2 if config.get("data_format") == "channels_first" else -1
        window, filters = _window(config, rank), config["filters"]
        return [
            *weight("kernel", *window, at(first(inputs), axis), 4 * filters),
            *weight(
                "recurrent_kernel", *window, filters, 4 * filters,
                initializer="recurrent_initializer",
            ),
            *weight("bias", 4 * filters, when=config.get("use_bias", True)),
        ]  # fmt: skip

    return find


def _projection(name: str, shape: Sequence[int | None], summed: int, config: Config) -> Weights:
    """One of attention's projections, whose bias has all axes of the kernel that are not summed over."""
    biased = config.get("use_bias", True)
    return [
        *weight("kernel", *shape, at=name),
        *weight("bias", *shape[summed:], at=name, when=biased),
    ]


def _multi_head_attention(config: Config, inputs: Sequence[MaybeShape]) -> Weights | None:
    query, value, key = [*inputs, None, None, None][:3]
    heads, size = config["num_heads"], config["key_dim"]
    wide = config.get("value_dim") or size
    out = config.get("output_shape")
    given = [at(query or (), -1)] if out is None else numbers(out, 1)
    key = value if key is None else key
    gate = _projection("gate_dense", [at(query or (), -1), heads, wide], 1, config)
    return [
        *_projection("query_dense", [at(query or (), -1), heads, size], 1, config),
        *_projection("key_dense", [at(key or (), -1), heads, size], 1, config),
        *(gate if config.get("use_gate") else []),
        *_projection("value_dense", [at(value or (), -1), heads, wide], 1, config),
        *_projection("output_dense", [heads, wide, *given], 2, config),
    ]


def _group_query_attention(config: Config, inputs: Sequence[MaybeShape]) -> Weights:
    query, value, key = [*inputs, None, None, None][:3]
    size, heads = config["head_dim"], config["num_query_heads"]
    shared = config["num_key_value_heads"]
    key = value if key is None else key
    width = at(query or (), -1)
    gate = _projection("gate_dense", [width, heads, size], 1, config)
    return [
        *_projection("query_dense", [width, heads, size], 1, config),
        *_projection("key_dense", [at(key or (), -1), shared, size], 1, config),
        *(gate if config.get("use_gate") else []),
        *_projection("value_dense", [at(value or (), -1), shared, size], 1, config),
        *_projection("output_dense", [heads, size, width], 2, config),
    ]


def _attention(config: Config, inputs: Sequence[MaybeShape]) -> Weights:
    return [
        *weight("scale", when=config.get("use_scale", False)),
        *weight("concat_score_weight", when=config.get("score_mode") == "concat"),
    ]


def _additive_attention(config: Config, inputs: Sequence[MaybeShape]) -> Weights:
    return weight("scale", at(first(inputs), -1), when=config.get("use_scale", True))


def _einsum_dense(config: Config, inputs: Sequence[MaybeShape]) -> Weights | None:
    sizes = einsum_sizes(config, first(inputs))
    if sizes is None:
        return None
    kernel = config["equation"].replace(" ", "").partition("->")[0].partition(",")[2]
    result = config["equation"].replace(" ", "").partition("->")[2].replace("...", "")
    along = config.get("bias_axes") or ""
    # build() of EinsumDense: the axes of the bias, and 1 along what stands behind the first of them.
    start = min((result.index(letter) for letter in along), default=len(result))
    bias = [sizes.get(letter) if letter in along else 1 for letter in result[start:]]
    return [
        *weight("kernel", *[sizes.get(letter) for letter in kernel]),
        *weight("bias", *bias, when=bool(along)),
    ]


def einsum_sizes(config: Config, shape: Shape) -> dict[str, int | None] | None:
    """The size that each letter of an EinsumDense stands for; None if its equation is of no known form."""
    left, _, result = config["equation"].replace(" ", "").partition("->")
    inputs, _, kernel = left.partition(",")
    if not kernel or not result or "..." in result[1:]:
        return None
    out = config.get("output_shape")
    given = list(out) if isinstance(out, (list, tuple)) else [out]
    if not result.startswith("..."):
        given.insert(0, None)  # the batch
    sizes: dict[str, int | None] = {}
    for letters, extents in ((inputs, shape), (result, given)):
        for letter, size in _aligned(letters, extents):
            if size is not None:
                sizes.setdefault(letter, size)
    return sizes


def _aligned(letters: str, shape: Sequence[int | None]) -> list[tuple[str, int | None]]:
    """Letters with their sizes, counted from the front before an ellipsis and from the back behind it."""
    front, dots, back = letters.partition("...")
    if not dots and len(front) != len(shape):
        return []
    ahead = list(zip(front, shape, strict=False))
    behind = list(zip(reversed(back), reversed(shape), strict=False))
    return [*ahead, *behind]


def _spectral(config: Config, inputs: Sequence[MaybeShape]) -> Weights | None:
    inner = config["layer"]
    found = expected_weights(inner["class_name"], inner["config"], inputs)
    kernel = next((one for one in found or () if one.name in ("kernel", "embeddings")), None)
    if kernel is None:
        return None
    # The wrapper holds the inner kernel as an attribute of its own, so Keras saves it for both.
    return [
        *weight(kernel.name, *kernel.shape, again=True, initializer=""),
        *weight("vector_u", 1, kernel.shape[-1], trainable=False, initializer=""),
    ]


def _none(config: Config, inputs: Sequence[MaybeShape]) -> Weights:
    return []


_RANKS = {"1D": 1, "2D": 2, "3D": 3}
_CELLS = {"SimpleRNN": 1, "LSTM": 4, "GRU": 3}

WEIGHTS: dict[str, Callable[[Config, Sequence[MaybeShape]], Weights | None]] = {
    "Dense": _dense,
    "EinsumDense": _einsum_dense,
    "Embedding": _embedding,
    "ReversibleEmbedding": _reversible_embedding,
    "BatchNormalization": _batch_normalization,
    "SyncBatchNormalization": _batch_normalization,
    "LayerNormalization": _scaled_and_centred,
    "GroupNormalization": _scaled_and_centred,
    "RMSNormalization": _rms_normalization,
    "Normalization": _normalization,
    "PReLU": _prelu,
    "MultiHeadAttention": _multi_head_attention,
    "GroupQueryAttention": _group_query_attention,
    "Attention": _attention,
    "AdditiveAttention": _additive_attention,
    "SpectralNormalization": _spectral,
    "LayerScale": lambda config, inputs: weight("gamma", config["projection_dim"], initializer=""),
    **{f"Conv{name}": _convolution(rank) for name, rank in _RANKS.items()},
    **{f"Conv{name}Transpose": _transposed(rank) for name, rank in _RANKS.items()},
    **{f"DepthwiseConv{name}": _depthwise(rank) for name, rank in _RANKS.items()},
    **{f"SeparableConv{name}": _separable(rank) for name, rank in _RANKS.items()},
    **{f"ConvLSTM{name}": _in_cell(_recurrent_convolution(rank)) for name, rank in _RANKS.items()},
    **{kind: _in_cell(_cell(gates)) for kind, gates in _CELLS.items()},
    **{f"{kind}Cell": _cell(gates) for kind, gates in _CELLS.items()},
}
WITHOUT_WEIGHTS = frozenset(
    "AdaptiveAveragePooling1D AdaptiveAveragePooling2D AdaptiveAveragePooling3D AdaptiveMaxPooling1D "
    "AdaptiveMaxPooling2D AdaptiveMaxPooling3D AugMix AutoContrast CenterCrop Discretization RandomBrightness "
    "RandomContrast RandomCrop RandomFlip RandomRotation RandomShear RandomTranslation RandomZoom "
    "Activation ActivityRegularization Add AlphaDropout Average AveragePooling1D AveragePooling2D CustomScaleLayer "
    "AveragePooling3D Bidirectional Concatenate Cropping1D Cropping2D Cropping3D Dot Dropout ELU Flatten "
    "GaussianDropout GaussianNoise GlobalAveragePooling1D GlobalAveragePooling2D GlobalAveragePooling3D "
    "GlobalMaxPooling1D GlobalMaxPooling2D GlobalMaxPooling3D Identity InputLayer Lambda LeakyReLU Masking "
    "MaxPooling1D MaxPooling2D MaxPooling3D Maximum Minimum Multiply Permute RNN ReLU RepeatVector "
    "Rescaling Reshape Resizing SlicingOpLambda Softmax SpatialDropout1D SpatialDropout2D SpatialDropout3D "
    "StackedRNNCells Subtract TFOpLambda ThresholdedReLU TimeDistributed UnitNormalization UpSampling1D "
    "UpSampling2D UpSampling3D ZeroPadding1D ZeroPadding2D ZeroPadding3D".split()
)
WEIGHTS.update(dict.fromkeys(WITHOUT_WEIGHTS, _none))
