"""A walk-forward: which days its folds have, what each may know, and what their forecasts come to as one."""

import dataclasses
import json
import math
import os
import signal
import sqlite3
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from safetensors.numpy import load_file, save_file

from hftraining.core.errors import ConfigError, Interrupted, LeakError, UserError
from hftraining.experiment import folds as folds_module
from hftraining.experiment import seams
from hftraining.experiment import walk_forward as walking
from hftraining.experiment.config import load_config
from hftraining.experiment.finetune import run as run_any
from hftraining.experiment.folds import fold_config, fold_ground, folds_along, how_many, read_forecast, until_the_end
from hftraining.experiment.ground import lay
from hftraining.experiment.portfolios import try_portfolios
from hftraining.experiment.proof import prove_run
from hftraining.experiment.replay import ReplayError, replay
from hftraining.experiment.seams import seam_lines
from hftraining.experiment.splits import splits_of
from hftraining.experiment.workers import side_by_side
from hftraining.market.prices import load_bars
from hftraining.model.base import Forecaster
from hftraining.profit_tracker import ProfitTracker
from hftraining.reports.report import write_report
from hftraining.runs.folder import find_runs
from hftraining.runs.ledger import Ledger
from hftraining.runs.result import read_result
from tests.bars_of import make_bars
from tests.commands import ended, start_train, wait_for
from tests.compose import compose_config
from tests.runs_of import QUICK, own_copy, placed, run

PURGE = 6  # of QUICK: lag 1 and horizon 5
PATIENT = 600.0  # seconds: on a busy machine a walk takes its time


def config_of(*overrides):
    return compose_config(*QUICK, "stocks.path=none", *overrides)


def laid(*overrides, n_sessions=500):
    """The folds of a config on random walks, with the config and the bars."""
    config, bars = config_of(*overrides), make_bars(n_sessions, seed=3)
    return folds_along(config, splits_of(config, bars), bars.sessions_T), config, bars


