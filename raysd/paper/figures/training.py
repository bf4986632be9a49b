"""How the loss went down."""

from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib
import numpy as np
from matplotlib.ticker import FuncFormatter, MaxNLocator, NullFormatter

from raysd.paper.figures.style import SERIES, STYLE, Drawing, canvas, give_height, wrapped

_PARTS = {"loss": "loss", "contrastive": "contrastive part", "classification": "classification part"}


def learning_curves(histories: Mapping[str, Sequence[Sequence[Mapping[str, Any]]]], name: str = "learning") -> Drawing:
    """The loss and its parts over epochs: of each variant the mean over seeds, and a band from the least to the most.

    `histories`: variant -> seeds -> epochs, as a record's `history` has them. The parts are shown where there are
    both. On a log scale where it goes down by more than a factor of twenty.
    """
    entries = [entry for seeds in histories.values() for history in seeds for entry in history]
    parts = [part for part in _PARTS if any(entry[part] for entry in entries)]
    parts = parts if len(parts) == len(_PARTS) else ["loss"]  # a single part is the loss
    words = []
    with matplotlib.rc_context(STYLE):
        figure, all_axes = canvas(0.85 + 1.45 * len(parts), rows=len(parts), sharex=True)
        for axes, part in zip(all_axes, parts, strict=True):
            shown = []
            for (variant, seeds), look in zip(histories.items(), SERIES, strict=False):
                curves = [[entry[part] for entry in history] for history in seeds]
                if not curves or not all(curve and None not in curve for curve in curves):
                    continue  # a variant without this part
                length = min(map(len, curves))
                values = np.array([curve[:length] for curve in curves], dtype=float)  # (num_seeds, num_epochs)
                epochs, means = np.arange(1, length + 1), values.mean(axis=0)
                every = max(1, length // 10)
                axes.fill_between(epochs, values.min(axis=0), values.max(axis=0), color=look["color"], alpha=0.2, lw=0)
                axes.plot(epochs, means, label=wrapped(variant, 40), markersize=3.5, markevery=every, **look)
                shown.append(values)
                if part == "loss":
                    words.append(
                        f"{variant}: {means[0]:.3g} after the first epoch, {means[-1]:.3g} after epoch {length}, "
                        f"over {len(curves)} seeds."
                    )
            least = min((one.min() for one in shown), default=0.0)
            most = max((one.max() for one in shown), default=0.0)
            if least > 0 and most > 20 * least:
                axes.set_yscale("log")
                axes.yaxis.set_major_formatter(FuncFormatter(lambda loss, _: f"{loss:g}"))
                axes.yaxis.set_minor_formatter(NullFormatter())
            axes.set_ylabel(_PARTS[part])
            axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        all_axes[-1].set_xlabel("epoch")
        figure.supxlabel("mean over seeds; band: from the least to the most", fontsize=7)
        handles, labels = all_axes[0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside upper center", ncols=2 if max(map(len, labels)) < 24 else 1)
        give_height(figure, all_axes[0], 1.2)
        title = "Loss over the epochs, mean and range over seeds"
        return Drawing(figure, title, " ".join(["Mean training loss.", *words]), name)
