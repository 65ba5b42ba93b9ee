"""Every kind of model is a whole run: the same folder, evidence, leak proof, replay, comparison and ensembles."""

import json
from pathlib import Path

import numpy as np
import pytest

from hfinference import average_predictions, load_model
from hftraining.core.errors import ConfigError, Interrupted, LeakError
from hftraining.experiment.config import load_config
from hftraining.experiment.inherit import notes_of, signature_of
from hftraining.experiment.proof import prove_run
from hftraining.experiment.replay import replay
from hftraining.market.config import StocksConfig
from hftraining.market.prices import load_bars
from hftraining.model.learner import MeanModel
from hftraining.reports.compare import compare
from hftraining.reports.console import Console
from hftraining.runs.ledger import Ledger
from hftraining.runs.result import BESIDE
from tests import looks_ahead
from tests.compose import compose_config
from tests.runs_of import FAST, QUICK, any_kind, placed, run, trained, tuned_config

KINDS = ("ridge", "lightgbm")
# What shapes the transformer has no meaning for them.
SHAPELESS = ("model.hidden_size", "model.context", "model.dropout")


def run_of_kind(kind, folder, output, *overrides):
    if kind == "lightgbm":
        pytest.importorskip("lightgbm", reason="LightGBM is not installed: pip install -e '.[baselines]'")
    quick = [text for text in QUICK if not text.startswith((*SHAPELESS, "model="))]
    config = compose_config(*quick, *FAST, f"model={kind}", f"stocks.path={folder}", *placed(output), *overrides)
    return trained(config)


@pytest.fixture(scope="module", params=KINDS)
def made(request, folder, tmp_path_factory):
    """The result of a run of that kind, and its kind."""
    return run_of_kind(request.param, folder, tmp_path_factory.mktemp(request.param)), request.param


@pytest.mark.slow
def test_the_folder_of_a_run_of_any_kind_holds_what_that_of_a_transformer_holds(made, reference):
    result, kind = made
    ours, theirs = (
        {path.name.split(".tfevents")[0] for path in Path(r["folder"]).iterdir()} for r in (result, reference)
    )
    assert ours == theirs
    assert result.keys() == reference.keys() and result["valid"].keys() == reference["valid"].keys()
    assert (result["steps"], result["best_step"]) == (1, 1)
    (line,) = (Path(result["folder"]) / "metrics.jsonl").read_text().splitlines()
    tags = json.loads(line).keys()
    assert {"train/loss", "eval/loss", "profit/sharpe_ratio", "profit/trade_count"} <= tags
    assert kind in (Path(result["folder"]) / "config.yaml").read_text()
    (entry,) = Ledger(Path(result["folder"]).parents[2] / "ledger.sqlite").entries()
    assert entry.status == "done" and len(entry.valid.returns) == result["valid"]["days"] - 1


@pytest.mark.slow
def test_a_kind_earns_as_the_model_what_it_earns_as_the_baseline_of_another_model(made, folder, tmp_path):
    result, kind = made
    beside = run(folder, tmp_path, f"evidence.baselines=[{kind}]")
    for period in ("valid", "test"):
        baseline = {k: v for k, v in beside[period]["baselines"][kind].items() if k not in BESIDE}
        assert baseline == result[period]["profit"]


@pytest.mark.slow
def test_a_run_of_any_kind_is_replayed_to_the_bit_and_proved_to_leak_nothing(made, tmp_path):
    result, _ = made
    again = replay(Path(result["folder"]), tmp_path, say=lambda line: None)
    assert again.bits.equal and again.bits.steps == 1
    assert prove_run(Path(result["folder"]), days=4).ok


