"""The face of a model, kind by kind: hftraining/model/base.py."""

import json
import re
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file

from hftraining.market.features.names import BASIC
from hftraining.market.features.scaler import Scaler
from hftraining.market.features.table import make_features
from hftraining.market.labels import make_labels
from hftraining.model import config as model_config
from hftraining.model.base import KINDS, Forecaster, Learner
from hftraining.model.config import ModelConfig
from hftraining.model.folder import FORMAT, ModelFolderError
from hftraining.model.learner import Lesson, MissingDependency
from tests.bars_of import make_bars

HORIZONS, LEVELS = (1, 5), (0.1, 0.5, 0.9)
TRAIN = slice(0, 300)
SHAPE = {"hidden_size": 16, "num_layers": 1, "num_heads": 2, "context": 8}
SHAPES = {
    "transformer": SHAPE,
    "linear": {"context": 8},
    "mlp": {"hidden_size": 16, "num_layers": 2, "context": 3},
    "lstm": {"hidden_size": 16, "num_layers": 2, "context": 8},
    "patchtst": {**SHAPE, "patch_length": 4, "stride": 2},
}


@pytest.fixture(params=KINDS)
def kind(request):
    if request.param == "lightgbm":
        pytest.importorskip("lightgbm", reason="LightGBM is not installed: pip install -e .[baselines]")
    return request.param


@pytest.fixture(scope="module")
def bars():
    return make_bars(n_sessions=400, n_symbols=3, missing=0.02)


def fresh(kind, bars, columns=BASIC):
    torch.manual_seed(1)
    config = ModelConfig(name="x", kind=kind, **SHAPES.get(kind, {}))
    return Forecaster.fresh(config, Scaler.fit(make_features(bars, columns), TRAIN), HORIZONS, LEVELS)


def learned(kind, bars, columns=BASIC):
    """A forecaster that has learned; for a network, one whose weights were changed."""
    forecaster, features = fresh(kind, bars, columns), make_features(bars, columns)
    if not isinstance(forecaster.model, Learner):
        for parameter in forecaster.model.parameters():
            parameter.data += 0.1
        return forecaster
    labels_TSH = make_labels(bars, features.volatility_TS, HORIZONS, 1, "open", "none")
    scaled_TSF = forecaster.scaler.scale(features.values_TSF)
    forecaster.model.learn(Lesson(scaled_TSF, features.known_TS, labels_TSH, TRAIN, 6, 1))
    return forecaster


def edit(path, **values):
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


def test_the_config_knows_exactly_the_kinds_that_can_be_built():
    assert tuple(KINDS) == model_config.KINDS


def test_a_forecast_is_the_prediction_in_units_of_volatility_and_nan_where_features_are_not_known(kind, bars):
    forecaster, features = learned(kind, bars), make_features(bars)
    got = forecaster.forecast(bars)
    known_TS = features.known_TS
    assert (np.isfinite(got.quantiles_TSHQ).all(axis=(2, 3)) == known_TS).all()
    assert (np.isfinite(got.head_TS) == (known_TS & (kind not in model_config.HEADLESS))).all()
    scaled_TSF = forecaster.scaler.scale(features.values_TSF)
    quantiles_TSHQ, _ = forecaster.model.predict(scaled_TSF, known_TS, "cpu")
    assert quantiles_TSHQ.dtype == np.float64
    for h, horizon in enumerate(HORIZONS):
        expected_TSQ = quantiles_TSHQ[:, :, h] * (features.volatility_TS * np.sqrt(horizon))[..., None]
        np.testing.assert_allclose(got.quantiles_TSHQ[:, :, h], expected_TSQ, rtol=1e-12)


@pytest.mark.parametrize("begin", [1, 30, 399])
def test_the_forecasts_from_a_row_on_are_the_last_of_all(kind, bars, begin):
    forecaster, features = learned(kind, bars), make_features(bars)
    whole = forecaster.forecast_features(features, bars.symbols_S).rows(slice(begin, None))
    asked = forecaster.forecast_features(features, bars.symbols_S, begin)
    np.testing.assert_allclose(asked.quantiles_TSHQ, whole.quantiles_TSHQ, rtol=0, atol=1e-6)
    np.testing.assert_allclose(asked.head_TS, whole.head_TS, rtol=0, atol=1e-6)


