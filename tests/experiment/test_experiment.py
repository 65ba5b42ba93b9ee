"""The config tree, prepare, fit and conclude: hftraining/experiment/, with the real conf/."""

import dataclasses
import functools
import itertools
import json
import re
import typing
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from hftraining.core.errors import ConfigError
from hftraining.experiment.config import ExperimentConfig, typed_config
from hftraining.experiment.ground import lay
from hftraining.experiment.run import opening_lines
from hftraining.market.prices import load_bars
from tests.compose import CONF, compose_config
from tests.effects import EFFECT
from tests.runs_of import QUICK, fingerprint, run
from tests.slowly import mostly_slow


def test_the_default_composition_is_the_dataclass_defaults():
    assert dataclasses.asdict(compose_config()) == dataclasses.asdict(typed_config({}))


@pytest.mark.parametrize(
    "group", mostly_slow(["model", "training", "objective", "portfolio", "profit_tracker", "evidence"], quick=(4,))
)
def test_every_option_of_a_group_composes_and_names_itself(group):
    for path in (CONF / group).glob("*.yaml"):
        base = ("init_from=outputs/base/x",) if path.stem == "finetune" else ()
        config = compose_config(f"{group}={path.stem}", *base)
        assert getattr(config, group).name == path.stem


def test_the_large_model_and_ten_technology_stocks_compose():
    config = compose_config("model=large", "stocks=tech10", "training.max_steps=2")
    assert (config.model.hidden_size, config.model.num_layers, config.model.num_heads) == (512, 8, 16)
    assert config.stocks.symbols == "AAPL MSFT GOOGL AMZN META NVDA TSLA AMD NFLX AVGO".split()
    assert config.training.max_steps == 2


def texts_of(kind=ExperimentConfig, group=""):
    """The dotted names of the fields that hold one text, or none."""
    for name, hint in typing.get_type_hints(kind).items():
        if dataclasses.is_dataclass(hint):
            yield from texts_of(hint, f"{group}{name}.")
        elif hint in (str, str | None):
            yield f"{group}{name}"


@pytest.mark.slow
def test_the_profit_objective_trades_the_position_head_unless_told_otherwise():
    assert compose_config("objective=profit").portfolio.kind == "head"
    assert compose_config("objective=profit", "profit_tracker=frictionless").portfolio.kind == "head"
    with pytest.raises(ConfigError, match=r"use portfolio=head"):
        compose_config("objective=profit", "portfolio.kind=edge")


