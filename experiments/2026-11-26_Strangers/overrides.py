"""A thousand random command lines: each ends with exit code 0, 2 or 3, in a few lines and a few seconds.

python experiments/2026-11-26_Strangers/overrides.py --cases 1000 --first 0
"""

import argparse
from pathlib import Path

from forks import Forks, run_all

from tests.mutations import mutated_overrides


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", type=int, default=1000)
    parser.add_argument("--first", type=int, default=0, help="the first seed")
    options = parser.parse_args()
    forks = Forks()
    seeds = range(options.first, options.first + options.cases)
    lines = {seed: mutated_overrides(seed) for seed in seeds}
    cases = ((ascii(words), lambda s=seed, w=words: forks.case(f"{s:05d}", w)) for seed, words in lines.items())
    run_all(forks, cases, Path(__file__).with_name("overrides.csv"))


if __name__ == "__main__":
    main()
