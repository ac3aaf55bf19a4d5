"""Curves as a picture: `--plot FILE.svg` or `FILE.png`.

matplotlib is imported when something is drawn, and draws straight into the file: no window system
is looked for, and the settings of a user's matplotlib stay as they are.
"""

from __future__ import annotations

import io
import logging
import warnings
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kprune.atomic import check_apart, check_file, write_bytes
from kprune.errors import UsageError
from kprune.faults import shown
from kprune.packages import imported, pip_install
from kprune.text import clean
from kprune.types import AnyPath

SUFFIXES = (".svg", ".png")
INCHES = 6.4, 3.6  # of one panel
BESIDE = 6  # more curves than these have their names beside the panel
COLOURS, MARKERS = 10, "os^Dv"  # matplotlib's colours come round again; then the marks change
# One place for all pictures: text stays text in an .svg, and its ids do not change from run to run.
STYLE = {
    "svg.fonttype": "none",
    "svg.hashsalt": "kprune",
    "font.size": 10.0,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.alpha": 0.3,
    "legend.frameon": False,
}


@dataclass(frozen=True)
class Curve:
    """One line.

    Attributes:
        name: what the legend calls it.
        x, y: of equal length; None (or NaN) in `y` leaves a gap.
        dashed: whether it is drawn so, as one that the others are compared with.
    """

    name: str
    x: Sequence[float]
    y: Sequence[float | None]
    dashed: bool = False


@dataclass(frozen=True)
class Panel:
    """Curves on common axes.

    Attributes:
        x, y: what the axes are.
        title: stands above.
        mark: a place on the x axis that a vertical line shows, and what it is.
    """

    curves: Sequence[Curve]
    x: str
    y: str
    title: str = ""
    mark: tuple[float, str] | None = None


def check_plot(path: AnyPath, *, force: bool = False, apart: Iterable[object] = ()) -> None:
    """Called before the work that is to be drawn.

    Args:
        force: whether a file that is there may be replaced.
        apart: what the work reads and writes, which the picture is not to replace.
    Raises: UsageError for a name that ends in neither .svg nor .png, or that is taken; FileError if
        no file can be written there, SetupError if matplotlib cannot be imported.
    """
    if Path(path).suffix.lower() not in SUFFIXES:
        raise UsageError(
            f"a plot cannot be written to {shown(path)}",
            why="its name does not say which kind of picture",
            do="name a file that ends in .svg or .png",
        )
    check_apart({"--plot": path}, apart)
    check_file(path, force=force, option="--plot")
    _import_matplotlib()


def draw(path: AnyPath, panels: Sequence[Panel], *, force: bool = False) -> None:
    """Draw panels, one above the other, whole or not at all.

    Args:
        path: ends in .svg or .png.
        force: whether a file that is there may be replaced.
    Raises: UsageError, FileError; SetupError if matplotlib cannot be imported.
    """
    check_plot(path, force=force)
    matplotlib = _import_matplotlib()
    from matplotlib.figure import Figure

    kind = Path(path).suffix.lower()[1:]
    with matplotlib.rc_context(), warnings.catch_warnings(), io.BytesIO() as picture:
        warnings.simplefilter("ignore")  # of signs that its font lacks
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(STYLE)
        width, height = INCHES
        figure = Figure(figsize=(width, height * len(panels)), layout="constrained")
        for axes, panel in zip(figure.subplots(len(panels), squeeze=False)[:, 0], panels):  # noqa: B905
            _draw_panel(axes, panel)
        # A date in the file would make every run's another.
        metadata = {"Date": None} if kind == "svg" else None
        figure.savefig(picture, format=kind, dpi=150, metadata=metadata)
        write_bytes(path, picture.getvalue(), force=force)


def _draw_panel(axes: Any, panel: Panel) -> None:
    for number, curve in enumerate(panel.curves):
        y = [float("nan") if value is None else float(value) for value in curve.y]
        style = "--" if curve.dashed else "-"
        marker = MARKERS[number // COLOURS % len(MARKERS)]
        axes.plot(list(curve.x), y, style, marker=marker, markersize=3.5, label=_plain(curve.name))
    if panel.mark is not None:
        place, what = panel.mark
        axes.axvline(place, color="0.5", linestyle=":", linewidth=1, label=_plain(what))
    axes.set_xlabel(_plain(panel.x))
    axes.set_ylabel(_plain(panel.y))
    if panel.title:
        axes.set_title(_plain(panel.title), loc="left")
    if all(float(x).is_integer() for curve in panel.curves for x in curve.x):
        axes.xaxis.get_major_locator().set_params(integer=True)
    named = len(axes.get_lines())
    if named > BESIDE:
        axes.legend(loc="upper left", bbox_to_anchor=(1.0, 1.0), fontsize="small")
    elif named > 1:
        axes.legend()


def _plain(text: str) -> str:
    """Text that stays what it is: between dollars matplotlib would read a formula."""
    shown = clean(text).replace("$", r"\$")
    # A label that starts with an underscore is left out of legends.
    return f" {shown}" if shown.startswith("_") else shown


def _import_matplotlib() -> Any:
    logging.getLogger("matplotlib").setLevel(logging.ERROR)  # it tells of building a font cache
    return imported(
        "matplotlib",
        what="matplotlib, which draws the plot,",
        do=f"install it ({pip_install('matplotlib')}), or leave out --plot: --json has the figures",
    )