@pytest.mark.parametrize(
    ("override", "message"),
    mostly_slow(
        [
            ("portfolio.horizon=7", "portfolio.horizon=7 is not one of"),
            ("stocks.exclude=['']", "stocks.exclude= has an empty text: give a value, or leave it out"),
            ("objective.profit_weight=0 portfolio=head", "objective.profit_weight=0 does not train it"),
            ("profit_tracker.lag=0", "profit_tracker.lag=0 must be 1 or 2"),
            ("profit_tracker.commission=-0.1", "profit_tracker.commission=-0.1 must be zero or positive"),
            ("profit_tracker.stop_loss=1", "profit_tracker.stop_loss=1.0 must be below 1"),
            (
                "profit_tracker.stop_loss=2",
                "stop_loss=2.0 must be below 1: it is a fraction of the fill price: 2 % is 0.02",
            ),
            ("profit_tracker.commission=1.5", "commission=1.5 must be below 1: it is a fraction of .*: 1.5 % is 0.015"),
            ("profit_tracker.max_position_size=30", "max_position_size=30.0 is a fraction of equity: 30 % is 0.3"),
            ("stocks.symbols=AAPL", r"stocks.symbols is a list: write stocks.symbols=\[AAPL\]"),
            ("stocks.symbols='AAPL, MSFT'", r"stocks.symbols is a list: write stocks.symbols=\[AAPL,MSFT\]"),
            ("objective.horizons=5", r"objective.horizons is a list: write objective.horizons=\[5\]"),
            ("model.hidden_size=66", "does not divide into num_heads=4 heads"),
            ("training.batch_size=24", "training.batch_size=24 must be a multiple"),
            ("training.history=-1", "training.history=-1 must be at least 0"),
            ("training.shrinkage=-0.1", "training.shrinkage=-0.1 must be at least 0"),
            ("training.patience=-1", "training.patience=-1 must be at least 0"),
            ("training.lora_rank=0", "training.lora_rank=0 must be at least 1"),
            ("training.methods=[all]", r"training.methods=\['all'\] must name some of full, head, lora, scratch"),
            ("training=finetune", "needs a base model: init_from=outputs/base/"),
            ("training.device=tpu", "training.device=tpu is not one of cpu, cuda"),
            ("training.precision=fp8", "training.precision=fp8 is not one of auto, fp32, bf16"),
            ("objective.horizons=[5,1]", r"objective.horizons=\[5, 1\] must be rising"),
            ("objective.quantiles=[0.1,0.9]", "must rise within"),
            ("objective.label=mid", "objective.label=mid is not one of open, close"),
            ("stocks.valid_start=2012-01-01 stocks.test_start=2010-01-01", "must come before stocks.test_start"),
            ("stocks.source=ftp", "stocks.source=ftp is not one of sample, sample5, yahoo, files"),
            ("evidence.null_draws=3", "evidence.null_draws=3 must be at least 20"),
            ("evidence.baselines=[momentun]", "did you mean momentum"),
            ("seed=-1", "seed=-1 must not be negative"),
            ("portfolio.kind=hope", "portfolio.kind=hope is not one of"),
            ("portfolio.trade_rate=2", r"portfolio.trade_rate=2.0 must lie in \[1e-09, 1.0\]"),
            ("portfolio=top portfolio.keep=0.1", "portfolio.keep=0.1 must be at least portfolio.fraction=0.2"),
            ("training.best_metric=profit/luck", "training.best_metric=profit/luck is not one of"),
            (
                "objective=forecast training.best_metric=eval/profit_loss",
                "training.best_metric=eval/profit_loss: objective.profit_weight=0 does not train the position head",
            ),
            ("model=linear training.optimizer=muon", "a model.kind=linear of this size has no hidden matrices"),
            ("model=patchtst training.window=63", "training.window=63 must be at least model.context=64: what a model"),
            (
                "init_from=outputs/base/x training.methods=[head] training.optimizer=muon",
                r"training.methods=\['head'\] trains no hidden matrices",
            ),
            (
                "init_from=outputs/base/x model=lstm training.methods=[head,lora] training.optimizer=muon",
                r"training.methods=\['head', 'lora'\] trains no hidden matrices",
            ),
            ("model=ridge training.best_metric=eval/profit_loss", "model.kind=ridge has no position head"),
            (
                "objective=profit portfolio=head training.best_metric=eval/ic",
                "training.best_metric=eval/ic: objective.forecast_weight=0 trains no forecasts",
            ),
        ],
        quick=range(2, 40, 12),
    ),
)
def test_impossible_values_are_refused_in_one_line(override, message):
    with pytest.raises(ConfigError, match=message) as caught:
        compose_config(*override.split(" ") if "'" not in override else [override])
    assert "\n" not in str(caught.value)


def test_an_empty_text_which_would_pass_for_a_field_that_was_left_out_is_refused_in_every_field():
    names = list(texts_of())
    assert {"resume", "init_from", "stocks.snapshot", "stocks.csv.date_format", "name"} < set(names)
    for name, empty in itertools.product(names, ("", " ")):
        *groups, field = name.split(".")
        with pytest.raises(ConfigError, match=field):
            typed_config(functools.reduce(lambda inner, group: {group: inner}, groups[::-1], {field: empty}))


def test_a_key_slipped_in_with_a_plus_is_refused():
    with pytest.raises(
        ConfigError, match=r"training.warmup: there is no such field; did you mean training.warmup_steps"
    ):
        compose_config("+training.warmup=3")


