"""Conclude: score and judge a trained model on the validation days, then on the test days, an opening that counts."""

from dataclasses import dataclass

import pandas as pd

from hftraining.core.forecast import Forecast
from hftraining.experiment.fit import Fitted
from hftraining.experiment.ground import Ground
from hftraining.experiment.judging import Judgement, judge
from hftraining.experiment.ledger_row import LedgerRow
from hftraining.experiment.periods import score_losses
from hftraining.experiment.probe import loss_profit_correlation
from hftraining.reports.report import write_report
from hftraining.runs.record import RunRecord
from hftraining.runs.result import PERIODS, BaseFacts, Correlation, LeakProof, Recommendation, RunResult


@dataclass(frozen=True)
class Conclusion:
    """The result of a run, with the validation forecast and judgement by which a fine-tune compares candidates."""

    result: RunResult
    valid_forecast: Forecast
    valid: Judgement


def conclude(
    ground: Ground, fitted: Fitted, record: RunRecord, row: LedgerRow, recommendation: Recommendation | None = None
) -> Conclusion:
    """Score and judge, save the model, write all files of the run and finish its ledger row.

    A sealed run never sees the test days. recommendation: of a fine-tune; `fitted` is the model that it recommends.
    """
    config, forecaster, train = ground.config, fitted.forecaster, ground.periods["train"]
    base = ground.base if recommendation else None
    forecasts = {name: ground.periods[name].forecast(forecaster) for name in ("train", "valid")}
    openings = 0 if ground.sealed else row.open_test()
    if not ground.sealed:
        forecasts["test"] = ground.periods["test"].forecast(forecaster)
    judged = {
        name: judge(
            period,
            forecasts[name],
            ground.tracker,
            {baseline: weights_TS[getattr(ground.splits, name)] for baseline, weights_TS in ground.baselines.items()},
            config.evidence,
            config.seed,
        )
        for name, period in ground.periods.items()
        if name in PERIODS
    }
    correlation, interval = loss_profit_correlation(fitted.losses, fitted.sharpes)
    result = RunResult(
        signature=record.manifest["signature"],
        relative=forecaster.relative,
        steps=fitted.progress.step,
        best_step=fitted.progress.best_step,
        skipped_steps=fitted.progress.skipped_steps,
        eval_loss=ground.periods["valid"].loss(forecasts["valid"], config.objective, ground.tracker),
        loss={name: score_losses(period, train, forecasts[name]) for name, period in ground.periods.items()},
        periods={name: part.result for name, part in judged.items()},
        profit_loss_correlation=Correlation(correlation, list(interval), len(fitted.losses)),
        leak_proof=LeakProof(ground.proof.ok, ground.proof.days),
        warnings=_warnings(ground, openings),
        recommendation=recommendation,
        base=BaseFacts(str(base.folder), base.signature, base.weights) if base else None,
    )
    row.judge(result, judged, openings, config.evidence, config.seed)
    forecaster.save(record.model)
    record.write_equity(_stacked({name: part.equity for name, part in judged.items()}))
    record.write_trades(_stacked({name: part.trades for name, part in judged.items()}))
    record.write_null_band(_stacked({name: part.fan for name, part in judged.items()}))
    # Killed at any point here, a resumed run does all of this again, to the same bytes. Only the report may come after
    # result.json, which marks the run as finished, and finished.py writes it where it is missing.
    row.done(judged, result)
    record.write_result(result)
    write_report(record.folder)
    return Conclusion(result, forecasts["valid"], judged["valid"])


def _stacked(frames: dict[str, pd.DataFrame]) -> pd.DataFrame:
    """One frame of all periods, with a column that names the period."""
    return pd.concat([frame.assign(window=name) for name, frame in frames.items()], ignore_index=True)


def _warnings(ground: Ground, openings: int) -> list[str]:
    """What a reader of the results has to know, one sentence each."""
    config, base, universe, warnings = ground.config, ground.base, ground.universe, list[str]()
    if base and universe.symbols_S == base.forecaster.symbols and universe.fingerprint() != base.fingerprint:
        warnings.append("the bars are not those that the base model was trained on: its features may differ")
    if base and ground.days["test"][0] <= base.forecaster.days["test"][1]:
        warnings.append("the base model's own run has opened test days of this run: they are no first look")
    warnings += universe.warnings
    warnings.append("the symbols were chosen by people who know which ones survived: profits on them are flattered")
    if openings > 1:
        warnings.append(f"these test days were opened {openings} times: their figures count for less each time")
    if config.objective.label == "close":
        warnings.append("objective.label=close: the forecasts are of close-to-close returns, which nobody can trade")
    if config.profit_tracker.commission + config.profit_tracker.slippage == 0:
        warnings.append("no trading costs: profits say what forecasts are worth before anyone is paid")
    return warnings
