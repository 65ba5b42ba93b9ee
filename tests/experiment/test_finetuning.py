"""Fine-tuning, from a base run to the recommendation: experiment/finetune.py, inherit.py and base_run.py."""

import dataclasses
import json
import re
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from hftraining.core.errors import ConfigError, Interrupted, UserError
from hftraining.experiment.base_run import BaseRun
from hftraining.experiment.compose import composed
from hftraining.experiment.config import load_config, typed_config
from hftraining.experiment.ground import steps_of_epochs
from hftraining.experiment.inherit import candidate_config, inherit, signature_of
from hftraining.experiment.prepare import prepare
from hftraining.experiment.replay import replay
from hftraining.market.config import CsvConfig
from hftraining.market.features.names import BASIC
from hftraining.model.base import Forecaster
from hftraining.model.folder import FORMAT
from hftraining.reports.console import Console
from hftraining.runs.ledger import Ledger
from hftraining.training.trainer import Trainer
from tests.runs_of import FAST, QUICK, any_kind, hashes, moved, own_copy, run, tune, tuned_config, weights
from tests.slowly import mostly_slow


@pytest.fixture(scope="module")
def tuned(base, tmp_path_factory):
    before = hashes(base)
    output = tmp_path_factory.mktemp("tuned")
    result = tune(base, output)
    assert hashes(base) == before, "fine-tuning has changed a file of the base run"
    return Path(result["folder"])


def test_a_fine_tune_has_a_row_for_the_base_each_method_ridge_and_nothing_changes(tuned):
    decision = json.loads((tuned / "result.json").read_text())["decision"]
    assert list(decision["candidates"]) == ["base", "full", "head", "lora", "scratch", "ridge", "nothing_changes"]
    for name, row in decision["candidates"].items():
        assert np.isfinite(row["loss"])
        if name != "nothing_changes":
            assert len(row["interval"]) == 2 and row["profit"]["max_drawdown"] <= 0 and row["verdict"]
        if name in ("full", "head", "lora", "scratch"):
            assert row["forgetting"]["low"] <= row["forgetting"]["value"] <= row["forgetting"]["high"]
            assert row["difference"] is not None and row["steps"] == 6
    assert decision["other_symbols"] == 2


def test_the_folder_is_one_of_a_run_and_lies_below_its_symbol(tuned):
    assert tuned.parts[-3:-1] == ("finetuned", "S0")
    names = {path.name for path in tuned.iterdir()}
    assert names >= {"config.yaml", "run.json", "result.json", "equity.parquet", "model", "report.html", "candidates"}
    assert {path.name for path in (tuned / "candidates").iterdir()} == {"full", "head", "lora", "scratch"}
    facts = json.loads((tuned / "run.json").read_text())
    assert facts["kind"] == "finetuned" and set(facts["base"]) == {"folder", "signature", "weights"}
    for path in (tuned, *(tuned / "candidates").iterdir()):
        assert any(file.name.startswith("events.out.tfevents") for file in path.iterdir()), "one TensorBoard over all"


def test_each_method_moves_what_it_may_and_saves_a_plain_model(base, tuned):
    everything = set(weights(base))
    head = {name for name in everything if name.split(".")[0] in ("quantiles", "position")}
    matrices = {name for name in everything if name.endswith("weight") and weights(base)[name].ndim == 2}
    assert moved(base, tuned / "candidates" / "full") == everything
    assert moved(base, tuned / "candidates" / "head") == head
    assert moved(base, tuned / "candidates" / "lora") == matrices
    for name in matrices:
        change = weights(tuned / "candidates" / "lora")[name] - weights(base)[name]
        assert np.linalg.matrix_rank(change, tol=1e-5) <= 4


@pytest.mark.slow
def test_the_row_of_the_base_has_the_numbers_of_its_own_run(base, folder, tuned):
    """Over all its stocks the base has the loss of its own run: the table starts from the same model."""
    config = tuned_config(base, tuned.parent, symbol="S0,S1,S2")
    ground = prepare(config, base=BaseRun.open(base))
    valid = ground.periods["valid"]
    loss = valid.forecast_loss(valid.forecast(ground.base.forecaster))
    assert loss == json.loads((base / "result.json").read_text())["loss"]["valid"]["model"]
    daily_T = valid.daily_loss(valid.forecast(ground.base.forecaster))
    known_T = np.isfinite(valid.scored_labels_TSH).sum(axis=(1, 2))
    assert np.average(daily_T[known_T > 0], weights=known_T[known_T > 0]) == pytest.approx(loss, rel=1e-6)


