"""A sheet of grids -> what a README, a paper or a page shows; terminal.py has the terminal.

Marks: the best of a column is bold, the second underlined, what is not told apart from the best has a ≈.
"""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import lru_cache

import pandas as pd
from jinja2 import Environment, PackageLoader, StrictUndefined, Template
from rich.console import RenderableType

from raysd.paper.grids import Entry, Grid, Sheet
from raysd.paper.terminal import TIED, terminal


class Printed:
    """A table in all forms that follow from its sheet."""

    def sheet(self) -> Sheet:
        raise NotImplementedError

    def to_rich(self) -> RenderableType:
        """For a terminal."""
        return terminal(self.sheet())

    def to_markdown(self) -> str:
        """A heading, the caption, and the grids."""
        return markdown(self.sheet())

    def to_latex(self) -> str:
        """A table of booktabs for each grid."""
        return latex(self.sheet())

    def to_html(self) -> str:
        """A part of a page."""
        return html(self.sheet())


# --- Markdown ---------------------------------------------------------------------------------------------------------


def markdown(sheet: Sheet) -> str:
    """A heading, the caption as a list, and a table for each grid."""
    lines = [*sheet.stamps, ""] if sheet.stamps else []
    lines += [f"## {sheet.name}", "", escaped(sheet.question), "", *(f"- {line}" for line in sheet.caption)]
    for grid in sheet.grids:
        lines += ["", *_markdown_lines(grid)]
    return "\n".join(lines) + "\n"


def _markdown_lines(grid: Grid) -> Iterator[str]:
    if grid.title:
        yield from (f"### {escaped(grid.title)}", "")
    yield as_row(map(escaped, grid.header))
    yield as_row("---" if i in grid.words else "---:" for i in range(len(grid.header)))
    signs = grid.signs()
    for number, row in enumerate(grid.entries()):
        if number in grid.breaks:
            yield as_row([f"*{escaped(grid.breaks[number])}*", *[""] * (len(grid.header) - 1)])
        yield as_row(_markdown_cell(entry, signs) for entry in row)
    if grid.footnotes:
        yield ""
        yield from (f"- <sup>{signs[key]}</sup> {escaped(text)}" for key, text in grid.footnotes.items())


def _markdown_cell(entry: Entry, signs: Mapping[str, str]) -> str:
    text = escaped(entry.text)
    text = f"**{text}**" if entry.best else f"<u>{text}</u>" if entry.second else text
    notes = ", ".join(signs[note] for note in entry.notes)
    return text + (f" {TIED}" if entry.tied else "") + (f" <sup>{notes}</sup>" if notes else "")


def as_row(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cells)} |"


