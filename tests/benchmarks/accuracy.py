"""Accuracy against size, by criterion: right after the cut, and after five epochs of `tune`.

    python -m tests.benchmarks.accuracy                  train, cut, tune, print the table
    python -m tests.benchmarks.accuracy --jobs 2         two processes
    python -m tests.benchmarks.accuracy --table          only the tables of what is there

The models are those of sample_models, trained anew from several seeds on scikit-learn's digits.
Each is cut to a budget of parameters by every criterion, and trained on with and without the
original as its teacher; accuracy is that on the 450 images that were never trained on. Figures are
appended to a file as they come, so that a run that was interrupted goes on where it was.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

ROOT = Path(__file__).resolve().parent.parent.parent
FOLDER = ROOT / ".bench" / "accuracy"
MODELS = ("digits_resnet", "digits_cnn", "digits_lstm", "digits_mlp")  # the slowest first
REMOVED = (0.30, 0.50, 0.70, 0.85)
STAGES = ("cut", "tuned", "taught")
EPOCHS = 5
SAMPLES = 256  # of the training data, for criteria on activations


class Way(NamedTuple):
    """A way to rank the units of all layers in one list."""

    name: str
    criterion: str
    normalize: str = "layer-mean"
    max_ratio: float | None = None


# The scores of most criteria grow with what a layer has of weights or activations, so they are taken
# relative to the layer's mean. Those of random, lamp, taylor and hessian compare as they are.
WAYS = (
    *(Way(name, name, "none") for name in ("random", "lamp", "taylor", "hessian")),
    *(Way(name, name) for name in ("l1", "l2", "mean", "fpgm", "bn-scale")),
    *(Way(name, name) for name in ("apoz", "activation-mean", "activation-std", "activation-absmax")),
    Way("l1, not normalized", "l1", "none"),
    Way("taylor, --max-ratio 0.8", "taylor", "none", 0.8),
)  # fmt: skip


class Row(NamedTuple):
    """One figure; `accuracy` is None where the criterion cannot meet the budget."""

    model: str
    seed: int
    way: str
    removed: float
    stage: str
    accuracy: float | None
    parameters: int | None

    @property
    def key(self) -> tuple[Any, ...]:
        return self[:5]


class Results:
    """The figures there are, in a file of JSON lines that grows."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "results.jsonl"
        text = self.path.read_text() if self.path.exists() else ""
        # A run that was killed may have left half a line.
        whole = [line for line in text.split("\n")[:-1] if line.endswith("]")]
        self.rows = {row.key: row for row in (Row(*json.loads(line)) for line in whole)}

    def add(self, row: Row) -> None:
        self.rows[row.key] = row
        with self.path.open("a") as file:
            file.write(json.dumps(row) + "\n")


def run(name: str, seed: int, folder: Path, stages: Sequence[str], ways: Sequence[str]) -> None:
    """Every figure of one model, one seed, some stages and ways that is not there yet."""
    data = saved_data(folder)
    original = trained(name, seed, folder)
    results = Results(folder)
    whole = Row(name, seed, "", 0.0, "whole", None, None)
    if whole.key not in results.rows:
        results.add(whole._replace(accuracy=accuracy(original, data)))
    for way in [way for way in WAYS if way.name in ways]:
        for removed in REMOVED:
            row = Row(name, seed, way.name, removed, "", None, None)
            left = [stage for stage in stages if row._replace(stage=stage).key not in results.rows]
            if left:
                for figure in figures(original, row, way, left, data):
                    results.add(figure)


def figures(
    original: Path, row: Row, way: Way, stages: list[str], data: dict[str, Path]
) -> Iterator[Row]:
    """One cut, and what it comes to at each stage."""
    import kprune
    from kprune.select.ranking.budget import Budget

    with tempfile.TemporaryDirectory() as place:
        small, better = Path(place) / "small.keras", Path(place) / "tuned.keras"
        goal = Budget("parameters", f"{100 * (1 - row.removed):g}%")
        try:
            report = kprune.remove(
                original,
                choice=kprune.Choice(
                    way.criterion,
                    target=goal,
                    normalize=way.normalize,
                    max_ratio=way.max_ratio,
                    seed=row.seed,
                ),
                data=data["few"],
                output=small,
            )
        except (kprune.CheckError, kprune.UsageError):  # out of reach; nothing it applies to
            yield from (row._replace(stage=stage) for stage in stages)
            return
        row = row._replace(parameters=report.output.parameters)
        for stage in stages:
            if stage != "cut":
                kprune.tune(
                    small, data=data["train"], epochs=EPOCHS, seed=row.seed, output=better, force=True,
                    teacher=original if stage == "taught" else None,
                )  # fmt: skip
            yield row._replace(
                stage=stage, accuracy=accuracy(small if stage == "cut" else better, data)
            )


