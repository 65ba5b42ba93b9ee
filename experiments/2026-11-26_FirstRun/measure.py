"""Which label and which portfolio a first run should have, measured on the validation days of four sets of bars.

    python measure.py DATA CACHE learn --models ridge --sets us300 --labels zscore --seeds 1,2
    python measure.py DATA CACHE ic | portfolios | chosen | test

DATA: the folder of the bars. CACHE: where forecasts are kept, so that a broken run goes on and portfolios are tried
without training. Tables go to this folder.
"""

import argparse
from itertools import product
from pathlib import Path

import torch
from books import grid, try_all
from learn import VARIANTS, learn
from scores import ic_table, markdown, wide
from sets import LABELS, all_sets, pace_of

HERE = Path(__file__).parent
SEEDS = (1, 2, 3, 4, 5)


def run_learning(data: Path, cache: Path, asked: dict[str, list[str]], seeds: list[int], period: str) -> None:
    """Train what is asked for and not kept yet: seed after seed, so that all labels have as many."""
    sets = all_sets(data)
    for found in (sets[name] for name in asked["sets"]):
        labels = {label: found.labels_TSH(label) for label in asked["labels"]}
        for seed, model in product(seeds, asked["models"]):
            if model == "ridge" and seed != 1:
                continue  # it has no seed
            for label, labels_TSH in labels.items():
                for span in found.spans(period, pace_of(model, found.name)):
                    learn(found, labels_TSH, VARIANTS[model], label, seed, span, cache)


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("cache", type=Path)
    parser.add_argument("what", choices=("learn", "ic", "portfolios", "chosen", "test"))
    parser.add_argument("--models", default="ridge,lightgbm,small")
    parser.add_argument("--sets", default="us300,kdd17,stocknet88,sp500_369")
    parser.add_argument("--labels", default=",".join(LABELS))
    parser.add_argument("--seeds", default=",".join(map(str, SEEDS)))
    parser.add_argument("--period", default="valid", choices=("valid", "test"))
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    asked = {name: str(getattr(arguments, name)).split(",") for name in ("sets", "models", "labels")}
    seeds = [int(seed) for seed in arguments.seeds.split(",")]
    if arguments.what == "learn":
        run_learning(arguments.data, arguments.cache, asked, seeds, arguments.period)
    elif arguments.what == "ic":
        table = ic_table(arguments.data, arguments.cache, asked["sets"], seeds, arguments.period)
        table.to_csv(HERE / f"ic_{arguments.period}.csv", index=False, float_format="%.6g")
        print(markdown(wide(table, "ic", "t")))
    else:
        where = (arguments.data, arguments.cache, asked["sets"], seeds, asked["models"], asked["labels"])
        table = try_all(*where, grid(), arguments.period, with_evidence=False)
        table.to_csv(HERE / f"portfolios_{arguments.period}.csv", index=False, float_format="%.6g")


if __name__ == "__main__":
    main()