@pytest.mark.slow
def test_the_market_of_a_specialist_is_that_of_its_base(base, tuned):
    config = tuned_config(base, tuned.parent)
    alone = prepare(config, base=BaseRun.open(base))
    whole = prepare(tuned_config(base, tuned.parent, symbol="S0,S1,S2"), base=BaseRun.open(base))
    assert np.array_equal(alone.features.values_TSF[:, 0], whole.features.values_TSF[:, 0], equal_nan=True)
    assert Forecaster.load(tuned / "model").symbols == ("S0", "S1", "S2")


def test_the_saved_model_is_the_recommended_one(base, tuned):
    decision = json.loads((tuned / "result.json").read_text())["decision"]
    source = base if decision["choice"] == "base" else tuned / "candidates" / decision["choice"]
    assert moved(source, tuned) == set()


@pytest.mark.slow
def test_every_candidate_is_a_trial_and_only_the_choice_opens_the_test_days(base, tmp_path):
    output = tmp_path / "out"
    result = tune(base, output)
    ledger = Ledger(output / "ledger.sqlite")
    entries = ledger.entries()
    assert [entry.name for entry in entries] == ["S0", "S0 full", "S0 head", "S0 lora", "S0 scratch"]
    assert all(entry.status == "done" and len(entry.valid.returns) > 20 for entry in entries)
    assert len({entry.signature for entry in entries}) == 5
    assert result["n_trials"] == result["decision"]["n_trials"] == 5
    assert ledger.openings(entries[0].id).count == result["test_openings"] == 1
    again = tune(base, output, "training.methods=[lora]")
    assert again["n_trials"] == 6, "the same candidate again is the same trial; another set of them is a new one"
    assert again["test_openings"] == 2


@pytest.mark.slow
def test_the_same_fine_tune_twice_gives_the_same_bits(base, tuned, tmp_path):
    again = Path(tune(base, tmp_path)["folder"])
    for name in ("full", "head", "lora", "scratch"):
        assert moved(tuned / "candidates" / name, again / "candidates" / name) == set()
    tables = [json.loads((path / "result.json").read_text())["decision"] for path in (tuned, again)]
    assert tables[0] == tables[1]


def test_the_signature_depends_on_the_content_of_the_base_and_not_on_its_path(base, tmp_path):
    config = tuned_config(base, tmp_path)
    copied = tmp_path / "elsewhere" / "x" / "y"
    shutil.copytree(base, copied)
    moved_config = dataclasses.replace(config, init_from=str(copied))
    assert signature_of(config, BaseRun.open(base))[1] == signature_of(moved_config, BaseRun.open(copied))[1]
    forecaster = Forecaster.load(copied / "model")
    forecaster.model.position.bias.data += 1.0
    forecaster.save(copied / "model")
    assert signature_of(config, BaseRun.open(base))[1] != signature_of(moved_config, BaseRun.open(copied))[1]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("setting", "candidate"),
    [
        ("training.shrinkage=50.0", "full"),
        ("training.shrinkage=50.0", "lora"),
        ("training.lora_rank=1", "lora"),
        ("training.history=60", "full"),
        ("training.learning_rate=0.01", "head"),
        ("seed=5", "lora"),
    ],
)
def test_each_setting_of_a_fine_tune_changes_its_weights(base, tuned, tmp_path, setting, candidate):
    other = Path(tune(base, tmp_path, setting, f"training.methods=[{candidate}]")["folder"])
    assert [path.name for path in (other / "candidates").iterdir()] == [candidate]
    assert moved(tuned / "candidates" / candidate, other / "candidates" / candidate)


@pytest.mark.slow
def test_more_shrinkage_keeps_the_weights_nearer_to_the_base_and_full_shrinkage_keeps_them_there(base, tuned, tmp_path):
    def distance(run):
        ours, theirs = weights(run), weights(base)
        return sum(float(np.square(ours[name] - theirs[name]).sum()) for name in ours)

    more = Path(tune(base, tmp_path, "training.shrinkage=50.0", "training.methods=[full]")["folder"])
    whole = Path(tune(base, tmp_path, "training.shrinkage=1e9", "training.methods=[full,lora]")["folder"])
    assert distance(more / "candidates/full") < distance(tuned / "candidates/full")
    assert distance(whole / "candidates/full") == 0.0
    assert distance(whole / "candidates/lora") == 0.0


