import csv
import json
import math
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import scipy.stats
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from raysd.detect.metrics import groups
from raysd.detect.submission import (
    Evaluation,
    decision_threshold,
    evaluate_submission,
    read_decisions,
    read_scores,
    write_submission,
)
from raysd.errors import BadInput


class Figures:
    """Compares an evaluation with the figures of an official result file, and counts what was compared."""

    def __init__(self, evaluation: Evaluation) -> None:
        rows = evaluation.rows
        keys = zip(rows["machine"], rows["section"], rows["metric"], strict=True)
        self.values = dict(zip(keys, rows["value"], strict=True))
        self.compared = 0

    def check(self, machine: str, section: str, metric: str, printed: str) -> None:
        self.close(self.values[machine, section, metric], printed, f"{machine} {section} {metric}")

    def close(self, value: float, printed: str, what: str, tolerance: float = 1e-12) -> None:
        expected = float(printed)
        assert abs(value - expected) <= tolerance, f"{what}: {value!r}, expected {printed}"
        if 0 < expected < 1e-9:  # harmonic means at the floor: a tolerance of their own size
            assert math.isclose(value, expected, rel_tol=1e-9), f"{what}: {value!r}, expected {printed}"
        self.compared += 1


def numbers_in(path: Path) -> int:
    """How many figures a result file holds: cells with a decimal number."""
    with path.open(newline="") as file:
        return sum(
            "." in cell and cell.replace(".", "").replace("e-", "").isdigit()
            for row in csv.reader(file)
            for cell in row
        )


@pytest.mark.parametrize("submission", [1, 2])
def test_every_official_figure_of_2020(shared_dir: Path, submission: int):
    folder = shared_dir / "official" / "dcase2020_eval"
    figures = Figures(evaluate_submission(folder / f"submission_{submission}", folder, 2020))
    expected = folder / f"expected_result_{submission}.csv"
    machine, columns = "", []
    for row in csv.reader(expected.open(newline="")):
        if len(row) == 1:
            machine = row[0]
        elif row and row[0] == "id":
            columns = [name.lower() for name in row[1:]]
        elif row:
            section = "arithmetic_mean" if row[0] == "Average" else row[0]
            for metric, printed in zip(columns, row[1:], strict=True):
                figures.check(machine, section, metric, printed)
    assert figures.compared == numbers_in(expected) == 6 * 4 * 2


@pytest.mark.parametrize("submission", [1, 2])
def test_every_official_figure_of_2022(shared_dir: Path, submission: int):
    folder = shared_dir / "official" / "dcase2022_eval"
    evaluation = evaluate_submission(folder / f"submission_{submission}", folder, 2022)
    figures = Figures(evaluation)
    expected = folder / f"expected_result_{submission}.csv"
    names = {"AUC (all)": "auc", "AUC (source)": "auc_source", "AUC (target)": "auc_target", "pAUC": "pauc"}
    names |= {
        f"{name} ({domain})": f"{name}_{domain}" for name in ("precision", "recall") for domain in ("source", "target")
    }
    names |= {f"F1 score ({domain})": f"f1_{domain}" for domain in ("source", "target")}
    mean_names = {"AUC": "auc", "precision": "precision", "recall": "recall", "F1 score": "f1"}
    machine, columns, faulty = "", [], 0
    for row in csv.reader(expected.open(newline="")):
        if not row:
            machine = "all"  # a block begins, with the name of its machine or without
        elif len(row) == 1:
            machine = row[0]
        elif row[0] == "section" or row[:2] == ["", ""]:
            columns = row[1:]
        elif row[0] == "official score":
            figures.close(evaluation.official_score, row[2], "official score")
        elif row[0] == "official score ci95" or (machine != "all" and row[0] in FAULTY):
            faulty += len([cell for cell in row[1:] if cell])
        else:
            title, _, _ = row[0].partition(" over all")
            for column, printed in zip(columns, row[1:], strict=True):
                if column in names and title.isdigit():
                    figures.check(machine, title, names[column], printed)
                elif column:
                    kind = f"{title.split()[-2]}_mean"
                    domain = title.split()[0] if len(title.split()) == 3 else "domains"
                    metric = "pauc" if column == "pAUC" else f"{mean_names[column]}_{domain}"
                    figures.check(machine, kind, metric, printed)
    assert faulty == 7 * 2 * 5 + 1
    assert figures.compared == 7 * (3 * 10 + 2 * 5) + 4 * 5 + 1
    assert figures.compared + faulty == numbers_in(expected)


FAULTY = ("source harmonic mean", "target harmonic mean")  # of a machine: the evaluator slices at the wrong place


