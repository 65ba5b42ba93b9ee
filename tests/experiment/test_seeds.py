"""A run that trains several seeds, and whose model is their mean: training.seeds."""

import json
import math
import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

from hfinference import average_predictions, load_model
from hftraining.core.errors import ConfigError, UserError
from hftraining.evidence.bootstrap import sharpe_difference
from hftraining.experiment.base_run import BaseRun
from hftraining.experiment.compose import command_line
from hftraining.experiment.config import load_config
from hftraining.experiment.finetune import run as run_any
from hftraining.experiment.proof import prove_run
from hftraining.experiment.replay import ReplayError, replay
from hftraining.market.prices import load_bars
from hftraining.profit_tracker import ProfitTracker
from hftraining.runs.ledger import Ledger
from hftraining.runs.record import CLOCKS, read_metrics
from hftraining.trading.metrics import daily_returns
from tests.commands import TRAIN, start, train_here, wait_for
from tests.compose import compose_config
from tests.runs_of import QUICK, hashes, placed, run

SEEDS = (4, 5, 6)
THREE = ("training.seeds=3", "seed=4")


@pytest.fixture(scope="module")
def whole(folder, tmp_path_factory) -> Path:
    """A quick run of three seeds, from 4 on, to read and not to write into."""
    return Path(run(folder, tmp_path_factory.mktemp("seeds"), *THREE)["folder"])


@pytest.fixture(scope="module")
def bars(whole):
    return load_bars(load_config(whole / "config.yaml").stocks)


def result_of(folder: Path) -> dict:
    return json.loads((folder / "result.json").read_text())


def member(whole: Path, seed: int) -> Path:
    return whole / "members" / f"seed{seed}"


def scored(folder: Path) -> dict:
    """result.json without its warnings, which name the ledger."""
    return {name: value for name, value in result_of(folder).items() if name != "warnings"}


def content(folder: Path) -> dict:
    """What a run of seeds came to: models, results, accounts, and logged steps without their clocks."""
    files = ("*.safetensors", "scaler.json", "equity.parquet", "trades.parquet")
    found = {name: text for name, text in hashes(folder).items() if any(Path(name).match(kind) for kind in files)}
    found |= {str(path.relative_to(folder)): scored(path.parent) for path in folder.rglob("result.json")}
    for path in (folder, *(folder / "members").iterdir()):
        rows = [{tag: repr(v) for tag, v in row.items() if tag not in CLOCKS} for row in read_metrics(path)]
        found[f"steps of {path.name if path != folder else 'the run'}"] = rows
    return found


@pytest.mark.slow
def test_its_model_is_the_mean_of_models_as_a_run_of_each_seed_trains_them(whole, bars, folder, tmp_path):
    alone = Path(run(folder, tmp_path, "seed=5")["folder"])
    assert hashes(member(whole, 5) / "model") == hashes(alone / "model")
    ours, theirs = result_of(member(whole, 5)), result_of(alone)
    assert ours["valid"]["profit"] == theirs["valid"]["profit"] and "test" not in ours and "test" in theirs
    assert ours["signature"] == theirs["signature"]
    models = [load_model(member(whole, seed)) for seed in SEEDS]
    mean, model = average_predictions(models, bars), load_model(whole)
    np.testing.assert_array_equal(average_predictions([model], bars).quantiles_TSHQ, mean.quantiles_TSHQ)
    by_hand = sum(average_predictions([one], bars).quantiles_TSHQ for one in models) / 3
    np.testing.assert_allclose(mean.quantiles_TSHQ, by_hand, rtol=1e-12)
    assert model.kind == "ensemble" and model.days == models[0].days