def test_the_forecasts_of_an_untrained_model_depend_on_every_feature_of_today(kind, bars):
    forecaster = fresh(kind, bars)
    rng = np.random.default_rng(0)
    x_TSF = rng.normal(size=(60, 2, len(BASIC))).astype(np.float32)
    known_TS = np.ones((60, 2), bool)
    before, _ = forecaster.model.predict(x_TSF, known_TS, "cpu")
    assert np.std(before[:, :, :, 1]) > 0.01
    for feature in range(len(BASIC)):
        other = x_TSF.copy()
        other[30:, :, feature] = rng.normal(0.0, 2.0, (30, 2))
        after, _ = forecaster.model.predict(other, known_TS, "cpu")
        assert (after[30:] != before[30:]).any(axis=(1, 2, 3)).mean() > 0.5, BASIC[feature]  # trees have steps
        np.testing.assert_array_equal(after[:30], before[:30])


def test_a_forecast_of_bars_without_some_of_the_models_stocks_warns_of_another_market(bars, caplog):
    forecaster = fresh("ridge", bars)
    forecaster.symbols = bars.symbols_S
    forecaster.forecast(bars)
    assert not caplog.records
    forecaster.forecast(bars.of(bars.symbols_S[:1]))
    assert f"2 of the 3 stocks that the model learned from are not in the bars ({bars.symbols_S[1]}" in caplog.text


def test_an_untrained_model_is_the_same_each_time(kind, bars):
    once, again = (fresh(kind, bars).forecast(bars).quantiles_TSHQ for _ in range(2))
    np.testing.assert_array_equal(once, again)


def test_a_forecast_depends_on_the_receptive_field_and_on_nothing_before_it(kind, bars):
    forecaster = learned(kind, bars)
    reach = forecaster.receptive_field
    assert reach == SHAPES.get(kind, {"context": 1})["context"]
    rng = np.random.default_rng(0)
    x_TSF, known_TS = rng.normal(size=(40, 2, len(BASIC))).astype(np.float32), np.ones((40, 2), bool)
    before = forecaster.model.predict(x_TSF, known_TS, "cpu")[0][-1]
    other = x_TSF.copy()
    other[:-reach] += 1.0
    np.testing.assert_allclose(forecaster.model.predict(other, known_TS, "cpu")[0][-1], before, rtol=0, atol=1e-6)
    other[-reach] = -other[-reach]
    assert np.abs(forecaster.model.predict(other, known_TS, "cpu")[0][-1] - before).max() > 1e-6


def test_a_loaded_model_forecasts_the_same_bits_and_saves_the_same_files(kind, bars, tmp_path):
    forecaster = learned(kind, bars)
    forecaster.symbols, forecaster.days = bars.symbols_S, {"train": ("2015-01-01", "2016-01-01")}
    forecaster.save(tmp_path / "first")
    again = Forecaster.load(tmp_path / "first")
    again.save(tmp_path / "second")
    ours, theirs = forecaster.forecast(bars), again.forecast(bars)
    np.testing.assert_array_equal(ours.quantiles_TSHQ, theirs.quantiles_TSHQ)
    np.testing.assert_array_equal(ours.head_TS, theirs.head_TS)
    assert (again.kind, again.symbols, again.days) == (kind, forecaster.symbols, forecaster.days)
    assert not np.array_equal(ours.quantiles_TSHQ, fresh(kind, bars).forecast(bars).quantiles_TSHQ, equal_nan=True)
    names = {path.name for path in (tmp_path / "first").iterdir()}
    trees = {"trees_1.txt", "trees_5.txt"} if kind == "lightgbm" else set()
    assert names == {"config.json", "scaler.json", "model.safetensors"} | trees
    for name in names:
        assert (tmp_path / "first" / name).read_bytes() == (tmp_path / "second" / name).read_bytes()


