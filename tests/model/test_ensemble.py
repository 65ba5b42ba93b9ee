"""An ensemble forecasts as its members do, and its folder is data: hftraining/model/ensemble.py."""

import dataclasses
import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest

from hftraining.core.files import sha256
from hftraining.core.forecast import Forecast, weighted_mean
from hftraining.market.features.names import BASIC
from hftraining.market.features.table import make_features
from hftraining.model.base import Forecaster
from hftraining.model.ensemble import MOST_MEMBERS, Ensemble, load_predictor, members_of
from hftraining.model.folder import ModelFolderError
from tests.bars_of import make_bars
from tests.model.test_base import learned

FEW = ("return_1d", "momentum_21", "volatility")


@pytest.fixture(scope="module")
def bars():
    return make_bars(n_sessions=400, missing=0.02)


@pytest.fixture(scope="module")
def models(bars) -> list[Forecaster]:
    """A transformer, ridge, and another ridge."""
    days = {"train": ("2015-01-01", "2015-06-01"), "valid": ("2015-06-10", "2015-12-01")}
    days |= {"test": ("2015-12-10", "2016-06-01")}
    made = [learned("transformer", bars), learned("ridge", bars), learned("ridge", make_bars(400, seed=8))]
    return [dataclasses.replace(model, symbols=bars.symbols_S, days=days) for model in made]


def equal(one: Forecast, other: Forecast) -> bool:
    """To the bit, NaN included."""
    return all(getattr(one, name).tobytes() == getattr(other, name).tobytes() for name in ("quantiles_TSHQ", "head_TS"))


def random_forecast(rng: np.random.Generator) -> Forecast:
    """Numbers of every size, some of them NaN, some zeros of either sign."""
    quantiles = np.sort(rng.normal(size=(6, 3, 2, 3)) * 10.0 ** rng.integers(-320, 300, (6, 3, 2, 1)), axis=-1)
    quantiles[rng.random((6, 3)) < 0.2] = np.nan
    quantiles[rng.random((6, 3)) < 0.1] = rng.choice([0.0, -0.0])
    return Forecast(quantiles, rng.uniform(-1, 1, (6, 3)), (1, 5), (0.1, 0.5, 0.9))


@pytest.mark.parametrize("seed", range(40))
def test_a_mean_of_equal_forecasts_is_that_forecast_to_the_bit(seed):
    rng = np.random.default_rng(seed)
    count = int(rng.integers(1, 12))
    weights = rng.random(count) ** 3
    forecast = random_forecast(rng)
    for shares in (weights / weights.sum(), np.full(count, 1 / count)):
        assert equal(weighted_mean([forecast] * count, list(shares)), forecast)


@pytest.mark.parametrize("seed", range(20))
def test_a_mean_lies_between_its_parts_and_keeps_quantiles_in_order(seed):
    rng = np.random.default_rng(seed)
    parts = [random_forecast(rng) for _ in range(5)]
    weights = rng.random(5)
    weights /= weights.sum()
    ours = weighted_mean(parts, list(weights)).quantiles_TSHQ
    stacked = np.stack([part.quantiles_TSHQ for part in parts])
    known = np.isfinite(ours)
    np.testing.assert_array_equal(known, np.isfinite(stacked).all(axis=0))
    assert (ours >= stacked.min(axis=0))[known].all() and (ours <= stacked.max(axis=0))[known].all()
    assert (np.diff(ours, axis=-1) >= 0)[known.all(axis=-1)].all()
    by_hand = sum(weight * values for weight, values in zip(weights, stacked, strict=True))
    np.testing.assert_allclose(ours[known], by_hand[known], rtol=1e-12)


