"""Which features, which model: `python measure.py DATA KEPT learn|table [--data us300] [--features basic,wide] ...`.

learn trains what is asked and not yet kept, `--workers` processes at once; table scores all that is kept, puts it into
scores.csv in place of what that has of the same models, and prints the tables of README.md. Run it from the project's
root with PYTHONPATH=. and one thread each.

Legend: T sessions, S symbols, H horizons.
"""

import argparse
from concurrent.futures import ProcessPoolExecutor
from itertools import product
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from walk import LEVELS, SETS, VARIANTS, Task, bars_of, learn, stitched

from hftraining.core.bars import Bars
from hftraining.core.forecast import Forecast
from hftraining.evidence.bootstrap import sharpe_difference, sharpe_interval
from hftraining.evidence.scores import daily_scores
from hftraining.evidence.selection import Track, judge_excess
from hftraining.portfolio.config import PortfolioConfig
from hftraining.profit_tracker import ProfitTracker
from hftraining.trading.config import ProfitTrackerConfig
from hftraining.trading.metrics import daily_returns

HERE = Path(__file__).resolve().parent
LAG, DRAWS, SEED = 1, 2000, 1
MIDDLE = LEVELS.index(0.5)
PAIR, BY_SPREAD = "small+lightgbm", "small+lightgbm by spread"
MEAN = r"^mean of (\d+): "


def score(bars: Bars, forecast: Forecast, first: str) -> dict[str, float]:
    """Daily rank IC at each horizon with its t, and what the default portfolio earns beside holding, after costs."""
    start = int(np.searchsorted(bars.sessions_T, np.datetime64(first)))
    rows = slice(start, start + len(forecast.head_TS))
    log_TS, row = np.log(bars.open_TS), {}
    for h, horizon in enumerate(forecast.horizons):
        earned_TS = (
            log_TS[rows.start + LAG + horizon : rows.stop + LAG + horizon] - log_TS[rows.start + LAG : rows.stop + LAG]
        )
        found = daily_scores(forecast.quantiles_TSHQ[:, :, h, MIDDLE], earned_TS, overlap=horizon)["rank_ic"]
        row |= {f"ic_{horizon}": found.value, f"t_{horizon}": found.t}
    own = bars.rows(rows)
    report = ProfitTracker(ProfitTrackerConfig(), PortfolioConfig()).evaluate(own, forecast)
    ours, theirs = (daily_returns(of.simulation.equity_T) for of in (report, report.buy_and_hold))
    alpha = judge_excess(Track(own.sessions_T[1:], ours, theirs), [], 1, DRAWS, SEED).alpha
    apart, sharpe = sharpe_difference(ours, theirs, DRAWS, SEED), sharpe_interval(ours, DRAWS, SEED)
    for name, found in (("sharpe", sharpe), ("lead", apart), ("alpha", alpha)):
        row |= {name: found.value, f"{name}_low": found.low, f"{name}_high": found.high}
    return row | {"turnover": report.metrics["turnover"]}


def mean_of(forecasts: list[Forecast]) -> Forecast:
    """Quantiles averaged level by level, as hfinference.average_predictions."""
    quantiles_TSHQ = np.mean([forecast.quantiles_TSHQ for forecast in forecasts], axis=0)
    first = forecasts[0]
    return Forecast(quantiles_TSHQ, first.head_TS, first.horizons, first.levels, first.relative)


def fold_rows(bars: Bars, name: str) -> list[slice]:
    """The rows of each fold among the days that are forecast."""
    days = [np.datetime64(day) for fold in Task(name, "", "", 0).folds() for day in fold]
    rows = np.searchsorted(bars.sessions_T, days) - np.searchsorted(bars.sessions_T, days[0])
    return [slice(first, stop) for first, stop in zip(rows[::2], rows[1::2], strict=True)]


def by_spread(parts: list[tuple[Forecast, float]], folds: list[slice]) -> tuple[Forecast, float]:
    """Quantiles averaged with weights of 1 / the spread of a member's medians at 5 sessions.

    That of the fold's days until the day itself, so that no day is weighed by a later one; `--weights spread` of the
    product has one weight a member, of the validation days, which are not kept here.
    """
    quantiles_M = [forecast.quantiles_TSHQ for forecast, _ in parts]
    h, weights_M = parts[0][0].horizons.index(5), []
    for quantiles_TSHQ in quantiles_M:
        median_TS, spread_T = quantiles_TSHQ[:, :, h, MIDDLE], np.empty(len(quantiles_TSHQ))
        for rows in folds:
            own_TS = median_TS[rows]
            count_T = np.isfinite(own_TS).sum(axis=1).cumsum()
            mean_T = np.nansum(own_TS, axis=1).cumsum() / count_T
            spread_T[rows] = np.sqrt(np.nansum(own_TS**2, axis=1).cumsum() / count_T - mean_T**2)
        weights_M.append(1.0 / spread_T)
    mean_TSHQ = np.zeros_like(quantiles_M[0])
    for weight_T, quantiles_TSHQ in zip(weights_M, quantiles_M, strict=True):
        mean_TSHQ += (weight_T / sum(weights_M))[:, None, None, None] * quantiles_TSHQ
    first = parts[0][0]
    made = Forecast(mean_TSHQ, first.head_TS, first.horizons, first.levels, first.relative)
    return made, sum(seconds for _, seconds in parts)


