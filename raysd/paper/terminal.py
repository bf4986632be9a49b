"""A sheet of grids for a terminal, by rich.

Grids are laid out here, a segment a cell: rich's own tables take half a minute for a study of thousands of variants.
"""

import re
import textwrap
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

from rich.console import Console, ConsoleOptions, Group, RenderResult
from rich.segment import Segment
from rich.style import Style
from rich.text import Text

from raysd.paper.grids import Entry, Grid, Sheet

TIED = "≈"
_WHOLE, _BROKEN, _IN_PIECES = "(?!)", r" (?=[±\[(])", r" (?=[±\[(])|(?<=,) "
"""Where a number goes on in the next line: nowhere; before a spread, an interval or a bracket; inside them too."""
_TRIED = ((_WHOLE, (3,)), (_BROKEN, (3, 2)), (_IN_PIECES, (3, 2)))
"""These, each with the spaces between columns, until there is room."""
_WORDS_WIDE, _WORDS_NARROW = 40, 12
"""Characters to which a column of words folds before numbers are broken; what it keeps however little room there is."""

_BOLD, _UNDERLINED, _ITALIC = Style(bold=True), Style(underline=True), Style(italic=True)

Cell = list[str]
"""The lines of a cell."""


def terminal(sheet: Sheet) -> Group:
    """A sheet as something that rich prints, as wide as the terminal lets it."""
    heading = Text(f"{sheet.name}: {sheet.question}", style="bold")
    stamps = [Text(line, style="bold red") for line in sheet.stamps]
    return Group(*stamps, heading, *map(Text, sheet.caption), *map(_Fitted, sheet.grids))


@dataclass(frozen=True)
class _Fitted:
    """A grid as wide as it needs to be; where there is less room, spreads and intervals stand below their numbers."""

    grid: Grid

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        grid, (cells, widths, gap) = self.grid, self._fit(options.max_width)
        if grid.title:
            yield Text(f"\n{grid.title}", style="bold")
        yield from self._segments(cells, widths, gap)
        for key, text in grid.footnotes.items():
            yield Text(f"  [{grid.signs()[key]}] {text}")

    @cached_property
    def _entries(self) -> Sequence[Sequence[Entry]]:
        return self.grid.entries()

    @cached_property
    def _marks(self) -> list[int]:
        """How many characters stand behind the text, in each column."""
        columns = zip(*self._entries, strict=True) if self._entries else [()] * len(self.grid.header)
        return [max((len(self._mark(entry)) for entry in column), default=0) for column in columns]

    def _mark(self, entry: Entry) -> str:
        signs = self.grid.signs() if entry.notes else {}
        notes = f" [{', '.join(signs[note] for note in entry.notes)}]" if entry.notes else ""
        return notes + (f" {TIED}" if entry.tied else "")

    def _fit(self, room: int) -> tuple[list[list[Cell]], list[int], int]:
        """The lines of every cell, those of the header first; the width of each column, with its marks; the gap."""
        words, header = self.grid.words, [Entry(name) for name in self.grid.header]
        cells, widths, gap = [], [], 0
        for pattern, gaps in _TRIED:
            split, names = re.compile(pattern).split, " " if pattern != _WHOLE else "\n"
            numbers = [[split(entry.text) for entry in row] for row in self._entries]
            cells = [[entry.text.split(names) for entry in header], *numbers]
            for row, entries in zip(cells, [header, *self._entries], strict=True):
                for i in words:
                    row[i] = [entries[i].text]
            columns = list(zip(*cells, strict=True))
            widths = [
                max(max(map(len, name)), max((len(line) for cell in column for line in cell), default=0) + mark)
                for (name, *column), mark in zip(columns, self._marks, strict=True)
            ]
            needed = sum(min(width, _WORDS_WIDE) if i in words else width for i, width in enumerate(widths))
            fitting = [gap for gap in gaps if needed + gap * len(widths) <= room]
            gap = (fitting or gaps[-1:])[0]
            if fitting:
                break
        left = room - gap * len(widths) - sum(width for i, width in enumerate(widths) if i not in words)
        for done, i in enumerate(sorted(words, key=lambda i: widths[i])):
            share = max(left // (len(words) - done), _WORDS_NARROW)
            if widths[i] > share:
                for row in cells:
                    row[i] = textwrap.wrap(row[i][0], share - self._marks[i], break_on_hyphens=False) or [""]
                widths[i] = share
            left -= widths[i]
        return cells, widths, gap

    def _segments(self, cells: Sequence[Sequence[Cell]], widths: Sequence[int], gap: int) -> Iterator[Segment]:
        """The lines below the title; text without a style goes on in one segment as long as it can."""
        header = [Entry(name, best=True) for name in self.grid.header]  # which is bold too
        plain = ""
        for number, (row, lines) in enumerate(zip([header, *self._entries], cells, strict=True), start=-1):
            if number in self.grid.breaks:
                yield from (Segment(f"{plain}{chr(10) * (number > 0)}  "), Segment(self.grid.breaks[number], _ITALIC))
                plain = "\n"
            for text, style in self._row(row, lines, widths, gap):
                if style is None:
                    plain += text
                else:
                    yield from (Segment(plain), Segment(text, style))
                    plain = ""
            plain += "" if number >= 0 else f"  {'─' * (sum(widths) + gap * (len(widths) - 1))}\n"
        yield Segment(plain)

    def _row(
        self, row: Sequence[Entry], cells: Sequence[Cell], widths: Sequence[int], gap: int
    ) -> Iterator[tuple[str, Style | None]]:
        """The lines of a row; marks stand in the first, and the numbers of a column below each other."""
        for number in range(max(map(len, cells))):
            plain = "  "
            for i, (entry, cell) in enumerate(zip(row, cells, strict=True)):
                text = cell[number] if number < len(cell) else ""
                mark = (self._mark(entry) if number == 0 else "").ljust(min(self._marks[i], widths[i] - len(text)))
                space = " " * (widths[i] - len(text) - len(mark))
                before, after = ("", f"{mark}{space}") if i in self.grid.words else (space, mark)
                plain += (" " * gap if i else "") + before
                if entry.best or entry.second:
                    yield plain, None
                    yield text, _BOLD if entry.best else _UNDERLINED
                    plain = after
                else:
                    plain += text + after
            yield f"{plain}\n", None
