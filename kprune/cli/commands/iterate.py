"""kprune iterate"""

from typing import Annotated, Any

from msgspec.structs import asdict
from typer import Argument

from kprune.cli.options import Reading, Reporting
from kprune.cli.training import Learning, Result, Trained


def iterate(
    model: Trained,
    plan: Annotated[str, Argument(metavar="PLAN.yaml", help="The schedule, and when to stop.")],
    *,
    learning: Learning,
    result: Result,
    reporting: Reporting,
    common: Reading,
) -> int:
    """Prune a little, repair or train, and repeat, as a plan says.

    Down to a target, or as long as a metric holds: the last model that held it is written.
    'kprune schema iterate-plan' describes the plan.

    Example: kprune iterate model.keras rounds.yaml --data train.npz
    """
    from kprune.cli.output import present
    from kprune.page.page import Page
    from kprune.train.tune_result import epoch_line
    from kprune.verbs.iterate import iterate as run
    from kprune.verbs.iterate_result import round_line

    progress = Page(stderr=True)
    learning.announce()

    def tell_cut(number: int, report: Any) -> None:
        progress.print(round_line(number, report))

    def tell_epoch(epoch: int, epochs: int, figures: dict[str, Any]) -> None:
        progress.print(f"  {epoch_line(epoch, epochs, figures)}")

    found = run(
        model,
        plan,
        **asdict(learning),
        **asdict(result),
        rules=common.rules or (),
        trust=common.trust,
        on_cut=None if reporting.quiet else tell_cut,
        on_epoch=None if reporting.quiet else tell_epoch,
    )
    present(found, reporting, path=found.output, force=result.force)
    return 0 if found.met else 5
