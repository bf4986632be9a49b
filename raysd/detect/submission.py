"""Official submission files: read and evaluate a folder of them, or write one from a trial's scores.

`anomaly_score_<machine>_id_NN.csv` (2020), `anomaly_score_<machine>_section_NN[_test].csv` (2022 and later) and
`anomaly_score_<machine>_section_NN_source_test.csv` (2021; the same for `target`) hold lines `clip name,score`;
`decision_result_...` files with the same endings hold `clip name,0 or 1`. Clips are joined by name, never by order.

As the official evaluators from 2023 on do, this takes files as the official baseline names them, for instance
`anomaly_score_DCASE2023T2bandsaw_section_00_test_seed13711_id(0_)_Eval.csv`, and clips by the names that the truth
lists give them (`section_00_source_test_normal_0010_vel_15.wav` for `section_00_0010.wav`).
"""

import csv
import math
import re
import shutil
import uuid
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import numpy as np
import pandas as pd
import scipy.stats

from raysd.data.lists import Key, read_renamed, read_truth
from raysd.data.years import YEARS, match_name, misnamed, parse_name, stem, truth_name
from raysd.detect.metrics import (
    ALL_MACHINES,
    DOMAINS,
    MEANS,
    POOLED,
    groups,
    headline_metrics,
    summarise,
)
from raysd.errors import BadInput

THRESHOLD_QUANTILE = 0.9
"""Quantile of the training scores' gamma distribution above which the official baselines decide for an anomaly."""

_KINDS = {"score": "anomaly_score", "decision": "decision_result"}
_KEY = ["machine", "section", "clip"]


@dataclass(frozen=True)
class Evaluation:
    """What the official evaluator would say of a submission, and the metrics of the literature beside it."""

    year: int
    rows: pd.DataFrame
    """Rows of metrics (`raysd.detect.metrics.COLUMNS`)."""
    lacking: tuple[str, ...] = ()
    """The sections that are not in all means: without clips of either kind, or of either domain."""

    @property
    def official_score(self) -> float:
        rows = self.rows
        return float(rows.loc[(rows["machine"] == ALL_MACHINES) & (rows["metric"] == "official"), "value"].iloc[0])

    def as_dict(self) -> dict:
        """Plain values in full precision: year, official score, overall means, and machines with sections and means;
        and the sections that are not in all means."""
        machines: dict[str, dict] = {}
        for (machine, section), rows in groups(self.rows, "machine", "section"):
            values = {str(metric): float(value) for metric, value in zip(rows["metric"], rows["value"], strict=True)}
            entry = machines.setdefault(machine, {"sections": {}})
            (entry if section in (*MEANS, POOLED) else entry["sections"])[section] = values
        overall = machines.pop(ALL_MACHINES)
        overall.pop("sections")
        about = {"year": self.year, "official_score": self.official_score, "not_in_all_means": list(self.lacking)}
        return about | {"overall": overall, "machines": machines}

    def as_markdown(self) -> str:
        """A table of the official metrics in percent: sections, means of each machine, means of all, official score."""
        metrics = list(headline_metrics(self.year)[:-1])
        domains = [f"_{domain}" for domain in DOMAINS] if YEARS[self.year].domains else [""]
        metrics += [f"{name}{domain}" for name in ("precision", "recall", "f1") for domain in domains]
        values = self.rows.pivot(index=["machine", "section"], columns="metric", values="value")
        metrics = [metric for metric in metrics if metric in values.columns]
        lines = ["| machine | section | " + " | ".join(metrics) + " |", "|---|---|" + "---:|" * len(metrics)]
        machines = sorted(
            {machine for machine, _ in values.index}, key=lambda machine: (machine == ALL_MACHINES, machine)
        )
        for machine in machines:
            sections = [section for owner, section in values.index if owner == machine and section != POOLED]
            for section in sorted(sections, key=lambda section: (section in MEANS, section)):
                cells = [values.loc[(machine, section), metric] for metric in metrics]
                shown = ["" if pd.isna(value) else f"{100 * value:.2f}" for value in cells]
                lines.append(f"| {machine} | {section.replace('_', ' ')} | " + " | ".join(shown) + " |")
        score = f"official score of {self.year} ({YEARS[self.year].score_name}): {100 * self.official_score:.2f}"
        note = f"not in all means, for want of test clips of either kind: {', '.join(self.lacking)}"
        return "\n".join([*lines, "", *([note] if self.lacking else []), score])


