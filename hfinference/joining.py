"""Several trained runs joined into one model: its weights, and what it and each of its members come to on common days.

Legend: T sessions, S symbols, H horizons, M members, N forecasts.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from scipy.optimize import nnls

from hfinference.bars_of_run import RunBars, bars_of_run
from hfinference.judged import Asked, judged_folder
from hfinference.trained import Table, TrainedModel, forecast_of, load_model
from hftraining.core.errors import UserError
from hftraining.core.forecast import Forecast
from hftraining.core.untrusted import SMALL, digest
from hftraining.experiment.conclude import warnings_of_trading
from hftraining.experiment.config import ExperimentConfig
from hftraining.experiment.judging import Judgement, judge
from hftraining.experiment.ledger_row import LedgerRow
from hftraining.experiment.members import EQUAL, Member, add_period, facts_of
from hftraining.experiment.periods import Period, score_losses, unconditional
from hftraining.market.features.table import Features
from hftraining.market.labels import make_labels
from hftraining.model.config import HEADLESS
from hftraining.model.ensemble import Ensemble, members_of, refuse_unlike
from hftraining.model.folder import CONFIG
from hftraining.profit_tracker import ProfitTracker
from hftraining.runs.member_results import EnsembleResult
from hftraining.runs.result import PERIODS, FinishedRun, Losses, RunResult
from hftraining.trading.strategies import STRATEGIES

SPREAD, VALIDATION, RIDGE = "spread", "validation", "ridge"
WEIGHTS = {
    EQUAL: "equal",
    SPREAD: "by spread: each member's is 1 / the standard deviation of its medians on the validation days, over the "
    "sum of these, so that all move the mean alike",
    VALIDATION: "by validation loss: each member's is 1 / its loss on the validation days, over the sum of these",
    RIDGE: "by ridge regression of the validation days' outcomes on the members' medians, not negative, of sum 1",
}
VALID_IN_SAMPLE = "in sample: the weights were fitted to these days"  # the verdict on them
LEAST_SPREAD = 1e-3  # of a member's medians, as a share of the largest: with less it would decide alone
KIND = "ensembles"


def join(
    runs: Sequence[Path | str],
    weighting: str = EQUAL,
    name: str | None = None,
    outputs: Path | str = "outputs",
    argv: Sequence[str] | None = None,
) -> FinishedRun:
    """Join finished runs into an ensemble, judge it on days that none of them was trained on, and save it.

    runs: of any seeds, kinds, features and stocks, that forecast the same; an ensemble among them brings its members.
    The stocks and days that are judged, the rules and the evidence are those of the first. weighting: one of WEIGHTS.
    name: of the folder outputs/ensembles/NAME/DATE_TIME, which load_model reads as that of a run. Test days of all
    members are an opening. Raises UserError, in one line, before anything is written, for runs that do not fit each
    other.
    """
    if weighting not in WEIGHTS:
        raise UserError(f"weights={weighting} is none of {', '.join(WEIGHTS)}")
    models = _load(runs)
    lead = models[0]
    assert lead.config is not None
    config = replace(lead.config, resume=None, output_dir=str(outputs))
    bars = bars_of_run(lead)
    common = _Common.of(models, config, bars)
    tracker = ProfitTracker(config.profit_tracker, config.portfolio)
    weights = weights_of(weighting, common, common.forecasts("valid"), tracker.portfolio.horizon)
    ensemble = Ensemble.of([model.predictor for model in models], weights)
    first, last = common.rows["valid"].start, max(rows.stop for rows in common.rows.values())
    asked = Asked(
        kind=KIND,
        name=name or _name(models),
        config=config,
        bars=bars.traded.rows(slice(first, last)),
        whole=bars.traded,
        made_of=[_identity(model) for model in models],
        further={
            "ensemble.weights": weighting,
            "ensemble.members": [_identity(m).get("id", str(m.folder)) for m in models],
        },
        periods={name: period.window for name, period in common.periods.items()},
        columns=ensemble.columns,
    )
    with judged_folder(asked, Path(outputs), argv) as found:
        members = [
            Member(label, model.predictor, weight, str(model.folder))
            for label, model, weight in zip(_labels(models), models, weights, strict=True)
        ]
        facts = facts_of(members, WEIGHTS[weighting], in_sample=weighting != EQUAL)
        judged = _judged(common, ensemble, facts, tracker)
        result = _result(common, ensemble, judged, found.record.manifest["signature"])
        result.ensemble = facts
        result.warnings += warnings_of_trading(config.profit_tracker, found.openings)
        row = LedgerRow(found.ledger, found.row)
        row.judge(result, judged, found.openings, config.evidence, config.seed)
        if facts.in_sample:
            judged["valid"].result.verdict = VALID_IN_SAMPLE
            result.verdict = judged[max(judged, key=list(PERIODS).index)].result.verdict
        ensemble.save(found.record.model)
        return found.write(judged, result)


def _judged(
    common: "_Common", ensemble: Ensemble, facts: EnsembleResult, tracker: ProfitTracker
) -> dict[str, Judgement]:
    """The ensemble's account in each period, and in the facts what each member comes to."""
    found, evidence = dict[str, Judgement](), (common.config.evidence, common.config.seed)
    for name, period in common.periods.items():
        found[name] = judge(period, common.forecast(ensemble, name), tracker, common.baselines(name), *evidence)
        add_period(facts, name, period, common.forecasts(name), found[name], tracker, *evidence)
    return found


