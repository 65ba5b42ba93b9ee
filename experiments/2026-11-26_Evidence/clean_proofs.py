"""Does the leak proof raise an alarm where nothing leaks? 200 random clean configurations, the proof of each alone.

    python experiments/2026-11-26_Evidence/clean_proofs.py [--count 200] [--first 0] [--us300 FILE] [--to FILE.md]

Kinds of model, stocks, lags, horizons, labels, policies, rules, fine-tunes and seeds are drawn from the number of the
configuration, so that each can be made again alone. us300: a parquet file of 300 stocks with holes and late listings;
without it random walks with holes, late listings and early ends take its place.
"""

import argparse
import dataclasses
import itertools
import time
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import torch

from hftraining.core.bars import ARRAYS, Bars
from hftraining.evidence.leaks import LeakReport
from hftraining.experiment.base_run import BaseRun
from hftraining.experiment.compose import composed
from hftraining.experiment.config import ExperimentConfig, typed_config
from hftraining.experiment.ground import lay
from hftraining.experiment.outcome import lively
from hftraining.experiment.proof import prove
from hftraining.market.config import StocksConfig
from hftraining.market.prices import load_bars

SIZES = (
    ("model.hidden_size=16", "model.num_heads=2", "model.num_layers=2", "model.context=8"),
    ("model=tiny",),
    ("model=small",),
)