@pytest.mark.slow
def test_from_scratch_learns_at_the_rate_of_the_base_and_on_its_own_scaler(base, tuned):
    config = candidate_config(tuned_config(base, tuned.parent), BaseRun.open(base), "scratch")
    assert (config.training.learning_rate, config.training.weight_decay) == (3e-4, 0.1)
    assert config.training.max_steps == 6
    scratch, theirs = Forecaster.load(tuned / "candidates/scratch/model"), Forecaster.load(base / "model")
    assert scratch.scaler != theirs.scaler
    assert Forecaster.load(tuned / "candidates/full/model").scaler == theirs.scaler


@pytest.mark.slow
def test_an_epoch_is_as_many_steps_as_draw_the_training_bars_once(base, tmp_path):
    config = tuned_config(base, tmp_path)
    model = BaseRun.open(base)
    ground = prepare(config, base=model)
    bars = sum(np.isfinite(ground.features.values_TSF[t]).all() for t in range(*ground.splits.train.indices(10**6)))
    a_step = config.training.batch_size * config.training.window
    assert steps_of_epochs(config, model, 1) == int(np.ceil(bars / a_step))
    assert steps_of_epochs(config, model, 7) == int(np.ceil(7 * bars / a_step))


@pytest.mark.slow
def test_a_stock_that_the_base_does_not_know_joins_its_universe(folder, base, tmp_path):
    bars = tmp_path / "bars"
    shutil.copytree(folder, bars)
    shutil.copy(bars / "S1.csv", bars / "NEW.csv")
    result = tune(base, tmp_path, f"stocks.path={bars}", "training.methods=[head]", symbol="NEW")
    model = Forecaster.load(Path(result["folder"]) / "model")
    assert model.symbols == ("S0", "S1", "S2", "NEW")
    assert result["decision"]["other_symbols"] == 3


@pytest.mark.slow
def test_a_fine_tune_interrupted_in_a_candidate_resumes_to_the_same_bits(base, tuned, tmp_path, monkeypatch):
    config = tuned_config(base, tmp_path)
    train = Trainer.train

    def cut_off(self, log, on_step):
        def stop(step, values):
            on_step(step, values)
            if self.optimizers[0].param_groups[0]["params"][0].shape[0] == 4 and step == 5:  # lora's first matrix
                raise Interrupted("as if by SIGTERM")

        return train(self, log, stop)

    monkeypatch.setattr(Trainer, "train", cut_off)
    with pytest.raises(Interrupted):
        any_kind(config, ["train.py"])
    monkeypatch.undo()
    (run,) = (tmp_path / "finetuned" / "S0").iterdir()
    assert not (run / "result.json").exists()
    assert {path.name for path in (run / "candidates").iterdir()} == {"full", "head", "lora"}
    before = hashes(run / "candidates" / "full")
    config.resume = str(run)
    result = any_kind(config, ["train.py"])
    assert result["folder"] == str(run)
    assert hashes(run / "candidates" / "full") == before, "a finished candidate is left as it is"
    for name in ("full", "head", "lora", "scratch"):
        assert moved(tuned / "candidates" / name, run / "candidates" / name) == set()
    assert result["decision"]["candidates"] == json.loads((tuned / "result.json").read_text())["decision"]["candidates"]
    entries = Ledger(tmp_path / "ledger.sqlite").entries()
    assert len(entries) == 5 and {entry.status for entry in entries} == {"done"}
    with pytest.raises(ConfigError, match="is finished"):
        any_kind(config, ["train.py"])


# --- what is inherited, and what is refused ---------------------------------------------------------------------------


def test_model_task_days_and_costs_are_inherited_and_training_is_that_of_finetune_yaml(base, tmp_path):
    typed = [f"init_from={base}", "stocks.symbols=[S1]", f"output_dir={tmp_path}", "training.batch_size=2"]
    config = inherit(composed(typed), typed)
    theirs = BaseRun.open(base)
    assert dataclasses.asdict(config.model) == theirs.config["model"]
    assert config.objective.horizons == [1, 5]
    assert (config.stocks.valid_start, config.stocks.test_start) == tuple(
        theirs.forecaster.days[name][0] for name in ("valid", "test")
    )
    assert config.profit_tracker.commission == 0.0001
    assert config.training.methods == ["full", "head", "lora", "scratch"]
    assert (config.training.max_steps, config.training.batch_size) == (200, 2)
    assert (config.training.window, config.name) == (24, "S1")


