"""What the commands share. Each group is a Struct; `grouped` makes its fields options.

Annotations are evaluated as the module is loaded, as in `commands`.
"""

import re
from typing import TYPE_CHECKING, Annotated, Any

from msgspec import Struct
from typer import Argument, Context, Option

from kprune.cli.completion import complete_layer, complete_limit, complete_spec
from kprune.errors import UsageError
from kprune.select.ranking.options import BUDGETS, OPTIONS, WAYS, RankOptions
from kprune.text import clean, share

if TYPE_CHECKING:
    from kprune.select.naming.specs import Spec

SAMPLES = (
    "x and y (or all by name); or package.module:function, which is run and returns arrays or a "
    "tf.data.Dataset."
)
"""The help of an option that takes data with targets."""

WHICH = "Which units"
RANKED = "Which units, by rank"
WRITTEN = "What is written"
REPORTED = "What is reported"
REPAIR = "Refitting, and the criterion obs"
LIMITS = "Limits (a larger result is not written: exit code 5)"
RULES = "Layers of your own"

Model = Annotated[str, Argument(metavar="MODEL", help="A model file; - reads standard input.")]


Debug = Annotated[
    bool,
    Option("--debug", help="Show the traceback of an error.", rich_help_panel=REPORTED),
]


def set_limits(context: Context, texts: list[str] | None) -> list[str] | None:
    """Set the limits that --limit names, until the command ends.

    Raises: UsageError for an unknown name, or what is no number.
    """
    if texts and not context.resilient_parsing:
        from kprune.limits import limit

        context.with_resource(limit(**dict(map(_named_amount, texts))))
    return texts


def _named_amount(text: str) -> tuple[str, float]:
    """NAME=N. Raises: UsageError if it is not."""
    name, sign, value = text.partition("=")
    if not sign:
        raise UsageError(
            f"--limit is given {clean(text)!r}", do="write NAME=N, such as json-bytes=200M"
        )
    return name.strip(), amount(value, f"--limit {clean(name)}")


Limits = Annotated[
    list[str] | None,
    Option(
        "--limit",
        metavar="NAME=N",
        help="Let a file ask for more (or less) of NAME, as a refusal names it, such as "
        "json-bytes=200M; repeatable.",
        callback=set_limits,
        is_eager=True,  # before anything is opened
        autocompletion=complete_limit,
        rich_help_panel=REPORTED,
        show_default=False,
    ),
]


Trust = Annotated[
    bool,
    Option(
        "--trust",
        help="Trust the file: run code that is not part of Keras, of packages that it names and in "
        "the file itself (Lambda layers), and open what it names; Keras's safe mode is then off.",
        rich_help_panel=RULES,
    ),
]


def described(name: str, panel: str = RANKED) -> Any:
    """The option of a choice by rank, as `kprune.select.ranking.options` describes it."""
    option = OPTIONS[name]

    def complete(incomplete: str) -> list[str]:
        return [word for word in option.words if word.startswith(incomplete)]

    return Option(
        "--" + name.replace("_", "-"),
        metavar=option.metavar or None,
        help=option.text,
        rich_help_panel=panel,
        show_default=False,
        autocompletion=complete if option.words else None,
    )


class Naming(Struct, frozen=True):
    """Units by name: specs, and pairs of --layer and --units."""

    specs: Annotated[
        list[str] | None,
        Argument(
            metavar="SPEC",
            help="LAYER[.AXIS]:INDICES, such as dense_1:3,7 or conv_*:0-15.",
            autocompletion=complete_spec,
            show_default=False,
        ),
    ] = None
    layer: Annotated[
        list[str] | None,
        Option(
            "--layer",
            metavar="LAYER",
            help="With --units: the layer of these units. With --classes: the output layer.",
            autocompletion=complete_layer,
            rich_help_panel=WHICH,
            show_default=False,
        ),
    ] = None
    units: Annotated[
        list[str] | None,
        Option(
            "--units",
            metavar="INDICES",
            help="3,7,12 0-7 0-99/2 -1 !3,7 @FILE",
            rich_help_panel=WHICH,
            show_default=False,
        ),
    ] = None

    def pairs(self) -> "list[Spec]":
        """What --layer and --units say together.

        Raises: UsageError if there is not one of each.
        """
        from kprune.select.naming.specs import spec_from_pair

        layers, units = self.layer or [], self.units or []
        if len(layers) != len(units):
            raise UsageError(
                f"--layer is given {_times(layers)} and --units {_times(units)}",
                why="the first --units belongs to the first --layer, the second to the second",
                do="give one --units for each --layer, or write LAYER:INDICES",
            )
        return [spec_from_pair(name, indices) for name, indices in zip(layers, units, strict=True)]


def _times(values: list[str]) -> str:
    return {0: "not at all", 1: "once", 2: "twice"}.get(len(values), f"{len(values)} times")


