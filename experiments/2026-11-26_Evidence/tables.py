"""Print the tables of README.md from level.csv, power.csv and coverage.csv, which selection.py writes.

python experiments/2026-11-26_Evidence/tables.py
"""

import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parents[1]))

# After the line above, which finds the project.
# ruff: noqa: E402
import numpy as np
import pandas as pd

from hftraining.evidence.verdict import CHANCE_P, TIMING_P

# What a rule asks for -> how often it gives credit. "verdict" is the rule of evidence/verdict.py.
RULES = {
    "p <= 0.05": lambda d: d.p <= 0.05,
    "p, alpha > 0": lambda d: (d.p <= 0.05) & (d.alpha > 0.0),
    "DSR from zero": lambda d: d.dsr_zero >= 0.95,
    "DSR centred": lambda d: d.z_centred >= 1.645,
    "DSR of excess": lambda d: d.dsr_excess >= 0.95,
    "alpha alone": lambda d: d.p_alone <= 0.05,
    "alpha, best of N": lambda d: d.p_best <= 0.05,
    "verdict: skill": lambda d: is_skilled(d),
    "verdict: beats holding": lambda d: (
        is_skilled(d) & (d.diff_low > 0.0) & ((d.n == 1) | (d.lead_best <= 0.025)) & (d.diff_high >= 0.0)
    ),
}
TIMINGS = (0.05, 0.10, 0.15, 0.20, 1.0)
WHOLE = ("p <= 0.05", "p, alpha > 0")  # only known where every null band was drawn


def is_skilled(d: pd.DataFrame) -> pd.Series:
    """Whether the verdict says "beats": evidence/verdict.py."""
    loses = (d.diff_high < 0.0) | (d.high < 0.0)
    return ~loses & (d.p <= TIMING_P) & (d.p_best <= CHANCE_P) & (d.total_return > 0.0)


def level() -> None:
    """How often the best of N books without skill is given credit."""
    d = pd.read_csv(HERE / "level.csv")
    whole = d[d.number < 40]
    rows = []
    for (costs, n, style), part in d.groupby(["costs", "n", "style"], sort=False):
        some = whole[(whole.costs == costs) & (whole.n == n) & (whole["style"] == style)]
        row = {"costs": costs, "N": n, "books": style, "count": len(part)}
        rows.append(row | {name: rule(some if name in WHOLE else part).mean() for name, rule in RULES.items()})
    frame = pd.DataFrame(rows)
    show(frame.sort_values(["costs", "N"], ascending=[False, True], kind="stable"))
    good = d[(d.held > 0.5) & (d.costs == "none")]
    print("\nWhere holding had a Sharpe ratio above 0.5, no costs:\n")
    names = [name for name in RULES if name not in WHOLE]
    by_n = [
        {"N": n, "count": len(part)} | {name: RULES[name](part).mean() for name in names}
        for n, part in good.groupby("n")
    ]
    show(pd.DataFrame(by_n))
    timing = {f"timing p <= {p}": (lambda x, p=p: is_skilled(x.assign(p=x.p * TIMING_P / p)).mean()) for p in TIMINGS}
    print("\nSkill by the level that the null band is held to, no costs:\n")
    bare = d[d.costs == "none"]
    show(pd.DataFrame([{"N": n} | {k: f(part) for k, f in timing.items()} for n, part in bare.groupby("n")]))
    losing = d[d.total_return <= 0.0]
    print(f"\nBooks that earned nothing: {len(losing)}, called better than anything: {int(is_skilled(losing).sum())}")
    ruined = d[d.high < 0.0]
    print(f"Books whose interval lies below zero: {len(ruined)}, all called losing by the rule")


def power() -> None:
    """How often a book of known skill is given credit, beside the same test without selection and null band."""
    d = pd.read_csv(HERE / "power.csv")
    rows = []
    for (style, years, truth), part in d.groupby(["style", "years", "truth"], sort=False):
        row = {"book": style, "years": years, "true IR": truth, "count": len(part[part.n == 1])}
        row["measured IR"] = part[part.n == 1].ir.mean()
        ideal = (part[part.n == 1].p_alone <= 0.05).mean()
        row["ideal"] = ideal
        for n in (1, 30, 100):
            row[f"verdict N={n}"] = is_skilled(part[part.n == n]).mean()
        row["N=1 / ideal"] = row["verdict N=1"] / ideal if ideal else np.nan
        for level_of_p in (0.05, 0.10):
            passes = is_skilled(part[part.n == 1]) & (part[part.n == 1].p <= level_of_p)
            row[f"with timing p {level_of_p}"] = passes.mean()
        for n in (30, 100):
            row[f"DSR N={n}"] = RULES["DSR of excess"](part[part.n == n]).mean()
        rows.append(row)
    show(pd.DataFrame(rows))


def coverage() -> None:
    """How often the 95 % intervals hold the truth."""
    d = pd.read_csv(HERE / "coverage.csv")
    groups = d.groupby(["costs", "market", "style"], sort=False)
    found = groups[["sharpe", "difference", "alpha"]].mean().rename(columns={"sharpe": "true Sharpe, mean"})
    show(
        found.assign(count=groups.size()).reset_index().sort_values(["costs", "market"], ascending=False, kind="stable")
    )


def show(frame: pd.DataFrame) -> None:
    """Print a table in Markdown."""
    texts = frame.map(lambda value: f"{value:.3f}" if isinstance(value, float) else str(value))
    print("| " + " | ".join(frame.columns) + " |")
    print("|" + " --- |" * len(frame.columns))
    for row in texts.itertuples(index=False):
        print("| " + " | ".join(row) + " |")


if __name__ == "__main__":
    for question in (level, power, coverage):
        print(f"\n## {question.__doc__}\n")
        question()
