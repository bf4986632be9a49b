"""A table as it is printed, whatever it is printed as: text in rows, with marks and footnotes."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Entry:
    """One cell."""

    text: str
    best: bool = False
    """The best of its column: bold."""
    second: bool = False
    """The second of its column: underlined."""
    tied: bool = False
    """Not told apart from the best of its column: marked, and the caption says how."""
    notes: Sequence[str] = ()
    """Keys of the grid's footnotes."""
    key: str = ""
    """Names the cell within a table: `variant/part/machine/metric`, and what is told, for instance `mean` or `p`. Empty
    where nothing can be said of it."""


@dataclass(frozen=True)
class Grid:
    """A table of text: a header, and rows as long as the header."""

    header: Sequence[str]
    rows: Sequence[Sequence[Entry | str]]
    """A string is a cell without marks."""
    title: str = ""
    words: Collection[int] = (0,)
    """The columns that hold words, not numbers."""
    breaks: Mapping[int, str] = field(default_factory=dict)
    """Index of a row -> what stands in a line of its own before it, for instance that what follows is not compared."""
    footnotes: Mapping[str, str] = field(default_factory=dict)
    """Key -> text, in the order in which they are printed."""

    def entries(self) -> Sequence[Sequence[Entry]]:
        """The rows, each cell as an Entry."""
        return [[Entry(cell) if isinstance(cell, str) else cell for cell in row] for row in self.rows]

    def signs(self) -> Mapping[str, str]:
        """Key of a footnote -> the letter that stands at the cells."""
        return {key: chr(ord("a") + i) for i, key in enumerate(self.footnotes)}


@dataclass(frozen=True)
class Sheet:
    """Grids that are printed under one heading."""

    name: str
    question: str
    caption: Sequence[str]
    """What holds for all grids, line by line."""
    grids: Sequence[Grid]
    stamps: Sequence[str] = ()
    """What a reader has to know before anything else."""