@pytest.mark.slow
def test_the_same_run_twice_gives_the_same_bits_in_two_folders(folder, reference, tmp_path):
    first, second = run(folder, tmp_path), run(folder, tmp_path)
    assert first["folder"] != second["folder"]
    assert fingerprint(first) == fingerprint(second) == fingerprint(reference)


def test_a_run_folder_holds_what_the_readme_lists(reference):
    path = Path(reference["folder"])
    assert path.parts[-3:-1] == ("base", "tiny-folder-mixed")
    names = {file.name for file in path.iterdir()}
    assert names >= {
        "config.yaml", "config_diff.yaml", "run.json", "metrics.jsonl", "result.json", "equity.parquet",
        "trades.parquet", "null_band.parquet", "checkpoints", "model", "report.html", "train.log",
    }  # fmt: skip
    assert any(name.startswith("events.out.tfevents") for name in names)
    assert {file.name for file in (path / "model").iterdir()} == {"config.json", "model.safetensors", "scaler.json"}
    written = json.loads((path / "result.json").read_text())
    for window in ("valid", "test"):
        five = ("total_return", "sharpe_ratio", "win_rate", "max_drawdown", "trade_count")
        assert set(five) <= set(written[window]["profit"])
        assert "sharpe_ratio" in written[window]["baselines"]["buy_and_hold"]
    assert written["signature"] == json.loads((path / "run.json").read_text())["signature"]
    assert set(written["loss"]) == {"train", "valid", "test"}


def test_equity_and_trades_of_the_folder_tell_the_same_story_as_the_result(reference):
    equity, trades = (pd.read_parquet(Path(reference["folder"]) / f"{name}.parquet") for name in ("equity", "trades"))
    assert len(trades) > 3
    for window in ("valid", "test"):
        curve = equity[equity["window"] == window]
        assert curve["equity"].iloc[-1] / 10_000 - 1 == pytest.approx(
            reference[window]["profit"]["total_return"], rel=1e-12
        )
        daily = curve["equity"].pct_change().fillna(curve["equity"].iloc[0] / 10_000 - 1)
        assert curve["date"].is_monotonic_increasing and len(curve) == reference[window]["days"]
        closed = trades[(trades["window"] == window) & (trades["exit_reason"] != "open")]
        assert len(closed) == reference[window]["profit"]["trade_count"]
        assert trades[trades["window"] == window]["pnl"].sum() == pytest.approx(curve["equity"].iloc[-1] - 10_000)
        assert (closed["pnl"] > 0).mean() == pytest.approx(reference[window]["profit"]["win_rate"])
        assert daily.std() > 0


def test_the_kept_model_is_the_one_of_the_best_probe(reference):
    lines = [json.loads(line) for line in (Path(reference["folder"]) / "metrics.jsonl").read_text().splitlines()]
    probes = {line["step"]: line["eval/loss"] for line in lines if "eval/loss" in line and "eval/ic" in line}
    assert sorted(probes) == [3, 6]
    assert reference["best_step"] == min(probes, key=probes.get)
    assert reference["eval"]["loss"] == probes[reference["best_step"]]


@pytest.mark.slow
def test_nothing_is_written_when_the_data_cannot_be_used(folder, tmp_path):
    for override, message in (
        ("stocks.symbols=[S0,S7]", "S7 is not in the data"),
        ("training.window=2000", "training.window=2000 is longer"),
        (
            "stocks.symbols=[S0,S1] training.best_metric=eval/ic",
            "eval/ic correlates the stocks of a day, .* there are 2",
        ),
        ("training.accumulate=3", "training.accumulate=3: a step has 2 windows of 2 stocks"),
        ("stocks.valid_start=1999-01-01", "lies outside the data"),
        ("objective.horizons=[1,200]", "no training days are left|no validation days are left|no test days are left"),
    ):
        with pytest.raises(ValueError, match=message):
            run(folder, tmp_path / "out", *override.split(" "))
    assert not (tmp_path / "out").exists()


