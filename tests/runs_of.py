"""Small runs for tests, their numbers, and folders of runs that have taken no step."""

import dataclasses
import functools
import hashlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
from safetensors.numpy import load_file

from hftraining.experiment import finetune
from hftraining.experiment.compose import composed
from hftraining.experiment.config import ExperimentConfig
from hftraining.experiment.inherit import inherit
from hftraining.experiment.run import run_experiment
from hftraining.market.snapshots import save_snapshot
from hftraining.runs.identity import config_delta, manifest, signature
from hftraining.runs.ledger import Ledger
from hftraining.runs.ledger_file import ledger_path
from hftraining.runs.record import RunRecord
from tests.bars_of import make_bars
from tests.compose import compose_config

QUICK = (
    "model=tiny",
    "model.hidden_size=16",
    "model.context=8",
    "model.dropout=0.1",
    "stocks=folder",
    "training.max_steps=6",
    "training.window=24",
    "training.batch_size=4",
    "training.symbols_per_window=2",
    "training.warmup_steps=2",
    "training.checkpoint_every=4",
    "training.log_every=2",
    "training.patience=0",
    "training.threads=1",
    "objective.horizons=[1,5]",
    "profit_tracker.every=3",
    "portfolio=edge",
    "portfolio.full_size_at=0.02",
    "profit_tracker=specification",
    "profit_tracker.commission=0.0001",
    "profit_tracker.slippage=0.0001",
    "evidence.null_draws=60",
    "evidence.bootstrap_draws=200",
    "evidence.leak_days=1",
)
FAST = ("evidence.null_draws=40", "evidence.bootstrap_draws=100", "evidence.leak_days=1")
FEW = ("training.max_steps=6", "training.batch_size=2", "training.warmup_steps=2", "training.learning_rate=0.003")


# --- made -------------------------------------------------------------------------------------------------------------


def as_dict(done) -> dict:
    """result.json of a finished run, and its folder."""
    folder = done["folder"] if isinstance(done, dict) else done.folder
    return json.loads((Path(folder) / "result.json").read_text()) | {"folder": str(folder)}


def trained(config: ExperimentConfig, *arguments, **settings) -> dict:
    """A run of run_experiment: result.json as a dict, and "folder"."""
    return as_dict(run_experiment(config, *arguments, **settings))


def placed(output: Path) -> tuple[str, str]:
    """The overrides that send runs to a folder, and have them counted by a ledger of their own in it."""
    return f"output_dir={output}", f"evidence.ledger={output}/ledger.sqlite"


def own_ledger() -> Ledger:
    """The user's own ledger, in the state folder of the test."""
    return Ledger(ledger_path(None))


def run(bars: Path, output: Path, *overrides: str) -> dict:
    """A quick base run on a folder of bars: result.json as a dict, and "folder"."""
    return trained(compose_config(*QUICK, f"stocks.path={bars}", *placed(output), *overrides))


def run_of_kind(bars: Path, output: Path, kind: str, *overrides: str) -> dict:
    """As run, of any kind of model, by a portfolio that every kind feeds."""
    sizes = {"transformer": QUICK[1:4], "lstm": ("model.hidden_size=8", "model.context=8"), "mlp": QUICK[1:2]}
    sizes |= {"linear": ("model.context=8",), "patchtst": ("model.hidden_size=16", "model.context=16")}
    group = ("model=tiny" if kind == "transformer" else f"model={kind}", *sizes.get(kind, ()))
    rest = [text for text in QUICK if not text.startswith("model") and text != "portfolio=edge"]
    return trained(compose_config(*group, *rest, f"stocks.path={bars}", *placed(output), "portfolio=tilt", *overrides))


def tuned_config(base: Path, output: Path, *settings: str, symbol: str = "S0") -> ExperimentConfig:
    typed = [f"init_from={base}", f"stocks.symbols=[{symbol}]", *placed(output), *FEW, *settings]
    return inherit(composed(typed), typed)


def any_kind(config: ExperimentConfig, argv: list[str] | None = None) -> dict:
    """A base run or a fine-tune, as the config says: result.json as a dict, and "folder"."""
    return as_dict(finetune.run(config, argv))


def tune(base: Path, output: Path, *settings: str, symbol: str = "S0") -> dict:
    """A quick fine-tune of a base run for a symbol: result.json as a dict, and "folder"."""
    return any_kind(tuned_config(base, output, *settings, symbol=symbol), ["train.py"])