@dataclass(frozen=True)
class _Common:
    """What several models are judged on: the stocks and the days that are common to them.

    rows: of the universe, by period. periods: their bars and labels, without features. train: the days that any model
    was trained on, and those in between. made: the forecasts of each model so far.
    """

    models: Sequence[TrainedModel]
    config: ExperimentConfig
    bars: RunBars
    table: Table
    rows: dict[str, slice]
    periods: dict[str, Period]
    train: Period
    made: dict[tuple[str, int], Forecast]

    @classmethod
    def of(cls, models: Sequence[TrainedModel], config: ExperimentConfig, bars: RunBars) -> "_Common":
        """Raises UserError where there is no common validation day, or no bar of it."""
        days = Ensemble.of([model.predictor for model in models]).days
        if "valid" not in days:
            raise UserError(f"there is no validation day that no member was trained on: {_spans(models)}")
        table, sessions_T = Table(bars.universe), bars.universe.sessions_T
        rows: dict[str, slice] = {
            name: slice(*np.searchsorted(sessions_T, [np.datetime64(days[name][0]), np.datetime64(days[name][1]) + 1]))
            for name in days
        }
        rows = {name: found for name, found in rows.items() if found.stop - found.start > 1}
        for name in ("train", "valid"):
            if name not in rows:
                raise UserError(f"the bars of {models[0].folder} have no two sessions from {' to '.join(days[name])}")
        periods = _periods(models, config, bars, table, rows)
        train = periods.pop("train")
        return cls(models, config, bars, table, {name: rows[name] for name in periods}, periods, train, {})

    def forecast(self, predictor: Ensemble, name: str) -> Forecast:
        """The ensemble's of a period."""
        return forecast_of(predictor, self.table, self.bars.symbols, self.rows[name])

    def forecasts(self, name: str) -> list[Forecast]:
        """Each member's of a period."""
        for place, model in enumerate(self.models):
            if (name, place) not in self.made:
                found = forecast_of(model.predictor, self.table, self.bars.symbols, self.rows[name])
                self.made[name, place] = found
        return [self.made[name, place] for place in range(len(self.models))]

    def baselines(self, name: str) -> dict[str, np.ndarray]:
        """Target weights_TS of the baselines that are rules; those that learn stand in the reports of the members."""
        rules, close_TS = self.config.profit_tracker, self.bars.traded.close_TS
        names = [baseline for baseline in self.config.evidence.baselines if baseline in STRATEGIES]
        return {baseline: STRATEGIES[baseline](close_TS, rules)[self.rows[name]] for baseline in names}