def test_the_opening_says_that_the_profit_loss_is_computed_on_the_cpu_where_the_model_is_not(folder):
    config = compose_config(*QUICK, f"stocks.path={folder}")
    ground = lay(config, load_bars(config.stocks))
    said = "the profit loss is computed on the CPU, for which training.device=cuda waits"
    for device, weight, wanted in (("cpu", 0.02, 0), ("cuda", 0.02, 1), ("cuda", 0.0, 0)):
        training = dataclasses.replace(config.training, device=device)
        objective = dataclasses.replace(config.objective, profit_weight=weight)
        changed = dataclasses.replace(config, training=training, objective=objective)
        lines = opening_lines(dataclasses.replace(ground, config=changed), folder)
        assert sum(said in line for line in lines) == wanted


SHOWN_ELSEWHERE = {
    "model.kind",  # tests/model/test_base.py: another kind has other fields, too
    "model.patch_length",  # tests/model/test_windowed.py
    "model.stride",  # likewise
    "model.channel_independent",  # likewise
    "stocks.cache",  # tests/market/test_kept_bars.py; it changes no bit
    "features.cache",  # tests/market/test_features_cache.py; it changes no bit
    "stocks.source",  # every test of this file runs source=files; tests/experiment/test_pipeline.py runs the sample
    "stocks.path",  # likewise
    "stocks.csv",  # tests/market/test_csv.py, each option
    "stocks.bad_rows",  # tests/market/test_files.py
    "stocks.resample",  # tests/market/test_sessions.py
    "stocks.calendar",  # likewise; test_signature.py shows that it changes no bit of a run
    "stocks.snapshots",  # tests/market/test_yahoo.py
    "stocks.snapshot",  # likewise
    "stocks.refresh",  # likewise
    "output_dir",  # every run of this file
    "resume",  # tests/test_train_command.py
    "training.device",  # test_a_device_that_is_not_there_is_refused
    "training.processes",  # tests/experiment/test_shared_training.py, test_processes_of_a_run.py
    "training.engine",  # test_what_starts_the_processes_changes_no_bit in test_signature.py
    "training.threads",  # test_threads_are_set_and_recorded
    "training.checkpoint_every",  # test_checkpoints_come_as_often_as_asked
    "training.best_metric",  # tests/training/test_trainer.py
    "training.patience",  # likewise
    "walk_forward.every",  # tests/experiment/test_walk_forward.py, as all of this group
    "walk_forward.window",
    "walk_forward.sessions",
    "walk_forward.inner_share",
    "walk_forward.finetune",
    "walk_forward.workers",
    "training.methods",  # tests/experiment/test_finetuning.py
    "training.shrinkage",  # likewise
    "training.lora_rank",  # likewise
    "init_from",  # likewise
    "training.seeds",  # tests/experiment/test_seeds.py
    "training.compile",  # tests/training/test_precision.py, since it takes a minute
    "evidence.ledger",  # every run of this file; tests/experiment/test_restart_n.py
    "portfolio.risk_aversion",  # tests/portfolio/test_optimized.py, with skfolio
    "portfolio.turnover_penalty",  # likewise
    "profit_tracker.report_every",  # test_the_profit_report_is_printed_as_often_as_asked
}


def test_the_effect_of_every_field_is_shown():
    fields = {
        f"{group.name}.{entry.name}"
        for group in dataclasses.fields(ExperimentConfig)
        if dataclasses.is_dataclass(value := getattr(ExperimentConfig(), group.name))
        for entry in dataclasses.fields(value)
    } | {entry.name for entry in dataclasses.fields(ExperimentConfig) if isinstance(entry.default, str | int | None)}
    shown = {part.split("=")[0] for override in EFFECT for part in override.split()}
    assert fields - shown - SHOWN_ELSEWHERE == set()
    assert (shown | SHOWN_ELSEWHERE) - fields == set()


