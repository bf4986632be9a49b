"""Pre-trains in one of several gloo workers, as `torchrun` starts them, each with a cache of its own."""

import sys
from pathlib import Path

import torch.distributed as dist

from raysd.parallel import rank
from raysd.pretrain import Job
from raysd.study.pretrainings import load_pretraining
from raysd.trial import Place
from raysd.yaml_values import parse_assignments


def main(file: str, root: str, out: str, *changes: str) -> None:
    dist.init_process_group("gloo")
    place = Place(Path(root), Path(out) / f"cache{rank()}", Path(out) / "results")
    for change in changes:
        loaded = load_pretraining(file, parse_assignments(change.split()))
        Job(loaded, place, None)("cpu", lambda epoch: None)
    dist.destroy_process_group()


if __name__ == "__main__":
    main(*sys.argv[1:])
