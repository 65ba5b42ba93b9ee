"""The sentences of a report and the rows of its evidence, as plain text."""

from collections.abc import Mapping

from hftraining.core.metrics import Unit
from hftraining.evidence.verdict import CHANCE_P, TIMING_P
from hftraining.reports.format import capitalised, is_known, number, plural
from hftraining.reports.words import judged, money_line, money_of
from hftraining.runs.folder import RunFolder
from hftraining.runs.quantities import Number
from hftraining.runs.result import PeriodResult, RunResult

# How a verdict begins -> what it means.
MEANINGS = {
    "loses": "It earned less than its benchmark, or lost money, by more than the margin of error.",
    "indistinguishable": "Luck alone could explain this result.",
    "beats chance but": "The model chose the days of its positions better than luck chooses, and earned more than the "
    "risk that it took, by more than the best of all trials would without skill; but what that earned cannot be told "
    "from simply holding the stocks.",
    "beats chance": "The model chose the days of its positions better than luck chooses, and earned more than the risk "
    "that it took, by more than the best of all trials would without skill.",
    "beats buy and hold": "The model chose the days of its positions better than luck chooses, and earned more than "
    "the risk that it took and more than simply holding the stocks, by more than the best of all trials would without "
    "skill.",
    "in sample": "The model was trained on these days: what it earns there says nothing about other days.",
    "hindsight": "The weights know prices that nobody knew when they are dated: what they earned was not to be had.",
    "beats the base model": "The fine-tuned model chose the days of its positions better than luck chooses, and that "
    "earned more than the base model did, by more than the margin of error.",
}
UNTESTED = (
    "The model chose the days of its positions better than luck chooses; what it earned beyond holding was not tested."
)
MOVED = "Moved to other days at random, the same positions often did as well: luck alone could explain this result."


def headline(run: RunFolder) -> str:
    """The money and its days, or what happened without a profit."""
    if run.result is None and run.judged:
        return f"Not finished: {run.judged} that has no result yet."
    if run.result is None:
        steps = f"at step {run.history[-1]['step']:,}" if run.history else "before its first step"
        return f"Not finished: the run stands {steps}, not yet evaluated."
    return money_line(run.result) or "Finished, without a profit to show."


def sentences(run: RunFolder) -> list[str]:
    """The lines under the verdict: what it means, how the other period went, and how well the model forecasts."""
    if run.result is None:
        return _last_probe(run.history)
    said = (verdict_meaning(run.result), _other_period(run.result), _loss(run.result))
    return [sentence for sentence in said if sentence]


def verdict_meaning(result: RunResult) -> str:
    """One sentence that explains the verdict, with its reason where the numbers show it; empty for an unknown one."""
    verdict, name = (result.verdict or "").lower(), judged(result)
    period = result.periods[name] if name else PeriodResult()
    if verdict.startswith("indistinguishable"):
        return _why_chance(result, period)
    if verdict.startswith("loses"):
        return _why_loses(period)
    if verdict.startswith("beats") and period.benchmark is None:
        return UNTESTED  # an older version asked for good timing alone
    return next((text for start, text in MEANINGS.items() if verdict.startswith(start)), "")


def _why_chance(result: RunResult, period: PeriodResult) -> str:
    """Which of the tests luck passes: that of the timing, that of alpha, or, in older results, the deflation."""
    p = period.null.p if period.null else None
    alpha_p = period.benchmark.p if period.benchmark else None
    n_trials = period.benchmark.n_trials if period.benchmark else result.n_trials
    if is_known(p) and p > TIMING_P:
        return MOVED
    if (is_known(alpha_p) and alpha_p > CHANCE_P) or (alpha_p is None and is_known(p)):
        if (n_trials or 1) > 1:
            return f"Of {n_trials:,} trials the best one often looks this good without any skill."
        return "What it earned beyond its benchmark lies within the margin of error."
    return MEANINGS["indistinguishable"]


def _why_loses(period: PeriodResult) -> str:
    """Whether it is the benchmark that it trails, or its own money that it loses, beyond the margin of error."""
    sharpe_high = period.interval[1] if period.interval else None
    behind = [found.high for found in (period.benchmark and period.benchmark.alpha, period.difference) if found]
    trails = any(is_known(high) and high < 0.0 for high in behind)
    sinks = is_known(sharpe_high) and sharpe_high < 0.0
    if trails and sinks:
        return "It lost money, and earned less than its benchmark, both by more than the margin of error."
    if trails:
        return "It earned less than its benchmark, by more than the margin of error."
    return "It lost money, by more than the margin of error." if sinks else MEANINGS["loses"]


def training_days(run: RunFolder) -> str:
    """How the days of the account stand to those of the training, one sentence; empty where nothing was trained."""
    if run.result and run.result.folds:
        return "Each fold is traded by a model that has seen none of its days; one account goes over all of them."
    if not run.judged:
        return "The model was trained on neither period; the validation days chose the step that was kept."
    if run.manifest.get("kind") == "evaluations":
        return ""
    in_sample = run.result.in_sample if run.result else None
    return f"{capitalised(in_sample)}." if in_sample else "No model was trained on any of these days."


def of_a_book(text: str) -> str:
    """A sentence about a model, where the positions are those of somebody's book."""
    return text.replace("The model", "The book").replace("the model", "the book")


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


def _earned(metrics: Mapping[str, Number], on: str = "") -> str:
    earned, sharpe = metrics.get("total_return"), metrics.get("sharpe_ratio")
    return f"returned {number(earned, Unit.CHANGE)}{on} at a Sharpe ratio of {number(sharpe, Unit.RATIO)}"


def _other_period(result: RunResult) -> str:
    """The money of the validation days, where the test days have judged the run."""
    valid = result.periods.get("valid")
    if judged(result) != "test" or valid is None or not money_of(valid):
        return ""
    chose = "" if result.folds else " which chose what was kept,"
    return f"On the validation days,{chose} {money_of(valid)[:1].lower()}{money_of(valid)[1:]}"


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
