"""The masked original, run in plain Keras: what a pruned model has to equal.

Nothing of kprune's labels, rules or surgery is used here. A Keras model is run call by call, and
beside each tensor goes an array that tells which of its positions are *gone*. Where a position goes
is not looked up but found out: a layer is called twice on random tensors that differ at the gone
positions alone, and what differs in its outputs is gone as well. Only four things are stated:

    READERS    have a kernel that sums over all inputs. What is gone is replaced by 0 before they
               see it, which is what setting the kernel's rows to 0 does.
    RECURRENT  read their own units of the step before: the recurrent kernel's rows are set to 0.
    PADDERS    put constants around: those around a channel that is gone belong to it.
    LOOKERS    look at all units, and a unit that is 0 makes no difference to them. What is gone is
               replaced by 0, and still gone behind them.

The law that every removal must obey is in `law.py`.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
from keras import tree

READERS = (
    keras.layers.Dense,
    keras.layers.EinsumDense,
    keras.layers.Embedding,
    keras.layers.Conv1D,
    keras.layers.Conv2D,
    keras.layers.Conv3D,
    keras.layers.Conv1DTranspose,
    keras.layers.Conv2DTranspose,
    keras.layers.Conv3DTranspose,
    keras.layers.SeparableConv1D,
    keras.layers.SeparableConv2D,
    keras.layers.SimpleRNN,
    keras.layers.LSTM,
    keras.layers.GRU,
    keras.layers.Bidirectional,
)
PADDERS = (keras.layers.ZeroPadding1D, keras.layers.ZeroPadding2D, keras.layers.ZeroPadding3D)
LOOKERS = (keras.layers.Masking, keras.layers.UnitNormalization)
RECURRENT = (keras.layers.SimpleRNN, keras.layers.LSTM, keras.layers.GRU)
DRAWS = 12


@dataclass
class Marked:
    """A tensor, and which of its positions are gone: bool, its shape with a batch of 1."""

    value: Any
    gone: np.ndarray

    @property
    def array(self) -> np.ndarray:
        return np.asarray(keras.ops.convert_to_numpy(self.value))

    def left(self) -> np.ndarray:
        """The values with every row of gone positions cut away. They must leave a block."""
        array, gone = self.array, self.gone
        for axis in range(1, array.ndim):
            others = tuple(other for other in range(array.ndim) if other != axis)
            keep = ~gone.all(axis=others)
            array, gone = array.compress(keep, axis), gone.compress(keep, axis)
        assert not gone.any(), "what is left is not a block"
        return array


class MaskedOriginal:
    """A Keras model of which some units count for nothing.

    Args:
        model: Functional or Sequential; its recurrent kernels are changed.
        units: by the path of a layer (`outer/inner` in nested models), indices of its units.
    """

    def __init__(self, model: Any, units: Mapping[str, Iterable[int]]) -> None:
        self.model = model
        self._units: dict[int, np.ndarray] = {}
        for path, indices in units.items():
            layer = layer_at(model, path)
            chosen = np.asarray(sorted(indices), np.int64)
            self._units[id(layer)] = chosen
            _cut_recurrent_rows(layer, chosen)

    def __call__(self, inputs: Any) -> list[Marked]:
        """The model's outputs, flattened, for inputs in the model's own structure."""
        marked = [_untouched(keras.ops.convert_to_tensor(x)) for x in tree.flatten(inputs)]
        return tree.flatten(self._run(self.model, marked))

    def _run(self, model: Any, inputs: list[Marked]) -> Any:
        if isinstance(model, keras.Sequential):
            (x,) = inputs
            for layer in model.layers:
                x = self._call(layer, x)
            return x
        # One input layer that was given its own units: features of the input that go.
        inputs = [
            self._own_units(model.get_layer(tensor._keras_history.operation.name), [x])[0]
            for tensor, x in zip(model.inputs, inputs, strict=True)
        ]
        return model._run_through_graph(inputs, call_fn=self._call)

    def _call(self, op: Any, *args: Any, **kwargs: Any) -> Any:
        if isinstance(op, keras.Model):
            return self._run(op, [x for x in tree.flatten([args, kwargs]) if isinstance(x, Marked)])
        if isinstance(op, keras.layers.TimeDistributed):
            return self._own_units(op, self._each_step(op, *args))
        if isinstance(op, READERS):
            result = _values(op, *_map(_silenced, (args, kwargs)))
            if isinstance(op, keras.layers.Dense):
                # Where no input is left, as behind a Permute, it has nothing to work on.
                result.gone = np.repeat(args[0].gone.all(axis=-1, keepdims=True), op.units, axis=-1)
        elif isinstance(op, LOOKERS):
            result = _values(op, *_map(_silenced, (args, kwargs)))
            result.gone = args[0].gone
        else:
            result = _values(op, *_map(lambda x: x.value, (args, kwargs)))
            result = _found_out(op, args, kwargs, result)
            if isinstance(op, PADDERS):
                channels = _channel_axis(op, args[0])
                places = tuple(axis for axis in range(1, args[0].gone.ndim) if axis != channels)
                result.gone = result.gone | args[0].gone.all(axis=places, keepdims=True)
        return self._own_units(op, result)

    def _own_units(self, op: Any, result: Any) -> Any:
        """Mark the units that the layer itself loses."""
        indices = self._units.get(id(op))
        if indices is None:
            return result
        outputs = tree.flatten(result)
        if isinstance(op, keras.layers.Bidirectional):
            _mark_bidirectional(op, outputs, indices)
            return result
        for output in outputs:
            np.moveaxis(output.gone, _channel_axis(op, output), -1)[..., indices] = True
        return result

    def _each_step(self, op: Any, x: Marked) -> Any:
        """TimeDistributed: the inner layer on every time step, as one large batch."""
        batch, steps = x.value.shape[:2]
        gone = x.gone[:, 0]
        assert (x.gone == gone[:, None]).all(), "gone at some time steps only"
        flat = Marked(keras.ops.reshape(x.value, (batch * steps, *x.value.shape[2:])), gone)
        inner = self._call(op.layer, flat)

        def unfolded(y: Marked) -> Marked:
            value = keras.ops.reshape(y.value, (batch, steps, *y.value.shape[1:]))
            _hand_on_mask(x.value, value)
            return Marked(value, np.repeat(y.gone[:, None], steps, axis=1))

        return tree.map_structure(unfolded, inner)


def layer_at(model: Any, path: str) -> Any:
    """The layer with a path such as `outer/inner`; a wrapper stands for what it wraps."""
    layer = model
    for name in path.split("/"):
        if isinstance(layer, keras.layers.TimeDistributed):
            layer = layer.layer
            if layer.name == name:
                continue
        layer = layer.get_layer(name)
    return layer


def _channel_axis(layer: Any, x: Marked) -> int:
    return 1 if getattr(layer, "data_format", None) == "channels_first" else x.gone.ndim - 1


def _cut_recurrent_rows(layer: Any, indices: np.ndarray) -> None:
    if isinstance(layer, keras.layers.TimeDistributed):
        _cut_recurrent_rows(layer.layer, indices)
    if isinstance(layer, keras.layers.Bidirectional):
        units = layer.forward_layer.units
        _cut_recurrent_rows(layer.forward_layer, indices[indices < units])
        back = (
            indices[indices >= units] - units if layer.merge_mode in ("concat", None) else indices
        )
        _cut_recurrent_rows(layer.backward_layer, back)
    if isinstance(layer, RECURRENT):
        kernel = keras.ops.convert_to_numpy(layer.cell.recurrent_kernel).copy()
        kernel[indices] = 0
        layer.cell.recurrent_kernel.assign(kernel)


def _mark_bidirectional(op: Any, outputs: list[Marked], indices: np.ndarray) -> None:
    """Outputs: the merged one, or one a direction, then states of forward and of backward."""
    units = op.forward_layer.units
    apart = op.merge_mode in ("concat", None)
    halves = (
        [indices[indices < units], indices[indices >= units] - units] if apart else [indices] * 2
    )
    if op.merge_mode is None:
        merged, states = outputs[:2], outputs[2:]
        for output, half in zip(merged, halves, strict=True):
            output.gone[..., half] = True
    else:
        merged, states = outputs[:1], outputs[1:]
        merged[0].gone[..., indices] = True
    for number, state in enumerate(states):
        state.gone[..., halves[number >= len(states) // 2]] = True


def _found_out(op: Any, args: Any, kwargs: Any, result: Any) -> Any:
    """Find out what is gone of the result: what depends on a gone position of an argument."""
    marks = [x for x in tree.flatten([args, kwargs]) if isinstance(x, Marked)]
    if not any(x.gone.any() for x in marks):
        return result
    rng, many = np.random.default_rng(0), _many_draws(op, marks)

    def one(x: Marked) -> Any:
        return keras.ops.cast(_draws(rng, x, many), x.value.dtype)

    def other(x: Marked) -> Any:
        keep = keras.ops.convert_to_numpy(base[id(x)])
        fresh = np.where(x.gone, _draws(rng, x, many), keep)
        return keras.ops.cast(fresh, x.value.dtype)

    base = {id(x): one(x) for x in marks}
    before = _values(op, *_map(lambda x: base[id(x)], (args, kwargs)))
    after = _values(op, *_map(other, (args, kwargs)))
    for x, y, z in zip(
        tree.flatten(result), tree.flatten(before), tree.flatten(after), strict=True
    ):
        same = (y.array == z.array) | (np.isnan(y.array) & np.isnan(z.array))
        x.gone = ~same.all(axis=0, keepdims=True)
    return result


def _many_draws(op: Any, marks: list[Marked]) -> int:
    """How many samples, so that what was folded into the batch comes out whole."""
    shape = getattr(op, "newshape", None)
    if shape is None:
        return DRAWS
    one = int(np.prod([size for size in shape if size not in (None, -1)]))
    return DRAWS * one // math.gcd(one, math.prod(marks[0].value.shape[1:]))


def _draws(rng: np.random.Generator, x: Marked, many: int) -> np.ndarray:
    """Half of them positive: what ReLU or a square root swallows must not be taken for the same."""
    shape = (many // 2, *x.value.shape[1:])
    return np.concatenate([rng.uniform(0.2, 2.0, shape), rng.normal(0.0, 1.0, shape)])


def _values(op: Any, args: Any, kwargs: Any) -> Any:
    return tree.map_structure(_untouched, op(*args, **kwargs))


def _untouched(value: Any) -> Marked:
    return Marked(value, np.zeros((1, *value.shape[1:]), bool))


def _silenced(x: Marked) -> Any:
    if not x.gone.any():
        return x.value
    silent = keras.ops.where(x.gone, keras.ops.zeros((), x.value.dtype), x.value)
    _hand_on_mask(x.value, silent)
    return silent


def _hand_on_mask(x: Any, y: Any) -> None:
    """Time steps that are padding stay padding."""
    mask = getattr(x, "_keras_mask", None)
    if mask is not None:
        y._keras_mask = mask


def _map(function: Any, structure: Any) -> Any:
    return tree.map_structure(lambda x: function(x) if isinstance(x, Marked) else x, structure)