def test_a_damaged_or_missing_file_is_refused_by_name_whatever_the_kind(kind, bars, tmp_path):
    fresh(kind, bars).save(tmp_path)
    for path in sorted(tmp_path.iterdir()):
        whole = path.read_bytes()
        path.write_bytes(whole[:-20] + b"?" * 20)
        with pytest.raises(ModelFolderError, match=f"{path.name} is damaged"):
            Forecaster.load(tmp_path)
        path.unlink()
        with pytest.raises(ModelFolderError, match=f"{path.name} is missing"):
            Forecaster.load(tmp_path)
        path.write_bytes(whole)
    Forecaster.load(tmp_path)


def test_whole_files_of_another_model_are_refused_in_one_line(kind, bars, tmp_path):
    forecaster = fresh(kind, bars)
    forecaster.save(tmp_path)
    edit(tmp_path / "config.json", quantiles=[0.25, 0.5, 0.75, 0.9])
    with pytest.raises(ModelFolderError, match=r"model\.safetensors cannot be read as this model") as caught:
        Forecaster.load(tmp_path)
    assert "\n" not in str(caught.value)
    forecaster.save(tmp_path)
    edit(tmp_path / "config.json", model={"kind": "oracle"})
    with pytest.raises(ModelFolderError, match=r"config\.json cannot be read as a model: model\.kind=oracle"):
        Forecaster.load(tmp_path)


@pytest.mark.parametrize("name", model_config.NETWORKS)
def test_weights_that_are_finite_but_give_no_finite_forecast_are_refused_in_one_line(name, bars, tmp_path):
    forecaster = fresh(name, bars)
    with torch.no_grad():
        for weight in forecaster.model.parameters():
            weight.fill_(3e38)
    forecaster.save(tmp_path)
    with pytest.raises(ModelFolderError, match=r"model\.safetensors: numbers in it are so large") as caught:
        Forecaster.load(tmp_path)
    assert "\n" not in str(caught.value)


def test_trees_for_other_features_are_refused_in_one_line(bars, tmp_path):
    pytest.importorskip("lightgbm", reason="LightGBM is not installed: pip install -e .[baselines]")
    fresh("lightgbm", bars).save(tmp_path)
    narrow = KINDS["lightgbm"](ModelConfig(kind="lightgbm"), 3, HORIZONS, LEVELS)
    model = KINDS["lightgbm"](ModelConfig(kind="lightgbm"), len(BASIC), HORIZONS, LEVELS)
    narrow.save(tmp_path)
    with pytest.raises(ValueError, match=r"trees_1\.txt cannot be read: it has 3 features, not 15"):
        model.load(tmp_path)
    (tmp_path / "trees_1.txt").write_text("no trees")
    with pytest.raises(ValueError, match=r"trees_1\.txt cannot be read: it is not a model of LightGBM"):
        model.load(tmp_path)


def test_a_model_folder_of_the_version_before_loads_and_no_other_format_does(bars, tmp_path):
    forecaster = fresh("transformer", bars)
    forecaster.save(tmp_path)
    before = {name: value for name, value in vars(forecaster.model.config).items() if name != "kind"}
    edit(tmp_path / "config.json", format=2, model=before)
    again = Forecaster.load(tmp_path)
    assert again.kind == "transformer"
    np.testing.assert_array_equal(forecaster.forecast(bars).head_TS, again.forecast(bars).head_TS)
    for other, what in (
        (1, "is not one of ours"),
        (FORMAT + 1, "was written by a newer version"),
        (None, "not one of"),
    ):
        edit(tmp_path / "config.json", format=other)
        message = f"model format {other}, where this version reads 2, 3, 4 and 5, .*{what}"
        with pytest.raises(ModelFolderError, match=message):
            Forecaster.load(tmp_path)


def test_without_lightgbm_its_model_is_refused_with_the_command_that_installs_it(bars, monkeypatch):
    monkeypatch.setitem(sys.modules, "lightgbm", None)
    with pytest.raises(MissingDependency, match=r'pip install -e "\.\[baselines\]"') as caught:
        fresh("lightgbm", bars)
    assert isinstance(caught.value, ValueError) and "\n" not in str(caught.value)
    fresh("ridge", bars)


def test_an_unknown_kind_is_refused_with_the_nearest_one():
    with pytest.raises(
        ValueError, match=r"kind=lightgmb is not one of transformer, linear, .*, lightgbm; did you mean lightgbm"
    ):
        ModelConfig(kind="lightgmb")


