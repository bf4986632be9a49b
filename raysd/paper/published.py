"""What other systems are reported to reach: the rows of `published.csv`, as their sources print them.

Nothing here is computed anew. What is known to keep a figure from being compared with others is one of `CAVEATS`; a
figure without one is a figure of which nothing of the kind is known.
"""

import csv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from raysd.data.years import YEARS, Part
from raysd.detect.metrics import ALL_MACHINES, headline_metrics
from raysd.errors import BadInput, nearest

Mean = Literal["arithmetic", "harmonic", "pooled", "unknown"]
"""Over what a figure is averaged: over the sections of a machine, and these over machines, with the one mean or the
other; not over sections at all, but over all clips of a machine in one ranking; or nobody says."""

CAVEATS: dict[str, str] = {
    "pooled": "all ids of a machine type in one ranking, not the mean over ids",
    "test_selected": "checkpoint chosen by the labels of the very test clips that it is scored on",
    "tuned_on_labels": "settings or models chosen by the labels of development test clips; of the GMM systems and of "
    "AITHU this is inferred, not stated",
    "chosen_per_machine": "kind of score chosen for each machine type",
    "additional_data": "trained on the additional training data too: all 41 ids of 2020",
    "no_ids": "machine ids not used as labels in training",
    "averaging_unknown": "what is averaged, and how, is not stated",
    "average_of_means": "arithmetic mean of the types' harmonic means: so the printed figures agree; the official "
    "score takes one harmonic mean over all",
    "score_rule_unknown": "what the score is made of is not stated",
    "domain_auc_unchecked": "whether a domain's AUC counts the anomalies of both domains, as the official one, is not "
    "known",
    "set_assumed": "whether on development or evaluation data is not stated: assumed",
    "increase": "an increase, no value: on which data, over which baseline, of which metric, and whether in points or "
    "in per cent of the baseline is not stated; the values themselves were not found",
    "single_run": "one training with one seed, no spread given",
    "rerun": "run by others than its authors",
    "quoted": "figure quoted by others than its authors",
}
"""Key -> the footnote. The reasons stand in a value's `averaging` and `source`, but for these:

- `pooled`: eval.py of Noisy-ArcMix and of OS-SCL.
- `single_run`: STgram-MFN, Noisy-ArcMix and OS-SCL fix one seed in their code (config.yaml, train.py) and print no
  spread.
- `additional_data`: OS-SCL's datadownload.sh; STgram-MFN has classes for 41 ids, which are those of both data sets.
- `no_ids`: the autoencoder is one model a machine type, and IDNN, AADCL and ATAC use no ids.
- `tuned_on_labels`: TWFR-GMM's README plans to "select weight of gwrp and components of gmm only using normal data";
  AITHU has 86.81 on the development data where the best of all has 70.97 on the evaluation data; the first rank of 2022
  "chose models at different epochs using pAUC" (jonnor/machinehearing).
- `chosen_per_machine`: AEGAN-AD's README; what its "hmean" is taken over is not said there (`score_rule_unknown`).
- `average_of_means`: found by computing it, 24 averages of 24.
"""

AVERAGE = "average"
"""The `machine_type` of a figure over all machine types of a year, in the file."""
INCREASES = {"increase_source": "source domain", "increase_target": "target domain"}
"""Metrics that are no values but increases over a baseline -> what of."""
METRICS: dict[str, str] = dict.fromkeys(("amean_auc_pauc", "hmean_official", "official_metric", "hmean"), "official")
"""Metric in the file -> the name that ours has in the results, where it is another."""
_KEPT_ONLY = "mauc_min_over_ids"  # AUC of the worst id: in the file, in no table


