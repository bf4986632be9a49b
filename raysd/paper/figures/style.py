"""What all figures share: a style that is readable in greyscale, and `Drawing`, a figure for a page or for files."""

import hashlib
import html
import io
import re
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties

from raysd.results.storage import open_storage

STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",  # words stay words: they can be read out, searched and copied
    "svg.hashsalt": "raysd",  # the same figure gives the same bytes
    "pdf.fonttype": 42,  # outlines of letters, which journals ask for
    "text.parse_math": False,  # a $ in the name of a variant is a $
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans", "Arial"],
    "font.size": 8,
    "axes.titlesize": 8,
    "axes.labelsize": 8,
    "xtick.labelsize": 7,
    "ytick.labelsize": 7,
    "legend.fontsize": 7,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.linewidth": 0.6,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#dddddd",
    "grid.linewidth": 0.5,
    "lines.linewidth": 1.2,
    "hatch.linewidth": 0.5,
    "legend.frameon": False,
    "legend.handlelength": 2.4,
}
DARK, BLUE, ORANGE, GREY, PALE = "#1a1a1a", "#0072b2", "#d55e00", "#8a8a8a", "#d0d0d0"
SERIES: tuple[dict[str, Any], ...] = (
    {"color": DARK, "marker": "o", "linestyle": "-"},
    {"color": BLUE, "marker": "s", "linestyle": "--"},
    {"color": ORANGE, "marker": "^", "linestyle": "-."},
    {"color": "#56b4e9", "marker": "D", "linestyle": ":"},
    {"color": "#6a4c93", "marker": "v", "linestyle": (0, (5, 1, 1, 1, 1, 1))},
    {"color": "#009e73", "marker": "P", "linestyle": (0, (1, 1))},
)
"""How the series of a figure are told apart: by marker and by line too, never by colour alone."""
COLUMN_INCHES = 3.5
"""Every figure is as wide as a column of a paper, which is readable on a phone too."""
FORMATS = ("pdf", "svg", "png")
PNG_DPI = 300

_WIDEST_ON_PAGE_PX = 430  # beyond, letters would be larger than those of the page around


@dataclass(frozen=True, eq=False)
class Drawing:
    """A figure as it is put into a page, or saved to files."""

    figure: Figure = field(repr=False)
    title: str
    alt: str
    """What is to be seen, in words and numbers, for those who do not see it."""
    name: str
    """What it is called among the figures of one study, for instance `forest-dev`."""

    @cached_property
    def svg(self) -> str:
        """Ready to be put into HTML; uses nothing from elsewhere. No wider than is good for reading."""
        svg = self.content("svg").decode()
        svg = svg[svg.index("<svg") :]
        svg = re.sub(r"<(metadata|style|title)\b.*?</\1>\s*", "", svg, flags=re.DOTALL)  # a style would be the page's
        end = svg.index(">")
        svg = re.sub(r' (?:xmlns(?::\w+)?|version|width|height)="[^"]*"', "", svg[:end]) + svg[end:]
        svg = svg.replace("xlink:href", "href")
        svg = re.sub(r' (?:d|x|y)="[^"]*"', lambda place: re.sub(r"(\.\d\d)\d+", r"\1", place[0]), svg)  # for size
        own = f"f{hashlib.sha256((self.name + svg).encode()).hexdigest()[:8]}"  # two figures may look the same
        svg = re.sub(r'(\bid="|href="#|url\(#)', rf"\g<1>{own}-", svg)
        label = f'role="img" aria-label="{html.escape(self.alt)}" style="max-width: {_WIDEST_ON_PAGE_PX}px"'
        return svg.replace("<svg", f"<svg {label}", 1)

    def content(self, file_format: str) -> bytes:
        """The file in one of `FORMATS`; the same bytes each time."""
        about: dict[str, dict[str, Any]] = {
            "pdf": {"Title": self.title, "Subject": self.alt, "Creator": None, "Producer": None, "CreationDate": None},
            "svg": {"Title": self.title, "Date": None, "Creator": None, "Format": None, "Type": None},
            "png": {"Title": self.title, "Description": self.alt, "Software": None},
        }
        written = io.BytesIO()
        with matplotlib.rc_context(STYLE):
            if self.figure.get_layout_engine() is not None:  # laid out once, so that all formats look the same
                self.figure.draw_without_rendering()
                self.figure.set_layout_engine("none")
            self.figure.savefig(written, format=file_format, dpi=PNG_DPI, metadata=about[file_format])
        return written.getvalue()

    def stamped(self, text: str) -> "Drawing":
        """The same with a line above it that cannot be overlooked; to be called before it is rendered."""
        with matplotlib.rc_context(STYLE):
            self.figure.set_figheight(self.figure.get_figheight() + 0.3)
            for legend in self.figure.legends:  # which stands above all else
                legend.set_title(wrapped(text, 46), FontProperties(size=8, weight="bold"))
            if not self.figure.legends:
                self.figure.suptitle(wrapped(text, 46), fontsize=8, fontweight="bold")
        return replace(self, title=f"{self.title} ({text})", alt=f"{text}. {self.alt}")

    def save(self, name: str, folder: Path, formats: Sequence[str] = FORMATS) -> list[Path]:
        """Writes FOLDER/NAME.FORMAT of each format, whole or not at all; raises BadInput where that cannot be."""
        contents = {f"{name}.{file_format}": self.content(file_format) for file_format in formats}
        storage = open_storage(folder)
        for file, content in contents.items():
            storage.replace(file, content)
        return [folder / file for file in contents]


def canvas(height_inches: float, rows: int = 1, columns: int = 1, **options: Any) -> tuple[Figure, list[Axes]]:
    """A figure of one column with its axes, row by row; `options` are those of `Figure.subplots`.

    It belongs to nobody else, so that nothing is left behind and any thread may draw. Call it, and all that draws on
    it, within `matplotlib.rc_context(STYLE)`.
    """
    figure = Figure(figsize=(COLUMN_INCHES, height_inches), layout="constrained")
    return figure, list(figure.subplots(rows, columns, squeeze=False, **options).flat)


def give_height(figure: Figure, axes: Axes, height_inches: float) -> None:
    """Makes the figure as high as it has to be for each panel to be so high as this one, whatever stands around."""
    figure.draw_without_rendering()
    lacking = height_inches - axes.get_position().height * figure.get_figheight()
    figure.set_figheight(figure.get_figheight() + lacking * len(figure.axes))


def wrapped(text: str, width: int) -> str:
    """A long name on several lines, broken at spaces, else wherever it has to be."""
    return "\n".join(textwrap.wrap(text, width)) or text


def percent(value: float, digits: int = 2) -> str:
    return f"{100 * value:.{digits}f} %"
