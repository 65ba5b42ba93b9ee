"""Loading and averaging base and fine-tuned runs: hfinference/."""

import dataclasses
import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from hfinference import average_predictions, load_model
from hfinference.joining import join
from hftraining.experiment.config import load_config
from hftraining.market.prices import load_bars
from hftraining.model.folder import ModelFolderError
from tests.bars_of import frame_of, make_bars
from tests.model.test_base import learned
from tests.runs_of import tune


@pytest.fixture(scope="module")
def tuned(base, tmp_path_factory) -> Path:
    return Path(tune(base, tmp_path_factory.mktemp("tuned"), "training.methods=[full]")["folder"])


@pytest.fixture(scope="module")
def bars(base):
    return load_bars(load_config(base / "config.yaml").stocks)


@pytest.mark.slow
def test_base_and_fine_tuned_runs_load_from_the_run_or_its_model_folder(base, tuned, bars):
    for path in (base, base / "model", str(base), tuned, tuned / "candidates" / "full"):
        model = load_model(path)
        assert model.symbols == ("S0", "S1", "S2") and model.days["train"][0] == "2015-01-01"
        assert model.predict(bars).quantiles_TSHQ.shape == (500, 3, 2, 5)


def test_the_average_is_the_mean_of_each_quantile_and_of_the_positions(base, tuned, bars):
    models = [load_model(base), load_model(tuned / "candidates" / "full")]
    ours = average_predictions(models, bars)
    forecasts = [model.predict(bars) for model in models]
    assert not np.array_equal(forecasts[0].quantiles_TSHQ, forecasts[1].quantiles_TSHQ, equal_nan=True)
    for name in ("quantiles_TSHQ", "head_TS"):
        a, b = (getattr(forecast, name) for forecast in forecasts)
        np.testing.assert_allclose(getattr(ours, name), (a + b) / 2, rtol=1e-12)
        assert np.isnan(getattr(ours, name)[:20]).all()
    assert (np.diff(ours.quantiles_TSHQ[30:], axis=-1) >= 0).all()
    alone = average_predictions(models[:1], bars)
    np.testing.assert_array_equal(alone.quantiles_TSHQ, forecasts[0].quantiles_TSHQ)


def test_a_frame_is_forecast_as_its_bars_are(base, tuned, bars):
    models, frame = [load_model(base), load_model(tuned)], frame_of(bars)
    for ours, theirs in (
        (models[0].predict(frame), models[0].predict(bars)),
        (average_predictions(models, frame), average_predictions(models, bars)),
    ):
        for name in ("quantiles_TSHQ", "head_TS"):
            np.testing.assert_array_equal(getattr(ours, name), getattr(theirs, name))
        assert np.isfinite(ours.head_TS[30:]).all()
    with pytest.raises(ValueError, match=r"^the frame has no symbol column"):
        models[0].predict(frame.drop(columns="symbol"))


def test_models_and_bars_that_do_not_fit_each_other_are_refused(base, bars):
    model = load_model(base).predictor
    with pytest.raises(ValueError, match="no models"):
        average_predictions([], bars)
    for other, message in (
        ({"horizons": (1, 20)}, "model 2 has other horizons than the first: 20 where the first has 5"),
        ({"levels": (0.1, 0.5, 0.9)}, "model 2 has other quantiles than the first: no other where the first has 0.25"),
        ({"relative": "mean"}, "model 2 has other labels than the first: mean where the first has none"),
    ):
        with pytest.raises(ValueError, match=message):
            average_predictions([model, dataclasses.replace(model, **other)], bars)
    with pytest.raises(ValueError, match=r"there are 3 weights for 1 models"):
        average_predictions([model], bars, [1, 2, 3])


def test_models_that_learned_other_stocks_see_the_market_of_the_bars_given(base, bars, caplog):
    model = load_model(base).predictor
    other = dataclasses.replace(model, symbols=("S0", "S9"))
    some = bars.of(["S0", "S1"])
    ours = average_predictions([model, other], some, [3, 1])
    a, b = model.forecast(some), other.forecast(some)
    np.testing.assert_allclose(ours.quantiles_TSHQ, 0.75 * a.quantiles_TSHQ + 0.25 * b.quantiles_TSHQ, rtol=1e-12)
    assert "2 of the 4 stocks that the model learned from are not in the bars (S2, S9)" in caplog.text


def test_a_folder_without_a_model_is_refused_in_one_line(base, tmp_path):
    with pytest.raises(ModelFolderError, match="does not exist"):
        load_model(tmp_path / "nowhere")
    with pytest.raises(ModelFolderError, match=r"config.json is missing: not a model folder"):
        load_model(tmp_path)
    half = tmp_path / "half"
    half.mkdir()
    shutil.copy(base / "run.json", half)
    with pytest.raises(ModelFolderError, match=r"has no model yet: python train.py resume="):
        load_model(half)


@pytest.mark.parametrize("kinds", [("transformer", "ridge"), ("transformer", "ridge", "lightgbm")])
def test_models_of_all_kinds_average_together_with_a_position_only_if_each_has_one(kinds, tmp_path):
    if "lightgbm" in kinds:
        pytest.importorskip("lightgbm", reason="LightGBM is not installed: pip install -e .[baselines]")
    bars = make_bars(n_sessions=400)
    for kind in kinds:
        dataclasses.replace(learned(kind, bars), symbols=bars.symbols_S).save(tmp_path / kind)
    models = [load_model(tmp_path / kind) for kind in kinds]
    assert tuple(model.kind for model in models) == kinds
    ours = average_predictions(models, bars)
    expected = sum(model.predict(bars).quantiles_TSHQ for model in models) / len(models)
    np.testing.assert_allclose(ours.quantiles_TSHQ, expected, rtol=1e-12)
    assert np.isfinite(ours.quantiles_TSHQ[30:]).all() and np.isnan(ours.head_TS).all()


@pytest.mark.slow
def test_runs_that_are_joined_are_saved_as_the_model_of_a_run(own, tuned, bars, tmp_path):
    runs = [own, tuned / "candidates" / "full"]
    folder = join(runs, outputs=tmp_path).folder
    ours, theirs = load_model(folder).predict(bars), average_predictions([load_model(run) for run in runs], bars)
    assert ours.quantiles_TSHQ.tobytes() == theirs.quantiles_TSHQ.tobytes()
    found = json.loads((folder / "result.json").read_text())
    assert [member["weight"] for member in found["ensemble"]["members"]] == [0.5, 0.5]
    assert found["valid"]["profit"]["sharpe_ratio"] and found["test_openings"] >= 1
    assert "<h2>Members</h2>" in (folder / "report.html").read_text()