def test_other_kinds_refuse_the_shape_of_a_transformer():
    assert ModelConfig(name="ridge", kind="ridge", hidden_size=64).kind == "ridge"  # the default says nothing
    message = r"^model\.cross_asset=True belongs to model\.kind=transformer, not ridge: leave it out$"
    with pytest.raises(ValueError, match=message):
        ModelConfig(kind="ridge", cross_asset=True)


def with_vectors(bars):
    """A forecaster that has a vector of its own for each symbol of the bars."""
    torch.manual_seed(1)
    config = ModelConfig(**SHAPE, symbol_embedding=True)
    scaler = Scaler.fit(make_features(bars), TRAIN)
    forecaster = Forecaster.fresh(config, scaler, HORIZONS, LEVELS, symbols=bars.symbols_S)
    torch.nn.init.normal_(forecaster.model.symbols.weight)
    return forecaster


def test_symbols_are_known_by_name_in_any_order_and_others_are_forecast_without_a_vector(bars, tmp_path):
    forecaster = with_vectors(bars)
    forecaster.save(tmp_path)
    plain = forecaster.forecast(bars)
    turned = bars.of(bars.symbols_S[::-1])
    for model in (forecaster, Forecaster.load(tmp_path), forecaster.knowing(turned.symbols_S)):
        theirs = model.forecast(turned)
        np.testing.assert_allclose(theirs.quantiles_TSHQ[:, ::-1], plain.quantiles_TSHQ, rtol=1e-5, atol=1e-6)
    strangers = replace(bars, symbols_S=("X0", bars.symbols_S[1], "X2"))
    other, unlearned = forecaster.forecast(strangers), fresh("transformer", bars)
    unlearned.model.load_state_dict(
        {name: w for name, w in forecaster.model.state_dict().items() if not name.startswith("symbols")}
    )
    without = unlearned.forecast(bars)
    for s, expected in enumerate((without, plain, without)):
        np.testing.assert_array_equal(other.quantiles_TSHQ[:, s], expected.quantiles_TSHQ[:, s])
    wider = forecaster.knowing((*bars.symbols_S, "NEW"))
    assert wider.model.symbols.weight.shape[0] == 4 and not wider.model.symbols.weight[3].any()
    np.testing.assert_array_equal(wider.forecast(bars).head_TS, plain.head_TS)


@pytest.mark.parametrize("name", model_config.NETWORKS)
def test_a_huge_shape_is_refused_before_a_network_of_it_is_made(name, bars, tmp_path, monkeypatch):
    fresh(name, bars).save(tmp_path)
    shape = json.loads((tmp_path / "config.json").read_text())["model"]
    huge = {"context": 1000} if name == "linear" else {"hidden_size": 8000}
    edit(tmp_path / "config.json", model=shape | huge)
    monkeypatch.setitem(KINDS, name, None)  # which would fail otherwise
    with pytest.raises(ModelFolderError, match=r"weights, where config.json describes \d+,\d+"):
        Forecaster.load(tmp_path)
    edit(tmp_path / "config.json", model=shape | {"context": 200_000})
    with pytest.raises(ModelFolderError, match=r"context=200000 must be at most"):
        Forecaster.load(tmp_path)


def test_a_folder_whose_universe_its_vectors_do_not_fill_is_refused(bars, tmp_path):
    with_vectors(bars).save(tmp_path)
    edit(tmp_path / "config.json", symbols=["A", "B"])
    with pytest.raises(ModelFolderError, match=r"it holds [\d,]+ weights, where config.json describes"):
        Forecaster.load(tmp_path)


def test_a_model_says_how_many_numbers_it_has_learned(kind, bars, tmp_path):
    forecaster = learned(kind, bars)
    forecaster.save(tmp_path)
    held = sum(array.size for array in load_file(tmp_path / "model.safetensors").values())
    for path in tmp_path.glob("*.txt"):
        leaves = [int(n) for n in re.findall(r"^num_leaves=(\d+)$", path.read_text(), re.M)]
        thresholds = [len(line.split()) for line in re.findall(r"^threshold=(.*)$", path.read_text(), re.M)]
        held += sum(leaves) + sum(thresholds)
    assert forecaster.model.size == held > 10
