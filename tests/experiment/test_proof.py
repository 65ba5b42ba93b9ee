"""The leak proof of a whole run: hftraining/experiment/proof.py, small.py, outcome.py and rare_days.py."""

import os
import signal
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from hftraining.core.errors import Interrupted
from hftraining.experiment import candidate
from hftraining.experiment.base_run import BaseRun
from hftraining.experiment.ground import lay, stocks_of
from hftraining.experiment.outcome import lively
from hftraining.experiment.planting import ahead, feature, planted
from hftraining.experiment.proof import prove, prove_run
from hftraining.experiment.rare_days import sweep_days, until, unusual_first
from hftraining.experiment.small import MOST_SYMBOLS, small_run
from hftraining.market.features.scaler import Scaler
from hftraining.market.prices import load_bars
from hftraining.market.windows import WindowSampler
from hftraining.model.config import HEADLESS
from tests.bars_of import make_bars
from tests.compose import CONF, compose_config
from tests.runs_of import QUICK, tuned_config
from tests.slowly import mostly_slow

SMALL = ["stocks=sample5", *(text for text in QUICK if text != "stocks=folder")]
RIDGE = [text for text in SMALL if not text.startswith("model")] + ["model=ridge"]


def ground_of(bars, *overrides, **settings):
    return lay(compose_config(*SMALL, *overrides), bars, **settings)


@pytest.fixture(scope="module")
def bars():
    return make_bars(n_sessions=500, n_symbols=4, missing=0.03)


@pytest.fixture(scope="module")
def ground(bars):
    return ground_of(bars)


def test_a_clean_run_passes_and_the_draws_of_the_run_stay_what_they_were(ground):
    torch.manual_seed(5)
    before = torch.get_rng_state()
    report = prove(ground, 3, seed=0)
    assert report.ok and report.lines == [] and report.days == 3
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("sealed", [False, True])
def test_the_last_training_day_of_the_run_is_the_last_of_its_small_run(ground, bars, sealed):
    real = ground_of(bars, sealed=sealed) if sealed else ground
    small = small_run(real, np.random.default_rng(0), real.splits.valid.start)
    ours = small.bars.sessions_T[small.splits.train.stop - 1], small.bars.sessions_T[small.splits.valid.start]
    theirs = bars.sessions_T[real.splits.train.stop - 1], bars.sessions_T[real.splits.valid.start]
    assert ours == theirs
    assert len(small.bars.sessions_T) < len(bars.sessions_T) and len(small.bars.symbols_S) <= MOST_SYMBOLS


@pytest.mark.slow
@pytest.mark.parametrize("horizons", ["[1]", "[1,20]", "[30]"])
@pytest.mark.parametrize("sealed", [False, True])
def test_a_small_run_has_room_for_its_purge_at_any_border(bars, horizons, sealed):
    real = ground_of(bars, f"objective.horizons={horizons}", "evidence.baselines=[]", sealed=sealed)
    purge = real.splits.valid.start - real.splits.train.stop
    for seed in range(5):
        splits = small_run(real, np.random.default_rng(seed)).splits
        assert splits.valid.start - splits.train.stop == splits.test.start - splits.valid.stop == purge
        assert min(splits.valid.stop - splits.valid.start, splits.test.stop - splits.test.start) > purge


@pytest.mark.slow
def test_a_sealed_run_is_proved_without_its_test_days(bars, monkeypatch):
    real = ground_of(bars, sealed=True)
    last = max(small_run(real, np.random.default_rng(seed)).bars.sessions_T[-1] for seed in range(20))
    assert last < bars.sessions_T[real.splits.test.start]
    assert prove(real, 2, seed=0).ok


@pytest.mark.parametrize(
    "option", mostly_slow(sorted(path.stem for path in (CONF / "model").glob("*.yaml")), quick=(0, 3, 6))
)
def test_every_option_of_the_group_model_is_made_small_as_it_comes(bars, option):
    if option == "lightgbm":
        pytest.importorskip("lightgbm", reason="LightGBM is not installed: pip install -e '.[baselines]'")
    sizes = () if option not in ("base", "large") else ("model.hidden_size=32", "model.num_heads=2")
    real = lay(compose_config("stocks=sample5", f"model={option}", *sizes, "evidence.baselines=[]"), bars)
    small = small_run(real, np.random.default_rng(0), real.splits.valid.start)
    windows = small.ground().windows
    assert (windows is None) == (option in HEADLESS)
    if windows:
        assert windows.window == (64 if option == "patchtst" else 32)


@pytest.mark.slow
def test_a_kind_that_reads_more_bars_than_a_small_run_has_in_a_window_is_proved(bars):
    overrides = ("model=mlp", "model.hidden_size=8", "model.context=40", "training.window=64")
    real = lay(compose_config("stocks=sample5", *overrides, "evidence.baselines=[]"), bars)
    assert prove(real, 1, seed=0).lines == []


@pytest.mark.parametrize("model", ["transformer", "ridge", "lightgbm"])
def test_the_forecasts_of_an_untrained_model_depend_on_every_feature(bars, model):
    overrides = SMALL if model == "transformer" else [*RIDGE, f"model={model}"]
    if model == "lightgbm":
        pytest.importorskip("lightgbm", reason="LightGBM is not installed: pip install -e '.[baselines]'")
    real = lay(compose_config(*overrides), bars)
    forecaster, features = lively(real.forecaster), real.features
    plain = forecaster.forecast_features(features, bars.symbols_S).quantiles_TSHQ
    for f in range(features.values_TSF.shape[2]):
        values_TSF = features.values_TSF.copy()
        values_TSF[:, :, f] *= -1.0
        other = forecaster.forecast_features(replace(features, values_TSF=values_TSF), bars.symbols_S)
        assert not np.array_equal(other.quantiles_TSHQ, plain, equal_nan=True)