def test_a_leak_stops_a_run_of_any_kind_before_anything_is_written(made, folder, tmp_path, monkeypatch):
    looks_ahead.plant(monkeypatch)
    with pytest.raises(LeakError, match="nothing was trained"):
        run_of_kind(made[1], folder, tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_kinds_are_averaged_together_and_compared_with_each_other(made, reference, folder):
    result, _ = made
    models = [load_model(r["folder"]) for r in (result, reference)]
    bars = load_bars(StocksConfig(source="files", path=str(folder)))
    mean, own = average_predictions(models, bars), [model.predict(bars) for model in models]
    known = np.isfinite(mean.quantiles_TSHQ)
    assert known.any()
    by_hand = (own[0].quantiles_TSHQ + own[1].quantiles_TSHQ) / 2.0
    assert np.allclose(mean.quantiles_TSHQ[known], by_hand[known], rtol=1e-12)
    comparison = compare([reference["folder"], result["folder"]])
    assert comparison.config[0].field == "model"


def test_a_run_of_any_kind_without_days_to_learn_from_ends_in_one_line_and_writes_nothing(made, folder, tmp_path):
    with pytest.raises(ValueError, match="training days with features and labels are too few to be halved"):
        run_of_kind(made[1], folder, tmp_path / "out", "training.history=13", "evidence.baselines=[]")
    assert not (tmp_path / "out").exists()


def test_what_only_the_transformer_has_is_refused(made, folder, tmp_path):
    _, kind = made
    with pytest.raises(
        ConfigError, match=f"portfolio.kind=head trades the position head, which model.kind={kind} lacks"
    ):
        run_of_kind(kind, folder, tmp_path / "out", "portfolio=head")
    with pytest.raises(ConfigError, match=f"model.hidden_size=32 belongs to model.kind=.* not {kind}"):
        run_of_kind(kind, folder, tmp_path / "out", "model.hidden_size=32")
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_a_base_that_is_no_transformer_cannot_be_fine_tuned(made, tmp_path):
    result, kind = made
    with pytest.raises(ConfigError, match=f"a {kind} model cannot be fine-tuned"):
        any_kind(tuned_config(Path(result["folder"]), tmp_path / "out"))
    assert not (tmp_path / "out").exists()


def test_a_run_that_is_cut_off_after_learning_resumes_to_the_same_bits(made, folder, tmp_path, monkeypatch):
    """The model is read back from its checkpoint: what it would learn now is never asked."""
    result, kind = made

    def cut_off(self, step, *shown, **more):
        raise Interrupted("as if by SIGTERM")

    monkeypatch.setattr(Console, "step", cut_off)
    with pytest.raises(Interrupted):
        run_of_kind(kind, folder, tmp_path)
    monkeypatch.undo()
    (cut,) = (tmp_path / "base").glob("*/*")
    assert not (cut / "model").exists()
    learn, whole = MeanModel.learn, len(load_bars(load_config(cut / "config.yaml").stocks).sessions_T)

    learned: list[str] = []

    def counted(self, lesson):
        learned.extend([self.config.kind] if len(lesson.known_TS) == whole else [])  # the proof learns from fewer days
        learn(self, lesson)

    monkeypatch.setattr(MeanModel, "learn", counted)
    config = load_config(cut / "config.yaml")
    config.resume = str(cut)
    again = trained(config)
    assert learned == ["ridge"], "the baseline alone learns again"
    assert again["folder"] == str(cut)
    for name in sorted(path.name for path in (cut / "model").iterdir()):
        assert (cut / "model" / name).read_bytes() == (Path(result["folder"]) / "model" / name).read_bytes()
    assert (again["eval"], again["test"]["profit"]) == (result["eval"], result["test"]["profit"])
    assert len((cut / "metrics.jsonl").read_text().splitlines()) == 1


@pytest.mark.slow
def test_a_run_names_the_fields_that_its_kind_does_not_read(made, reference):
    (said,) = [line for line in made[0]["warnings"] if "reads none of" in line]
    assert said.startswith(f"{made[1]} brings its own learning and reads none of training.batch_size, ")
    assert said.endswith(" more: they change nothing")
    assert f"  note: {said}" in (Path(made[0]["folder"]) / "train.log").read_text()
    assert not [line for line in reference["warnings"] if "reads none of" in line]


@pytest.mark.slow
def test_what_a_kind_does_not_read_makes_no_other_trial_of_it(folder):
    def signature(*overrides):
        return signature_of(compose_config("model=ridge", "stocks=folder", f"stocks.path={folder}", *overrides))[1]

    plain = signature()
    for unread in ("training.max_steps=7", "training.learning_rate=0.5", "training=production", "objective=forecast"):
        assert signature(unread) == plain
    for read in ("training.history=300", "objective.horizons=[1,5]", "seed=2", "profit_tracker.lag=2"):
        assert signature(read) != plain


def test_several_seeds_of_trees_are_another_trial_than_one_and_are_not_said_to_change_nothing(folder):
    of = ("model=lightgbm", "stocks=folder", f"stocks.path={folder}")
    one, three = compose_config(*of), compose_config(*of, "training.seeds=3")
    assert signature_of(one)[1] != signature_of(three)[1] and notes_of(three) == []


def test_a_warm_up_that_outlasts_the_training_and_a_rank_without_lora_are_said():
    assert notes_of(compose_config("training.max_steps=50")) == []
    (said,) = notes_of(compose_config("training.max_steps=49"))
    assert said.startswith(
        "training.warmup_steps=50 is not over in training.max_steps=49: the learning rate stays below"
    )
    assert notes_of(compose_config("training.lora_rank=8")) == [
        "training.lora_rank=8 changes nothing: no method is lora"
    ]
