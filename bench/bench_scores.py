"""Nearest-neighbour scores at size, against scikit-learn's brute-force search; and the memory that each takes.

20,000 training and 10,000 test clips of one section, 128 dimensions. The first lines are of the test clips alone, the
next also of the training clips, each without itself. Runs alternate. Memory is the peak of a process of its own, less
what it held with the embeddings.
"""

import subprocess
import sys
import time
from pathlib import Path

import numpy as np
from corpus import report
from sklearn.neighbors import NearestNeighbors

from raysd.detect.scores import Embedded, NearestNeighbours, _unit
from raysd.detect.scoring import score_clips

RUNS, TRAIN, TEST, DIMENSIONS = 3, 20_000, 10_000, 128
DISTANCES = ("cosine", "euclidean")


def embeddings() -> tuple[np.ndarray, np.ndarray]:
    """Clusters, as a section's operating states form them."""
    rng = np.random.default_rng(0)
    centre_KD = rng.normal(size=(20, DIMENSIONS))
    z_ND, z_MD = (centre_KD[rng.integers(20, size=n)] + rng.normal(size=(n, DIMENSIONS)) for n in (TRAIN, TEST))
    return z_ND.astype(np.float32), z_MD.astype(np.float32)


def ours(distance: str, z_ND: np.ndarray, z_MD: np.ndarray, both: bool) -> np.ndarray:
    """Scores of the test clips, from the door that trials use, or from the search alone."""
    scorer = NearestNeighbours.model_validate({"distance": distance})
    if not both:
        z_ND, z_MD = z_ND.astype(np.float64), z_MD.astype(np.float64)
        if distance == "cosine":
            z_ND, z_MD = _unit(z_ND), _unit(z_MD)
        return scorer._mean_distance(z_MD, z_ND)
    names = [np.full(n, "fan") for n in (len(z_ND), len(z_MD))]
    train, test = (Embedded(z, name, name, name) for z, name in zip((z_ND, z_MD), names, strict=True))
    return score_clips(scorer, train, test, 0)[1]


def theirs(distance: str, z_ND: np.ndarray, z_MD: np.ndarray, both: bool) -> np.ndarray:
    search = NearestNeighbors(n_neighbors=1, algorithm="brute", metric=distance).fit(z_ND)
    if both:
        search.kneighbors()
    return search.kneighbors(z_MD)[0][:, 0]


SEARCHES = {"ours": ours, "scikit-learn": theirs}


def peak_mb(search: str, distance: str) -> float:
    """Of a process that does nothing else."""
    command = [sys.executable, __file__, search, distance]
    return float(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def in_process(search: str, distance: str) -> None:
    z_ND, z_MD = embeddings()
    SEARCHES[search](distance, z_ND[:100], z_MD[:100], True)  # loads what it needs
    held = memory_mb("VmRSS")
    SEARCHES[search](distance, z_ND, z_MD, True)
    print(memory_mb("VmHWM") - held)


def memory_mb(what: str) -> float:
    """Of this process alone: getrusage's peak starts with that of the process which started it."""
    status = Path("/proc/self/status").read_text(encoding="utf-8")
    return int(next(line for line in status.splitlines() if line.startswith(what)).split()[1]) / 1024


def main() -> None:
    z_ND, z_MD = embeddings()
    for both in (False, True):
        for distance in DISTANCES:
            seconds: dict[str, list[float]] = {"ours": [], "scikit-learn": []}
            scores: dict[str, np.ndarray] = {}
            for _ in range(RUNS):
                for name, search in SEARCHES.items():
                    began = time.perf_counter()
                    scores[name] = search(distance, z_ND, z_MD, both)
                    seconds[name].append(time.perf_counter() - began)
            np.testing.assert_allclose(scores["ours"], scores["scikit-learn"], rtol=1e-4)
            what = "training and test" if both else "test"
            own, other = ([1 / each for each in seconds[name]] for name in SEARCHES)
            report(f"nearest neighbours, {distance}, scores of {what} clips", "searches/s", own, other, ">= 1")
    for distance in DISTANCES:
        own, other = ([peak_mb(name, distance)] for name in SEARCHES)
        report(f"memory of nearest neighbours, {distance}", "MB", own, other, "<= 500 MB; all distances take 4,800")


if __name__ == "__main__":
    in_process(*sys.argv[1:]) if len(sys.argv) > 1 else main()
