"""SavedModels run and masked by plain TensorFlow, which knows nothing of kprune's graphs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

import kprune
from kprune.opened import analyse, open_model

BATCH, TIME = 3, 5


def random_free_units(
    path: Path,
    ratio: float = 0.3,
    seed: int = 0,
    *,
    mixed: bool = True,
    axes: tuple[str, ...] = ("units",),
) -> dict[str, list[int]]:
    """A share of the free groups of every layer; whole groups, so that no layer loses all.

    Args:
        mixed: whether units over which a statistic is taken are among them.
        axes: of attention, `heads` and the like; at most one that they share a tensor with.
    """
    rng = np.random.default_rng(seed)
    with open_model(path) as source:
        analysis = analyse(source)
    groups, frozen = analysis.groups, analysis.groups.frozen()
    if not mixed:
        frozen = frozen | groups.mixed()
    seen: set[int] = set()
    chosen: dict[str, list[int]] = {}
    for address, axis in analysis.map.axes.items():
        own = groups.of[axis.ids]
        free = {int(group) for group in own[~frozen[axis.ids]]} - seen
        if axis.name not in axes or len(free) < 2:
            continue
        seen |= free
        gone = rng.choice(sorted(free), max(1, int(len(free) * ratio)), replace=False)
        chosen[address] = np.flatnonzero(np.isin(own, gone)).tolist()
    return chosen


def random_inputs(
    signature: Any, seed: int = 1, batch: int = BATCH, time: int = TIME
) -> dict[str, np.ndarray]:
    """Inputs of one signature; sizes that are open are `batch` and `time`."""
    rng = np.random.default_rng(seed)
    inputs = {}
    for name, spec in signature.structured_input_signature[1].items():
        shape = [
            (batch if axis == 0 else time) if size is None else size
            for axis, size in enumerate(spec.shape)
        ]
        kind = spec.dtype.as_numpy_dtype
        values = rng.normal(size=shape) if spec.dtype.is_floating else rng.integers(0, 2, shape)
        inputs[name] = values.astype(kind)
    return inputs


def outputs(
    loaded: Any, seed: int = 1, batch: int = BATCH, time: int = TIME
) -> dict[str, np.ndarray]:
    """What every signature gives on random inputs, by signature and output."""
    import tensorflow as tf

    found = {}
    for name, signature in loaded.signatures.items():
        inputs = random_inputs(signature, seed, batch, time)
        given = signature(**{key: tf.constant(value) for key, value in inputs.items()})
        found.update({f"{name}/{key}": value.numpy() for key, value in given.items()})
    return found


def variables(loaded: Any) -> dict[str, Any]:
    """The variables that the signatures read, by name."""
    return {v.name: v for signature in loaded.signatures.values() for v in signature.variables}


def mask(loaded: Any, report: Any) -> int:
    """Zero in a loaded model every slice that a removal took away; how many there were."""
    held = variables(loaded)
    touched = 0
    for row in report.weights:
        variable = held.get(f"{row.path}:0")
        if variable is None:
            # Constants and weights that a graph names otherwise are not variables of that name.
            raise AssertionError(f"{row.path} is none of {sorted(held)}")
        value = variable.numpy()
        for axis, kept in enumerate(row.kept):
            if kept is not None:
                gone = np.setdiff1d(np.arange(value.shape[axis]), kept)
                index: list[Any] = [slice(None)] * value.ndim
                index[axis] = gone
                value[tuple(index)] = 0
                touched += 1
        variable.assign(value)
    return touched


def worst(one: dict[str, np.ndarray], other: dict[str, np.ndarray]) -> float:
    """The largest difference, relative to the largest magnitude of an output."""
    assert one.keys() == other.keys()
    worst = 0.0
    for name, value in one.items():
        assert value.shape == other[name].shape and value.dtype == other[name].dtype, name
        scale = max(float(np.abs(value).max()), 1e-12)
        worst = max(worst, float(np.abs(value - other[name]).max()) / scale)
    return worst


def interface(folder: Path) -> dict[str, Any]:
    """Names, dtypes and shapes of what the signatures take and give, as the file says them."""
    from tensorflow.core.protobuf import saved_model_pb2

    proto = saved_model_pb2.SavedModel()
    proto.ParseFromString((folder / "saved_model.pb").read_bytes())
    return {
        name: {
            side: {
                key: (info.dtype, [d.size for d in info.tensor_shape.dim])
                for key, info in tensors.items()
            }
            for side, tensors in (("in", signature.inputs), ("out", signature.outputs))
        }
        for name, signature in proto.meta_graphs[0].signature_def.items()
    }


def removal_equals_masked_original(
    folder: Path, output: Path, units: dict[str, list[int]] | None = None, *, exact: bool = True
) -> Any:
    """The law: a removed unit is one whose every weight is 0. Gives the report."""
    import tensorflow as tf

    units = units if units is not None else random_free_units(folder)
    report = kprune.remove(folder, units, output=output)
    original = tf.saved_model.load(str(folder))
    before = outputs(original)
    assert mask(original, report) > 0
    expected = outputs(original)
    assert worst(before, expected) > 1e-3, "the masked units must matter, or nothing is shown"
    got = outputs(tf.saved_model.load(str(output)))
    assert report.exact is exact
    if exact:
        assert worst(expected, got) < 1e-4
    assert interface(folder) == interface(output)
    assert report.output.parameters < report.input.parameters
    return report


def same_weights(model_file: Path, small: Path) -> int:
    """Holds a `.keras` file's variables against those that a SavedModel's signatures read; how many."""
    import keras
    import tensorflow as tf

    held = variables(tf.saved_model.load(str(small)))
    model = keras.models.load_model(model_file, compile=False)
    own = {v.path: v.numpy() for v in model.variables if "seed" not in v.path}
    count = 0
    for name, variable in held.items():
        # Scopes that a model was built under stand before the name in an export, not in a loaded model.
        path = "/" + name.removesuffix(":0")
        known = next(
            (value for own_path, value in own.items() if path.endswith("/" + own_path)), None
        )
        if known is not None:
            np.testing.assert_array_equal(known, variable.numpy())
            count += 1
    return count


def serves_in_keras(small: Path) -> None:
    """`keras.layers.TFSMLayer` gives what the signature gives."""
    import keras
    import tensorflow as tf

    loaded = tf.saved_model.load(str(small))
    for name, signature in loaded.signatures.items():
        inputs = random_inputs(signature)
        expected = signature(**{key: tf.constant(value) for key, value in inputs.items()})
        layer = keras.layers.TFSMLayer(str(small), call_endpoint=name)
        got = layer(**inputs) if len(inputs) > 1 else layer(next(iter(inputs.values())))
        if not isinstance(got, dict):  # as the exported model gave them
            got = dict(zip(sorted(expected), got if isinstance(got, list) else [got], strict=True))
        assert got.keys() == expected.keys()
        for key, value in expected.items():
            np.testing.assert_allclose(got[key], value, rtol=1e-5, atol=1e-6)


def converts_to_less(
    folder: Path, small: Path, tolerance: float = 1e-4, *, runs: bool = True
) -> None:
    """TFLite takes both; the second's file is smaller, and gives what its signature gives.

    Args:
        runs: no, for loops over open lengths: they stay TensorFlow's operations, which TFLite's
            interpreter in Python lacks.
    """
    import tensorflow as tf

    files = []
    for path in (folder, small):
        converter = tf.lite.TFLiteConverter.from_saved_model(str(path))
        converter.target_spec.supported_ops = [
            tf.lite.OpsSet.TFLITE_BUILTINS,
            tf.lite.OpsSet.SELECT_TF_OPS,
        ]
        files.append(converter.convert())
    assert len(files[1]) < len(files[0])
    if not runs:
        return
    signature = tf.saved_model.load(str(small)).signatures["serving_default"]
    inputs = random_inputs(signature, batch=1)
    expected = signature(**{key: tf.constant(value) for key, value in inputs.items()})
    runner = tf.lite.Interpreter(model_content=files[1]).get_signature_runner("serving_default")
    got = runner(**inputs)
    for key, value in expected.items():
        scale = float(np.abs(value).max())
        assert np.abs(got[key] - value.numpy()).max() <= tolerance * max(scale, 1e-6)
