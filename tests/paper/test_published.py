"""What is published is kept as its sources print it, and a damaged file is told by line and column."""

import csv
import re
import statistics
from collections import Counter
from pathlib import Path

import pytest

from raysd.errors import BadInput
from raysd.paper import published
from raysd.paper.published import CAVEATS, published_file, read_published, systems_of

KEPT = ("dataset", "system", "year", "machine_type", "metric", "value_percent", "averaging", "source")


def lines_of(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def test_every_figure_of_the_reference_is_here_unchanged(shared_dir: Path) -> None:
    reference = shared_dir / "reference" / "published_results.csv"
    if not reference.is_file():
        pytest.skip(f"{reference} is absent")
    there = Counter(tuple(line[column] for column in KEPT) for line in lines_of(reference))
    here = Counter(tuple(line[column] for column in KEPT) for line in lines_of(published_file()))
    assert there - here == Counter()
    # the paper's figures on 2022, which the reference tells in words
    assert sorted(line[4:6] for line in here - there) == [("increase_source", "26.62"), ("increase_target", "16.83")]


def test_caveats_and_spreads_are_those_that_the_sources_give() -> None:
    for figure in read_published():
        text = f"{figure.system} {figure.averaging} {figure.source}"
        pooled, unknown = "pool" in figure.averaging.lower(), "not stated" in figure.averaging
        assert ("pooled" in figure.caveats) == (pooled and not unknown) == (figure.mean == "pooled"), figure
        assert ("averaging_unknown" not in figure.caveats) or figure.mean == "unknown", figure
        if "assumed" in text or "inferred" in text:
            assert {"set_assumed"} <= {*figure.caveats}, figure
        if "TEST set" in text or "test-selected" in text:
            assert {"test_selected"} <= {*figure.caveats}, figure
        if re.search(r"(one|single) run", text):
            assert {"single_run"} <= {*figure.caveats}, figure
        spread = re.search(r"\bsd ([0-9.]+[0-9])", text)
        assert figure.sd_percent == (spread[1] if spread else ""), figure
    assert {key for figure in read_published() for key in figure.caveats} == set(CAVEATS)  # none that nothing has


def test_averages_marked_as_means_of_means_are_just_that() -> None:
    found = 0
    for part in ("dev", "eval"):
        for system in systems_of(read_published(), 2022, part):
            for (machine, metric), figure in system.values.items():
                if "average_of_means" in figure.caveats:
                    types = [float(own.value_percent) for (at, of), own in system.values.items()
                             if of == metric and at != machine]  # fmt: skip
                    assert len(types) == 7
                    assert statistics.fmean(types) == pytest.approx(float(figure.value_percent), abs=0.02)
                    found += 1
    assert found == 24


DAMAGES = {
    "columns": (1, "metric,", "metrics,", "line 1: the columns must be dataset,system"),
    "dataset": (2, "dcase2020_dev", "dcase1999_dev", "line 2: dataset: no DCASE 1999; allowed: 2020"),
    "part": (3, "dcase2020_dev", "dcase2020", "line 3: dataset: it must end with _dev or _eval"),
    "machine": (2, "ToyCar", "ToyCat", "line 2: machine_type: 2020 has no 'ToyCat'; did you mean 'ToyCar'?"),
    "metric": (2, ",auc,", ",auk,", "line 2: metric: 'auk' is not known; did you mean 'auc'?"),
    "value": (2, "78.77", "78,77", "line 2: it must have 12 columns"),
    "number": (2, "78.77", "nan", "line 2: value_percent: .* (it is 'nan')"),
    "above": (2, "78.77", "178.77", "line 2: value_percent: 178.77 is above 100"),
    "mean": (2, ",arithmetic,", ",average,", "line 2: mean: .* (it is 'average')"),
    "caveat": (2, "no_ids", "no_idz", "line 2: caveats: no caveat 'no_idz'; did you mean 'no_ids'?"),
    "increase": (627, "increase ", "", "line 627: metric: an increase needs the caveat 'increase'"),
    "twice": (3, "pauc,67.58", "auc,67.58", "line 3: system: line 2 has the same figure of 'DCASE2020 official"),
    "short": (4, ",arithmetic,,,", ",arithmetic,,", "line 4: it must have 12 columns"),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_file_is_told_by_line_and_column(damage: str, tmp_path: Path) -> None:
    number, old, new, message = DAMAGES[damage]
    lines = published_file().read_text(encoding="utf-8").splitlines(keepends=True)
    assert old in lines[number - 1]
    lines[number - 1] = lines[number - 1].replace(old, new, 1)
    path = tmp_path / "published.csv"
    path.write_text("".join(lines), encoding="utf-8")
    with pytest.raises(
        BadInput, match=r"published\.csv: " + message.replace("(", r"\(").replace(")", r"\)").replace("?", r"\?")
    ):
        read_published(path)


def test_a_file_that_cannot_be_read_is_told(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"published\.csv: cannot be read: .*No such file"):
        read_published(tmp_path / "published.csv")
    (tmp_path / "published.csv").write_bytes(b"\xff\xfe")
    with pytest.raises(BadInput, match=r"published\.csv: cannot be read: .*utf-8"):
        read_published(tmp_path / "published.csv")


def test_an_installed_package_has_its_own_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert published_file() == Path(published.__file__).parents[2] / "analysis" / "published.csv"
    (tmp_path / "published.csv").touch()
    monkeypatch.setattr(published, "__file__", str(tmp_path / "published.py"))
    assert published_file() == tmp_path / "published.csv"