@pytest.mark.slow
def test_its_steps_are_the_means_of_its_members_and_its_clocks_their_sums(whole):
    rows = [read_metrics(member(whole, seed)) for seed in SEEDS]
    ours = read_metrics(whole)
    assert [row["step"] for row in ours] == [row["step"] for row in rows[0]]
    for number, row in enumerate(ours):
        for tag in row:
            theirs = [one[number][tag] for one in rows]
            expected = sum(theirs) if tag in CLOCKS else sum(theirs) / 3
            assert row[tag] == pytest.approx(expected, abs=2e-3 if tag in CLOCKS else 1e-12, nan_ok=True), tag
    result = result_of(whole)
    assert result["steps"] == sum(result_of(member(whole, seed))["steps"] for seed in SEEDS)
    assert result["parameters"] == sum(result_of(member(whole, seed))["parameters"] for seed in SEEDS)


@pytest.mark.slow
def test_each_member_stands_beside_the_ensemble_with_what_it_adds(whole, bars):
    config, found = load_config(whole / "config.yaml"), result_of(whole)
    tracker = ProfitTracker(config.profit_tracker, config.portfolio)
    first, last = (np.datetime64(found["valid"][end][:10]) for end in ("first", "last"))
    rows = slice(*np.searchsorted(bars.sessions_T, [first, last + 1]))
    models = [load_model(member(whole, seed)) for seed in SEEDS]

    def returns_of(some) -> np.ndarray:
        forecast = average_predictions(some, bars).rows(rows)
        return daily_returns(tracker.evaluate(bars.rows(rows), forecast).simulation.equity_T)

    ours_T = returns_of(models)
    draws = config.evidence.bootstrap_draws
    for number, said in enumerate(found["ensemble"]["members"]):
        assert said["name"] == f"seed{SEEDS[number]}" and said["weight"] == pytest.approx(1 / 3)
        row, own = said["periods"]["valid"], result_of(member(whole, SEEDS[number]))
        assert row["profit"] == own["valid"]["profit"] and row["loss"] == own["eval"]["loss"]
        assert row["ic"] == own["valid"]["scores"]["ic"]
        assert row["alpha"]["value"] == own["valid"]["benchmark"]["alpha"]["value"]
        if number == 0:  # a member draws days by its own seed
            assert row["interval"] == own["valid"]["interval"]
            assert row["alpha"] == own["valid"]["benchmark"]["alpha"]
        without_T = returns_of(models[:number] + models[number + 1 :])
        by_hand = math.sqrt(252) * (ours_T.mean() / ours_T.std(ddof=1) - without_T.mean() / without_T.std(ddof=1))
        assert row["marginal"]["value"] == pytest.approx(by_hand, rel=1e-6)
        ends = sharpe_difference(ours_T, without_T, draws, config.seed)
        assert row["marginal"]["low"] == pytest.approx(ends.low, rel=1e-4)
        assert "test" not in said["periods"]
    forecasts = np.array(found["ensemble"]["correlations"]["valid"]["forecasts"])
    medians = np.stack([average_predictions([one], bars).rows(rows).quantiles_TSHQ[:, :, 1, 2] for one in models])
    for a in range(3):
        for b in range(3):
            labelled = slice(None, -7)  # the last days have no outcome within the bars of the period
            known = [np.corrcoef(medians[a, labelled].ravel(), medians[b, labelled].ravel())[0, 1]]
            assert forecasts[a, b] == pytest.approx(known[0], abs=0.05)
    page = (whole / "report.html").read_text()
    assert "<h2>Members</h2>" in page and "s of processor time, all together" in page.replace("\u2009", " ")


@pytest.mark.slow
def test_it_is_one_trial_and_one_opening(folder, tmp_path):
    first = run(folder, tmp_path, *THREE)
    assert first["n_trials"] == 1 and first["test_openings"] == 1
    assert run(folder, tmp_path, "seed=9")["n_trials"] == 2
    entries = list(Ledger(tmp_path / "ledger.sqlite").entries())
    assert len(entries) == 5 and sum(entry.part_of is not None for entry in entries) == 3


