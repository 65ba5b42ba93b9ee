"""Runs joined into an ensemble that is judged, saved, and used as a run is: hfinference/joining.py."""

import json
import math
import shutil
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from scipy.optimize import minimize

from hfinference import average_predictions, load_model
from hfinference.__main__ import main
from hfinference.joining import join, ridge_weights, weights_of
from hftraining.core.errors import UserError
from hftraining.core.forecast import Forecast
from hftraining.evidence.bootstrap import resampled_days, sharpe_difference
from hftraining.experiment.config import load_config
from hftraining.experiment.replay import replay
from hftraining.market.features.table import make_features
from hftraining.market.prices import load_bars
from hftraining.profit_tracker import ProfitTracker
from hftraining.runs.folder import read_run
from hftraining.runs.ledger import Ledger
from hftraining.trading.metrics import daily_returns
from tests.browser import laid_out, needs_browser
from tests.compose import compose_config
from tests.runs_of import QUICK, placed, run, trained

pytestmark = pytest.mark.slow
FLAT = ("portfolio=tilt", "profit_tracker.stop_loss=0", "profit_tracker.take_profit=0")


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("joined")


@pytest.fixture(scope="module")
def runs(folder, place) -> list[Path]:
    """A transformer, another seed of it, and LightGBM with other features."""
    pytest.importorskip("lightgbm", reason="LightGBM is not installed: pip install -e .[baselines]")
    trees = [word for word in QUICK if not word.startswith("model")]
    trees += ["model=lightgbm", "features.columns=[return_1d,momentum_21,volatility]", f"stocks.path={folder}"]
    networks = [run(folder, place, *words, *FLAT) for words in ((), ("seed=2",))]
    return [Path(done["folder"]) for done in (*networks, trained(compose_config(*trees, *placed(place), *FLAT)))]


@pytest.fixture(scope="module")
def joined(runs, place) -> Path:
    return join(runs, outputs=place).folder


@pytest.fixture(scope="module")
def bars(runs):
    return load_bars(load_config(runs[0] / "config.yaml").stocks)


def result_of(folder: Path) -> dict:
    return json.loads((folder / "result.json").read_text())


def refused(*arguments, **settings) -> str:
    with pytest.raises(UserError) as caught:
        join(*arguments, **settings)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def rows_of(bars, period: dict) -> slice:
    first, last = (np.datetime64(period[end][:10]) for end in ("first", "last"))
    return slice(*np.searchsorted(bars.sessions_T, [first, last + 1]))


def test_the_saved_folder_is_a_model_that_forecasts_the_mean_of_its_members(joined, runs, bars):
    model, members = load_model(joined), [load_model(run) for run in runs]
    ours, theirs = model.predict(bars), average_predictions(members, bars)
    assert model.kind == "ensemble" and ours.quantiles_TSHQ.tobytes() == theirs.quantiles_TSHQ.tobytes()
    by_hand = sum(member.predict(bars).quantiles_TSHQ for member in members) / 3
    np.testing.assert_allclose(ours.quantiles_TSHQ, by_hand, rtol=1e-12)
    assert {"q50_1", "q50_5"} <= set(model.forecast(bars).columns)


def test_an_ensemble_of_one_run_earns_what_the_run_does_to_the_bit(runs, place):
    alone = join(runs[:1], outputs=place).folder
    ours, theirs = result_of(alone), result_of(runs[0])
    for period in ("valid", "test"):
        assert ours[period]["profit"] == theirs[period]["profit"]
        assert ours[period]["scores"] == theirs[period]["scores"]
    a, b = (pd.read_parquet(folder / "equity.parquet") for folder in (alone, runs[0]))
    pd.testing.assert_frame_equal(a, b, check_exact=True)
    assert ours["ensemble"]["members"][0]["periods"]["valid"].get("marginal") is None


def test_the_members_stand_beside_it_with_the_figures_of_their_runs(joined, runs):
    found = result_of(joined)
    assert [member["kind"] for member in found["ensemble"]["members"]] == ["transformer", "transformer", "lightgbm"]
    for said, folder in zip(found["ensemble"]["members"], runs, strict=True):
        own = result_of(folder)
        assert said["parameters"] == own["parameters"] and said["folder"] == str(folder)
        for period in ("valid", "test"):
            known = {name: value for name, value in own[period]["profit"].items() if value is not None}
            assert len(known) > 8
            for name, value in known.items():
                assert said["periods"][period]["profit"][name] == pytest.approx(value, rel=1e-9), name
    assert found["parameters"] == sum(result_of(folder)["parameters"] for folder in runs)


