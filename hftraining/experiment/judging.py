"""Judging a book on a period, and the forecasts that it came of: its profit, with the evidence beside every figure.

Legend: T sessions, S symbols, H horizons, Q quantiles.
"""

from dataclasses import asdict, dataclass, replace

import numpy as np
import pandas as pd

from hftraining.core.bars import Bars
from hftraining.core.forecast import Forecast
from hftraining.evidence.alarms import alarms
from hftraining.evidence.bootstrap import Interval, sharpe_difference, sharpe_interval
from hftraining.evidence.config import EvidenceConfig
from hftraining.evidence.money import money
from hftraining.evidence.nulls import null_band
from hftraining.evidence.scores import Score as DailyScore
from hftraining.evidence.scores import daily_scores, quantile_calibration
from hftraining.experiment.periods import Period
from hftraining.profit_tracker import ProfitReport, ProfitTracker
from hftraining.runs.quantities import Estimate, Score
from hftraining.runs.result import AtCosts, Baseline, Calibration, Null, PeriodResult
from hftraining.trading.config import ProfitTrackerConfig
from hftraining.trading.metrics import daily_returns, summarize
from hftraining.trading.simulator import Simulation, simulate

COSTS = (0, 5, 10, 20)  # basis points a side
FAN = ("q05", "q25", "q50", "q75", "q95")


@dataclass(frozen=True)
class Judgement:
    """result: for result.json. report: of the tracker. The frames go into the run folder. returns_T: daily, net."""

    result: PeriodResult
    report: ProfitReport
    equity: pd.DataFrame  # date, equity, buy_and_hold
    trades: pd.DataFrame
    fan: pd.DataFrame  # date, q05 .. q95: the null band of the equity
    returns_T: np.ndarray
    interval: Interval  # of the Sharpe ratio
    difference: Interval  # of Sharpe ratios, to buy and hold


def judge(
    period: Period,
    forecast: Forecast,
    tracker: ProfitTracker,
    baselines: dict[str, np.ndarray],
    evidence: EvidenceConfig,
    seed: int,
) -> Judgement:
    """Trade the forecasts of a period as judge_book trades a book, and score them, too.

    baselines: target weights_TS of these days, by name.
    """
    weights_TS = tracker.weights(period.bars, forecast)
    judged = judge_book(period.bars, weights_TS, tracker, baselines, evidence, seed, period.window)
    return with_scores(judged, period, forecast, tracker.portfolio.horizon)


def with_scores(judged: Judgement, period: Period, forecast: Forecast, horizon: int) -> Judgement:
    """A judged book with the scores of the forecast that it came of, in place. horizon: traded; 0: the longest."""
    result = judged.result
    result.scores, result.calibration = scored(period, forecast, horizon)
    result.alarms = alarms(result.scores, estimate_of(judged.interval))
    return judged


def judge_book(
    bars: Bars,
    book_TS: np.ndarray,
    tracker: ProfitTracker,
    baselines: dict[str, np.ndarray],
    evidence: EvidenceConfig,
    seed: int,
    window: tuple[str, str],
    in_shares: bool = False,
) -> Judgement:
    """Trade target weights over bars, and compare the account with luck, buy and hold, and the baselines.

    book_TS: weights, whoever decided them; traded as given by the rules of the tracker, NaN where nothing is decided.
    in_shares: they are signed shares; the null band then shifts what these were of the equity. baselines: target
    weights_TS of the same bars, by name. window: the first and last day, ISO dates. The result has no scores of a
    forecast, since none is known.
    """
    rules = tracker.config
    report = tracker.trade(bars, book_TS, in_shares)
    prices = (bars.open_TS, bars.high_TS, bars.low_TS, bars.close_TS)
    held = report.buy_and_hold
    ours, theirs = daily_returns(report.simulation.equity_T), daily_returns(held.simulation.equity_T)
    null = null_band(*prices, report.weights_TS, rules, evidence.null_draws, seed)
    interval = sharpe_interval(ours, evidence.bootstrap_draws, seed)
    difference = sharpe_difference(ours, theirs, evidence.bootstrap_draws, seed)
    dates, (first, last) = bars.sessions_T, window
    result = PeriodResult(
        days=len(dates),
        first=first,
        last=last,
        profit=dict(report.metrics),
        baselines=_beside(bars, tracker, report, baselines, difference, evidence.bootstrap_draws, seed),
        null=Null(null.p, list(null.band), null.draws, null.selection_p, list(null.selection_band), null.reason),
        interval=[interval.low, interval.high],
        difference=estimate_of(difference),
        alarms=alarms({}, estimate_of(interval)),
        money=money(report.metrics, held.metrics),
        at_costs=[at_costs(bars, book_TS, rules, points, in_shares) for points in COSTS],
    )
    curves = {"equity": report.simulation.equity_T, "buy_and_hold": held.simulation.equity_T}
    fan = {name: null.fan_TQ[:, q] for q, name in enumerate(FAN)}
    return Judgement(
        result,
        report,
        pd.DataFrame({"date": dates, **curves}),
        report.trades,
        pd.DataFrame({"date": dates, **fan}),
        ours,
        interval,
        difference,
    )


