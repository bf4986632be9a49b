"""Prints the comparison table of DCASE 2022: what is published, and the trials of a study of ours beside it.

    python analysis/dcase2022_table.py --results results/real --study augmentation --profile cpu --format markdown

All options but --study are those of `raysd table`.
"""

import argparse
import sys

from raysd.cli import main

YEAR = 2022

if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("--study", default=f"dcase{YEAR}", help="a study file, or the name of a predefined study")
    options, others = parser.parse_known_args()
    sys.argv[1:] = ["table", options.study, "--published", "--set", f"data.year={YEAR}", *others]
    main()
