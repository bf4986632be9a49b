"""A map of embeddings in two dimensions.

Shape suffixes: N clips, D embedding.
"""

from typing import Any, Literal

import matplotlib
import numpy as np
import pandas as pd

from raysd.detect.metrics import groups
from raysd.errors import BadInput
from raysd.paper.figures.style import BLUE, DARK, GREY, ORANGE, STYLE, Drawing, canvas

MapName = Literal["pca", "umap"]
MAPS = {"pca": "PCA", "umap": "UMAP"}

_MOST_PANELS = 8  # of sections; with more of them a panel is a machine
_MOST_POINTS = 120  # of one kind in a panel
_KINDS: dict[str, dict[str, Any]] = {
    "training": {"marker": "o", "color": GREY, "s": 4, "linewidths": 0},
    "normal": {"marker": "o", "facecolors": "none", "edgecolors": BLUE, "s": 11, "linewidths": 0.7},
    "normal, target": {"marker": "s", "facecolors": "none", "edgecolors": BLUE, "s": 11, "linewidths": 0.7},
    "anomaly": {"marker": "x", "color": ORANGE, "s": 11, "linewidths": 0.7},
    "anomaly, target": {"marker": "+", "color": DARK, "s": 17, "linewidths": 0.7},
}


def embedding_map(
    clips: pd.DataFrame, z_ND: np.ndarray, where: str, method: MapName = "pca", name: str = "embeddings"
) -> Drawing:
    """Training clips and test clips, each a point; panels of one machine share their axes.

    `clips`: a row an embedding, with `machine`, `section`, `split`, `domain` and `label`; test clips without a label
    are left out. Embeddings are taken at unit length, and mapped for each machine apart. A panel is a section, beside
    the machine's other clips as pale points; where there are many sections, a panel is a machine. Of one kind at most
    120 points are in a panel, evenly taken from all. Raises BadInput for `umap` where umap-learn is not installed.
    """
    clips = clips.assign(kind=_kinds(clips)).reset_index(drop=True)
    z_ND = z_ND / np.maximum(np.linalg.norm(z_ND, axis=1, keepdims=True), np.finfo(np.float32).tiny)
    by_section = len(clips.drop_duplicates(["machine", "section"])) <= _MOST_PANELS
    panels, words = [], [f"{MAPS[method]} of the embeddings at unit length, {where}."]
    for (machine,), own in groups(clips, "machine"):
        at_N2, told = (_pca if method == "pca" else _umap)(z_ND[own.index])
        own = own.assign(x=at_N2[:, 0], y=at_N2[:, 1])
        sections = groups(own, "section") if by_section else [((), own)]
        panels += [(" ".join([machine, *keys]), chosen, own) for keys, chosen in sections]
        words.append(f"{machine}: {told}{_counts(own)}".strip())
    columns = 1 if len(panels) == 1 else 2
    rows = -(-len(panels) // columns)
    with matplotlib.rc_context(STYLE):
        figure, all_axes = canvas(0.45 + (2.9 if columns == 1 else 1.75) * rows, rows, columns)
        for axes, (title, chosen, machine) in zip(all_axes, panels, strict=False):
            others = _thinned(machine.drop(chosen.index))
            axes.scatter(others["x"], others["y"], marker=".", s=5, linewidths=0, color="#dcdcdc")
            for kind, look in _KINDS.items():
                points = _thinned(chosen.loc[chosen["kind"] == kind])
                if len(points):
                    axes.scatter(points["x"], points["y"], label=kind, **look)
            axes.set(xticks=[], yticks=[], xlim=_room(machine["x"]), ylim=_room(machine["y"]))
            axes.set_title(title, loc="left")
        for axes in all_axes[len(panels) :]:
            axes.set_visible(False)
        there = {
            label: handle for axes in all_axes for handle, label in zip(*axes.get_legend_handles_labels(), strict=True)
        }
        order = [kind for kind in _KINDS if kind in there]
        figure.legend(
            [there[kind] for kind in order],
            _named(order),
            loc="outside upper center",
            ncols=3,
            handletextpad=0.0,
            columnspacing=0.8,
            handlelength=1.6,
        )
        return Drawing(figure, f"Embeddings, {MAPS[method]}, {where}", " ".join(words), name)


def _kinds(clips: pd.DataFrame) -> pd.Series:
    """The entry of `_KINDS` of each clip; missing for a test clip without a label."""
    test, target = clips["split"] == "test", clips["domain"] == "target"
    kinds = pd.Series("training", index=clips.index, dtype=object).where(clips["split"] == "train")
    for label, kind in ((0, "normal"), (1, "anomaly")):
        chosen = test & (clips["label"] == label)
        kinds[chosen & ~target], kinds[chosen & target] = kind, f"{kind}, target"
    return kinds


def _named(kinds: list[str]) -> list[str]:
    """As a legend says them: with the domain where there are domains."""
    domains = any(kind.endswith("target") for kind in kinds)
    return [f"{kind}, source" if domains and kind in ("normal", "anomaly") else kind for kind in kinds]


def _pca(z_ND: np.ndarray) -> tuple[np.ndarray, str]:
    """(N, 2) along the two directions of most variance, and what share of it they have."""
    centred_ND = z_ND - z_ND.mean(axis=0)
    _, scale, directions = np.linalg.svd(centred_ND, full_matrices=False)
    signs = np.sign(directions[np.arange(len(directions)), np.abs(directions).argmax(axis=1)])  # else either way round
    share = (scale[:2] ** 2).sum() / max((scale**2).sum(), np.finfo(float).tiny)
    at = centred_ND @ (directions * signs[:, None])[:2].T
    return np.pad(at, ((0, 0), (0, 2 - at.shape[1]))), f"the two axes hold {100 * share:.0f} % of the variance. "


def _umap(z_ND: np.ndarray) -> tuple[np.ndarray, str]:
    """(N, 2) of UMAP (McInnes et al., arXiv 1802.03426) by cosine distance, with a fixed seed."""
    try:
        from umap import UMAP  # pyright: ignore[reportMissingImports]
    except ImportError:
        raise BadInput(
            "a map by umap needs the package umap-learn: pip install umap-learn, or leave it at pca"
        ) from None
    few = len(z_ND) <= 15  # UMAP's own number of neighbours; its usual start needs more clips than that
    options = {"n_neighbors": len(z_ND) - 1, "init": "random"} if few else {}
    return UMAP(metric="cosine", random_state=0, n_jobs=1, **options).fit_transform(z_ND), ""


def _counts(clips: pd.DataFrame) -> str:
    counts = clips["kind"].value_counts()
    return ", ".join(f"{counts[kind]} {kind}" for kind in _KINDS if kind in counts) + " clips."


def _thinned(points: pd.DataFrame) -> pd.DataFrame:
    return points.iloc[:: -(-len(points) // _MOST_POINTS) or 1]


def _room(values: pd.Series) -> tuple[float, float]:
    margin = 0.05 * (values.max() - values.min() or 1.0)
    return values.min() - margin, values.max() + margin