def saved_data(folder: Path) -> dict[str, Path]:
    """The digits as files: `train`, `few` of those, `test`."""
    from sample_models.make_models import digits

    paths = {part: folder / f"{part}.npz" for part in ("train", "few", "test")}
    if not paths["test"].exists():
        found = digits()
        np.savez(paths["train"], x=found.x_train, y=found.y_train)
        np.savez(paths["few"], x=found.x_train[:SAMPLES], y=found.y_train[:SAMPLES])
        np.savez(paths["test"], x=found.x_test, y=found.y_test)
    return paths


def trained(name: str, seed: int, folder: Path) -> Path:
    """The model, trained as the samples are, but from this seed."""
    import keras

    from sample_models.make_models import RECIPES, digits

    path = folder / f"{name}.{seed}.keras"
    if not path.exists():
        recipe, data = RECIPES[name], digits()
        keras.utils.set_random_seed(seed)
        model = recipe.build()
        adam = keras.optimizers.Adam(name="adam")
        model.compile(adam, loss="sparse_categorical_crossentropy", metrics=["accuracy"])
        model.fit(data.x_train, data.y_train, batch_size=32, epochs=recipe.epochs, verbose=0)
        partial = path.with_name(f"partial.{path.name}")
        model.save(partial)
        partial.rename(path)
    return path


def accuracy(path: Path, data: dict[str, Path]) -> float:
    """The share of the held-out images that plain Keras gets right."""
    import keras

    model = keras.models.load_model(path, compile=False)
    with np.load(data["test"]) as test:
        scores = np.asarray(model(test["x"], training=False))
        return float((scores.argmax(axis=1) == test["y"]).mean())


def comparable(rows: Sequence[Row]) -> list[Row]:
    """The figures of those seeds of which a stage has as many as of any; all ways then share their seeds."""
    counts = Counter((row.stage, row.seed) for row in rows)
    most = {stage: max(n for (of, _), n in counts.items() if of == stage) for stage, _ in counts}
    return [row for row in rows if counts[row.stage, row.seed] == most[row.stage]]


def mean(rows: Sequence[Row]) -> float:
    """In percent; models count alike, however many seeds each has."""
    figures: dict[str, list[float]] = {}
    for row in rows:
        if row.accuracy is not None:
            figures.setdefault(row.model, []).append(row.accuracy)
    return 100 * float(np.mean([np.mean(own) for own in figures.values()]))


def means(rows: Sequence[Row], way: Way) -> dict[tuple[float, str], float]:
    """By share removed and stage: where each model that the criterion could cut has a figure."""
    own = [row for row in rows if row.way == way.name and row.accuracy is not None]
    reach = {row.model for row in own}
    found = {}
    for removed in REMOVED:
        for stage in STAGES:
            here = [row for row in own if (row.removed, row.stage) == (removed, stage)]
            if here and {row.model for row in here} == reach:  # else it would be another mean
                found[removed, stage] = mean(here)
    return found


