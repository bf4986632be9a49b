"""The log-mel frames of a store's clips, from which training and scoring segments are cut.

The log-mels of all clips are computed once where they can be kept, not once for every segment, view and mixing partner
(`scale.device_cache`):

- on a GPU in its memory, if they take no more than half of what the trial has of it;
- on a CPU in a file beside the decoded clips, mapped into the memory of all processes of the node. Memory holds it
  once, whatever the number of trials, and as much of it as there is room for; the next run finds it there.

Otherwise those of each segment are computed when it is asked for. On a GPU only the samples that its frames hear are
read for that. On a CPU the whole clip is computed: the rounding of a matrix product depends on the shape of the
matrices there, so that only this gives the same numbers to the bit (with one thread; with more, and on a GPU, to
rounding). Beside int16 samples at 16 kHz the log-mels of the default front end take half as much room, those of
efficientat's 1.6 times as much.

B items, P pieces of clips, F bands, T frames of a segment, S samples, N clips.
"""

import hashlib
import json
import math
import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path

import numpy as np
import torch
from filelock import FileLock
from torch import Tensor

from raysd.data.shards import ShardedStore
from raysd.data.store import Store
from raysd.errors import BadInput
from raysd.model import features as front_ends
from raysd.model.features import Features, build_front_end
from raysd.parallel import Scale

KEPT_FILES = 4
"""Front ends whose log-mels stay beside a store; of more, those go that were not used for the longest time."""
WHOLE_ON = ("cpu",)
"""Devices on which a segment is computed with its whole clip."""
FRAMES_AT_ONCE = 8192
"""Of which embeddings are made at once: about the memory of a training batch."""
_BATCH_SAMPLES = 1 << 22  # samples whose log-mel is computed at once
_SPARE_BYTES = 1 << 30  # of the disk, for all else
_MARGIN_SAMPLES = 256  # more than the filter of any resampling hears on each side


