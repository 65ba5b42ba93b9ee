"""A plain multirun ends with a table: each configuration's mean and spread over its seeds."""

import json
import math
from collections.abc import Mapping
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

from rich.console import Console
from rich.table import Table

from hftraining.core.errors import ConfigError
from hftraining.runs.record import dig

RUNS_FILE = "runs.jsonl"  # in the folder of the multirun: one line a finished run
COLUMNS = (
    ("eval loss", ("eval", "loss"), "{:.4f}"),
    ("valid Sharpe", ("valid", "profit", "sharpe_ratio"), "{:.2f}"),
    ("valid return", ("valid", "profit", "total_return"), "{:.1%}"),
    ("test Sharpe", ("test", "profit", "sharpe_ratio"), "{:.2f}"),
)


def note_run(sweep_dir: str, folder: str) -> None:
    """Note a run of a multirun, from whichever process it ran in."""
    path = Path(sweep_dir) / RUNS_FILE
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "a", encoding="utf-8") as file:  # one short write in append mode: lines do not mix
        file.write(json.dumps({"folder": folder}) + "\n")


def refuse_search_settings(n_trials: int | None) -> None:
    """Raises ConfigError for a size without a search."""
    if n_trials is not None:
        raise ConfigError(f"hydra.sweeper.n_trials={n_trials} is the size of a study: choose one with search=profit")


def show_table(sweep_dir: str) -> None:
    """Print the runs that were noted, those that differ by seed alone as one row, the best validation loss first."""
    path = Path(sweep_dir) / RUNS_FILE
    if not path.exists():
        return
    folders = [Path(json.loads(line)["folder"]) for line in path.read_text(encoding="utf-8").splitlines()]
    groups: dict[str, list[dict[str, Any]]] = {}
    for folder in folders:
        groups.setdefault(_configuration(folder), []).append(json.loads((folder / "result.json").read_text()))
    table = Table(title="configurations, mean +- spread over seeds", title_justify="left", box=None, pad_edge=False)
    table.add_column("configuration", overflow="fold")
    table.add_column("runs", justify="right")
    for title, *_ in COLUMNS:
        table.add_column(title, justify="right")
    table.add_column("verdict (test days)", overflow="fold")
    for configuration, results in sorted(groups.items(), key=lambda item: _mean(item[1], COLUMNS[0][1])):
        cells = [_mean_and_spread(results, keys, shape) for _, keys, shape in COLUMNS]
        table.add_row(configuration, str(len(results)), *cells, _verdicts(results))
    out = Console(highlight=False)
    out.print(table)
    opened = max(result["test_openings"] for results in groups.values() for result in results)
    out.print(
        f"Choosing a row by its test Sharpe would be choosing by luck: these test days were opened {opened} times. "
        f"The runs are listed in {path}."
    )


def _configuration(folder: Path) -> str:
    import yaml  # type: ignore[import-untyped,unused-ignore]

    delta: Mapping[str, Any] = yaml.safe_load((folder / "config_diff.yaml").read_text(encoding="utf-8")) or {}
    own = [f"{name}={value}" for name, value in delta.items() if name not in ("seed", "name", "output_dir")]
    return " ".join(own) or "the defaults"


def _values(results: list[dict[str, Any]], keys: tuple[str, ...]) -> list[float]:
    return [value for result in results if (value := dig(result, *keys)) is not None]


def _mean(results: list[dict[str, Any]], keys: tuple[str, ...]) -> float:
    values = _values(results, keys)
    return fmean(values) if values else math.inf


def _mean_and_spread(results: list[dict[str, Any]], keys: tuple[str, ...], shape: str) -> str:
    values = _values(results, keys)
    if not values:
        return "-"
    mean = shape.format(fmean(values))
    return f"{mean} +- {shape.format(stdev(values))}" if len(values) > 1 else mean


def _verdicts(results: list[dict[str, Any]]) -> str:
    verdicts: dict[str, int] = {}
    for result in results:
        verdicts[result["verdict"]] = verdicts.get(result["verdict"], 0) + 1
    return "; ".join(f"{count} x {text}" if len(results) > 1 else text for text, count in verdicts.items())