def _load(runs: Sequence[Path | str]) -> list[TrainedModel]:
    """The models of runs that fit each other. Raises UserError."""
    if not runs:
        raise UserError("an ensemble is made of runs: give their folders, outputs/base/NAME/DATE_TIME")
    places = [Path(run).resolve() for run in runs]
    if twice := next((run for run, place in zip(runs, places, strict=True) if places.count(place) > 1), None):
        raise UserError(f"{twice} is given twice: a run counts once in an ensemble")
    models = [load_model(run) for run in runs]
    for model in models:
        if model.config is None:
            raise UserError(f"{model.folder} is a model without its run: give the folder of the run")
    _refuse_copies(models)
    for model in models[1:]:
        try:
            refuse_unlike([models[0].predictor, model.predictor])
        except ValueError as error:
            what = str(error).replace("model 2", "its model").replace("the first", str(models[0].folder), 1)
            raise UserError(f"{model.folder}: {what}") from None
        assert models[0].config is not None and model.config is not None
        for field, ours, theirs in (
            ("objective.label", model.config.objective.label, models[0].config.objective.label),
            ("profit_tracker.lag", model.config.profit_tracker.lag, models[0].config.profit_tracker.lag),
        ):
            if ours != theirs:
                raise UserError(f"{model.folder}: {field}={ours}, where {models[0].folder} has {theirs}")
    _refuse_headless(models)
    return models


def _refuse_copies(models: Sequence[TrainedModel]) -> None:
    """Refuse a copy or a replay of a run beside it: the same model would count twice."""
    known: dict[str, Path] = {}
    for model in models:
        same = digest(model.folder / "model" / CONFIG, SMALL)  # which names the checksums of its weights
        if other := known.get(same):
            raise UserError(f"{model.folder} has the very model of {other}: a model counts once in an ensemble")
        known[same] = model.folder


def _refuse_headless(models: Sequence[TrainedModel]) -> None:
    """Refuse a book of positions of the models' own where one of them has none: the mean would have none, either."""
    config = models[0].config
    assert config is not None
    for model in models if config.portfolio.kind == "head" else []:
        if lacking := next((one.kind for one in members_of(model.predictor) if one.kind in HEADLESS), None):
            raise UserError(
                f"{models[0].folder} trades the position head (portfolio.kind=head), which {lacking} in {model.folder} "
                "lacks: put a run with another portfolio first"
            )


def _periods(
    models: Sequence[TrainedModel], config: ExperimentConfig, bars: RunBars, table: Table, rows: dict[str, slice]
) -> dict[str, Period]:
    made = [table.of(member) for member in dict.fromkeys(model.columns for model in models)]
    known_TS = np.logical_and.reduce([features.known_TS for features in made])
    volatility_TS = made[0].volatility_TS
    # All that a period asks of features is where they are known: the forecasts are made elsewhere.
    known = Features(("known",), np.where(known_TS, 0.0, np.nan).astype(np.float32)[:, :, None], volatility_TS)
    relative, horizons = models[0].relative, list(models[0].horizons)
    lag, label = config.profit_tracker.lag, config.objective.label
    labels_TSH = make_labels(bars.universe, volatility_TS, horizons, lag, label, relative)
    columns = bars.universe.columns_of(bars.symbols)
    own = (bars.traded, known.of(columns), labels_TSH[:, columns])
    return {name: Period.cut(*own, horizons, found, 0, relative, config.objective.loss) for name, found in rows.items()}


def weights_of(weighting: str, common: "_Common", forecasts: Sequence[Forecast], horizon: int) -> list[float]:
    """The weights of members, of sum 1, by one of WEIGHTS. forecasts: of the validation days.

    Raises UserError where a loss is not positive, a member's medians are all alike, or none goes with the outcomes.
    """
    valid = common.periods["valid"]
    if weighting == EQUAL:
        return [1.0 / len(forecasts)] * len(forecasts)
    if weighting == VALIDATION:
        losses = [valid.forecast_loss(forecast) for forecast in forecasts]
        if not all(loss > 0.0 and math.isfinite(loss) for loss in losses):
            raise UserError(
                f"--weights {VALIDATION}: the losses on the validation days, {', '.join(f'{x:.4g}' for x in losses)}, "
                "are not all positive, so that their inverses are no weights: use equal or ridge"
            )
        return _shares([1.0 / loss for loss in losses])
    h = forecasts[0].horizons.index(horizon or max(forecasts[0].horizons))  # the traded one
    median_MTS = _medians(valid, forecasts, h)
    if weighting == SPREAD:
        if not np.isfinite(median_MTS).any():
            raise UserError(f"--weights {SPREAD}: there is no validation day on which all members forecast a stock")
        spreads = np.nanstd(median_MTS, axis=(1, 2)).tolist()
        if still := [m for m, spread in enumerate(spreads) if not spread > LEAST_SPREAD * max(spreads)]:
            raise UserError(
                f"--weights {SPREAD}: {common.models[still[0]].folder} forecasts all but the same for every stock and "
                f"validation day (spread {spreads[still[0]]:.2g}, where another has {max(spreads):.2g}), and would "
                "decide alone: leave it out, or use another weighting"
            )
        return _shares([1.0 / spread for spread in spreads])
    outcome_TS = valid.scored_labels_TSH[:, :, h]
    known_TS = np.isfinite(median_MTS[0]) & np.isfinite(outcome_TS)
    found = ridge_weights(median_MTS[:, known_TS], outcome_TS[known_TS])
    if not sum(found) > 0.0:
        raise UserError(
            f"--weights {RIDGE}: on the validation days no member's median goes with the outcomes, so that each gets "
            "weight 0: use equal or validation"
        )
    return _shares(found)


