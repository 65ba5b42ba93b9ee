"""The rank correlation of forecasts with what could be earned, for every label, model and seed.

Legend: T sessions, S symbols, H horizons.
"""

from collections.abc import Iterable, Iterator
from itertools import product
from pathlib import Path

import numpy as np
import pandas as pd
from learn import VARIANTS
from sets import HORIZONS, LABELS, Set, all_sets, pace_of, stitched

from hftraining.core.forecast import Forecast
from hftraining.evidence.scores import daily_scores

KEY = ["set", "model", "label", "horizon"]


def kept(
    data: Path,
    cache: Path,
    sets: Iterable[str],
    seeds: Iterable[int],
    period: str,
    models: Iterable[str] = tuple(VARIANTS),
    labels: Iterable[str] = LABELS,
) -> Iterator[tuple[Set, str, str, int, Forecast]]:
    """Every whole stitched forecast of a period: set, model, label, seed, forecast."""
    everything = all_sets(data)
    for name, model, label, seed in product(sets, models, labels, seeds):
        found = everything[name]
        forecast = stitched(found, cache, model, label, seed, period, pace_of(model, name))
        if forecast is not None:
            yield found, model, label, seed, forecast


def ic_table(data: Path, cache: Path, sets: Iterable[str], seeds: Iterable[int], period: str) -> pd.DataFrame:
    """One row a set, model, label, seed and horizon, kept as they come; see `ic_rows`."""
    tables = []
    for found, model, label, seed, forecast in kept(data, cache, sets, seeds, period):
        path = cache / "ic" / period / found.name / f"{model}_{label}_{seed}.csv"
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            ic_rows(found, forecast, period).to_csv(path, index=False)
        tables.append(pd.read_csv(path).assign(set=found.name, model=model, label=label, seed=seed))
    return pd.concat(tables)


def ic_rows(found: Set, forecast: Forecast, period: str) -> pd.DataFrame:
    """One row a horizon.

    ic: mean daily Spearman correlation of the forecast with the log return open to open; t, low and high allow for
    overlapping labels (evidence/scores.py). score_ic: the same of the median over the forecast's own spread, which is
    what a portfolio reads.
    """
    earned_TSH = found.earned_TSH[found.rows(period)]
    median_TSH = forecast.quantiles_TSHQ[..., 1]
    score_TSH = median_TSH / np.maximum(np.ptp(forecast.quantiles_TSHQ, axis=-1), 1e-12)
    rows = []
    for h, horizon in enumerate(HORIZONS):
        ours, score = (
            daily_scores(values_TSH[:, :, h], earned_TSH[:, :, h], overlap=horizon)["rank_ic"]
            for values_TSH in (median_TSH, score_TSH)
        )
        own = {"ic": ours.value, "t": ours.t, "low": ours.low, "high": ours.high, "days": ours.days}
        rows.append({"horizon": horizon, **own, "score_ic": score.value, "score_t": score.t})
    return pd.DataFrame(rows)


def over_seeds(table: pd.DataFrame) -> pd.DataFrame:
    """Means over seeds of IC and t, and the spread of IC between them."""
    grouped = table.groupby(KEY, sort=False)
    return grouped.agg(
        seeds=("seed", "size"), ic=("ic", "mean"), t=("t", "mean"), spread=("ic", "std"),
        least=("ic", "min"), most=("ic", "max"), score_ic=("score_ic", "mean"), score_t=("score_t", "mean"),
    ).reset_index()  # fmt: skip


def wide(table: pd.DataFrame, value: str, error: str) -> pd.DataFrame:
    """`value (t)` of each label as columns, one row a set, model and horizon."""
    mean = over_seeds(table)
    mean["cell"] = [f"{ic:+.4f} ({t:+.1f})" for ic, t in zip(mean[value], mean[error], strict=True)]
    cells = mean.pivot(index=["set", "model", "horizon"], columns="label", values="cell")
    return cells.reindex(columns=[label for label in LABELS if label in cells]).reset_index()


def markdown(table: pd.DataFrame) -> str:
    """A table as Markdown; numbers with four digits."""

    def said(value: object) -> str:
        return f"{value:.4g}" if isinstance(value, float) else str(value)

    lines = ["| " + " | ".join(map(str, table.columns)) + " |", "|" + " --- |" * len(table.columns)]
    lines += ["| " + " | ".join(map(said, row)) + " |" for row in table.itertuples(index=False)]
    return "\n".join(lines)