@pytest.mark.parametrize(
    "kind", mostly_slow(["tilt", "top", "long_short", "core", "edge", "sign", "head"], quick=(0, 3))
)
def test_an_untrained_model_trades_most_days_so_that_a_leak_would_move_its_account(bars, kind):
    real = ground_of(bars, f"portfolio.kind={kind}")
    valid = real.periods["valid"]
    weights_TS = real.tracker.evaluate(valid.bars, valid.forecast(lively(real.forecaster))).weights_TS
    held_T = np.abs(weights_TS).sum(axis=1) > 0
    assert held_T.mean() > 0.8 and len(np.unique(weights_TS.round(6), axis=0)) > 3


def test_an_interruption_during_the_proof_says_that_nothing_was_written(ground, monkeypatch):
    batch = WindowSampler.batch

    def interrupted(self, seed, step):
        if self.window == 24 and step == 2:
            os.kill(os.getpid(), signal.SIGTERM)
        return batch(self, seed, step)

    monkeypatch.setattr("hftraining.experiment.proof.batches_of", lambda ground: {})
    monkeypatch.setattr(WindowSampler, "batch", interrupted)
    with pytest.raises(Interrupted, match="during the leak proof, before the run began: nothing was written"):
        prove(ground, 1, seed=0)


# --- fine-tunes and finished runs -------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def tuning(base, tmp_path_factory):
    config = tuned_config(base, tmp_path_factory.mktemp("tuning"))
    known = BaseRun.open(base)
    return lay(config, load_bars(stocks_of(config, known)), base=known)


@pytest.mark.slow
def test_a_fine_tune_passes_with_all_its_candidates_and_leaves_the_base_as_it_was(tuning):
    before = {name: value.clone() for name, value in tuning.forecaster.model.state_dict().items()}
    assert prove(tuning, 2, seed=0).lines == []
    assert all(torch.equal(value, before[name]) for name, value in tuning.forecaster.model.state_dict().items())


def test_a_candidate_from_scratch_whose_scaler_knows_later_days_is_caught(tuning):
    def make(untrained):
        def leaky(config, features, splits, *rest):
            made = untrained(config, features, splits, *rest)
            made.scaler = Scaler.fit(features, slice(0, splits.valid.stop))
            return made

        return leaky

    with planted(candidate, "untrained", make):
        lines = prove(tuning, 1, seed=0).lines
    assert any("training batches of the candidate scratch" in line for line in lines)
    assert not any("candidate full" in line for line in lines)


@pytest.mark.slow
def test_a_finished_run_is_proved_with_its_own_model(reference, monkeypatch):
    assert prove_run(Path(reference["folder"]), days=2).ok
    monkeypatch.setattr("hftraining.experiment.periods.Period.forecast", lambda *_: pytest.fail("as it should"))
    with pytest.raises(pytest.fail.Exception, match="as it should"):
        prove_run(Path(reference["folder"]), days=1)


# --- rare days --------------------------------------------------------------------------------------------------------


def on_wild_days(bars, values_TSF):
    """Tomorrow's return where today's is beyond four standard deviations."""
    return_TS = np.log(ahead(bars.close_TS) / bars.close_TS)
    today_TS = np.vstack([return_TS[:1], return_TS[:-1]])
    return np.where(np.abs(today_TS) > 4 * np.nanstd(return_TS[:200]), return_TS, 0.0)


def test_a_leak_on_a_handful_of_wild_days_is_found_among_few_days(bars):
    close_TS = bars.close_TS.copy()
    close_TS[300:, 0] *= 1.3
    wild = replace(bars, close_TS=close_TS, high_TS=np.maximum(bars.high_TS, close_TS))
    with feature(on_wild_days)():
        real = lay(compose_config(*RIDGE), wild)
        lines = sweep_days(real, real.forecaster, 40, np.random.default_rng(0))
    day = wild.sessions_T[300]
    assert f"features up to {day} are others when the bars end on that day" in lines


@pytest.mark.slow
def test_a_clean_run_passes_on_every_day(bars):
    real = lay(compose_config(*RIDGE), bars)
    assert sweep_days(real, real.forecaster, 10_000, np.random.default_rng(0)) == []


def test_unusual_days_come_first_and_no_day_twice(bars):
    close_TS, volume_TS = bars.close_TS.copy(), bars.volume_TS.copy()
    close_TS[300:, 0] *= 1.3
    volume_TS[200, 1] = 1e12
    wild = replace(bars, close_TS=close_TS, volume_TS=volume_TS)
    chosen = unusual_first(wild, 50, np.random.default_rng(0))
    assert {299, 300, 200} <= set(chosen.tolist())
    assert len(chosen) == len(set(chosen.tolist())) == 50
    assert len(unusual_first(wild, 10_000, np.random.default_rng(0))) == 500 - 1 - 21


def test_bars_that_end_know_no_later_split(bars):
    dates = [pd.Timestamp(bars.sessions_T[row]) for row in (10, 30)]
    events = pd.DataFrame({"symbol": "S0", "date": dates, "split": 2.0, "dividend": 0.0})
    ended = until(replace(bars, events=events), 20)
    assert len(ended.sessions_T) == 21 and ended.events["date"].tolist() == dates[:1]