def random_walks(rng: np.random.Generator) -> Bars:
    """Bars with holes, late listings and early ends."""
    shape = (int(rng.integers(500, 1500)), int(rng.integers(2, 14)))
    close = 50.0 * np.exp(np.cumsum(rng.normal(0.0, 0.02, shape), axis=0))
    open_ = close * np.exp(rng.normal(0.0, 0.01, shape))
    high, low = np.maximum(open_, close) * 1.01, np.minimum(open_, close) * 0.99
    arrays = [open_, high, low, close, np.exp(rng.normal(12.0, 1.0, shape))]
    for array in arrays:
        array[: shape[0] // 3, 1] = np.nan
        array[-shape[0] // 20 :, -1] = np.nan
    absent = rng.random(shape) < rng.choice([0.0, 0.02, 0.1])
    for array in arrays:
        array[absent] = np.nan
    sessions = np.busday_offset(np.datetime64("2010-01-04"), np.arange(shape[0]), roll="forward")
    return Bars(tuple(f"S{i}" for i in range(shape[1])), sessions, *arrays, source="random walks")


def some_bars(rng: np.random.Generator, sample: Bars, us300: Bars | None) -> tuple[str, Bars]:
    """One stock or all of the sample, a part of us300, or random walks."""
    kind = str(rng.choice(["one stock", "sample", "us300", "us300", "random walks"]))
    if kind == "one stock":
        return kind, sample.of([str(rng.choice(["AAPL", "IBM", "MSFT"]))])
    if kind == "sample":
        return kind, sample
    if kind == "us300" and us300 is not None:
        count = int(rng.integers(2, 60))
        names = [us300.symbols_S[s] for s in np.sort(rng.permutation(len(us300.symbols_S))[:count])]
        bars = us300.of(names)
        arrays = {name: getattr(bars, name) for name in ARRAYS}
        traded_T = np.isfinite(bars.close_TS).any(axis=1)
        arrays = {name: array[traded_T] for name, array in arrays.items()}
        return kind, dataclasses.replace(bars, sessions_T=bars.sessions_T[traded_T], **arrays)
    return "random walks", random_walks(rng)


def some_config(rng: np.random.Generator) -> tuple[str, list[str]]:
    """The kind of model, and overrides."""
    kind = str(rng.choice(["transformer", "transformer", "ridge", "lightgbm"]))
    policies = ["edge", "sign", "top_k"] + (["head"] if kind == "transformer" else [])
    overrides = [
        f"profit_tracker.policy={rng.choice(policies)}",
        f"profit_tracker.lag={rng.integers(1, 3)}",
        f"profit_tracker.allow_short={str(bool(rng.integers(2))).lower()}",
        f"profit_tracker.whole_shares={str(bool(rng.integers(2))).lower()}",
        f"profit_tracker.max_gross={rng.choice([0.5, 1.0, 3.0])}",
        f"profit_tracker.stop_loss={rng.choice([0.0, 0.02])}",
        f"profit_tracker.rebalance_band={rng.choice([0.0, 0.05])}",
        f"objective.horizons={rng.choice(['[1]', '[1,5]', '[5]', '[1,5,20]', '[2,40]'])}",
        f"objective.label={rng.choice(['open', 'close'])}",
        f"objective.relative={('none', 'mean')[rng.integers(2)]}",
        f"evidence.baselines={rng.choice(['[]', '[momentum,trend,reversal,ridge]', '[lightgbm]'])}",
        f"training.history={rng.choice([0, 0, 400])}",
        f"training.patience={rng.choice([0, 1])}",
        f"training.best_metric={rng.choice(['eval/loss', 'profit/sharpe_ratio'])}",
        f"seed={rng.integers(1000)}",
        "training.threads=1",
    ]
    if kind == "transformer":
        overrides += SIZES[rng.integers(len(SIZES))]
        overrides += [f"model.cross_asset={str(bool(rng.integers(2))).lower()}"]
    else:
        overrides += [f"model={kind}"]
    return kind, overrides


def based(config: ExperimentConfig, bars: Bars, rng: np.random.Generator) -> tuple[ExperimentConfig, BaseRun] | None:
    """The config of a fine-tune on some of the stocks, and its base, whose model has random weights."""
    if len(bars.symbols_S) < 2:
        return None
    own = [str(name) for name in rng.permutation(bars.symbols_S)[: int(rng.integers(1, 4))]]
    own = [name for name in bars.symbols_S if name in own]
    method = str(rng.choice(["full", "head", "lora", "scratch"]))
    ground = lay(config, bars)
    forecaster = dataclasses.replace(lively(ground.forecaster), symbols=bars.symbols_S, days=ground.days)
    base = BaseRun(Path("base"), forecaster, dataclasses.asdict(config), "signature", "weights", "fingerprint")
    tuned = dataclasses.replace(
        config,
        init_from="base",
        stocks=dataclasses.replace(config.stocks, symbols=own),
        training=dataclasses.replace(config.training, methods=[method]),
    )
    return tuned, base


def tried(number: int, sample: Bars, us300: Bars | None) -> dict[str, Any]:
    """The proof of the configuration of a number: what it was, what the proof found, and its CPU time.

    Raises ValueError for a configuration that `train.py` refuses, too.
    """
    rng = np.random.default_rng([2026, number])
    stocks, bars = some_bars(rng, sample, us300)
    kind, overrides = some_config(rng)
    sealed, days = bool(rng.integers(3) == 0), int(rng.integers(1, 4))
    config = typed_config(composed(["stocks=sample5", f"evidence.leak_days={days}", *overrides]))
    base = None
    if kind == "transformer" and rng.integers(2) and (made := based(config, bars, rng)):
        config, base = made
        kind = f"fine-tune, {config.training.methods[0]}"
    started = time.process_time()
    ground = lay(config, bars, sealed=sealed, base=base)
    try:
        report = prove(ground, days, config.seed)
    except ValueError as error:
        report = LeakReport(False, [f"the proof fails: {error}"])
    said = {"number": number, "kind": kind, "stocks": stocks, "lines": report.lines, "overrides": overrides}
    return said | {"seconds": time.process_time() - started, "sealed": sealed, "days": days}


def main() -> None:
    """Try all and print a table of counts."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=200)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--us300", type=Path, help="a parquet file of many stocks")
    parser.add_argument("--to", type=Path, help="write the table into this file, too")
    options = parser.parse_args()
    torch.set_num_threads(1)
    sample = load_bars(StocksConfig(source="sample5"))
    us300 = load_bars(StocksConfig(source="files", path=str(options.us300))) if options.us300 else None
    rows: list[dict[str, Any]] = []
    for number in itertools.count(options.first):
        if len(rows) == options.count:
            break
        try:
            rows.append(tried(number, sample, us300))
        except ValueError as error:
            print(f"{number}: refused, as `train.py` refuses it: {error}", flush=True)
            continue
        if rows[-1]["lines"]:
            print(f"{number}: ALARM {rows[-1]}", flush=True)
    alarms = sum(bool(row["lines"]) for row in rows)
    seconds = sum(row["seconds"] for row in rows)
    lines = ["| clean configurations | tried | alarms |", "|---|---|---|"]
    for what in ("kind", "stocks", "sealed", "days"):
        for value, count in sorted(Counter(str(row[what]) for row in rows).items()):
            wrong = sum(bool(row["lines"]) for row in rows if str(row[what]) == value)
            name = {"sealed": f"sealed: {value}", "days": f"{value} random days"}.get(what, value)
            lines.append(f"| {name} | {count} | {wrong} |")
    lines.append(f"| **all** | **{len(rows)}** | **{alarms}** |")
    mean = seconds / max(1, len(rows))
    text = "\n".join([*lines, "", f"{seconds:.0f} s of CPU, {mean:.1f} s a configuration with its preparation."])
    print(text)
    if options.to:
        options.to.write_text(text + "\n")


if __name__ == "__main__":
    main()
