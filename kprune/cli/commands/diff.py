"""kprune diff"""

from typing import Annotated

from typer import Argument, Option

from kprune.cli.options import REPORTED, Json, Reading


def diff(
    a: Annotated[str, Argument(metavar="A", help="A model file; - reads standard input.")],
    b: Annotated[str, Argument(metavar="B", help="Another.")],
    as_json: Json,
    common: Reading,
    exit_code: Annotated[
        bool,
        Option(
            "--exit-code",
            help="Exit with code 5 if the models differ.",
            rich_help_panel=REPORTED,
        ),
    ] = False,
) -> int:
    """What differs: layers, units, parameters, FLOPs, bytes, values.

    If kprune made B from A, values of the remaining units are compared with those in A.

    Example: kprune diff model.keras model.pruned.keras
    """
    from kprune.cli.output import present
    from kprune.cli.progress import Progress
    from kprune.views.diff import diff as compare

    with Progress("comparing") as progress:
        found = compare(a, b, rules=common.rules or (), trust=common.trust, progress=progress)
    present(found, as_json)
    return 5 if exit_code and not found.equal else 0
