"""What units give on data: statistics of activations, and how much the loss or the outputs hang on them.

A unit is observed where its own activation comes out: behind the layer that makes it, and behind the
BatchNormalization and activation layers that follow it and nothing else. All figures are per unit,
over all samples and all positions (pixels, time steps) at which it stands.

    activation_mean, activation_std, activation_absmax
    apoz     share of activations that are 0 (Hu et al. 2016, "Network Trimming")
    taylor   mean over samples of |sum over positions of a * dL/da|: the loss that goes with the unit,
             to first order (Molchanov et al. 2017, "Pruning Convolutional Neural Networks")
    hessian  mean over samples of |J|^2 / 2, J being the derivative of the outputs by a gate in front of
             the unit: how far the outputs move when it goes, to second order (Gauss-Newton), without targets
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from kprune.analysis.analysis import Analysis
from kprune.atomic import TemporaryFolder
from kprune.errors import CannotPruneError, UsageError
from kprune.formats import Source
from kprune.graph.model import Layer, Model
from kprune.labels.map import TOKENS, UnitAxis
from kprune.running.classes import classes_left, fitted
from kprune.running.compiling import loss_named, losses_of, suggested_loss, weights_of
from kprune.running.data import Data, data_for
from kprune.running.inputs import at
from kprune.running.sources import DataSource
from kprune.runtime.keras_import import import_keras
from kprune.runtime.keras_runtime import is_compiled, keras_layer, load, output_names
from kprune.text import clean
from kprune.types import Progress

MOMENTS = ("activation_mean", "activation_std", "activation_absmax", "apoz")
NAMES = (*MOMENTS, "taylor", "hessian")

# Behind these a unit is still the one that its layer made, as behind what hands values on.
FOLLOWING = frozenset("BatchNormalization Activation ReLU LeakyReLU ELU PReLU".split())
# Outputs beyond this many are followed as random combinations, not one by one.
OUTPUTS = 64
PROJECTIONS = 32


def observed(analysis: Analysis, axis: UnitAxis) -> tuple[Layer, int, np.ndarray]:
    """Where the units of an axis are seen.

    Returns: the layer, the axis of its output, and int64 (units,), the position of each unit there.
    Raises: CannotPruneError if they are at no layer's output as such (the heads of an attention).
    """
    layer, model = axis.layer, _model_of(analysis, analysis.model, axis.layer)
    if model is not None:
        while (following := _only_consumer(analysis, model, layer)) is not None:
            layer = following
        labels = analysis.map.tensors.get((model.path, layer.name, 0, 0))
        for factor in labels.factors if labels is not None else ():
            support = [number for number, extent in enumerate(factor.shape) if extent > 1]
            if len(support) == 1:
                ids = factor.ravel()
                order = np.argsort(ids, kind="stable")
                found = np.searchsorted(ids[order], axis.ids).clip(max=len(ids) - 1)
                if np.array_equal(ids[order][found], axis.ids):
                    return layer, support[0], order[found]
    raise CannotPruneError(
        f"the activations of '{clean(axis.address)}' cannot be observed",
        why="its units are not at the output of any layer",
        do="leave the layer out (--exclude), or use a criterion of the weights",
    )


def _model_of(analysis: Analysis, model: Model, layer: Layer) -> Model | None:
    """The graph in which a layer is called, step by step in Python; None if there is none."""
    if model.layers.get(layer.name) is layer:
        return model
    for inner in model.layers.values():
        if inner.inside is None or (inner.model is None and not _unrolled(analysis, inner)):
            continue
        if (found := _model_of(analysis, inner.inside, layer)) is not None:
            return found
    return None


def _unrolled(analysis: Analysis, wrapper: Layer) -> bool:
    """Whether Keras calls what a TimeDistributed wraps once a step: it maps a time axis of unknown length."""
    visits = analysis.map.record(wrapper).visits
    shapes = [visit.inputs[0].shape for visit in visits if visit.inputs]
    return bool(shapes) and all(shape is not None and shape[1] is not None for shape in shapes)


def _only_consumer(analysis: Analysis, model: Model, layer: Layer) -> Layer | None:
    """The layer behind, if it is the only one and makes nothing new."""
    readers = [call for call in model.calls if any(ref.layer == layer.name for ref in call.inputs)]
    if len(readers) != 1 or len(readers[0].inputs) != 1:
        return None
    reader = readers[0].layer
    hands_on = analysis.map.record(reader).values == "same"
    return reader if hands_on or reader.kind in FOLLOWING else None


@dataclass(eq=False)
class Activations:
    """Figures of units on data, worked out when they are first asked for.

    Attributes:
        source: the model file.
        analysis: of it.
        data: inputs, and targets where a loss is needed.
    """

    source: Source
    analysis: Analysis
    data: DataSource
    batch_size: int = 64
    seed: int = 0
    progress: Progress | None = None
    _found: dict[str, dict[str, np.ndarray]] = field(default_factory=dict)
    _loaded: tuple[Any, Data] | None = None

    def get(self, axis: UnitAxis, name: str) -> np.ndarray:
        """One figure of one axis of units, float64 (units,).

        Raises: CannotPruneError if the units cannot be observed; UsageError for data that do not fit.
        """
        observed(self.analysis, axis)
        if name not in self._found:
            if name in MOMENTS:
                self._found.update(self._moments())
            else:
                self._found[name] = self._taylor() if name == "taylor" else self._hessian()
        return self._found[name][axis.address]

    def _axes(self) -> list[tuple[UnitAxis, Layer, int, np.ndarray]]:
        found = []
        for axis in self.analysis.map.axes.values():
            if axis.name in ("features", TOKENS):
                continue
            try:
                found.append((axis, *observed(self.analysis, axis)))
            except CannotPruneError:
                continue  # it is refused when somebody asks for it
        return found

    def _model(self) -> tuple[Any, Data]:
        if self._loaded is None:
            keras = import_keras()
            with TemporaryFolder() as folder:
                model = load(self.source, Path(folder), compiled=True)
            self._loaded = model, self._fitted(model, data_for(model, self.data))
            keras.utils.set_random_seed(self.seed)
        return self._loaded

    def _fitted(self, model: Any, data: Data) -> Data:
        """The data, with targets as a model counts them that has lost classes."""
        if data.targets is None:
            return data
        names = output_names(model)
        targets, known, _ = fitted(data.targets, classes_left(self.analysis, names), names[0])
        if known is None:
            return replace(data, targets=targets)
        return replace(data, inputs=at(data.inputs, known), targets=at(targets, known))

    def _batches(self, data: Data) -> Iterator[tuple[Any, np.ndarray | None]]:
        count = len(import_keras().tree.flatten(data.inputs)[0])
        for start in range(0, count, self.batch_size):
            part = slice(start, min(start + self.batch_size, count))
            yield at(data.inputs, part), at(data.targets, part)
            if self.progress is not None:
                self.progress(part.stop, count)

    def outputs(self, axis: UnitAxis) -> Iterator[np.ndarray]:
        """What the units of one axis give, batch by batch: float64 (values, units).

        Raises: as `get`.
        """
        for _, values in self._outputs([(axis, *observed(self.analysis, axis))]):
            yield values

    def _outputs(
        self, axes: Sequence[tuple[UnitAxis, Layer, int, np.ndarray]]
    ) -> Iterator[tuple[UnitAxis, np.ndarray]]:
        """What units give, batch by batch: float64 (values, units) for each call of each axis's layer."""
        model, data = self._model()
        with captured(model, {layer.path for _, layer, _, _ in axes}) as seen:
            for x, _ in self._batches(data):
                seen.clear()
                model(x, training=False)
                for axis, layer, along, positions in axes:
                    for output in seen[layer.path]:
                        values = np.moveaxis(np.asarray(output, np.float64), along, -1)
                        yield axis, values[..., positions].reshape(-1, len(axis))

    def _moments(self) -> dict[str, dict[str, np.ndarray]]:
        axes = self._axes()
        sums = {
            axis.address: np.zeros((4, len(axis))) for axis, *_ in axes
        }  # total, squares, zeros, count
        largest = {axis.address: np.zeros(len(axis)) for axis, *_ in axes}
        for axis, values in self._outputs(axes):
            count = np.full(len(axis), len(values))
            sums[axis.address] += np.stack(
                [values.sum(0), (values**2).sum(0), (values == 0).sum(0), count]
            )
            most = largest[axis.address]
            np.maximum(most, np.abs(values).max(0), out=most)
        result: dict[str, dict[str, np.ndarray]] = {name: {} for name in MOMENTS}
        for address, (total, squares, zeros, number) in sums.items():
            mean = total / number
            result["activation_mean"][address] = mean
            result["activation_std"][address] = np.sqrt(np.maximum(squares / number - mean**2, 0))
            result["activation_absmax"][address] = largest[address]
            result["apoz"][address] = zeros / number
        return result

    def _taylor(self) -> dict[str, np.ndarray]:
        model, data = self._model()
        try:
            data.needed_targets("the criterion taylor needs targets")
        except UsageError as error:
            error.do += ", or use the criterion hessian, which needs none"
            raise
        loss = loss_of(model)

        def losses(outputs: Any, targets: np.ndarray | None) -> list[Any]:
            return [loss(targets, outputs)]

        return self._by_gate(losses, lambda gates: np.abs(gates[0]))

    def _hessian(self) -> dict[str, np.ndarray]:
        keras = import_keras()
        rng = np.random.default_rng(self.seed)

        def outputs_one_by_one(outputs: Any, targets: np.ndarray | None) -> list[Any]:
            flat = [keras.ops.reshape(y, (len(y), -1)) for y in keras.tree.flatten(outputs)]
            together = keras.ops.concatenate([keras.ops.cast(y, "float32") for y in flat], axis=1)
            width = together.shape[1]
            if width <= OUTPUTS:
                return [together[:, k] for k in range(width)]
            # E[(v . J)^2] = |J|^2 for random signs v (Hutchinson).
            signs = rng.choice([-1.0, 1.0], (width, PROJECTIONS)).astype(np.float32)
            combined = keras.ops.matmul(together, signs) / np.sqrt(PROJECTIONS)
            return [combined[:, k] for k in range(PROJECTIONS)]

        return self._by_gate(
            outputs_one_by_one, lambda gates: 0.5 * np.sum(np.square(gates), axis=0)
        )

    def _by_gate(
        self,
        differentiated: Callable[[Any, np.ndarray | None], list[Any]],
        score: Callable[[Sequence[np.ndarray]], np.ndarray],
    ) -> dict[str, np.ndarray]:
        """Derivatives by a gate in front of each unit: sum over positions of a * dT/da.

        Args:
            differentiated: from a batch's outputs and targets, tensors of shape (samples,).
            score: from (samples, units) for each of these tensors, what is averaged over samples.
        """
        import tensorflow as tf

        model, data = self._model()
        axes = self._axes()
        totals = {axis.address: np.zeros(len(axis)) for axis, *_ in axes}
        samples = 0
        with captured(model, {layer.path for _, layer, _, _ in axes}) as seen:
            for x, targets in self._batches(data):
                seen.clear()
                with tf.GradientTape(persistent=True) as tape:
                    seen.watch = tape.watch
                    found = differentiated(model(x, training=False), targets)
                flat = [(path, output) for path, outputs in seen.items() for output in outputs]
                gates: dict[str, list[np.ndarray]] = {axis.address: [] for axis, *_ in axes}
                for scalar in found:
                    gradients = tape.gradient(scalar, [output for _, output in flat])
                    products: dict[str, list[np.ndarray]] = {}
                    for (path, output), gradient in zip(flat, gradients, strict=True):
                        if gradient is not None:
                            dense = tf.convert_to_tensor(gradient)
                            products.setdefault(path, []).append(
                                np.asarray(output * dense, np.float64)
                            )
                    for axis, layer, along, positions in axes:
                        gates[axis.address].append(
                            _over_positions(
                                products.get(layer.path, []), along, positions, len(axis)
                            )
                        )
                del tape
                seen.watch = None
                for address, own in gates.items():
                    totals[address] += np.broadcast_to(
                        score(own), (len(own[0]), len(totals[address]))
                    ).sum(0)
                samples += len(import_keras().tree.flatten(x)[0])
        return {address: total / samples for address, total in totals.items()}


