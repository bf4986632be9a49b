"""The DCASE years as one table: machines, sections, domains, official score, and the grammar of the clips' file names.

A year is a row of `YEARS`; no function asks which year it is.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Literal

from raysd.errors import BadInput

Part = Literal["dev", "eval"]
Split = Literal["train", "test"]
Domain = Literal["source", "target"]
Label = Literal[0, 1]
Attributes = tuple[tuple[str, str], ...]

EXTENSIONS = ("wav", "flac", "ogg")
RENAMED = "test_rename"
"""The folder into which the organisers' tool copies evaluation test clips under names that tell label and domain."""
_LABELS: dict[str, Label] = {"normal": 0, "anomaly": 1}
_DOMAINS: dict[str, Domain] = {"0": "source", "1": "target"}
_EXTENSION = r"\.(?P<extension>(?i:wav|flac|ogg))"
_SHOWN = r"[^\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]"  # no lists, and no records, could hold the others


@dataclass(frozen=True)
class Year:
    """One year of DCASE Task 2."""

    number: int
    machines: Mapping[str, tuple[tuple[str, ...], tuple[str, ...]]]
    """Machine -> its sections in the development data and in the evaluation data, in the official order."""
    domains: bool
    """Whether clips come from a source and a target domain."""
    attribute_lists: bool
    """Whether each section comes with `attributes_NN.csv`."""
    section_prefix: Literal["id", "section"]
    """The word before a section's number, in names of clips and of score files."""
    name_fields: tuple[str, ...]
    """The fields of a clip's name in their order; those that are empty are left out."""
    patterns: tuple[re.Pattern[str], ...]
    """The same grammar for reading: names with a label, names without."""
    examples: tuple[str, ...]
    test_folders: tuple[str, ...]
    """Where a machine's test clips lie, as published; in `RENAMED` beside them they may lie again, with labels."""
    averaging: Literal["arithmetic", "harmonic"]
    """The mean taken over sections, machines and the metrics of the official score."""
    score_metrics: tuple[str, ...]
    """The metrics of a section whose mean is the official score. `auc_source` and `auc_target` of 2022 and later set a
    domain's normals against the anomalies of both domains; `pauc` takes all clips of the section. In 2021 the domains
    are tested apart."""
    score_name: str


@dataclass(frozen=True, slots=True)
class Name:
    """What a clip's file name says. Fields that the grammar of the year lacks, or the name leaves out, are None."""

    section: str
    number: str
    label: Label | None = None
    domain: Domain | None = None
    split: Split | None = None
    attributes: str = ""
    """As written, for instance `vel_490_ac_0.05`; `parse_attributes` takes them apart."""
    extension: str = "wav"


def _same(machines: str, dev: str, evaluation: str) -> dict[str, tuple[tuple[str, ...], tuple[str, ...]]]:
    return {machine: (tuple(dev.split()), tuple(evaluation.split())) for machine in machines.split()}


_ID_NAMES = (
    re.compile(r"(?P<label>normal|anomaly)_id_(?P<section>[0-9]{2})_(?P<number>[0-9]+)" + _EXTENSION),
    re.compile(r"id_(?P<section>[0-9]{2})_(?P<number>[0-9]+)" + _EXTENSION),
)
_SECTION_NAMES = (
    re.compile(  # the list of 2024 names RoboticArm without the split: section_00_source_normal_0035_weight15_BckgF.wav
        r"section_(?P<section>[0-9]{2})_(?P<domain>source|target)(?:_(?P<split>train|test))?_(?P<label>normal|anomaly)"
        rf"_(?P<number>[0-9]+)(?:_(?P<attributes>{_SHOWN}+))?" + _EXTENSION
    ),
    re.compile(
        r"section_(?P<section>[0-9]{2})(?:_(?P<domain>source|target))?(?:_(?P<split>test))?_(?P<number>[0-9]+)"
        + _EXTENSION
    ),
)
_SECTION_FIELDS = ("section", "domain", "split", "label", "number", "attributes")
_SECTION_EXAMPLES = ("section_00_source_train_normal_0000_vel_8.wav", "section_03_test_0000.wav")


def _first_shot(number: int, evaluation: str) -> Year:
    """2023 and 2024: one section a machine; the machines of the evaluation data are others. Layout, names and official
    score are those of 2022 (nttcslab/dcase2023_task2_baseline_ae, nttcslab/dcase2023_task2_evaluator and 2024's)."""
    machines = "ToyCar ToyTrain bearing fan gearbox slider valve"
    return replace(YEAR_2022, number=number, machines=_same(machines, "00", "") | _same(evaluation, "", "00"))