@pytest.mark.slow
@pytest.mark.parametrize("override", EFFECT)
def test_changing_a_field_changes_what_it_should(override, folder, reference, tmp_path):
    other = run(folder, tmp_path, *override.split())
    before, after = fingerprint(reference), fingerprint(other)
    effect = EFFECT[override]
    if effect in ("weights", "metrics", "result", "equity"):
        assert before[effect] != after[effect]
    # Probes on other days or at other steps may choose other weights.
    if effect not in ("weights",) and override not in ("profit_tracker.every=2", "stocks.test_start=2016-10-03"):
        assert before["weights"] == after["weights"]
    if effect == "folder":
        assert Path(other["folder"]).parent.name != Path(reference["folder"]).parent.name
    if effect == "config.yaml":
        assert "  name: other" in (Path(other["folder"]) / "config.yaml").read_text()


@pytest.mark.slow
def test_a_run_keeps_the_precision_that_auto_came_to(folder, tmp_path):
    result = run(folder, tmp_path, "training.precision=auto")
    (kept,) = re.findall(r"precision: (\w+)", (Path(result["folder"]) / "config.yaml").read_text())
    assert kept in ("fp32", "bf16")
    again = run(folder, tmp_path, f"training.precision={kept}")
    assert fingerprint(again)["weights"] == fingerprint(result)["weights"]
    assert again["signature"] == result["signature"]


def test_a_device_that_is_not_there_is_refused(folder, tmp_path):
    torch = pytest.importorskip("torch")
    if torch.cuda.is_available():
        pytest.skip("this machine has a CUDA device")
    with pytest.raises(ConfigError, match=r"training.device=cuda: this machine has no usable CUDA device"):
        run(folder, tmp_path, "training.device=cuda")


@pytest.mark.slow
def test_threads_are_set_and_recorded(folder, tmp_path):
    result = run(folder, tmp_path, "training.threads=2")
    assert json.loads((Path(result["folder"]) / "run.json").read_text())["threads"] == 2


@pytest.mark.slow
def test_checkpoints_come_as_often_as_asked(folder, tmp_path):
    result = run(folder, tmp_path, "training.checkpoint_every=5", "profit_tracker.every=100")
    assert sorted(path.name for path in (Path(result["folder"]) / "checkpoints").iterdir()) == [
        "step_00000005",
        "step_00000006",
    ]


@pytest.mark.slow
def test_the_profit_report_is_printed_as_often_as_asked(folder, tmp_path, capsys):
    run(folder, tmp_path, "profit_tracker.report_every=3")
    assert capsys.readouterr().out.count("validation days after step") == 2
    run(folder, tmp_path, "profit_tracker.report_every=500")
    out = capsys.readouterr().out
    assert out.count("validation days after step") == 0 and out.startswith("run folder: ")


@pytest.mark.slow
def test_of_two_runs_with_one_name_the_second_folder_says_what_differs_and_a_repetition_does_not(folder, tmp_path):
    names = [Path(run(folder, tmp_path, *overrides)["folder"]).name for overrides in ((), (), ("seed=2",))]
    assert [len(name) for name in names[:2]] in ([19, 19], [19, 21])  # a second one within a second gets _2
    assert names[2][19:] == "_seed-2"


@pytest.mark.slow
def test_labels_that_cannot_be_traded_and_costs_left_out_are_said_to_be_so(folder, tmp_path):
    free = ("profit_tracker.commission=0", "profit_tracker.slippage=0")
    assert any("nobody can trade" in warning for warning in run(folder, tmp_path, "objective.label=close")["warnings"])
    assert any("no trading costs" in w for w in run(folder, tmp_path, "profit_tracker=frictionless", *free)["warnings"])


def test_the_sharpe_of_a_random_walk_is_not_one_that_needs_explaining(reference):
    assert all(abs(reference[window]["profit"]["sharpe_ratio"]) < 5 for window in ("valid", "test"))
    assert np.isfinite(reference["eval"]["loss"])