class Choosing(Naming, frozen=True):
    """Units by name, by an expression, or by what ranks them."""

    where: Annotated[
        str | None,
        Option(
            "--where",
            metavar="EXPR",
            help="Units that satisfy EXPR: 'mean < 0.1', 'w[0,0,0] < 0'.",
            rich_help_panel=WHICH,
        ),
    ] = None
    classes: Annotated[list[str] | None, described("classes", WHICH)] = None
    class_names: Annotated[str | None, described("class_names", WHICH)] = None
    criterion: Annotated[str | None, described("criterion", WHICH)] = None
    ratio: Annotated[float | None, described("ratio")] = None
    count: Annotated[int | None, described("count")] = None
    threshold: Annotated[float | None, described("threshold")] = None
    ranked: RankOptions = RankOptions()
    per_layer: Annotated[
        list[str] | None,
        Option(
            "--per-layer",
            metavar="LAYER=R",
            help="A ratio for this layer (or glob); repeatable.",
            rich_help_panel=RANKED,
            show_default=False,
        ),
    ] = None
    together: Annotated[bool, described("global")] = False
    target_params: Annotated[str | None, described("target_params")] = None
    target_flops: Annotated[str | None, described("target_flops")] = None
    target_bytes: Annotated[str | None, described("target_bytes")] = None
    data: Annotated[str | None, described("data")] = None
    exclude: Annotated[
        list[str] | None,
        Option(
            "--exclude",
            metavar="LAYER",
            help="Do not change this layer; repeatable.",
            autocompletion=complete_layer,
            rich_help_panel=WHICH,
            show_default=False,
        ),
    ] = None

    def selection(self, *, bare: bool = False, criterion: str | None = None) -> dict[str, Any]:
        """The arguments of the library's functions that say which units (`Selecting`).

        Args:
            bare: whether a LAYER without units means something even with neither --where nor
                --criterion nor --classes.
            criterion: what ranks units for a budget where nothing else is said.
        Raises: UsageError if the options contradict each other.
        """
        announce("--data", self.data)
        criterion = self.criterion or (criterion if self._budgeted else None)
        chosen = (self.where, criterion, self.classes or None)
        bare = bare or any(way is not None for way in chosen)
        layers = [text for text in self.specs or [] if _is_bare(text)] if bare else []
        units: list[Any] = [text for text in self.specs or [] if text not in layers]
        if bare and self.layer and not self.units:
            layers += self.layer
        else:
            units += self.pairs()
        return {
            "units": units,
            "layers": layers or None,
            "where": self.where,
            "choice": self._choice(criterion),
            "classes": self.classes or None,
            "class_names": self.class_names,
            "exclude": self.exclude or [],
            "data": self.data,
        }

    @property
    def _budgeted(self) -> bool:
        return any(getattr(self, name) is not None for name in BUDGETS)

    def _choice(self, criterion: str | None) -> Any:
        from kprune.select.ranking.wording import choice_of

        words = {name: getattr(self, name) for name in OPTIONS if hasattr(self, name)}
        words |= self.ranked.rank_options()
        words["criterion"] = criterion
        words["together"] = self.together
        words["per_layer"] = dict(_share(text) for text in self.per_layer or []) or None
        return choice_of(words, spelled=_spelled)


def _spelled(name: str) -> str:
    """An option of a choice as the command line has it."""
    return "--global" if name == "together" else "--" + name.replace("_", "-")


def announce(option: str, data: str | None) -> None:
    """Say so if an option's data come from a function of the user's, which is run.

    Raises: FileError if they come from a file that is not there; before work is done, not after.
    """
    if data is None:
        return
    from kprune.formats.opening import STANDARD_INPUT, require_file
    from kprune.page.streams import say
    from kprune.running.sources import is_function

    if is_function(data):
        module, _, function = clean(data, 200).partition(":")
        say(f"note: {option} runs your code: it imports {module} and calls {function}()")
    elif data != STANDARD_INPUT:
        require_file(data)


def _share(text: str) -> tuple[str, float]:
    """LAYER=R. Raises: UsageError if it is not."""
    layer, _, ratio = text.rpartition("=")
    try:
        return layer, share(ratio)
    except ValueError:
        raise UsageError(
            f"--per-layer is given {text!r}", do="write LAYER=RATIO, such as conv_1=0.25"
        ) from None


def _is_bare(text: str) -> bool:
    """Whether a positional argument names a layer alone, without units."""
    from kprune.select.naming.specs import parse_layer

    return bool(text.strip()) and (parse_layer(text).exact or ":" not in text)


class Placing(Struct, frozen=True):
    """Where the result goes."""

    output: Annotated[
        str | None,
        Option(
            "--output",
            "-o",
            metavar="PATH",
            help="Write here instead of beside the input (NAME.pruned.EXT; tune: NAME.tuned.EXT); "
            "- is standard output.",
            rich_help_panel=WRITTEN,
        ),
    ] = None
    in_place: Annotated[
        bool, Option("--in-place", help="Replace the input.", rich_help_panel=WRITTEN)
    ] = False
    force: Annotated[
        bool, Option("--force", help="Replace an existing file.", rich_help_panel=WRITTEN)
    ] = False


