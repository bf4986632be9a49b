"""Grids as they are printed: marks, notes, special characters; LaTeX is parsed, and compiled where there is a TeX."""

import io
import re
import shutil
import subprocess
from pathlib import Path

import pytest
from pylatexenc.latexwalker import (
    LatexCharsNode,
    LatexCommentNode,
    LatexEnvironmentNode,
    LatexGroupNode,
    LatexMacroNode,
    LatexNode,
    LatexWalker,
)
from rich.console import Console

from raysd.paper import formats
from raysd.paper.grids import Entry, Grid, Sheet
from raysd.paper.terminal import terminal

COMPILERS = ("pdflatex", "xelatex", "lualatex", "tectonic")
BOOKTABS = {"toprule", "midrule", "bottomrule", "multicolumn"}
KNOWN = {*BOOKTABS, "centering", "caption", "label", "textbf", "underline", "emph", "rlap", "textsuperscript", "\\"}
KNOWN |= {
    "smallskip",
    "footnotesize",
    "setlength",
    "tabcolsep",
    "pm",
    "approx",
    "textbackslash",
    "textasciitilde",
    "textasciicircum",
}
KNOWN |= {"textless", "textgreater", "textbar", *"%&_#${}"}

ODD = "50 % of #1 {x} ~^\\ -- <b>|</b>"
CAPTION = ["percent; n = 3 seeds", "p: a test of 95 % #1"]
GRID = Grid(
    header=["variant", "a_b & c", "p"],
    rows=[
        ["baseline", Entry("85.18 ± 0.93", second=True, tied=True, key="baseline/dev/fan/auc/mean"), ""],
        [ODD, Entry("86.36 ± 1.19", best=True, key="odd % name/dev/fan/auc/mean"), "<0.001"],
        ["[a] * star", Entry("-0.50 [-1.00, 0.25]", notes=("kept", "other")), "0.250"],
        ["reference", Entry("61.90", notes=("other",)), ""],
    ],
    title="official score, dev",
    breaks={3: "references, not compared"},
    footnotes={"kept": "pooled over ids_1 & more", "other": "100 % sure"},
)
SHEET = Sheet("a_study", "does a|b help & why?", CAPTION, [GRID], ["ORACLE: not $fair$"])


def nodes_in(nodes: list[LatexNode]) -> list[LatexNode]:
    """All nodes, those inside others too."""
    found = []
    for node in nodes:
        arguments = getattr(getattr(node, "nodeargd", None), "argnlist", None) or []
        inside = [*(getattr(node, "nodelist", None) or []), *(argument for argument in arguments if argument)]
        found += [node, *nodes_in(inside)]
    return found


def checked(text: str) -> list[LatexNode]:
    """The nodes of LaTeX in which all is closed, escaped and known, and every row of a table has all its columns."""
    nodes = nodes_in(LatexWalker(text, tolerant_parsing=False).get_latex_nodes()[0])
    assert {node.macroname for node in nodes if isinstance(node, LatexMacroNode)} <= KNOWN
    assert not [node for node in nodes if isinstance(node, LatexCharsNode) and re.search(r"[#_^~$%\\<>|]", node.chars)]
    for node in nodes:
        if isinstance(node, LatexEnvironmentNode) and node.environmentname == "tabular":
            table = node.latex_verbatim().removeprefix("\\begin{tabular}").removesuffix("\\end{tabular}")
            columns, body = table.removeprefix("{").split("}", 1)
            rows = re.sub(r"\\(top|mid|bottom)rule", "", body).split("\\\\\n")
            for row in filter(str.strip, rows):
                across = sum(int(num) - 1 for num in re.findall(r"\\multicolumn\{(\d+)\}", row))
                assert len(re.findall(r"(?<!\\)&", row)) + 1 + across == len(columns), row
    return nodes


def compiled(folder: Path, body: str, **files: str) -> bool | None:
    """Whether a TeX takes it as a paper; None where there is none."""
    compiler = next(filter(shutil.which, COMPILERS), None)
    if compiler is None:
        return None
    for name, text in files.items():
        (folder / f"{name}.tex").write_text(text, encoding="utf-8")
    paper = f"\\documentclass{{article}}\\usepackage{{booktabs}}\n\\begin{{document}}\n{body}\n\\end{{document}}\n"
    (folder / "paper.tex").write_text(paper, encoding="utf-8")
    options = [] if compiler == "tectonic" else ["-interaction=nonstopmode", "-halt-on-error"]
    ran = subprocess.run([compiler, *options, "paper.tex"], cwd=folder, capture_output=True, timeout=240)
    return ran.returncode == 0


def printed(sheet: Sheet, width: int) -> str:
    console = Console(width=width, file=io.StringIO(), record=True)
    console.print(terminal(sheet))
    return console.export_text()


def test_markdown_marks_escapes_and_notes() -> None:
    lines = formats.markdown(SHEET).splitlines()
    assert lines[:6] == ["ORACLE: not $fair$", "", "## a_study", "", "does a\\|b help & why?", ""]
    table = [line for line in lines if line.startswith("|")]
    assert table[1] == "| --- | ---: | ---: |"
    assert table[2] == "| baseline | <u>85.18 ± 0.93</u> ≈ |  |"
    assert table[3].endswith("<b>\\|</b> | **86.36 ± 1.19** | <0.001 |")
    assert table[4] == "| [a] * star | -0.50 [-1.00, 0.25] <sup>a, b</sup> | 0.250 |"
    assert table[5] == "| *references, not compared* |  |  |"
    assert lines[-2:] == ["- <sup>a</sup> pooled over ids_1 & more", "- <sup>b</sup> 100 % sure"]