def test_an_ensemble_of_one_or_of_equal_members_forecasts_as_the_member_to_the_bit(models, bars, tmp_path):
    for model in models[:2]:
        theirs = model.forecast(bars)
        for count in (1, 3, 7):
            ensemble = Ensemble.of([model] * count, np.random.default_rng(count).random(count))
            ensemble.save(tmp_path / f"{model.kind}{count}")
            for one in (ensemble, load_predictor(tmp_path / f"{model.kind}{count}")):
                assert equal(one.forecast(bars), theirs)
                assert equal(one.forecast_features(make_features(bars, one.columns), bars.symbols_S), theirs)
                for name in ("horizons", "levels", "relative", "symbols", "days", "device", "receptive_field"):
                    assert getattr(one, name) == getattr(model, name), name
                assert one.kind == "ensemble" and one.size == count * model.size


def test_weights_are_shares_and_a_member_of_weight_0_is_not_asked(models, bars):
    transformer, ridge, _ = models
    a, b = transformer.forecast(bars).quantiles_TSHQ, ridge.forecast(bars).quantiles_TSHQ
    ours = Ensemble.of([transformer, ridge], [6.0, 2.0])
    assert ours.weights == (0.75, 0.25)
    np.testing.assert_allclose(ours.forecast(bars).quantiles_TSHQ, 0.75 * a + 0.25 * b, rtol=1e-12, atol=1e-300)
    assert np.isnan(ours.forecast(bars).head_TS).all()  # ridge has no position of its own
    assert equal(Ensemble.of([transformer, ridge], [1.0, 0.0]).forecast(bars), transformer.forecast(bars))


def test_an_ensemble_of_an_ensemble_has_models_as_members(models):
    inner = Ensemble.of(models[:2], [1, 3])
    outer = Ensemble.of([inner, models[2]])
    assert members_of(outer) == tuple(models)
    assert outer.weights == (0.125, 0.375, 0.5)
    assert Ensemble.of([inner]) == inner


def test_members_see_their_own_features_of_the_same_bars(models, bars):
    few = learned("ridge", bars, columns=FEW)
    ours = Ensemble.of([models[0], few])
    assert ours.columns == BASIC
    np.testing.assert_allclose(
        ours.forecast(bars).quantiles_TSHQ,
        (models[0].forecast(bars).quantiles_TSHQ + few.forecast(bars).quantiles_TSHQ) / 2,
        rtol=1e-12,
    )
    with pytest.raises(ValueError, match="trained on other features"):
        ours.forecast_features(make_features(bars, BASIC), bars.symbols_S)


def test_the_days_are_those_on_which_every_member_may_be_judged(models):
    later = {"train": ("2014-01-01", "2015-08-01"), "valid": ("2015-08-10", "2016-02-01")}
    later |= {"test": ("2016-02-10", "2016-05-01")}
    ours = Ensemble.of([models[0], dataclasses.replace(models[1], days=later)])
    assert ours.days == {
        "train": ("2014-01-01", "2015-08-01"),
        "valid": ("2015-08-10", "2015-12-01"),
        "test": ("2016-02-10", "2016-05-01"),
    }
    apart = {"train": ("2016-01-01", "2016-03-01"), "valid": ("2016-03-10", "2016-03-20")}
    apart |= {"test": ("2016-04-01", "2016-05-01")}
    assert Ensemble.of([models[0], dataclasses.replace(models[1], days=apart)]).days.keys() == {"train", "test"}
    assert Ensemble.of([models[0], dataclasses.replace(models[1], days={})]).days == {}


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        ((0.5, float("nan")), "must lie in"),
        ((1.5, -0.5), "must lie in"),
        ((0.5, 0.4), r"sum to 0\.9, not to 1"),
        ((1.0,), "1 weights for 2 members"),
    ],
)
def test_weights_that_are_none_are_refused(models, weights, message):
    with pytest.raises(ValueError, match=message):
        Ensemble(tuple(models[:2]), weights)


@pytest.mark.parametrize("weights", [[0, 0], [1, -1], [1, float("inf")], [1], [1e308, 1e308]])
def test_shares_of_nothing_are_refused(models, weights):
    with pytest.raises(ValueError, match="weights"):
        Ensemble.of(models[:2], weights)