def test_what_a_member_adds_is_the_sharpe_ratio_less_that_without_it_on_the_same_drawn_days(joined, runs, bars):
    found, config = result_of(joined), load_config(joined / "config.yaml")
    tracker, members = ProfitTracker(config.profit_tracker, config.portfolio), [load_model(run) for run in runs]
    for period in ("valid", "test"):
        rows = rows_of(bars, found[period])

        def returns_of(some, rows=rows) -> np.ndarray:
            report = tracker.evaluate(bars.rows(rows), average_predictions(some, bars).rows(rows))
            return daily_returns(report.simulation.equity_T)

        ours_T = returns_of(members)
        for number, said in enumerate(found["ensemble"]["members"]):
            without_T = returns_of(members[:number] + members[number + 1 :])
            marginal = said["periods"][period]["marginal"]
            apart = sharpe_of(ours_T) - sharpe_of(without_T)
            assert marginal["value"] == pytest.approx(apart, rel=1e-6, abs=1e-6)
            assert marginal["low"] <= marginal["value"] <= marginal["high"]
            ends = sharpe_difference(ours_T, without_T, config.evidence.bootstrap_draws, config.seed)
            assert marginal["low"] == pytest.approx(ends.low, rel=1e-4, abs=1e-6)


def sharpe_of(returns_T: np.ndarray) -> float:
    return math.sqrt(252) * returns_T.mean() / returns_T.std(ddof=1)


def test_the_interval_of_a_marginal_sharpe_ratio_draws_both_accounts_on_the_same_days():
    rng = np.random.default_rng(3)
    both_T = rng.normal(0.0005, 0.01, 400)
    ours_T, theirs_T = both_T + rng.normal(0.0002, 0.001, 400), both_T
    found = sharpe_difference(ours_T, theirs_T, 2000, 1)
    draws, day_T = [], np.empty(400, np.int64)
    for _ in range(2000):
        resampled_days(rng.integers(0, 400, 400, np.int32), rng.random(400), 1.0, day_T)
        draws.append(sharpe_of(ours_T[day_T]) - sharpe_of(theirs_T[day_T]))
    low, high = np.quantile(draws, [0.025, 0.975])
    assert found.high - found.low == pytest.approx(high - low, rel=0.2)
    apart = [sharpe_of(ours_T[rng.integers(0, 400, 400)]) - sharpe_of(theirs_T[rng.integers(0, 400, 400)])]
    apart += [
        sharpe_of(ours_T[rng.integers(0, 400, 400)]) - sharpe_of(theirs_T[rng.integers(0, 400, 400)])
        for _ in range(500)
    ]
    assert np.quantile(apart, 0.975) - np.quantile(apart, 0.025) > 3 * (found.high - found.low)


def test_correlations_of_errors_and_forecasts_are_those_of_a_naive_loop(joined, runs, bars):
    found = result_of(joined)
    rows = rows_of(bars, found["valid"])
    medians = [average_predictions([load_model(run)], bars).quantiles_TSHQ[rows, :, 1, 2] for run in runs]
    opens = bars.open_TS
    pairs = [[[], []] for _ in range(9)]
    for t in range(rows.start, rows.stop):
        for s in range(3):
            if t + 6 >= rows.stop + 10**9 or t + 6 >= len(opens):
                continue
            outcome = math.log(opens[t + 6, s] / opens[t + 1, s])
            values = [median[t - rows.start, s] for median in medians]
            if not np.isfinite([*values, outcome]).all():
                continue
            for a in range(3):
                for b in range(3):
                    pairs[3 * a + b][0].append(values[a] - outcome)
                    pairs[3 * a + b][1].append(values[b] - outcome)
    errors = np.array(found["ensemble"]["correlations"]["valid"]["errors"])
    expected = np.array([np.corrcoef(*pair)[0, 1] for pair in pairs]).reshape(3, 3)
    np.testing.assert_allclose(errors, expected, atol=5e-3)
    assert np.allclose(np.diag(errors), 1.0)


