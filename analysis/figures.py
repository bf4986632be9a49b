"""Writes the figures of a paper: of several studies and years, each year in a folder of its own.

    python analysis/figures.py --results results/real --profile cpu --to FOLDER

All options but --studies, --years and --to are those of `raysd figures`. A study of which the results hold nothing is
told, and does not keep the others back; the exit status is the worst of theirs.
"""

import argparse
import sys
from pathlib import Path

from raysd.cli import main

if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("--studies", nargs="+", default=["augmentation", "cutoff", "search"], help="names or files")
    parser.add_argument("--years", nargs="+", type=int, default=[2020, 2022], help="DCASE years")
    parser.add_argument("--to", type=Path, default=Path("figures"), help="the folder with a folder for each year")
    options, others = parser.parse_known_args()
    status = 0
    for year in options.years:
        for study in options.studies:
            folder = options.to / str(year)
            sys.argv[1:] = ["figures", study, "--set", f"data.year={year}", "--to", str(folder), *others]
            try:
                main()
            except SystemExit as ended:
                status = max(status, int(ended.code or 0))
    sys.exit(status)
