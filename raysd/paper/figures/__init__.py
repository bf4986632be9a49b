"""The figures of a paper: each a pure function of plain values, which gives a `Drawing` for a page and for files."""

from raysd.paper.figures.effects import Curve, Panel, factor_curve, forest, seed_spread
from raysd.paper.figures.embeddings import embedding_map
from raysd.paper.figures.scores import roc_curves, score_distributions
from raysd.paper.figures.search import factor_importances, objective_history, two_rankings
from raysd.paper.figures.style import FORMATS, STYLE, Drawing, canvas
from raysd.paper.figures.training import learning_curves

__all__ = [
    "FORMATS",
    "STYLE",
    "Curve",
    "Drawing",
    "Panel",
    "canvas",
    "embedding_map",
    "factor_curve",
    "factor_importances",
    "forest",
    "learning_curves",
    "objective_history",
    "roc_curves",
    "score_distributions",
    "seed_spread",
    "two_rankings",
]
