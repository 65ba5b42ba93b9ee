"""A run with other features: its model names them, its fine-tunes have them, and the leak proof sees them."""

import json
import re
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest

from hfinference import average_predictions, load_model
from hfinference.joining import join
from hftraining.core.errors import ConfigError
from hftraining.core.files import sha256
from hftraining.core.untrusted import Untrusted
from hftraining.experiment.config import load_config
from hftraining.experiment.ground import lay
from hftraining.experiment.proof import prove
from hftraining.experiment.replay import known_causes, replay
from hftraining.experiment.their_features import their_lines
from hftraining.market.config import StocksConfig
from hftraining.market.features.names import BASIC, WIDE
from hftraining.market.features.table import make_features
from hftraining.market.prices import load_bars
from hftraining.model.base import Forecaster
from hftraining.model.folder import ModelFolderError
from hftraining.runs.folder import read_run
from hftraining.runs.manifest import read_facts
from tests import looks_ahead, their_features
from tests.bars_of import make_bars
from tests.compose import compose_config
from tests.runs_of import QUICK, run, trained, tune, tuned_config

SMALL = ["stocks=sample5", *(text for text in QUICK if text != "stocks=folder"), "features=wide"]


@pytest.fixture(scope="module")
def wide(folder, tmp_path_factory):
    """A run with the set wide."""
    return Path(run(folder, tmp_path_factory.mktemp("wide"), "features=wide")["folder"])


@pytest.fixture(scope="module")
def ground():
    return lay(compose_config(*SMALL), make_bars(n_sessions=500, n_symbols=4, missing=0.03))


def test_the_model_folder_names_its_features_and_forecasts_with_them_as_before_it_was_saved(ground, tmp_path):
    forecaster = ground.forecaster
    assert forecaster.scaler.features == WIDE
    forecaster.save(tmp_path / "model")
    loaded = Forecaster.load(tmp_path / "model")
    before, after = (model.forecast(ground.universe) for model in (forecaster, loaded))
    assert np.isfinite(after.quantiles_TSHQ[30:]).mean() > 0.9
    np.testing.assert_array_equal(after.quantiles_TSHQ, before.quantiles_TSHQ)
    with pytest.raises(ValueError, match="the model was trained on other features"):
        loaded.forecast_features(make_features(ground.universe, BASIC), ground.universe.symbols_S)


def test_a_model_of_features_that_are_not_there_is_refused_in_one_line(ground, tmp_path):
    ground.forecaster.save(tmp_path / "model")
    scaler, config = tmp_path / "model" / "scaler.json", tmp_path / "model" / "config.json"
    scaler.write_text(scaler.read_text().replace('"skew_63"', '"their_secret"'))
    facts = json.loads(config.read_text())
    config.write_text(json.dumps(facts | {"sha256": facts["sha256"] | {"scaler.json": sha256(scaler)}}))
    with pytest.raises(
        ModelFolderError, match="their_secret is no feature of this version or of an installed"
    ) as error:
        Forecaster.load(tmp_path / "model")
    assert "\n" not in str(error.value)


def test_features_of_which_none_varies_are_refused_in_one_line():
    asked = compose_config(*SMALL[:-1], "features.columns=[return_1d_rank,relative_return]")
    alone = (
        "return_1d_rank, relative_return varies on the training days: ranks and relative returns of one stock do not"
    )
    with pytest.raises(ConfigError, match=f"features.columns: none of {alone}"):
        lay(asked, make_bars(n_sessions=500, n_symbols=1))
    lay(asked, make_bars(n_sessions=500, n_symbols=2))


@pytest.mark.slow
def test_a_run_with_other_features_is_another_one_and_is_averaged_with_the_default(wide, reference, folder):
    assert load_config(wide / "config.yaml").features.columns == list(WIDE)
    assert json.loads((wide / "run.json").read_text())["signature"] != reference["signature"]
    models = [load_model(wide), load_model(reference["folder"])]
    bars = load_bars(StocksConfig(source="files", path=str(folder)))
    mean, own = average_predictions(models, bars), [model.predict(bars) for model in models]
    known = np.isfinite(mean.quantiles_TSHQ)
    by_hand = (own[0].quantiles_TSHQ + own[1].quantiles_TSHQ) / 2.0
    assert known.any() and np.allclose(mean.quantiles_TSHQ[known], by_hand[known], rtol=1e-12)


@pytest.mark.slow
def test_a_fine_tune_inherits_the_features_of_its_base_and_refuses_others(wide, base, tmp_path):
    assert tuned_config(wide, tmp_path).features.columns == list(WIDE)
    with pytest.raises(ConfigError, match=r"features.columns=\['return_1d', .* where the base has"):
        tuned_config(base, tmp_path, "features=wide")


def test_the_leak_proof_passes_with_other_features_and_catches_one_that_looks_ahead(ground, monkeypatch):
    assert prove(ground, 2, seed=0).ok
    looks_ahead.plant(monkeypatch, "skew_63", lambda rows: np.roll(rows.return_SN, -1, axis=1))
    report = prove(ground, 1, seed=0)
    assert not report.ok and "features up to" in report.lines[0]


@pytest.fixture
def installed(tmp_path, monkeypatch):
    with their_features.installed(tmp_path, monkeypatch):
        yield


