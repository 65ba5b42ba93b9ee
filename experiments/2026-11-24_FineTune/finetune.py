"""One base model on 300 stocks, a specialist for each of ten technology names, three seeds: what is worth keeping?

    nice python experiments/2026-11-24_FineTune/finetune.py BARS.parquet OUTPUTS

Everything goes through BaseModelTrainer with the defaults of conf/training/finetune.yaml; nothing was tuned here. A
second call goes on where the first was cut off, and prints the tables of what is done. decisions.csv has a row for
each stock, seed and candidate.
"""

import csv
import json
import statistics
import sys
from pathlib import Path

from hftraining.base_model_trainer import BaseModelTrainer
from hftraining.experiment.processes import attempt, in_turn

TECHNOLOGY = "AAPL MSFT GOOGL AMZN INTC CSCO ORCL QCOM NVDA IBM".split()  # named before anything was run
SEEDS = (1, 2, 3)
BASE = (
    "model=tiny",
    "training.max_steps=600",
    "training.batch_size=32",
    "training.symbols_per_window=8",
    "training.threads=1",
    "stocks.valid_start=2012-01-03",
    "stocks.test_start=2014-01-02",
)
METHODS = ("full", "head", "lora", "scratch")
HERE = Path(__file__).resolve().parent


def train(bars: Path, outputs: Path) -> list[dict]:
    """Every base run and fine-tune that is not there yet, in this process; returns the results of the fine-tunes."""
    results = []
    for seed in SEEDS:
        settings = [*BASE, f"stocks.path={bars}", f"seed={seed}"]
        trainer = BaseModelTrainer(
            data="folder",
            output_dir=outputs,
            settings=settings,
            finetune_settings=["training.threads=1"],
            resume=True,
        )
        base = attempt("base", trainer.base_config())
        assert base.folder, base.text
        configs = {symbol: trainer.finetune_config(symbol, base.folder) for symbol in TECHNOLOGY}
        for outcome in in_turn(configs):
            assert outcome.folder, outcome.text
            result = json.loads((Path(outcome.folder) / "result.json").read_text())
            results.append({"symbol": outcome.symbol, "seed": seed, **result})
    return results


def rows_of(results: list[dict]) -> list[dict]:
    """One row a candidate, for decisions.csv."""
    rows = []
    for result in results:
        for name, row in result["decision"]["candidates"].items():
            loss, sharpe, forgot = (row.get(key) or {} for key in ("loss_difference", "difference", "forgetting"))
            rows.append(
                {
                    "symbol": result["symbol"],
                    "seed": result["seed"],
                    "candidate": name,
                    "chosen": name == result["decision"]["choice"],
                    "n_trials": result["decision"]["n_trials"],
                    "loss": row.get("loss"),
                    "loss_difference": loss.get("value"),
                    "loss_difference_low": loss.get("low"),
                    "loss_difference_high": loss.get("high"),
                    "sharpe": (row.get("profit") or {}).get("sharpe_ratio"),
                    "total_return": (row.get("profit") or {}).get("total_return"),
                    "sharpe_difference": sharpe.get("value"),
                    "sharpe_difference_low": sharpe.get("low"),
                    "sharpe_difference_high": sharpe.get("high"),
                    "p": row.get("p"),
                    "deflated_sharpe": row.get("deflated_sharpe"),
                    "forgetting": forgot.get("value"),
                    "forgetting_low": forgot.get("low"),
                    "forgetting_high": forgot.get("high"),
                }
            )
    return rows


def tables(rows: list[dict]) -> str:
    """What the README shows, as Markdown."""
    runs = len({(row["symbol"], row["seed"]) for row in rows})
    kept = sum(row["chosen"] for row in rows if row["candidate"] == "base")
    lines = [f"Keep the base: {kept} of {runs}.", ""]
    heads = (
        "candidate",
        "loss less the base's",
        "surely lower / higher",
        "Sharpe",
        "Sharpe less the base's",
        "surely higher / lower",
        "p <= 0.05",
        "forgetting",
        "surely forgot",
    )
    lines += [f"| {' | '.join(heads)} |", "|---" * len(heads) + "|"]
    for name in dict.fromkeys(row["candidate"] for row in rows):
        own = [row for row in rows if row["candidate"] == name]
        lines.append(
            f"| {name} | {_mean(own, 'loss_difference', 4)} | {_sure(own, 'loss_difference', -1)} / "
            f"{_sure(own, 'loss_difference', 1)} | {_mean(own, 'sharpe', 2)} | {_mean(own, 'sharpe_difference', 2)} | "
            f"{_sure(own, 'sharpe_difference', 1)} / {_sure(own, 'sharpe_difference', -1)} | "
            f"{sum((row['p'] if row['p'] is not None else 1) <= 0.05 for row in own)} | "
            f"{_mean(own, 'forgetting', 4)} | {_sure(own, 'forgetting', 1)} |"
        )
    lines += ["", "| stock | seed | base | " + " | ".join(METHODS) + " | ridge | choice |", "|---|" + "---|" * 8]
    for symbol, seed in dict.fromkeys((row["symbol"], row["seed"]) for row in rows):
        own = {row["candidate"]: row for row in rows if (row["symbol"], row["seed"]) == (symbol, seed)}
        cells = [f"{own['base']['loss']:.4f}, {own['base']['sharpe']:.2f}"]
        for name in (*METHODS, "ridge"):
            row = own[name]
            cells.append(
                f"{row['loss_difference']:+.4f}, {row['sharpe_difference']:+.2f} "
                f"[{row['sharpe_difference_low']:.2f}, {row['sharpe_difference_high']:.2f}]"
                if row["sharpe_difference"] is not None
                else f"{row['loss_difference']:+.4f}, no trade"
            )
        chosen = next(name for name, row in own.items() if row["chosen"])
        lines.append(f"| {symbol} | {seed} | " + " | ".join(cells) + f" | {chosen} |")
    return "\n".join(lines)


def _mean(rows: list[dict], name: str, digits: int) -> str:
    values = [row[name] for row in rows if row[name] is not None]
    if not values:
        return "-"
    spread = statistics.stdev(values) if len(values) > 1 else 0.0
    return f"{statistics.mean(values):+.{digits}f} (sd {spread:.{digits}f})"


def _sure(rows: list[dict], name: str, side: int) -> int:
    """In how many the whole interval lies on one side of 0."""
    end = f"{name}_low" if side > 0 else f"{name}_high"
    return sum(row[end] is not None and row[end] * side > 0 for row in rows)


if __name__ == "__main__":
    found = rows_of(train(Path(sys.argv[1]), Path(sys.argv[2])))
    with open(HERE / "decisions.csv", "w", newline="") as file:
        writer = csv.DictWriter(file, found[0])
        writer.writeheader()
        writer.writerows({k: round(v, 6) if isinstance(v, float) else v for k, v in row.items()} for row in found)
    print(tables(found))
