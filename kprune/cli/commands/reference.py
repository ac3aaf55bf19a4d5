"""kprune rules, criteria, schema and guide: what kprune knows, and what its files look like."""

from fnmatch import fnmatchcase
from typing import Annotated

from typer import Argument, Option

from kprune.cli.completion import complete_schema, complete_topic
from kprune.cli.options import RULES, Debug, Json
from kprune.errors import UsageError
from kprune.text import clean

Files = Annotated[
    list[str] | None,
    Option(
        "--rules",
        metavar="FILE",
        help="Show those of this Python file as well.",
        rich_help_panel=RULES,
        show_default=False,
    ),
]


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
    files: Files = None,
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
    files: Files = None,
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
        str | None,
        Argument(
            metavar="NAME",
            help="Which of them; without it they are listed.",
            autocompletion=complete_schema,
            show_default=False,
        ),
    ] = None,
    debug: Debug = False,
) -> None:
    """JSON Schema of plans and of reports.

    Example: kprune schema plan > plan.schema.json
    """
    from kprune.verbs.schemas import SCHEMAS, schema_of

    if what is None:
        from kprune.page.page import Page

        Page().table(["name", "~of"], [(name, it.what) for name, it in SCHEMAS.items()])
        return
    from kprune.cli.output import print_json

    print_json(schema_of(what))


def guide(
    topic: Annotated[
        str | None,
        Argument(
            metavar="TOPIC",
            help="Which page; without it they are listed.",
            autocompletion=complete_topic,
            show_default=False,
        ),
    ] = None,
    debug: Debug = False,
) -> None:
    """Pages that say more than help does.

    Example: kprune guide repair
    """
    from kprune.page.page import Page
    from kprune.views.guide import page_of, show, topics

    if topic is None:
        Page().table(["topic", "~page"], list(topics().items()))
        return
    show(page_of(topic), Page())
