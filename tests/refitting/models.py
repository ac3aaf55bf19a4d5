"""Small models of every kind, in each of which unit 1 of some layers computes what unit 0 computes."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np

from tests.refitting.making import randomized, twin

SAMPLES = 160


@dataclass
class Case:
    """A model, the units that go, and inputs as Keras flattens them."""

    model: Any
    units: Mapping[str, Sequence[int]]
    inputs: Sequence[np.ndarray]


CASES: dict[str, Callable[[], Case]] = {}


def case(make: Callable[[], Case]) -> Callable[[], Case]:
    CASES[make.__name__] = make
    return make


def made(inputs: Any, given: Any, *twins: str, units: Any = None, data: Any = None) -> Case:
    """A model with random weights. twins: layers whose unit 1 is unit 0 once more; the first one's goes."""
    import keras

    model = randomized(keras.Model(inputs, given))
    for name in twins:
        twin(model.get_layer(name))
    tensors = keras.tree.flatten(model.input)
    rng = np.random.default_rng(1)
    arrays = data or [
        rng.normal(size=(SAMPLES, *tensor.shape[1:])).astype(np.float32) for tensor in tensors
    ]
    return Case(model, units or {twins[0]: [1]}, arrays)


def tokens(steps: int, *, mask: bool) -> list[np.ndarray]:
    """Ids from 1 to 10; with a mask, zeros at the end of most rows, and at the start of some."""
    rng = np.random.default_rng(2)
    ids = rng.integers(1, 11, size=(SAMPLES, steps)).astype(np.int32)
    for row in range(SAMPLES if mask else 0):
        ids[row, rng.integers(1, steps + 1) :] = 0
    ids[: SAMPLES // 8] = ids[: SAMPLES // 8, ::-1]
    return [ids]


@contextmanager
def policy(name: str) -> Iterator[None]:
    import keras

    keras.config.set_dtype_policy(name)
    try:
        yield
    finally:
        keras.config.set_dtype_policy("float32")


def repeat(variable: Any, *, axis: int, unit: int = 1, of: int = 0) -> None:
    """Have a slice of a weight be another one."""
    moved = np.moveaxis(np.asarray(variable).copy(), axis, 0)
    moved[unit] = moved[of]
    variable.assign(np.moveaxis(moved, 0, axis))


# -- dense and convolutions ------------------------------------------------------------------------


@case
def dense() -> Case:
    from keras import Input, layers

    x = Input((6,))
    return made(x, layers.Dense(3)(layers.Dense(8, "tanh", name="a")(x)), "a")


@case
def dense_over_steps() -> Case:
    from keras import Input, layers

    x = Input((4, 6))
    hidden = layers.Dense(8, "tanh", name="a")(x)
    return made(x, layers.Dense(3, "softmax")(hidden), "a")


@case
def einsum_heads() -> Case:
    from keras import Input, layers

    x = Input((7, 6))
    y = layers.Dense(6, "tanh", name="a")(x)
    y = layers.EinsumDense("abc,cde->abde", (7, 3, 4), bias_axes="de", activation="tanh")(y)
    return made(x, layers.EinsumDense("abde,dec->abc", (7, 5), bias_axes="c")(y), "a")


@case
def flatten() -> Case:
    from keras import Input, layers

    x = Input((5, 5, 2))
    y = layers.Flatten()(layers.Conv2D(6, 3, activation="relu", name="a")(x))
    return made(x, layers.Dense(3)(y), "a")


@case
def normalized() -> Case:
    from keras import Input, layers

    x = Input((7, 7, 2))
    y = layers.Conv2D(6, 3, use_bias=False, name="a")(x)
    y = layers.ReLU()(layers.BatchNormalization(name="b")(y))
    y = layers.Conv2D(5, 3, use_bias=False, padding="same")(y)
    y = layers.ReLU()(layers.BatchNormalization()(y))
    return made(x, layers.Dense(3)(layers.GlobalAveragePooling2D()(y)), "a", "b")


@case
def strides_and_dilation() -> Case:
    from keras import Input, layers

    x = Input((9, 9, 2))
    y = layers.Conv2D(6, 3, activation="relu", name="a")(x)
    y = layers.Conv2D(5, 3, strides=2, padding="same")(y)
    return made(x, layers.Conv2D(4, 2, dilation_rate=2)(y), "a")


@case
def transposed() -> Case:
    from keras import Input, layers

    x = Input((4, 4, 2))
    y = layers.Conv2DTranspose(6, 3, strides=2, activation="relu", name="a")(x)
    return made(x, layers.Conv2DTranspose(2, 3, strides=2, padding="same")(y), "a")


@case
def causal() -> Case:
    from keras import Input, layers

    x = Input((12, 3))
    y = layers.Conv1D(6, 3, padding="causal", activation="relu", name="a")(x)
    y = layers.Conv1D(5, 3, padding="causal", dilation_rate=2)(y)
    return made(x, layers.Dense(2)(layers.GlobalMaxPooling1D()(y)), "a")


@case
def volumes() -> Case:
    from keras import Input, layers

    x = Input((4, 4, 4, 2))
    y = layers.Conv3D(6, 2, activation="relu", name="a")(x)
    return made(x, layers.Dense(2)(layers.Flatten()(layers.Conv3D(4, 2)(y))), "a")


@case
def groups() -> Case:
    from keras import Input, layers

    x = Input((6, 6, 2))
    y = layers.Conv2D(8, 3, activation="relu", name="a")(x)
    y = layers.Conv2D(6, 3, groups=2)(y)
    found = made(x, layers.Dense(2)(layers.Flatten()(y)), "a", units={"a": [1, 5]})
    twin(found.model.get_layer("a"), 5, of=4)
    return found


@case
def separable() -> Case:
    from keras import Input, layers

    x = Input((8, 8, 2))
    y = layers.SeparableConv2D(6, 3, activation="relu", name="a")(x)
    last = layers.SeparableConv2D(5, 3, depth_multiplier=2)
    found = made(x, layers.Dense(2)(layers.GlobalAveragePooling2D()(last(y))), "a")
    repeat(last.depthwise_kernel, axis=2)
    return found


@case
def depthwise() -> Case:
    """A block of MobileNet."""
    from keras import Input, layers

    x = Input((8, 8, 2))
    y = layers.Conv2D(6, 3, use_bias=False, name="a")(x)
    y = layers.ReLU(6.0)(layers.BatchNormalization(name="b")(y))
    window = layers.DepthwiseConv2D(3, padding="same", use_bias=False)
    y = layers.ReLU(6.0)(layers.BatchNormalization(name="c")(window(y)))
    y = layers.BatchNormalization()(layers.Conv2D(5, 1, use_bias=False)(y))
    found = made(x, layers.Dense(2)(layers.GlobalAveragePooling2D()(y)), "a", "b", "c")
    repeat(window.kernel, axis=2)
    return found


@case
def depth_multiplier() -> Case:
    from keras import Input, layers

    x = Input((7, 7, 2))
    window = layers.DepthwiseConv2D(3, depth_multiplier=2, activation="relu", use_bias=False)
    y = window(layers.Conv2D(4, 3, activation="relu", name="a")(x))
    found = made(x, layers.Conv2D(3, 1)(y), "a")
    repeat(window.kernel, axis=2)
    return found


# -- branches --------------------------------------------------------------------------------------


@case
def residual() -> Case:
    from keras import Input, layers

    x = Input((6,))
    y = layers.Dense(8, "tanh", name="a")(x)
    y = layers.ReLU()(layers.Add()([y, layers.Dense(8, name="b")(y)]))
    return made(x, layers.Dense(3)(y), "a", "b")


@case
def projection() -> Case:
    from keras import Input, layers

    x = Input((7, 7, 2))
    y = layers.BatchNormalization(name="b")(layers.Conv2D(6, 3, use_bias=False, name="a")(x))
    other = layers.Conv2D(6, 3, use_bias=False, name="c")(x)
    y = layers.ReLU()(layers.Add()([y, layers.BatchNormalization(name="d")(other)]))
    return made(x, layers.Dense(2)(layers.Flatten()(layers.Conv2D(4, 3)(y))), *"abcd")


@case
def operations() -> Case:
    import keras
    from keras import Input, layers

    x = Input((6,))
    y = layers.Dense(8, "tanh", name="a")(x)
    y = keras.ops.relu(y + layers.Dense(8, name="b")(y)) * 2
    return made(x, layers.Dense(3)(y), "a", "b")


@case
def attention_by_operations() -> Case:
    import keras
    from keras import Input, layers

    x = Input((7, 5))
    scores = keras.ops.matmul(
        layers.Dense(6)(x), keras.ops.transpose(layers.Dense(6)(x), (0, 2, 1))
    )
    y = keras.ops.matmul(keras.ops.softmax(scores), layers.Dense(6, "relu", name="a")(x))
    return made(x, layers.Dense(2)(y), "a")


@case
def concatenation() -> Case:
    from keras import Input, layers

    x = Input((6,))
    one, other = layers.Dense(8, "tanh", name="a")(x), layers.Dense(4, "relu", name="b")(x)
    y = layers.Concatenate()([one, other])
    return made(x, layers.Dense(3)(y), "a", "b", units={"a": [1], "b": [1]})


@case
def several_inputs_and_outputs() -> Case:
    from keras import Input, layers

    one, other = Input((6,), name="one"), Input((3,), name="other")
    a, b = layers.Dense(8, "tanh", name="a")(one), layers.Dense(8, "relu", name="b")(other)
    given = {"p": layers.Dense(2)(layers.Multiply()([a, b])), "q": layers.Dense(3)(a)}
    return made({"other": other, "one": one}, given, "a", "b")


@case
def squeeze_and_excite() -> Case:
    from keras import Input, layers

    x = Input((6, 6, 2))
    y = layers.Conv2D(6, 3, activation="relu", name="a")(x)
    gate = layers.Dense(3, "relu")(layers.GlobalAveragePooling2D()(y))
    gate = layers.Reshape((1, 1, 6))(layers.Dense(6, "sigmoid", name="b")(gate))
    y = layers.Conv2D(4, 3)(layers.Multiply()([y, gate]))
    return made(x, layers.Dense(2)(layers.Flatten()(y)), "a", "b")


# -- models in models, layers called twice ---------------------------------------------------------


@case
def nested() -> Case:
    import keras
    from keras import Input, layers

    inner = keras.Sequential(
        [Input((6,)), layers.Dense(8, "tanh", name="a"), layers.Dense(4, "relu")], name="inner"
    )
    x = Input((6,))
    found = made(x, layers.Dense(2)(inner(x)), units={"inner/a": [1]})
    twin(inner.get_layer("a"))
    return found


@case
def nested_twice() -> Case:
    import keras
    from keras import Input, layers

    own = Input((6,))
    inner = keras.Model(
        own,
        layers.Dense(4, "relu", name="b")(layers.Dense(8, "tanh", name="a")(own)),
        name="inner",
    )
    x, y = Input((6,)), Input((6,))
    given = layers.Dense(2)(layers.Concatenate()([inner(x), inner(y)]))
    found = made([x, y], given, units={"inner/a": [1], "inner/b": [1]})
    twin(inner.get_layer("a"))
    twin(inner.get_layer("b"))
    return found


@case
def shared() -> Case:
    from keras import Input, layers

    first, second = layers.Dense(8, "tanh", name="a"), layers.Dense(4, "tanh")
    x, y = Input((6,)), Input((6,))
    joined = layers.Concatenate()([second(first(x)), second(first(y))])
    return made([x, y], layers.Dense(2)(joined), "a")


@case
def shared_by_what_it_makes_itself() -> Case:
    from keras import Input, layers

    x, twice = Input((6,)), layers.Dense(8, "tanh", name="b")
    y = twice(layers.Dense(8, "tanh", name="a")(x))
    y = twice(layers.Dense(8, "tanh", name="c")(y))
    units = {"a": [1], "b": [1], "c": [1]}
    return made(x, layers.Dense(2)(y), "a", "b", "c", units=units)


@case
def over_steps() -> Case:
    from keras import Input, layers

    x = Input((4, 5, 5, 2))
    y = layers.TimeDistributed(layers.Conv2D(6, 3, activation="relu"), name="a")(x)
    y = layers.TimeDistributed(layers.Flatten())(y)
    y = layers.TimeDistributed(layers.Dense(5, "relu"))(y)
    return made(x, layers.Dense(2)(layers.GlobalAveragePooling1D()(y)), "a")


@case
def model_over_steps() -> Case:
    import keras
    from keras import Input, layers

    inner = keras.Sequential(
        [
            Input((5, 5, 2)),
            layers.Conv2D(6, 3, activation="relu", name="a"),
            layers.Flatten(),
            layers.Dense(4, "relu"),
        ],
        name="inner",
    )
    x = Input((4, 5, 5, 2))
    y = layers.TimeDistributed(inner, name="over")(x)
    given = layers.Dense(2)(layers.Flatten()(y))
    found = made(x, given, units={"over/inner/a": [1]})
    twin(inner.get_layer("a"))
    return found


@case
def masked_over_steps() -> Case:
    from keras import Input, layers

    x = Input((6,), dtype="int32")
    y = layers.Embedding(11, 6, mask_zero=True, name="e")(x)
    y = layers.TimeDistributed(layers.Dense(5, "tanh"))(y)
    given = layers.Dense(2)(layers.GRU(4)(y))
    return made(x, given, "e", units={"e": [1]}, data=tokens(6, mask=True))


# -- recurrent layers ------------------------------------------------------------------------------


def _recurrent(kind: str, **how: Any) -> Case:
    from keras import Input, layers

    x = Input((6, 3))
    y = getattr(layers, kind)(6, return_sequences=True, name="a", **how)(x)
    return made(x, layers.Dense(2)(getattr(layers, kind)(4, **how)(y)), "a")


for _name, _kind, _how in [
    ("lstm", "LSTM", {}),
    ("lstm_backwards", "LSTM", {"go_backwards": True}),
    ("gru", "GRU", {}),
    ("gru_reset_before", "GRU", {"reset_after": False}),
    ("gru_without_bias", "GRU", {"use_bias": False}),
    ("simple_rnn", "SimpleRNN", {}),
]:
    CASES[_name] = lambda kind=_kind, how=_how: _recurrent(kind, **how)  # type: ignore[misc]


@case
def bidirectional() -> Case:
    from keras import Input, layers

    x = Input((6, 3))
    y = layers.Bidirectional(layers.LSTM(6, return_sequences=True), name="a")(x)
    y = layers.Bidirectional(layers.GRU(4), merge_mode="sum")(y)
    return made(x, layers.Dense(2)(y), "a")


@case
def masked_steps() -> Case:
    from keras import Input, layers

    x = Input((6,), dtype="int32")
    y = layers.Embedding(11, 6, mask_zero=True, name="e")(x)
    y = layers.Bidirectional(layers.LSTM(6, return_sequences=True), name="a")(y)
    y = layers.GRU(4, go_backwards=True)(y)
    units = {"e": [1], "a": [1]}
    return made(x, layers.Dense(2)(y), "e", "a", units=units, data=tokens(6, mask=True))


@case
def masked_from_a_state() -> Case:
    """A state passes steps that are masked."""
    from keras import Input, layers

    ids, start = Input((6,), dtype="int32"), Input((3,))
    y = layers.Embedding(11, 5, mask_zero=True, name="e")(ids)
    state = layers.Dense(6, "tanh", name="s")(start)
    y = layers.GRU(6, name="a")(y, initial_state=state)
    rng = np.random.default_rng(3)
    data = [*tokens(6, mask=True), rng.normal(size=(SAMPLES, 3)).astype(np.float32)]
    units = {"e": [1], "a": [1]}
    return made([ids, start], layers.Dense(2)(y), "e", "a", "s", units=units, data=data)


@case
def encoder_and_decoder() -> Case:
    from keras import Input, layers

    one, other = Input((6, 3)), Input((5, 3))
    _, h, c = layers.LSTM(6, return_state=True, name="a")(one)
    y = layers.LSTM(6, return_sequences=True, name="b")(other, initial_state=[h, c])
    return made([one, other], layers.Dense(2)(y), "a", "b")


@case
def cells() -> Case:
    from keras import Input, layers

    x = Input((6, 3))
    y = layers.RNN(layers.LSTMCell(6), return_sequences=True, name="a")(x)
    return made(x, layers.Dense(2)(layers.RNN(layers.GRUCell(4))(y)), "a")


# -- attention -------------------------------------------------------------------------------------


@case
def attention_width() -> Case:
    from keras import Input, layers

    x = Input((6, 5))
    y = layers.Dense(6, "tanh", name="a")(x)
    return made(x, layers.Dense(2)(layers.MultiHeadAttention(3, 4)(y, y)), "a")


def _attention(axis: str, *repeated: str, along: int = -1, **how: Any) -> Case:
    from keras import Input, layers

    x = Input((6, 5))
    attention = layers.MultiHeadAttention(3, 4, name="m", **how)
    found = made(x, layers.Dense(2)(attention(x, x)), units={f"m.{axis}": [1]})
    for name in repeated:
        for variable in getattr(attention, name).weights:
            repeat(variable, axis=along)
    return found


@case
def heads() -> Case:
    return _attention("heads", "_query_dense", "_key_dense", "_value_dense", along=-2)


@case
def key_dimensions() -> Case:
    return _attention("key_dim", "_query_dense", "_key_dense")


@case
def value_dimensions() -> Case:
    return _attention("value_dim", "_value_dense", value_dim=5)


@case
def grouped_heads() -> Case:
    """Query heads in two runs, each with a key head."""
    from keras import Input, layers

    x = Input((6, 5))
    attention = layers.GroupQueryAttention(4, 4, 2, name="m")
    found = made(x, layers.Dense(2)(attention(x, x)), units={"m.heads": [1, 3]})
    for variable in attention._query_dense.weights:
        repeat(variable, axis=-2)
        repeat(variable, axis=-2, unit=3, of=2)
    return found


@case
def grouped_head_dimensions() -> Case:
    from keras import Input, layers

    x = Input((6, 5))
    attention = layers.GroupQueryAttention(4, 4, 2, name="m")
    found = made(x, layers.Dense(2)(attention(x, x)), units={"m.head_dim": [1]})
    for name in ("_query_dense", "_key_dense", "_value_dense"):
        for variable in getattr(attention, name).weights:
            repeat(variable, axis=-1)
    return found


@case
def transformer() -> Case:
    """Tokens, some of them masked, an attention with a sum around it, and a feed-forward."""
    from keras import Input, layers

    x = Input((6,), dtype="int32")
    y = layers.Embedding(11, 6, mask_zero=True, name="e")(x)
    y = layers.Add()([y, layers.MultiHeadAttention(2, 4, name="m")(y, y)])
    y = layers.Dense(8, "relu", name="f")(y)
    units = {"e": [1], "f": [1]}
    found = made(x, layers.Dense(2)(y), "e", "f", units=units, data=tokens(6, mask=True))
    twin(found.model.get_layer("m")._output_dense)
    return found


# -- types -----------------------------------------------------------------------------------------

LOW = {"mixed_float16": 1e-2, "mixed_bfloat16": 5e-2, "bfloat16": 5e-2}
"""How near the outputs come in types of low precision."""

for _name in LOW:

    def _in_low_precision(name: str = _name) -> Case:
        with policy(name):
            return normalized()

    CASES[_name] = _in_low_precision