def ridge_weights(median_MN: np.ndarray, outcome_N: np.ndarray) -> list[float]:
    """Not negative w_M with the least |outcome - w medians|^2 + penalty |w|^2, before they are brought to the sum 1.

    The penalty is the mean over the members of |median|^2, which pulls members that are alike to like weights. Source:
    Hoerl and Kennard (1970), solved by Lawson and Hanson (1974).
    """
    penalty = float((median_MN**2).sum(axis=1).mean())
    count = len(median_MN)
    design = np.vstack([median_MN.T, math.sqrt(penalty) * np.eye(count)])
    found: list[float] = nnls(design, np.concatenate([outcome_N, np.zeros(count)]))[0].tolist()
    return found


def _medians(valid: Period, forecasts: Sequence[Forecast], h: int) -> np.ndarray:
    """median_MTS at a horizon, in the unit of the labels; NaN for all members where it is for one."""
    middle = forecasts[0].levels.index(0.5)
    median_MTS = np.stack([one.quantiles_TSHQ[:, :, h, middle] for one in forecasts]) / valid.span_TSH[:, :, h]
    return np.where(np.isfinite(median_MTS).all(axis=0), median_MTS, np.nan)


def _shares(values: Sequence[float]) -> list[float]:
    return [value / sum(values) for value in values]


def _result(common: "_Common", ensemble: Ensemble, judged: dict[str, Judgement], signature: str) -> RunResult:
    """The result without its members and what the ledger says."""
    losses = dict[str, Losses]()
    constant_HQ = unconditional(common.train, ensemble.levels)
    for name, period in common.periods.items():
        losses[name] = score_losses(period, constant_HQ, common.forecast(ensemble, name))
    warnings = list(common.bars.notes)
    if others := [str(model.folder) for model in common.models if set(model.symbols) != set(common.models[0].symbols)]:
        warnings.append(f"{', '.join(others[:3])} learned from other stocks than the first member, whose are judged")
    if "test" not in common.periods:
        warnings.append("there is no test day of all members: nothing was opened")
    return RunResult(
        signature=signature,
        relative=ensemble.relative,
        parameters=ensemble.size,
        eval_loss=losses["valid"].model,
        loss=losses,
        periods={name: part.result for name, part in judged.items()},
        warnings=warnings,
    )


def _identity(model: TrainedModel) -> dict[str, str]:
    facts = model.manifest
    known = {name: str(facts[name]) for name in ("id", "signature") if facts.get(name)}
    return {"folder": str(model.folder), **known}


def _labels(models: Sequence[TrainedModel]) -> list[str]:
    """What the members are called: the names of their runs, or their folders where names are alike."""
    names = [str(model.manifest.get("name")) for model in models]
    seeds = [f"{name} seed {model.manifest.get('seed')}" for name, model in zip(names, models, strict=True)]
    for known in (names, seeds):
        if len(set(known)) == len(known):
            return known
    return [f"{name} {model.folder.name}" for name, model in zip(names, models, strict=True)]


def _name(models: Sequence[TrainedModel]) -> str:
    first = str(models[0].manifest["name"]).replace(" ", "-")
    return first if len(models) == 1 else f"{first[:80]}-and-{len(models) - 1}-more"


def _spans(models: Sequence[TrainedModel]) -> str:
    known = [
        f"{model.folder} {model.days['train'][1]} and tests from {model.days['test'][0]}"
        if {"train", "test"} <= set(model.days)
        else f"{model.folder} on unknown days"
        for model in models
    ]
    return "trained until " + "; ".join(known[:4])
