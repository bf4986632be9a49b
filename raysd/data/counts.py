"""How many clips a whole data set of a DCASE year holds, by part, machine, section, split, domain and label.

Sources, where a figure is not counted from the truth lists of the official evaluators themselves:
- 2020: README of dcase2020_task2_baseline (first and last names of ToyCar), docstring of soundata's dcase2020task2.py
  ("~1,000 normal train clips per ID"); for fan, pump, slider and valve of the development data the counts of MIMII
  (arXiv 1909.09347), of which 100 normal clips of an ID are test clips, and all the anomalous ones.
- 2021 to 2024: the layouts in README_legacy.md of nttcslab/dcase2023_task2_baseline_ae, given there for one machine and
  said to hold for all. They are round figures: bearing of 2022 has 2,999 training clips (jianganbai/AEGAN-AD, issue 4).
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

from raysd.data.years import YEARS, Domain, Label, Part

RATE_HZ, CHANNELS = 16_000, 1
"""Of the clips of every year in the table."""


class Count(NamedTuple):
    """How many clips there should be."""

    low: int
    high: int | None
    """None: there is no telling."""

    def __str__(self) -> str:
        if self.high is None:
            return f"at least {self.low:,}"
        return f"{self.low:,}" if self.low == self.high else f"about {(self.low + self.high) // 2:,}"


Kind = tuple[Domain | None, Label | None]
"""Domain and label of test clips; None: any."""


@dataclass(frozen=True)
class Expected:
    """The clips of a section."""

    train: Mapping[Domain | None, Count]
    """None: of any domain."""
    test: Mapping[Kind, Count]


def expected(year: int, part: Part, machine: str, section: str) -> Expected | None:
    """What the published data has of a section; None where the year has no such section."""
    dev, evaluation = YEARS[year].machines.get(machine, ((), ()))
    if section not in (dev if part == "dev" else evaluation):
        return None
    if year == 2020:
        return (_dev_of_2020 if part == "dev" else _eval_of_2020)(machine, section)
    source, target, test = {2021: (1000, 3, 100)}.get(year, (990, 10, 50))
    tested: dict[Kind, Count] = {}
    if part == "dev" or year == 2022:  # in 2022 counted for eval, too
        kinds: tuple[Kind, ...] = (("source", 0), ("source", 1), ("target", 0), ("target", 1))
        tested.update(dict.fromkeys(kinds, _about(test)))
    if part == "eval" and year == 2021:
        tested.update({("source", None): _exactly(200), ("target", None): _exactly(200)})
    elif part == "eval":
        tested[None, None] = _exactly(200)
    return Expected({"source": _about(source), "target": _exactly(target)}, tested)


def _exactly(number: int) -> Count:
    return Count(number, number)


def _about(number: int, share: float = 0.01) -> Count:
    return Count(math.ceil((1 - share) * number), math.floor((1 + share) * number))


_MIMII = {  # normal and anomalous clips
    "fan": {"00": (1011, 407), "02": (1016, 359), "04": (1033, 348), "06": (1015, 361)},
    "pump": {"00": (1006, 143), "02": (1005, 111), "04": (702, 100), "06": (1036, 102)},
    "slider": {"00": (1068, 356), "02": (1068, 267), "04": (534, 178), "06": (534, 89)},
    "valve": {"00": (991, 119), "02": (708, 120), "04": (1000, 120), "06": (992, 120)},
}
_EVAL_2020 = {  # normal and anomalous test clips, counted from the list of Zenodo record 3951620
    "ToyCar": {"05": (250, 265), "06": (250, 265), "07": (250, 265)},
    "ToyConveyor": {"04": (200, 355), "05": (200, 355), "06": (200, 355)},
    "fan": {"01": (100, 326), "03": (100, 358), "05": (109, 349)},
    "pump": {"01": (100, 116), "03": (100, 113), "05": (100, 248)},
    "slider": {"01": (100, 178), "03": (100, 178), "05": (100, 178)},
    "valve": {"01": (100, 120), "03": (100, 120), "05": (100, 400)},
}


def _dev_of_2020(machine: str, section: str) -> Expected:
    if machine == "ToyCar":
        return Expected({None: _exactly(1000)}, {(None, 0): _exactly(350), (None, 1): _about(265)})
    if machine == "ToyConveyor":
        return Expected({None: _about(1000, 0.1)}, {(None, 0): Count(100, None), (None, 1): Count(100, None)})
    normal, anomalous = _MIMII[machine][section]
    return Expected({None: _about(normal - 100)}, {(None, 0): _about(100), (None, 1): _about(anomalous)})


def _eval_of_2020(machine: str, section: str) -> Expected:
    normal, anomalous = _EVAL_2020[machine][section]
    train = {"ToyCar": _exactly(1000), "ToyConveyor": _about(1000, 0.1)}.get(machine, Count(300, None))
    tested: dict[Kind, Count] = {(None, 0): _exactly(normal), (None, 1): _exactly(anomalous)}
    return Expected({None: train}, tested | {(None, None): _exactly(normal + anomalous)})