class Writing(Placing, frozen=True):
    """Where it goes, if anywhere."""

    dry_run: Annotated[
        bool,
        Option("--dry-run", help="Write nothing; print the same report.", rich_help_panel=WRITTEN),
    ] = False
    drop_optimizer: Annotated[
        bool,
        Option(
            "--drop-optimizer",
            help="Leave the state of the optimizer behind, which only further training needs.",
            rich_help_panel=WRITTEN,
        ),
    ] = False


RepairData = Annotated[
    str | None,
    Option(
        "--data",
        metavar="FILE",
        help="Inputs to refit on: an .npz file with x, or package.module:function; targets are not needed.",
        rich_help_panel=REPAIR,
    ),
]


class Memory(Struct, frozen=True):
    """What may be kept of what passes between layers."""

    memory: Annotated[
        str | None,
        Option(
            "--memory",
            metavar="N",
            help="Keep at most this many bytes of intermediate outputs and of sums over them "
            "(default 4G); further tensors are kept on disk.",
            rich_help_panel=REPAIR,
        ),
    ] = None

    def bytes(self) -> int | None:
        """As the library's functions take it. Raises: UsageError for anything but a number."""
        return None if self.memory is None else int(amount(self.memory, "--memory"))


class Repairing(Struct, frozen=True):
    """Whether what is left is refitted, and how."""

    repair: Annotated[
        str | None,
        Option(
            "--repair",
            metavar="[WAY]",
            help="Refit the rest to the original's outputs: lstsq on the inputs of --data "
            "(no targets needed), noise without data, bias or bn; alone, the best of these.",
            rich_help_panel=REPAIR,
            autocompletion=lambda incomplete: [way for way in WAYS if way.startswith(incomplete)],
        ),
    ] = None

    @property
    def way(self) -> Any:
        """As the library's functions take it."""
        return True if self.repair == "best" else self.repair


class Limiting(Struct, frozen=True):
    """What the result must not exceed."""

    max_parameters: Annotated[
        str | None,
        Option("--max-parameters", metavar="N", help="Such as 1.3M.", rich_help_panel=LIMITS),
    ] = None
    max_flops: Annotated[
        str | None, Option("--max-flops", metavar="N", help="Such as 2G.", rich_help_panel=LIMITS)
    ] = None
    max_bytes: Annotated[
        str | None,
        Option("--max-bytes", metavar="N", help="Such as 500k.", rich_help_panel=LIMITS),
    ] = None

    def limits(self) -> dict[str, float]:
        """By name of the figure. Raises: UsageError for anything but a number."""
        given = {
            "parameters": self.max_parameters,
            "flops": self.max_flops,
            "bytes": self.max_bytes,
        }
        return {
            name: amount(text, f"--max-{name}") for name, text in given.items() if text is not None
        }


def amount(text: str, option: str) -> float:
    """A number such as 1300000, 1_300_000, 1.3e6 or 1.3M. Raises: UsageError for other text."""
    found = re.fullmatch(
        r"\s*([0-9][0-9_,]*(?:\.[0-9]+)?(?:[eE]\+?[0-9]{1,3})?)\s*([kKMGT]?)\s*", text
    )
    if found is None:
        raise UsageError(
            f"{option} is given {text!r}, which is not a number",
            do="write 1300000, 1.3e6 or 1.3M",
        )
    scale = {"": 1, "k": 10**3, "K": 10**3, "M": 10**6, "G": 10**9, "T": 10**12}[found[2]]
    return float(found[1].replace("_", "").replace(",", "")) * scale


class Json(Struct, frozen=True):
    """The report as JSON."""

    json: Annotated[
        bool, Option("--json", help="Print JSON instead.", rich_help_panel=REPORTED)
    ] = False


class Reporting(Json, frozen=True):
    """What is said about a change."""

    report: Annotated[
        str | None,
        Option(
            "--report",
            metavar="FILE",
            help="Also write the JSON report to a file.",
            rich_help_panel=REPORTED,
        ),
    ] = None
    quiet: Annotated[
        bool,
        Option("--quiet", "-q", help="Print only the output's path.", rich_help_panel=REPORTED),
    ] = False


class Common(Struct, frozen=True):
    """What every command that reads a model takes."""

    rules: Annotated[
        list[str] | None,
        Option(
            "--rules",
            metavar="FILE",
            help="Python file with rules for layers of your own; repeatable.",
            rich_help_panel=RULES,
            show_default=False,
        ),
    ] = None
    limit: Limits = None
    debug: Debug = False


class Reading(Common, frozen=True):
    """The same, where code may be needed to read the model at all."""

    trust: Trust = False