@pytest.mark.slow
def test_it_is_replayed_to_the_bit_and_proved(whole, tmp_path):
    again = replay(whole, tmp_path)
    assert again.bits.equal
    models = [load_file(member(whole, seed) / "model" / "model.safetensors") for seed in SEEDS]
    assert again.bits.tensors == sum(map(len, models)) and hashes(again.folder / "model") == hashes(whole / "model")
    assert prove_run(whole, days=2).ok
    with pytest.raises(ReplayError, match="is a member of an ensemble: replay the whole of it"):
        replay(member(whole, 5), tmp_path)


@pytest.mark.slow
def test_a_member_can_be_tuned_and_the_whole_cannot(whole):
    assert BaseRun.open(member(whole, 5)).forecaster.kind == "transformer"
    with pytest.raises(ConfigError, match=r"is an ensemble: start from one of its members, such as init_from="):
        BaseRun.open(whole)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("model=ridge", "training.seeds=3"), "training.seeds=3: model.kind=ridge reads no seed"),
        (("training.seeds=0",), "training.seeds=0 must be at least 1"),
        (("training.seeds=101",), "training.seeds=101 must be at most 100"),
        ((f"seed={2**53}", "training.seeds=2"), "the last seed is above"),
        (("init_from=x", "training.methods=[full]", "training.seeds=2"), "where init_from tunes one"),
    ],
)
@pytest.mark.slow
def test_seeds_that_make_no_sense_are_refused(words, message):
    with pytest.raises(ConfigError, match=message):
        compose_config(*words)


@pytest.mark.slow
def test_a_member_is_not_resumed_by_itself(whole):
    config = load_config(member(whole, 5) / "config.yaml")
    config.resume = str(member(whole, 5))
    with pytest.raises(ConfigError, match="is a member of an ensemble: resume the whole of it"):
        run_any(config)


@pytest.mark.slow
def test_a_folder_with_another_number_of_members_is_not_proved(whole, tmp_path):
    shutil.copytree(whole, tmp_path / "copy")
    path = tmp_path / "copy" / "config.yaml"
    path.write_text(path.read_text().replace("seeds: 3", "seeds: 2"))
    with pytest.raises(UserError, match=r"the model has 3 members, where config.yaml has training.seeds=2"):
        prove_run(tmp_path / "copy", days=1)


BEGUN = (
    lambda run: (run / "members" / "seed5" / "checkpoints").is_dir(),
    lambda run: (run / "members" / "seed5" / "result.json").is_file(),
    lambda run: (run / "members" / "seed6" / "metrics.jsonl").is_file(),
)


def first_of(outputs: Path, begun: Callable[[Path], bool]) -> Path | None:
    return next((place for place in (outputs / "base").glob("*/*") if begun(place)), None)


@pytest.mark.parametrize("kills", [pytest.param(1, marks=pytest.mark.slow), pytest.param(3, marks=pytest.mark.long)])
def test_killed_it_resumes_to_the_same_bytes(kills, whole, folder, tmp_path):
    outputs = tmp_path / "outputs"
    words = (*QUICK, f"stocks.path={folder}", *placed(outputs), *THREE)
    for begun in BEGUN[:kills]:
        process = start(TRAIN, *words, cwd=tmp_path)
        place = wait_for(partial(first_of, outputs, begun), process, 300)
        process.kill()
        process.communicate()
        words = (f"resume={place}",)
    config = load_config(place / "config.yaml")
    config.resume = str(place)
    run_any(config)
    assert content(place) == content(whole)


def test_on_the_command_line_ensemble_says_how_many_seeds():
    assert compose_config(*command_line(["ensemble=5"])) == compose_config("training.seeds=5")
    assert command_line(["-m", "ensemble=1,3", "model=tiny"]) == ["-m", "training.seeds=1,3", "model=tiny"]


@pytest.mark.slow
def test_a_search_refuses_several_seeds_a_run(tmp_path):
    for words in (("training.seeds=2",), ("ensemble=2",)):
        code, _, error = train_here(tmp_path, "-m", "search=profit", "model=tiny", "stocks=sample5", *words)
        assert code == 2 and error.count("\n") == 1 and "search.seeds trains each trial with several seeds" in error
    assert not (tmp_path / "outputs").exists()
