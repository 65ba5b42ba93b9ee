"""Run folders that an earlier version wrote, tests/data/run_of_format_2/, still work in this one."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import yaml

from hfinference import average_predictions, load_model
from hftraining.__main__ import main
from hftraining.core.bars import Bars
from hftraining.core.errors import UserError
from hftraining.core.values import flatten
from hftraining.experiment.config import load_config
from hftraining.market.prices import load_bars
from hftraining.runs.earlier import in_todays_fields
from tests.commands import last_object
from tests.runs_of import own_copy, trained, tune

pytestmark = pytest.mark.slow  # whole runs

DATA = Path(__file__).resolve().parents[1] / "data" / "run_of_format_2"
FORECASTS = json.loads((DATA / "forecasts.json").read_text())


@pytest.fixture
def old(tmp_path, monkeypatch) -> dict[str, Path]:
    """A copy of the old folders as outputs/ of the working folder: the base run and its fine-tune."""
    monkeypatch.chdir(tmp_path)
    shutil.copytree(DATA, "outputs")
    return {kind: next(Path("outputs", kind).glob("*/*")) for kind in FORECASTS}


def bars_of(run: Path) -> Bars:
    stocks = load_config(run / "config.yaml").stocks
    stocks.symbols = ["AAPL", "MSFT"]
    return load_bars(stocks)


@pytest.mark.parametrize("kind", FORECASTS)
def test_an_old_model_forecasts_what_the_old_code_forecast(old, kind):
    model, bars, recorded = load_model(old[kind]), bars_of(old[kind]), FORECASTS[kind]
    forecast = model.predict(bars)
    assert list(model.symbols) == recorded["symbols"] and list(forecast.horizons) == recorded["horizons"]
    assert list(forecast.levels) == recorded["levels"]
    for day, values in recorded["sessions"].items():
        (t,) = np.flatnonzero(bars.sessions_T == np.datetime64(day))
        # Equal to the bit on the machine that recorded them; another processor may round float32 differently.
        np.testing.assert_allclose(forecast.quantiles_TSHQ[t], values["quantiles_SHQ"], rtol=2e-5, atol=1e-8)
        np.testing.assert_allclose(forecast.head_TS[t], values["head_S"], rtol=2e-5, atol=1e-8)


def test_old_models_are_averaged(old):
    models, bars = [load_model(path) for path in old.values()], bars_of(old["base"])
    average = average_predictions(models, bars).quantiles_TSHQ[-1]
    day = str(bars.sessions_T[-1])
    expected = np.mean([known["sessions"][day]["quantiles_SHQ"] for known in FORECASTS.values()], axis=0)
    np.testing.assert_allclose(average, expected, rtol=2e-5, atol=1e-8)


def test_an_old_run_is_compared_with_a_new_one_of_the_same_config(old, capsys):
    config = load_config(old["base"] / "config.yaml")
    config.name, config.seed = "new", 2
    new = trained(config)
    assert main(["compare", str(old["base"]), new["folder"], "--json"]) == 0
    found = last_object(capsys.readouterr().out)
    # Fields that there were not yet have no value in the old run.
    known = flatten(in_todays_fields(yaml.safe_load((old["base"] / "config.yaml").read_text())))
    assert {row["field"] for row in found["config"] if row["field"] in known} == {"name", "seed"}
    assert found["data"]["same"] is True and found["code"]["same"] is False
    sharpes = [json.loads((Path(path) / "result.json").read_text())["valid"]["profit"]["sharpe_ratio"]
               for path in (old["base"], new["folder"])]  # fmt: skip
    assert found["differences"][0]["sharpe"]["valid"]["value"] == pytest.approx(sharpes[1] - sharpes[0], abs=1e-6)


@pytest.mark.parametrize("kind", FORECASTS)
def test_the_report_of_an_old_run_is_built_again_with_its_numbers(old, kind, capsys):
    assert main(["report", str(old[kind])]) == 0
    result = json.loads((old[kind] / "result.json").read_text())
    page = (old[kind] / "report.html").read_text()
    assert result["signature"] in page and result["test"]["first"] in page
    trades = result["test"]["profit"]["trade_count"]
    assert f'data-metric="test.profit.trade_count">{trades:,.0f}<' in page
    if kind == "finetuned":
        assert f'data-metric="decision.head.loss">{result["decision"]["candidates"]["head"]["loss"]:.4f}<' in page


@pytest.mark.parametrize("kind", FORECASTS)
def test_the_leak_proof_of_an_old_run_passes(old, kind, capsys):
    assert main(["leaks", str(old[kind]), "--days", "2", "--json"]) == 0
    assert last_object(capsys.readouterr().out) == {"ok": True, "days": 2, "lines": []}


def test_an_old_run_is_repeated_to_the_bit_or_refused_in_one_line(old, capsys):
    code = main(["replay", str(old["base"]), "--json"])
    out, err = capsys.readouterr()
    if code == 2:
        assert err.startswith("error: ") and err.count("\n") == 1
        return
    found = last_object(out)
    assert "code: sources " in out  # the code is another one, and that is said
    # Another processor or library may round differently; replay then names it.
    assert found["equal"] or {cause["kind"] for cause in found["causes"]} - {"code"}


def test_an_old_run_is_a_base_to_fine_tune(old, tmp_path):
    tuned = tune(old["base"], tmp_path / "out", "training.methods=[head]", symbol="MSFT")
    assert load_model(tuned["folder"]).symbols == ("AAPL", "MSFT")
    assert tuned["decision"]["candidates"]["head"]["steps"] == 6


@pytest.mark.parametrize("number", [99, 1])
def test_a_model_of_another_format_is_refused_in_one_line_that_names_it(old, tmp_path, number):
    copy = own_copy(old["base"], tmp_path / "copy")
    path = copy / "model" / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"format": number}))
    with pytest.raises(UserError, match=rf"format {number}\b") as caught:
        load_model(copy)
    assert "\n" not in str(caught.value)
