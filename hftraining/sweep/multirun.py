"""The table at the end of a plain multirun: each configuration's mean and spread over its seeds."""

import json
import math
from collections.abc import Sequence
from pathlib import Path
from statistics import fmean

from rich.markup import escape
from rich.table import Table

from hftraining.core.errors import ConfigError
from hftraining.core.metrics import Unit
from hftraining.reports.console import wide_console
from hftraining.reports.deltas import Group, Row, config_rows, group_by_seed, sets_apart, shown_value
from hftraining.reports.words import ALARMED, BY_PATH, LEGEND, alarm_lines, brief_verdict, judged, verdicts
from hftraining.runs.folder import read_run
from hftraining.runs.result import PERIODS

RUNS_FILE = "runs.jsonl"  # in the folder of the multirun: one line for each finished run
NOT_SHOWN = ("seed", "name", "output_dir")
LOSS = "eval.loss"
Column = tuple[str, str, Unit]


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
    results = [run.result for group in groups for run in group.runs if run.result]
    period = "test" if any(judged(result) == "test" for result in results) else "valid"
    money, numbers = _columns(period, groups)
    table = Table(title="configurations, mean +- spread over seeds", title_justify="left", box=None, pad_edge=False)
    table.add_column("configuration", overflow="fold")
    for title in ("runs", *(title for title, *_ in money)):
        table.add_column(title, justify="right")
    table.add_column(f"verdict ({PERIODS[period]} days)", overflow="fold")
    for title, *_ in numbers:
        table.add_column(title, justify="right")
    for group in sorted(groups, key=lambda group: fmean(group.values(LOSS) or [math.inf])):
        (earned, beside) = ([group.spread(path).text(unit) for _, path, unit in part] for part in (money, numbers))
        name, verdict = escape(_configuration(group, rows)), escape(_verdict(group))
        table.add_row(name, str(len(group.runs)), *earned, verdict, *beside)
    out = wide_console()
    out.print(table)
    if any(_has_alarm(group) for group in groups):
        out.print(escape(LEGEND))
    opened = max((result.test_openings or 0 for result in results), default=0)
    out.print(
        f"A row chosen by its test days would be chosen by luck: these test days were opened {opened} times. "
        f"The runs are listed in {path}."
    )


def _columns(period: str, groups: Sequence[Group]) -> tuple[list[Column], list[Column]]:
    """Heading, path in result.json and unit: the money, and what stands behind the verdict where any group has it."""
    days = PERIODS[period]
    money = [
        (f"{days} return", f"{period}.profit.total_return", Unit.CHANGE),
        ("of holding", f"{period}.baselines.buy_and_hold.total_return", Unit.CHANGE),
    ]
    numbers = [
        (BY_PATH["benchmark.alpha"].words.lower(), f"{period}.benchmark.alpha.value", Unit.CHANGE),
        ("test Sharpe", "test.profit.sharpe_ratio", Unit.RATIO),
        ("validation Sharpe", "valid.profit.sharpe_ratio", Unit.RATIO),
        ("eval loss", LOSS, Unit.LOSS),
    ]
    return money, [column for column in numbers if any(group.values(column[1]) for group in groups)]


def _configuration(group: Group, rows: Sequence[Row]) -> str:
    """The overrides that set a configuration apart; of a single configuration, what differs from the defaults.

    Marked where a run of it has an alarm.
    """
    delta = group.runs[0].files.config_diff
    own = sets_apart(group, rows) or [f"{n}={shown_value(v)}" for n, v in delta.items() if n not in NOT_SHOWN]
    return " ".join([*(own or ["the defaults"]), *([ALARMED] if _has_alarm(group) else [])])


def _has_alarm(group: Group) -> bool:
    return any(run.result and alarm_lines(run.result) for run in group.runs)


def _verdict(group: Group) -> str:
    results = [run.result for run in group.runs if run.result]
    return brief_verdict(results[0]) if len(results) == 1 else verdicts(results)
