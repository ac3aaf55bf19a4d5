"""Small random Functional models, drawn by hypothesis: 5 to 15 calls of whatever fits."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
from hypothesis import strategies as st
from keras import layers

EXTENT, STEPS, CHANNELS, TOKENS = 6, 5, 8, 5
ACTIVATIONS = ["linear", "relu", "tanh", "sigmoid", "softplus", "gelu"]


class Builder:
    """Grows one model, call by call.

    Attributes:
        draw: gives a value of a strategy.
        tensors: everything that may be read; the newest last.
        shared: layers and models that may be called again, with the shapes they take.
    """

    def __init__(self, draw: Callable[[Any], Any]) -> None:
        self.draw = draw
        self.tensors: list[Any] = []
        self.inputs: list[Any] = []
        self.shared: list[tuple[Any, tuple]] = []

    def pick(self, *choices: Any) -> Any:
        return self.draw(st.sampled_from(choices))

    def width(self) -> int:
        return self.draw(st.integers(2, CHANNELS))

    def model(self, calls: int) -> Any:
        for _ in range(self.draw(st.integers(1, 2))):
            shape = self.pick((5,), (STEPS, 4), (EXTENT, EXTENT, 3), None)
            if shape is None:
                self.inputs.append(keras.Input((STEPS,), dtype="int32"))
            else:
                self.inputs.append(keras.Input(shape))
        self.tensors = [
            layers.Embedding(TOKENS, self.width(), mask_zero=self.draw(st.booleans()))(x)
            if x.dtype == "int32"
            else x
            for x in self.inputs
        ]
        for _ in range(calls):
            self.grow()
        return self.finished()

    def grow(self) -> None:
        x = self.pick(*self.tensors[-4:])
        kinds = {2: self.on_vectors, 3: self.on_sequences, 4: self.on_images}[len(x.shape)]
        options = [*kinds(x), *self.on_anything(x)]
        self.tensors.append(self.pick(*options)())

    def finished(self) -> Any:
        """Every tensor that nobody reads goes into one of the outputs."""
        loose = [x for x in self.tensors if not x._keras_history.operation._outbound_nodes]
        flat = [x if len(x.shape) == 2 else layers.Flatten()(x) for x in loose]
        joined = flat[0] if len(flat) == 1 else layers.Concatenate()(flat)
        outputs = [layers.Dense(3)(joined)]
        if len(flat) > 1 and self.draw(st.booleans()):
            outputs.append(layers.Dense(2)(flat[-1]))
        return keras.Model(self.inputs, outputs)

    # -- what can be done with a tensor; each entry makes the next one --------------------------

    def on_anything(self, x: Any) -> list[Callable[[], Any]]:
        options = [
            lambda: layers.BatchNormalization()(x),
            lambda: layers.Activation(self.pick(*ACTIVATIONS))(x),
            lambda: self.keep(layers.Dense(self.width(), self.pick(*ACTIVATIONS)), x),
            lambda: layers.Dropout(0.3)(x),
            lambda: x * 0.7 + 0.1,
        ]
        same = [y for y in self.tensors if y is not x and y.shape == x.shape]
        if same:
            other = self.pick(*same)
            kind = self.pick(
                layers.Add, layers.Multiply, layers.Average, layers.Maximum, layers.Subtract
            )
            options += [lambda: kind()([x, other])] * 3
        joinable = [y for y in self.tensors if y is not x and y.shape[:-1] == x.shape[:-1]]
        if joinable:
            options += [lambda: layers.Concatenate()([x, self.pick(*joinable)])] * 2
        callable_again = [layer for layer, shape in self.shared if shape == x.shape]
        if callable_again:
            options += [lambda: self.pick(*callable_again)(x)] * 2
        if x.shape[-1] > 1 and self.draw(st.integers(0, 5)) == 0:
            options.append(lambda: layers.LayerNormalization()(x))
        return options

    def on_vectors(self, x: Any) -> list[Callable[[], Any]]:
        width = x.shape[-1]
        options = [
            lambda: self.keep(layers.Dense(self.width(), self.pick(*ACTIVATIONS)), x),
            lambda: layers.RepeatVector(STEPS)(x),
            lambda: self.gate(x),
        ]
        halves = [n for n in (2, 3, 4) if width % n == 0 and width > n]
        if halves and width <= 64:
            options.append(lambda: layers.Reshape((self.pick(*halves), -1))(x))
        return options

    def on_sequences(self, x: Any) -> list[Callable[[], Any]]:
        rnn = self.pick(layers.LSTM, layers.GRU, layers.SimpleRNN)
        width = self.draw(st.integers(2, 5))
        sequences = self.draw(st.booleans())
        mode = self.pick("concat", "sum", "ave", "mul")
        return [
            lambda: rnn(width, return_sequences=sequences)(x),
            lambda: layers.Bidirectional(rnn(width, return_sequences=sequences), merge_mode=mode)(
                x
            ),
            lambda: self.with_states(rnn, x),
            lambda: layers.Conv1D(self.width(), 2, padding="same")(x),
            lambda: layers.TimeDistributed(layers.Dense(self.width(), "relu"))(x),
            lambda: layers.Permute((2, 1))(x),
            lambda: layers.Flatten()(x),
            lambda: layers.GlobalAveragePooling1D()(x),
            lambda: layers.UpSampling1D(2)(x) if x.shape[1] < 8 else layers.MaxPooling1D(2)(x),
        ]

    def on_images(self, x: Any) -> list[Callable[[], Any]]:
        kernel = self.pick(1, 2, 3)
        padding = self.pick("same", "valid") if x.shape[1] > 3 and x.shape[2] > 3 else "same"
        options = [
            lambda: self.keep(layers.Conv2D(self.width(), kernel, padding=padding), x),
            lambda: layers.Conv2D(self.width(), kernel, padding="same", strides=2)(x),
            lambda: layers.DepthwiseConv2D(
                kernel, padding="same", depth_multiplier=self.pick(1, 2)
            )(x),
            lambda: layers.SeparableConv2D(self.width(), kernel, padding="same")(x),
            lambda: layers.PReLU(shared_axes=[1, 2])(x),
            lambda: self.gate(x),
            lambda: self.nested(x),
            lambda: layers.Flatten()(x),
            lambda: layers.GlobalMaxPooling2D(keepdims=self.draw(st.booleans()))(x),
            lambda: layers.Reshape((x.shape[1] * x.shape[2], x.shape[3]))(x),
            lambda: layers.Permute(self.pick((2, 1, 3), (3, 1, 2), (1, 3, 2)))(x),
            lambda: layers.ZeroPadding2D(1)(x) if x.shape[1] < 7 else layers.AveragePooling2D(2)(x),
            lambda: layers.Conv2DTranspose(self.width(), 2, padding="same")(x),
        ]
        if x.shape[-1] % 2 == 0:
            groups = self.pick(*[n for n in (2, x.shape[-1]) if x.shape[-1] % n == 0])
            options.append(
                lambda: layers.Conv2D(groups * self.pick(1, 2), 2, padding="same", groups=groups)(x)
            )
        return options

    # -- larger pieces --------------------------------------------------------------------------

    def keep(self, layer: Any, x: Any) -> Any:
        """Call a layer that may be called again."""
        self.shared.append((layer, x.shape))
        return layer(x)

    def gate(self, x: Any) -> Any:
        """Squeeze and excitation."""
        squeezed = x if len(x.shape) == 2 else layers.GlobalAveragePooling2D()(x)
        gate = layers.Dense(x.shape[-1], "sigmoid")(layers.Dense(3, "relu")(squeezed))
        if len(x.shape) == 4:
            gate = layers.Reshape((1, 1, x.shape[-1]))(gate)
        return layers.Multiply()([x, gate])

    def with_states(self, rnn: Any, x: Any) -> Any:
        """Its last state starts another, which may be of another kind."""
        width = self.draw(st.integers(2, 5))
        sequence, *states = rnn(width, return_sequences=True, return_state=True)(x)
        self.tensors += [sequence, states[-1]]
        start = states[0] if self.draw(st.booleans()) else layers.Dense(width, "tanh")(states[0])
        return layers.GRU(width)(sequence, initial_state=start)

    def nested(self, x: Any) -> Any:
        inner = keras.Input(x.shape[1:])
        y = layers.Conv2D(self.width(), 2, padding="same")(inner)
        y = layers.ReLU()(layers.BatchNormalization()(y))
        if self.draw(st.booleans()):
            y = layers.Concatenate()([y, inner])
        model = keras.Model(inner, layers.Conv2D(self.width(), 1)(y))
        return self.keep(model, x)


def draw_model(data: Any, calls: tuple[int, int] = (4, 13)) -> Any:
    """A built Keras model.

    Args:
        data: of hypothesis's `st.data()`. A strategy of its own would not do: Keras takes seeds from
            Python's `random`, which strategies must not touch.
    """
    return Builder(data.draw).model(data.draw(st.integers(*calls)))
