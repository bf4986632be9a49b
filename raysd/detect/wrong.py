"""Which clips a trial ranked most wrong: with the most clips of the other class of their section on the wrong side.

It looks at labels of test clips, so it is for showing alone: whatever is chosen by it is chosen on test labels.
"""

from collections.abc import Iterator
from dataclasses import dataclass, fields

import numpy as np
import pandas as pd


@dataclass(frozen=True)
class RankedClip:
    """A labelled test clip among those of its section, of both domains: they are scored without knowing the domain."""

    path: str
    label: int
    """0 normal, 1 anomalous."""
    score: float
    rank: int
    """Among `num_clips`, from 1, the most anomalous; equal scores share the best rank."""
    num_clips: int
    num_wrong: float
    """Of a normal clip: anomalies of the section with a lower score; of an anomaly: normals with a higher one. An equal
    score counts half, so that the sum over the normals is (1 - AUC) times the number of pairs."""
    num_others: int
    """Clips of the other class."""


@dataclass(frozen=True)
class RankedGroup:
    """The labelled test clips of a section and domain that were ranked most wrong."""

    part: str
    machine: str
    section: str
    domain: str | None
    normals: tuple[RankedClip, ...]
    """The most wrong first; none that has every anomaly above it."""
    anomalies: tuple[RankedClip, ...]
    typical: RankedClip | None
    """A normal clip to compare with: three quarters of the group's have a higher score. None where there is none."""


def most_wrong(scores: pd.DataFrame, num_clips: int) -> list[RankedGroup]:
    """At most `num_clips` normals and as many anomalies of each section and domain that has both classes, in order.

    `scores` has a row a clip, with the columns of a record's `scores`; what is no test clip, or has no label, is passed
    over.
    """
    tested = scores.loc[(scores["split"] == "test") & scores["label"].notna()]
    groups = []
    for (part, machine, section), clips in tested.groupby(["part", "machine", "section"]):
        if clips["label"].nunique() == 2:
            ranked = _ranked(clips.assign(domain=clips["domain"].astype(object)))
            for domain in sorted(ranked["domain"].dropna().unique()) or [None]:
                own = ranked if domain is None else ranked.loc[ranked["domain"] == domain]
                groups.append(_group(str(part), str(machine), str(section), domain, own, num_clips))
    return groups


def _ranked(clips: pd.DataFrame) -> pd.DataFrame:
    """Both classes of one section, with rank and number of wrong pairs, the highest score first."""
    score_N, label_N = clips["score"].to_numpy(dtype=float), clips["label"].to_numpy(dtype=int)
    normal, anomalous = np.sort(score_N[label_N == 0]), np.sort(score_N[label_N == 1])
    below = (np.searchsorted(anomalous, score_N, "left") + np.searchsorted(anomalous, score_N, "right")) / 2
    above = len(normal) - (np.searchsorted(normal, score_N, "left") + np.searchsorted(normal, score_N, "right")) / 2
    ranked = clips.assign(
        label=label_N,
        num_wrong=np.where(label_N == 0, below, above),
        num_others=np.where(label_N == 0, len(anomalous), len(normal)),
        rank=clips["score"].rank(ascending=False, method="min").astype(int),
        num_clips=len(clips),
    )
    return ranked.sort_values(["score", "path"], ascending=[False, True])


def _group(
    part: str, machine: str, section: str, domain: str | None, ranked: pd.DataFrame, num_clips: int
) -> RankedGroup:
    normals, anomalies = ranked.loc[ranked["label"] == 0], ranked.loc[ranked["label"] == 1]
    at = round(0.75 * (len(normals) - 1))
    return RankedGroup(
        part,
        machine,
        section,
        domain,
        tuple(_clips(normals.loc[normals["num_wrong"] > 0].head(num_clips))),
        tuple(_clips(anomalies.loc[anomalies["num_wrong"] > 0].iloc[::-1].head(num_clips))),
        next(_clips(normals.iloc[at : at + 1]), None),
    )


def _clips(rows: pd.DataFrame) -> Iterator[RankedClip]:
    names = [column.name for column in fields(RankedClip)]
    return (RankedClip(*row) for row in rows[names].itertuples(index=False, name=None))
