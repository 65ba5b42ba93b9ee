"""From the rows of results to the tables of the record, and to what they choose.

A mean over models takes each model once, whatever its number of seeds.
"""

import pandas as pd
from scores import markdown

MOST_TURNOVER, MOST_COSTS, ALIKE = 10.0, 0.02, 0.01
INTERVALS = ("sharpe", "to_hold", "to_equal", "alpha")


def choose_label(ic: pd.DataFrame) -> pd.DataFrame:
    """Mean rank IC of each label a set, over models and horizons, and over the sets; on how many sets it is best."""
    per_model = ic.groupby(["set", "model", "horizon", "label"]).ic.mean()
    per_set = per_model.groupby(["label", "set"]).mean().unstack("set")
    best = per_set.idxmax()
    table = per_set.assign(
        mean=per_set.mean(axis=1),
        better_than_none=(per_set > per_set.loc["none"]).sum(axis=1) if "none" in per_set.index else 0,
        best_on=[int((best == label).sum()) for label in per_set.index],
    )
    return table.sort_values(["best_on", "mean"], ascending=False).reset_index()


def leads(portfolios: pd.DataFrame, label: str, against: str = "equal_sharpe") -> pd.DataFrame:
    """One row a portfolio: its Sharpe ratio's lead a set, over models and seeds alike, with turnover and costs."""
    rows = portfolios[portfolios.label == label].copy()
    rows["kind"] = rows.book.str.extract(r"^(\w+)")
    rows["lead"] = rows.sharpe - rows[against]
    keys = ["book", "kind", "set"]
    seeds = rows.groupby([*keys, "model"])[["lead", "sharpe", "turnover", "costs"]].mean()
    per_set = seeds.groupby(keys).mean()
    table = per_set.lead.unstack("set")
    table["mean"] = table.mean(axis=1)
    table["least"] = per_set.lead.groupby(["book", "kind"]).min()
    table["ahead_on"] = (per_set.lead > 0).groupby(["book", "kind"]).sum()
    for name in ("turnover", "costs"):
        table[name] = per_set[name].groupby(["book", "kind"]).mean()
        table[f"most_{name}"] = per_set[name].groupby(["book", "kind"]).max()
    return table.sort_values("mean", ascending=False).reset_index()


def choose_portfolio(table: pd.DataFrame) -> pd.Series:
    """The rule of the README, on the rows of `leads`."""
    allowed = table[(table.most_turnover < MOST_TURNOVER) & (table.most_costs < MOST_COSTS)]
    near = allowed[allowed["mean"] >= allowed["mean"].max() - ALIKE]
    return near.sort_values(["ahead_on", "turnover"], ascending=[False, True]).iloc[0]


def mean_over_seeds(rows: pd.DataFrame) -> pd.DataFrame:
    """One row a set, model, label and portfolio, with the number of seeds."""
    figures = ["sharpe", "hold_sharpe", "equal_sharpe", "turnover", "costs"]
    grouped = rows.groupby(["set", "model", "label", "book"], sort=False)
    return grouped[figures].mean().assign(seeds=grouped.size()).reset_index()


def with_intervals(rows: pd.DataFrame) -> str:
    """Means over seeds of each figure and of the ends of its interval: one row a set, model and portfolio."""
    names = [f"{name}_{end}" for name in INTERVALS for end in ("value", "low", "high")]
    mean = (
        rows.groupby(["set", "model", "label", "book"], sort=False)[
            [*names, "hold_sharpe", "equal_sharpe", "beta", "turnover", "costs"]
        ]
        .mean()
        .reset_index()
    )
    shown = mean[["set", "model", "label", "book"]].copy()
    shown["Sharpe"] = mean.sharpe_value.map("{:.2f}".format)
    shown["holding"] = mean.hold_sharpe.map("{:.2f}".format)
    shown["equal weights"] = mean.equal_sharpe.map("{:.2f}".format)
    titles = {"to_hold": "lead over holding", "to_equal": "lead over equal weights", "alpha": "alpha a year, %"}
    for name, title in titles.items():
        scale, digits = (100.0, 1) if name == "alpha" else (1.0, 2)
        ends = (mean[f"{name}_{end}"] * scale for end in ("value", "low", "high"))
        shown[title] = [f"{v:+.{digits}f} [{a:.{digits}f}, {b:.{digits}f}]" for v, a, b in zip(*ends, strict=True)]
    shown["turnover"] = mean.turnover.map("{:.1f}".format)
    shown["costs, %"] = (100.0 * mean.costs).map("{:.2f}".format)
    return markdown(shown)
