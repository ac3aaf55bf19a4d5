"""A model of a custom class, written as a plain Functional file that every command accepts."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from msgspec import field

from kprune.atomic import TemporaryFolder, new_file
from kprune.checking import require_sound
from kprune.custom_code.subclassed import EXPORT, as_one, is_subclassed
from kprune.custom_code.unfold import mend_configs, plain_model, recording
from kprune.errors import CannotPruneError, CheckError, DamagedFileError, KpruneError, UsageError
from kprune.formats import Source, open_model
from kprune.formats.opening import OpenFile, open_file
from kprune.formats.zip.keras_zip import KerasZip
from kprune.graph.dialects import is_keras_2
from kprune.page.page import Page
from kprune.page.result import Result
from kprune.running.inputs import structure
from kprune.runtime.custom_classes import foreign_classes, import_classes, require_trust
from kprune.runtime.inert import require_inert
from kprune.runtime.keras_import import import_keras, quiet
from kprune.runtime.keras_runtime import run
from kprune.runtime.lambda_code import usual_names
from kprune.text import clean
from kprune.types import AnyPath

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
        unused: layers that call() does not use in inference, which were left out.
    """

    input: str
    output: str
    bytes: int
    flattened: list[str]
    mended: list[str]
    needs: list[str]
    parameters: int
    difference: float
    unused: list[str] = field(default_factory=list)
    command: str = "flatten"

    def show(self, on: Page) -> None:
        rows = [
            f"{clean(self.input)} -> {clean(self.output)}",
            f"unfolded: {', '.join(map(clean, self.flattened)) or 'nothing, it was plain already'}",
            f"{self.parameters:,} parameters, {self.bytes:,} bytes; "
            f"outputs differ by {self.difference:.2g}",
        ]
        if self.unused:
            rows.append(
                f"left out, as call() does not use them: {', '.join(map(clean, self.unused))}"
            )
        if self.mended:
            rows.append(f"configs completed: {', '.join(map(clean, self.mended))}")
        if self.needs:
            rows.append(f"to load it in Keras, import {', '.join(map(clean, self.needs))} first")
        on.print("\n".join(rows))


def flatten(
    model: AnyPath,
    output: AnyPath | None = None,
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
        source.trusted = trust
        if source.path is None:
            raise UsageError("a model to flatten must be a file", do="save it, and name its path")
        if source.has_signatures:
            raise CannotPruneError(
                f"{clean(str(source.path))} is a SavedModel, whose graph is flat already",
                do="all other commands accept it as it is",
            )
        refuse_keras2(source)
        path, config = source.path, source.config
    output = Path(path.parent, f"{path.stem}.flat.keras") if output is None else output
    classes = foreign_classes(config)
    require_trust(classes, f"flattening {clean(str(path))}", trust or not classes)
    require_inert(source, import_keras())
    with new_file(output, force=force) as file, TemporaryFolder() as folder:
        written = os.path.join(folder, "flat.keras")
        flat = write_flat(path, config, written, trust=trust)
        size = _copy(written, file.fd)
        with open_model(written) as made:
            require_sound(made.outline())
            needs = sorted({item.module.partition(".")[0] for item in foreign_classes(made.config)})
        file.commit(lambda: None)
    return FlattenReport(
        input=str(path),
        output=str(output),
        bytes=size,
        needs=needs,
        **flat._asdict(),
    )


class Flat(NamedTuple):
    """What came of it, see `FlattenReport`."""

    flattened: list[str]
    mended: list[str]
    unused: list[str]
    difference: float
    parameters: int


def write_flat(path: AnyPath, config: dict[str, Any], written: str, *, trust: bool) -> Flat:
    """Write a model of a class of its own as a plain `.keras`, load that again and compare.

    Args:
        path, config: of the model.
        written: where to.
    Raises: see `flatten`.
    """
    import_keras()
    objects = import_classes(foreign_classes(config))
    with recording() as made:
        loaded = _load(path, objects, trust=trust)
    plain, flattened = plain_model(loaded)
    mended = mend_configs(plain, made)
    with quiet():
        plain.save(written)
    again = _load(written, objects, trust=trust)
    _compare_weights(plain, again)
    runs = as_one(loaded) if is_subclassed(loaded) else loaded
    difference = _compare_outputs(runs, again)
    read = {id(weight) for weight in plain.weights}
    unused = sorted({w.path.rpartition("/")[0] for w in loaded.weights if id(w) not in read})
    return Flat(flattened, mended, unused, difference, int(again.count_params()))


class FlatSource(KerasZip):
    """A model of a class of its own, seen through the plain file that was written of it.

    `path` is the user's file; what is read stands in a temporary one.
    """

    def __init__(self, file: OpenFile, path: Path, unfolded: Sequence[str], folder: Any) -> None:
        super().__init__(file)
        self.stands_at, self.path, self._folder = self.path, path, folder
        if path.is_dir():  # what comes of a folder is a file
            self.default_output = path.with_name(f"{path.name}.pruned.keras")
        names = ", ".join(map(clean, unfolded))
        self.told = (f"{names} was unfolded: what is written is a plain Functional model",)

    def close(self) -> None:
        super().close()
        self._folder.cleanup()


def opened_flat(source: Source) -> Source:
    """A trusted model without a graph, flattened, and opened in its place; it is closed.

    Raises: see `flatten`.
    """
    path, config = source.path, source.config
    refuse_keras2(source)
    source.close()
    if path is None:
        raise UsageError("a model of a custom class must be a file", do="name its path")
    folder = TemporaryFolder()
    try:
        written = os.path.join(folder.name, "flat.keras")
        flat = write_flat(path, config, written, trust=True)
        return FlatSource(open_file(written), path, flat.flattened, folder)
    except BaseException:
        folder.cleanup()
        raise


def refuse_keras2(source: Source) -> None:
    """Raises: CannotPruneError for what Keras 3 does not load."""
    if is_keras_2(source.metadata):
        raise CannotPruneError(
            f"{clean(str(source.path))} was saved by Keras 2, and holds no graph",
            why="kprune traces the code of Keras 3's models only",
            do=EXPORT,
        )


def _load(path: AnyPath, objects: dict[str, Any], *, trust: bool) -> Any:
    """Load with Keras, in its safe mode unless the file is trusted."""
    keras = import_keras()
    try:
        with quiet(), usual_names(keras):
            return keras.saving.load_model(
                path, custom_objects=objects, compile=False, safe_mode=not trust
            )
    except Exception as error:  # Keras's own, or whatever the classes raise
        raise DamagedFileError(
            f"Keras cannot load {clean(str(path))}",
            why=f"{type(error).__name__}: {clean(_last_line(str(error)), 300)}",
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


# -- the check ------------------------------------------------------------------------------------


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
        inputs = _random_inputs(other, size)
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