def test_weights_by_validation_are_inverse_losses_and_mark_the_validation_days(runs, place):
    found = result_of(join(runs, "validation", outputs=place).folder)
    losses = [member["periods"]["valid"]["loss"] for member in found["ensemble"]["members"]]
    total = sum(1 / loss for loss in losses)
    for member, loss in zip(found["ensemble"]["members"], losses, strict=True):
        assert member["weight"] == pytest.approx(1 / loss / total, rel=1e-12)
    assert found["ensemble"]["in_sample"] and found["valid"]["verdict"].startswith("in sample")
    assert not found["test"]["verdict"].startswith("in sample")


def test_weights_by_spread_let_every_member_move_the_mean_alike(runs, place, bars):
    found = result_of(join(runs, "spread", outputs=place).folder)
    config, rows = load_config(runs[0] / "config.yaml"), rows_of(bars, found["valid"])
    h = len(config.objective.horizons) - 1
    unit_TS = make_features(bars).volatility_TS[rows] * math.sqrt(config.objective.horizons[h])
    medians = [load_model(run).predict(bars).quantiles_TSHQ[rows, :, h, 2] / unit_TS for run in runs]
    members = found["ensemble"]["members"]
    moved = [member["weight"] * np.std(median_TS) for member, median_TS in zip(members, medians, strict=True)]
    assert moved == pytest.approx([moved[0]] * 3, rel=1e-6)
    weights = [member["weight"] for member in members]
    assert math.fsum(weights) == pytest.approx(1.0) and max(weights) > 1.2 * min(weights)
    assert found["ensemble"]["in_sample"] and found["valid"]["verdict"].startswith("in sample")
    assert not found["test"]["verdict"].startswith("in sample")


@pytest.mark.parametrize(
    ("weighting", "second", "said"),
    [
        ("spread", 0.3, "runs/second forecasts all but the same for every stock and validation day"),
        ("spread", 0.3 + 1e-5 * np.arange(4), "runs/second forecasts all but the same .* would decide alone"),
        ("spread", np.nan, "there is no validation day on which all members forecast a stock"),
        ("validation", 0.3, "the losses on the validation days, 0.3, 0, are not all positive"),
        ("ridge", 0.3, "no member's median goes with the outcomes"),
    ],
)
def test_members_that_give_no_weights_are_refused(weighting, second, said):
    rng = np.random.default_rng(4)
    outcome_TSH = rng.normal(size=(50, 4, 1))
    medians = -outcome_TSH, np.broadcast_to(np.reshape(second, (-1, 1)), outcome_TSH.shape)
    members = [Forecast(m[..., None], np.zeros((50, 4)), (5,), (0.5,), "zscore") for m in medians]
    losses = iter((0.3, 0.0))
    valid = SimpleNamespace(
        span_TSH=np.ones((50, 4, 1)), scored_labels_TSH=outcome_TSH - 1.0, forecast_loss=lambda _: next(losses)
    )
    models = [SimpleNamespace(folder=Path("runs") / name) for name in ("first", "second")]
    with pytest.raises(UserError, match=said):
        weights_of(weighting, SimpleNamespace(periods={"valid": valid}, models=models), members, 0)


@pytest.mark.parametrize("seed", range(5))
def test_ridge_weights_are_the_least_of_what_they_minimise(seed):
    rng = np.random.default_rng(seed)
    median_MN = rng.normal(size=(3, 500)) + rng.normal(size=500)
    outcome_N = rng.normal([0.5, -0.4, 0.2] @ median_MN, 2.0)
    penalty = np.mean(np.sum(median_MN**2, axis=1))

    def lost(w_M) -> float:
        return float(np.sum((outcome_N - w_M @ median_MN) ** 2) + penalty * np.sum(w_M**2))

    ours = ridge_weights(median_MN, outcome_N)
    theirs = minimize(lost, np.full(3, 0.3), bounds=[(0, None)] * 3, tol=1e-12)
    assert min(ours) >= 0.0 and lost(np.array(ours)) <= theirs.fun * (1 + 1e-9)
    np.testing.assert_allclose(ours, theirs.x, atol=1e-4)


