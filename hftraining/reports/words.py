"""The words that the console and all pages share: the money, the verdict, the alarms, and the rows of the evidence."""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean

from hftraining.core.metrics import BY_NAME, Unit
from hftraining.evidence.money import money
from hftraining.reports.format import UNKNOWN, between, capitalised, day, estimate, is_known, number, plural
from hftraining.runs.quantities import Estimate, Metrics, Number
from hftraining.runs.result import PERIODS, Against, Losses, Null, PeriodResult, RunResult

ALARMED = "(!)"  # marks a row whose run has an alarm
TOO_GOOD = "too good to be true: a leak until proven otherwise, the run's page says why"
LEGEND = f"{ALARMED} {TOO_GOOD}"
LUCK = "the same positions, moved in time at random"
DEALT = "the same positions, moved in time and dealt to other stocks at random"
TONED = ("total_return", "cagr", "sharpe_ratio", "sortino_ratio", "calmar_ratio", "alpha")  # above zero is a gain


@dataclass(frozen=True)
class Evidence:
    """A row of evidence. path: in a period of result.json. text: of the number, with its interval."""

    path: str
    words: str
    meaning: str
    unit: Unit
    text: Callable[[PeriodResult], str]


def _benchmark(text: Callable[[Against], str]) -> Callable[[PeriodResult], str]:
    return lambda period: text(period.benchmark) if period.benchmark else UNKNOWN


def _null(text: Callable[[Null], str]) -> Callable[[PeriodResult], str]:
    return lambda period: text(period.null) if period.null else UNKNOWN


def _among(value: Number, n_trials: int | None) -> str:
    """A probability and the number of trials that it allows for: 0.620, best of 12."""
    said = number(value, Unit.SCORE)
    return f"{said}, best of {n_trials:,}" if is_known(value) and (n_trials or 1) > 1 else said


EVIDENCE = (
    Evidence(
        "benchmark.alpha",
        "Alpha a year",
        "what was earned a year beyond beta times what holding earned",
        Unit.CHANGE,
        _benchmark(lambda found: estimate(found.alpha, Unit.CHANGE)),
    ),
    Evidence(
        "benchmark.p",
        "Chance of this alpha without skill, p",
        "one-sided, and as the best of all trials",
        Unit.SCORE,
        _benchmark(lambda found: _among(found.p, found.n_trials)),
    ),
    Evidence(
        "benchmark.beta",
        "Beta to buy and hold",
        "how much the account moves when buy and hold moves by one",
        Unit.RATIO,
        _benchmark(lambda found: number(found.beta, Unit.RATIO)),
    ),
    Evidence(
        "benchmark.information_ratio",
        "Information ratio",
        "alpha over the volatility of what beta leaves unexplained, a year",
        Unit.RATIO,
        _benchmark(lambda found: number(found.information_ratio, Unit.RATIO)),
    ),
    Evidence(
        "benchmark.deflated_sharpe",
        "Deflated Sharpe ratio",
        "of the returns beyond the benchmark, after all trials",
        Unit.SCORE,
        _benchmark(lambda found: _among(found.deflated_sharpe, found.n_trials)),
    ),
    Evidence(
        "null.p",
        "Chance that luck does as well, p",
        LUCK,
        Unit.SCORE,
        _null(lambda found: number(found.p, Unit.SCORE)),
    ),
    Evidence(
        "interval",
        "Sharpe ratio of the model",
        "after all costs",
        Unit.RATIO,
        lambda period: estimate(
            Estimate(period.profit.get("sharpe_ratio"), *period.interval), Unit.RATIO, signed=False
        ),
    ),
    Evidence(
        "null.band",
        "Sharpe ratio of luck, 5 % to 95 %",
        LUCK,
        Unit.RATIO,
        _null(lambda found: between(found.band, Unit.RATIO)),
    ),
    Evidence(
        "difference",
        "Sharpe ratio less buy and hold's",
        "both resampled on the same days",
        Unit.RATIO,
        lambda period: estimate(period.difference, Unit.RATIO),
    ),
    Evidence(
        "null.selection_p",
        "Chance that luck that also picks the stocks does as well, p",
        DEALT,
        Unit.SCORE,
        _null(lambda found: number(found.selection_p, Unit.SCORE)),
    ),
    Evidence(
        "null.selection_band",
        "Sharpe ratio of luck that also picks the stocks, 5 % to 95 %",
        DEALT,
        Unit.RATIO,
        _null(lambda found: between(found.selection_band, Unit.RATIO)),
    ),
)
BY_PATH = {row.path: row for row in EVIDENCE}


def metric_words(name: str) -> str:
    """A metric of core/metrics.py as the head of a row."""
    return capitalised(BY_NAME[name].words)


