"""The page on which the clips that a trial ranked most wrong are listened to: from plain values to HTML and pictures.

F mel bands, T frames.
"""

import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath

import numpy as np
from matplotlib.figure import Figure

from raysd.detect.wrong import RankedClip
from raysd.paper.formats import templates

MARK = '<meta name="generator" content="raysd report --listen">'
"""By this a folder is known as made by an earlier call, which the next one may replace."""
_TICKS_HZ = (63, 125, 250, 500, 1000, 2000, 4000, 8000, 16000, 32000)


@dataclass(frozen=True)
class Spectrogram:
    """A log-mel spectrogram and its axes."""

    log_mel_FT: np.ndarray
    band_hz_F: np.ndarray
    """Centre of each band, rising."""
    frame_seconds: float

    @property
    def seconds(self) -> float:
        return self.log_mel_FT.shape[1] * self.frame_seconds

    def alt(self) -> str:
        """What is to be seen, for those who do not see it."""
        mean_F = self.log_mel_FT.mean(axis=1)
        loudest_second = float(self.log_mel_FT.mean(axis=0).argmax()) * self.frame_seconds
        return (
            f"Log-mel spectrogram, {self.seconds:.1f} seconds, {self.band_hz_F[0]:,.0f} to {self.band_hz_F[-1]:,.0f} "
            f"Hz. On average the band at {self.band_hz_F[mean_F.argmax()]:,.0f} Hz is the loudest; over all bands the "
            f"loudest moment is at {loudest_second:.1f} seconds."
        )


@dataclass(frozen=True)
class ShownClip:
    """A clip as the page has it."""

    clip: RankedClip
    audio: str = ""
    """Link of the file to be heard; empty where it is not at hand."""
    picture: str = ""
    alt: str = ""
    note: str = ""
    """How the audio was made, or why there is none."""

    @property
    def name(self) -> str:
        return PurePosixPath(self.clip.path).name

    @property
    def text(self) -> str:
        """Where the trial ranked it."""
        clip = self.clip
        kind, others, side = (("normal", "anomalies", "below"), ("anomaly", "normal clips", "above"))[clip.label]
        return (
            f"{kind}, score {clip.score:.4g}, rank {clip.rank} of {clip.num_clips}: "
            f"{clip.num_wrong:g} of {clip.num_others} {others} {side} it"
        )


@dataclass(frozen=True)
class ShownGroup:
    """The clips of a section and domain."""

    title: str
    normals: Sequence[ShownClip]
    anomalies: Sequence[ShownClip]
    typical: ShownClip | None


def listening_page(title: str, warning: str, facts: Sequence[str], groups: Sequence[ShownGroup], made: str) -> str:
    """The whole page; `warning` stands at its top, `made` tells how it was made."""
    template = templates().get_template("listen.html")
    return template.render(mark=MARK, title=title, warning=warning, facts=facts, groups=groups, made=made) + "\n"


def picture(shown: Spectrogram, low: float, high: float) -> bytes:
    """A spectrogram as PNG, seconds across and Hz up; `low` and `high` are the values of the darkest and brightest."""
    figure = Figure(figsize=(4.4, 2.2), dpi=110, layout="constrained")
    axes = figure.subplots()
    bands = len(shown.band_hz_F)
    axes.imshow(
        shown.log_mel_FT,
        origin="lower",
        aspect="auto",
        extent=(0.0, shown.seconds, -0.5, bands - 0.5),
        vmin=low,
        vmax=high,
        cmap="magma",  # its lightness rises all the way, so that it is read in greyscale too
    )
    low_hz, high_hz = shown.band_hz_F[[0, -1]]
    ticks_hz = [hz for hz in _TICKS_HZ if low_hz <= hz <= 1.05 * high_hz]
    at = np.interp(ticks_hz, shown.band_hz_F, np.arange(bands))
    apart = [i for i in range(len(at)) if i + 1 == len(at) or at[i + 1] - at[i] > bands / 16]  # labels that overlap
    axes.set_yticks(at[apart], [f"{ticks_hz[i]:,}" for i in apart])
    axes.tick_params(labelsize=7)
    axes.set_xlabel("seconds", fontsize=8)
    axes.set_ylabel("Hz", fontsize=8)
    content = io.BytesIO()
    figure.savefig(content, format="png", metadata={"Software": None})
    return content.getvalue()
