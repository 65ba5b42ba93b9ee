"""What a period of days says of a model, with the evidence beside every figure.

Legend: T sessions, S symbols, H horizons, Q quantiles.
"""

from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import pandas as pd

from hftraining.core.bars import Bars
from hftraining.core.forecast import Forecast
from hftraining.evidence.bootstrap import Interval, sharpe_difference, sharpe_interval
from hftraining.evidence.config import EvidenceConfig
from hftraining.evidence.nulls import null_band
from hftraining.evidence.scores import daily_scores, quantile_calibration
from hftraining.experiment.periods import Period
from hftraining.market.features import Features, Scaler
from hftraining.model.baselines import baseline_forecast
from hftraining.portfolio.weights import target_weights
from hftraining.profit_tracker import ProfitTracker
from hftraining.trading.metrics import daily_returns, summarize
from hftraining.trading.simulator import simulate
from hftraining.trading.strategies import STRATEGIES

FAN = ("q05", "q25", "q50", "q75", "q95")


@dataclass(frozen=True)
class Judgement:
    """result: what result.json says of these days. The frames go into the run folder. returns_T: daily, net."""

    result: dict[str, Any]
    equity: pd.DataFrame  # date, equity, buy_and_hold
    trades: pd.DataFrame
    fan: pd.DataFrame  # date, q05 .. q95: what luck would have made of the same book
    returns_T: np.ndarray
    difference: Interval  # of Sharpe ratios, to buy and hold


def baseline_weights(
    bars: Bars,
    features: Features,
    scaler: Scaler,
    labels_TSH: np.ndarray,
    train: slice,
    horizons: list[int],
    levels: list[float],
    purge: int,
    seed: int,
    tracker: ProfitTracker,
    evidence: EvidenceConfig,
) -> dict[str, np.ndarray]:
    """Target weights_TS of each baseline over the whole history; the fitted ones have seen training days alone."""
    weights = {}
    for name in evidence.baselines:
        if name in STRATEGIES:
            weights[name] = STRATEGIES[name](bars.close_TS, tracker.config)
            continue
        span_TSH = features.volatility_TS[:, :, None] * np.sqrt(np.asarray(horizons, float))
        forecast = baseline_forecast(
            name,
            scaler.scale(features.values_TSF),
            features.known_TS,
            labels_TSH,
            span_TSH,
            train,
            tuple(horizons),
            tuple(levels),
            purge,
            seed,
            1,
        )
        policy = tracker.config.policy
        rules = replace(tracker.config, policy="edge" if policy == "head" else policy)  # a baseline has no head
        weights[name] = target_weights(forecast, rules)
    return weights


def judge(
    period: Period,
    forecast: Forecast,
    tracker: ProfitTracker,
    baselines: dict[str, np.ndarray],
    evidence: EvidenceConfig,
    seed: int,
) -> Judgement:
    """Trade the forecasts of a period, and measure them against luck, buy and hold, and the baselines.

    baselines: target weights_TS of these days, by name.
    """
    bars, rules = period.bars, tracker.config
    report = tracker.evaluate(bars, forecast)
    prices = (bars.open_TS, bars.high_TS, bars.low_TS, bars.close_TS)
    held = report.buy_and_hold
    ours, theirs = daily_returns(report.simulation.equity_T), daily_returns(held.simulation.equity_T)

    def against_held(returns_T: np.ndarray) -> Interval:
        return sharpe_difference(returns_T, theirs, evidence.bootstrap_draws, seed)

    null = null_band(*prices, report.weights_TS, rules, evidence.null_draws, seed)
    interval = sharpe_interval(ours, evidence.bootstrap_draws, seed)
    difference = against_held(ours)
    beside: dict[str, Any] = {"buy_and_hold": held.metrics}
    for name, weights_TS in baselines.items():
        # A rule is traded as the literature has it, without stops, which would cripple it in our favour; what is fitted
        # on the model's own features is traded by the model's own rules.
        own_rules = replace(rules, stop_loss=0.0, take_profit=0.0) if name in STRATEGIES else rules
        simulation = simulate(*prices, weights_TS, own_rules)
        apart = against_held(daily_returns(simulation.equity_T))
        beside[name] = {**summarize(simulation, own_rules), "difference": asdict(apart)}

    horizon = rules.horizon or max(forecast.horizons)
    h, middle = forecast.horizons.index(horizon), forecast.levels.index(0.5)
    labels_TSH = period.labels_TSH * period.span_TSH  # log returns, as forecast
    median_TS = forecast.quantiles_TSHQ[:, :, h, middle]
    scores = daily_scores(median_TS, labels_TSH[:, :, h], overlap=horizon)
    calibration = [
        {"horizon": forecast.horizons[i], **row}
        for i in range(len(forecast.horizons))
        for row in quantile_calibration(forecast.quantiles_TSHQ[:, :, i], labels_TSH[:, :, i], forecast.levels)
    ]
    dates = bars.sessions_T
    result = {
        "days": len(dates),
        "first": str(dates[0]),
        "last": str(dates[-1]),
        "profit": report.metrics,
        "baselines": beside,
        "null": {
            "p": null.p,
            "band": list(null.band),
            "draws": null.draws,
            "selection_p": null.selection_p,
            "selection_band": list(null.selection_band),
            "reason": null.reason,
        },
        "interval": [interval.low, interval.high],
        "difference": asdict(difference),
        "scores": {name: asdict(score) for name, score in scores.items()},
        "calibration": calibration,
    }
    curves = {"equity": report.simulation.equity_T, "buy_and_hold": held.simulation.equity_T}
    fan = {name: null.fan_TQ[:, q] for q, name in enumerate(FAN)}
    return Judgement(
        result,
        pd.DataFrame({"date": dates, **curves}),
        report.trades,
        pd.DataFrame({"date": dates, **fan}),
        ours,
        difference,
    )