def escaped(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")


# --- LaTeX ------------------------------------------------------------------------------------------------------------

_TEX = {
    **{character: f"\\{character}" for character in "&%$#_{}"},
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    "±": r"$\pm$",
    "≈": r"$\approx$",
    "\N{MULTIPLICATION SIGN}": r"$\times$",
    "≤": r"$\leq$",
    "≥": r"$\geq$",
    "\N{MINUS SIGN}": "$-$",
}
_WIDE = 6
"""More columns than these stand across both columns of a paper."""
_SENTENCE = 100
"""Words as long as this stand in several lines."""


def latex(sheet: Sheet) -> str:
    """A `table` of booktabs for each grid, with a caption and a label. The paper needs \\usepackage{booktabs}."""
    lines = [f"% {sheet.name}: for a paper with \\usepackage{{booktabs}}", *(f"% {line}" for line in sheet.stamps)]
    return "\n".join([*lines, *(_latex_table(sheet, grid) for grid in sheet.grids)])


def _latex_table(sheet: Sheet, grid: Grid) -> str:
    signs, rows = grid.signs(), []
    for number, row in enumerate(grid.entries()):
        cells = [_latex_cell(entry, signs, i in grid.words) for i, entry in enumerate(row)]
        if number in grid.breaks:  # Styler knows no row across all columns: it goes before the first cell of the next
            across = f"\\multicolumn{{{len(row)}}}{{l}}{{\\emph{{{tex(grid.breaks[number])}}}}} \\\\\n"
            cells[0] = ("\\midrule\n" if number else "") + across + cells[0]
        rows.append(cells)
    frame = pd.DataFrame(rows, columns=[tex(name) for name in grid.header])
    title = _sentence(grid.title or sheet.name)
    told = [*sheet.stamps, title, sheet.question, *sheet.caption]
    text = frame.style.hide(axis="index").to_latex(
        hrules=True,
        column_format="".join(_latex_column(grid, i) for i in range(len(grid.header))),
        position="tbp",
        position_float="centering",
        environment="table*" if len(grid.header) > _WIDE else "table",
        caption=(tex(" ".join(_sentence(line) for line in told if line)), tex(title.rstrip("."))),
        label=f"tab:{slug(f'{sheet.name} {grid.title}')}",
    )
    text = text.replace("\\begin{tabular}", "\\footnotesize\\setlength{\\tabcolsep}{3pt}\n\\begin{tabular}")
    if grid.footnotes:
        notes = [f"\\textsuperscript{{{signs[key]}}} {tex(note)}" for key, note in grid.footnotes.items()]
        text = text.replace("\\end{tabular}", "\\end{tabular}\n\n\\smallskip\n" + " \\\\\n".join(notes))
    return text


def _latex_column(grid: Grid, i: int) -> str:
    longest = max((len(row[i].text) for row in grid.entries()), default=0)
    return "r" if i not in grid.words else "l" if longest < _SENTENCE else r"p{0.42\linewidth}"


def _latex_cell(entry: Entry, signs: Mapping[str, str], word: bool) -> str:
    text = tex(entry.text)
    if text[:1] in ("[", "*"):  # after a line's end these would belong to it
        text = f"{{{text[0]}}}{text[1:]}"
    text = f"\\textbf{{{text}}}" if entry.best else f"\\underline{{{text}}}" if entry.second else text
    marks = [r"$\approx$"] * entry.tied + [signs[note] for note in entry.notes]
    raised = f"\\textsuperscript{{{','.join(marks)}}}" if marks else ""
    return text + (f"\\rlap{{{raised}}}" if len(marks) == 1 and not word else raised)  # numbers stay below each other


def tex(text: str) -> str:
    """Text as LaTeX prints it: special characters escaped, signs of numbers as in mathematics."""
    text = "".join(_TEX.get(character, character) for character in " ".join(text.split()))
    return re.sub(r"(?<![\w.])-(?=\d)", "$-$", text).replace("--", "-{}-")


def slug(text: str) -> str:
    """What may stand in a label or the name of a file."""
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")


def _sentence(text: str) -> str:
    first = text.partition(" ")[0].rstrip(":;,")
    text = text[:1].upper() + text[1:] if len(first) > 1 and first.islower() else text  # not of p, not of pAUC
    return text if text.endswith((".", "?", "!")) else f"{text}."


def macros(name: str, cells: Mapping[str, str], about: Sequence[str]) -> str:
    """A LaTeX file that gives every cell a name, so that a text says what the table says.

    `cells` are text by key. A name of TeX cannot hold digits, so there is one command, `\\raysd{KEY}`, that looks up.
    """
    head = [
        f"% {name}: \\input this file, then \\raysd{{KEY}} prints a number as the table has it.",
        "% An unknown KEY is an error, so that no text keeps a number of an older table.",
        *(f"% {line}" for line in about),
        "% In a KEY every character of % # \\ { } ~ ^ stands as a stroke: -",
        r"\providecommand{\raysd}[1]{\ifcsname raysd@\detokenize{#1}\endcsname"
        r"\csname raysd@\detokenize{#1}\endcsname"
        r"\else\PackageError{raysd}{no cell `\detokenize{#1}'}{See the first lines of the file of macros.}\fi}",
        r"\providecommand{\raysdcell}[2]{\expandafter\def\csname raysd@\detokenize{#1}\endcsname{#2}}",
    ]
    names: dict[str, str] = {}
    for key in cells:
        if names.setdefault(re.sub(r"[%#\\{}~^]", "-", " ".join(key.split())), key) != key:
            raise ValueError(f"two cells have one key in LaTeX: {key}")
    return "\n".join([*head, *(f"\\raysdcell{{{name}}}{{{tex(cells[key])}}}" for name, key in names.items())]) + "\n"


def cells_of(sheet: Sheet) -> dict[str, str]:
    """The text of every cell that has a key, by the sheet's name and the key."""
    entries = (entry for grid in sheet.grids for row in grid.entries() for entry in row)
    return {f"{sheet.name}/{entry.key}": entry.text for entry in entries if entry.key and entry.text}


# --- HTML -------------------------------------------------------------------------------------------------------------


def html(sheet: Sheet) -> str:
    """A part of a page: heading, caption and tables, that need no style but look better with one."""
    return _sheet_template().render(sheet=sheet) + "\n"


def templates() -> Environment:
    """The templates of pages and of parts of them; text that is put in them is escaped."""
    loader = PackageLoader("raysd.paper", ".")
    return Environment(loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True)


@lru_cache
def _sheet_template() -> Template:
    return templates().get_template("sheet.html")