class Spectra:
    """Raw (not normalised) log-mels of all clips in a store, by row of the store's index."""

    def __init__(
        self, store: Store | ShardedStore, features: Features, device: torch.device, scale: Scale = Scale()
    ) -> None:
        """Computes the log-mels where they are to be kept and are not there yet: see the module's docstring.

        Raises BadInput for a clip that is too short for the front end, and where there is no room.
        """
        self.log_mel = build_front_end(features, store.data.sample_rate_hz).to(device)
        self.device = device
        self.band_hz_F = self.log_mel.band_hz_F.cpu()
        """(F,) centre frequencies; on the CPU, so that to ask for one never waits for an accelerator."""
        self._store = store
        self._statistics: dict[tuple[bytes, bool], tuple[Tensor, Tensor]] = {}
        self._length_N: np.ndarray = store.clips["length"].to_numpy()
        shortest = int(self._length_N.argmin())
        if self._length_N[shortest] < self.log_mel.fewest_samples:
            clip, samples = store.root / store.clips["path"][shortest], self._length_N[shortest]
            fix = f", or set it to at most {2 * (samples - 1)}" if features.front_end == "log_mel" else ""
            setting = f"fft_samples {features.fft_samples}" if fix else f"front_end {features.front_end}"
            raise BadInput(
                f"{clip}: {samples} samples are too few for features.{setting}; take the clip out of the data{fix}"
            )
        frames_N = self.log_mel.frames(self._length_N).astype(np.int64)
        self.frames_N = torch.from_numpy(frames_N).to(device)
        """(N,) int64: frames of each clip."""
        self._offset_N = torch.cumsum(self.frames_N, 0) - self.frames_N
        total, bands = int(frames_N.sum()), self.log_mel.num_bands
        self._kept_TF: Tensor | None = None
        if device.type == "cpu" and scale.device_cache is not False:
            self._kept_TF = self._mapped(features, 4 * total * bands).view(total, bands)
        elif device.type == "cuda" and _has_room(4 * total * bands, device, scale):
            self._kept_TF = torch.empty(total, bands, device=device)
            for start, spec_TF in self._all():
                self._kept_TF[start : start + len(spec_TF)] = spec_TF

    @property
    def on_device(self) -> bool:
        """Whether a cut waits neither for a disk nor for a log-mel: all are kept in the memory of a GPU."""
        return self._kept_TF is not None and self.device.type == "cuda"

    def cut(self, row_B: Tensor, start_B: Tensor, frames: int) -> Tensor:
        """spec_BFT: `frames` frames of each row's clip from `start_B` on; past its end a clip begins again."""
        if self._kept_TF is not None:
            index_BT = (start_B[:, None] + torch.arange(frames, device=self.device)) % self.frames_N[row_B][:, None]
            return self._kept_TF[self._offset_N[row_B][:, None] + index_BT].transpose(1, 2).contiguous()
        rows_B, starts_B = row_B.cpu().numpy(), start_B.cpu().numpy()
        first_B, length_B, begin_B = self._heard(rows_B, starts_B, frames)
        piece_P3, piece_B = np.unique(np.stack([length_B, rows_B, first_B], 1), axis=0, return_inverse=True)
        index_BT = (begin_B[:, None] + np.arange(frames)) % self.log_mel.frames(length_B)[:, None]
        spec_BFT = torch.empty(len(rows_B), self.log_mel.num_bands, frames, device=self.device)
        for begin, piece_PFT in self._log_mels(*piece_P3.T):
            here = np.flatnonzero((begin <= piece_B) & (piece_B < begin + len(piece_PFT)))
            index = torch.from_numpy(index_BT[here]).to(self.device)[:, None].expand(-1, spec_BFT.shape[1], -1)
            of_piece = torch.from_numpy(piece_B[here] - begin).to(self.device)
            spec_BFT[torch.from_numpy(here).to(self.device)] = piece_PFT[of_piece].gather(2, index)
        return spec_BFT

    def statistics(self, rows: Sequence[int], per_band: bool, most: int = 4096) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation over frames, each (F, 1), of at most `most` of `rows`, evenly spread.

        Computed once for the same rows: the trials of a process have them in common.
        """
        chosen = [rows[i] for i in np.linspace(0, len(rows) - 1, min(most, len(rows))).astype(int)]
        key = (np.array(chosen).tobytes(), per_band)
        if key not in self._statistics:
            self._statistics[key] = self._measured(chosen, per_band)
        mean_F1, std_F1 = self._statistics[key]
        return mean_F1.clone(), std_F1.clone()

    def _measured(self, chosen: list[int], per_band: bool) -> tuple[Tensor, Tensor]:
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

    def _heard(
        self, rows_B: np.ndarray, starts_B: np.ndarray, frames: int
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """The piece of each clip that has to be known for its frames: first sample, samples, and in it the first frame.

        A piece begins where a frame of the whole clip is centred, and holds more on both sides than a frame hears; or
        it begins or ends with its clip, and is mirrored there as that is.
        """
        clip_B = self._length_N[rows_B]
        rate_hz, hop, source_hz = self.log_mel.rate_hz, self.log_mel.hop_samples, self._store.data.sample_rate_hz
        step = rate_hz // math.gcd(hop * source_hz, rate_hz)  # frames that are a whole number of samples apart
        unit = step * hop * source_hz // rate_hz
        margin = -(-(self.log_mel.fewest_samples + _MARGIN_SAMPLES) // unit)
        samples = (-(-frames // step) + 1 + 2 * margin) * unit
        whole_B = (samples > clip_B) | (starts_B + frames > self.log_mel.frames(clip_B))
        if self.device.type in WHOLE_ON:
            whole_B[:] = True
        begin_B = np.minimum(np.maximum(starts_B // step - margin, 0), (clip_B - samples) // unit)
        begin_B = np.where(whole_B, 0, begin_B)
        last_B = whole_B | (begin_B == (clip_B - samples) // unit)
        return begin_B * unit, np.where(last_B, clip_B - begin_B * unit, samples), starts_B - begin_B * step

    def _log_mels(
        self, lengths_P: np.ndarray, rows_P: np.ndarray, firsts_P: np.ndarray
    ) -> Iterator[tuple[int, Tensor]]:
        """Log-mels of pieces that are sorted by length: of some at once, and the number of the first of them."""
        for length in np.unique(lengths_P).tolist():
            begin, end = np.searchsorted(lengths_P, [length, length + 1]).tolist()
            at_once = max(1, _BATCH_SAMPLES // length)
            if self.device.type == "cpu" and torch.get_num_threads() == 1:
                at_once = 1  # stays in the core's caches, and takes half the time
            for first in range(begin, end, at_once):
                some = slice(first, min(first + at_once, end))
                yield first, self.log_mel.log_mel(self._read(rows_P[some], firsts_P[some], length))

    def _read(self, rows_P: np.ndarray, firsts_P: np.ndarray, samples: int) -> Tensor:
        """x_PS on the device."""
        if self.device.type != "cuda":
            return torch.from_numpy(self._store.waveforms(rows_P, firsts_P, samples)).to(self.device)
        as_kept = torch.int16 if self._store.data.dtype == "int16" else torch.float16
        raw_PS = torch.empty(len(rows_P), samples, dtype=as_kept, pin_memory=True)  # so that copying waits for nothing
        self._store.read(rows_P, firsts_P, raw_PS.numpy())
        x_PS = raw_PS.to(self.device, non_blocking=True).float()
        return x_PS * 2.0**-15 if as_kept == torch.int16 else x_PS

    def _all(self) -> Iterator[tuple[int, Tensor]]:
        """The log-mel of every clip as spec_TF, with its place among the frames of all."""
        row_N, offset_N = np.argsort(self._length_N, kind="stable"), self._offset_N.tolist()
        for first, spec_PFT in self._log_mels(self._length_N[row_N], row_N, np.zeros_like(row_N)):
            for row, spec_FT in zip(row_N[first : first + len(spec_PFT)], spec_PFT, strict=True):
                yield offset_N[row], spec_FT.T

    def _mapped(self, features: Features, num_bytes: int) -> Tensor:
        """The file of all log-mels, flat. One process writes it while others that want the same wait."""
        store = self._store if isinstance(self._store, Store) else next(iter(self._store.stores.values()))
        path = store.folder / f"log_mel-{self._name(features)}.f32"
        try:
            with FileLock(path.with_suffix(".lock")):
                if not path.exists() or path.stat().st_size != num_bytes:
                    if (free := shutil.disk_usage(path.parent).free) < num_bytes + _SPARE_BYTES:
                        raise OSError(f"they take {num_bytes / 2**30:.1f} GiB, of which {free / 2**30:.1f} are free")
                    self._write(path)
                os.utime(path)  # the last use
            with suppress(FileNotFoundError):  # another process clears up as well
                files = sorted(path.parent.glob("log_mel-*.f32"), key=lambda file: file.stat().st_mtime)
                for old in files[:-KEPT_FILES]:
                    old.unlink()  # who has it open keeps it
            return torch.from_file(str(path), size=num_bytes // 4, dtype=torch.float32)
        except OSError as error:
            raise BadInput(
                f"{path.parent}: the log-mels of its clips cannot be kept there: {error.strerror or error}; make room, "
                "choose another --cache, or set scale.device_cache to false, which computes each again when it is used"
            ) from None

    def _write(self, path: Path) -> None:
        part, threads = path.with_suffix(".part"), torch.get_num_threads()
        torch.set_num_threads(1)  # so that the numbers are the same, whichever trial of the node comes first
        try:
            with part.open("wb") as file:
                for start, spec_TF in self._all():
                    file.seek(4 * start * self.log_mel.num_bands)
                    file.write(spec_TF.contiguous().numpy().tobytes())
                file.flush()
                os.fsync(file.fileno())  # a power cut may not leave a visible file with holes
        finally:
            torch.set_num_threads(threads)
        part.replace(path)

    def _name(self, features: Features) -> str:
        """Names what the log-mels of a store depend on: the front end and its code, torch, and the processor."""
        about = [
            features.model_dump(mode="json", exclude={"normalise"}),
            hashlib.sha256(Path(front_ends.__file__).read_bytes()).hexdigest(),
            torch.__version__,
            torch.backends.cpu.get_cpu_capability(),
            self._store.fingerprints if isinstance(self._store, ShardedStore) else None,
        ]
        return hashlib.sha256(json.dumps(about).encode()).hexdigest()[:20]


def _has_room(num_bytes: int, device: torch.device, scale: Scale) -> bool:
    """Whether a trial's share of a GPU has room for log-mels of this size, and for its training."""
    torch.cuda.empty_cache()  # what an earlier trial of this process held is free
    free, total = torch.cuda.mem_get_info(device)
    share = total * min(scale.gpus_per_worker or 1.0, 1.0)
    if scale.device_cache is True and num_bytes > free:
        raise BadInput(
            f"scale.device_cache: the log-mels take {num_bytes / 2**30:.1f} GiB, but {free / 2**30:.1f} GiB of the GPU "
            "are free; leave it at auto"
        )
    return scale.device_cache is True or (scale.device_cache == "auto" and num_bytes <= min(free, share) / 2)
