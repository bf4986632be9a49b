"""Which pieces of a clip are trained on, and which are scored ("multiple segmentation").

A segment is a run of frames of its clip's log-mel. B items of a batch. A clip shorter than a segment is repeated.
"""

from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor

from raysd.model.draws import Draws
from raysd.settings import Settings


class Segments(Settings):
    """Segments of a clip, in training and at scoring."""

    train_seconds: Annotated[float, Field(gt=0)] = 2.0
    """Length of a training segment."""
    train_count: Annotated[int, Field(ge=1)] = 1
    """Segments that a clip gives in an epoch; each is an item of its own."""
    two_crops: bool = True
    """true: the two views of an item are two different segments of the clip; false: one segment, augmented twice."""
    score_seconds: Annotated[float, Field(gt=0)] | None = None
    """Length of a scoring segment. null: the whole clip at once."""
    score_count: Annotated[int, Field(ge=1)] = 1
    """Scoring segments of a clip, evenly spaced from its start to its end; their embeddings are averaged."""


def num_frames(seconds: float, rate_hz: int, hop_samples: int) -> int:
    """Frames in a segment of `seconds`; at least one."""
    return max(1, round(seconds * rate_hz / hop_samples))


def train_starts(segments: Segments, draws: Draws, length_B: Tensor, stream: str, frames: int) -> Tensor:
    """(B,) int64: the first frame of a segment of `frames` frames, uniform over a clip of `length_B` frames."""
    view = draws if segments.two_crops else Draws(draws.seed, draws.epoch, draws.item_B, view=0)
    room_B = (length_B - frames).clamp(min=0) + 1
    return (view.uniform(stream)[:, 0].to(torch.float64) * room_B).to(torch.int64)


def score_starts(segments: Segments, length: int, frames: int) -> Tensor:
    """(score_count,) int64: first frames of the scoring segments of a clip of `length` frames."""
    return torch.linspace(0, max(length - frames, 0), segments.score_count, dtype=torch.float64).round().to(torch.int64)
