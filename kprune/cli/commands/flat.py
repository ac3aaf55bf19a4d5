"""kprune flatten"""

from typing import Annotated

from typer import Argument, Option

from kprune.cli.options import Debug, Json, Trust


def flatten(
    model: Annotated[str, Argument(metavar="MODEL", help="A model of a class of its own.")],
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
    force: Annotated[bool, Option("--force", help="Write over an existing file.")] = False,
    debug: Debug = False,
) -> int:
    """Write a model of a class of its own (KerasHub's, or yours) as a plain graph.

    A call() that exists in code only is run once, on symbolic inputs. Every other command takes
    what comes out. The file is loaded again and run beside the original before it is written.

    Example: kprune flatten bert.keras --trust -o bert.flat.keras
    """
    from kprune.cli.output import present
    from kprune.custom_code.flatten import flatten as write_plain

    report = write_plain(model, output, trust=trust, force=force)
    present(report, as_json)
    return 0
