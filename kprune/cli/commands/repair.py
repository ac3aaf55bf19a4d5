"""kprune repair"""

from typing import Annotated, Any

from typer import Argument, Option

from kprune.cli.commands.change import changed
from kprune.cli.options import REPAIR, Limiting, Memory, Reading, RepairData, Reporting, Writing
from kprune.select.ranking.options import WAYS


def repair(
    original: Annotated[str, Argument(metavar="ORIGINAL", help="The model before pruning.")],
    pruned: Annotated[str, Argument(metavar="PRUNED", help="The model that kprune made from it.")],
    *,
    data: RepairData = None,
    way: Annotated[
        str | None,
        Option(
            "--way",
            metavar="WAY",
            help=f"{', '.join(WAYS[:-1])} or {WAYS[-1]}; by default the best that the data allow.",
            rich_help_panel=REPAIR,
        ),
    ] = None,
    memory: Memory,
    writing: Writing,
    limiting: Limiting,
    reporting: Reporting,
    common: Reading,
) -> None:
    """Refit a pruned model to the outputs of the original.

    Targets are not needed, and nothing is trained: each layer's weights are solved for.

    Example: kprune repair model.keras model.pruned.keras --data unlabelled.npz
    """
    from kprune.verbs.repair import repair as carry_out

    def repaired(model: str, **arguments: Any) -> Any:
        return carry_out(original, model, **arguments)

    changed(
        repaired, pruned, writing, reporting, common, refits=True,
        data=data, way=way, limits=limiting.limits(), memory=memory.bytes(),
    )  # fmt: skip
