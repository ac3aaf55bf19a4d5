"""Prune a little, repair or train on, repeat: until a target is met, or a metric would not hold."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, cast

import msgspec
from msgspec.structs import replace

from kprune.analysis.counts import count
from kprune.atomic import TemporaryFolder, check_apart, check_output
from kprune.errors import CheckError, PlanError, UsageError
from kprune.faults import shown
from kprune.opened import analyse, open_model
from kprune.page.plot import check_plot, draw
from kprune.page.result import Note
from kprune.pointing import checked
from kprune.report.report import Report
from kprune.running.sources import DataSource, held, named
from kprune.runtime.keras_import import import_keras
from kprune.select.plans.iteration import IterationPlan, parse_iteration_plan
from kprune.select.ranking.budget import Budget
from kprune.select.ranking.choice import Choice
from kprune.select.ranking.options import Way
from kprune.text import clean
from kprune.train.checkpoint import Epoch
from kprune.train.settings import TrainingOptions
from kprune.train.sparsity import NEAR_ZERO, PENALTY
from kprune.train.tune import judged, learned_from, target_of, tune, write_as_it_is
from kprune.train.tune_loop import HELD_BACK, OnEpoch
from kprune.train.tune_result import Tuning
from kprune.train.work_folder import fingerprint
from kprune.types import AnyPath
from kprune.verbs.apply import plan_text
from kprune.verbs.change import remove
from kprune.verbs.iterate_result import End, Iteration, Round, panel
from kprune.verbs.rounds import Rounds, last_held

OnCut = Callable[[int, Report], None]


@checked()
def iterate(
    model: AnyPath,
    plan: IterationPlan | AnyPath,
    *,
    data: DataSource,
    validation: DataSource | None = None,
    teacher: AnyPath | None = None,
    output: AnyPath | None = None,
    in_place: bool = False,
    force: bool = False,
    resume: bool = False,
    plot: AnyPath | None = None,
    rules: Iterable[str] = (),
    trust: bool = False,
    on_cut: OnCut | None = None,
    on_epoch: OnEpoch | None = None,
) -> Iteration:
    """Cut a model file in rounds, refit or train it after each, as a plan says, and write the last that held.

    Finished rounds are kept in the folder OUTPUT.rounds, with the epochs of the one at work; it is
    removed when the output is written. A run that was interrupted and is resumed gives what one
    that was not interrupted gives, as far as `kprune.tune` promises that of its part.

    Args:
        model: path of a `.keras` file or folder.
        plan: an IterationPlan, or the path of a YAML file.
        data, validation, teacher: see `kprune.tune`. The same data are held back in every round, and
            no repair is fitted on them.
        output, in_place, force: where the result goes; by default NAME.pruned.EXT.
        resume: go on from the last finished epoch of an interrupted run, if there was one.
        plot: a path that ends in .svg or .png, for the metric against the size.
        rules: files with rules for layers that kprune does not know, and with criteria.
        trust: whether code that is not Keras's own may be run: of packages that the file names.
        on_cut: called after each cut with (round, report of the cut).
        on_epoch: called after each epoch with (epoch, epochs, metrics).
    Raises: PlanError, with the line; CheckError if the target is out of reach, or if the floor does
        not even hold in the first round: nothing is written then. UsageError, CannotPruneError,
        FileError. An interruption (KeyboardInterrupt) has a note that tells where the rounds are.
    """
    rules = tuple(rules)
    read = (model, plan, data, validation, teacher, *rules)
    if plot is not None:
        check_plot(plot, force=force, apart=read)
    loaded = plan if isinstance(plan, IterationPlan) else _loaded(Path(plan))
    if teacher is not None and not loaded.trains:
        raise UsageError(
            "a teacher with a plan that trains nothing",
            where=loaded.where("repair"),
            do="add tune: {epochs: 3} to the plan, or leave out the teacher",
        )
    with open_model(model, trust=trust) as source:
        target = target_of(source, output, in_place, "pruned")
        given = fingerprint(source)
    check_output(target, force=force or in_place)
    check_apart({"-o": target, "--plot": plot}, read[1:])
    with TemporaryFolder() as folder:
        place = Path(folder) / "rounds" if target == "-" else Path(f"{target}.rounds")
        conditions: dict[str, Any] = {
            "plan": msgspec.to_builtins(loaded),
            "data": named(data),
            "validation": None if validation is None else named(validation),
            "teacher": None if teacher is None else os.fspath(teacher),
            "model": given,
        }
        work = Rounds(place, conditions)
        rounds = work.resumed() if resume else None
        resumed = rounds is not None
        before = 0 if rounds is None else rounds[-1].number
        if rounds is None:
            work.refuse_if_there(force=force)
        data, validation = held(data), None if validation is None else held(validation)
        run = _Run(model, loaded, work, data, validation, teacher, rules, trust, on_cut, on_epoch)
        try:
            run.start(rounds)
            stopped = run.go_on()
            written = run.write(target, stopped, force=force or in_place)
        except BaseException as error:
            if isinstance(error, Exception) and len(run.rounds) < 2:
                work.remove()  # there is nothing in it to go on from
            elif not isinstance(error, Exception) and target != "-":
                run.tell_how_to_go_on(error)
            raise
        work.remove()
    notes = list(run.notes)
    if resume and not resumed:
        notes.append(
            Note(
                "resume",
                "",
                "there was nothing to resume: the first round started from the beginning",
            )
        )
    found = Iteration(
        input=os.fspath(model),
        output=target,
        plot=None if plot is None else os.fspath(plot),
        kind=loaded.kind,
        target=run.end,
        floor=loaded.floor,
        bound=run.bound,
        rounds=run.rounds,
        written=written,
        stopped=stopped,
        metric=run.metric,
        resumed=before,
        repair=run.way,
        trained=loaded.trains,
        notes=notes,
    )
    if plot is not None:
        draw(plot, [panel(found)], force=force)
    return found


def _loaded(path: Path) -> IterationPlan:
    return parse_iteration_plan(plan_text(path), path.name)


@dataclass
class _Run:
    """The rounds, one after the other; the arguments of `iterate`, and what has come of them.

    Attributes:
        end: what the target leaves; None if there is none.
    """

    model: AnyPath
    plan: IterationPlan
    work: Rounds
    data: DataSource
    validation: DataSource | None
    teacher: AnyPath | None
    rules: tuple[str, ...]
    trust: bool
    on_cut: OnCut | None
    on_epoch: OnEpoch | None
    rounds: list[Round] = field(default_factory=list)
    notes: list[Note] = field(default_factory=list)
    end: float | None = None
    metric: str = "loss"

    def start(self, rounds: list[Round] | None) -> None:
        """Look at the model as it was; or take up the rounds that there are."""
        import_keras()  # before files with rules do, which would let it say what it likes
        whole = self._whole() if rounds is None else rounds[0]
        self.rounds = [whole] if rounds is None else rounds
        if self.plan.target is not None:
            self.end = self.plan.target.budget.goal(self._size(whole))
        others = (name for name in whole.tuned if name not in ("loss", PENALTY, NEAR_ZERO))
        self.metric = self.plan.limit.metric if self.plan.limit else next(others, "loss")
        if rounds is None:
            self._check_floor(whole)
            self._check_target(whole)
            self.work.keep(self.rounds)

    def _whole(self) -> Round:
        with open_model(self.model, trust=self.trust) as source:
            counts = count(analyse(source, self.rules))
            wanted = self.plan.model
            if wanted is not None and wanted.parameters != counts.parameters:
                raise PlanError(
                    f"the plan is for a model of {wanted.parameters:,} parameters, "
                    f"and this one has {counts.parameters:,}",
                    where=self.plan.where("model", "parameters"),
                    do="check which model the plan was made for; nothing was written",
                )
            size = source.bytes
        return Round(
            number=0, goal=None, units=counts.units, parameters=counts.parameters,
            flops=counts.flops, bytes=size, cut=None, tuned=self._judged(self.model), epochs=0, best=0,
            held=True,
        )  # fmt: skip

    @property
    def way(self) -> Way | None:
        """How what each cut leaves is refitted; None if it is not."""
        repair = self.plan.repair
        return "lstsq" if repair is True else repair or None

    @property
    def bound(self) -> float | None:
        """The figure that the floor's metric is compared with; None without a floor."""
        floor = self.plan.limit
        return None if floor is None else floor.bound(self.rounds[0].tuned[floor.metric])

    def _holds(self, figures: Epoch) -> bool:
        floor = self.plan.limit
        return floor is None or floor.holds(
            figures[floor.metric], self.rounds[0].tuned[floor.metric]
        )

    def _check_floor(self, whole: Round) -> None:
        floor = self.plan.limit
        if floor is None:
            return
        if floor.metric not in whole.tuned:
            raise PlanError(
                f"the model has no metric '{clean(floor.metric)}'",
                where=self.plan.where("floor"),
                why=f"it is judged by {', '.join(map(clean, whole.tuned))}",
                do="name one of these, or let training measure it (tune: {metric: NAME})",
            )
        if not self._holds(whole.tuned):
            raise CheckError(
                f"the model as it is does not hold {clean(self.plan.floor)}",
                where=self.plan.where("floor"),
                why=f"its {clean(floor.metric)} is {whole.tuned[floor.metric]:.4f}",
                do="nothing was written",
            )

    def _check_target(self, whole: Round) -> None:
        """Raises: CheckError if the target cannot be met, before anything is trained."""
        if self.end is None or self._size(whole) <= self.end or self.plan.choose.max_ratio:
            return
        # What can go at most does not hang on what ranks it, and some criteria run the model.
        choice = self._choice(self.end)
        ranked = replace(choice, criterion="l1", normalize="none", weighting="relmean")
        self._remove(self.model, ranked, data=self.data, dry_run=True)

    def go_on(self) -> End:
        """Carry out the rounds that are left; why they ended."""
        while True:
            last = self.rounds[-1]
            if not last.held:
                return "floor"
            if self.end is not None and self._size(last) <= self.end:
                return "target"
            try:
                self._round(last)
            except CheckError as error:  # no more units may go
                if len(self.rounds) == 1:
                    raise
                self.notes.append(Note("exhausted", "", f"{error.what}: {error.why}"))
                return "exhausted"

    @cached_property
    def _fitted_on(self) -> DataSource:
        """What repairs are fitted on."""
        return learned_from(
            self.model, data=self.data, validation=self.validation, rules=self.rules,
            trust=self.trust, **self._tuning(self.model),
        )  # fmt: skip

    def _round(self, last: Round) -> None:
        number = last.number + 1
        whole = self._size(self.rounds[0])
        goal = self.plan.goal(number, whole, self.end)
        step = number
        while goal >= self._size(last):  # whole groups went, and more than had to
            step += 1
            goal = self.plan.goal(step, whole, self.end)
        before = self.model if last.number == 0 else self.work.model(last.number)
        cut, out = self.work.cut(number), self.work.model(number)
        report = self._remove(
            before, self._choice(goal), output=cut, force=True, repair=self.way,
            data=self._fitted_on if self.way else self.data,
        )  # fmt: skip
        if self.on_cut is not None:
            self.on_cut(number, report)
        import_keras().utils.clear_session()  # the graphs of the rounds before
        unrepaired = self._unrepaired(before, report) if self.way else None
        if self.plan.trains:
            found = self._tuned(cut, out)
            epochs, best, notes = [*map(_plain, found.epochs)], found.best, found.notes
        else:
            epochs, best, notes = [self._judged(cut)], 0, []
            cut.rename(out)
        if number == 1:
            self.notes += [note for note in report.notes if note.kind == "not-repaired"]
            self.notes += [note for note in notes if note.kind != "resume"]
        self.rounds.append(
            Round(
                number=number,
                goal=goal,
                units=report.output.units,
                parameters=report.output.parameters,
                flops=report.output.flops,
                bytes=_bytes(out),
                cut=unrepaired or epochs[0],
                tuned=epochs[best],
                epochs=len(epochs) - 1,
                best=best,
                held=self._holds(epochs[best]),
                repaired=epochs[0] if self.way else None,
            )
        )
        self.work.keep(self.rounds)

    def _unrepaired(self, before: AnyPath, report: Report) -> Epoch:
        """The figures of a cut as it is before the repair."""
        with TemporaryFolder() as folder:
            plain = Path(folder) / "cut.keras"
            remove(before, report.selected, output=plain, rules=self.rules, trust=self.trust)
            return self._judged(plain)

    def _tuned(self, cut: Path, out: Path) -> Tuning:
        """Train what a cut left."""
        return tune(
            cut, data=self.data, validation=self.validation, teacher=self.teacher, output=out,
            force=True, resume=True, rules=self.rules, trust=self.trust, on_epoch=self.on_epoch,
            **self._tuning(cut),
        )  # fmt: skip

    def _judged(self, model: AnyPath) -> Epoch:
        """The figures of a model file as it is."""
        return _plain(judged(
            model, data=self.data, validation=self.validation, rules=self.rules,
            trust=self.trust, **self._tuning(model),
        ))  # fmt: skip

    def _choice(self, goal: float) -> Choice:
        return self.plan.choose.choice(Budget(self.plan.kind, f"{int(goal)}"))

    def _remove(self, model: AnyPath, choice: Choice, **writing: Any) -> Report:
        choose = self.plan.choose
        return remove(
            model,
            choice=choice,
            layers=choose.layers or None,
            exclude=choose.exclude,
            rules=self.rules,
            trust=self.trust,
            **writing,
        )

    def _tuning(self, model: AnyPath) -> TrainingOptions:
        """The settings of `tune` for a file: what compiles it only where it is not, later on."""
        how = cast("TrainingOptions", msgspec.structs.asdict(self.plan.training))
        if self.rounds and self.rounds[-1].number > 0:
            with open_model(model) as source:
                if source.config.get("compile_config"):  # of an earlier round: its state goes on
                    how |= {"optimizer": None, "loss": None, "metric": None}
        return how

    def _size(self, round_: Round) -> float:
        return float(getattr(round_, self.plan.kind))

    def write(self, target: str, stopped: End, *, force: bool) -> int:
        """Write the model of the last round that held; its number."""
        number = last_held(self.rounds)
        if number == 0 and stopped == "floor":
            first, trains = self.rounds[1], self.plan.trains
            self.work.remove()
            raise CheckError(
                f"the first round does not hold {clean(self.plan.floor)}",
                where=self.plan.where("floor"),
                why=f"with {first.parameters:,} of {self.rounds[0].parameters:,} parameters left "
                f"and after {'training' if trains else 'the repair'}, {clean(self.metric)} is "
                f"{first.tuned[self.metric]:.4f}, and the bound {self.bound:.4f}",
                do=f"take smaller steps (schedule), train {'longer' if trains else 'as well'} "
                "(tune: {epochs: …}), or allow more; nothing was written",
            )
        with open_model(self.model if number == 0 else self.work.model(number)) as source:
            write_as_it_is(source, target, force=force)
        return number

    def tell_how_to_go_on(self, stopped: BaseException) -> None:
        """Put a note into an interruption, in the place of what training says of its own state."""
        if hasattr(stopped, "__notes__"):
            stopped.__notes__.clear()
        if self.work.folder.is_dir():
            done = self.rounds[-1].number if self.rounds else 0
            kept = f"rounds up to {done} are" if done else "the first round is"
            stopped.add_note(
                f"{kept} kept in {shown(self.work.folder)}; the same command with --resume goes on"
            )


def _plain(figures: Epoch) -> Epoch:
    """The figures without Keras's prefix of those on data held back."""
    return {name.removeprefix(HELD_BACK): value for name, value in figures.items()}


def _bytes(path: Path) -> int:
    with open_model(path) as source:
        return source.bytes
