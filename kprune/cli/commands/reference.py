"""kprune rules, criteria and schema: what kprune knows, and what its files look like."""

from fnmatch import fnmatchcase
from typing import Annotated

from typer import Argument, Option

from kprune.cli.options import RULES, Debug, Json
from kprune.errors import UsageError
from kprune.text import clean


def rules(
    names: Annotated[
        list[str] | None,
        Argument(
            metavar="NAME",
            help="Show only these classes, in full; * matches anything.",
            show_default=False,
        ),
    ] = None,
    *,
    files: Annotated[
        list[str] | None,
        Option(
            "--rules",
            metavar="FILE",
            help="Show the rules of this Python file as well.",
            rich_help_panel=RULES,
            show_default=False,
        ),
    ] = None,
    as_json: Json,
    debug: Debug = False,
) -> None:
    """Layer classes and operations that kprune knows, and what they do.

    Example: kprune rules 'Conv*'
    """
    from kprune.cli.output import print_json
    from kprune.page.page import Page
    from kprune.views.known_rules import known_rules, show

    found = [rule for rule in known_rules(files or ()) if _meant(rule.name, names or [])]
    if names and not found:
        raise UsageError(
            f"kprune has no rule for '{clean(names[0])}'",
            do="'kprune rules' lists those it has; --rules FILE adds your own",
        )
    if as_json.json:
        import msgspec

        print_json(msgspec.to_builtins(found))
        return
    show(found, Page(), whole=bool(names))


def _meant(name: str, patterns: list[str]) -> bool:
    return not patterns or any(fnmatchcase(name.lower(), pattern.lower()) for pattern in patterns)


def criteria(
    *,
    files: Annotated[
        list[str] | None,
        Option(
            "--rules",
            metavar="FILE",
            help="Show the criteria of this Python file as well.",
            rich_help_panel=RULES,
            show_default=False,
        ),
    ] = None,
    as_json: Json,
    debug: Debug = False,
) -> None:
    """Criteria and statistics: what each is, its source, what it needs.

    Example: kprune criteria
    """
    from kprune.cli.output import print_json
    from kprune.page.page import Page
    from kprune.views.known_criteria import known_criteria

    found = known_criteria(files or ())
    if as_json.json:
        import msgspec

        print_json(msgspec.to_builtins(found))
        return
    found.show(Page())


def schema(
    what: Annotated[
        str, Argument(metavar="plan|iterate|report|repair|sensitivity", help="Which of them.")
    ],
    debug: Debug = False,
) -> None:
    """JSON Schema of plans, reports, or the curves of 'sensitivity'.

    Example: kprune schema plan > plan.schema.json
    """
    from kprune.cli.output import print_json

    if what == "plan":
        from kprune.select.plans.structs import plan_schema

        print_json(plan_schema())
    elif what == "iterate":
        from kprune.select.plans.iteration import iteration_schema

        print_json(iteration_schema())
    elif what == "report":
        from kprune.report.report import report_schema

        print_json(report_schema())
    elif what == "repair":
        from kprune.report.repaired import repaired_schema

        print_json(repaired_schema())
    elif what == "sensitivity":
        from kprune.select.plans.curves import curves_schema

        print_json(curves_schema())
    else:
        raise UsageError(
            f"there is no schema of '{clean(what)}'",
            do="write plan, iterate, report, repair or sensitivity",
        )