def _over_positions(
    products: list[np.ndarray], along: int, positions: np.ndarray, units: int
) -> np.ndarray:
    """(samples, units): products summed over all positions of each sample, and over calls of a shared layer."""
    if not products:
        return np.zeros((1, units))
    return sum(
        np.moveaxis(product, along, -1)[..., positions].reshape(len(product), -1, units).sum(axis=1)
        for product in products
    )


class Seen(dict[str, list[Any]]):
    """By path of a layer, what each of its calls gave. `watch` is told of every tensor."""

    watch: Callable[[Any], None] | None = None


@contextmanager
def captured(model: Any, paths: set[str]) -> Iterator[Seen]:
    """Record what some layers give while the model is called.

    Args:
        model: a Keras model.
        paths: `outer/inner` for layers of nested models.
    """
    seen = Seen()
    undo = []
    for path in paths:
        layer = keras_layer(model, path)
        original = layer.call

        def call(*args: Any, _original: Any = original, _path: str = path, **kwargs: Any) -> Any:
            outputs = _original(*args, **kwargs)
            first = outputs[0] if isinstance(outputs, (list, tuple)) else outputs
            if seen.watch is not None:
                seen.watch(first)
            seen.setdefault(_path, []).append(first)
            return outputs

        object.__setattr__(layer, "call", call)
        undo.append(layer)
    try:
        yield seen
    finally:
        for layer in undo:
            object.__delattr__(layer, "call")


