"""Which kind of label a run learns, and that everything that it makes has the unit of that kind."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
import yaml

from hfinference import average_predictions
from hftraining.core.errors import ConfigError
from hftraining.core.forecast import Forecast
from hftraining.core.relative import KINDS
from hftraining.experiment.base_run import BaseRun
from hftraining.experiment.conclude import _warnings
from hftraining.experiment.config import load_config
from hftraining.experiment.ground import lay, stocks_of
from hftraining.experiment.proof import prove
from hftraining.experiment.run import opening_lines
from hftraining.experiment.small import small_run
from hftraining.market.features.table import make_features
from hftraining.market.labels import make_labels
from hftraining.market.prices import load_bars
from hftraining.model.base import Forecaster
from hftraining.model.config import ObjectiveConfig, relative_of
from tests.bars_of import make_bars
from tests.compose import compose_config
from tests.runs_of import QUICK, own_copy, run, tuned_config

MANY = 12


@pytest.fixture(scope="module")
def many():
    return make_bars(n_sessions=420, n_symbols=MANY, seed=3, missing=0.02)


def config_of(*overrides):
    return compose_config(*QUICK, "stocks.path=not_read", "portfolio.kind=tilt", *overrides)


def test_auto_compares_stocks_from_ten_on():
    assert [relative_of(ObjectiveConfig(), n) for n in (1, 9, 10, 300)] == ["none", "none", "zscore", "zscore"]
    assert [relative_of(ObjectiveConfig(relative=kind), 3) for kind in KINDS] == list(KINDS)


@pytest.mark.slow
def test_the_console_says_what_is_forecast(many):
    said = {
        (): "labels: zscore across 12 stocks",
        ("objective.relative=rank",): "labels: rank across 12 stocks",
        ("objective.relative=none",): "labels: absolute",
    }
    for overrides, line in said.items():
        assert f"  {line}" in opening_lines(lay(config_of(*overrides), many), Path("run"))
    few = lay(config_of(), many.of(many.symbols_S[:9]))
    assert "  labels: absolute, since fewer than ten symbols" in opening_lines(few, Path("run"))


@pytest.mark.slow
@pytest.mark.parametrize("relative", KINDS)
def test_everything_of_a_run_has_the_unit_of_its_labels(many, relative):
    ground = lay(config_of(f"objective.relative={relative}", "evidence.baselines=[ridge]"), many)
    volatility_TS = make_features(many).volatility_TS
    expected_TSH = make_labels(many, volatility_TS, [1, 5], 1, "open", relative)
    np.testing.assert_array_equal(ground.lesson.labels_TSH, expected_TSH)
    valid = ground.periods["valid"]
    forecast = valid.forecast(ground.forecaster)
    rows = ground.splits.valid
    unit_TSH = np.ones((*volatility_TS.shape, 2))
    if relative not in ("zscore", "rank"):
        unit_TSH = np.stack([volatility_TS, volatility_TS * 5**0.5], axis=2)
    scaled_TSF = ground.forecaster.scaler.scale(valid.features.values_TSF)
    plain_TSHQ, _ = ground.forecaster.model.predict(scaled_TSF, valid.features.known_TS, "cpu")
    assert forecast.relative == relative
    np.testing.assert_allclose(forecast.quantiles_TSHQ, plain_TSHQ[valid.lead :] * unit_TSH[rows][..., None])
    # So the loss of the forecast is that of the model's own numbers against the labels.
    known = np.isfinite(valid.scored_labels_TSH)
    error = (valid.scored_labels_TSH[..., None] - plain_TSHQ[valid.lead :])[known]
    levels = np.array(forecast.levels)
    assert valid.forecast_loss(forecast) == pytest.approx(np.maximum(levels * error, (levels - 1) * error).mean())


@pytest.mark.slow
@pytest.mark.parametrize("relative", ["zscore", "residual"])
def test_a_small_run_of_few_symbols_has_the_labels_of_the_whole_run(many, relative):
    ground = lay(config_of(f"objective.relative={relative}"), many)
    small = small_run(ground, np.random.default_rng(0))
    assert len(small.bars.symbols_S) <= 10
    laid = small.ground()
    assert laid.forecaster.relative == relative
    assert np.isfinite(laid.lesson.labels_TSH[laid.splits.train]).any()
    auto = small_run(lay(config_of(), many), np.random.default_rng(0)).ground()
    assert auto.forecaster.relative == "zscore"


@pytest.mark.slow
@pytest.mark.parametrize("horizon", [1, 60])
@pytest.mark.parametrize("relative", ["zscore", "residual"])
def test_short_and_long_horizons_are_proved_and_laid(relative, horizon):
    bars = make_bars(n_sessions=1100, n_symbols=10, seed=4, missing=0.01)
    labels = f"objective.relative={relative}", f"objective.horizons=[{horizon}]"
    config = config_of(*labels, "evidence.baselines=[ridge]")
    ground = lay(config, bars)
    assert prove(ground, 1, seed=0).lines == []
    assert np.isfinite(ground.periods["valid"].scored_labels_TSH).any()


@pytest.mark.slow
@pytest.mark.parametrize("loss", ["mse", "ic"])
def test_a_run_with_another_loss_is_proved_and_its_periods_measure_that_loss(many, loss):
    ground = lay(config_of(f"objective.loss={loss}", "training.symbols_per_window=4", "evidence.baselines=[]"), many)
    assert prove(ground, 1, seed=0).lines == []
    assert {period.kind for period in ground.periods.values()} == {loss}
    assert (ground.windows.windows_per_batch, ground.windows.places) == (1, 4)


def test_two_stocks_cannot_be_correlated(many):
    config = config_of("objective.loss=ic", "training.symbols_per_window=4")
    with pytest.raises(ConfigError, match=r"^objective\.loss=ic correlates the stocks of a day, .* there are 2: use"):
        lay(config, many.of(many.symbols_S[:2]))


def test_one_stock_cannot_be_compared_and_an_unknown_kind_has_a_hint(many):
    with pytest.raises(ConfigError, match=r"^objective.relative=mean compares the stocks of a day, but there is 1: "):
        lay(config_of("objective.relative=mean"), many.of(many.symbols_S[:1]))
    with pytest.raises(ConfigError, match=r"objective.relative=zscor is not one of auto, none, .*did you mean zscore"):
        config_of("objective.relative=zscor")
    with pytest.raises(ConfigError, match=r"objective.relative=True is not one of auto, none, mean"):
        config_of("objective.relative=true")


@pytest.mark.slow
def test_what_needs_absolute_returns_refuses_relative_ones_before_anything_is_learned(many):
    message = (
        r"^portfolio\.kind={} needs absolute returns, but objective\.relative={} forecasts relative ones: "
        r"use objective\.relative=none or portfolio=tilt$"
    )
    for kind in ("edge", "sign", "timing"):
        for relative in KINDS[1:]:
            with pytest.raises(ConfigError, match=message.format(kind, relative)):
                config_of(f"portfolio.kind={kind}", f"objective.relative={relative}")
        ground = lay(config_of(f"portfolio.kind={kind}"), many)  # auto gives way, and says so
        assert ground.forecaster.relative == "none"
        why = f"  labels: absolute, since portfolio.kind={kind} needs absolute returns"
        assert why in opening_lines(ground, Path("run"))
    single = lay(config_of("portfolio.kind=auto"), many.of(many.symbols_S[:1]))
    assert single.forecaster.relative == "none"


@pytest.mark.slow
def test_one_stock_of_a_relative_base_cannot_be_timed(many):
    ground = lay(config_of("objective.relative=rank"), many)
    forecaster = ground.forecaster
    base = BaseRun(Path("base"), forecaster, dataclasses.asdict(ground.config), "", "", "")
    for kind, symbols in (("auto", "[S0]"), ("timing", "[S0,S1]")):
        config = config_of(f"portfolio.kind={kind}", f"stocks.symbols={symbols}")
        with pytest.raises(ConfigError, match=r"^portfolio\.kind=timing needs absolute returns, but the base model "):
            lay(config, many, base=base)
    assert lay(config_of("portfolio.kind=auto", "stocks.symbols=[S0,S1]"), many, base=base).forecaster is forecaster


@pytest.mark.parametrize(("old", "new"), [(True, "mean"), (False, "none")])
def test_an_old_config_that_says_true_or_false_loads_as_mean_or_none(tmp_path, old, new):
    path = tmp_path / "config.yaml"
    path.write_text(yaml.safe_dump({"objective": {"relative": old, "horizons": [1, 5]}}))
    config = load_config(path)
    assert (config.objective.relative, config.objective.horizons) == (new, [1, 5])


def test_an_old_model_forecasts_what_the_config_of_its_run_said(many, tmp_path):
    forecaster = lay(config_of("objective.relative=none"), many).forecaster
    forecaster.save(tmp_path / "model")
    facts = tmp_path / "model" / "config.json"
    values = json.loads(facts.read_text())
    assert values.pop("relative") == "none"
    facts.write_text(json.dumps(values | {"format": 3}))
    assert Forecaster.load(tmp_path / "model").relative == "none"
    for said, relative in ((True, "mean"), (False, "none")):
        (tmp_path / "config.yaml").write_text(yaml.safe_dump({"objective": {"relative": said}}))
        assert Forecaster.load(tmp_path / "model").relative == relative
    facts.write_text(json.dumps(values | {"format": 4}))
    with pytest.raises(ValueError, match=r"config\.json cannot be read as a model: .*relative="):
        Forecaster.load(tmp_path / "model")


def test_a_model_folder_says_what_is_forecast(many, tmp_path):
    forecaster = lay(config_of("objective.relative=rank"), many).forecaster
    forecaster.save(tmp_path)
    assert Forecaster.load(tmp_path).forecast(many).relative == "rank"


@pytest.mark.slow
def test_forecasts_of_other_labels_are_not_averaged(many):
    models = [lay(config_of(f"objective.relative={kind}"), many).forecaster for kind in ("zscore", "zscore", "rank")]
    assert average_predictions(models[:2], many).relative == "zscore"
    with pytest.raises(ValueError, match="model 2 has other labels than the first: rank where the first has zscore"):
        average_predictions(models[1:], many)


def test_a_forecast_of_an_unknown_kind_is_refused():
    with pytest.raises(ValueError, match=r"^relative=median is not one of none, mean"):
        Forecast(np.zeros((1, 1, 1, 1)), np.zeros((1, 1)), (1,), (0.5,), "median")


@pytest.mark.slow
def test_a_run_says_what_it_forecasts_and_a_fine_tune_of_it_forecasts_the_same(folder, tmp_path):
    result = run(folder, tmp_path / "out", "objective.relative=mean", "portfolio.kind=tilt")
    assert result["relative"] == "mean"
    base = BaseRun.open(own_copy(Path(result["folder"]), tmp_path / "base"))
    assert base.forecaster.relative == "mean"
    config = tuned_config(base.folder, tmp_path / "tuned")
    ground = lay(config, load_bars(stocks_of(config, base)), base=base)
    assert ground.forecaster.relative == "mean"
    assert ground.periods["valid"].forecast(ground.forecaster).relative == "mean"
    auto = dataclasses.replace(config, objective=dataclasses.replace(config.objective, relative="auto"))
    base.refuse_other(dataclasses.asdict(auto))  # auto is whatever the base has
    other = dataclasses.replace(config, objective=dataclasses.replace(config.objective, relative="rank"))
    with pytest.raises(ConfigError, match=r"objective.relative=rank where the base has mean"):
        base.refuse_other(dataclasses.asdict(other))


@pytest.mark.parametrize("kind", ["long_short", "core"])
def test_one_stock_is_not_held_against_others_that_there_are_not(kind):
    one = make_bars(300, 1)
    with pytest.raises(
        ConfigError, match=rf"^portfolio\.kind={kind} holds some stocks against others, but there is one"
    ):
        lay(config_of(f"portfolio.kind={kind}"), one)


def test_a_result_says_that_borrowed_cash_pays_no_interest(many):
    said = [
        _warnings(lay(config_of(f"profit_tracker.max_gross={gross}", "evidence.baselines=[]"), many), 0)
        for gross in (1, 2)
    ]
    assert [any("borrowed cash pays no interest" in line for line in lines) for lines in said] == [False, True]
