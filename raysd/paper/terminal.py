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
_BREAKS = ("(?!)", r" (?=[±\[(])", r" (?=[±\[(])|(?<=,) ")
"""Where a number goes on in the next line: nowhere; before a spread, an interval or a bracket; inside them too."""
_GAP = 3
_WORDS_WIDE, _WORDS_NARROW = 40, 12
"""Characters to which a column of words folds before numbers are broken; what it keeps however little room there is."""

_BOLD, _UNDERLINED = Style(bold=True), Style(underline=True)

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
        grid, (cells, widths) = self.grid, self._fit(options.max_width)
        if grid.title:
            yield Text(f"\n{grid.title}", style="bold")
        header = [Entry(name, best=True) for name in grid.header]  # which is bold too
        yield from self._row(header, cells[0], widths)
        yield from (Segment(f"  {'─' * (sum(widths) + _GAP * (len(widths) - 1))}"), Segment.line())
        for number, (row, lines) in enumerate(zip(self._entries, cells[1:], strict=True)):
            if number in grid.breaks:
                yield Text(f"{chr(10) * (number > 0)}  {grid.breaks[number]}", style="italic")
            yield from self._row(row, lines, widths)
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

    def _fit(self, room: int) -> tuple[list[list[Cell]], list[int]]:
        """The lines of every cell, those of the header first, and the width of each column, its marks included."""
        words, texts = self.grid.words, [[entry.text for entry in row] for row in self._entries]
        cells, widths = [], []
        for pattern in map(re.compile, _BREAKS):
            header = [[name] if pattern.pattern == _BREAKS[0] else name.split() for name in self.grid.header]
            cells = [header]
            cells += [[[text] if i in words else pattern.split(text) for i, text in enumerate(row)] for row in texts]
            widths = [max(len(line) for cell in column for line in cell) for column in zip(*cells, strict=True)]
            widths = [width + mark for width, mark in zip(widths, self._marks, strict=True)]
            needed = sum(min(width, _WORDS_WIDE) if i in words else width for i, width in enumerate(widths))
            if needed + _GAP * len(widths) <= room:
                break
        left = room - _GAP * len(widths) - sum(width for i, width in enumerate(widths) if i not in words)
        for done, i in enumerate(sorted(words, key=lambda i: widths[i])):
            share = max(left // (len(words) - done), _WORDS_NARROW)
            if widths[i] > share:
                for row in cells:
                    row[i] = textwrap.wrap(row[i][0], share - self._marks[i], break_on_hyphens=False) or [""]
                widths[i] = share
            left -= widths[i]
        return cells, widths

    def _row(self, row: Sequence[Entry], cells: Sequence[Cell], widths: Sequence[int]) -> Iterator[Segment]:
        """The lines of a row; marks stand in the first, and the numbers of a column below each other."""
        for number in range(max(map(len, cells))):
            plain = "  "
            for i, (entry, cell) in enumerate(zip(row, cells, strict=True)):
                text = cell[number] if number < len(cell) else ""
                mark = (self._mark(entry) if number == 0 else "").ljust(self._marks[i])
                space = " " * (widths[i] - len(text) - len(mark))
                before, after = ("", f"{mark}{space}") if i in self.grid.words else (space, mark)
                plain += (" " * _GAP if i else "") + before
                if entry.best or entry.second:
                    yield from (Segment(plain), Segment(text, _BOLD if entry.best else _UNDERLINED))
                    plain = after
                else:
                    plain += text + after
            yield Segment(f"{plain}\n")
