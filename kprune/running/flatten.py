"""A model of a class of its own, written as a plain Functional file that every command takes."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from kprune.checking import require_sound
from kprune.errors import CannotPruneError, CheckError, DamagedFileError, KpruneError, UsageError
from kprune.formats import open_model
from kprune.formats.atomic import new_file
from kprune.page.page import Page
from kprune.page.result import Result
from kprune.running.foreign import foreign_classes, import_classes, require_trust
from kprune.running.inputs import structure
from kprune.running.keras_runtime import import_keras, quiet, run
from kprune.running.plain import mend_configs, plain_model, recording
from kprune.text import clean

TOLERANCE = 1e-5
# Tried in turn for sizes left open: convolutions need large ones, tables of positions small ones.
OPEN_SIZES = (4, 2, 16, 32, 64)
_CHUNK = 1 << 20


class FlattenReport(Result, frozen=True, kw_only=True):
    """What flattening did.

    Attributes:
        input, output: paths.
        flattened: the classes that were unfolded, the outermost last.
        mended: classes of layers whose config had to be completed.
        needs: packages that must be imported before Keras loads the output.
        parameters: of either file.
        difference: the largest difference of an output, relative to the largest value.
    """

    input: str
    output: str
    bytes: int
    flattened: list[str]
    mended: list[str]
    needs: list[str]
    parameters: int
    difference: float
    command: str = "flatten"

    def show(self, on: Page) -> None:
        rows = [
            f"{clean(self.input)} -> {clean(self.output)}",
            f"unfolded: {', '.join(map(clean, self.flattened)) or 'nothing, it was plain already'}",
            f"{self.parameters:,} parameters, {self.bytes:,} bytes; "
            f"outputs differ by {self.difference:.2g}",
        ]
        if self.mended:
            rows.append(f"configs completed: {', '.join(map(clean, self.mended))}")
        if self.needs:
            rows.append(f"to load it in Keras, import {', '.join(map(clean, self.needs))} first")
        on.print("\n".join(rows))


def flatten(
    model: str | os.PathLike[str],
    output: str | os.PathLike[str] | None = None,
    *,
    trust: bool = False,
    force: bool = False,
) -> FlattenReport:
    """Write the same network as a plain Functional `.keras`.

    KerasHub's backbones, and other registered subclasses of Functional, keep only the arguments of
    their constructor in the file. So the classes are imported and built, which runs their code;
    what comes out is a graph. Layers of these packages stay as they are. Compile settings are left
    behind.

    The file is loaded again and run beside the original before it gets its name.

    Args:
        model: path of the model file.
        output: a path; by default `NAME.flat.keras` beside the input.
        trust: whether the modules that the file names may be imported.
        force: write over an existing file.
    Raises: CannotPruneError without `trust`, if a package is missing, or if the model has no graph;
        CheckError if the written file does not compute the same; UsageError, FileError.
    """
    with open_model(model) as source:
        if source.path is None:
            raise UsageError("a model to flatten must be a file", do="save it, and name its path")
        if source.format == "savedmodel":
            raise CannotPruneError(
                f"{clean(str(source.path))} is a SavedModel, whose graph is flat already",
                do="every other command takes it as it is",
            )
        path, config = source.path, source.config
    output = Path(path.parent, f"{path.stem}.flat.keras") if output is None else output
    classes = foreign_classes(config)
    require_trust(classes, f"flattening {clean(str(path))}", trust or not classes)
    import_keras()
    with new_file(output, force=force) as file, tempfile.TemporaryDirectory() as folder:
        objects = import_classes(classes)
        with recording() as made:
            loaded = _load(path, objects)
        plain, flattened = plain_model(loaded)
        mended = mend_configs(plain, made)
        written = os.path.join(folder, "flat.keras")
        with quiet():
            plain.save(written)
        again = _load(written, objects)
        _compare_weights(plain, again)
        difference = _compare_outputs(loaded, again)
        size = _copy(written, file.fd)
        with open_model(written) as flat:
            require_sound(flat.outline())
            needs = sorted({item.module.partition(".")[0] for item in foreign_classes(flat.config)})
        file.commit(lambda: None)
    parameters = int(again.count_params())
    return FlattenReport(
        input=str(path),
        output=str(output),
        bytes=size,
        flattened=flattened,
        mended=mended,
        needs=needs,
        parameters=parameters,
        difference=difference,
    )


def _load(path: str | os.PathLike[str], objects: dict[str, Any]) -> Any:
    """Load with Keras; Lambda layers stay forbidden, as their code is in the file itself."""
    keras = import_keras()
    try:
        with quiet():
            return keras.saving.load_model(path, custom_objects=objects, compile=False)
    except Exception as error:  # Keras's own, or whatever the classes raise
        text = str(error)
        if "Lambda" in text and "safe_mode" in text:
            raise CannotPruneError(
                f"{clean(str(path))} holds a Lambda layer",
                why="its code is in the file as bytecode, which kprune never runs, trusted or not",
            ) from error
        raise DamagedFileError(
            f"Keras cannot load {clean(str(path))}",
            why=f"{type(error).__name__}: {clean(_last_line(text), 300)}",
            do="check that the installed versions of its packages are those that saved it",
        ) from error


def _last_line(text: str) -> str:
    lines = [line for line in text.splitlines() if line.strip()]
    return lines[-1] if lines else ""


def _copy(path: str, fd: int) -> int:
    with open(path, "rb") as source:
        while data := source.read(_CHUNK):
            view = memoryview(data)
            while view:
                view = view[os.write(fd, view) :]
        return source.tell()


# -- the proof ------------------------------------------------------------------------------------


def _compare_weights(one: Any, other: Any) -> None:
    """Raises: CheckError unless both have the same weights, bit for bit."""
    first, second = one.weights, other.weights
    if len(first) != len(second):
        raise _differs(f"it has {len(second)} weights, and the original {len(first)}")
    for a, b in zip(first, second, strict=True):
        x, y = np.asarray(a.numpy()), np.asarray(b.numpy())
        if x.shape != y.shape or x.tobytes() != y.tobytes():
            raise _differs(f"the weight {clean(a.path)} is not the same")


def _compare_outputs(one: Any, other: Any) -> float:
    """Run both on the same random inputs. Raises: CheckError if they differ, or if neither runs."""
    failure: KpruneError | None = None
    for size in OPEN_SIZES:
        inputs = _random_inputs(one, size)
        try:
            with quiet():
                expected, got = _outputs(one, inputs), _outputs(other, inputs)
        except CannotPruneError as error:  # these sizes may not do for the layers
            failure = error
            continue
        return _difference(expected, got)
    raise CheckError(
        "the flattened model could not be compared with the original",
        why=f"neither ran on random inputs: {clean(failure.why if failure else '', 200)}",
        do="nothing was written",
    )


def _difference(expected: list[np.ndarray], got: list[np.ndarray]) -> float:
    if [y.shape for y in expected] != [y.shape for y in got]:
        raise _differs("its outputs have other shapes")
    worst = 0.0
    for a, b in zip(expected, got, strict=True):
        scale = float(np.abs(a).max(initial=0.0)) or 1.0
        worst = max(worst, float(np.abs(a - b).max(initial=0.0)) / scale)
    if not worst <= TOLERANCE:  # NaN is not
        raise _differs(f"its outputs differ by {worst:.3g} of the largest")
    return worst


def _differs(why: str) -> KpruneError:
    return CheckError(
        "the flattened model is not the same network",
        why=why,
        do="nothing was written; its class does more than its graph says",
    )


def _random_inputs(model: Any, size: int) -> Any:
    """Inputs in the model's own structure. Integers are 0 or 1: good as tokens and as masks."""
    rng = np.random.default_rng(0)

    def draw(tensor: Any) -> np.ndarray:
        shape = (2, *(size if extent is None else extent for extent in tensor.shape[1:]))
        if "float" in str(tensor.dtype):
            return rng.normal(size=shape).astype("float32")
        return rng.integers(0, 2, shape).astype(str(tensor.dtype))

    return import_keras().tree.map_structure(draw, structure(model))


def _outputs(model: Any, inputs: Any) -> list[np.ndarray]:
    return [y.astype(np.float64) for y in run(model, inputs, batch_size=2)]
