"""kprune inspect"""

from typing import Annotated

from typer import Option

from kprune.cli.options import REPORTED, Json, Model, Reading


def inspect(
    model: Model,
    as_json: Json,
    common: Reading,
    all_layers: Annotated[
        bool,
        Option(
            "--all",
            help="Also show layers without units and weights.",
            rich_help_panel=REPORTED,
        ),
    ] = False,
) -> None:
    """Layers: units, parameters, FLOPs, what is free, what is tied.

    Example: kprune inspect model.keras
    """
    from kprune.cli.output import present
    from kprune.views.inspect import inspect as look

    found = look(model, rules=common.rules or (), trust=common.trust)
    present(found, as_json, show=lambda on: found.show(on, all_layers=all_layers))
