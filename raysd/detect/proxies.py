"""What a recipe can be judged by without any test clip: normal training clips that are held out, against stand-ins.

Two stand-ins for anomalies: perturbed copies of the held-out clips (model/perturb.py), and held-out clips of the
machine's other sections, scored as if they were of this one. Either proxy is the AUC of held-out clips against
stand-ins, for each section and in the year's mean.
"""

import hashlib
from collections.abc import Iterable

import numpy as np
import pandas as pd

from raysd.data.layouts import YEARS
from raysd.detect.metrics import ALL_MACHINES, COLUMNS, MEANS, averaging, groups
from raysd.errors import BadInput

HELD_OUT = "held_out"
STAND_INS = {"perturbed": "perturbed", "other_sections": "other_section"}
"""Proxy -> the `split` of the clips that stand in for anomalies."""
PROXIES = tuple(f"proxy_{name}" for name in STAND_INS)
"""The metrics."""


def arranged(clips: pd.DataFrame, share: float, kinds: Iterable[str], turn: int = 0) -> pd.DataFrame:
    """What a trial embeds: the clips, each with its `row` in the store, and with `perturbation`: one of `kinds`, or "".

    `clips` are rows of a store's index. With a share to hold out, `share` of each section's and domain's training clips
    (at least one, never all; which ones follows from their paths, and the next `turn` takes others) get the split
    `held_out`, and below all clips stand the stand-ins: each held-out clip once for each kind of perturbation, and once
    as of another section of its machine, or of another machine where its own has one section only. A training clip
    without a like is never held out.
    The label of a stand-in is missing: it is no anomaly.
    """
    plain = clips.assign(row=clips.index, perturbation="").reset_index(drop=True)
    if share == 0:
        return plain
    train = plain.loc[plain["split"] == "train"].assign(domain=lambda frame: frame["domain"].fillna(""))
    digests = [hashlib.sha256(path.encode()).hexdigest() for path in plain["path"]]
    chosen: list[int] = []
    for _, own in groups(train, "machine", "section", "domain"):
        if len(own) > 1:
            count = min(max(1, round(share * len(own))), len(own) - 1)
            ring = sorted(own.index, key=digests.__getitem__)
            chosen += [ring[(turn * count + place) % len(ring)] for place in range(count)]
    plain.loc[chosen, "split"] = HELD_OUT
    held_out = plain.loc[sorted(chosen)]
    stand_ins = [held_out.assign(split=STAND_INS["perturbed"], perturbation=kind) for kind in kinds]
    stand_ins.append(_as_of_others(held_out).assign(split=STAND_INS["other_sections"]))
    below = [frame.assign(label=None).astype(plain.dtypes) for frame in stand_ins]
    return pd.concat([plain, *below], ignore_index=True)


def proxy_metrics(scores: pd.DataFrame, year: int) -> pd.DataFrame:
    """Rows (`raysd.detect.metrics.COLUMNS`) of both proxies, `proxy_perturbed` and `proxy_other_sections`.

    `scores` has a row for each clip that a trial scored, with `part`, `machine`, `section`, `split`, `score`. One row a
    section, one for each mean of a machine and of all machines; none where nothing was held out.
    """
    from sklearn.metrics import roc_auc_score  # late: it takes long to import, and most commands need none of it

    rows: list[dict] = []
    for name, split in STAND_INS.items():
        asked = scores.loc[scores["split"].isin([HELD_OUT, split])]
        found: dict[str, list[dict]] = {}
        for (part, machine, section), own in groups(asked, "part", "machine", "section"):
            anomalous = (own["split"] == split).to_numpy()
            counts = {"num_normal": int((~anomalous).sum()), "num_anomaly": int(anomalous.sum())}
            if min(counts.values()) == 0:
                continue
            auc = float(roc_auc_score(anomalous, own["score"].to_numpy(dtype=float)))
            about = {"part": part, "machine": machine, "section": section, "metric": f"proxy_{name}"}
            rows.append({**about, "value": auc, **counts})
            found.setdefault(part, []).append(rows[-1])
        for part, sections in found.items():
            rows += _means(sections, part, f"proxy_{name}", year)
    return pd.DataFrame(rows, columns=COLUMNS)


def objective_value(metrics: pd.DataFrame, objective: str, year: int) -> float:
    """The one number that a search maximises: over all machines and parts, in the year's own kind of mean.

    `objective` is the name of a metric. Raises BadInput where the clips give no such metric.
    """
    wanted = (metrics["machine"] == ALL_MACHINES) & (metrics["section"] == averaging(year))
    values = metrics.loc[wanted & (metrics["metric"] == objective), "value"].to_numpy(dtype=float)
    if len(values) == 0:
        raise BadInput(f"search.objective: the data give no {objective}: it needs held-out clips and their stand-ins")
    return float(MEANS[averaging(year)](values))


def _means(sections: list[dict], part: str, metric: str, year: int) -> list[dict]:
    frame, name = pd.DataFrame(sections), averaging(year)
    mean = MEANS[name]
    by_machine = {str(machine): own for (machine,), own in groups(frame, "machine")}
    values = {machine: mean(own["value"].to_numpy()) for machine, own in by_machine.items()}
    nested = YEARS[year].averaging == "arithmetic"
    everything = mean(np.array(list(values.values())) if nested else frame["value"].to_numpy())
    shared = {"part": part, "section": name, "metric": metric}
    return [
        {**shared, "machine": machine, "value": value, **own[["num_normal", "num_anomaly"]].sum().to_dict()}
        for machine, value, own in [
            *((machine, values[machine], own) for machine, own in by_machine.items()),
            (ALL_MACHINES, everything, frame),
        ]
    ]


def _as_of_others(held_out: pd.DataFrame) -> pd.DataFrame:
    """The held-out clips, each as of the next section after its own; none where there is one section in all."""
    everywhere = list(held_out[["machine", "section"]].drop_duplicates().itertuples(index=False, name=None))
    taken: list[tuple[str, str]] = []
    for machine, section in held_out[["machine", "section"]].itertuples(index=False, name=None):
        own_machine = [other for other in everywhere if other[0] == machine]
        ring = own_machine if len(own_machine) > 1 else everywhere
        taken.append(ring[(ring.index((machine, section)) + 1) % len(ring)])
    moved = held_out.assign(machine=[machine for machine, _ in taken], section=[section for _, section in taken])
    elsewhere = (moved["machine"] != held_out["machine"]) | (moved["section"] != held_out["section"])
    return moved.loc[elsewhere]
