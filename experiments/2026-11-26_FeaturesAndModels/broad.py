"""Small universes: what a model of 364 stocks forecasts of 40 of them, beside a model that learned from these alone.

`python broad.py DATA KEPT learn|table [--universes 5] [--models lightgbm,mlp]`. The universes are drawn at random from
sp500_369, without one another's stocks; the broad forecasts are those that measure.py has kept (features `basic`). Both
are scored among the 40 stocks on the same days: daily rank IC, and the default portfolio beside holding them.

Legend: S symbols, T sessions, H horizons.
"""

import argparse
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from measure import score
from walk import SETS, Task, bars_of, learn, stitched

BROAD, SIZE, SEED = "sp500_369", 40, 7


def drawn(data: Path, count: int) -> list[str]:
    """The names of the universes, which are sets of walk.py from then on."""
    symbols_S = np.array(bars_of(data, BROAD).symbols_S)
    order_S = np.random.default_rng(SEED).permutation(len(symbols_S))
    names = [f"{BROAD}_of_{SIZE}_{number}" for number in range(1, count + 1)]
    for number, name in enumerate(names):
        chosen = tuple(sorted(symbols_S[order_S[number * SIZE : (number + 1) * SIZE]]))
        SETS[name] = replace(SETS[BROAD], symbols=chosen)
    return names


def table(data: Path, kept: Path, names: list[str], models: list[str], seeds: list[int]) -> pd.DataFrame:
    """One row a universe, model, seed and way of learning."""
    rows = []
    for model in models:
        for seed in seeds:
            if (broad := stitched(Task(BROAD, "basic", model, seed), data, kept)) is None:
                continue
            for name in names:
                if (alone := stitched(Task(name, "basic", model, seed), data, kept)) is None:
                    continue
                bars = bars_of(data, name)
                columns = bars_of(data, BROAD).columns_of(bars.symbols_S)
                cut = replace(
                    broad[0], quantiles_TSHQ=broad[0].quantiles_TSHQ[:, columns], head_TS=broad[0].head_TS[:, columns]
                )
                for learned, forecast in (("broad", cut), ("alone", alone[0])):
                    row = {"universe": name, "model": model, "seed": seed, "learned": learned}
                    rows.append(row | score(bars, forecast, f"{SETS[name].years[0]}-01-01"))
    return pd.DataFrame(rows)


def in_words(scores: pd.DataFrame) -> str:
    """Means over universes and seeds, and the difference universe by universe with its standard error."""
    lines = ["| model | learned from | IC 5 (mean t) | IC 20 | lead over holding | alpha a year |", "|" + " --- |" * 6]
    for (model, learned), part in scores.groupby(["model", "learned"], sort=False):
        mean = part.mean(numeric_only=True)
        lines.append(
            f"| {model} | {learned} | {mean.ic_5:+.4f} ({mean.t_5:+.1f}) | {mean.ic_20:+.4f} | {mean.lead:+.3f} "
            f"| {mean.alpha:+.2%} |"
        )
    wide = scores.pivot_table(index=["model", "universe", "seed"], columns="learned", values=["ic_5", "lead"])
    for value in ("ic_5", "lead"):
        apart = (wide[value]["broad"] - wide[value]["alone"]).groupby(["model", "universe"]).mean()
        for model, part in apart.groupby("model"):
            error = part.std() / np.sqrt(len(part))
            lines.append(f"{model}, {value}, broad - alone: {part.mean():+.4f} (s.e. {error:.4f}, n = {len(part)})")
    return "\n".join(lines)


def main() -> None:
    """Learn, or score."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("kept", type=Path)
    parser.add_argument("what", choices=("learn", "table"))
    parser.add_argument("--universes", type=int, default=5)
    parser.add_argument("--models", default="lightgbm,mlp,small")
    parser.add_argument("--seeds", default="1")
    given = parser.parse_args()
    names = drawn(given.folder, given.universes)
    models, seeds = given.models.split(","), [int(seed) for seed in given.seeds.split(",")]
    if given.what == "learn":
        torch.set_num_threads(1)
        for model in models:
            for name in names:
                for seed in seeds:
                    learn(Task(name, "basic", model, seed), given.folder, given.kept)
        return
    scores = table(given.folder, given.kept, names, models, seeds)
    scores.to_csv(Path(__file__).resolve().parent / "broad.csv", index=False, float_format="%.6g")
    print(in_words(scores))


if __name__ == "__main__":
    main()
