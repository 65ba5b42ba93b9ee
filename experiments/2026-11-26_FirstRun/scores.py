"""The rank correlation of forecasts with what could be earned, for every label, model and seed.

Legend: T sessions, S symbols, H horizons.
"""

from collections.abc import Iterable, Iterator
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
) -> Iterator[tuple[Set, str, str, int, Forecast]]:
    """Every whole stitched forecast of a period: set, model, label, seed, forecast."""
    for name in sets:
        found = all_sets(data)[name]
        for model in models:
            for label in LABELS:
                for seed in seeds:
                    forecast = stitched(found, cache, model, label, seed, period, pace_of(model, name))
                    if forecast is not None:
                        yield found, model, label, seed, forecast


def ic_table(data: Path, cache: Path, sets: Iterable[str], seeds: Iterable[int], period: str) -> pd.DataFrame:
    """One row a set, model, label, seed and horizon.

    ic: mean daily Spearman correlation of the forecast with the log return open to open; t, low and high allow for
    overlapping labels (evidence/scores.py). score_ic: the same of the median over the forecast's own spread, which is
    what a portfolio reads.
    """
    rows = []
    for found, model, label, seed, forecast in kept(data, cache, sets, seeds, period):
        earned_TSH = found.earned_TSH[found.rows(period)]
        median_TSH = forecast.quantiles_TSHQ[..., 1]
        score_TSH = median_TSH / np.maximum(np.ptp(forecast.quantiles_TSHQ, axis=-1), 1e-12)
        for h, horizon in enumerate(HORIZONS):
            ours, score = (
                daily_scores(values_TSH[:, :, h], earned_TSH[:, :, h], overlap=horizon)["rank_ic"]
                for values_TSH in (median_TSH, score_TSH)
            )
            rows.append({
                "set": found.name, "model": model, "label": label, "seed": seed, "horizon": horizon,
                "ic": ours.value, "t": ours.t, "low": ours.low, "high": ours.high,
                "score_ic": score.value, "score_t": score.t, "days": ours.days,
            })  # fmt: skip
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
