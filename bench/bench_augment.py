"""Clips a second of two views, augmented as a batch, against one clip after another as BYOL-A does in its data loader.

Log-mixup-exp, then random resize crop, of clips and partners that are resident in memory. The reference has one worker
of a data loader a thread (of one thread each; with one, no process of its own), is given the random numbers, and crops
by torch's interpolate. Both give the same views to 1e-4. Nothing keeps the views of a batch, as a training does not.
"""

import time
from collections.abc import Iterable, Iterator

import torch
from corpus import report
from torch import Tensor
from torch.nn import functional
from torch.utils.data import DataLoader, Dataset

from raysd.model.augment import EPS, Augment, AugmentBatch, LogMixupExp, RandomResizeCrop, apply
from raysd.model.draws import Draws

RUNS, CLIPS, BATCH, BANDS = 7, 512, 64, 128
FRAMES = {"2 s": 62, "6.4 s": 200}
MIX, CROP = LogMixupExp(), RandomResizeCrop()


class PerClip(Dataset[tuple[Tensor, Tensor]]):
    """Two views of each clip, made when it is asked for."""

    def __init__(self, spec_NFT: Tensor, partner_NFT: Tensor) -> None:
        self.spec_NFT, self.partner_NFT = spec_NFT, partner_NFT
        draws = [Draws(0, 0, torch.arange(len(spec_NFT)), view) for view in (0, 1)]
        self.share_VN = [view.uniform("log_mixup_exp.share", 1, 0.0, MIX.alpha)[:, 0].tolist() for view in draws]
        self.size_VN2 = [view.uniform("random_resize_crop.size", 2).tolist() for view in draws]
        self.place_VN2 = [view.uniform("random_resize_crop.place", 2).tolist() for view in draws]

    def __len__(self) -> int:
        return len(self.spec_NFT)

    def __getitem__(self, item: int) -> tuple[Tensor, Tensor]:
        return self.view(0, item), self.view(1, item)

    def view(self, view: int, item: int) -> Tensor:
        x_FT, z_FT, share = self.spec_NFT[item], self.partner_NFT[item], self.share_VN[view][item]
        mixed_FT = torch.log((1 - share) * x_FT.exp() + share * z_FT.exp() + EPS)
        bands, frames = mixed_FT.shape
        canvas = torch.zeros(int(bands * CROP.virtual_crop_scale[0]), int(frames * CROP.virtual_crop_scale[1]))
        top, left = (canvas.shape[0] - bands) // 2, (canvas.shape[1] - frames) // 2
        canvas[top : top + bands, left : left + frames] = mixed_FT
        box: list[slice] = []
        for axis, (low, high) in enumerate((CROP.freq_scale, CROP.time_scale)):
            scale = low + (high - low) * self.size_VN2[view][item][axis]
            extent = min(max(int(scale * mixed_FT.shape[axis]), 1), canvas.shape[axis])
            start = int(self.place_VN2[view][item][axis] * (canvas.shape[axis] - extent + 1))
            box.append(slice(start, start + extent))
        crop_11FT = canvas[box[0], box[1]][None, None]
        return functional.interpolate(crop_11FT, size=(bands, frames), mode="bicubic", align_corners=True)[0, 0]


def batched(spec_NFT: Tensor, partner_NFT: Tensor, band_hz_F: Tensor) -> Iterator[list[Tensor]]:
    """Two views of each batch."""
    augment = Augment(log_mixup_exp=MIX, random_resize_crop=CROP)
    item_N = torch.arange(len(spec_NFT), device=spec_NFT.device)
    for item_B, spec_BFT, partner_BFT in zip(
        *(whole.split(BATCH) for whole in (item_N, spec_NFT, partner_NFT)), strict=True
    ):
        draws = Draws(0, 0, item_B, 0), Draws(0, 0, item_B, 1)
        batches = (AugmentBatch(view, lambda stream: partner_BFT, band_hz_F) for view in draws)  # noqa: B023
        yield [apply(augment, spec_BFT, batch) for batch in batches]


def clips_per_second(batches: Iterable[list[Tensor]], device: str) -> float:
    began = time.perf_counter()
    for _ in batches:
        pass
    if device == "cuda":
        torch.cuda.synchronize()
    return CLIPS / (time.perf_counter() - began)


def measure(length: str, threads: int, device: str) -> None:
    torch.set_num_threads(threads)
    drawn = Draws(0, 0, torch.arange(2 * CLIPS)).normal("clips", BANDS * FRAMES[length]).view(2, CLIPS, BANDS, -1)
    resident, band_hz_F = drawn.to(device), torch.linspace(50.0, 8000.0, BANDS)
    loader = DataLoader(
        PerClip(drawn[0], drawn[1]),
        BATCH,
        num_workers=0 if threads == 1 else threads,
        persistent_workers=threads > 1,
        worker_init_fn=lambda worker: torch.set_num_threads(1),
    )
    for views, others in zip(batched(resident[0], resident[1], band_hz_F), loader, strict=True):  # warms up as well
        torch.testing.assert_close([view.cpu() for view in views], list(others), rtol=0, atol=1e-4)
    ours, reference = [], []
    for _ in range(RUNS):
        ours.append(clips_per_second(batched(resident[0], resident[1], band_hz_F), device))
        reference.append(clips_per_second(loader, device))
    where = "GPU" if device == "cuda" else f"{threads} threads" if threads > 1 else "1 thread"
    goal = ">= 50" if device == "cuda" else ">= 2"
    report(f"two augmented views of {length} clips, {where}", "clips/s", ours, reference, goal)


def main() -> None:
    for length in FRAMES:
        for threads in (1, 2):
            measure(length, threads, "cpu")
        if torch.cuda.is_available():
            measure(length, 1, "cuda")


if __name__ == "__main__":
    main()
