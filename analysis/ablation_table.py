"""Prints the ablation tables of a paper: augmentations, cutoffs, pretraining, or whichever studies are named.

    python analysis/ablation_table.py --results results/real --profile cpu --study augmentation --format latex

--study can be given several times; all other options are those of `raysd table`. A study of which the results hold
nothing is told on standard error, and does not keep the others back; the exit status is the worst of theirs.
"""

import argparse
import sys

from raysd.cli import main

STUDIES = ("augmentation", "cutoff", "pretraining")

if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("--study", action="append", help=f"name or file, repeatable; without it {', '.join(STUDIES)}")
    options, others = parser.parse_known_args()
    status = 0
    for study in options.study or STUDIES:
        sys.argv[1:] = ["table", study, *others]
        try:
            main()
        except SystemExit as ended:
            status = max(status, int(ended.code or 0))
    sys.exit(status)