# --- folders of strangers ---------------------------------------------------------------------------------------------


@pytest.fixture
def saved(models, tmp_path) -> Path:
    Ensemble.of(models[1:]).save(tmp_path / "model")
    return tmp_path / "model"


def said(folder: Path, **changes) -> None:
    facts = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(facts | changes))


def refused(folder: Path) -> str:
    with pytest.raises(ModelFolderError) as caught:
        load_predictor(folder)
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 600
    return str(caught.value)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"members": ["members/00"] * 10**5}, "the most is 1,048,576"),
        ({"members": [f"members/{n:02d}" for n in range(MOST_MEMBERS + 1)]}, "at most 100 items"),
        ({"members": 10**9}, "members: Input should be a valid list"),
        ({"members": ["members/00", "../../other/model"]}, "are not members/00, members/01"),
        ({"members": ["members/00", "/etc"]}, "are not members/00, members/01"),
        ({"members": ["members/01", "members/00"]}, "are not members/00, members/01"),
        ({"weights": [1.5, -0.5]}, "must lie in [0, 1]"),
        ({"weights": [0.5, 0.4]}, "sum to 0.9, not to 1"),
        ({"weights": ["0.5", 0.5]}, "weights.0"),
        ({"weights": [1.0]}, "1 weights for 2 members"),
        ({"weights": [1e308, 1e308]}, "must lie in [0, 1]"),
        ({"sha256": ["0" * 64] * 2}, "is damaged: its sha256"),
        ({"sha256": []}, "0 checksums for 2 members"),
        ({"format": 2}, "newer version"),
        ({"format": "x"}, "is not one of ours"),
        ({"kind": "transformer"}, "model format 1"),
    ],
)
def test_a_hostile_config_is_refused_in_one_line(saved, changes, message):
    said(saved, **changes)
    assert message in refused(saved)


def test_weights_that_are_no_number_are_refused(saved):
    text = (saved / "config.json").read_text()
    for word in ("NaN", "Infinity", "1e999"):
        (saved / "config.json").write_text(text.replace("0.5", word, 1))
        assert "config.json is damaged" in refused(saved)


def test_a_member_that_is_an_ensemble_a_link_or_absent_is_refused(saved, models, tmp_path):
    member = saved / "members" / "01"
    shutil.move(member, tmp_path / "aside")
    assert "members/01/config.json is missing" in refused(saved)
    os.symlink(tmp_path / "aside", member)
    assert "is a symbolic link" in refused(saved)
    member.unlink()
    Ensemble.of([models[1]]).save(member)
    said(saved, sha256=[sha256(saved / "members" / name / "config.json") for name in ("00", "01")])
    assert "is an ensemble itself" in refused(saved)


def test_members_that_do_not_forecast_the_same_are_refused(saved, models):
    dataclasses.replace(models[2], relative="mean").save(saved / "members" / "01")
    said(saved, sha256=[sha256(saved / "members" / name / "config.json") for name in ("00", "01")])
    assert "model 2 has other labels than the first: mean where the first has none" in refused(saved)


def test_a_member_that_claims_a_billion_weights_is_refused_before_it_is_made(saved, bars, tmp_path):
    Ensemble.of([learned("transformer", bars)]).save(tmp_path / "large")
    place = tmp_path / "large" / "members" / "00" / "config.json"
    facts = json.loads(place.read_text())
    facts["model"]["num_layers"] = 10**9
    place.write_text(json.dumps(facts))
    said(tmp_path / "large", sha256=[sha256(place)])
    assert refused(tmp_path / "large")


def test_more_bytes_than_a_model_may_have_are_refused_before_one_is_read(saved):
    with open(saved / "members" / "00" / "more.safetensors", "wb") as file:
        file.truncate(9 * 2**30)  # a hole, which takes no space
    assert "holds 9,66" in refused(saved)