def snapshot_run(folder: Path) -> Path:
    """A run on a stored snapshot that its config does not name: the newest of the same request."""
    bars = make_bars(500, 2, seed=5)
    columns = {name: getattr(bars, f"{name}_TS") for name in ("open", "high", "low", "close", "volume")}
    frames = [
        pd.DataFrame({name: array_TS[:, s] for name, array_TS in columns.items()}).assign(
            symbol=symbol, date=bars.sessions_T.astype("datetime64[s]"), split=0.0, dividend=0.0
        )
        for s, symbol in enumerate(bars.symbols_S)
    ]
    raw = pd.concat(frames, ignore_index=True)
    raw["adj_close"] = raw["close"]
    request = {"symbols": ["S0", "S1"], "start": None, "end": None}
    save_snapshot(folder / "outputs" / "snapshots", raw, request)
    stocks = ("stocks.source=yahoo", "stocks.symbols=[S0,S1]", f"stocks.snapshots={folder}/outputs/snapshots")
    quick = ["stocks=sample5", *(override for override in QUICK if override != "stocks=folder")]
    return Path(trained(compose_config(*quick, *stocks, *placed(folder / "outputs")))["folder"])


# --- what their numbers are -------------------------------------------------------------------------------------------


def fingerprint(result: dict) -> dict:
    """All numbers of a run: weights, logged steps without their time, result, equity and trades."""
    folder = Path(result["folder"])
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    for line in lines:
        del line["seconds"], line["cpu_seconds"]
    weights = {name: array.tobytes() for name, array in load_file(folder / "model" / "model.safetensors").items()}
    # A repetition has more openings of the test days than its run, which changes the verdict.
    counted = ("folder", "signature", "test_openings", "verdict", "warnings")
    scored = {key: value for key, value in result.items() if key not in counted}
    scored["test"] = {key: value for key, value in result["test"].items() if key != "verdict"}
    return {
        "weights": weights,
        "metrics": lines,
        "result": json.dumps(scored, sort_keys=True, default=str),
        "equity": pd.read_parquet(folder / "equity.parquet").to_csv(),
        "trades": pd.read_parquet(folder / "trades.parquet").to_csv(),
    }


def weights(run: Path | str) -> dict[str, np.ndarray]:
    return load_file(Path(run) / "model" / "model.safetensors")


def moved(base: Path, run: Path) -> set[str]:
    """Names of the weights that are not those of the base."""
    ours, theirs = weights(run), weights(base)
    assert ours.keys() == theirs.keys()
    return {name for name in ours if not np.array_equal(ours[name], theirs[name])}


def hashes(path: Path) -> dict[str, str]:
    """sha256 of every file below a folder."""
    files = [file for file in sorted(path.rglob("*")) if file.is_file()]
    return {str(file.relative_to(path)): hashlib.sha256(file.read_bytes()).hexdigest() for file in files}


def sharpe(path: Path, window: str = "valid") -> float:
    return json.loads((path / "result.json").read_text())[window]["profit"]["sharpe_ratio"]


# --- their folders ----------------------------------------------------------------------------------------------------


def folders(outputs: Path, name: str) -> list[Path]:
    """The base runs of a name, in the order in which they began."""
    return sorted((outputs / "base" / name).iterdir())


def own_copy(folder: Path, target: Path) -> Path:
    shutil.copytree(folder, target)
    return target


def edit_run_json(path: Path, change: Callable[[dict], object]) -> None:
    known = json.loads((path / "run.json").read_text())
    change(known)
    (path / "run.json").write_text(json.dumps(known))


@functools.cache
def values_of(*overrides: str) -> dict:
    return dataclasses.asdict(compose_config(*overrides))


@functools.cache
def facts_here() -> dict:
    data = {"fingerprint": "ab" * 8, "source": "x", "symbols": ["A"], "first": "2001-01-02", "last": "2015-12-31"}
    return manifest(signature="", seed=1, threads=1, data=data)


def begun(outputs: Path, *overrides: str) -> Path:
    """The folder of a run of this config that has taken no step yet."""
    values = values_of(*overrides)
    delta = config_delta(values, values_of())
    facts = facts_here() | {"signature": signature(delta), "seed": values["seed"]}
    with RunRecord.create(outputs, "base", values["name"], values, delta, facts) as record:
        return record.folder


def own_outputs(run: Path, place: Path) -> Path:
    """A run in a copy of its outputs, with their ledger, which may be added to."""
    outputs = shutil.copytree(run.parents[2], place / "outputs")
    folder = outputs / run.relative_to(run.parents[2])
    text = (folder / "config.yaml").read_text()
    (folder / "config.yaml").write_text(text.replace(str(run.parents[2]), str(outputs)))
    return folder