# --- the days of a fold -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("every", [7, 30, 35, 60])
def test_folds_tile_the_validation_days_and_then_the_test_days(every):
    folds, config, bars = laid(f"walk_forward={every}")
    splits = splits_of(config, bars)
    for period in ("valid", "test"):
        rows = [row for fold in folds if fold.period == period for row in range(fold.rows.start, fold.rows.stop)]
        assert rows == list(range(getattr(splits, period).start, getattr(splits, period).stop))
    assert [fold.number for fold in folds] == list(range(1, len(folds) + 1))
    lengths = [fold.rows.stop - fold.rows.start for fold in folds]
    assert all(max(every // 2, min(every, PURGE + 1)) <= n < every + max(every // 2, PURGE + 1) for n in lengths)
    assert how_many(folds) == f"{len(lengths)} folds of up to {sorted(lengths)[-1]} sessions"


def test_a_number_on_the_command_line_is_the_length_of_a_fold():
    assert config_of("walk_forward=21").walk_forward.every == 21
    assert config_of("walk_forward=monthly").walk_forward == dataclasses.replace(
        config_of("walk_forward=21").walk_forward, name="monthly"
    )
    assert config_of("walk_forward=yearly").walk_forward.every == 252
    assert config_of().walk_forward.every == 0


def test_a_fold_learns_from_all_days_before_it_or_from_the_last_ones():
    expanding, config, bars = laid("walk_forward=30")
    sliding, slid, _ = laid("walk_forward=30", "walk_forward.window=sliding", "walk_forward.sessions=200")
    for fold, other in zip(expanding, sliding, strict=True):
        start, inner = fold.rows.start, max(int(0.1 * fold.rows.start), 2 * PURGE + 1)
        ours, theirs = (
            splits_of(fold_config(c, f, bars.sessions_T, "none"), until_the_end(f, bars, PURGE))
            for c, f in ((config, fold), (slid, other))
        )
        assert (ours.train, ours.valid) == (slice(0, start - inner - PURGE), slice(start - inner, start - PURGE))
        assert theirs.train == slice(start - 200, start - 20 - PURGE)  # a tenth of 200 are inner days
        assert theirs.valid == slice(start - 20, start - PURGE)


def test_more_inner_days_leave_fewer_to_train_on():
    few, many = (laid("walk_forward=30", f"walk_forward.inner_share={share}")[0][0] for share in (0.1, 0.3))
    assert (350 - few.inner, 350 - many.inner) == (35, 105)


REFUSED = {
    "walk_forward=-1": "walk_forward.every=-1 must lie in [0, 1,000,000]",
    "walk_forward=30 walk_forward.workers=0": "walk_forward.workers=0 must lie in [1, 256]",
    "walk_forward=30 walk_forward.window=slidin": "expanding, sliding; did you mean sliding?",
    "walk_forward=30 walk_forward.window=sliding": "a sliding window needs walk_forward.sessions",
    "walk_forward=30 walk_forward.sessions=200": "an expanding one has none",
    "walk_forward=30 walk_forward.inner_share=0.6": "walk_forward.inner_share=0.6 must lie in (0, 0.5]",
    "walk_forward=30 walk_forward.finetune=true walk_forward.workers=2": "use walk_forward.workers=1",
    "walk_forward=30 walk_forward.finetune=true model=ridge": "model.kind=ridge always learns anew",
    "walk_forward=30 walk_forward.workers=2 training.processes=2": "would divide the same machine",
    "walk_forward=30 init_from=outputs/base/x": "fine-tunes one: leave one out",
    "walk_forward.workers=2": "without walk_forward.every",
    "walk_forward=weekly": "there is no such option",
}


@pytest.mark.parametrize("words", REFUSED)
@pytest.mark.slow
def test_a_walk_that_cannot_be_taken_is_refused_in_one_line(words):
    with pytest.raises(ConfigError) as caught:
        compose_config(*words.split())
    assert REFUSED[words] in str(caught.value) and "\n" not in str(caught.value)


def test_a_single_fold_and_folds_with_too_few_days_before_them_are_refused():
    with pytest.raises(ConfigError, match="are one fold, and a walk-forward has two or more"):
        config = config_of("walk_forward=100")
        folds_along(config, splits_of(config, make_bars(500)), make_bars(500).sessions_T, ["valid"])
    with pytest.raises(ConfigError, match=r"fold 1, from \S+ on, has 5 days to train on, once 13 inner days"):
        laid("walk_forward=30", "walk_forward.window=sliding", "walk_forward.sessions=24")


# --- what a fold may know ---------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def small_ground():
    config = config_of("walk_forward=30", "training.max_steps=2", "profit_tracker.every=1", "evidence.baselines=[]")
    return lay(config, make_bars(420, seed=3))


def test_a_fold_is_trained_without_any_bar_of_its_own_days(small_ground):
    config, bars = small_ground.config, small_ground.universe
    fold = folds_module.folds_of(small_ground)[1]
    ground = fold_ground(config, fold, until_the_end(fold, bars, PURGE), "none")
    assert len(ground.bars.sessions_T) == fold.rows.start and set(ground.periods) == {"train", "valid"}
    assert ground.days["test"] == fold.days(bars.sessions_T)


def test_the_proof_passes_where_no_fold_looks_ahead(small_ground):
    assert seam_lines(small_ground, np.random.default_rng(0)) == []


def into_its_own_days(config, fold, sessions_T, relative):
    """A planted leak: the last days that choose the step are the fold's own."""
    later = dataclasses.replace(fold, rows=slice(fold.rows.stop - PURGE - 1, fold.rows.stop))
    return fold_config(config, later, sessions_T, relative)


def trained_on_its_own_days(config, fold, sessions_T, relative):
    """A planted leak: the training days end with the fold."""
    start = fold.rows.stop - PURGE - 1
    later = dataclasses.replace(fold, rows=slice(start, fold.rows.stop), inner=start - 2 * PURGE - 1)
    return fold_config(config, later, sessions_T, relative)


@pytest.mark.parametrize("leak", [into_its_own_days, trained_on_its_own_days])
def test_a_fold_whose_training_reaches_into_its_own_days_is_caught(leak, small_ground, monkeypatch):
    monkeypatch.setattr(folds_module, "fold_config", leak)
    lines = seam_lines(small_ground, np.random.default_rng(0))
    assert any("the weights of fold" in line and "change with bars from" in line for line in lines), lines


def test_a_scaler_that_knows_the_whole_history_is_caught(small_ground, monkeypatch):
    monkeypatch.setattr(seams, "until_the_end", lambda fold, bars, purge: bars)  # every bar is handed on
    forecast_of = seams.forecast_of

    def rescaled(fold, ground, forecaster):
        made = forecast_of(fold, ground, forecaster)
        return dataclasses.replace(made, quantiles_TSHQ=made.quantiles_TSHQ * np.nanstd(ground.universe.close_TS))

    monkeypatch.setattr(seams, "forecast_of", rescaled)
    lines = seam_lines(small_ground, np.random.default_rng(0))
    assert any(line.startswith("stitched forecasts") for line in lines), lines


# --- a whole run ------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def walked(folder, tmp_path_factory):
    """A walk of four folds, to read and not to write into."""
    return run(folder, tmp_path_factory.mktemp("walked"), "walk_forward=35")


@pytest.fixture(scope="module")
def whole(walked):
    """The ground of that run: folder, config, bars, splits and folds."""
    place = Path(walked["folder"])
    config = load_config(place / "config.yaml")
    bars = load_bars(config.stocks)
    splits = splits_of(config, bars)
    return place, config, bars, splits, folds_along(config, splits, bars.sessions_T)


def kept_by(fold, place: Path, config):
    return read_forecast(fold, place, config, "none", 3, read_result(place).folds[fold.number - 1].forecast_sha256)


@pytest.mark.slow
def test_every_day_is_forecast_by_the_model_of_its_fold_from_the_bars_up_to_it(whole):
    place, config, bars, _, folds = whole
    assert len(folds) == 4
    for fold in folds:
        model = Forecaster.load(fold.folder(place) / "model")
        again = model.forecast(bars.rows(slice(0, fold.rows.stop))).rows(fold.rows)
        kept = kept_by(fold, place, config)
        np.testing.assert_allclose(kept.quantiles_TSHQ, again.quantiles_TSHQ, rtol=0, atol=1e-6)
        assert model.days["valid"][1] < fold.days(bars.sessions_T)[0]


@pytest.mark.slow
def test_one_account_a_period_trades_the_stitched_forecasts_across_the_seams(whole, walked):
    place, config, bars, splits, folds = whole
    equity = pd.read_parquet(place / "equity.parquet")
    tracker = ProfitTracker(config.profit_tracker, config.portfolio)
    for period in ("valid", "test"):
        own = [fold for fold in folds if fold.period == period]
        parts = [kept_by(fold, place, config) for fold in own]
        forecast = dataclasses.replace(
            parts[0],
            quantiles_TSHQ=np.concatenate([part.quantiles_TSHQ for part in parts]),
            head_TS=np.concatenate([part.head_TS for part in parts]),
        )
        account = tracker.evaluate(bars.rows(getattr(splits, period)), forecast).simulation.equity_T
        np.testing.assert_array_equal(account, equity.loc[equity["window"] == period, "equity"])
        for fold in own:  # by hand: the returns of the account on the fold's days
            start = getattr(splits, period).start
            days = range(max(1, fold.rows.start - start), fold.rows.stop - start)
            returns = [account[day] / account[day - 1] - 1.0 for day in days]
            found = walked["folds"][fold.number - 1]
            assert found["sharpe_ratio"] == pytest.approx(
                np.mean(returns) / np.std(returns, ddof=1) * math.sqrt(252), rel=1e-9
            )
            assert found["days"] == fold.rows.stop - fold.rows.start


@pytest.mark.slow
def test_the_result_names_each_fold_and_is_read_back(walked, whole):
    place, _, bars, _, folds = whole
    result = read_result(place)
    assert [dataclasses.asdict(fold)["first"] for fold in result.folds] == [f.days(bars.sessions_T)[0] for f in folds]
    for fold in result.folds:
        assert fold.train_last < fold.inner_first <= fold.inner_last < fold.first <= fold.last
        assert fold.rank_ic.days > 0 and fold.loss > 0 and fold.best_step in (3, 6)
    assert "train" not in walked["loss"]
    page = write_report(place).read_text()
    assert "<h2>Folds</h2>" in page and result.folds[-1].first in page
    last = (place / "folds" / "04" / "model" / "model.safetensors").read_bytes()
    assert (place / "model" / "model.safetensors").read_bytes() == last
    assert Forecaster.load(place / "model").days["valid"][1] == result.folds[-1].inner_last


@pytest.mark.slow
def test_the_ledger_counts_the_walk_once_however_many_folds_it_has(walked, whole):
    place = whole[0]
    entries = Ledger(place.parents[2] / "ledger.sqlite").entries()
    (own,) = [entry for entry in entries if entry.part_of is None]
    assert {entry.part_of for entry in entries if entry is not own} == {own.uuid} and len(entries) == 5
    assert (walked["n_trials"], walked["test_openings"]) == (1, 1)
    assert {entry.status for entry in entries} == {"done"}
    assert find_runs([place.parents[2]]) == [place]


@pytest.mark.slow
def test_a_replay_of_a_walk_is_equal_to_the_bit_and_its_leak_proof_passes(walked, whole):
    place = whole[0]
    again = replay(place, say=lambda line: None)
    assert again.bits.equal, again.bits.lines()
    ours, theirs = (json.loads((folder / "result.json").read_text())["folds"] for folder in (place, again.folder))
    assert ours == theirs
    assert prove_run(place, 1).ok


@pytest.mark.slow
def test_portfolios_trade_the_stitched_forecasts_and_not_those_of_the_saved_model(walked, whole):
    found = try_portfolios(whole[0], ["head"], say=lambda line: None)
    assert found.own.metrics["sharpe_ratio"] == pytest.approx(walked["valid"]["profit"]["sharpe_ratio"], abs=1e-12)


@pytest.mark.slow
def test_forecasts_that_were_changed_after_the_walk_or_are_of_another_fold_are_refused(walked, tmp_path):
    outputs = own_copy(Path(walked["folder"]).parents[2], tmp_path / "outputs")
    place = outputs.joinpath(*Path(walked["folder"]).parts[-3:])
    config = place / "config.yaml"
    config.write_text(config.read_text().replace(walked["folder"].split("/base/")[0], str(outputs)))
    kept = place / "folds" / "01" / "forecast.safetensors"
    arrays = load_file(kept)
    save_file({name: array * 2.0 for name, array in arrays.items()}, kept)
    with pytest.raises(UserError, match=r"forecast.safetensors is not what this fold forecast"):
        try_portfolios(place, ["head"], say=lambda line: None)


def test_a_fold_is_no_run_to_resume_or_replay(tmp_path):
    fold = tmp_path / "run" / "folds" / "01"
    fold.mkdir(parents=True)
    with pytest.raises(ReplayError, match="is a fold of a walk-forward: replay the walk-forward"):
        replay(fold)
    with pytest.raises(ConfigError, match="is a fold of a walk-forward: resume the walk-forward"):
        run_any(dataclasses.replace(config_of(), resume=str(fold)))


@pytest.mark.slow
def test_each_fold_goes_on_from_the_weights_of_the_fold_before_where_it_is_asked_to(folder, tmp_path, walked):
    tuned = Path(run(folder, tmp_path, "walk_forward=35", "walk_forward.finetune=true")["folder"])
    anew = Path(walked["folder"])
    models = [
        [(place / "folds" / f"{n:02d}" / "model" / "model.safetensors").read_bytes() for n in range(1, 5)]
        for place in (tuned, anew)
    ]
    assert models[0][0] == models[1][0] and models[0][1:] != models[1][1:]
    scalers = [(tuned / "folds" / f"{n:02d}" / "model" / "scaler.json").read_text() for n in range(1, 5)]
    assert len(set(scalers)) == 1, "the weights keep the scaler that they were trained with"
    assert (
        Forecaster.load(tuned / "model").days["train"][0] == Forecaster.load(tuned / "folds/01/model").days["train"][0]
    )


@pytest.mark.slow
@pytest.mark.parametrize(("period", "opened"), [("valid", 0), ("test", 1)])
def test_the_test_days_are_opened_before_the_first_fold_that_may_learn_from_some_of_them(
    folder, tmp_path, monkeypatch, period, opened
):
    real = walking.train_fold

    def stopped(config, fold, *arguments):
        if fold.period == period:
            raise Interrupted("stopped here")
        real(config, fold, *arguments)

    monkeypatch.setattr(walking, "train_fold", stopped)
    with pytest.raises(Interrupted, match="stopped here"):
        run(folder, tmp_path, "walk_forward=35")
    with sqlite3.connect(tmp_path / "ledger.sqlite") as ledger:
        assert ledger.execute("select count(*) from openings").fetchone() == (opened,)


@pytest.mark.slow
def test_a_run_whose_folds_leak_is_not_begun(folder, tmp_path, monkeypatch):
    monkeypatch.setattr(folds_module, "fold_config", trained_on_its_own_days)
    with pytest.raises(LeakError, match="the leak proof failed, nothing was trained: the weights of fold"):
        run(folder, tmp_path, "walk_forward=35")
    assert not list(tmp_path.glob("base/*"))


@pytest.mark.slow
def test_a_walk_that_is_killed_on_the_way_and_resumed_comes_to_the_same_bytes(folder, tmp_path, walked):
    """Two workers, killed with SIGKILL while a fold trains and once it has its model; the undisturbed walk had one."""
    words = [*QUICK, f"stocks.path={folder}", *placed(tmp_path / "out"), "walk_forward=35", "walk_forward.workers=2"]
    process = start_train(tmp_path, *words)
    place = wait_for(lambda: next(tmp_path.glob("out/base/*/[!.]*/run.json"), None), process, PATIENT).parent
    wait_for(lambda: list(place.glob("folds/*/checkpoints/step_*")), process, PATIENT, 0.005)
    for began in ("folds/03/checkpoints", ""):
        process.kill()
        process.communicate()
        process = start_train(tmp_path, f"resume={place}")
        if began:
            wait_for((place / began).exists, process, PATIENT, 0.005)
    code, out, err = ended(process)
    assert code == 0, err
    assert out.splitlines()[-1] == f"run: {place}"
    undisturbed = Path(walked["folder"])
    names = [f"folds/{n:02d}/{name}" for n in range(1, 5) for name in ("fold.json", "forecast.safetensors")]
    for name in (*names, "equity.parquet", "trades.parquet", "model/model.safetensors"):
        assert (place / name).read_bytes() == (undisturbed / name).read_bytes(), name
    ours, theirs = (
        (run / "result.json").read_text().replace(str(run.parents[2]), "OUTPUTS") for run in (place, undisturbed)
    )  # a warning names the ledger, which lies elsewhere
    assert ours == theirs


@pytest.mark.slow
def test_a_worker_that_fails_ends_the_walk_in_its_line_and_one_that_is_killed_can_be_resumed():
    with pytest.raises(ConfigError, match="task 1 is refused"):
        side_by_side(failing, [(0,), (1,)], 2)
    with pytest.raises(Interrupted, match="a worker was killed by signal 9"):
        side_by_side(killing, [(0,)], 1)


def failing(place):
    if place:
        raise ConfigError(f"task {place} is refused")


def killing(place):
    os.kill(os.getpid(), signal.SIGKILL)