def read_scores(folder: Path, year: int) -> pd.DataFrame:
    """The scores of a submission: columns `machine`, `section`, `name` (of the clip), `score`.

    Raises BadInput for a folder without score files, for a line that is not `name,score` or not finite (with file and
    line), for a file without any, for a clip named twice, or in the file of another section, and for a training clip.
    """
    return _read(folder, year, "score", {}).drop(columns=["clip", "at"])


def read_decisions(folder: Path, year: int) -> pd.DataFrame:
    """The decisions of a submission, as `read_scores`, in a column `decision` (0 or 1); empty where there are none."""
    return _read(folder, year, "decision", {}).drop(columns=["clip", "at"])


def evaluate_submission(folder: Path, truth: Path | None, year: int) -> Evaluation:
    """All metrics of a submission.

    Labels and domains come from the official truth lists in `truth`; where it is None or holds no list, from the clips'
    own names (development data). Precision, recall and F1 are there where the folder has decision files.
    Raises BadInput for missing, extra or doubled files and clips.
    """
    _check_year(year)
    if truth is not None and not truth.is_dir():
        raise BadInput(f"{truth}: no such folder; --truth takes the folder of the official truth lists")
    renamed = read_renamed(truth, year) if truth is not None else {}
    scores = _read(folder, year, "score", renamed)
    decisions = _read(folder, year, "decision", renamed)
    if len(decisions):
        _same_clips(folder, decisions, scores, "decision_result files", "the anomaly_score files")
        scores = scores.merge(decisions[[*_KEY, "decision"]], on=_KEY, validate="one_to_one")
    listed = read_truth(truth, year) if truth is not None else {}
    known = _listed_labels(truth, listed, year) if listed else _labels_in_names(truth, scores, year)
    _same_clips(folder, scores, known, "anomaly_score files", str(truth) if listed else "their names")
    clips = scores.merge(known, on=_KEY, validate="one_to_one").assign(part="eval" if listed else "dev")
    undomained = clips.loc[clips["domain"].isna()]
    if YEARS[year].domains and len(undomained):
        clip = undomained.iloc[0]
        raise BadInput(
            f"{truth or folder}: no domain of {clip['machine']} {clip['name']}; the score of {year} needs it: "
            "add the folder ground_truth_domain"
        )
    rows = summarise(clips, year)
    if "official" not in set(rows["metric"]):
        raise BadInput(f"{folder}: no section has both normal and anomalous clips, so nothing can be evaluated")
    return Evaluation(year, rows, tuple(_lacking(clips, rows, year)))


def write_submission(folder: Path, train_scores: pd.DataFrame, test_scores: pd.DataFrame, year: int) -> None:
    """Writes the score and decision files of a year, whole or not at all.

    Both frames have columns `machine`, `section`, `score` and `name` or `path` of the clip. The training scores of a
    section set the threshold of its decisions (`decision_threshold`). Raises BadInput where `folder` has files, for a
    tested section without training scores, for a clip that comes twice, and for scores that are not finite.
    """
    _check_year(year)
    if folder.exists() and not (folder.is_dir() and not any(folder.iterdir())):
        raise BadInput(f"{folder}: already there and not an empty folder; choose another, or empty it")
    if test_scores.empty:
        raise BadInput(f"{folder}: there are no test scores to write")
    test = test_scores.assign(name=_names(test_scores))
    sections = groups(train_scores, "machine", "section")
    train_of = {key: clips["score"].to_numpy(dtype=float) for key, clips in sections}
    files: dict[str, list[tuple[str, str]]] = {}
    for (machine, section), clips in groups(test, "machine", "section"):
        if (machine, section) not in train_of:
            raise BadInput(f"{machine} section {section}: no training scores, so no threshold for its decisions")
        if not np.isfinite(train_of[machine, section]).all():
            raise BadInput(
                f"{machine} section {section}: a training score is not finite, so no threshold for decisions"
            )
        _check_scores(clips)
        threshold = decision_threshold(train_of[machine, section])
        for name, score in zip(clips["name"], clips["score"].astype(float), strict=True):
            ending = _ending(machine, section, name, year)
            files.setdefault(f"anomaly_score_{ending}", []).append((name, repr(score)))
            files.setdefault(f"decision_result_{ending}", []).append((name, str(int(score > threshold))))
    unfinished = folder.parent / f".{folder.name}.{uuid.uuid4().hex}"
    unfinished.mkdir(parents=True)
    try:
        for file_name, lines in files.items():
            with (unfinished / file_name).open("w", encoding="utf-8", newline="") as file:
                csv.writer(file, lineterminator="\n").writerows(lines)
        unfinished.replace(folder)
    except BaseException:
        shutil.rmtree(unfinished, ignore_errors=True)
        raise


