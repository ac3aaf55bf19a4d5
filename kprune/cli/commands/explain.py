"""kprune explain"""

from typing import Annotated

from typer import Option

from kprune.cli.options import WHICH, Json, Model, Naming, Reading
from kprune.errors import UsageError


def explain(
    model: Model,
    naming: Naming,
    as_json: Json,
    common: Reading,
    allow_output_change: Annotated[
        bool,
        Option(
            "--allow-output-change",
            help="Suppose that the model's inputs and outputs may change.",
            rich_help_panel=WHICH,
        ),
    ] = False,
) -> None:
    """What is removed with these units and why, or why they cannot be removed.

    Example: kprune explain model.keras conv_3:0-7
    """
    from kprune.cli.output import present
    from kprune.views.explain import explain as find_out

    units = [*(naming.specs or []), *naming.pairs()]
    if not units:
        raise UsageError("no unit is named", do="write LAYER:INDICES, such as dense_1:3,7,12")
    found = find_out(
        model,
        units,
        allow_output_change=allow_output_change,
        rules=common.rules or (),
        trust=common.trust,
    )
    present(found, as_json)