def their_ground(*columns):
    asked = compose_config(*SMALL[:-1], f"features.columns=[return_1d,{','.join(columns)}]", "evidence.baselines=[]")
    return lay(asked, make_bars(n_sessions=520, n_symbols=4, missing=0.03))


@pytest.mark.slow
def test_features_of_a_package_that_are_sound_pass_the_leak_proof_of_a_run(installed):
    real = their_ground("over_its_week", "over_its_week_rank")
    assert their_lines(real, np.random.default_rng(0)) == [] and prove(real, 1, seed=0).ok


@pytest.mark.slow
@pytest.mark.parametrize("name", their_features.SOUND_ON_FEW_BARS)
def test_a_feature_that_is_sound_on_few_bars_and_looks_ahead_on_those_of_a_run_is_named_by_its_leak_proof(
    installed, name
):
    for column in (name, f"{name}_rank"):
        report = prove(their_ground(column), 1, seed=0)
        assert not report.ok and name in report.lines[0], report.lines


@pytest.mark.slow
def test_a_feature_that_is_another_each_time_it_is_made_is_named(installed, monkeypatch):
    monkeypatch.setattr("hftraining.market.features.lookup.faults_of", lambda feature: [])
    lines = their_lines(their_ground("counting"), np.random.default_rng(0))
    assert lines == ["feature counting is another when it is made again"]
    lines = their_lines(their_ground("remembered"), np.random.default_rng(0))
    assert len(lines) == 1 and lines[0].startswith("feature remembered keeps what it has made: from ")


def marks_of(folder: Path) -> dict:
    return json.loads((folder / "run.json").read_text())["marks"]


def change_marks(folder: Path, change) -> None:
    facts = json.loads((folder / "run.json").read_text())
    (folder / "run.json").write_text(json.dumps(facts | {"marks": change(facts["marks"])}))


@pytest.mark.parametrize(
    "mark", [["0.5"], [True], [None], [[0.5]], ["nan"], [10**400], [0.5] * 101, "0.5", {"0": 0.5}, {"x\n": [0.5]}]
)
def test_marks_that_are_no_numbers_are_refused_in_one_line(tmp_path, mark):
    (tmp_path / "run.json").write_text(json.dumps({"marks": mark if isinstance(mark, dict) else {"feature": mark}}))
    with pytest.raises(Untrusted, match=r"run\.json is damaged \(") as refused:
        read_facts(tmp_path)
    assert "\n" not in str(refused.value)


@pytest.mark.slow
def test_a_run_names_the_package_of_its_features_and_a_replay_says_that_another_version_is_there(
    folder, tmp_path, monkeypatch, caplog
):
    (package := tmp_path / "package").mkdir()
    with their_features.installed(package, monkeypatch):
        asked = ((), ("features.columns=[return_1d,over_its_week_rank]",))
        plain, made = (Path(run(folder, tmp_path / "out", *words)["folder"]) for words in asked)
        both = join([plain, made], outputs=tmp_path / "out").folder
        assert marks_of(both) == marks_of(made) != marks_of(plain) == {}
        assert json.loads((made / "run.json").read_text())["versions"]["their-features"] == "1.2"
        assert replay(made, tmp_path / "same", say=lambda line: None).bits.equal
    with their_features.installed(package, monkeypatch, version="1.3"):
        causes = replay(made, tmp_path / "other", say=lambda line: None).causes
        with caplog.at_level("WARNING", "hftraining"):
            load_model(made)
        (cut := Path(shutil.copytree(made, made.parent / "cut")) / "result.json").unlink()
        config = load_config(made / "config.yaml")
        config.resume = str(cut.parent)
        with pytest.raises(
            ConfigError, match=r"another version of their package \(their-features 1.3 here, 1.2 then\)"
        ):
            trained(config)
    assert [cause.text for cause in causes] == ["their-features 1.2 then, 1.3 now"]
    assert "another version of their package (their-features 1.3 here, 1.2 then): its forecasts may" in caplog.text
    edited = their_features.PACKAGE.replace("mean(rows.close_SN, 5)", "mean(rows.close_SN, 4)")
    with their_features.installed(package, monkeypatch, code=edited):  # under the same version
        said = "another version of their package (over_its_week has other values here than then)"
        with pytest.raises(ConfigError, match=re.escape(said)):
            trained(config)
        assert known_causes(read_run(made), config)[0].text == "over_its_week has other values here than then"
        for model in (made, both):  # one of its members has learned from the feature
            caplog.clear()
            with caplog.at_level("WARNING", "hftraining"):
                load_model(model)
            assert said in caplog.text
        learned = "the base model learned from features of other versions of their package: over_its_week has other"
        tuned = tune(made, tmp_path / "tuned", "training.methods=[full]")
        assert any(warning.startswith(learned) for warning in tuned["warnings"])
        change_marks(both, lambda marks: {"another": marks["over_its_week"]})
        caplog.clear()
        load_model(both)  # without a mark of its features, as a run from before there were marks
        assert "has other values" not in caplog.text
    monkeypatch.setattr(sys, "path", [place for place in sys.path if place != str(package)])
    with pytest.raises(ConfigError, match="over_its_week_rank is no feature"):
        load_config(made / "config.yaml")