def test_it_is_one_trial_and_an_opening_and_the_same_again_is_the_same_row(runs, place):
    ledger = Ledger(place / "ledger.sqlite")
    first = result_of(join(runs[:2], outputs=place).folder)
    rows = len(list(ledger.entries()))
    again = result_of(join(runs[:2], outputs=place).folder)
    assert len(list(ledger.entries())) == rows and again["n_trials"] == first["n_trials"]
    entry = max(ledger.entries(), key=lambda entry: entry.id)
    assert entry.kind == "ensemble" and entry.test_window and entry.valid is not None and entry.test is not None
    assert first["test_openings"] >= 2  # its members have opened these days


def test_an_ensemble_joins_another_by_its_members(joined, runs, place):
    folder = join([joined, runs[0]], outputs=place, name="twice").folder
    assert folder.parent.name == "twice"
    model = load_model(folder)
    assert len(model.predictor.members) == 4 and model.predictor.weights == pytest.approx((1 / 6, 1 / 6, 1 / 6, 1 / 2))


def test_runs_that_do_not_fit_are_refused_before_anything_is_written(runs, folder, place, tmp_path):
    assert "is given twice: a run counts once" in refused([runs[0], runs[0] / ".." / runs[0].name], outputs=tmp_path)
    copy = tmp_path / "copies" / "copy"
    shutil.copytree(runs[0], copy)
    assert "has the very model of" in refused([runs[0], copy], outputs=tmp_path)
    shutil.rmtree(copy.parent)
    assert "is none of equal, spread, validation, ridge" in refused(runs, "best", outputs=tmp_path)
    assert "does not exist" in refused([tmp_path / "none"], outputs=tmp_path)
    assert "give their folders" in refused([], outputs=tmp_path)
    half = tmp_path / "half"
    half.mkdir()
    shutil.copy(runs[0] / "run.json", half)
    assert "has no model" in refused([runs[0], half], outputs=tmp_path)
    assert "is a model without its run" in refused([runs[0] / "model"], outputs=tmp_path)
    other = Path(run(folder, place, "objective.horizons=[1,20]")["folder"])
    message = refused([runs[0], other], outputs=tmp_path)
    assert f"{other}: its model has other horizons than {runs[0]}: 20 where the first has 5" in message
    assert [path.name for path in tmp_path.iterdir()] == ["half"]


def test_a_book_of_the_models_own_positions_needs_a_head_in_each(runs, tmp_path):
    own = tmp_path / "own"
    shutil.copytree(runs[0], own)
    text = (own / "config.yaml").read_text()
    assert text.count("kind: tilt") == 1
    (own / "config.yaml").write_text(text.replace("kind: tilt", "kind: head"))
    message = refused([own, runs[2]], outputs=tmp_path)
    assert "trades the position head" in message and f"which lightgbm in {runs[2]} lacks" in message
    assert join([own, runs[1]], outputs=tmp_path).result.valid.profit


def test_runs_without_a_common_validation_day_are_refused(runs, folder, place, tmp_path):
    early = run(folder, place, "stocks.valid_start=2015-10-01", "stocks.test_start=2015-12-01")
    assert "there is no validation day that no member was trained on" in refused([runs[0], early["folder"]])


def test_the_command_prints_its_table_and_one_object(runs, place, capsys):
    code = main(["ensemble", *map(str, runs), "--weights", "ridge", "--outputs", str(place), "--json"])
    out = capsys.readouterr().out
    found = json.loads(out.splitlines()[-1])
    assert code == 0 and Path(found["folder"]).is_dir()
    assert "members, on the validation days" in out and "These weights were fitted to the validation days" in out
    assert read_run(Path(found["folder"])).judged == "an ensemble"
    assert main(["ensemble", str(place / "nowhere")]) == 2
    assert capsys.readouterr().err.count("\n") == 1
    with pytest.raises(UserError, match="is an ensemble, not a run that was trained"):
        replay(Path(found["folder"]), place)


@needs_browser
@pytest.mark.parametrize("width", [400, 1280])
def test_its_page_is_laid_out_on_a_phone_and_on_a_desk(joined, width, tmp_path):
    shutil.copytree(joined, tmp_path / "run")
    found = laid_out(tmp_path / "run" / "report.html", tmp_path, width)
    assert found["tables"] >= 8 and len(found["charts"]) >= 2