def _beside(
    bars: Bars,
    tracker: ProfitTracker,
    report: ProfitReport,
    baselines: dict[str, np.ndarray],
    difference: Interval,
    draws: int,
    seed: int,
) -> dict[str, Baseline]:
    """What buy and hold and the baselines earned on the days of a report, and how the book stands to each.

    baselines: see judge_book. difference: the model's Sharpe ratio less buy and hold's.
    """
    rules, held = tracker.config, report.buy_and_hold
    prices = (bars.open_TS, bars.high_TS, bars.low_TS, bars.close_TS)
    ours, theirs = daily_returns(report.simulation.equity_T), daily_returns(held.simulation.equity_T)
    matched = tracker.risk_matched(bars, report.metrics["exposure"])
    beside = {
        "buy_and_hold": Baseline(dict(held.metrics), None, estimate_of(difference)),
        "risk_matched": Baseline(dict(matched.metrics), None, _lead(ours, matched.simulation, draws, seed)),
    }
    for name, weights_TS in baselines.items():
        simulation = simulate(*prices, weights_TS, rules)
        apart = sharpe_difference(daily_returns(simulation.equity_T), theirs, draws, seed)
        lead = _lead(ours, simulation, draws, seed)
        beside[name] = Baseline(dict(summarize(simulation, rules)), estimate_of(apart), lead)
    return beside


def _lead(ours_T: np.ndarray, theirs: Simulation, draws: int, seed: int) -> Estimate:
    """The model's Sharpe ratio less that of another account. ours_T: daily returns."""
    return estimate_of(sharpe_difference(ours_T, daily_returns(theirs.equity_T), draws, seed))


def at_costs(
    bars: Bars, book_TS: np.ndarray, rules: ProfitTrackerConfig, points: int, in_shares: bool = False
) -> AtCosts:
    """The same target weights (or shares) where each side costs so many basis points; at 0 borrowing is free, too.

    All of it is taken as commission, so that a take profit, which pays no slippage, costs as much as any other fill.
    """
    borrow = rules.borrow_rate if points else 0.0
    own = replace(rules, commission=points / 1e4, slippage=0.0, borrow_rate=borrow)
    prices = bars.open_TS, bars.high_TS, bars.low_TS, bars.close_TS
    found = summarize(simulate(*prices, book_TS, own, in_shares=in_shares), own)
    return AtCosts(float(points), found["total_return"], found["sharpe_ratio"], rules.lag)


def estimate_of(interval: Interval | DailyScore) -> Estimate:
    """A value and its 95 % interval, as result.json holds them."""
    return Estimate(interval.value, interval.low, interval.high)


def scored(period: Period, forecast: Forecast, horizon: int) -> tuple[dict[str, Score], list[Calibration]]:
    """The scores of the median at the traded horizon, and the calibration of every quantile."""
    horizon = horizon or max(forecast.horizons)
    h, middle = forecast.horizons.index(horizon), forecast.levels.index(0.5)
    labels_TSH = period.labels_TSH * period.span_TSH  # in the unit of the forecast
    median_TS = forecast.quantiles_TSHQ[:, :, h, middle]
    scores = daily_scores(median_TS, labels_TSH[:, :, h], overlap=horizon)
    calibration = [
        Calibration(forecast.horizons[i], row["level"], row["share"], int(row["days"]))
        for i in range(len(forecast.horizons))
        for row in quantile_calibration(forecast.quantiles_TSHQ[:, :, i], labels_TSH[:, :, i], forecast.levels)
    ]
    return {name: Score(**asdict(score)) for name, score in scores.items()}, calibration
