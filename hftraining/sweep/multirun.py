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
from hftraining.reports.deltas import Group, Row, config_rows, group_by_seed, sets_apart, shown_value
from hftraining.reports.format import estimate, number
from hftraining.reports.terminal import wide_console
from hftraining.reports.words import ALARMED, BY_PATH, LEGEND, alarm_lines, brief_verdict, judged, verdicts
from hftraining.runs.folder import read_run
from hftraining.runs.quantities import Estimate
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
    several = [("runs", lambda group: str(len(group.runs)))] if any(len(group.runs) > 1 for group in groups) else []
    money = [_spread_of(f"{PERIODS[period]} return", f"{period}.profit.total_return", Unit.CHANGE)]
    if not _same_holding(period, groups):
        money.append(_spread_of("of holding", _held(period), Unit.CHANGE))
    numbers = {
        f"{period}.benchmark.alpha.value": _spread_of(
            BY_PATH["benchmark.alpha"].words.lower(), f"{period}.benchmark.alpha.value", Unit.CHANGE
        ),
        "test.profit.sharpe_ratio": ("test Sharpe", _sharpe_of("test")),
        "valid.profit.sharpe_ratio": ("validation Sharpe", _sharpe_of("valid")),
        LOSS: _spread_of("eval loss", LOSS, Unit.LOSS),
        "valid.scores.rank_ic.value": ("validation rank IC", _rank_ic),
        "parameters": _spread_of("parameters", "parameters", Unit.COUNT),
    }
    known = [column for path, column in numbers.items() if any(group.values(path) for group in groups)]
    if any(group.cpu_seconds.n for group in groups):
        known.append(("CPU s", lambda group: group.cpu_seconds.text(Unit.RATIO)))
    return [
        ("configuration", lambda group: _configuration(group, rows)),
        *several,
        *money,
        (_verdict_heading(period), _verdict),
        *known,
    ]


def _spread_of(title: str, path: str, unit: Unit) -> Column:
    return title, lambda group: group.spread(path).text(unit)


def _sharpe_of(period: str) -> Callable[[Group], str]:
    """Of several seeds their mean and spread, of one run its interval."""
    path = f"{period}.profit.sharpe_ratio"

    def text(group: Group) -> str:
        found = [run.result.periods[period] for run in group.replicates if run.result and period in run.result.periods]
        if len(found) != 1:
            return group.spread(path).text(Unit.RATIO)
        return estimate(Estimate(found[0].profit.get("sharpe_ratio"), *found[0].interval), Unit.RATIO, signed=False)

    return text


def _rank_ic(group: Group) -> str:
    """Of several seeds their mean and spread, of one run its t."""
    mean, t = (group.spread(f"valid.scores.rank_ic.{name}") for name in ("value", "t"))
    return mean.text(Unit.SCORE) + (f" (t {t.text(Unit.RATIO)})" if mean.n == 1 and t.n == 1 else "")


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
