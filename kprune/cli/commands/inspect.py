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
    untrusted: Annotated[
        bool,
        Option(
            "--untrusted",
            help="Exit with code 5 if anything in the file would run, be imported or be opened when "
            "Keras loads it.",
            rich_help_panel=REPORTED,
        ),
    ] = False,
) -> None:
    """Layers: units, parameters, FLOPs, what is free, what is tied.

    Example: kprune inspect model.keras
    """
    from kprune.cli.output import present
    from kprune.errors import CannotPruneError
    from kprune.views.inspect import inspect as look
    from kprune.views.inspect import require_inert

    try:
        found = look(model, rules=common.rules or (), trust=common.trust)
    except CannotPruneError:  # it may hold no graph, and be active all the same
        if untrusted and model != "-":
            require_inert(model)
        raise
    present(found, as_json, show=lambda on: found.show(on, all_layers=all_layers))
    if untrusted:
        require_inert(model, found)
