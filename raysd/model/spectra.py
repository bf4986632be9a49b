"""The log-mel frames of a store's clips, from which training and scoring segments are cut.

The log-mel of a whole clip is computed once and kept in memory, not once for every segment, view and mixing partner:
on a CPU the filter bank would otherwise cost as much as a small encoder. Where the clips are too many to be kept, each
read computes them again; the numbers are the same.

B items, F bands, T frames of a segment, S samples, N clips.
"""

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from torch import Tensor

from raysd.data.store import Store
from raysd.errors import BadInput
from raysd.model.features import Features, build_front_end

KEPT_BYTES = 4 << 30
"""Log-mels of a corpus up to this size are kept in memory: about 11,000 clips of ten seconds."""
_BATCH_SAMPLES = 1 << 22  # samples whose log-mel is computed at once


class Spectra:
    """Raw (not normalised) log-mels of all clips in a store, by row of the store's index."""

    def __init__(self, store: Store, features: Features, device: torch.device) -> None:
        """Computes and keeps the log-mels on `device` where they fit in KEPT_BYTES.

        Raises BadInput for a clip that is too short for the front end.
        """
        self.log_mel = build_front_end(features, store.data.sample_rate_hz).to(device)
        self.device = device
        self.band_hz_F = self.log_mel.band_hz_F.cpu()
        """(F,) centre frequencies; on the CPU, so that to ask for one never waits for an accelerator."""
        self._store = store
        lengths = store.clips["length"].to_numpy()
        shortest = int(lengths.argmin())
        if lengths[shortest] < self.log_mel.fewest_samples:
            raise BadInput(
                f"{store.root / store.clips['path'][shortest]}: {lengths[shortest]} samples are too few for "
                f"features.fft_samples {features.fft_samples}; take the clip out of the data, or set it to at most "
                f"{2 * (lengths[shortest] - 1)}"
            )
        frames_N = self.log_mel.frames(lengths)
        self.frames_N = torch.from_numpy(frames_N.astype(np.int64)).to(device)
        """(N,) int64: frames of each clip."""
        self._offset_N = torch.cumsum(self.frames_N, 0) - self.frames_N
        self._kept_TF: Tensor | None = None
        total = int(frames_N.sum())
        if total * self.log_mel.num_bands * 4 <= KEPT_BYTES:
            self._kept_TF = torch.empty(total, self.log_mel.num_bands, device=device)
            for rows, spec_BFT in self._computed(range(len(lengths))):
                for row, spec_FT in zip(rows, spec_BFT, strict=True):
                    start = int(self._offset_N[row])
                    self._kept_TF[start : start + spec_FT.shape[1]] = spec_FT.T

    def cut(self, row_B: Tensor, start_B: Tensor, frames: int) -> Tensor:
        """spec_BFT: `frames` frames of each row's clip from `start_B` on; past its end a clip begins again."""
        index_BT = (start_B[:, None] + torch.arange(frames, device=self.device)) % self.frames_N[row_B][:, None]
        if self._kept_TF is not None:
            return self._kept_TF[self._offset_N[row_B][:, None] + index_BT].transpose(1, 2).contiguous()
        spec_BFT = torch.empty(len(row_B), self.log_mel.num_bands, frames, device=self.device)
        wanted = row_B.tolist()
        whole = {
            row: spec
            for rows, specs in self._computed(sorted(set(wanted)))
            for row, spec in zip(rows, specs, strict=True)
        }
        for i, row in enumerate(wanted):
            spec_BFT[i] = whole[row][:, index_BT[i]]
        return spec_BFT

    def statistics(self, rows: Sequence[int], per_band: bool, most: int = 4096) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation over frames, each (F, 1), of at most `most` of `rows`, evenly spread."""
        chosen = [rows[i] for i in np.linspace(0, len(rows) - 1, min(most, len(rows))).astype(int)]
        count, total_F, square_F = 0, 0.0, 0.0
        for row in chosen:
            whole = torch.zeros(1, dtype=torch.int64, device=self.device)
            spec_FT = self.cut(whole + row, whole, int(self.frames_N[row]))[0].double()
            count += spec_FT.shape[1]
            total_F, square_F = total_F + spec_FT.sum(1), square_F + spec_FT.square().sum(1)
        mean_F, square_F = torch.as_tensor(total_F) / count, torch.as_tensor(square_F) / count
        if not per_band:
            mean_F, square_F = mean_F.mean().expand_as(mean_F), square_F.mean().expand_as(square_F)
        std_F = (square_F - mean_F.square()).clamp(min=0).sqrt()
        std_F = torch.where(std_F > 1e-4, std_F, torch.ones_like(std_F))  # a band that never changes stays small
        return mean_F[:, None].float(), std_F[:, None].float()

    def _computed(self, rows: Sequence[int]) -> Iterator[tuple[list[int], Tensor]]:
        """Batches of rows whose clips are of one length, with their log-mels."""
        lengths = self._store.clips["length"].to_numpy()
        by_length: dict[int, list[int]] = {}
        for row in rows:
            by_length.setdefault(int(lengths[row]), []).append(row)
        for length, same in by_length.items():
            step = max(1, _BATCH_SAMPLES // length)
            for first in range(0, len(same), step):
                batch = same[first : first + step]
                x_BS = self._store.waveforms(np.asarray(batch), np.zeros(len(batch), dtype=np.int64), length)
                yield batch, self.log_mel.log_mel(torch.from_numpy(x_BS).to(self.device))
