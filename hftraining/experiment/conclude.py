"""Conclude: score and judge a trained model on the validation days, then on the test days, an opening that counts."""

from collections.abc import Sequence
from dataclasses import dataclass

import pandas as pd

from hftraining.core.forecast import Forecast
from hftraining.core.progress import phase
from hftraining.experiment.fit import Fitted
from hftraining.experiment.folds import Walked, scored_folds
from hftraining.experiment.ground import Ground
from hftraining.experiment.inherit import notes_of
from hftraining.experiment.judging import Judgement, judge
from hftraining.experiment.ledger_row import LedgerRow
from hftraining.experiment.members import EQUAL, Member, add_period, facts_of
from hftraining.experiment.periods import score_losses, score_training, unconditional
from hftraining.experiment.probe import loss_profit_correlation
from hftraining.market.features.lookup import other_packages
from hftraining.model.ensemble import Predictor
from hftraining.reports.report import write_report
from hftraining.runs.member_results import EnsembleResult
from hftraining.runs.record import RunRecord, read_manifest
from hftraining.runs.result import PERIODS, BaseFacts, Correlation, LeakProof, Recommendation, RunResult
from hftraining.trading.config import ProfitTrackerConfig


@dataclass(frozen=True)
class Conclusion:
    """The result of a run, with the validation forecast and judgement by which a fine-tune compares candidates."""

    result: RunResult
    valid_forecast: Forecast
    valid: Judgement


def conclude(
    ground: Ground,
    fitted: Fitted,
    record: RunRecord,
    row: LedgerRow,
    recommendation: Recommendation | None = None,
    walked: Walked | None = None,
) -> Conclusion:
    """Score and judge, save the model, write all files of the run and finish its ledger row.

    A sealed run never sees the test days. recommendation: of a fine-tune; `fitted` is the model that it recommends.
    walked: of a walk-forward, whose forecasts are judged; `fitted` is its last fold's model, which has learned from
    most of these days and is only saved.
    """
    config, forecaster, train = ground.config, fitted.forecaster, ground.periods["train"]
    base = ground.base if recommendation else None
    openings = 0 if ground.sealed else row.open_test()
    names = [name for name in PERIODS if name in ground.periods]
    forecasts = walked.forecasts if walked else {name: _forecast(name, ground, forecaster) for name in names}
    judged = {name: _judged(name, ground, forecast) for name, forecast in forecasts.items()}
    constant_HQ = unconditional(train, forecaster.levels)
    losses = {name: score_losses(ground.periods[name], constant_HQ, forecast) for name, forecast in forecasts.items()}
    if not walked:
        with phase("the loss of the training days"):
            losses = {"train": score_training(train, constant_HQ, forecaster), **losses}
    correlation, interval = loss_profit_correlation(fitted.losses, fitted.sharpes)
    result = RunResult(
        signature=record.manifest["signature"],
        relative=forecaster.relative,
        steps=fitted.progress.step,
        best_step=fitted.progress.best_step,
        skipped_steps=fitted.progress.skipped_steps,
        parameters=forecaster.size,
        eval_loss=ground.periods["valid"].loss(forecasts["valid"], config.objective, ground.tracker),
        loss=losses,
        periods={name: part.result for name, part in judged.items()},
        profit_loss_correlation=Correlation(correlation, list(interval), len(fitted.losses)),
        leak_proof=LeakProof(ground.proof.ok, ground.proof.days),
        warnings=_warnings(ground, openings),
        recommendation=recommendation,
        base=BaseFacts(str(base.folder), base.signature, base.weights) if base else None,
    )
    if walked:
        equity_T = {name: part.report.simulation.equity_T for name, part in judged.items()}
        result.folds = scored_folds(ground, walked, equity_T)
    if fitted.members:
        result.ensemble = _members(fitted.members, ground, judged["valid"])
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


def _forecast(name: str, ground: Ground, forecaster: Predictor) -> Forecast:
    """The forecast of a period."""
    with phase(f"forecasts of the {PERIODS[name]} days of {len(ground.bars.symbols_S):,} stocks"):
        return ground.periods[name].forecast(forecaster)


def _judged(name: str, ground: Ground, forecast: Forecast) -> Judgement:
    """The judgement of a period."""
    period, rows, config = ground.periods[name], getattr(ground.splits, name), ground.config
    weights = {baseline: weights_TS[rows] for baseline, weights_TS in ground.baselines.items()}
    with phase(f"the evidence on the {PERIODS[name]} days"):
        return judge(period, forecast, ground.tracker, weights, config.evidence, config.seed)


def _members(members: Sequence[Member], ground: Ground, judged: Judgement) -> EnsembleResult:
    """The members beside the ensemble on the validation days; by themselves they never see the test days."""
    config, valid, facts = ground.config, ground.periods["valid"], facts_of(members, EQUAL)
    forecasts = [valid.forecast(member.predictor) for member in members]
    with phase(f"the {len(members)} members beside the ensemble"):
        add_period(facts, "valid", valid, forecasts, judged, ground.tracker, config.evidence, config.seed)
    return facts


def _stacked(frames: dict[str, pd.DataFrame]) -> pd.DataFrame:
    """One frame of all periods, with a column that names the period."""
    return pd.concat([frame.assign(window=name) for name, frame in frames.items()], ignore_index=True)


def _warnings(ground: Ground, openings: int) -> list[str]:
    """What a reader of the results has to know, one sentence each."""
    config, base, universe, warnings = ground.config, ground.base, ground.universe, list[str]()
    if base and universe.symbols_S == base.forecaster.symbols and universe.fingerprint() != base.fingerprint:
        warnings.append("the bars are not those that the base model was trained on: its features may differ")
    if base and (apart := other_packages(config.features.columns, read_manifest(base.folder))):
        warnings.append(f"the base model learned from features of other versions of their package: {', '.join(apart)}")
    if base and ground.days["test"][0] <= base.forecaster.days["test"][1]:
        warnings.append("the base model's own run has opened test days of this run: they are no first look")
    warnings += [*universe.warnings, *notes_of(config)]
    if config.objective.label == "close":
        warnings.append("objective.label=close: the forecasts are of close-to-close returns, which nobody can trade")
    return [*warnings, *warnings_of_trading(config.profit_tracker, openings)]


def warnings_of_trading(rules: ProfitTrackerConfig, openings: int) -> list[str]:
    """What holds of any account under these rules. openings: of its test days, 0 while they are sealed."""
    warnings = list[str]()
    warnings.append("the symbols were chosen by people who know which ones survived: profits on them are flattered")
    if openings > 1:
        warnings.append(f"these test days were opened {openings} times: their figures count for less each time")
    if rules.commission + rules.slippage == 0:
        warnings.append("no trading costs: profits say what forecasts are worth before anyone is paid")
    if rules.max_gross > 1.0:
        warnings.append("profit_tracker.max_gross is above 1, and borrowed cash pays no interest: profits are too good")
    return warnings
