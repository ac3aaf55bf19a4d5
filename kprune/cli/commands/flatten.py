"""kprune flatten"""

from typing import Annotated

from typer import Argument, Option

from kprune.cli.options import Debug, Json, Limits, Trust


def flatten(
    model: Annotated[str, Argument(metavar="MODEL", help="A model of a custom class.")],
    as_json: Json,
    trust: Trust = False,
    output: Annotated[
        str | None,
        Option(
            "--output",
            "-o",
            metavar="PATH",
            help="Where to write it (by default NAME.flat.keras).",
            show_default=False,
        ),
    ] = None,
    force: Annotated[bool, Option("--force", help="Replace an existing file.")] = False,
    limit: Limits = None,
    debug: Debug = False,
) -> int:
    """Write a model of a custom class (KerasHub's, or yours) as a plain graph.

    A call() that exists only in code is run once, on symbolic inputs. All other commands accept
    the result. Before it is written, it is loaded again and compared with the original.

    Example: kprune flatten bert.keras --trust -o bert.flat.keras
    """
    from kprune.cli.output import present
    from kprune.custom_code.flatten import flatten as write_plain

    report = write_plain(model, output, trust=trust, force=force)
    present(report, as_json)
    return 0
