"""Three hundred damaged files of conf/: each ends with exit code 0, 2 or 3, in a few lines and a few seconds.

python experiments/2026-11-26_Strangers/yaml_files.py --cases 300 --first 0
"""

import argparse
import shutil
from collections.abc import Iterator
from pathlib import Path

from forks import ROOT, Case, Forks, run_all

from tests.mutations import mutate_a_file


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", type=int, default=300)
    parser.add_argument("--first", type=int, default=0, help="the first seed")
    options = parser.parse_args()
    forks = Forks()

    def cases() -> Iterator[tuple[str, object]]:
        for seed in range(options.first, options.first + options.cases):
            conf = forks.place / "conf"
            shutil.rmtree(conf, ignore_errors=True)
            shutil.copytree(ROOT / "conf", conf)
            done = mutate_a_file(conf, seed)

            def run(name: str = f"{seed:05d}", conf: Path = conf) -> Case:
                return forks.case(name, [], conf)

            yield done, run

    run_all(forks, cases(), Path(__file__).with_name("yaml_files.csv"))


if __name__ == "__main__":
    main()
