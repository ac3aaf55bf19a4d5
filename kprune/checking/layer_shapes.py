"""The shape that a layer gives, from its config and the shapes of its inputs: Keras's `compute_output_shape`.

Layers that are not here are taken at the shapes that the config records of what they give.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from kprune.checking.configs import Config, array_shape, at, first, numbers, plain_name, times
from kprune.checking.layer_weights import einsum_sizes
from kprune.checking.shapes import Contradiction, MaybeShape, agree, broadcast, product
from kprune.graph.model import Shape

Gives = Callable[[Config, Sequence[MaybeShape]], "MaybeShape | list[MaybeShape]"]


def given_shapes(kind: str, config: Config, inputs: Sequence[MaybeShape]) -> list[MaybeShape]:
    """What a layer gives; [None] if that is not known.

    Args:
        inputs: shapes of what it is called on, batch first.
    Raises: Contradiction if the inputs do not go together.
    """
    find = SHAPES.get(plain_name(kind))
    if find is None or not inputs or inputs[0] is None:
        return [None]
    found = find(config, inputs)
    return found if isinstance(found, list) else [found]


def _same(config: Config, inputs: Sequence[MaybeShape]) -> MaybeShape:
    return inputs[0]


def _units(config: Config, inputs: Sequence[MaybeShape]) -> MaybeShape:
    return (*first(inputs)[:-1], config["units"])


def _embedded(config: Config, inputs: Sequence[MaybeShape]) -> MaybeShape:
    return (*first(inputs), config["output_dim"])


def _einsum(config: Config, inputs: Sequence[MaybeShape]) -> MaybeShape:
    shape = first(inputs)
    sizes = einsum_sizes(config, shape)
    letters = config["equation"].replace(" ", "").partition("->")[2]
    if sizes is None:
        return None
    named = tuple(sizes.get(letter) for letter in letters.replace("...", ""))
    if not letters.startswith("..."):
        return (shape[0], *named[1:])
    left = config["equation"].replace(" ", "").partition(",")[0].replace("...", "")
    ahead = shape[: len(shape) - len(left)]
    # Keras mistakes the sizes there itself where they are several (einsum_dense.py, 3.15).
    return (*ahead, *named) if len(ahead) < 3 else None


# -- windows --------------------------------------------------------------------------------------


def _spatial(config: Config, shape: Shape) -> tuple[slice, int]:
    """Where the spatial axes stand, and where the channels do."""
    if config.get("data_format") == "channels_first":
        return slice(2, None), 1
    return slice(1, -1), -1


def _placed(config: Config, shape: Shape, sizes: Sequence[int | None], wide: int | None) -> Shape:
    if config.get("data_format") == "channels_first":
        return (shape[0], wide, *sizes)
    return (shape[0], *sizes, wide)


def _slid(size: int | None, window: int, stride: int, padding: str) -> int | None:
    """How many windows fit along an axis."""
    if size is None:
        return None
    if padding in ("same", "causal"):
        return -(-size // stride)
    return (size - window) // stride + 1


def _convolution(config: Config, inputs: Sequence[MaybeShape]) -> MaybeShape:
    shape = first(inputs)
    spatial, channel = _spatial(config, shape)
    rank = len(shape) - 2
    reach = [
        step * (size - 1) + 1
        for size, step in zip(
            numbers(config["kernel_size"], rank),
            numbers(config.get("dilation_rate", 1), rank),
            strict=True,
        )
    ]
    strides = numbers(config.get("strides", 1), rank)
    sizes = [
        _slid(size, window, stride, config.get("padding", "valid"))
        for size, window, stride in zip(shape[spatial], reach, strides, strict=True)
    ]
    filters = config.get("filters") or times(at(shape, channel), config.get("depth_multiplier", 1))
    return _placed(config, shape, sizes, filters)


def _transposed(config: Config, inputs: Sequence[MaybeShape]) -> MaybeShape:
    shape = first(inputs)
    spatial, _ = _spatial(config, shape)
    rank = len(shape) - 2
    added = config.get("output_padding")
    parts = zip(
        shape[spatial],
        numbers(config["kernel_size"], rank),
        numbers(config.get("strides", 1), rank),
        numbers(config.get("dilation_rate", 1), rank),
        [None] * rank if added is None else numbers(added, rank),
        strict=True,
    )
    padding = config.get("padding", "valid")
    sizes = [_spread(size, step * (window - 1) + 1, stride, more, padding)
             for size, window, stride, step, more in parts]  # fmt: skip
    return _placed(config, shape, sizes, config["filters"])


def _spread(
    size: int | None, window: int, stride: int, more: int | None, padding: str
) -> int | None:
    """The length of an axis behind a transposed convolution."""
    if size is None:
        return None
    if more is not None:
        cut = window // 2 if padding == "same" else 0
        return (size - 1) * stride + window - 2 * cut + more
    return size * stride + (0 if padding == "same" else max(window - stride, 0))


def _pooled(config: Config, inputs: Sequence[MaybeShape]) -> MaybeShape:
    shape = first(inputs)
    spatial, channel = _spatial(config, shape)
    rank = len(shape) - 2
    windows = numbers(config["pool_size"], rank)
    strides = numbers(config.get("strides") or windows, rank)
    sizes = [
        _slid(size, window, stride, config.get("padding", "valid"))
        for size, window, stride in zip(shape[spatial], windows, strides, strict=True)
    ]
    return _placed(config, shape, sizes, shape[channel])


def _pooled_to_one(config: Config, inputs: Sequence[MaybeShape]) -> MaybeShape:
    shape = first(inputs)
    _, channel = _spatial(config, shape)
    if config.get("keepdims"):
        return _placed(config, shape, [1] * (len(shape) - 2), shape[channel])
    return (shape[0], shape[channel])


def _scaled_up(config: Config, inputs: Sequence[MaybeShape]) -> MaybeShape:
    shape = first(inputs)
    spatial, channel = _spatial(config, shape)
    factors = numbers(config["size"], len(shape) - 2)
    sizes = [times(size, factor) for size, factor in zip(shape[spatial], factors, strict=True)]
    return _placed(config, shape, sizes, shape[channel])


def _edges(value: Any, rank: int) -> list[int]:
    """Positions that padding or cropping adds up to along each axis."""
    if isinstance(value, int):
        return [2 * value] * rank
    if rank == 1 and all(isinstance(item, int) for item in value):
        return [sum(value)]
    return [2 * item if isinstance(item, int) else sum(item) for item in value]


def _edged(key: str, sign: int) -> Gives:
    def find(config: Config, inputs: Sequence[MaybeShape]) -> MaybeShape:
        shape = first(inputs)
        spatial, channel = _spatial(config, shape)
        edges = _edges(config[key], len(shape) - 2)
        sizes = [
            None if size is None else size + sign * edge
            for size, edge in zip(shape[spatial], edges, strict=True)
        ]
        return _placed(config, shape, sizes, shape[channel])

    return find


# -- places ---------------------------------------------------------------------------------------


def _flattened(config: Config, inputs: Sequence[MaybeShape]) -> MaybeShape:
    return (first(inputs)[0], product(first(inputs)[1:]))


def _reshaped(config: Config, inputs: Sequence[MaybeShape]) -> MaybeShape:
    shape, target = first(inputs), list(config["target_shape"])
    whole = product(shape[1:])
    if target.count(-1) == 1:
        rest = product(size for size in target if size != -1) or 1
        fits = whole is None or whole % rest == 0
        target[target.index(-1)] = None if whole is None else whole // rest
    else:
        fits = whole is None or whole == product(target)
    if not fits:
        raise Contradiction(f"{shape} does not go into {config['target_shape']}")
    return (shape[0], *target)


def _permuted(config: Config, inputs: Sequence[MaybeShape]) -> MaybeShape:
    shape = first(inputs)
    return (shape[0], *(shape[axis] for axis in config["dims"]))


def _repeated(config: Config, inputs: Sequence[MaybeShape]) -> MaybeShape:
    return (first(inputs)[0], config["n"], *first(inputs)[1:])


# -- numbers of bins, categories and tokens -------------------------------------------------------


def _numbered(config: Config, inputs: Sequence[MaybeShape]) -> MaybeShape:
    """A number for each value."""
    return inputs[0] if config.get("output_mode", "int") == "int" else None


def _tokens(config: Config, inputs: Sequence[MaybeShape]) -> MaybeShape:
    """A number for each value, or a place for each word of the vocabulary."""
    shape, mode = first(inputs), config.get("output_mode", "int")
    if mode == "int":
        return inputs[0]
    width = config.get("max_tokens" if config.get("pad_to_max_tokens") else "vocabulary_size")
    known = len(shape) == 2 and (mode != "one_hot" or shape[1] == 1)
    return (shape[0], width) if known else None


def _categories(config: Config, inputs: Sequence[MaybeShape]) -> MaybeShape:
    shape = first(inputs)
    if len(shape) < 2 or (
        config.get("output_mode", "multi_hot") == "one_hot" and shape[-1] is None
    ):
        return None
    spread = config.get("output_mode", "multi_hot") == "one_hot" and shape[-1] != 1
    return (*(shape if spread else shape[:-1]), config["num_tokens"])


# -- joining --------------------------------------------------------------------------------------


def _combined(config: Config, inputs: Sequence[MaybeShape]) -> MaybeShape:
    return broadcast(inputs)


def joined(inputs: Sequence[MaybeShape], axis: int) -> MaybeShape:
    """Tensors one behind the other. Raises: Contradiction if they differ along another axis."""
    if any(shape is None for shape in inputs):
        return None
    shapes = [list(shape or ()) for shape in inputs]
    rank = len(shapes[0])
    axis %= rank
    rest = [tuple(shape[:axis] + shape[axis + 1 :]) for shape in shapes]
    if any(len(shape) != rank for shape in shapes) or not all(
        agree(one, other) for one in rest for other in rest
    ):
        raise Contradiction(f"{', '.join(str(shape) for shape in inputs)} are joined along {axis}")
    others = broadcast(rest) or ()
    sizes = [shape[axis] for shape in shapes]
    length = None if None in sizes else sum(size or 0 for size in sizes)
    return (*others[:axis], length, *others[axis:])


def _concatenated(config: Config, inputs: Sequence[MaybeShape]) -> MaybeShape:
    return joined(inputs, int(config.get("axis", -1)))


def _dotted(config: Config, inputs: Sequence[MaybeShape]) -> MaybeShape:
    one, other = inputs
    if one is None or other is None:
        return None
    axes = config["axes"]
    a, b = axes if isinstance(axes, (list, tuple)) else (axes, axes)
    a, b = a % len(one), b % len(other)
    if not agree((one[a],), (other[b],)):
        raise Contradiction(f"{one} and {other} are multiplied along {a} and {b}")
    left = [size for axis, size in enumerate(one) if axis != a]
    right = [size for axis, size in enumerate(other) if axis not in (0, b)]
    return (*left, *right) if len(left) + len(right) > 1 else (*left, 1)


def _rescaled(config: Config, inputs: Sequence[MaybeShape]) -> MaybeShape:
    """Normalisation with numbers from the config, which must fit what comes in."""
    for key in ("scale", "offset", "mean", "variance"):
        _fits(first(inputs), array_shape(config.get(key)), f"{key} of shape")
    return inputs[0]


def _fits(shape: Shape, array: MaybeShape, what: str) -> None:
    """Raises: Contradiction if an array would not leave the shape as it is."""
    if array and not agree(broadcast([shape, array]), shape):
        raise Contradiction(f"its config holds a {what} {array}, and its input is {shape}")


# -- sequences ------------------------------------------------------------------------------------


def _recurrent(config: Config, inputs: Sequence[MaybeShape]) -> list[MaybeShape]:
    shape, units = first(inputs), config["units"]
    state = (shape[0], units)
    output = (*shape[:2], units) if config.get("return_sequences") else state
    return [output, state, state] if config.get("return_state") else [output]


def _recurrent_convolution(config: Config, inputs: Sequence[MaybeShape]) -> list[MaybeShape]:
    shape = first(inputs)
    if config.get("return_state"):
        return [None]
    step = _convolution(config, [(shape[0], *shape[2:])])
    assert step is not None
    return [(shape[0], shape[1], *step[1:]) if config.get("return_sequences") else step]


def _attended(config: Config, inputs: Sequence[MaybeShape]) -> MaybeShape:
    """Attention layers, called on [query, value]."""
    value = inputs[1] if len(inputs) > 1 else None
    return (*first(inputs)[:-1], at(value or (), -1))


def _projected(config: Config, inputs: Sequence[MaybeShape]) -> MaybeShape:
    """MultiHeadAttention, called on query and value."""
    out = config.get("output_shape")
    return inputs[0] if out is None else (*first(inputs)[:-1], *numbers(out, 1))


SHAPES: dict[str, Gives] = {
    **dict.fromkeys(
        "Activation ActivityRegularization AlphaDropout BatchNormalization Dropout ELU GaussianDropout "
        "GaussianNoise GroupNormalization GroupQueryAttention Identity LayerNormalization LayerScale LeakyReLU Masking "
        "PReLU RMSNormalization ReLU Softmax SpatialDropout1D SpatialDropout2D SpatialDropout3D "
        "SyncBatchNormalization ThresholdedReLU UnitNormalization".split(),
        _same,
    ),
    **dict.fromkeys(
        "Add Subtract Multiply Average CustomScaleLayer Maximum Minimum".split(), _combined
    ),
    **dict.fromkeys(("Discretization", "HashedCrossing", "Hashing"), _numbered),
    **dict.fromkeys(("IntegerLookup", "StringLookup"), _tokens),
    **dict.fromkeys(("Rescaling", "Normalization"), _rescaled),
    **dict.fromkeys(("LSTM", "GRU", "SimpleRNN"), _recurrent),
    **dict.fromkeys(("Attention", "AdditiveAttention"), _attended),
    "CategoryEncoding": _categories,
    "Concatenate": _concatenated,
    "Dense": _units,
    "Dot": _dotted,
    "EinsumDense": _einsum,
    "Embedding": _embedded,
    "Flatten": _flattened,
    "MultiHeadAttention": _projected,
    "Permute": _permuted,
    "RepeatVector": _repeated,
    "Reshape": _reshaped,
}
for _rank in ("1D", "2D", "3D"):
    SHAPES.update(
        {
            f"AveragePooling{_rank}": _pooled,
            f"MaxPooling{_rank}": _pooled,
            f"GlobalAveragePooling{_rank}": _pooled_to_one,
            f"GlobalMaxPooling{_rank}": _pooled_to_one,
            f"Conv{_rank}": _convolution,
            f"DepthwiseConv{_rank}": _convolution,
            f"SeparableConv{_rank}": _convolution,
            f"Conv{_rank}Transpose": _transposed,
            f"ConvLSTM{_rank}": _recurrent_convolution,
            f"UpSampling{_rank}": _scaled_up,
            f"ZeroPadding{_rank}": _edged("padding", 1),
            f"Cropping{_rank}": _edged("cropping", -1),
        }
    )