def table(rows: Sequence[Row]) -> str:
    """As Markdown: the mean over models and seeds, `cut → tuned / taught`, in percent.

    Those with a teacher are shown if they are of the same seeds as those without.
    """
    models = {row.model for row in rows}
    tuned, taught = ({row.seed for row in rows if row.stage == stage} for stage in STAGES[1:])
    alike = tuned == taught  # else what differs may be the seeds
    lines = [
        "| criterion | " + " | ".join(f"{100 * removed:g} % removed" for removed in REMOVED) + " |",
        "|---" * (1 + len(REMOVED)) + "|",
    ]
    for way in WAYS:
        found = means(rows, way)
        if not alike:
            found = {key: value for key, value in found.items() if key[1] != "taught"}
        cells = []
        for removed in REMOVED:
            cut, tuned, taught = (
                f"{found[removed, stage]:.1f}" if (removed, stage) in found else ""
                for stage in STAGES
            )
            trained_on = " / ".join(filter(None, (tuned, taught)))
            cells.append(f"{cut} → {trained_on}" if trained_on else cut or "–")
        reach = {row.model for row in rows if row.way == way.name and row.accuracy is not None}
        if reach:
            few = f" ({len(reach)} of the models)" if reach != models else ""
            lines.append(f"| {way.name}{few} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def by_teacher(rows: Sequence[Row]) -> str:
    """What the teacher adds, in percent: over all pairs of the same cut tuned without and with one."""
    found = {row.key: row.accuracy for row in rows}
    lines = []
    for removed in REMOVED:
        pairs = [
            (found[row._replace(stage="tuned").key], row.accuracy)
            for row in rows
            if (row.stage, row.removed) == ("taught", removed) and row.accuracy is not None
        ]
        gains = [100 * (taught - tuned) for tuned, taught in pairs if tuned is not None]
        if gains:
            error = np.std(gains) / len(gains) ** 0.5
            lines.append(f"{100 * removed:g} % removed {np.mean(gains):+.1f} ± {error:.1f}")
    return ", ".join(lines)


def spread(rows: Sequence[Row], stage: str) -> float:
    """The standard deviation over seeds, in percent: the mean over all else."""
    groups: dict[tuple[Any, ...], list[float]] = {}
    for row in rows:
        if row.stage == stage and row.accuracy is not None:
            groups.setdefault((row.model, row.way, row.removed), []).append(row.accuracy)
    several = [np.std(group, ddof=1) for group in groups.values() if len(group) > 1]
    return 100 * float(np.mean(several)) if several else 0.0


def plot(rows: Sequence[Row], path: Path) -> None:
    """The mean accuracy by the share of parameters removed: a panel a stage, a curve a criterion."""
    from kprune.page.plot import Curve, Panel, draw

    titles = {
        "cut": "right after the cut",
        "tuned": f"after {EPOCHS} epochs",
        "taught": f"after {EPOCHS} epochs with the original as teacher",
    }
    whole = mean([row for row in rows if row.stage == "whole"])
    panels = []
    for stage, title in titles.items():
        curves = [Curve("whole", [100 * removed for removed in REMOVED], [whole] * 4, dashed=True)]
        for way in WAYS:
            found = means(rows, way)
            at = [removed for removed in REMOVED if (removed, stage) in found]
            if at:
                y = [found[removed, stage] for removed in at]
                curves.append(Curve(way.name, [100 * removed for removed in at], y))
        panels.append(Panel(curves, "parameters removed, %", "accuracy, %", title))
    draw(path, panels)


def show(folder: Path) -> None:
    rows = comparable(list(Results(folder).rows.values()))
    models = list(dict.fromkeys(row.model for row in rows))
    for model in models:
        own = [row for row in rows if row.model == model]
        whole = [row for row in own if row.stage == "whole"]
        print(f"\n{model}, {len(whole)} seeds: {mean(whole):.1f} % whole\n\n{table(own)}")
    if not models:
        return
    print(f"\nmean of {len(models)} models\n\n{table(rows)}\n")
    print(f"what a teacher adds (with the standard error): {by_teacher(rows)}")
    for stage in STAGES:
        seeds = len({row.seed for row in rows if row.stage == stage})
        print(f"{stage}: {seeds} seeds, standard deviation {spread(rows, stage):.1f} on average")
    plot(rows, folder / "accuracy.svg")
    print(f"\nwrote {folder / 'accuracy.svg'}")


def main() -> None:
    parser = argparse.ArgumentParser(description="Accuracy against size, by criterion.")
    parser.add_argument("--jobs", type=int, default=2, help="how many processes")
    parser.add_argument("--seeds", type=int, default=3, help="how many of each model")
    parser.add_argument("--models", nargs="+", help="only these", default=MODELS, choices=MODELS)
    parser.add_argument("--folder", type=Path, default=FOLDER, help="what is kept between runs")
    parser.add_argument("--table", action="store_true", help="run nothing")
    options = parser.parse_args()
    options.folder.mkdir(parents=True, exist_ok=True)
    if not options.table:
        import joblib

        for name in ("TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS"):
            os.environ[name] = "1"  # the processes share the cores
        saved_data(options.folder)
        # Cuts first, then stage by stage, seed by seed, criterion by criterion: a run that is broken
        # off has whole tables of fewer seeds.
        every = [way.name for way in WAYS]
        seeds = range(options.seeds)
        passes: list[tuple[int, str, Sequence[str]]] = [
            *((seed, "cut", every) for seed in seeds),
            *((seed, stage, [name]) for seed in seeds for stage in STAGES[1:] for name in every),
        ]
        joblib.Parallel(n_jobs=options.jobs, batch_size=1, pre_dispatch="n_jobs", verbose=5)(
            joblib.delayed(run)(model, seed, options.folder, (stage,), ways)
            for seed, stage, ways in passes
            for model in options.models
        )
    show(options.folder)


if __name__ == "__main__":
    main()
