"""Figures: whatever they show, they can be read, printed in grey, and made again to the byte."""

import itertools
import math
import runpy
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from xml.etree import ElementTree

import matplotlib
import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
import yaml
from made_search import BASE, FLOOR, record, run_search, study_at
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_rgba
from matplotlib.figure import Figure
from PIL import Image
from sklearn.decomposition import PCA
from sklearn.metrics import auc

from raysd.data.layouts import YEARS
from raysd.detect.metrics import aggregate, section_metrics
from raysd.drawing import KINDS, study_drawings
from raysd.errors import BadInput
from raysd.paper import figures
from raysd.paper.figures import Curve, Drawing, Panel
from raysd.paper.figures.style import COLUMN_INCHES, SERIES
from raysd.paper.statistics import compare, interval
from raysd.paper.tables import ORACLE, study_tables
from raysd.results.searches import Suggestion
from raysd.results.store import Results
from raysd.study.design import LoadedStudy, load_study, trials_of

Run = Callable[..., tuple[int, str, str]]
ROOT = Path(__file__).resolve().parents[2]
LONG = "without_any_of_the_augmentations_that_change_high_frequencies, cutoff_hz=12000 and $mix$ <& more>"


def noise(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def clips(machines: int, sections: int, each: int, domains: bool = False, equal: bool = False) -> pd.DataFrame:
    """Test clips: in each section and domain `each` normal ones around 0, and as many anomalous ones around 1."""
    rng, rows = noise(), []
    for machine, section, domain in itertools.product(
        range(machines), range(sections), ("source", "target") if domains else (None,)
    ):
        shared = {"part": "dev", "machine": f"machine{machine}", "section": f"{section:02d}", "domain": domain}
        for label in (0, 1):
            scores = np.ones(each) if equal else rng.normal(label, 0.5, each)
            rows += [shared | {"split": "test", "label": label, "score": score} for score in scores]
    return pd.DataFrame(rows)


def embedded(machines: int, sections: int, each: int) -> tuple[pd.DataFrame, np.ndarray]:
    """Clips that lie in a plane of a space of many dimensions, with some that are in no map."""
    test = clips(machines, sections, each, domains=True)
    frame = pd.concat([test, test.assign(split="train", label=0), test.assign(label=np.nan)], ignore_index=True)
    angle = noise(1).uniform(0, 2 * np.pi, len(frame))
    plane = np.linalg.qr(noise(2).normal(size=(20, 2)))[0]
    return frame, (7 * np.stack([np.cos(angle), np.sin(angle)], axis=1) @ plane.T).astype(np.float32)


def seeds_of(mean: float, num: int) -> dict[int, float]:
    return {seed: mean + 0.01 * math.sin(3 * seed + 40 * mean) for seed in range(num)}


def history(rate: float, parts: bool = True) -> list[dict[str, Any]]:
    return [
        {"epoch": epoch, "loss": 8 * math.exp(-rate * epoch), "contrastive": 1 / epoch if parts else None}
        | {"classification": 8 * math.exp(-rate * epoch) - 1 / epoch if parts else 0.0}
        for epoch in range(1, 13)
    ]


def suggestions() -> list[Suggestion]:
    return [
        Suggestion(0, {}, {}, "k0", "done", 0.5),
        Suggestion(1, {}, {}, "k1", "done", 0.6),
        Suggestion(2, {}, {}, "k2", "failed"),
        Suggestion(3, {}, {}, "k3", "pruned", 0.4),
    ]


def many_curves(machines: int) -> list[Panel]:
    levels = (250.0, 500.0, 1000.0, 2000.0, 4000.0, 6000.0, 7000.0)
    curves = [
        Curve(f"mode={mode}", {level: [0.7 + i / 50 + 0.01 * s + level / 1e5 for s in range(3)] for level in levels})
        for i, mode in enumerate(("noise", "gain", "mask", "mix", "more", "most"))
    ]
    return [Panel(f"machine{i}", curves, {"baseline": 0.72, LONG: 0.74}) for i in range(machines)]


def comparisons(num: int, seeds: int) -> dict[str, Any]:
    names = [f"{'without' if i % 2 else 'mode=gain,'} ingredient_{i}" for i in range(num)]
    found = compare(seeds_of(0.7, seeds), [seeds_of(0.7 + 0.02 * (i % 5 - 1), seeds) for i in range(num)])
    return dict(zip(names, found, strict=True))


EXAMPLES: dict[str, list[Callable[[], Drawing]]] = {
    "forest": [
        lambda: figures.forest({LONG: next(iter(comparisons(1, 6).values()))} | comparisons(3, 6), "AUC", "fan, dev"),
        lambda: figures.forest(comparisons(30, 3), "official score", "mean over machines, dev"),
        lambda: figures.forest(comparisons(2, 1), "AUC", "fan, dev"),
    ],
    "seed_spread": [
        lambda: figures.seed_spread({"baseline": seeds_of(0.7, 6), LONG: seeds_of(0.8, 5), "none": {}}, "AUC", "dev"),
        lambda: figures.seed_spread({"baseline": seeds_of(0.7, 30)}, "AUC", "dev"),
    ],
    "factor_curve": [
        lambda: figures.factor_curve(many_curves(4), "cutoff_hz", "AUC", "dev"),
        lambda: figures.factor_curve(
            [Panel("fan", [Curve("", {1.0: [0.7], 2.0: [0.8], 3.0: [0.9]})], {})], "k", "AUC", ""
        ),
    ],
    "learning_curves": [
        lambda: figures.learning_curves({"baseline": [history(0.1), history(0.12)], LONG: [history(0.5, False)]}),
    ],
    "score_distributions": [
        lambda: figures.score_distributions(clips(1, 3, 5, domains=True), "fan, dev"),
        lambda: figures.score_distributions(clips(7, 3, 500), "7 machines, dev"),
        lambda: figures.score_distributions(clips(1, 1, 3, equal=True), "fan, dev"),
    ],
    "roc_curves": [
        lambda: figures.roc_curves(clips(1, 4, 20), 2020, "dev"),
        lambda: figures.roc_curves(clips(3, 2, 6, domains=True), 2022, "dev"),
    ],
    "embedding_map": [
        lambda: figures.embedding_map(*embedded(1, 4, 5), "dev"),
        lambda: figures.embedding_map(*embedded(3, 4, 60), "dev"),
    ],
    "objective_history": [
        lambda: figures.objective_history(suggestions(), "perturbed-copies proxy"),
        lambda: figures.objective_history(suggestions()[2:3], "perturbed-copies proxy"),
    ],
    "two_rankings": [
        lambda: figures.two_rankings(suggestions()[:3], [0.1, 0.2, 0.3], [0.4, 0.5, 0.6], ("proxy", "AUC"), 1)
    ],
    "factor_importances": [
        lambda: figures.factor_importances(
            {"rate": {"fANOVA": 0.7, "PED-ANOVA": 0.2}, LONG: {"fANOVA": None, "PED-ANOVA": 0.8}}
        )
    ],
}
"""Of every figure small ones, and ones that are hard to fit."""
CASES = [pytest.param(make, id=f"{name}-{i}") for name, all_ in EXAMPLES.items() for i, make in enumerate(all_)]


def test_every_figure_has_examples() -> None:
    assert EXAMPLES.keys() == {name for name in figures.__all__ if name.islower()} - {"canvas"}


@pytest.mark.parametrize("make", CASES)
def test_every_figure_can_be_read(make: Callable[[], Drawing]) -> None:
    before = dict(matplotlib.rcParams)
    drawing = make()
    svg = drawing.content("svg")
    assert dict(matplotlib.rcParams) == before  # the style is nobody else's
    assert "matplotlib.pyplot" not in sys.modules or not sys.modules["matplotlib.pyplot"].get_fignums()
    words = " ".join(ElementTree.fromstring(svg.decode()).itertext())
    assert drawing.title in words  # as text
    with matplotlib.rc_context(figures.STYLE):
        assert_nothing_is_cut_off_or_hidden(drawing.figure)
    for legend in drawing.figure.legends:  # in grey
        looks = [look(handle) for handle in legend.legend_handles]
        assert len(set(looks)) == len(looks)


@pytest.mark.parametrize("make", [pytest.param(all_[-1], id=name) for name, all_ in EXAMPLES.items()])
def test_files_of_every_figure(make: Callable[[], Drawing], tmp_path: Path) -> None:
    drawing = make()
    pdf, svg, png = drawing.save("it", tmp_path)
    assert pdf.read_bytes().startswith(b"%PDF-")
    assert b"/CreationDate" not in pdf.read_bytes()
    with Image.open(png) as image:
        assert image.width == round(300 * COLUMN_INCHES)
        assert np.asarray(image.convert("L")).std() > 10
    assert make().content("svg") == svg.read_bytes()


def test_the_same_values_give_the_same_bytes() -> None:
    first, second = (EXAMPLES["score_distributions"][-1]() for _ in range(2))
    for kind in figures.FORMATS:
        assert first.content(kind) == second.content(kind) == first.content(kind)
    assert first.svg == second.svg


def assert_nothing_is_cut_off_or_hidden(figure: Figure) -> None:
    renderer = FigureCanvasAgg(figure).get_renderer()
    inside, (width, height) = figure.get_tightbbox(renderer), figure.get_size_inches()
    assert min(inside.x0, inside.y0) > -0.01
    assert inside.x1 < width + 0.01
    assert inside.y1 < height + 0.01 < 9.6  # a page
    for axes in figure.axes:
        assert axes.get_window_extent(renderer).width > 90  # of 350 pixels
        for along, labels in enumerate((axes.get_xticklabels(), axes.get_yticklabels())):
            low, high = sorted((axes.get_xlim(), axes.get_ylim())[along])
            shown = [one for one in labels if one.get_text() and low <= one.get_position()[along] <= high]
            places = sorted(one.get_window_extent(renderer).get_points()[:, along].tolist() for one in shown)
            assert all(one[1] < other[0] + 1 for one, other in itertools.pairwise(places))


def look(handle: Any) -> tuple[Any, ...]:
    """Everything but colour that tells an entry of a legend from others: line, mark, filling, and how light it is."""
    if hasattr(handle, "get_marker"):
        mark = (handle.get_marker(), handle.get_linestyle(), str(handle._unscaled_dash_pattern), handle.get_linewidth())
        return *mark, to_rgba(handle.get_markerfacecolor())[3] if handle.get_marker() else 0
    colour = [one for one in np.atleast_2d(handle.get_facecolor()).tolist() if len(one) == 4 and one[3] > 0]
    light = round(5 * float(np.dot(colour[0][:3], (0.2126, 0.7152, 0.0722)))) if colour else None
    shape = handle.get_paths()[0].vertices.round(2).tolist() if hasattr(handle, "get_paths") else handle.get_hatch()
    return str(shape), light


def test_series_differ_in_mark_and_line() -> None:
    assert len({one["marker"] for one in SERIES}) == len({str(one["linestyle"]) for one in SERIES}) == len(SERIES)


def test_forest_says_what_is_shown_and_what_is_not() -> None:
    base = dict.fromkeys(range(6), 0.5)
    better = {seed: 0.6 + 0.01 * (seed % 2) for seed in range(6)}
    found = compare(base, [better, {0: 0.52, 1: 0.47, 2: 0.5}, {0: 0.45}, {}])
    drawing = figures.forest(dict(zip("abcd", found, strict=True)), "AUC", "fan, dev")
    assert drawing.title == "Difference to the baseline in AUC, fan, dev"
    low, high = (f"{100 * end:+.2f}" for end in interval(np.array([better[seed] - 0.5 for seed in range(6)])))
    assert f"Highest: a +10.50 [{low}, {high}], p = 0.062." in drawing.alt  # 2 * 2 / 2**6
    assert "Lowest: b, " not in drawing.alt
    assert "Lowest: b -0.33 [" in drawing.alt
    assert "Holm's p is at most 0.05 for none of 2 tested" in drawing.alt
    assert "c -5.00, no interval: one seed, no test. d: no seed in common with the baseline." in drawing.alt
    for said in ("0.062", "no test", "no pair", "c, n = 1", "95 % intervals, n = 6"):
        assert f">{said}<" in drawing.svg
    sure = figures.forest({"a": replace(found[0], p_holm=0.03)}, "AUC", "fan, dev")
    assert "at most 0.05 for a of 1 tested" in sure.alt
    assert "filled: p at most 0.05" in sure.svg


def test_numbers_in_words() -> None:
    curve = Panel("fan", [Curve("gain", {1.0: [0.5, 0.6], 20.0: [0.7, 0.8]})], {"baseline": 0.625})
    drawn = figures.factor_curve([curve], "k", "AUC", "dev")
    assert "fan: gain is highest at 20 (75.00 %); baseline has 62.50 %." in drawn.alt
    assert drawn.figure.axes[0].get_xscale() == "log"
    spread = figures.seed_spread({"baseline": {0: 0.5, 1: 0.6}, "more": {0: 0.9, 1: 0.8}}, "AUC", "fan, dev")
    assert "more: mean 85.00 %, 80.00 % to 90.00 % over 2 seeds." in spread.alt
    learning = figures.learning_curves({"baseline": [history(0.0), history(0.0)]})
    assert "baseline: 8 after the first epoch, 8 after epoch 12, over 2 seeds." in learning.alt
    assert len(learning.figure.axes) == 3
    assert len(figures.learning_curves({"baseline": [history(0.1, parts=False)]}).figure.axes) == 1
    scores = clips(1, 1, 10)
    scores["score"] = [*range(10), *([8.5] * 5), *([1.0] * 5)]
    assert (
        "00: 10 normal and 10 anomalous clips; 50 % of the anomalous ones"
        in figures.score_distributions(scores, "").alt
    )


@pytest.mark.parametrize("year", [2020, 2021, 2022])
def test_roc_has_the_metrics_of_the_tables(year: int) -> None:
    scores = clips(2, 2, 10, domains=YEARS[year].domains)
    means = aggregate(section_metrics(scores, year), year).query("machine == 'machine1'")
    means = means.loc[means["section"] == f"{YEARS[year].averaging}_mean"].set_index("metric")["value"]
    drawing = figures.roc_curves(scores, year, "dev")
    assert f"machine1: AUC {100 * means['auc']:.1f}, pAUC {100 * means['pauc']:.1f}" in drawing.alt
    lines = {line.get_label(): line for line in drawing.figure.axes[1].lines}
    # the area below the mean curve is the mean of the areas
    x, y = (np.asarray(values, dtype=float) for values in lines["mean, all clips"].get_data())
    areas = section_metrics(scores, year).query("machine == 'machine1' and metric == 'auc' and section != 'pooled'")
    assert auc(x, y) == pytest.approx(areas["value"].mean(), abs=2e-3)
    assert ("mean, target" in lines) == YEARS[year].domains
    if YEARS[year].domains:
        x, y = (np.asarray(values, dtype=float) for values in lines["mean, target"].get_data())
        areas = section_metrics(scores, year).query("machine == 'machine1' and metric == 'auc_target'")
        assert auc(x, y) == pytest.approx(areas["value"].mean(), abs=2e-3)


def test_pca_finds_the_plane(monkeypatch: pytest.MonkeyPatch) -> None:
    frame, z_ND = embedded(1, 1, 30)
    drawing = figures.embedding_map(frame, z_ND, "dev")
    assert (
        "the two axes hold 100 % of the variance. 120 training, 30 normal, 30 normal, target, 30 anomaly" in drawing.alt
    )
    expected = PCA(2).fit_transform(z_ND / np.linalg.norm(z_ND, axis=1, keepdims=True))
    anomalies = expected[(frame["split"] == "test") & (frame["label"] == 1) & (frame["domain"] == "target")]
    (axes,) = drawing.figure.axes
    (shown,) = (np.asarray(one.get_offsets()) for one in axes.collections if one.get_label() == "anomaly, target")
    np.testing.assert_allclose(np.abs(shown), np.abs(anomalies), atol=1e-5)  # either way round
    monkeypatch.setitem(sys.modules, "umap", None)
    with pytest.raises(BadInput, match="pip install umap-learn"):
        figures.embedding_map(frame, z_ND, "dev", "umap")
    umap = SimpleNamespace(UMAP=lambda **_: SimpleNamespace(fit_transform=lambda z_ND: z_ND[:, :2]))
    monkeypatch.setitem(sys.modules, "umap", umap)
    assert figures.embedding_map(frame, z_ND, "dev", "umap").title == "Embeddings, UMAP, dev"


# --- of studies -------------------------------------------------------------------------------------------------------


@pytest.fixture
def study(tmp_path: Path) -> LoadedStudy:
    """Two machines, dev; one factor that is a number, one that is an ingredient."""
    content = {
        "question": "which?",
        "baseline": "base.yaml",
        "factors": {"k": {"setting": "scoring.k", "levels": [1, 2, 20]}, "mixup": {"setting": "augment.log_mixup_exp"}},
        "design": "one_at_a_time",
        "variants": {},
        "seeds": [0, 1, 2],
        "references": ["floor.yaml"],
    }
    del content["variants"]
    for name, it in {"base": BASE, "floor": FLOOR, "s": content}.items():
        (tmp_path / f"{name}.yaml").write_text(yaml.safe_dump(it), encoding="utf-8")
    return load_study(tmp_path / "s.yaml")


@pytest.fixture
def results(tmp_path: Path, study: LoadedStudy) -> Results:
    kept = Results(tmp_path / "results")
    scores = clips(2, 2, 6).assign(path="p").replace({"machine0": "fan", "machine1": "pump"})
    frame, z_ND = embedded(2, 2, 6)
    for trial in trials_of(study, "d0"):
        value = 0.6 + 0.05 * trial.seed + 0.01 * len(trial.variant)
        kept.write(record(trial, {}, value, scores=scores, history=history(0.1)))
        if trial.role == "baseline" and trial.seed == 1:
            table = pa.Table.from_pandas(frame.drop(columns="score").assign(path="p"), preserve_index=False)
            z = pa.FixedSizeListArray.from_arrays(pa.array(z_ND.ravel()), z_ND.shape[1])
            kept.write_embeddings(trial.training_key, table.append_column("z", z))
    return kept


def test_figures_of_a_study(study: LoadedStudy, results: Results) -> None:
    (table,) = study_tables(study, results)
    drawings = {drawing.name: drawing for drawing in study_drawings(table, results, study)}
    expected = ["forest-dev", "forest-dev-fan", "forest-dev-pump", "curve-k-dev", "seeds-dev", "learning"]
    assert list(drawings) == [*expected, "scores-dev", "roc-dev", "embeddings-dev"]
    assert "mean over machines, dev" in drawings["forest-dev"].title
    assert "2 machines, dev: baseline, seed 1" in drawings["scores-dev"].title  # the median of three seeds
    assert "floor" not in drawings["seeds-dev"].svg  # a reference
    curve = drawings["curve-k-dev"]
    assert [axes.get_title(loc="left") for axes in curve.figure.axes] == ["fan", "pump", "mean over machines"]
    assert "it is highest at 20 (69.00 %); baseline has 73.00 %" not in curve.alt
    assert "baseline has" in curve.alt
    learning = drawings["learning"].alt
    assert "without mixup: " in learning
    assert "k=" not in learning  # shares the baseline's training
    assert [one.name for one in study_drawings(table, results, study, ["roc"])] == ["roc-dev"]
    stamped = study_drawings(replace(table, oracle=True), results, study, ["seeds", "forest"])[-2:]
    assert all(ORACLE in one.title and one.alt.startswith(ORACLE) for one in stamped)
    assert all("ORACLE" in one.svg.split("</g>", 1)[1] for one in stamped)


def test_nothing_is_drawn_of_nothing(study: LoadedStudy, tmp_path: Path) -> None:
    results = Results(tmp_path / "other")
    first, *_ = trials_of(study, "d0")
    results.write(record(first, {}, 0.5))  # one seed of one row, no score of a clip, no embedding
    (table,) = study_tables(study, results)
    assert [one.name for one in study_drawings(table, results, study)] == ["seeds-dev"]


def test_the_command(raysd: Run, study: LoadedStudy, results: Results, tmp_path: Path) -> None:
    to, words = tmp_path / "new" / "figures", ("figures", study.path, "--results", results.root)
    status, out, err = raysd(
        *words, "--to", to, "--format", "svg", "--format", "png", "--only", "roc", "--only", "curve"
    )
    paths = [Path(line) for line in out.split()]
    assert (status, err) == (0, "")
    assert paths == [to / f"s-{name}.{kind}" for name in ("curve-k-dev", "roc-dev") for kind in ("svg", "png")]
    assert sorted(to.iterdir()) == sorted(paths)  # and nothing half-written

    status, out, err = raysd(*words, "--to", to, "--only", "rocs")
    assert (status, out, err.count("\n")) == (2, "", 1)
    assert "did you mean 'roc'?" in err
    assert raysd(*words, "--to", to, "--only", "history")[0] == 2  # of a search
    (tmp_path / "file").write_text("mine")
    status, out, err = raysd(*words, "--to", tmp_path / "file", "--only", "roc")
    assert (status, out, err.count("\n")) == (2, "", 1)
    assert "--to" in err
    assert (tmp_path / "file").read_text() == "mine"


def test_the_script_for_several_studies(
    study: LoadedStudy, results: Results, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    to, script = tmp_path / "paper", ROOT / "analysis" / "figures.py"
    words = [
        "--studies",
        study.path,
        "nosuch",
        "--years",
        2020,
        "--to",
        to,
        "--results",
        results.root,
        "--only",
        "seeds",
    ]
    monkeypatch.setattr(sys, "argv", [str(script), *map(str, words)])
    with pytest.raises(SystemExit) as ended:
        runpy.run_path(str(script), run_name="__main__")
    printed = capsys.readouterr()
    assert ended.value.code == 2
    assert printed.out.split() == [str(to / "2020" / "s-seeds-dev.pdf")]
    assert "nosuch: no such file" in printed.err


def test_the_command_on_a_search(raysd: Run, tmp_path: Path) -> None:
    results = Results(tmp_path / "results")
    run_search(study_at(tmp_path), results)
    words = ("figures", tmp_path / "find.yaml", "--results", results.root, "--to", tmp_path / "out")
    status, out, _ = raysd(*words, "--format", "svg")
    names = ["history", "ranking-perturbed-copies-proxy", "ranking-other-sections-proxy", "importances"]
    assert (status, [Path(line).stem for line in out.split()]) == (0, [f"find-{name}" for name in names])
    status, _, err = raysd(*words, "--only", "forest")
    assert (status, "a search has no such figure" in err) == (2, True)


def test_figures_of_real_results() -> None:
    loaded, results = load_study("cutoff", {"data.year": 2022}, profile="cpu"), Results(ROOT / "results" / "real")
    (table,) = study_tables(loaded, results)
    kinds = [kind for kind in KINDS if kind != "embeddings"]  # which are not committed
    drawings = {one.name: one for one in study_drawings(table, results, loaded, kinds)}
    assert list(drawings) == ["forest-dev", "curve-cutoff_hz-dev", "seeds-dev", "learning", "scores-dev", "roc-dev"]
    best = max(table.variants, key=lambda row: row.cell("dev", "valve", "official").mean)
    assert f"Highest: {best.variant} " in drawings["forest-dev"].alt
    curve = drawings["curve-cutoff_hz-dev"]
    lines = [line.get_text() for line in curve.figure.legends[0].get_texts()]
    assert lines == [
        *(f"mode={mode}" for mode in ("noise", "gain", "mask", "mix")),
        "baseline",
        "without high_frequency",
    ]
    assert "mode=noise is highest at 6000 (79.65 %)" in curve.alt  # the baseline is one of its points
    assert "without high_frequency has 79.31 %" in curve.alt
    assert len("".join(one.svg for one in drawings.values())) < 300_000