def decision_threshold(train_scores: np.ndarray) -> float:
    """0.9 quantile of a gamma distribution fitted to training scores (N,), all finite, as in the official baselines.

    The fit has a free location, so that scores may be negative, and is made on standardised scores, so that their unit
    plays no part in where the optimiser stops. Such a fit can collapse onto the least score: where it fails, or calls
    more than a fifth of the training clips anomalous, the scores' own 0.9 quantile is taken.
    """
    quantile = float(np.quantile(train_scores, THRESHOLD_QUANTILE))
    deviation = train_scores.std()
    if len(train_scores) < 3 or deviation <= 1e-12 * np.abs(train_scores).max():
        return quantile
    standard = (train_scores - train_scores.mean()) / deviation
    try:
        with warnings.catch_warnings(), np.errstate(all="ignore"):
            warnings.simplefilter("ignore", RuntimeWarning)  # from the optimiser's trial steps
            shape, location, scale = scipy.stats.gamma.fit(standard)
            fitted = float(scipy.stats.gamma.ppf(THRESHOLD_QUANTILE, shape, location, scale))
    except (scipy.stats.FitError, ValueError, FloatingPointError):
        return quantile
    if not math.isfinite(fitted) or (standard > fitted).mean() > 2 * (1 - THRESHOLD_QUANTILE):
        return quantile
    return float(train_scores.mean() + deviation * fitted)


def _check_year(year: int) -> None:
    if year not in YEARS:
        raise BadInput(f"--year {year}: not a known year; allowed: {', '.join(map(str, YEARS))}")


def _read(folder: Path, year: int, kind: str, renamed: Mapping[Key, str]) -> pd.DataFrame:
    """What `read_scores` or `read_decisions` gives, in `clip` the name that truth lists have, in `at` file and line."""
    _check_year(year)
    if not folder.is_dir():
        raise BadInput(f"{folder}: no such folder of anomaly_score_*.csv files")
    prefix = YEARS[year].section_prefix
    baseline = r"(?:_seed[0-9]+.*)?"
    ending = rf"_{prefix}_([0-9]{{2}})((?:_source|_target)?_test)?{baseline}\.csv"
    pattern = re.compile(rf"{_KINDS[kind]}_(?:DCASE{year}T2)?(.+){ending}")
    meant = re.compile(rf"{_KINDS[kind]}_.*\.csv", re.IGNORECASE | re.DOTALL)  # as .CSV too: none is overlooked
    rows: list[tuple[str, str, str, float, str, str]] = []
    seen: dict[tuple[str, str, str], Path] = {}
    for path in sorted(path for path in folder.glob("*") if meant.fullmatch(path.name)):
        found = pattern.fullmatch(path.name)
        if found is None:
            example = f"{_KINDS[kind]}_fan_{_ending('', '01', '', year).lstrip('_')}"
            raise BadInput(f"{path}: not a file name of {year}, for instance {example}")
        machine, section = found[1], found[2]
        for line, name, value in _lines(path, kind):
            said = match_name(YEARS[year], name)
            if said and said.section != section:
                raise BadInput(f"{path}: line {line}: '{name}' is a clip of section {said.section}, not of {section}")
            if said and said.split == "train":
                raise BadInput(f"{path}: line {line}: '{name}' is a training clip; leave it out")
            key = machine, section, renamed.get((machine, stem(name)), truth_name(name))
            if key in seen:
                where = "twice" if seen[key] == path else f"in {seen[key].name} already"
                raise BadInput(f"{path}: line {line}: clip '{name}' is there {where}; every clip has one {kind}")
            seen[key] = path
            rows.append((machine, section, name, value, key[2], f"{path}: line {line}"))
    if kind == "score" and not rows:
        raise BadInput(
            f"{folder}: no scores here; expected files such as anomaly_score_{_ending('fan', '01', '', year)}"
        )
    return pd.DataFrame(rows, columns=["machine", "section", "name", kind, "clip", "at"])


def _lines(path: Path, kind: str) -> Iterator[tuple[int, str, float]]:
    """(line number, clip name without folders, value) of each line of a file; there is one at least."""
    expected = "a finite number" if kind == "score" else "0 or 1"
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader, empty = csv.reader(file, strict=True), True
            for cells in reader:
                if not any(cell.strip() for cell in cells):
                    continue
                empty = False
                if len(cells) != 2 or not PurePosixPath(cells[0].strip()).name:
                    raise BadInput(
                        f"{path}: line {reader.line_num}: expected 'clip name,{kind}', found '{','.join(cells)}'"
                    )
                value = _number(cells[1].strip())
                if not math.isfinite(value) or (kind == "decision" and value not in (0, 1)):
                    raise BadInput(f"{path}: line {reader.line_num}: the {kind} '{cells[1].strip()}' is not {expected}")
                yield reader.line_num, PurePosixPath(cells[0].strip()).name, value
            if empty:
                raise BadInput(f"{path}: line 1: expected 'clip name,{kind}', found nothing")
    except (UnicodeDecodeError, csv.Error, OSError) as error:
        raise BadInput(f"{path}: cannot be read as lines of 'clip name,{kind}': {error}") from None