@pytest.mark.slow
def test_a_field_of_a_group_within_a_group_can_be_set(base, tmp_path):
    config = tuned_config(base, tmp_path, "stocks.csv.date_format=%Y-%m-%d", "stocks.csv.columns.close=close")
    assert (config.stocks.csv.date_format, config.stocks.csv.columns.close) == ("%Y-%m-%d", "close")
    typed = [f"init_from={base}", "stocks=folder", f"stocks.path={tmp_path}"]
    assert inherit(composed(typed), typed).stocks.path == str(tmp_path)


@pytest.mark.slow
def test_a_symbol_in_another_case_is_that_of_the_base(base, tmp_path):
    config = tuned_config(base, tmp_path, symbol="s1,S0")
    assert config.stocks.symbols == ["S1", "S0"] and config.name == "S1-S0"
    assert prepare(config, base=BaseRun.open(base)).bars.symbols_S == ("S1", "S0")


@pytest.mark.slow
def test_many_symbols_make_a_short_name(base, tmp_path):
    assert tuned_config(base, tmp_path, symbol="S0,S1,S2").name == "S0-S1-S2"
    assert tuned_config(base, tmp_path, "name=mine").name == "mine"


@pytest.mark.parametrize(
    ("settings", "message"),
    mostly_slow(
        [
            (["model.hidden_size=32"], "model.hidden_size=32 where the base has 16"),
            (["model=small"], "model.hidden_size=64 where the base has 16; model.num_layers=3 where the base has 2"),
            (["objective.horizons=[1,20]"], r"objective.horizons=\[1, 20\] where the base has \[1, 5\]"),
            (["objective.quantiles=[0.2,0.5,0.8]"], r"objective.quantiles=\[0.2, 0.5, 0.8\] where the base has \[0.1,"),
            (["objective.label=close"], "objective.label=close where the base has open"),
            (["profit_tracker.lag=2"], "profit_tracker.lag=2 where the base has 1"),
            (
                ["stocks.valid_start=2015-09-01"],
                "stocks.valid_start: these days would begin at 2015-09-01, but the base",
            ),
            (["stocks.test_start=2016-08-01"], "stocks.test_start: these days would begin at 2016-08-01, but the base"),
            (["training.methods=[]"], "training.methods is empty"),
            (["training=quick", "training.batch_size=4"], "training.methods is empty"),
        ],
        quick=(1, 6),
    ),
)
def test_settings_that_the_base_does_not_fit_are_refused_with_the_difference(base, tmp_path, settings, message):
    with pytest.raises(ConfigError, match=message) as caught:
        tuned_config(base, tmp_path / "out", *settings)
    assert "\n" not in str(caught.value) and not (tmp_path / "out").exists()


@pytest.mark.slow
def test_a_base_whose_dates_are_no_sessions_is_tuned_from_the_same_days_on(folder, tmp_path):
    # 2016-05-28 and 2016-09-10 are Saturdays.
    dates = ("stocks.valid_start=2016-05-28", "stocks.test_start=2016-09-10")
    base = Path(run(folder, tmp_path / "base", *FAST, *dates)["folder"])
    first = {name: days[0] for name, days in BaseRun.open(base).forecaster.days.items()}
    assert (first["valid"], first["test"]) == ("2016-05-30", "2016-09-12")
    for typed in ((), dates):
        ground = prepare(tuned_config(base, tmp_path, "training.methods=[head]", *typed))
        assert (ground.days["valid"][0], ground.days["test"][0]) == (first["valid"], first["test"])
    with pytest.raises(ConfigError, match="these days would begin at 2016-05-27, but the base model"):
        tuned_config(base, tmp_path, "stocks.valid_start=2016-05-27")


def test_validation_days_that_the_base_has_seen_are_refused_even_if_only_the_bars_show_it(base, tmp_path):
    config = tuned_config(base, tmp_path)
    config.stocks.valid_start = config.stocks.test_start = None
    config.stocks.end = "2016-03-01"  # 70 % of fewer sessions lie among the base's training days
    with pytest.raises(ConfigError, match=r"stocks.valid_start: these days would begin at"):
        any_kind(config)


def other_features(copy):
    forecaster = Forecaster.load(copy / "model")
    names = ("return_2d", *BASIC[1:])
    dataclasses.replace(forecaster, scaler=dataclasses.replace(forecaster.scaler, features=names)).save(copy / "model")


def other_format(copy, number):
    path = copy / "model" / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"format": number}))


