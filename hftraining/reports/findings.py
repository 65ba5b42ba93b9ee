"""The sentences of a report and the rows of its evidence, as plain text."""

import re
from collections.abc import Mapping

from hftraining.core.metrics import Unit
from hftraining.reports.format import UNKNOWN, between, capitalised, estimate, is_known, number, plural
from hftraining.runs.folder import RunFolder
from hftraining.runs.result import PERIODS, Estimate, Null, Number, PeriodResult, RunResult

CHANCE_P = 0.05  # of the verdict's rules: below it only the number of trials can make a result indistinguishable
# How a verdict begins -> what it means.
MEANINGS = {
    "indistinguishable": "Moved to other days at random, the same positions often did as well: luck alone explains "
    "this result.",
    "beats chance but": "The model chose the days of its positions better than luck chooses, but what that earned "
    "cannot be told from simply holding the stocks.",
    "beats chance": "The model chose the days of its positions better than luck chooses.",
    "beats buy and hold": "The model chose the days of its positions better than luck chooses, and that earned more "
    "than simply holding the stocks, by more than the margin of error.",
}
TOO_MANY_TRIALS = "Of so many trials one had to look this good without any skill: luck alone explains this result."


def headline(run: RunFolder) -> tuple[str, str]:
    """The verdict, or what happened without one; and separately the numbers in brackets at its end."""
    verdict = run.result.verdict if run.result else None
    if verdict:
        parts = re.fullmatch(r"(.*?)\s*(\(.*\))?\.?", verdict, re.S)
        return (parts[1], parts[2] or "") if parts else (verdict, "")
    if run.result is None:
        steps = f"at step {run.history[-1]['step']:,}" if run.history else "before its first step"
        return f"Not finished: the run stands {steps}, not yet evaluated.", ""
    return _beside_buy_and_hold(run.result.periods), ""


def sentences(run: RunFolder) -> list[str]:
    """The lines under the headline: what the verdict means, the profit, and how well the model forecasts."""
    if run.result is None:
        return _last_probe(run.history)
    said = (verdict_meaning(run.result.verdict or ""), _profit(run.result), _loss(run.result))
    return [sentence for sentence in said if sentence]


def verdict_meaning(verdict: str) -> str:
    """One sentence that explains a verdict; empty for an unknown one."""
    p = re.search(r"p = ([\d.]+\d)", verdict)
    if verdict.lower().startswith("indistinguishable") and p and float(p[1]) <= CHANCE_P:
        return TOO_MANY_TRIALS
    return next((text for start, text in MEANINGS.items() if verdict.lower().startswith(start)), "")


def warnings(result: RunResult) -> list[str]:
    """The run's own warnings, and those that follow from its numbers."""
    said = list(result.warnings)
    if result.skipped_steps:
        was = "was" if result.skipped_steps == 1 else "were"
        said.append(f"{plural(result.skipped_steps, 'training step')} {was} skipped: not finite.")
    opened = result.test_openings or 0
    if opened > 1 and not any("were opened" in warning for warning in said):
        said.append(f"The test period of these data has been opened {opened} times: this is no longer a first look.")
    if result.leak_proof.ok is False:
        said.append("The leak proof failed: none of these numbers can be believed.")
    return said


def correlation(result: RunResult) -> str:
    """How loss and profit moved together over the probes; empty where that is unknown."""
    found = result.profit_loss_correlation
    if not is_known(found.rank_correlation):
        return ""
    ends = " to ".join(number(end, Unit.RATIO) for end in found.interval)
    return (
        f"Over {plural(found.probes, 'probe')} the rank correlation of loss and profit is "
        f"{number(found.rank_correlation, Unit.RATIO)}{f' (interval {ends})' if ends else ''}. Below zero, a better "
        "forecast went with more profit."
    )