YEAR_2022 = Year(
    number=2022,
    machines=_same("ToyCar ToyTrain bearing fan gearbox slider valve", "00 01 02", "03 04 05"),
    domains=True,
    attribute_lists=True,
    section_prefix="section",
    name_fields=_SECTION_FIELDS,
    patterns=_SECTION_NAMES,
    examples=_SECTION_EXAMPLES,
    test_folders=("test",),
    averaging="harmonic",
    score_metrics=("auc_source", "auc_target", "pauc"),
    score_name="harmonic mean of AUC (source), AUC (target) and pAUC",
)

YEARS: dict[int, Year] = {
    2020: Year(
        number=2020,
        machines=_same("fan pump slider valve", "00 02 04 06", "01 03 05")
        | _same("ToyCar", "01 02 03 04", "05 06 07")
        | _same("ToyConveyor", "01 02 03", "04 05 06"),
        domains=False,
        attribute_lists=False,
        section_prefix="id",
        name_fields=("label", "section", "number"),
        patterns=_ID_NAMES,
        examples=("normal_id_01_00000000.wav", "id_01_00000000.wav"),
        test_folders=("test",),
        averaging="arithmetic",
        score_metrics=("auc", "pauc"),
        score_name="arithmetic mean of AUC and pAUC",
    ),
    2021: replace(
        YEAR_2022,
        number=2021,
        machines=_same("ToyCar ToyTrain fan gearbox pump slider valve", "00 01 02", "03 04 05"),
        attribute_lists=False,
        examples=(_SECTION_EXAMPLES[0], "section_03_source_test_0000.wav"),
        test_folders=("source_test", "target_test", "test"),
        score_metrics=("auc_source", "auc_target", "pauc_source", "pauc_target"),
        score_name="harmonic mean of AUC and pAUC of each domain",
    ),
    2022: YEAR_2022,
    2023: _first_shot(2023, "ToyDrone ToyNscale ToyTank Vacuum bandsaw grinder shaker"),
    2024: _first_shot(
        2024, "3DPrinter AirCompressor BrushlessMotor HairDryer HoveringDrone RoboticArm Scanner ToothBrush ToyCircuit"
    ),
}


def parse_name(year: int, name: str) -> Name:
    """What the file name of a clip says; raises BadInput with an example where it does not fit the year's grammar."""
    found = match_name(YEARS[year], name)
    if found is None:
        raise BadInput(misnamed(year, name))
    return found


def clip_name(year: int, name: Name) -> str:
    """The file name that `parse_name` reads back as `name`."""
    row = YEARS[year]
    words = {
        "section": f"{row.section_prefix}_{name.section}",
        "number": name.number,
        "label": {0: "normal", 1: "anomaly", None: ""}[name.label],
        "domain": name.domain or "",
        "split": name.split or "",
        "attributes": name.attributes,
    }
    return "_".join(words[field] for field in row.name_fields if words[field]) + f".{name.extension}"


def clip_path(year: int, part: Part, machine: str, split: Split, name: Name) -> str:
    """Where the official layout keeps a clip, relative to the data root."""
    by_domain = f"{name.domain}_test"  # 2021 keeps the test clips of the two domains apart
    test_folder = by_domain if by_domain in YEARS[year].test_folders else "test"
    return f"{part}_data/{machine}/{'train' if split == 'train' else test_folder}/{clip_name(year, name)}"


def parse_attributes(raw: str) -> Attributes:
    """`vel_490_ac_0.05` as (("vel", "490"), ("ac", "0.05")); a last name without a value gets the value ""."""
    if raw.lower() in ("", "noattribute", "noattributes"):
        return ()
    words = raw.split("_")
    return tuple(zip(words[::2], [*words[1::2], ""][: len(words[::2])], strict=True))


def stem(name: str) -> str:
    """A clip's name without its extension, where it has one; values such as `ac_0.05` keep their point."""
    head, dot, extension = name.rpartition(".")
    return head if dot and extension.lower() in EXTENSIONS else name


def truth_name(name: str) -> str:
    """A test clip's name as truth lists have it: no extension, `section_03_0000` for `section_03_test_0000`."""
    return re.sub(r"^(section_[0-9]{2})_test_([0-9]+)$", r"\1_\2", stem(name))


def match_name(row: Year, name: str) -> Name | None:
    """What the file name of a clip says, or None where it does not fit the year's grammar."""
    for pattern in row.patterns:
        if found := pattern.fullmatch(name):
            fields = {key: value for key, value in found.groupdict().items() if value is not None}
            label = _LABELS.get(fields.pop("label", ""))
            return Name(**fields, label=label)  # pyright: ignore[reportArgumentType]  # the patterns allow no other word
    return None


def misnamed(year: int, name: str) -> str:
    """Why a file name does not fit: an example of the year's names, and the years that it does fit."""
    others = [str(other) for other, row in YEARS.items() if other != year and match_name(row, name)]
    hint = f"; it fits {', '.join(others)}: set data.year" if others else ""
    return f"'{name}' does not fit the names of {year}, for instance {' or '.join(YEARS[year].examples)}{hint}"
