"""What it costs to cut each group of layers alone: the model is really cut, then run by plain Keras."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from msgspec.structs import replace

from kprune.analysis.analysis import Analysis
from kprune.analysis.counts import count
from kprune.atomic import TemporaryFolder
from kprune.errors import CannotPruneError, ExpressionError, UsageError
from kprune.labels.closure import Units, check, close
from kprune.labels.groups import connected
from kprune.labels.map import TOKENS, UnitAxis
from kprune.opened import Opened, analyse, open_model, opened
from kprune.packages import imported
from kprune.pointing import checked
from kprune.pruning.remove import removal
from kprune.pruning.selection import statistics_of
from kprune.pruning.writing import Target, write_file
from kprune.running.classes import classes_left
from kprune.running.examples import examples
from kprune.running.metrics import decisive, directions, evaluated
from kprune.running.sources import DataSource, held, is_function, named
from kprune.runtime.inert import not_compiled
from kprune.runtime.keras_import import import_keras
from kprune.runtime.keras_runtime import load, output_names
from kprune.runtime.lambda_code import trusted
from kprune.select.naming.layer_names import axes_named
from kprune.select.naming.resolve import excluded
from kprune.select.naming.specs import parse_layer
from kprune.select.plans.curves import Candidate, Curves, Point
from kprune.select.ranking.choice import Choice
from kprune.select.ranking.choose import choose
from kprune.select.ranking.ranks import blockwise
from kprune.select.ranking.statistics import Statistics
from kprune.sets import distinct
from kprune.text import clean
from kprune.types import AnyPath, Progress

RATIOS = (0.1, 0.3, 0.5, 0.7, 0.9)
ALL = 1 - 1e-9  # as a ratio: every unit but the last
DIGITS = 6  # beyond them a float depends on how many threads summed it up


@checked()
def sensitivity(
    model: AnyPath,
    *,
    data: DataSource,
    ratios: Sequence[float] = RATIOS,
    criterion: str = "l1",
    layers: Sequence[str] | None = None,
    exclude: Sequence[str] = (),
    metric: str | None = None,
    seed: int = 0,
    batch_size: int = 64,
    jobs: int | None = None,
    rules: Iterable[str] = (),
    trust: bool = False,
    progress: Progress | None = None,
) -> Curves:
    """Measure a metric as a function of the ratio, one group of layers at a time.

    A candidate is a layer with all layers whose units are tied to its own. Each candidate is cut at
    each ratio as `remove` does it, while all others stay whole, and the smaller model is evaluated
    in plain Keras. For what the curves do not show, see `Curves`.

    The measurements are independent of each other, and joblib carries them out: in this process, in
    `jobs` processes, or wherever `joblib.parallel_config(backend="dask")` (or Ray's) sends them. The
    machines must find the model, the data and the rules under the same paths. The result is the
    same in every case.

    Args:
        model: path of a `.keras` or `.h5` file.
        data: inputs and targets, see `DataSource`. A file or function is read for each measurement;
            batches given in Python are read to their end first.
        ratios: shares of a layer's units, each between 0 and 1.
        criterion: the criterion that ranks the units; the lowest go. Criteria on data use the same data.
        layers: names or globs of layers to measure; None for all.
        exclude: names or globs of layers that stay whole, and with them all that are tied to them.
        metric: which of the file's own metrics to use; by default the first for which Keras knows
            whether more is better, else the loss. A file that was not compiled has `accuracy` for
            classes and `mean_squared_error` for other targets.
        seed: for the criterion `random`.
        batch_size: the number of samples that are run at once.
        jobs: the number of processes; None for that of joblib's active configuration (else 1), -1
            for one per core.
        rules: files with rules for layers that kprune does not know, and with criteria.
        trust: whether code that is not Keras's own may be run: of packages that the file names.
        progress: called with (models measured, models in all).
    Raises: UsageError, CannotPruneError, FileError.
    """
    shares = _checked(ratios, batch_size, jobs)
    rules = tuple(os.path.abspath(path) for path in rules)
    name_of_data, data = named(data), _anywhere(data)
    with open_model(model, trust=trust) as source:
        if source.path is None:
            raise UsageError(
                "sensitivity needs a file", do="save the model that comes from standard input"
            )
        source.require("sensitivity")
        if rules:
            import_keras()  # they may import it, and it has less to say where kprune does
        it = Opened(source, analyse(source, rules), rules)
        analysis = it.analysis
        cuts = list(
            _cuts(
                analysis,
                statistics_of(it, data),
                {share: Choice(criterion, ratio=share, seed=seed) for share in shares},
                layers,
                exclude,
            )
        )
        if not cuts:
            raise UsageError("no layer is left to measure", do="exclude fewer, or name layers")
        parameters = count(analysis).parameters
        notes = [*trusted(source), *not_compiled(source)]
    where = _Place(os.path.abspath(model), data, rules, trust, batch_size, metric)
    different: dict[str, Units] = {
        _key(units): units for cut in cuts for units in cut.units.values()
    }
    measured = _measure_all(where, [{}, *different.values()], jobs, progress)
    baseline, of = measured[0], dict(zip(different, measured[1:], strict=True))
    name = decisive(baseline.directions, metric)
    return Curves(
        model=os.fspath(model),
        parameters=parameters,
        data=name_of_data,
        samples=baseline.samples,
        criterion=criterion,
        seed=seed,
        ratios=shares,
        metric=name,
        higher_is_better=bool(baseline.directions[name]),
        baseline=baseline.figures,
        candidates=[_candidate(cut, of) for cut in cuts],
        notes=notes,
    )


def _anywhere(data: DataSource) -> DataSource:
    """The data, or what names them for other processes too."""
    if isinstance(data, (str, os.PathLike)) and not is_function(data):
        return os.path.abspath(data)
    return held(data)


def _checked(ratios: Sequence[float], batch_size: int, jobs: int | None) -> list[float]:
    """The ratios, rising. Raises: UsageError for arguments that make no sense."""
    for ratio in ratios:
        if not 0 < ratio < 1:
            raise UsageError(f"a ratio must lie between 0 and 1, both excluded, got {ratio:g}")
    if not ratios:
        raise UsageError("no ratio is given", do="give some, such as 0.1,0.3,0.5")
    if batch_size < 1:
        raise UsageError(f"a batch must hold at least 1 sample, got {batch_size}")
    if jobs == 0:
        raise UsageError("the number of jobs must be at least 1, or -1 for one per core, got 0")
    return sorted({float(ratio) for ratio in ratios})


@dataclass(frozen=True)
class _Cut:
    """A candidate before it is measured.

    Attributes:
        layers: the number of units of each, by address.
        units: by ratio, all removed units, by address.
        why: what kept it from being cut, at all or further.
    """

    layers: dict[str, int]
    units: dict[float, Units]
    why: str | None


def _cuts(
    analysis: Analysis,
    statistics: Statistics,
    choices: Mapping[float, Choice],
    layers: Sequence[str] | None,
    exclude: Sequence[str],
) -> Iterator[_Cut]:
    """The cuts to measure, candidate by candidate, in the order of the model."""
    every = [axis for axis in analysis.map.axes.values() if axis.name not in ("features", TOKENS)]
    left_out = excluded(analysis, exclude)
    wanted = {
        axis.address for name in layers or () for axis in axes_named(analysis, parse_layer(name))
    } or {axis.address for axis in every}
    for tied in _tied(analysis, every):
        addresses = {axis.address for axis in tied}
        if not addresses & wanted or addresses & left_out:
            continue
        yield _cut(analysis, statistics, choices, tied)


def _tied(analysis: Analysis, axes: Sequence[UnitAxis]) -> list[list[UnitAxis]]:
    """Axes of units in portions that share groups."""
    of = blockwise(analysis.groups).of
    pairs = [
        (int(head), number) for number, axis in enumerate(axes) for head in distinct(of[axis.ids])
    ]
    first: dict[int, int] = {}
    for head, number in pairs:
        first.setdefault(head, number)
    a = np.array([first[head] for head, _ in pairs], np.int64)
    b = np.array([number for _, number in pairs], np.int64)
    portion = connected(len(axes), a, b)
    return [
        [axis for axis, own in zip(axes, portion, strict=True) if own == head]
        for head in distinct(portion)
    ]


def _cut(
    analysis: Analysis,
    statistics: Statistics,
    choices: Mapping[float, Choice],
    axes: list[UnitAxis],
) -> _Cut:
    """One candidate at every ratio that it can lose."""
    sizes = {axis.address: len(axis) for axis in axes}
    try:
        most = choose(
            analysis, statistics, replace(choices[max(choices)], ratio=ALL), axes, named=False
        )
    except ExpressionError as error:  # the criterion applies to none of the layers
        return _Cut(sizes, {}, error.what)
    scored = [axis for axis in axes if axis.address not in most.skipped]
    if not most.units:
        return _Cut(sizes, {}, next(iter(most.skipped.values()), "no unit of it can go alone"))
    can_go = close(analysis.groups, most.units).gone
    found: dict[float, Units] = {}
    why = None
    for ratio, choice in choices.items():
        short = next(
            (axis for axis in scored if _asked(axis, ratio) > can_go[axis.ids].sum()), None
        )
        if short is not None:
            number = int(can_go[short.ids].sum())
            why = f"of the {len(short)} units of '{clean(short.address)}' at most {number} can go"
            break
        closure = close(
            analysis.groups, choose(analysis, statistics, choice, axes, named=False).units
        )
        try:
            check(closure)
        except CannotPruneError as error:
            why = error.why or error.what
            break
        if closure.affected:
            found[ratio] = closure.affected
    if not found and why is None:
        why = f"no ratio takes a whole unit of its {max(sizes.values())}"
    return _Cut(sizes, found, why)


def _asked(axis: UnitAxis, ratio: float) -> int:
    return int(np.floor(ratio * len(axis) + 1e-9))


def _key(units: Units) -> str:
    """Units as text: the same for the same units, whatever their arrays' types."""
    return repr({address: indices.tolist() for address, indices in units.items()})


@dataclass(frozen=True)
class _Place:
    """Where and how a model is measured; sent to other processes, perhaps on other machines."""

    model: str
    data: DataSource
    rules: tuple[str, ...]
    trust: bool
    batch_size: int
    metric: str | None


@dataclass(frozen=True)
class _Measured:
    """One model's figures.

    Attributes:
        directions: for each figure whether more is better; None if that is not known.
    """

    figures: dict[str, float]
    directions: dict[str, bool | None]
    samples: int | None
    parameters: int


def _measure_all(
    where: _Place, models: Sequence[Units], jobs: int | None, progress: Progress | None
) -> list[_Measured]:
    """The figures of each model, in their order, wherever joblib has them measured."""
    joblib = imported("joblib", what="joblib, which spreads the measurements,")

    backend, _ = joblib.parallel.get_active_backend()
    one_by_one = getattr(backend, "supports_return_generator", False)
    work = joblib.Parallel(
        n_jobs=jobs, batch_size=1, return_as="generator" if one_by_one else "list"
    )
    done = []
    for number, one in enumerate(work(joblib.delayed(_measure)(where, units) for units in models)):
        done.append(one)
        if progress is not None:
            progress(number + 1, len(models))
    return done


# Keras's session and standard error belong to a process, which a backend may give several threads.
_ONE_AT_A_TIME = threading.Lock()


def _measure(where: _Place, units: Units) -> _Measured:
    """Cut a model in a temporary file, and evaluate it; without units, the model as it is."""
    # Several processes may share a GPU, and TensorFlow would take all of it for the first.
    os.environ.setdefault("TF_FORCE_GPU_ALLOW_GROWTH", "true")
    import_keras()
    with (
        _ONE_AT_A_TIME,
        TemporaryFolder() as folder,
        opened(where.model, rules=where.rules, trust=where.trust) as it,
    ):
        if not units:
            return _evaluated(where, it, count(it.analysis).parameters, folder)
        small = Path(folder) / f"small{Path(where.model).suffix}"
        report = write_file(it, removal(it, units), Target(small))
        with opened(small, rules=where.rules, trust=where.trust) as cut:
            return _evaluated(where, cut, report.output.parameters, folder)


def _evaluated(where: _Place, it: Opened, parameters: int, folder: str) -> _Measured:
    live = load(it.source, Path(folder), compiled=True)
    classes = classes_left(it.analysis, output_names(live))
    given, _ = examples(live, where.data, where.batch_size, hold_back=0.0, seed=0, classes=classes)
    figures = evaluated(live, given)
    known = directions(live, figures)
    if where.metric is not None:
        decisive(known, where.metric)  # refuses an unknown one
    rounded = {name: float(f"{value:.{DIGITS}g}") for name, value in figures.items()}
    return _Measured(rounded, known, given.count, parameters)


def _candidate(cut: _Cut, of: Mapping[str, _Measured]) -> Candidate:
    points = []
    for ratio, units in cut.units.items():
        measured = of[_key(units)]
        removed = {address: indices.tolist() for address, indices in units.items()}
        points.append(Point(ratio, removed, measured.parameters, measured.figures))
    return Candidate(cut.layers, points, cut.why)
