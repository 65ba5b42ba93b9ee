"""Which label and which portfolio a first run should have, measured on the validation days of four sets of bars.

    python measure.py DATA CACHE learn --models ridge --sets us300 --labels zscore --seeds 1,2
    python measure.py DATA CACHE ic            the rank correlations of all that was learned
    python measure.py DATA CACHE portfolios    every portfolio of the grid on the kept forecasts
    python measure.py DATA CACHE choose        what the two tables choose
    python measure.py DATA CACHE evidence      the best portfolio of each kind, with intervals
    python measure.py DATA CACHE evidence --period test --book "tilt 0.5, smoothing 20, rate 0.05"       once

DATA: the folder of the bars. CACHE: where forecasts are kept, so that a broken run goes on and portfolios are tried
without training. Tables go to this folder.
"""

import argparse
from itertools import product
from pathlib import Path

import pandas as pd
import torch
from books import grid, name_of, try_all
from learn import VARIANTS, learn
from scores import ic_table, markdown, wide
from sets import LABELS, all_sets, pace_of
from tables import choose_label, choose_portfolio, leads, mean_over_seeds, with_intervals

from hftraining.portfolio.config import PortfolioConfig

HERE = Path(__file__).parent
SEEDS = (1, 2, 3, 4, 5)
MODELS = ("ridge", "lightgbm", "small")


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


def say_choice(label: str | None) -> tuple[str, pd.Series]:
    """Print what ic_valid.csv and portfolios_valid.csv choose; label: in place of the chosen one."""
    labels = choose_label(pd.read_csv(HERE / "ic_valid.csv").query("model in @MODELS"))
    print(markdown(labels), end="\n\n")
    chosen = label or str(labels.label.iloc[0])
    for against in ("equal_sharpe", "hold_sharpe"):
        table = leads(pd.read_csv(HERE / "portfolios_valid.csv").query("model in @MODELS"), chosen, against)
        print(f"{chosen}, lead over {against}\n{markdown(table.drop(columns='kind').head(12))}\n")
        print(markdown(table.groupby("kind", sort=False).head(3).drop(columns="kind")), end="\n\n")
        if against == "equal_sharpe":
            book = choose_portfolio(table)
    print("chosen:", chosen, book.to_dict())
    return chosen, book


def books_to_show(label: str, chosen: str, period: str) -> list[PortfolioConfig]:
    """The chosen portfolio and, on validation days, of each kind the one with the greatest mean lead."""
    table = leads(pd.read_csv(HERE / "portfolios_valid.csv").query("model in @MODELS"), label)
    names = {chosen, *(table.groupby("kind").book.first() if period == "valid" else ())}
    return [book for book in grid() if name_of(book) in names]


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("cache", type=Path)
    parser.add_argument("what", choices=("learn", "ic", "portfolios", "choose", "evidence"))
    parser.add_argument("--models", default=",".join(MODELS))
    parser.add_argument("--sets", default="us300,kdd17,stocknet88,sp500_369")
    parser.add_argument("--labels", default=",".join(LABELS))
    parser.add_argument("--seeds", default=",".join(map(str, SEEDS)))
    parser.add_argument("--period", default="valid", choices=("valid", "test"))
    parser.add_argument("--label", help="choose, evidence: in place of the label that validation chooses")
    parser.add_argument("--book", help="evidence: the name of a portfolio, in place of the one that the rule chooses")
    given = parser.parse_args()
    torch.set_num_threads(1)
    asked = {name: str(getattr(given, name)).split(",") for name in ("sets", "models", "labels")}
    seeds = [int(seed) for seed in given.seeds.split(",")]
    if given.what == "learn":
        run_learning(given.data, given.cache, asked, seeds, given.period)
    elif given.what == "ic":
        table = ic_table(given.data, given.cache, asked["sets"], seeds, given.period)
        table.to_csv(HERE / f"ic_{given.period}.csv", index=False, float_format="%.6g")
        print(markdown(wide(table, "ic", "t")), markdown(wide(table, "score_ic", "score_t")), sep="\n\n")
    elif given.what == "portfolios":
        where = (given.data, given.cache, asked["sets"], seeds, asked["models"], asked["labels"])
        table = try_all(*where, grid(), "valid", with_evidence=False)
        mean_over_seeds(table).to_csv(HERE / "portfolios_valid.csv", index=False, float_format="%.4g")
    else:
        label, book = say_choice(given.label)
        if given.what == "evidence":
            books = books_to_show(label, given.book or book.book, given.period)
            where = (given.data, given.cache, asked["sets"], seeds, asked["models"], [label])
            table = try_all(*where, books, given.period, with_evidence=True)
            table.to_csv(HERE / f"evidence_{given.period}.csv", index=False, float_format="%.6g")
            print(with_intervals(table))


if __name__ == "__main__":
    main()
