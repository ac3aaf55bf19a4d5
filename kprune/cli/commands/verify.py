"""kprune verify"""

from typing import Annotated

from typer import Argument, Option

from kprune.cli.options import Json, Reading, announce
from kprune.errors import UsageError

RUN = "How they are run"
LIMITS = "Limits (exit code 5 if one is not met; they need --data)"
TIME = "How long they take"


def verify(
    original: Annotated[str, Argument(metavar="ORIGINAL", help="The model as it was.")],
    pruned: Annotated[str, Argument(metavar="PRUNED", help="The model that kprune made from it.")],
    *,
    data: Annotated[
        str | None,
        Option(
            "--data",
            metavar="FILE.npz",
            help="Inputs x, and targets y for the accuracy (or all by name); or package.module:function, "
            "which is run and returns arrays or a tf.data.Dataset.",
            rich_help_panel=RUN,
        ),
    ] = None,
    samples: Annotated[
        int,
        Option("--samples", metavar="N", help="Number of random inputs.", rich_help_panel=RUN),
    ] = 32,
    seed: Annotated[
        int,
        Option(
            "--seed",
            metavar="N",
            help="Seed for random inputs.",
            rich_help_panel=RUN,
            show_default=False,
        ),
    ] = 0,
    tolerance: Annotated[
        float | None,
        Option(
            "--tolerance",
            metavar="T",
            help="Largest allowed error, relative to an output's magnitude [default: 1e-4].",
            rich_help_panel=RUN,
        ),
    ] = None,
    time: Annotated[
        bool,
        Option(
            "--time",
            help="Also time both, in this process: the median of alternating calls, after a "
            "warm-up.",
            rich_help_panel=TIME,
        ),
    ] = False,
    batch_sizes: Annotated[
        str | None,
        Option(
            "--batch-sizes",
            metavar="N,N",
            help="With --time: samples per call [default: 1,32].",
            rich_help_panel=TIME,
        ),
    ] = None,
    metric: Annotated[
        str | None,
        Option(
            "--metric",
            metavar="NAME",
            help="Use this Keras metric, not those of the file.",
            rich_help_panel=LIMITS,
        ),
    ] = None,
    max_drop: Annotated[
        float | None,
        Option(
            "--max-drop",
            metavar="D",
            help="The metric may be worse than the original's by no more than this, such as 0.02.",
            rich_help_panel=LIMITS,
        ),
    ] = None,
    least: Annotated[
        list[str] | None,
        Option(
            "--min",
            metavar="METRIC=V",
            help="At least this, such as accuracy=0.97; repeatable.",
            rich_help_panel=LIMITS,
            show_default=False,
        ),
    ] = None,
    most: Annotated[
        list[str] | None,
        Option(
            "--max",
            metavar="METRIC=V",
            help="At most this, such as loss=0.3; repeatable.",
            rich_help_panel=LIMITS,
            show_default=False,
        ),
    ] = None,
    min_agreement: Annotated[
        float | None,
        Option(
            "--min-agreement",
            metavar="A",
            help="Both must give the same class for this share of samples; no targets are needed.",
            rich_help_panel=LIMITS,
        ),
    ] = None,
    as_json: Json,
    common: Reading,
) -> int:
    """Run both models in TensorFlow, and compare.

    The pruned model must compute what the original does with its removed units at 0. A repaired
    model computes something else: it is compared with the original as it is, by how often both give
    the same class, and by the given limits.

    Example: kprune verify model.keras small.keras --data test.npz --max-drop 0.01
    """
    from kprune.cli.output import present
    from kprune.cli.progress import Progress
    from kprune.verification.verify import verify as run_both

    sizes = _sizes(time, batch_sizes)
    announce("--data", data)
    with Progress("running", bytes_=False) as progress:
        found = run_both(
            original,
            pruned,
            data=data,
            samples=samples,
            seed=seed,
            tolerance=tolerance,
            time=sizes,
            metric=metric,
            max_drop=max_drop,
            min_agreement=min_agreement,
            min=_limits("--min", least),
            max=_limits("--max", most),
            rules=common.rules or (),
            trust=common.trust,
            progress=progress,
        )
    present(found, as_json)
    return 0 if found.passed else 5


def _sizes(wanted: bool, text: str | None) -> list[int]:
    """The batch sizes to time. Raises: UsageError for text that lists none."""
    if not wanted:
        if text is not None:
            raise UsageError("--batch-sizes needs --time", do="add --time")
        return []
    if text is None:
        from kprune.verification.timing import SIZES

        return list(SIZES)
    try:
        return [int(part) for part in text.split(",")]
    except ValueError:
        raise UsageError(
            f"--batch-sizes is given {text!r}", do="write sizes such as 1,32,256"
        ) from None


def _limits(option: str, texts: list[str] | None) -> dict[str, float]:
    """Metrics and their limits. Raises: UsageError for text of another form."""
    found = {}
    for text in texts or []:
        name, _, value = text.rpartition("=")
        try:
            found[name] = float(value)
        except ValueError:
            name = ""
        if not name:
            raise UsageError(f"{option} is given {text!r}", do=f"write {option} accuracy=0.97")
    return found
