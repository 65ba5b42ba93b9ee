"""What the terminal shows while a run trains: a progress bar, or plain lines where there is no terminal."""

import logging
import math
import sys
import time
from collections.abc import Mapping
from types import TracebackType
from typing import Any

from rich.console import Console as RichConsole
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from hftraining.profit_tracker import ProfitReport

logger = logging.getLogger("hftraining")

# name, what people call it, whether it is a fraction that people read in percent
REPORTED = (
    ("total_return", "total return", True),
    ("sharpe_ratio", "Sharpe ratio", False),
    ("sortino_ratio", "Sortino ratio", False),
    ("max_drawdown", "maximum drawdown", True),
    ("volatility", "volatility a year", True),
    ("win_rate", "win rate", True),
    ("trade_count", "closed trades", False),
    ("turnover", "turnover a year", False),
    ("costs", "costs, of the initial capital", True),
    ("exposure", "mean exposure", True),
)
WIDE = 130  # columns of a table that no terminal limits
PLAIN_LINES = 20  # about so many lines a run where there is no progress bar


class Console:
    """Prints to the terminal and writes the same lines into train.log; quiet, into train.log alone."""

    def __init__(self, max_steps: int, first_step: int, report_every: int, quiet: bool = False):
        self.out = RichConsole(highlight=False, soft_wrap=not sys.stdout.isatty(), quiet=quiet)
        self.max_steps, self.first_step, self.report_every = max_steps, first_step, report_every
        self.line_every = max(1, max_steps // PLAIN_LINES)
        self.sharpe = self.eval_loss = math.nan
        self.warnings = logging.StreamHandler(sys.stderr)  # what goes wrong on the way is seen, not only logged
        self.warnings.setLevel(logging.WARNING)
        self.bar: Progress | None = None
        self.started = time.monotonic()
        if self.out.is_terminal and not quiet:
            columns = "loss {task.fields[loss]:.4f}  Sharpe {task.fields[sharpe]:.2f}  {task.fields[rate]:.1f} steps/s"
            self.bar = Progress(
                TextColumn("training"),
                BarColumn(),
                MofNCompleteColumn(),
                TextColumn(columns),
                TimeRemainingColumn(),
                console=self.out,
            )
            self.task = self.bar.add_task(
                "", total=max_steps, completed=first_step, loss=math.nan, sharpe=math.nan, rate=0
            )

    def say(self, line: str) -> None:
        """A line for people, on the terminal and in train.log. Text from outside is not read as markup."""
        self.out.print(line, markup=False)
        logger.info("%s", line)

    def step(self, step: int, values: Mapping[str, float], report: ProfitReport | None) -> None:
        """A step went by. `report` is the last probe's."""
        self.sharpe = values.get("profit/sharpe_ratio", self.sharpe)
        self.eval_loss = values.get("eval/loss", self.eval_loss)
        rate = (step - self.first_step) / max(1e-9, time.monotonic() - self.started)
        if self.bar is not None:
            self.bar.update(self.task, completed=step, loss=values["train/loss"], sharpe=self.sharpe, rate=rate)
        elif step % self.line_every == 0 or step == self.max_steps:
            left = (self.max_steps - step) / rate
            self.say(
                f"step {step}/{self.max_steps}  loss {values['train/loss']:.4f}  eval loss {self.eval_loss:.4f}  "
                f"Sharpe {self.sharpe:.2f}  {rate:.1f} steps/s  {left:.0f} s left"
            )
        if report is not None and (step % self.report_every == 0 or step == self.max_steps):
            self._table(
                f"validation days after step {step}",
                {"strategy": report.metrics, "buy and hold": report.buy_and_hold.metrics},
            )

    def stopped(self, step: int, patience: int) -> None:
        """Training is over; say so where it ended before its last step."""
        if step < self.max_steps:
            probes = "1 probe was" if patience == 1 else f"{patience} probes were"
            self.say(f"  stopped after step {step} of {self.max_steps}: {probes} no better (training.patience)")

    def summary(self, result: Mapping[str, Any]) -> None:
        """The end of a run: what was learned and what it earned, beside what doing nothing would have."""
        for name in ("train", "valid"):
            losses = result["loss"][name]
            if losses["model"] is None or not math.isfinite(losses["model"]):
                continue
            verb = "is below" if losses["model"] < losses["nothing_changes"] else "is NOT below"
            self.say(
                f'{name} days: forecast loss {losses["model"]:.4f} {verb} that of "nothing changes" '
                f"({losses['nothing_changes']:.4f}); one constant forecast gives {losses['unconditional']:.4f}"
            )
        for name in ("valid", "test"):
            if name not in result:
                continue
            part = result[name]
            title = f"{name} days, {part['first']} to {part['last']}"
            self._table(title, {"strategy": part["profit"], **part["baselines"]})
            low, high = (_shown(value, False) for value in part["interval"])
            least, _, most = (_shown(value, False) for value in part["null"]["band"])
            self.say(f"  Sharpe {_shown(part['profit']['sharpe_ratio'], False)}, 95 % interval [{low}, {high}]")
            self.say(
                f"  the same book at other times, 5 to 95 %: [{least}, {most}], p = {_shown(part['null']['p'], False)}"
            )
            self.say(f"  {part['verdict']}")
        opened = f"openings so far: {result['test_openings']}, " if "test" in result else ""
        self.say(
            f"verdict on the {'test' if opened else 'validation'} days ({opened}trials on these data: "
            f"{result['n_trials']}): {result['verdict']}"
        )

    def decision(self, decision: Mapping[str, Any]) -> None:
        """The decision table of a fine-tune, and what it recommends."""
        table = Table(title="on the validation days", title_justify="left", box=None, pad_edge=False)
        for head in ("", "loss", "less the base's", "return", "Sharpe", "less the base's", "p", "forgetting"):
            table.add_column(head, justify="right" if head else "left")
        for name, row in decision["candidates"].items():
            profit = row.get("profit") or {}
            table.add_row(
                name.replace("_", " ") + (" *" if name == decision["choice"] else ""),
                _digits(row.get("loss"), 4),
                _between(row.get("loss_difference"), 4),
                _shown(profit.get("total_return"), True),
                _shown(profit.get("sharpe_ratio"), False),
                _between(row.get("difference"), 2),
                _digits(row.get("p"), 3),
                _between(row.get("forgetting"), 4),
            )
        out = self.out if self.out.is_terminal else RichConsole(width=WIDE, highlight=False, quiet=self.out.quiet)
        out.print(table)
        logger.info("decision: %s", dict(decision))
        self.say(f"  brackets hold 95 % intervals; trials on these data and days: {decision['n_trials']}")
        self.say(f"decision: {decision['sentence']}")

    def _table(self, title: str, columns: Mapping[str, Mapping[str, float]]) -> None:
        table = Table(title=title, title_justify="left", box=None, pad_edge=False)
        table.add_column("")
        for column in columns:
            table.add_column(column.replace("_", " "), justify="right")
        for name, words, percent in REPORTED:
            table.add_row(words, *(_shown(metrics[name], percent) for metrics in columns.values()))
        self.out.print(table)
        logger.info("%s: %s", title, {c: {n: metrics[n] for n, *_ in REPORTED} for c, metrics in columns.items()})

    def __enter__(self) -> "Console":
        logger.addHandler(self.warnings)
        if self.bar is not None:
            self.bar.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        logger.removeHandler(self.warnings)
        if self.bar is not None:
            self.bar.stop()


def _shown(value: float | None, percent: bool) -> str:
    if value is None or not math.isfinite(value):
        return "-"
    if isinstance(value, int) or (float(value).is_integer() and abs(value) >= 10):
        return f"{value:.0f}"
    return f"{value:.2%}" if percent else f"{value:.2f}"


def _digits(value: float | None, digits: int) -> str:
    return "-" if value is None or not math.isfinite(value) else f"{value:.{digits}f}"


def _between(found: Mapping[str, float] | None, digits: int) -> str:
    if found is None or not math.isfinite(found["value"]):
        return "-"
    low, high = (_digits(found[end], digits) for end in ("low", "high"))
    return f"{found['value']:+.{digits}f} [{low}, {high}]"