@pytest.mark.parametrize("system", [1, 2])
def test_every_figure_of_the_development_systems_of_2022(shared_dir: Path, system: int):
    folder = shared_dir / "official" / "dcase2022_dev" / f"system_{system}"
    figures = Figures(evaluate_submission(folder, None, 2022))
    columns = ["auc_source", "auc_target", "pauc"]
    machine, machines = "", []
    for row in csv.reader((folder / "result.csv").open(newline="")):
        if len(row) == 1:
            machine = row[0]
            machines.append(machine)
        elif row and row[0].startswith("("):  # the mean over machines of their means, printed with four decimals
            kind = {"(A)Total Average": "arithmetic_mean", "(H)Total Average": "harmonic_mean"}[row[0]]
            for metric, printed in zip(columns, row[1:], strict=True):
                total = np.mean([figures.values[name, kind, metric] for name in machines])
                figures.close(float(total), printed, f"{row[0]} {metric}", tolerance=0.5e-4 + 1e-12)
        elif row and row[0] != "section":
            for metric, printed in zip(columns, row[1:], strict=True):
                figures.check(machine, row[0].replace(" ", "_"), metric, printed)
    assert figures.compared == numbers_in(folder / "result.csv") == 7 * 5 * 3 + 2 * 3


def make_scores(year: int, labels: bool = True) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Training and test scores of two machines and sections, in official clip names."""
    draws = np.random.default_rng(year)
    rows: list[tuple[str, str, str, float]] = []
    for machine in ("fan", "ToyCar"):
        for section in ("00", "02"):
            for label in ("normal", "anomaly"):
                for index in range(6):
                    domain = "source" if index % 2 else "target"
                    name = f"section_{section}_{domain}_test_{label}_{index:04d}_n_A.wav"
                    if year == 2020:
                        name = f"{label}_id_{section}_{index:08d}.wav"
                    rows.append((machine, section, name, draws.gamma(2 if label == "normal" else 8)))
    test = pd.DataFrame(rows, columns=["machine", "section", "name", "score"])
    train = [
        (machine, section, f"{i}.wav", draws.gamma(2))
        for machine, section in {(r[0], r[1]) for r in rows}
        for i in range(50)
    ]
    return pd.DataFrame(train, columns=["machine", "section", "path", "score"]), test


@pytest.mark.parametrize(
    ("year", "endings"),
    [
        (2020, ["id_00.csv", "id_02.csv"]),
        (2021, ["section_00_source_test.csv", "section_00_target_test.csv", "section_02_source_test.csv"]),
        (2022, ["section_00_test.csv", "section_02_test.csv"]),
    ],
)
def test_what_is_written_is_read_and_evaluated_alike(tmp_path: Path, year: int, endings: list[str]):
    train, test = make_scores(year)
    shuffled = test.sample(frac=1, random_state=0)
    write_submission(tmp_path / "out", train, shuffled, year)
    for kind in ("anomaly_score", "decision_result"):
        for ending in endings:
            assert (tmp_path / "out" / f"{kind}_fan_{ending}").is_file()
    again = read_scores(tmp_path / "out", year)
    order = ["machine", "section", "name"]
    pd.testing.assert_frame_equal(
        again.sort_values(order, ignore_index=True), test.sort_values(order, ignore_index=True)
    )
    decisions = read_decisions(tmp_path / "out", year).merge(test, on=order)
    assert len(decisions) == len(test)
    for (machine, section), clips in groups(decisions, "machine", "section"):
        own = train.loc[(train["machine"] == machine) & (train["section"] == section), "score"].to_numpy()
        assert clips["decision"].tolist() == (clips["score"].to_numpy() > decision_threshold(own)).tolist()
    evaluation = evaluate_submission(tmp_path / "out", None, year)
    assert 0.5 < evaluation.official_score <= 1
    assert any(metric.startswith("f1") for metric in evaluation.rows["metric"])
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out"]


def test_the_dictionary_holds_every_row_and_is_json(tmp_path: Path):
    train, test = make_scores(2022)
    write_submission(tmp_path / "out", train, test, 2022)
    evaluation = evaluate_submission(tmp_path / "out", None, 2022)
    plain = json.loads(json.dumps(evaluation.as_dict(), allow_nan=False))
    assert plain["official_score"] == evaluation.official_score == plain["overall"]["harmonic_mean"]["official"]
    assert sorted(plain["machines"]) == ["ToyCar", "fan"]
    fan = plain["machines"]["fan"]
    assert sorted(fan) == ["arithmetic_mean", "harmonic_mean", "pooled", "sections"]
    assert sorted(fan["sections"]) == ["00", "02"]
    entries = [*plain["overall"].values()]
    for machine in plain["machines"].values():
        entries += [*machine.pop("sections").values(), *machine.values()]
    assert sum(len(entry) for entry in entries) == len(evaluation.rows)


def test_the_table_shows_sections_means_and_the_official_score(tmp_path: Path):
    train, test = make_scores(2020)
    write_submission(tmp_path / "out", train, test, 2020)
    evaluation = evaluate_submission(tmp_path / "out", None, 2020)
    lines = evaluation.as_markdown().splitlines()
    assert lines[0] == "| machine | section | auc | pauc | precision | recall | f1 |"
    assert [line.split("|")[1:3] for line in lines[2:6]] == [
        [" ToyCar ", " 00 "],
        [" ToyCar ", " 02 "],
        [" ToyCar ", " arithmetic mean "],
        [" ToyCar ", " harmonic mean "],
    ]
    assert [line.split("|")[1:3] for line in lines[10:12]] == [
        [" all ", " arithmetic mean "],
        [" all ", " harmonic mean "],
    ]
    assert lines[-1].endswith(f": {100 * evaluation.official_score:.2f}")


NAMES = {
    "anomaly_score_fan_section_03_test.csv": "section_03_0000.wav,0.1\nsection_03_0001.wav,0.2\n",
    "anomaly_score_fan_section_04.csv": "section_04_0001.wav,4\nsection_04_test_0000.wav,3\n",
}


@pytest.fixture
def truth_and_scores(tmp_path: Path) -> tuple[Path, Path]:
    for folder, values in (("ground_truth_data", "01"), ("ground_truth_domain", "00")):
        (tmp_path / "truth" / folder).mkdir(parents=True)
        for section in ("03", "04"):
            lines = [f"section_{section}_000{i}.wav,{value}\n" for i, value in enumerate(values)]
            (tmp_path / "truth" / folder / f"ground_truth_fan_section_{section}_test.csv").write_text("".join(lines))
    (tmp_path / "scores").mkdir()
    for name, text in NAMES.items():
        (tmp_path / "scores" / name).write_text(text)
    return tmp_path / "truth", tmp_path / "scores"


def test_clips_are_joined_by_name(truth_and_scores: tuple[Path, Path]):
    truth, scores = truth_and_scores
    figures = Figures(evaluate_submission(scores, truth, 2022)).values
    assert figures["fan", "03", "auc"] == figures["fan", "04", "auc"] == 1.0


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"anomaly_score_fan_section_04.csv": None}, r"1 section\(s\) missing: fan section 04"),
        ({"anomaly_score_fan_section_05.csv": "section_05_0000.wav,1\n"}, r"1 section\(s\) extra: fan section 05"),
        ({"anomaly_score_pump_section_03.csv": "section_03_0000.wav,1\n"}, r"1 section\(s\) extra: pump section 03"),
        (
            {"anomaly_score_fan_section_03.csv": NAMES["anomaly_score_fan_section_03_test.csv"]},
            r"03_test\.csv: line 1: clip 'section_03_0000\.wav' is there in anomaly_score_fan_section_03\.csv already",
        ),
        (
            {"anomaly_score_fan_section_03_test.csv": "section_03_0000.wav,1\n"},
            r"1 clip\(s\) missing: fan section_03_0001",
        ),
        (
            {"anomaly_score_fan_section_04.csv": NAMES["anomaly_score_fan_section_04.csv"] + "section_04_0009.wav,1\n"},
            r"1 clip\(s\) extra: fan section_04_0009",
        ),
        (
            {"anomaly_score_fan_section_04.csv": "section_04_0001.wav,4\nsection_04_0001.wav,4\n"},
            r"section_04\.csv: line 2: clip 'section_04_0001\.wav' is there twice",
        ),
        (
            {"anomaly_score_fan_section_04.csv": "section_04_0001.wav\n"},
            r"section_04\.csv: line 1: expected 'clip name,score'",
        ),
        (
            {"anomaly_score_fan_section_04.csv": "\nsection_04_0001.wav,nan\n"},
            r"line 2: the score 'nan' is not a finite",
        ),
        (
            {"anomaly_score_fan_section_04.csv": "section_04_0001.wav,high\n"},
            r"line 1: the score 'high' is not a finite",
        ),
        ({"anomaly_score_fan_section_04.csv": "section_03_0001.wav,1\n"}, r"is a clip of section 03, not of 04"),
        (
            {"anomaly_score_fan.csv": ""},
            r"anomaly_score_fan\.csv: not a file name of 2022, for instance .*section_01_test",
        ),
        ({"decision_result_fan_section_03.csv": "section_03_0000.wav,2\n"}, r"the decision '2' is not 0 or 1"),
        (
            {"decision_result_fan_section_03.csv": "section_03_0000.wav,1\nsection_03_0001.wav,0\n"},
            r"decision_result files do not fit the anomaly_score files: 1 section\(s\) missing: fan section 04",
        ),
        (dict.fromkeys(NAMES), r"no scores here; expected files such as anomaly_score_fan_section_01_test\.csv"),
    ],
)
def test_what_does_not_fit_is_named_in_one_line(truth_and_scores: tuple[Path, Path], changed: dict, message: str):
    truth, scores = truth_and_scores
    for name, text in changed.items():
        (scores / name).unlink() if text is None else (scores / name).write_text(text)
    with pytest.raises(BadInput, match=message) as caught:
        evaluate_submission(scores, truth, 2022)
    assert "\n" not in str(caught.value)


def test_truth_that_does_not_serve_is_named(truth_and_scores: tuple[Path, Path], tmp_path: Path):
    truth, scores = truth_and_scores
    with pytest.raises(BadInput, match="no label in its name, and give the folder of truth lists with --truth"):
        evaluate_submission(scores, None, 2022)
    (tmp_path / "empty").mkdir()
    with pytest.raises(BadInput, match="empty holds no truth list of 2022"):
        evaluate_submission(scores, tmp_path / "empty", 2022)
    with pytest.raises(BadInput, match="nowhere: no such folder"):
        evaluate_submission(scores, tmp_path / "nowhere", 2022)
    with pytest.raises(BadInput, match="nowhere: no such folder of anomaly_score"):
        evaluate_submission(tmp_path / "nowhere", truth, 2022)
    with pytest.raises(BadInput, match="1999: not a known year; allowed: 2020, 2021"):
        evaluate_submission(scores, truth, 1999)
    for path in (truth / "ground_truth_domain").iterdir():
        path.unlink()
    with pytest.raises(BadInput, match="add the folder ground_truth_domain"):
        evaluate_submission(scores, truth, 2022)


CELLS = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=12)


@given(st.lists(st.one_of(CELLS, st.tuples(CELLS, st.one_of(CELLS, st.floats().map(repr))).map(",".join)), max_size=6))
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_text_is_read_as_finite_scores_or_refused(tmp_path: Path, lines: list[str]):
    path = tmp_path / "anomaly_score_fan_section_00.csv"
    path.write_text("\n".join(lines), encoding="utf-8", newline="")
    try:
        scores = read_scores(tmp_path, 2022)
    except BadInput as error:
        refused = str(error)
    else:
        refused = ""
        assert np.isfinite(scores["score"]).all()
        assert scores["name"].is_unique
    assert refused == "" or path.name in refused or "no scores here" in refused


def test_a_file_of_bytes_is_refused(tmp_path: Path):
    (tmp_path / "anomaly_score_fan_section_00.csv").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(BadInput, match=r"anomaly_score_fan_section_00\.csv: cannot be read"):
        read_scores(tmp_path, 2022)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda train, test: (train[train["machine"] == "fan"], test), "ToyCar section 00: no training scores"),
        (
            lambda train, test: (train, pd.concat([test, test.head(1)])),
            r"fan section 00: normal_id_00_00000000\.wav comes twice",
        ),
        (lambda train, test: (train, test.assign(score=np.nan)), "has a score that is not finite"),
        (lambda train, test: (train.assign(score=np.inf), test), "ToyCar section 00: a training score is not finite"),
        (lambda train, test: (train, test.head(0)), "no test scores"),
    ],
)
def test_nothing_is_left_behind_by_a_refused_submission(tmp_path: Path, change, message: str):
    train, test = change(*make_scores(2020))
    with pytest.raises(BadInput, match=message):
        write_submission(tmp_path / "out", train, test, 2020)
    assert list(tmp_path.iterdir()) == []


def test_a_folder_with_files_is_left_alone(tmp_path: Path):
    (tmp_path / "out").mkdir()
    write_submission(tmp_path / "out", *make_scores(2020), 2020)
    before = {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()}
    with pytest.raises(BadInput, match="already there and not an empty folder"):
        write_submission(tmp_path / "out", *make_scores(2020), 2020)
    assert {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()} == before


@pytest.mark.parametrize("unit", [1e-6, 1.0, 1e3])
@pytest.mark.parametrize("offset", [0.0, -50.0])
def test_the_threshold_is_the_quantile_of_the_gamma_distribution(unit: float, offset: float):
    scores = unit * (np.random.default_rng(0).gamma(3.0, size=2000) + offset)
    expected = unit * (scipy.stats.gamma.ppf(0.9, 3.0) + offset)
    assert decision_threshold(scores) == pytest.approx(expected, abs=0.1 * unit)


@pytest.mark.parametrize(
    ("scores", "threshold"),
    [([2.0], 2.0), ([1.0, 3.0], 2.8), ([5.0] * 40, 5.0), ([0.0] * 50 + list(range(1, 51)), 40.1)],
)
def test_scores_that_fit_no_gamma_distribution_have_their_own_quantile(scores: list[float], threshold: float):
    assert decision_threshold(np.array(scores, dtype=float)) == pytest.approx(threshold)