def damaged(copy, name):
    path = copy / "model" / name
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def cut_short(copy):
    path = copy / "model" / "model.safetensors"
    path.write_bytes(path.read_bytes()[:1000])


def without(copy, name):
    (copy / name).unlink()


def fine_tuned(copy):
    path = copy / "config.yaml"
    path.write_text(path.read_text().replace("init_from: null", "init_from: outputs/base/x"))


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (other_features, "return_2d is no feature of this version or of an installed package; did you mean return_1d"),
        (lambda copy: other_format(copy, FORMAT + 1), f"model format {FORMAT + 1}, where .* newer version"),
        (lambda copy: other_format(copy, "x"), "model format x, where this version reads"),
        (lambda copy: damaged(copy, "model.safetensors"), "model.safetensors is damaged: its sha256"),
        (lambda copy: damaged(copy, "scaler.json"), "scaler.json is damaged: its sha256"),
        (cut_short, "model.safetensors is damaged: its sha256"),
        (lambda copy: without(copy, "model/scaler.json"), "scaler.json is missing"),
        (lambda copy: without(copy, "result.json"), "is not finished: python train.py resume="),
        (lambda copy: without(copy, "run.json"), "is not a run: give its folder"),
        (lambda copy: (copy / "model/config.json").write_text("{"), "config.json is damaged"),
        (fine_tuned, "is itself a fine-tune: start from its base, init_from=outputs/base/x"),
    ],
)
@pytest.mark.slow
def test_a_base_that_cannot_be_used_is_refused_in_one_line(base, tmp_path, spoil, message):
    copy = own_copy(base, tmp_path / "copy")
    spoil(copy)
    with pytest.raises(ConfigError, match=message) as caught:
        tuned_config(copy, tmp_path / "out")
    assert "\n" not in str(caught.value) and not (tmp_path / "out").exists()


def test_a_method_that_trains_no_hidden_matrix_has_adamw_where_the_others_have_muon(base, tmp_path):
    config, known = tuned_config(base, tmp_path, "training.optimizer=muon"), BaseRun.open(base)
    found = {method: candidate_config(config, known, method).training.optimizer for method in config.training.methods}
    assert found == {"full": "muon", "head": "adamw", "lora": "muon", "scratch": "muon"}


def test_a_base_that_looks_across_its_stocks_is_not_tuned_without_them(base, tmp_path):
    copy = own_copy(base, tmp_path / "copy")
    path = copy / "config.yaml"
    path.write_text(path.read_text().replace("cross_asset: false", "cross_asset: true"))
    with pytest.raises(ConfigError, match=r"it cannot be tuned without 2 of them"):
        tuned_config(copy, tmp_path / "out")


def test_what_belongs_to_a_choice_of_the_base_is_not_inherited_where_the_user_makes_another(base, tmp_path):
    copy = own_copy(base, tmp_path / "copy")
    rewrite(copy / "config.yaml", schedule="wsd", decay_share=0.5, processes=2, engine="ray", loss="ic")
    rewrite(copy / "config.yaml", batch_size=6, symbols_per_window=3)
    # Of another version of the code, whose defaults may have been others: its config is not held against its signature.
    (copy / "run.json").write_text(re.sub('"digest": "[^"]+"', '"digest": "0"', (copy / "run.json").read_text()))

    def training(*settings):
        typed = [f"init_from={copy}", f"output_dir={tmp_path}", *settings]
        return inherit(composed(typed), typed).training

    same, other = training(), training("training.schedule=cosine", "training.processes=1", "objective.loss=pinball")
    assert (same.schedule, same.decay_share, same.processes, same.engine) == ("wsd", 0.5, 2, "ray")
    assert (same.batch_size, same.symbols_per_window) == (6, 3), "a correlation over the stocks of a day needs some"
    assert (other.schedule, other.decay_share, other.processes, other.engine) == ("cosine", 0.2, 1, "local")
    assert (other.batch_size, other.symbols_per_window) == (8, 1)
    assert training("training.batch_size=12").batch_size == 12
    with pytest.raises(ConfigError, match=r"training.decay_share=0.4 belongs to training.schedule=wsd, not constant"):
        training("training.schedule=constant", "training.decay_share=0.4")


