"""The table at the end of a plain multirun: each configuration's mean and spread over its seeds."""

import json
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import fmean

from rich.markup import escape
from rich.table import Table

from hftraining.core.errors import ConfigError
from hftraining.core.metrics import Unit
from hftraining.reports.console import wide_console
from hftraining.reports.deltas import Group, Row, config_rows, group_by_seed, sets_apart, shown_value
from hftraining.reports.format import number
from hftraining.reports.words import ALARMED, BY_PATH, LEGEND, alarm_lines, brief_verdict, judged, verdicts
from hftraining.runs.folder import read_run
from hftraining.runs.result import PERIODS

RUNS_FILE = "runs.jsonl"  # in the folder of the multirun: one line for each finished run
NOT_SHOWN = ("seed", "name", "output_dir")
LOSS = "eval.loss"
WHOLE = 10_000  # columns of a table that goes into a file or another program, so that no line is folded
Column = tuple[str, Callable[[Group], str]]  # heading, and text of a configuration


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
    table = Table(title="configurations, mean +- spread over seeds", title_justify="left", box=None, pad_edge=False)
    columns = _columns(period, groups, rows)
    for title, _ in columns:
        # A line each: on a narrow terminal a long cell ends in dots, in a file it is whole.
        aside = title in ("configuration", _verdict_heading(period))
        table.add_column(
            title, justify="left" if aside else "right", no_wrap=True, overflow="ellipsis" if aside else "crop"
        )
    for group in sorted(groups, key=lambda group: fmean(group.values(LOSS) or [math.inf])):
        table.add_row(*(escape(text(group)) for _, text in columns))
    out = wide_console()
    if not out.is_terminal:
        out.width = WHOLE
    out.print(table)
    if held := _same_holding(period, groups):
        out.print(f"Buy and hold: {held} on the {PERIODS[period]} days.")
    if any(_has_alarm(group) for group in groups):
        out.print(escape(LEGEND))
    opened = max((result.test_openings or 0 for result in results), default=0)
    out.print(
        f"A row chosen by its test days would be chosen by luck: these test days were opened {opened} times. "
        f"The runs are listed in {path}."
    )


def _columns(period: str, groups: Sequence[Group], rows: Sequence[Row]) -> list[Column]:
    """Heading and text: what sets a configuration apart, the money, the verdict, and what stands behind it.

    Left out: the number of runs where every configuration has one, what holding earned where that is the same for all,
    and numbers that none has.
    """
    days = PERIODS[period]
    several = [("runs", lambda group: str(len(group.runs)))] if any(len(group.runs) > 1 for group in groups) else []
    money = [(f"{days} return", f"{period}.profit.total_return", Unit.CHANGE)]
    if not _same_holding(period, groups):
        money.append(("of holding", _held(period), Unit.CHANGE))
    numbers = [
        (BY_PATH["benchmark.alpha"].words.lower(), f"{period}.benchmark.alpha.value", Unit.CHANGE),
        ("test Sharpe", "test.profit.sharpe_ratio", Unit.RATIO),
        ("validation Sharpe", "valid.profit.sharpe_ratio", Unit.RATIO),
        ("eval loss", LOSS, Unit.LOSS),
    ]
    return [
        ("configuration", lambda group: _configuration(group, rows)),
        *several,
        *map(_spread, money),
        (_verdict_heading(period), _verdict),
        *(_spread(number) for number in numbers if any(group.values(number[1]) for group in groups)),
    ]


def _spread(of: tuple[str, str, Unit]) -> Column:
    title, path, unit = of
    return title, lambda group: group.spread(path).text(unit)


def _verdict_heading(period: str) -> str:
    return f"verdict ({PERIODS[period]} days)"


def _held(period: str) -> str:
    return f"{period}.baselines.buy_and_hold.total_return"


def _same_holding(period: str, groups: Sequence[Group]) -> str:
    """What holding earned, where that is the same in every run; empty otherwise."""
    texts = {number(value, Unit.CHANGE) for group in groups for value in group.values(_held(period))}
    return texts.pop() if len(texts) == 1 else ""


def _configuration(group: Group, rows: Sequence[Row]) -> str:
    """The overrides that vary; of a single configuration, what differs from the defaults.

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