class Published(BaseModel):
    """One figure: a line of the file."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    dataset: Annotated[str, Field(pattern=r"^dcase[0-9]{4}(_dev|_eval)?$")]
    """Without a part: an increase, of which the part is not known."""
    system: Annotated[str, Field(min_length=1)]
    year: Annotated[str, Field(pattern=r"^([0-9]{4})?$")]
    """Of the publication; empty: not known."""
    machine_type: str
    metric: str
    value_percent: Annotated[str, Field(pattern=r"^[0-9]+(\.[0-9]+)?$")]
    """As the source prints it."""
    averaging: Annotated[str, Field(min_length=1)]
    """In words, as far as the source tells."""
    source: Annotated[str, Field(min_length=1)]
    mean: Mean
    sd_percent: Annotated[str, Field(pattern=r"^([0-9]+(\.[0-9]+)?)?$")]
    """Over seeds; empty: none printed."""
    num_seeds: Annotated[str, Field(pattern=r"^([1-9][0-9]*)?$")]
    """Empty: not known."""
    caveats: tuple[str, ...]
    """Keys of `CAVEATS`, in their order."""

    @field_validator("caveats", mode="before")
    @classmethod
    def _words(cls, text: str) -> tuple[str, ...]:
        words = set(text.split())
        for word in words - set(CAVEATS):
            raise ValueError(f"no caveat '{word}'; {nearest(word, CAVEATS)}")
        return tuple(key for key in CAVEATS if key in words)

    @model_validator(mode="after")
    def _of_the_year(self) -> "Published":
        number = int(self.dataset[5:9])
        if number not in YEARS:
            raise ValueError(f"dataset: no DCASE {number}; allowed: {', '.join(map(str, YEARS))}")
        if self.machine_type not in (AVERAGE, *YEARS[number].machines):
            machines = nearest(self.machine_type, (AVERAGE, *YEARS[number].machines))
            raise ValueError(f"machine_type: {number} has no '{self.machine_type}'; {machines}")
        known = (*headline_metrics(number), *METRICS, *INCREASES, _KEPT_ONLY)
        if self.metric not in known or self.metric == "official":
            raise ValueError(f"metric: '{self.metric}' is not known; {nearest(self.metric, set(known) - {'official'})}")
        if (self.metric in INCREASES) != ("increase" in self.caveats):
            raise ValueError("metric: an increase needs the caveat 'increase', and no other metric has it")
        if not self.part and self.metric not in INCREASES:
            raise ValueError("dataset: it must end with _dev or _eval")
        if float(self.value_percent) > 100:
            raise ValueError(f"value_percent: {self.value_percent} is above 100")
        return self

    @property
    def part(self) -> str:
        """`dev` or `eval`; empty for an increase."""
        return self.dataset.partition("_")[2]

    @property
    def machine(self) -> str:
        return ALL_MACHINES if self.machine_type == AVERAGE else self.machine_type


@dataclass(frozen=True)
class System:
    """One row of a table: the figures of a system in one kind of mean."""

    name: str
    year: str
    mean: Mean
    values: Mapping[tuple[str, str], Published] = field(default_factory=dict)
    """By machine (`all` for the average) and metric, under the names that ours have."""

    @property
    def is_target(self) -> bool:
        """Whether it is the paper whose claims the studies ask about."""
        return "TARGET PAPER" in self.name


def published_file() -> Path:
    """Where the file is: in the installed package, or in a checkout."""
    installed = Path(__file__).with_name("published.csv")
    return installed if installed.is_file() else Path(__file__).parents[2] / "analysis" / "published.csv"


def read_published(path: Path | None = None) -> list[Published]:
    """All figures of the file; raises BadInput naming line and column where it is damaged."""
    path = path or published_file()
    try:
        with path.open(encoding="utf-8", newline="") as file:
            return _figures(path, csv.DictReader(file, strict=True))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise BadInput(f"{path}: cannot be read: {error}; restore it from the repository") from error


def _figures(path: Path, lines: "csv.DictReader[str]") -> list[Published]:
    columns = list(Published.model_fields)
    if lines.fieldnames != columns:
        raise BadInput(f"{path}: line 1: the columns must be {','.join(columns)}")
    figures, seen = [], {}
    for line in lines:
        at = f"{path}: line {lines.line_num}"
        if None in line or None in line.values():
            raise BadInput(f"{at}: it must have {len(columns)} columns")
        try:
            figure = Published.model_validate(line)
        except ValidationError as error:
            raise BadInput(f"{at}: {_first(error)}") from None
        place = (figure.dataset, figure.system, figure.mean, figure.machine, METRICS.get(figure.metric, figure.metric))
        if place in seen:
            raise BadInput(f"{at}: system: line {seen[place]} has the same figure of '{figure.system}'; remove one")
        seen[place] = lines.line_num
        figures.append(figure)
    return figures


def _first(error: ValidationError) -> str:
    """`column: what is wrong` of the first error."""
    found: Any = error.errors()[0]
    column = f"{found['loc'][0]}: " if found["loc"] else ""
    given = f" (it is '{found['input']}')" if found["loc"] and found["loc"][0] != "caveats" else ""
    return column + found["msg"].removeprefix("Value error, ") + given


def systems_of(figures: Sequence[Published], year: int, part: Part) -> list[System]:
    """The systems with a value on that part of the year's data, a row for each kind of mean, in the file's order."""
    found: dict[tuple[str, Mean], dict[tuple[str, str], Published]] = {}
    years: dict[tuple[str, Mean], str] = {}
    for figure in figures:
        if figure.dataset == f"dcase{year}_{part}" and figure.metric not in (_KEPT_ONLY, *INCREASES):
            metric = METRICS.get(figure.metric, figure.metric)
            found.setdefault((figure.system, figure.mean), {})[figure.machine, metric] = figure
            years.setdefault((figure.system, figure.mean), figure.year)
    return [System(name, years[name, mean], mean, values) for (name, mean), values in found.items()]


def increases_of(figures: Sequence[Published], year: int) -> list[System]:
    """The systems of which increases over a baseline are reported on the year's data; their metrics are `INCREASES`."""
    found: dict[str, System] = {}
    for figure in figures:
        if figure.dataset.startswith(f"dcase{year}") and figure.metric in INCREASES:
            system = found.setdefault(figure.system, System(figure.system, figure.year, figure.mean, {}))
            found[figure.system] = replace(system, values={**system.values, (figure.machine, figure.metric): figure})
    return list(found.values())