def leak_proof(result: RunResult) -> str:
    """What the leak proof at the start of the run found; empty where there was none."""
    proof = result.leak_proof
    if proof.ok is None:
        return ""
    where = f"on {plural(proof.days, 'random day')}" if proof.days is not None else "at the start"
    return f"{'nothing leaked' if proof.ok else 'FAILED: later days changed earlier outputs'}, tried {where}"


def evidence_rows(periods: Mapping[str, PeriodResult]) -> list[tuple[str, str, list[str]]]:
    """The rows about luck and the Sharpe ratio: label, key in the result, text by period."""
    rows: dict[tuple[str, str], list[str]] = {}
    for period in periods.values():
        null, sharpe = period.null or Null(), period.profit.get("sharpe_ratio")
        texts = {
            ("Chance that luck does as well, p", "null.p"): number(null.p, Unit.SCORE),
            ("Sharpe ratio of the model", "interval"): estimate(Estimate(sharpe, *period.interval), Unit.RATIO, False),
            ("Sharpe ratio of luck, 5% to 95%", "null.band"): between(null.band, Unit.RATIO),
            ("Sharpe ratio less buy and hold's", "difference"): estimate(period.difference, Unit.RATIO),
            ("Chance that luck does as well if it also picks the stocks, p", "null.selection_p"): number(
                null.selection_p, Unit.SCORE
            ),
            ("Sharpe ratio of that luck, 5% to 95%", "null.selection_band"): between(null.selection_band, Unit.RATIO),
        }
        for row, text in texts.items():
            rows.setdefault(row, []).append(text)
    return [(label, key, texts) for (label, key), texts in rows.items() if set(texts) - {UNKNOWN}]


def _beside_buy_and_hold(periods: Mapping[str, PeriodResult]) -> str:
    how = {}
    for name, period in periods.items():
        ours, theirs = period.profit.get("total_return"), period.held.get("total_return")
        if ours is not None and theirs is not None:
            how[PERIODS[name]] = "more than" if ours > theirs else "less than" if ours < theirs else "as much as"
    if how and all(period.profit.get("exposure") == 0 for period in periods.values()):
        return "Took no position at all."
    if len(set(how.values())) == 2:
        (first, one), (second, other) = how.items()
        return f"Earned {one} buy and hold in {first}, but {other} it in {second}."
    if how:
        return f"Earned {next(iter(how.values()))} buy and hold in {' and in '.join(how)}."
    return "Finished, without a profit to show."


def _earned(metrics: Mapping[str, Number], on: str = "") -> str:
    earned, sharpe = metrics.get("total_return"), metrics.get("sharpe_ratio")
    return f"returned {number(earned, Unit.CHANGE)}{on} at a Sharpe ratio of {number(sharpe, Unit.RATIO)}"


def _profit(result: RunResult) -> str:
    clauses = [
        f"over the {plural(period.days, f'{PERIODS[name]} day')} the model {_earned(period.profit)}, "
        f"where buy and hold {_earned(period.held)}"
        for name, period in result.periods.items()
        if period.profit and period.held
    ]
    return f"{capitalised('; '.join(clauses))}." if clauses else ""


def _last_probe(history: list[dict[str, float]]) -> list[str]:
    for row in reversed(history):
        if "profit/total_return" in row:
            metrics = {name.removeprefix("profit/"): value for name, value in row.items()}
            step = number(row["step"], Unit.COUNT)
            return [f"The last probe, at step {step}, {_earned(metrics, ' on the validation days')}."]
    return []


def _loss(result: RunResult) -> str:
    losses = result.loss.get("valid")
    if losses is None or losses.model is None or losses.nothing_changes is None:
        return ""
    model, nothing, constant = losses.model, losses.nothing_changes, losses.unconditional
    said = f"a loss of {number(model, Unit.LOSS)} against {number(nothing, Unit.LOSS)}"
    if model < nothing and constant is not None and model >= constant:
        said += f"; one constant forecast, at {number(constant, Unit.LOSS)}, does as well or better"
    beats = "beats" if model < nothing else "does not beat"
    return f'The forecast {beats} "nothing changes" on validation: {said}.'
