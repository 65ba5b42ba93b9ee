"""The recommendation of a fine-tune, on markets where the right answer is known."""

import numpy as np
import pytest

from hftraining.core.forecast import Forecast
from hftraining.evidence.config import EvidenceConfig
from hftraining.experiment.fit import Fitted
from hftraining.experiment.judging import judge
from hftraining.experiment.periods import Period
from hftraining.experiment.recommendation import Candidate, nothing_changes, recommend
from hftraining.market.features.names import BASIC
from hftraining.market.features.scaler import Scaler
from hftraining.market.features.table import make_features
from hftraining.market.labels import make_labels
from hftraining.model.base import Forecaster
from hftraining.model.config import ModelConfig
from hftraining.runs.trials import Trials
from hftraining.training.trainer import Progress
from tests.bars_of import make_bars
from tests.trackers import edge_tracker

EVIDENCE = EvidenceConfig(null_draws=200, bootstrap_draws=500)
LEVELS = (0.1, 0.5, 0.9)
TRACKER = edge_tracker(commission=0.0001, slippage=0.0001, stop_loss=0.0, take_profit=0.0)
TRIALS = Trials(4, (-0.02, 0.0, 0.01), 0.0002, {})


@pytest.fixture(scope="module")
def valid():
    bars = make_bars(n_sessions=700, n_symbols=1, seed=4)
    features = make_features(bars)
    labels = make_labels(bars, features.volatility_TS, [1], 1, "open", "none")
    return Period.cut(bars, features, labels, [1], slice(260, 700), 30)


@pytest.fixture(scope="module")
def model():
    scaler = Scaler(BASIC, (0.0,) * len(BASIC), (1.0,) * len(BASIC))
    return Forecaster.fresh(ModelConfig(hidden_size=16, num_layers=1, num_heads=2), scaler, [1], list(LEVELS), "cpu")


def candidate(name, valid, forecaster, skill, seed=0, steps=0):
    """A forecast of tomorrow's return with the given skill, plus noise."""
    rng = np.random.default_rng(seed)
    known = np.nan_to_num(valid.labels_TSH)
    middle = skill * known + (1 - abs(skill)) * 0.3 * rng.standard_normal(known.shape)
    quantiles = (middle[..., None] + np.array([-1.28, 0.0, 1.28])) * valid.span_TSH[..., None]
    forecast = Forecast(quantiles, np.full(known.shape[:2], np.nan), (1,), LEVELS)
    fitted = forecaster and Fitted(forecaster, Progress(step=steps), [], [])
    return Candidate(name, forecast, judge(valid, forecast, TRACKER, {}, EVIDENCE, 1), fitted)


def decided(valid, *candidates, **fields):
    return recommend(candidates, valid, None, TRIALS, EVIDENCE, 1, **({"has_forecast_loss": True} | fields))


def test_a_better_specialist_replaces_the_base_and_the_best_of_several_is_recommended(valid, model):
    base = candidate("base", valid, model, 0.0)
    some, more = (candidate(n, valid, model, s, 5, steps=9) for n, s in (("head", 0.4), ("full", 0.8)))
    decision = decided(valid, base, some, more)
    assert decision.choice == "full"
    assert decision.sentence.startswith("use full (fine-tuning all weights): it beats the base model (p = 0.00")
    row = decision.candidates["full"]
    assert row.difference.low > 0 and row.loss_difference.high < 0 and row.deflated_sharpe > 0.95


def test_a_worse_specialist_does_not_replace_the_base(valid, model):
    base, worse = candidate("base", valid, model, 0.5), candidate("full", valid, model, -0.5, steps=9)
    decision = decided(valid, base, worse)
    assert decision.choice == "base" and decision.candidates["full"].difference.high < 0
    assert decision.sentence == "keep the base model: full does not beat both luck and it"


@pytest.mark.slow
def test_specialists_without_skill_hardly_ever_replace_the_base(valid, model):
    base = candidate("base", valid, model, 0.0)
    choices = [decided(valid, base, candidate("full", valid, model, 0.0, seed, steps=9)).choice for seed in range(20)]
    assert choices.count("full") <= 1


def test_equal_forecasts_have_a_difference_of_zero(valid, model):
    base, same = candidate("base", valid, model, 0.2), candidate("lora", valid, model, 0.2, steps=9)
    decision = decided(valid, base, same)
    row = decision.candidates["lora"]
    assert (row.difference.value, row.loss_difference.value, decision.choice) == (0.0, 0.0, "base")


def test_a_lower_loss_alone_is_mentioned_but_does_not_change_the_recommendation(valid, model):
    base = candidate("base", valid, model, 0.0)
    too_wide = np.array([-2.0, 0.0, 2.0]) * valid.span_TSH[..., None]
    blurred = Forecast(base.forecast.quantiles_TSHQ + too_wide, base.forecast.head_TS, (1,), LEVELS)
    worse = Candidate("base", blurred, judge(valid, blurred, TRACKER, {}, EVIDENCE, 1), base.fitted)
    better = candidate("head", valid, model, 0.0, steps=9)
    decision = decided(valid, worse, better)
    assert decision.choice == "base" and decision.sentence.endswith("; head lowered the forecast loss")


def test_ridge_is_never_recommended_but_mentioned_where_it_is_better(valid, model):
    base, ridge = candidate("base", valid, model, 0.0), candidate("ridge", valid, None, 0.8)
    other = candidate("full", valid, model, 0.0, 7, steps=9)
    decision = decided(valid, base, other, ridge)
    assert decision.choice == "base" and "ridge regression beats the base model" in decision.sentence


def test_nothing_changes_has_the_loss_of_zero_and_no_profit(valid, model):
    base = candidate("base", valid, model, 0.0)
    still = Candidate("nothing_changes", nothing_changes(base.forecast))
    row = decided(valid, base, candidate("head", valid, model, 0.1, steps=9), still).candidates["nothing_changes"]
    labels = valid.scored_labels_TSH[np.isfinite(valid.scored_labels_TSH)]
    by_hand = np.mean([np.where(labels > 0, q * labels, (q - 1) * labels) for q in LEVELS])
    assert row.loss == pytest.approx(by_hand, rel=1e-6) and row.profit == {}


def test_an_objective_without_a_forecast_loss_has_no_losses_in_the_table(valid, model):
    base, other = candidate("base", valid, model, 0.0), candidate("full", valid, model, 0.0, 3, steps=9)
    decision = decided(valid, base, other, has_forecast_loss=False)
    assert all(row.loss is None and row.loss_difference is None for row in decision.candidates.values())
