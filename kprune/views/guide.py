"""The pages of the guide, which come with the package."""

from __future__ import annotations

from pathlib import Path

from kprune.errors import UsageError
from kprune.page.page import Page
from kprune.pointing import did_you_mean
from kprune.text import clean

_FOLDER = Path(__file__).parents[1] / "guide"


def topics() -> dict[str, str]:
    """The topics, each with the title of its page."""
    return {path.stem: _title(path) for path in sorted(_FOLDER.glob("*.md"))}


def _title(path: Path) -> str:
    with path.open(encoding="utf-8") as page:
        return page.readline().removeprefix("# ").strip()


def page_of(topic: str) -> str:
    """The page about a topic, in Markdown. Raises: UsageError for an unknown one."""
    known = topics()
    if topic not in known:
        hint = did_you_mean(topic, known)
        raise UsageError(
            f"the guide has no page '{clean(topic)}'" + (f"; {hint}" if hint else ""),
            do=f"choose one of {', '.join(known)}",
        )
    return (_FOLDER / f"{topic}.md").read_text(encoding="utf-8")


def show(markdown: str, on: Page) -> None:
    """Print a page: laid out on a terminal, as it is elsewhere."""
    if not on.stream.isatty():
        on.put(markdown)
        return
    from rich.console import Console
    from rich.markdown import Markdown

    system = "auto" if on.colours else None
    console = Console(file=on.stream, width=on.width, color_system=system)  # type: ignore[arg-type]
    # A theme without a background, which would be black on a light terminal.
    console.print(Markdown(markdown, code_theme="ansi_dark"))