def test_files_and_a_snapshot_of_the_base_are_not_inherited_where_the_bars_come_from_elsewhere(base, tmp_path):
    copy = own_copy(base, tmp_path / "copy")
    rewrite(copy / "config.yaml", separator=";", date_format='"%d.%m.%Y"', snapshots="kept", close="last")
    (copy / "run.json").write_text(re.sub('"digest": "[^"]+"', '"digest": "0"', (copy / "run.json").read_text()))

    def stocks(*settings):
        typed = [f"init_from={copy}", f"output_dir={tmp_path}", *settings]
        return inherit(composed(typed), typed).stocks

    same, other = stocks(), stocks("stocks.source=yahoo")
    assert (same.path, same.csv.separator, same.csv.date_format) == (str(base_bars(base)), ";", "%d.%m.%Y")
    assert (other.path, other.csv, other.snapshots, same.snapshots) == (None, CsvConfig(), "kept", "kept")
    rewrite(copy / "config.yaml", source="yahoo", path="null", separator='","', date_format="null", close="null")
    rewrite(copy / "config.yaml", snapshot="some-id", symbols="[S0, S1, S2]")
    assert stocks().snapshot == "some-id"
    assert stocks("stocks.refresh=true").snapshot is None
    with pytest.raises(ConfigError, match=r"stocks\.refresh=true contradicts it"):
        stocks("stocks.refresh=true", "stocks.snapshot=some-id")


def base_bars(base):
    return load_config(base / "config.yaml").stocks.path


def rewrite(file, **values):
    """Set fields of a config.yaml, wherever they stand in it."""
    text = file.read_text()
    for name, value in values.items():
        text, count = re.subn(f"^( +{name}:).*$", rf"\1 {value}", text, flags=re.MULTILINE)
        assert count == 1, name
    file.write_text(text)


@pytest.mark.slow
def test_a_single_stock_goes_below_single(folder, tmp_path):
    settings = [
        "stocks=folder",
        *QUICK,
        *FAST,
        f"stocks.path={folder}",
        f"output_dir={tmp_path}",
        "stocks.symbols=[S1]",
    ]
    result = any_kind(typed_config(composed(settings)))
    assert Path(result["folder"]).parts[-3] == "single"


@pytest.mark.slow
def test_the_console_and_the_report_show_the_recommendation(base, tmp_path, capsys):
    result = tune(base, tmp_path, "training.methods=[head]")
    console = capsys.readouterr().out
    page = (Path(result["folder"]) / "report.html").read_text()
    assert f"recommendation: {result['decision']['sentence']}" in console
    head = result["decision"]["candidates"]["head"]
    assert f"{head['loss']:.4f}" in console
    assert f'data-metric="decision.head.loss">{head["loss"]:.4f}<' in page
    assert result["decision"]["sentence"][1:].split(";")[0] in page


def test_the_equity_of_a_fine_tune_is_that_of_its_stock_alone(tuned):
    trades = pd.read_parquet(tuned / "trades.parquet")
    assert set(trades["symbol"]) <= {"S0"}


def test_a_candidate_is_neither_replayed_nor_resumed_by_itself(tuned, tmp_path):
    candidate = tuned / "candidates" / "head"
    with pytest.raises(UserError, match="is a candidate of a fine-tune: replay the fine-tune"):
        replay(candidate, tmp_path / "out")
    config = load_config(candidate / "config.yaml")
    config.resume = str(candidate)
    with pytest.raises(ConfigError, match="is a candidate of a fine-tune: resume the fine-tune"):
        any_kind(config, ["train.py"])
    assert not (tmp_path / "out").exists() and not (tuned / "ledger.sqlite").exists()


def test_every_candidate_leaves_a_whole_sealed_run(tuned):
    for method in ("full", "head", "lora", "scratch"):
        folder = tuned / "candidates" / method
        result = json.loads((folder / "result.json").read_text())
        assert "test" not in result and result["test_openings"] == 0 and result["valid"]["profit"]
        assert {"report.html", "equity.parquet", "trades.parquet", "model"} <= {path.name for path in folder.iterdir()}


@pytest.mark.slow
def test_a_pipe_that_closes_after_the_run_is_done_leaves_the_row_done(base, tmp_path, monkeypatch):
    def closed(self, *arguments):
        raise BrokenPipeError("as if by `| head`")

    monkeypatch.setattr(Console, "summary", closed)
    with pytest.raises(BrokenPipeError):
        tune(base, tmp_path, "training.methods=[head]")
    entries = Ledger(tmp_path / "ledger.sqlite").entries()
    assert len(entries) == 2 and all(entry.status == "done" and entry.valid for entry in entries)