def evidence_rows(periods: Mapping[str, PeriodResult]) -> list[tuple[Evidence, list[str]]]:
    """The rows that any period has, with their text by period."""
    rows = [(row, [row.text(period) for period in periods.values()]) for row in EVIDENCE]
    return [(row, texts) for row, texts in rows if set(texts) - {UNKNOWN}]


def deflated_meaning(n_trials: int | None, beyond: bool = True) -> str:
    """What a deflated Sharpe ratio is. beyond: of the returns beyond the benchmark, as it is since this is known."""
    best = "what one trial" if n_trials == 1 else f"what the best of {f'{n_trials:,}' if n_trials else 'all'} trials"
    returns = " of the returns beyond the benchmark" if beyond else ""
    return f"the probability that the true Sharpe ratio{returns} exceeds {best} without skill would show"


# --- the money --------------------------------------------------------------------------------------------------------


def judged(result: RunResult) -> str | None:
    """The period that a run is judged by: test if it was opened, else valid; or the backtest. None without a profit."""
    traded = [
        name for name in ("test", "valid", "backtest") if name in result.periods and money_of(result.periods[name])
    ]
    return traded[0] if traded else None


def money_of(period: PeriodResult) -> str:
    """The sentence about the money, also of a result that an older version wrote; empty without a profit."""
    return period.money or money(period.profit, period.held)


def days_of(name: str, period: PeriodResult) -> str:
    """252 test days, 2019-01-02 to 2019-12-31."""
    ends = f", {day(period.first)} to {day(period.last)}" if period.first and period.last else ""
    return f"{plural(period.days, f'{PERIODS[name]} day')}{ends}"


def money_line(result: RunResult) -> str:
    """It lost 46.3 %, where holding earned 96.1 % (252 test days, 2019-01-02 to 2019-12-31). Empty without a profit."""
    name = judged(result)
    return with_days(money_of(result.periods[name]), days_of(name, result.periods[name])) if name else ""


def with_days(sentence: str, days: str) -> str:
    """A sentence with its days in brackets before the full stop."""
    return f"{sentence.removesuffix('.')} ({days})."


def mean_money(results: Sequence[RunResult]) -> str:
    """The same line of several seeds: means over those that opened the test days, or over all if none did."""
    periods = [judged(result) for result in results]
    name = "test" if "test" in periods else "valid"
    found = [result.periods[name] for result, period in zip(results, periods, strict=True) if period == name]
    if not found:
        return ""
    sentence = money(_means([period.profit for period in found]), _means([period.held for period in found]))
    of = f"mean of {len(found)} seeds; " if len(found) > 1 else ""
    return with_days(sentence, of + days_of(name, found[0]))


def _means(metrics: Sequence[Metrics]) -> Metrics:
    """Means of the metrics that the sentence needs; unknown where one is."""
    means: Metrics = {}
    for name in ("total_return", "exposure"):
        values = [found.get(name) for found in metrics]
        known = [value for value in values if is_known(value)]
        means[name] = fmean(known) if len(known) == len(values) else None
    return means


def loss_line(result: RunResult) -> str:
    """The forecast losses of both periods, like with like, beside those of two forecasts that know nothing.

    Empty where the validation days have none.
    """
    train, valid = (result.loss.get(name, Losses()) for name in ("train", "valid"))
    if not is_known(valid.model) or not is_known(valid.nothing_changes):
        return ""
    model, nothing, constant = (
        number(loss, Unit.LOSS) for loss in (valid.model, valid.nothing_changes, valid.unconditional)
    )
    some = f" of {train.stocks:,} stocks, evenly chosen" if train.stocks else ""
    first = f"{number(train.model, Unit.LOSS)} on the training days{some}, " if is_known(train.model) else ""
    verb = "below" if valid.model < valid.nothing_changes else "NOT below"
    said = f'forecast loss: {first}{model} on the validation days, {verb} "nothing changes" ({nothing})'
    if not is_known(valid.unconditional):  # an ensemble of runs has no training days of its own
        return said
    if verb == "NOT below":
        return f"{said}, one constant forecast has {constant}"
    return (
        f"{said}, {'and' if valid.model < valid.unconditional else 'but NOT'} below one constant forecast ({constant})"
    )


# --- the verdict and the alarms -------------------------------------------------------------------------------------


def verdicts(results: Sequence[RunResult]) -> str:
    """The verdict of one run with its figures; of several, how many ended with each one."""
    if len(results) == 1:
        return results[0].verdict or "no verdict"
    counts = Counter(map(brief_verdict, results))
    return "; ".join(f"{count} x {text}" for text, count in counts.items())


def brief_verdict(result: RunResult) -> str:
    """The verdict without its figures."""
    return (result.verdict or "no verdict").split(" (")[0].split(":")[0]


def alarm_lines(result: RunResult) -> list[str]:
    """The alarms of all periods, each with its days."""
    return [
        f"on the {PERIODS[name]} days {alarm}" for name, period in result.periods.items() for alarm in period.alarms
    ]
