"""From bars to profit on the packaged sample of five, with known forecasts in place of the model."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from hftraining.core.errors import Pruned
from hftraining.core.forecast import Forecast
from hftraining.experiment.periods import Period, measured_part, score_losses, score_training, unconditional
from hftraining.experiment.probe import loss_profit_correlation
from hftraining.market.config import StocksConfig
from hftraining.market.features.scaler import Scaler
from hftraining.market.features.table import make_features
from hftraining.market.labels import make_labels
from hftraining.market.prices import load_bars
from hftraining.market.windows import make_splits
from hftraining.model.base import Forecaster
from hftraining.model.config import ModelConfig
from hftraining.model.folder import ModelFolderError
from hftraining.runs.ledger import Ledger
from tests.compose import compose_config
from tests.runs_of import FAST, placed, trained
from tests.trackers import edge_tracker

HORIZONS, LEVELS = (1, 5), (0.1, 0.5, 0.9)


@pytest.fixture(scope="module")
def bars():
    return load_bars(StocksConfig(source="sample5"))


@pytest.fixture(scope="module")
def valid(bars):
    features = make_features(bars)
    labels = make_labels(bars, features.volatility_TS, HORIZONS, 1, "open", "none")
    splits = make_splits(bars.sessions_T, StocksConfig(), purge=6)
    return Period.cut(bars, features, labels, list(HORIZONS), splits.valid, lead=50)


def forecast_of(period, labels_TSH):
    """A forecast of these labels, in volatility units, without any uncertainty."""
    quantiles = np.repeat((labels_TSH * period.span_TSH)[..., None], len(LEVELS), axis=-1)
    return Forecast(quantiles, np.full(labels_TSH.shape[:2], np.nan), HORIZONS, LEVELS)


def traded(period, labels_TSH, **rules):
    return edge_tracker(1, **rules).evaluate(period.bars, forecast_of(period, labels_TSH)).metrics


def test_perfect_foresight_earns_and_its_reverse_loses(valid):
    assert traded(valid, valid.scored_labels_TSH)["total_return"] > 0.5
    assert traded(valid, -valid.scored_labels_TSH)["total_return"] < -0.5


def test_the_labels_of_one_day_later_earn_far_less_so_that_foresight_is_dated_right(valid):
    labels = valid.scored_labels_TSH
    late = np.vstack([np.full_like(labels[:1], np.nan), labels[:-1]])
    assert traded(valid, late)["sharpe_ratio"] < 0.3 * traded(valid, labels)["sharpe_ratio"]


def test_zero_forecasts_trade_nothing_and_leave_the_capital_as_it_was(valid):
    metrics = traded(valid, np.zeros_like(valid.labels_TSH))
    assert (metrics["trade_count"], metrics["total_return"], metrics["exposure"]) == (0, 0, 0)


def test_a_coin_flip_loses_about_its_costs(valid):
    rng = np.random.default_rng(0)
    gains, costs = [], []
    for _ in range(40):
        flips = rng.choice([-1.0, 1.0], valid.labels_TSH.shape)
        metrics = traded(valid, flips, stop_loss=0.0, take_profit=0.0)
        gains.append(np.log1p(metrics["total_return"]))
        costs.append(metrics["costs"])
    error = np.std(gains) / len(gains) ** 0.5
    # Costs are a share of the initial capital while the account shrinks, so logs of the remaining account are compared.
    lost_to_costs = np.log1p(-np.mean(costs))
    assert np.mean(costs) > 0.1
    assert abs(np.mean(gains) - lost_to_costs) < 4 * error + 0.3 * abs(lost_to_costs)


def test_forecasts_of_a_period_equal_those_of_the_whole_history(bars, valid):
    features = make_features(bars)
    splits = make_splits(bars.sessions_T, StocksConfig(), purge=6)
    scaler = Scaler.fit(features, splits.train)
    config = ModelConfig(hidden_size=16, num_layers=2, num_heads=2, context=20)
    forecaster = Forecaster.fresh(config, scaler, list(HORIZONS), list(LEVELS), "cpu")
    whole = forecaster.forecast(bars)
    part = valid.forecast(forecaster)
    for ours, theirs in ((part.quantiles_TSHQ, whole.quantiles_TSHQ), (part.head_TS, whole.head_TS)):
        np.testing.assert_allclose(ours, theirs[splits.valid], rtol=0, atol=1e-6)
    until_today = forecaster.forecast(bars.rows(slice(0, splits.valid.stop)))
    np.testing.assert_allclose(until_today.quantiles_TSHQ[-1], whole.quantiles_TSHQ[splits.valid.stop - 1], atol=1e-6)


def test_a_saved_forecaster_forecasts_the_same_bits(bars, tmp_path):
    features = make_features(bars)
    scaler = Scaler.fit(features, slice(0, 2000))
    forecaster = Forecaster.fresh(ModelConfig(hidden_size=16, num_heads=2), scaler, [1, 5], list(LEVELS), "cpu")
    forecaster.save(tmp_path)
    again = Forecaster.load(tmp_path)
    np.testing.assert_array_equal(forecaster.forecast(bars).quantiles_TSHQ, again.forecast(bars).quantiles_TSHQ)


@pytest.mark.parametrize("damage", ["config.json", "scaler.json", "model.safetensors"])
def test_a_damaged_model_folder_is_refused_by_name(bars, tmp_path, damage):
    scaler = Scaler.fit(make_features(bars), slice(0, 2000))
    Forecaster.fresh(ModelConfig(hidden_size=16, num_heads=2), scaler, [1], list(LEVELS), "cpu").save(tmp_path)
    path = tmp_path / damage
    path.write_bytes(path.read_bytes()[:20])
    with pytest.raises(ModelFolderError, match=damage):
        Forecaster.load(tmp_path)


def test_the_loss_of_perfect_forecasts_is_zero_and_unconditional_quantiles_beat_nothing_changes(valid):
    assert valid.forecast_loss(forecast_of(valid, valid.labels_TSH)) == pytest.approx(0, abs=1e-7)
    nothing = valid.constant_loss(np.zeros((2, 3)), LEVELS)
    labels = valid.scored_labels_TSH[np.isfinite(valid.scored_labels_TSH)]
    # With every quantile at zero the levels 0.1, 0.5 and 0.9 weigh each label's size with a mean of one half.
    assert nothing == pytest.approx(0.5 * np.abs(labels).mean() + (0.5 - 0.5) * labels.mean(), rel=1e-6)
    constant_HQ = unconditional(valid, LEVELS)
    assert score_losses(valid, constant_HQ, forecast_of(valid, valid.labels_TSH)).unconditional < nothing


def test_the_loss_of_very_many_training_days_is_measured_on_evenly_chosen_stocks_and_says_so(valid, monkeypatch):
    scaler = Scaler.fit(valid.features, slice(0, len(valid.features.volatility_TS)))
    forecaster = Forecaster.fresh(ModelConfig(hidden_size=16, num_heads=2), scaler, [1, 5], list(LEVELS), "cpu")
    constant_HQ, n_symbols = unconditional(valid, LEVELS), len(valid.bars.symbols_S)
    whole = score_training(valid, constant_HQ, forecaster)
    assert whole == score_losses(valid, constant_HQ, valid.forecast(forecaster)) and whole.stocks is None

    monkeypatch.setattr("hftraining.experiment.periods.TRAIN_BARS", 4 * len(valid.bars.sessions_T))
    some, few = score_training(valid, constant_HQ, forecaster), valid.of([0, 1, 2, n_symbols - 1])
    assert measured_part(valid, forecaster).bars.symbols_S == few.bars.symbols_S and some.stocks == 4
    # As a model that sees each stock alone would score them one by one.
    known_S, loss_S = [], []
    for s in (0, 1, 2, n_symbols - 1):
        one = valid.of([s])
        known_S.append(np.isfinite(one.scored_labels_TSH).sum())
        loss_S.append(one.forecast_loss(valid.of([s]).forecast(forecaster)))
    assert known_S[-1] > 0 and some.model != whole.model
    assert some.model == pytest.approx(np.average(np.nan_to_num(loss_S), weights=known_S), rel=1e-5)


def test_the_loss_profit_correlation_is_the_rank_correlation_with_fishers_interval():
    losses, sharpes = [5.0, 4.0, 3.0, 2.0, 1.0, 0.5], [0.0, 1.0, 0.5, 2.0, 3.0, 2.5]
    correlation, (low, high) = loss_profit_correlation(losses, sharpes)
    differences = np.argsort(np.argsort(losses)) - np.argsort(np.argsort(sharpes))
    assert correlation == pytest.approx(1 - 6 * (differences**2).sum() / (6 * 35))
    assert -1 < low < correlation < high < 0.5
    assert np.isnan(loss_profit_correlation(losses[:2], sharpes[:2])[0])
    assert np.isnan(loss_profit_correlation([1.0, 1.0, 1.0], [1.0, 2.0, 3.0])[0])


@pytest.mark.slow
def test_the_loss_on_training_days_goes_down_with_training_and_ends_below_nothing_changes(tmp_path):
    quick = [
        "model=tiny",
        "stocks=sample5",
        "training.window=64",
        "training.learning_rate=3e-3",
        "training.threads=1",
        *FAST,
    ]
    losses = {}
    for steps in (1, 100):
        config = compose_config(*quick, f"training.max_steps={steps}", f"output_dir={tmp_path}")
        losses[steps] = trained(config)["loss"]["train"]
    assert losses[100]["model"] < losses[1]["model"]
    assert losses[100]["model"] < losses[100]["nothing_changes"]


SMALL = (
    "model=tiny",
    "stocks=sample5",
    "training.max_steps=20",
    "training.window=48",
    "training.threads=1",
    "evidence.baselines=[trend]",
    "profit_tracker.every=10",
    *FAST,
)


@pytest.mark.slow
def test_a_sealed_run_learns_the_same_and_shows_nothing_of_the_test_days(tmp_path):
    config, seen = compose_config(*SMALL, *placed(tmp_path)), {}
    sealed = trained(config, [], sealed=True, watch=lambda step, values: seen.update({step: values["eval/loss"]}))
    opened = trained(config, [])
    weights = [(Path(run["folder"]) / "model" / "model.safetensors").read_bytes() for run in (sealed, opened)]
    assert weights[0] == weights[1]
    assert sealed["signature"] == opened["signature"] and sealed["valid"]["profit"] == opened["valid"]["profit"]
    assert "test" not in sealed and sealed["test_openings"] == 0 and opened["test_openings"] == 1
    assert sealed["verdict"] == sealed["valid"]["verdict"]
    assert list(seen) == [10, 20] and min(seen.values()) == pytest.approx(sealed["eval"]["loss"])
    equity = pd.read_parquet(Path(sealed["folder"]) / "equity.parquet")
    assert set(equity["window"]) == {"valid"} and str(equity["date"].max().date()) < opened["test"]["first"]
    without_test, with_test = Ledger(tmp_path / "ledger.sqlite").entries()
    assert without_test.test_window == "" and with_test.test_window.startswith(opened["test"]["first"])


@pytest.mark.slow
def test_a_watch_on_the_probes_can_end_a_run_which_the_ledger_then_calls_pruned(tmp_path):
    def enough(step, values):
        raise Pruned("worse than the median")

    config = compose_config(*SMALL, *placed(tmp_path))
    with pytest.raises(Pruned):
        trained(config, [], kind="sweeps", name="study", called="trial-0000", sealed=True, watch=enough)
    (entry,) = Ledger(tmp_path / "ledger.sqlite").entries()
    assert (entry.status, entry.kind, entry.name) == ("pruned", "sweeps", "study")
    assert entry.folder == tmp_path / "sweeps" / "study" / "trial-0000" and not (entry.folder / "result.json").exists()


def test_a_sealed_run_is_not_given_a_bar_of_the_test_days(tmp_path, monkeypatch):
    seen = []

    def spy(bars, columns):
        seen.append(bars.sessions_T[-1])
        return make_features(bars, columns)

    monkeypatch.setattr("hftraining.experiment.ground.make_features", spy)
    config = compose_config(*SMALL, f"output_dir={tmp_path}")
    trained(config, [], sealed=True)
    bars = load_bars(config.stocks)
    first_test_day = bars.sessions_T[int(0.85 * len(bars.sessions_T))]
    assert seen and max(seen) < first_test_day