def loss_of(model: Any) -> Callable[[Any, Any], Any]:
    """The loss of each sample: the model's own, or what its outputs and targets suggest.

    Returns: from targets (an array, or by output) and outputs, a tensor (samples,).
    """
    keras = import_keras()
    names, own = output_names(model), is_compiled(model)
    losses = losses_of(model) if own else [None] * len(names)
    weights = weights_of(model) if own else [1.0] * len(names)

    def each(targets: Any, outputs: Any) -> Any:
        parts = targets if isinstance(targets, dict) else {names[0]: targets}
        whole = 0.0
        for name, loss, weight, output in zip(
            names, losses, weights, keras.tree.flatten(outputs), strict=True
        ):
            if name in parts and (loss is not None or not own):
                whole = whole + weight * _by_sample(keras, loss, parts[name], output)
        return whole

    return each


def _by_sample(keras: Any, loss: Any, targets: np.ndarray, output: Any) -> Any:
    """The loss of each sample at one output, (samples,); None for what targets and output suggest."""
    if loss is None:
        kind, logits = suggested_loss(targets, np.asarray(output))
        loss = loss_named(keras, kind, logits)
    function = keras.losses.get(loss) if isinstance(loss, str) else loss
    if isinstance(function, keras.losses.Loss):
        config = function.get_config()
        function = function.__class__.from_config({**config, "reduction": None})
    if len(output.shape) == targets.ndim + 1 and output.shape[-1] == 1:
        targets = targets[..., None]  # Keras's classes do that by themselves, its functions do not
    values = function(targets, output)
    return keras.ops.mean(keras.ops.reshape(values, (len(targets), -1)), axis=1)