def table(data: Path, kept: Path, tasks: list[Task]) -> pd.DataFrame:
    """One row a task that is whole, and one for each mean of seeds, of the transformer and lightgbm, and of both.

    Of transformer and lightgbm with equal weights, and with weights by their spread. A mean costs what its members do.
    """
    found = {task: parts for task in tasks if (parts := stitched(task, data, kept)) is not None}
    books: dict[tuple[str, str], dict[str, dict[int, tuple[Forecast, float]]]] = {}
    for task, parts in found.items():
        books.setdefault((task.data, task.features), {}).setdefault(task.variant, {})[task.seed] = parts
    rows = []
    for (name, features), variants in books.items():
        for seed, parts in variants.get("small", {}).items():
            if seed in variants.get("lightgbm", {}):
                both = [parts, variants["lightgbm"][seed]]
                variants.setdefault(PAIR, {})[seed] = _mean_of(both)
                variants.setdefault(BY_SPREAD, {})[seed] = by_spread(both, fold_rows(bars_of(data, name), name))
        for variant in [known for known, seeds in variants.items() if len(seeds) > 1]:
            variants[f"mean of {len(variants[variant])}: {variant}"] = {0: _mean_of(list(variants[variant].values()))}
        bars, first = bars_of(data, name), f"{SETS[name].years[0]}-01-01"
        for variant, seeds in variants.items():
            for seed, (forecast, seconds) in seeds.items():
                row = {"data": name, "features": features, "variant": variant, "seed": seed}
                rows.append(row | score(bars, forecast, first) | {"seconds": seconds})
    return pd.DataFrame(rows)


def joined(scores: pd.DataFrame, known: pd.DataFrame) -> pd.DataFrame:
    """These scores with those that were known before, in the order of sets, features and models.

    Of two means of seeds the one of more seeds counts.
    """
    both = pd.concat([scores, known])
    seeds = pd.to_numeric(both.variant.str.extract(MEAN, expand=False)).fillna(0)
    which = both.assign(variant=both.variant.str.replace(MEAN, "mean: ", regex=True))
    which = which.iloc[np.argsort(-seeds.to_numpy(), kind="stable")]
    repeated = which.duplicated(["data", "features", "variant", "seed"])
    both = both.iloc[np.argsort(-seeds.to_numpy(), kind="stable")][~repeated]
    order = [*VARIANTS, PAIR, BY_SPREAD]
    ranks = {
        "data": [*SETS].index,
        "features": ["basic", "wide"].index,
        "variant": lambda name: order.index(name) if name in order else 100 + order.index(name.split(": ")[1]),
    }
    return both.sort_values(["data", "features", "variant", "seed"], key=lambda c: c.map(ranks.get(c.name, int)))


def _mean_of(parts: list[tuple[Forecast, float]]) -> tuple[Forecast, float]:
    return mean_of([forecast for forecast, _ in parts]), sum(seconds for _, seconds in parts)


def in_words(scores: pd.DataFrame) -> str:
    """A Markdown table: means over seeds; spread of the IC between seeds; intervals of the first seed."""
    heads = ["set", "features", "model", "seeds", "IC 5 (t)", "spread", "IC 20 (t)", "Sharpe"]
    heads += ["lead over holding [95 %]", "alpha a year [95 %]", "turnover", "CPU s"]
    lines = ["| " + " | ".join(heads) + " |", "|" + " --- |" * len(heads)]
    for (data, features, variant), part in scores.groupby(["data", "features", "variant"], sort=False):
        mean, first = part.mean(numeric_only=True), part.iloc[0]
        spread = f"{part.ic_5.std():.4f}" if len(part) > 1 else ""
        lines.append(
            f"| {data} | {features} | {variant} | {len(part)} | {mean.ic_5:+.4f} ({mean.t_5:+.1f}) | {spread} "
            f"| {mean.ic_20:+.4f} ({mean.t_20:+.1f}) | {mean.sharpe:.2f} "
            f"| {mean.lead:+.2f} [{first.lead_low:+.2f}, {first.lead_high:+.2f}] "
            f"| {mean.alpha:+.1%} [{first.alpha_low:+.1%}, {first.alpha_high:+.1%}] "
            f"| {mean.turnover:.1f} | {mean.seconds:.0f} |"
        )
    return "\n".join(lines)


def learn_one(task: Task, data: Path, kept: Path) -> None:
    """A task in a process of its own."""
    torch.set_num_threads(1)
    learn(task, data, kept)


def main() -> None:
    """Learn, or score."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("kept", type=Path)
    parser.add_argument("what", choices=("learn", "table"))
    parser.add_argument("--data", default=",".join(SETS))
    parser.add_argument("--features", default="basic,wide")
    parser.add_argument("--models", default=",".join(VARIANTS))
    parser.add_argument("--seeds", default="1,2,3,4,5")
    parser.add_argument("--workers", type=int, default=2)
    given = parser.parse_args()
    asked = [str(getattr(given, name)).split(",") for name in ("data", "features", "models", "seeds")]
    tasks = [
        Task(data, features, model, int(seed))
        for seed, data, features, model in product(asked[3], asked[0], asked[1], asked[2])
        if not (model == "ridge" and seed != asked[3][0])  # which has no seed
    ]
    if given.what == "learn":
        with ProcessPoolExecutor(given.workers) as pool:
            for done in [pool.submit(learn_one, task, given.folder, given.kept) for task in tasks]:
                done.result()
        return
    path = HERE / "scores.csv"
    scores = joined(table(given.folder, given.kept, tasks), pd.read_csv(path))
    scores.to_csv(path, index=False, float_format="%.6g")
    print(in_words(scores))


if __name__ == "__main__":
    main()
