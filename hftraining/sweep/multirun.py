"""The table at the end of a plain multirun: each configuration's mean and spread over its seeds."""

import json
import math
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from statistics import fmean

from rich.markup import escape
from rich.table import Table

from hftraining.core.errors import ConfigError
from hftraining.core.metrics import Unit
from hftraining.reports.console import wide_console
from hftraining.reports.deltas import Group, Row, config_rows, group_by_seed, sets_apart, shown_value
from hftraining.runs.folder import read_run

RUNS_FILE = "runs.jsonl"  # in the folder of the multirun: one line for each finished run
NOT_SHOWN = ("seed", "name", "output_dir")
LOSS = "eval.loss"
COLUMNS = (
    ("eval loss", LOSS, Unit.LOSS),
    ("valid Sharpe", "valid.profit.sharpe_ratio", Unit.RATIO),
    ("valid return", "valid.profit.total_return", Unit.CHANGE),
    ("test Sharpe", "test.profit.sharpe_ratio", Unit.RATIO),
)


def note_run(sweep_dir: str, folder: Path | str) -> None:
    """Add a run to the list of its multirun. Several processes may do so at once."""
    path = Path(sweep_dir) / RUNS_FILE
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "a", encoding="utf-8") as file:  # one short write in append mode: lines do not mix
        file.write(json.dumps({"folder": str(folder)}) + "\n")


def refuse_search_settings(n_trials: int | None) -> None:
    """Raise ConfigError for n_trials without a search."""
    if n_trials is not None:
        raise ConfigError(f"hydra.sweeper.n_trials={n_trials} is the size of a study: choose one with search=profit")


def show_table(sweep_dir: str) -> None:
    """Print the listed runs, one row for those that differ by seed alone, the lowest validation loss first."""
    path = Path(sweep_dir) / RUNS_FILE
    if not path.exists():
        return
    lines = path.read_text(encoding="utf-8").splitlines()
    groups = group_by_seed([read_run(Path(json.loads(line)["folder"])) for line in lines])
    rows = config_rows(groups)
    table = Table(title="configurations, mean +- spread over seeds", title_justify="left", box=None, pad_edge=False)
    table.add_column("configuration", overflow="fold")
    table.add_column("runs", justify="right")
    for title, *_ in COLUMNS:
        table.add_column(title, justify="right")
    table.add_column("verdict (test days)", overflow="fold")
    for group in sorted(groups, key=lambda group: fmean(group.values(LOSS) or [math.inf])):
        cells = [group.spread(metric).text(unit) for _, metric, unit in COLUMNS]
        table.add_row(escape(_configuration(group, rows)), str(len(group.runs)), *cells, escape(_verdicts(group)))
    out = wide_console()
    out.print(table)
    results = [run.result for group in groups for run in group.runs if run.result]
    opened = max((result.test_openings or 0 for result in results), default=0)
    out.print(
        f"A row chosen by its test Sharpe would be chosen by luck: these test days were opened {opened} times. "
        f"The runs are listed in {path}."
    )


def _configuration(group: Group, rows: Sequence[Row]) -> str:
    """The overrides that set a configuration apart; of a single configuration, what differs from the defaults."""
    if own := sets_apart(group, rows):
        return " ".join(own)
    delta = group.runs[0].files.config_diff
    fields = [f"{name}={shown_value(value)}" for name, value in delta.items() if name not in NOT_SHOWN]
    return " ".join(fields) or "the defaults"


def _verdicts(group: Group) -> str:
    """How many runs ended with each verdict, without the verdict's figures."""
    counts = Counter((run.result.verdict or "").split(" (")[0] for run in group.runs if run.result)
    return "; ".join(f"{count} x {text}" if len(group.runs) > 1 else text for text, count in counts.items())