def test_latex_is_whole(tmp_path: Path) -> None:
    text = formats.latex(SHEET)
    nodes = checked(text)
    names = [node.environmentname for node in nodes if isinstance(node, LatexEnvironmentNode)]
    assert names == ["table", "tabular"]
    comments = [node.comment for node in nodes if isinstance(node, LatexCommentNode)]
    assert len(comments) == 2  # the first lines; no percent sign of a cell has become one
    assert "ORACLE: not $fair$" in comments[1]
    rows = text.split("\\midrule\n", 1)[1].splitlines()
    assert rows[0] == r"baseline & \underline{85.18 $\pm$ 0.93}\rlap{\textsuperscript{$\approx$}} &  \\"
    odd = r"50 \% of \#1 \{x\} \textasciitilde{}\textasciicircum{}\textbackslash{} -{}- \textless{}b\textgreater{}"
    assert rows[1].startswith(rf"{odd}\textbar{{}}\textless{{}}/b\textgreater{{}} & ")
    assert rows[1].endswith(r"& \textbf{86.36 $\pm$ 1.19} & \textless{}0.001 \\")
    assert rows[2] == r"{[}a] * star & $-$0.50 [$-$1.00, 0.25]\textsuperscript{a,b} & 0.250 \\"
    assert rows[3:5] == [r"\midrule", r"\multicolumn{3}{l}{\emph{references, not compared}} \\"]
    assert r"\textsuperscript{b} 100 \% sure" in text
    assert r"\label{tab:a-study-official-score-dev}" in text
    assert compiled(tmp_path, text) in (True, None)


def test_every_cell_has_a_macro(tmp_path: Path) -> None:
    cells = formats.cells_of(SHEET)
    assert cells == {
        "a_study/baseline/dev/fan/auc/mean": "85.18 ± 0.93",
        "a_study/odd % name/dev/fan/auc/mean": "86.36 ± 1.19",
    }
    text = formats.macros("a_study", cells, ["about: 95 % of it"])
    nodes = LatexWalker(text, tolerant_parsing=False).get_latex_nodes()[0]
    at = [i for i, node in enumerate(nodes) if isinstance(node, LatexMacroNode) and node.macroname == "raysdcell"]
    groups = [[node.latex_verbatim() for node in nodes[i + 1 : i + 3]] for i in at]
    assert groups == [
        ["{a_study/baseline/dev/fan/auc/mean}", r"{85.18 $\pm$ 0.93}"],
        ["{a_study/odd - name/dev/fan/auc/mean}", r"{86.36 $\pm$ 1.19}"],
    ]
    assert all(isinstance(node, LatexGroupNode) for i in at for node in nodes[i + 1 : i + 3])
    assert all(line.startswith(("%", "\\providecommand", "\\raysdcell{")) for line in text.splitlines())
    used = r"\input{cells}\raysd{a_study/baseline/dev/fan/auc/mean}"
    assert compiled(tmp_path, used, cells=text) in (True, None)
    assert compiled(tmp_path, r"\input{cells}\raysd{a_study/gone}", cells=text) in (False, None)
    with pytest.raises(ValueError, match="two cells have one key"):
        formats.macros("s", {"a%b": "1", "a#b": "2"}, [])


def test_html_marks_and_escapes() -> None:
    text = formats.html(SHEET)
    assert "<p><strong>ORACLE: not $fair$</strong></p>" in text
    assert '<td><u>85.18 ± 0.93</u> <span title="not told apart from the best">≈</span></td>' in text
    assert "<td><b>86.36 ± 1.19</b></td>" in text
    assert "&lt;b&gt;|&lt;/b&gt;" in text
    assert "<td>-0.50 [-1.00, 0.25]<sup>a,b</sup></td>" in text
    assert '<tr><td class="break" colspan="3">references, not compared</td></tr>' in text
    assert "<sup>b</sup> 100 % sure" in text


@pytest.mark.parametrize("width", [40, 60, 120])
def test_the_terminal_breaks_numbers_only_where_it_must(width: int) -> None:
    lines = printed(SHEET, width).splitlines()
    assert max(map(len, lines)) <= width
    first = next(line for line in lines if line.strip().startswith("baseline"))
    assert ("85.18 ± 0.93" in first) == (width == 120)
    assert "≈" in first
    assert "≈" not in next(line for line in lines if "86.36" in line)
    assert "references, not compared" in " ".join(lines)
    assert any(line.strip() == "[b] 100 % sure" for line in lines)


def test_seven_machines_and_their_mean_fit_in_120_columns() -> None:
    machines = ["ToyCar", "ToyConveyor", "fan", "gearbox", "pump", "slider", "valve", "all"]
    name = "without random_resize_crop"
    values = [name, "6/6", *[Entry("85.18 ± 10.93", tied=True)] * 8]
    differences = [name, "6", *["-10.18 [-12.00, -10.40]"] * 8]
    grids = [Grid(["variant", "seeds", *machines], [values]), Grid(["variant", "n", *machines], [differences])]
    lines = printed(Sheet("s", "which?", [], grids), 120).splitlines()
    assert max(map(len, lines)) <= 120
    assert [line.count("85.18 ≈") for line in lines if "85.18" in line] == [8]
    assert [line.count("-10.18") for line in lines if "-10.18" in line] == [8]
    assert [line.count("-10.40]") for line in lines if "-10.40]" in line] == [8]
