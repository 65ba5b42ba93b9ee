"""What a judged period says beside its profit: leads over baselines, and the same positions at other costs."""

import numpy as np
import pytest
from scipy import stats

from hftraining.core.forecast import Forecast
from hftraining.evidence.bootstrap import sharpe_difference
from hftraining.evidence.config import EvidenceConfig
from hftraining.experiment.judging import COSTS, judge
from hftraining.experiment.periods import Period
from hftraining.market.features.table import make_features
from hftraining.market.labels import make_labels
from hftraining.profit_tracker import ProfitTracker
from hftraining.trading.metrics import daily_returns
from hftraining.trading.simulator import simulate
from tests.bars_of import make_bars

EVIDENCE = EvidenceConfig(null_draws=20, bootstrap_draws=200)


@pytest.fixture(scope="module")
def judged():
    """A noisy forecast of two stocks, judged at a commission of 5 basis points and no slippage, beside a book."""
    bars = make_bars(n_sessions=420, n_symbols=2, seed=4)
    features = make_features(bars)
    labels = make_labels(bars, features.volatility_TS, [1], 1, "open", relative="none")
    period = Period.cut(bars, features, labels, [1], slice(260, 420), 30)
    noise = np.random.default_rng(1).standard_normal(period.labels_TSH.shape)
    middle = 0.5 * np.nan_to_num(period.labels_TSH) + 0.5 * noise
    quantiles = (middle[..., None] + np.array([-1.28, 0.0, 1.28])) * period.span_TSH[..., None]
    forecast = Forecast(quantiles, np.full(noise.shape[:2], np.nan), (1,), (0.1, 0.5, 0.9))
    tracker = ProfitTracker(commission=0.0005, slippage=0.0)
    half_TS = np.full(noise.shape[:2], 0.25)
    return period, judge(period, forecast, tracker, {"half": half_TS}, EVIDENCE, 1), tracker.config, half_TS


def test_at_the_runs_own_costs_the_same_positions_earn_what_the_run_earned(judged):
    _, judgement, *_ = judged
    at = {found.basis_points: found for found in judgement.result.at_costs}
    assert list(at) == list(COSTS)
    assert at[5].total_return == pytest.approx(judgement.result.profit["total_return"], abs=1e-12)
    assert at[5].sharpe_ratio == pytest.approx(judgement.result.profit["sharpe_ratio"], abs=1e-12)


def test_the_more_a_side_costs_the_less_is_earned(judged):
    earned = [found.total_return for found in judged[1].result.at_costs]
    assert earned == sorted(earned, reverse=True) and len(set(earned)) == len(earned)


def test_the_lead_is_the_models_sharpe_ratio_less_the_baselines_on_the_same_days(judged):
    period, judgement, rules, half_TS = judged
    bars, beside = period.bars, judgement.result.baselines
    ours = judgement.result.profit["sharpe_ratio"]
    for baseline in beside.values():
        assert baseline.lead.value == pytest.approx(ours - baseline.metrics["sharpe_ratio"])
        assert baseline.lead.low < baseline.lead.value < baseline.lead.high
    assert beside["buy_and_hold"].lead == judgement.result.difference
    account = simulate(bars.open_TS, bars.high_TS, bars.low_TS, bars.close_TS, half_TS, rules)
    other = sharpe_difference(daily_returns(account.equity_T), judgement.returns_T, 200, 1)
    # The other way round the ends change places.
    assert (beside["half"].lead.low, beside["half"].lead.high) == pytest.approx((-other.high, -other.low))


def test_the_probed_correlation_is_spearmans_over_the_stocks_of_a_day_then_the_mean_of_days_and_horizons():
    bars = make_bars(n_sessions=120, n_symbols=5, seed=2)
    features = make_features(bars)
    labels = make_labels(bars, features.volatility_TS, [1, 5], 1, "open", relative="none")
    labels[70, 1:] = np.nan  # one stock left
    period = Period.cut(bars, features, labels, [1, 5], slice(60, 120), 30)
    draw = np.random.default_rng(3)
    middle_TSH = draw.standard_normal(period.labels_TSH.shape)
    middle_TSH[3] = 0.7  # no stock before another
    quantiles = middle_TSH[..., None] + np.array([-1.0, 0.0, 1.0])
    forecast = Forecast(quantiles, np.full(middle_TSH.shape[:2], np.nan), (1, 5), (0.1, 0.5, 0.9))
    outcome_TSH = period.scored_labels_TSH * period.span_TSH
    daily = []
    for h in range(2):
        for t in range(60):
            known_S = np.isfinite(outcome_TSH[t, :, h])
            if t != 3 and known_S.sum() >= 3:
                daily.append(stats.spearmanr(middle_TSH[t, known_S, h], outcome_TSH[t, known_S, h]).statistic)
    assert 100 < len(daily) < 118
    assert period.rank_ic(forecast) == pytest.approx(np.mean(daily), abs=1e-12)