def _number(text: str) -> float:
    """NaN for what is none. Python would read 1_000 too, and digits of other scripts."""
    try:
        return float(text) if text.isascii() and "_" not in text else math.nan
    except ValueError:
        return math.nan


def _lacking(clips: pd.DataFrame, rows: pd.DataFrame, year: int) -> Iterator[str]:
    """The sections of which some metric of the official score cannot be computed."""
    for (machine, section), _ in groups(clips, "machine", "section"):
        own = rows.loc[(rows["machine"] == machine) & (rows["section"] == section), "metric"]
        if not set(YEARS[year].score_metrics) <= set(own):
            yield f"{machine} {section}"


def _listed_labels(
    truth: Path | None, listed: dict[tuple[str, str], tuple[int, str | None]], year: int
) -> pd.DataFrame:
    rows: list[tuple] = []
    for (machine, clip), (label, domain) in listed.items():
        said = match_name(YEARS[year], f"{clip}.wav")
        if said is None:
            raise BadInput(f"{truth}: {machine}: {misnamed(year, f'{clip}.wav')}")
        rows.append((machine, said.section, clip, label, domain or said.domain))
    return pd.DataFrame(rows, columns=[*_KEY, "label", "domain"])


def _labels_in_names(truth: Path | None, scores: pd.DataFrame, year: int) -> pd.DataFrame:
    rows: list[tuple] = []
    columns = (scores[key] for key in ("machine", "section", "name", "clip", "at"))
    for machine, section, name, clip, at in zip(*columns, strict=True):
        said = match_name(YEARS[year], name)
        if said is None:
            raise BadInput(f"{at}: {misnamed(year, name)}")
        if said.label is None:
            no_list = (
                f"{truth} holds no truth list of {year}" if truth else "give the folder of truth lists with --truth"
            )
            raise BadInput(f"{at}: '{name}' has no label in its name, and {no_list}")
        rows.append((machine, section, clip, said.label, said.domain))
    return pd.DataFrame(rows, columns=[*_KEY, "label", "domain"])


def _same_clips(folder: Path, given: pd.DataFrame, expected: pd.DataFrame, what: str, against: str) -> None:
    """Raises BadInput that names the sections, then the clips, in which two frames differ."""
    for columns, thing in ((_KEY[:2], "section"), (_KEY, "clip")):
        here = set(given[columns].itertuples(index=False, name=None))
        there = set(expected[columns].itertuples(index=False, name=None))
        problems = [
            f"{len(keys)} {thing}(s) {problem}: "
            + ", ".join(_shown(key) for key in sorted(keys)[:5])
            + (", ..." if len(keys) > 5 else "")
            for problem, keys in (("missing", there - here), ("extra", here - there))
            if keys
        ]
        if problems:
            raise BadInput(f"{folder}: the {what} do not fit {against}: {'; '.join(problems)}")


def _shown(key: tuple[str, ...]) -> str:
    return f"{key[0]} section {key[1]}" if len(key) == 2 else f"{key[0]} {key[2]}"


def _ending(machine: str, section: str, name: str, year: int) -> str:
    """`fan_id_01.csv`, `fan_section_01_test.csv`, or with the domain of the clip where the year tests them apart."""
    rules = YEARS[year]
    test = "_test" if rules.domains else ""
    if name and f"{DOMAINS[0]}_test" in rules.test_folders and (domain := parse_name(year, name).domain):
        test = f"_{domain}_test"
    return f"{machine}_{rules.section_prefix}_{section}{test}.csv"


def _names(scores: pd.DataFrame) -> list[str]:
    column = "name" if "name" in scores.columns else "path"
    return [PurePosixPath(str(name)).name for name in scores[column]]


def _check_scores(clips: pd.DataFrame) -> None:
    bad = clips.loc[~np.isfinite(clips["score"].to_numpy(dtype=float)) | clips["name"].duplicated()]
    if len(bad):
        clip = bad.iloc[0]
        problem = "comes twice" if math.isfinite(clip["score"]) else "has a score that is not finite"
        raise BadInput(f"{clip['machine']} section {clip['section']}: {clip['name']} {problem}")
