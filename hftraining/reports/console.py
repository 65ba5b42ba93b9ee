"""What the terminal shows: a run while it trains, its numbers at the end, and the tables of other commands."""

import errno
import logging
import math
import sys
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from types import TracebackType

from rich import box
from rich.console import Console as RichConsole
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from hftraining.core.metrics import PROFIT, Unit
from hftraining.reports.format import is_known, number
from hftraining.reports.recommendations import COLUMNS
from hftraining.reports.words import LUCK, alarm_lines, days_of, evidence_rows, judged, money_line, money_of, with_days
from hftraining.runs.result import PERIODS, Number, PeriodResult, Recommendation, RunResult

logger = logging.getLogger("hftraining")

Columns = Mapping[str, Mapping[str, Number]]  # the metrics by the heading of their column
PLAIN_LINES = 20  # about so many lines replace the progress bar outside a terminal


class Terminal(RichConsole):
    """Rich's console, which tells the command when nobody reads any more; Rich's own would end the process."""

    def on_broken_pipe(self) -> None:
        """Be quiet from now on, so that what is closed on the way out does not fail, too."""
        self.quiet = True
        raise BrokenPipeError(errno.EPIPE, "nobody reads the output any more")


class FewOfAKind(logging.Filter):
    """Shows the first three warnings of a kind; all of them are in train.log."""

    MOST = 3

    def __init__(self) -> None:
        super().__init__()
        self.seen: Counter[str] = Counter()

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether to show a warning. Its kind is its text before the values are put in."""
        self.seen[str(record.msg)] += 1
        return self.seen[str(record.msg)] <= self.MOST


def wide_console(quiet: bool = False) -> RichConsole:
    """The terminal; 160 columns wide, not 80, when the output goes to a file or another program."""
    return Terminal(highlight=False, width=None if sys.stdout.isatty() else 160, quiet=quiet)


def plain_table(*heads: str) -> Table:
    """A table without a frame that folds long cells."""
    table = Table(box=box.SIMPLE, header_style="dim", pad_edge=False, show_edge=False)
    for head in heads:
        table.add_column(escape(head), overflow="fold")
    return table


class Console:
    """A run on the terminal: a progress bar, or plain lines where there is none. Lines also go into train.log.

    quiet: into train.log only.
    """

    def __init__(self, max_steps: int, first_step: int, report_every: int, quiet: bool = False):
        self.out = Terminal(highlight=False, soft_wrap=not sys.stdout.isatty(), quiet=quiet)
        self.max_steps, self.first_step, self.report_every = max_steps, first_step, report_every
        self.line_every = max(1, max_steps // PLAIN_LINES)
        self.sharpe = self.eval_loss = math.nan
        self.warnings = logging.StreamHandler(sys.stderr)  # warnings are shown, not only logged
        self.warnings.setLevel(logging.WARNING)
        self.warnings.addFilter(FewOfAKind())
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
        """Print a line and log it. Markup in it has no effect."""
        self.out.print(line, markup=False)
        logger.info("%s", line)

    def step(self, step: int, values: Mapping[str, float], report: Columns | None) -> None:
        """Show a step. values: its logged values. report: the metrics of the last probe, strategy and baselines."""
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
            self._metrics(f"validation days after step {step}", report)

    def stopped(self, step: int, patience: int) -> None:
        """Say that training stopped early, if it did."""
        if step < self.max_steps:
            probes = "1 probe was" if patience == 1 else f"{patience} probes were"
            self.say(f"  stopped after step {step} of {self.max_steps}: {probes} no better (training.patience)")

    def summary(self, result: RunResult) -> None:
        """Print the result of a run: money, verdict, losses, profits beside the baselines, evidence, and alarms."""
        self.say(money_line(result) or "finished, without a profit to show")
        opened = f"openings so far: {result.test_openings}, " if result.test else ""
        self.say(
            f"verdict on the {PERIODS['test' if opened else 'valid']} days ({opened}trials on these data: "
            f"{result.n_trials}): {result.verdict}"
        )
        for name, words in (("train", "training"), ("valid", "validation")):
            losses = result.loss[name]
            model, nothing = losses.model, losses.nothing_changes
            if model is None or nothing is None or not is_known(model):
                continue
            verb = "is below" if model < nothing else "is NOT below"
            self.say(
                f'{words} days: forecast loss {number(model, Unit.LOSS)} {verb} that of "nothing changes" '
                f"({number(nothing, Unit.LOSS)}); one constant forecast gives {number(losses.unconditional, Unit.LOSS)}"
            )
        for name, period in result.periods.items():
            self._period(name, period, is_said=name == judged(result))
        if any(evidence_rows({name: period}) for name, period in result.periods.items()):
            self.say(f"  square brackets hold 95 % intervals; luck is {LUCK}")
        for alarm in alarm_lines(result):
            self.say(f"ALARM: {alarm}")

    def recommendation(self, recommendation: Recommendation) -> None:
        """Print the table of candidates of a fine-tune, and the one that it recommends."""
        rows = [
            (
                name.replace("_", " ") + (" *" if name == recommendation.choice else ""),
                *(text(found) for *_, text in COLUMNS),
            )
            for name, found in recommendation.candidates.items()
        ]
        self._table("on the validation days", [heading for _, heading, _ in COLUMNS], rows)
        logger.info("recommendation: %s", recommendation)
        for name, found in recommendation.candidates.items():
            if found.money:
                self.say(f"  {name.replace('_', ' ')}: {found.money} Verdict: {found.verdict}")
        self.say(f"  brackets hold 95 % intervals; trials on these data and days: {recommendation.n_trials}")
        self.say(f"recommendation: {recommendation.sentence}")

    def _period(self, name: str, period: PeriodResult, is_said: bool) -> None:
        """is_said: the summary has begun with the money and the verdict of this period."""
        baselines = {rival.replace("_", " "): found.metrics for rival, found in period.baselines.items()}
        if not is_said and money_of(period):
            self.say(with_days(money_of(period), days_of(name, period)))
            self.say(f"  {period.verdict}")
        self._metrics(
            f"{PERIODS[name]} days, {period.first} to {period.last}", {"strategy": period.profit, **baselines}
        )
        for row, (text,) in evidence_rows({name: period}):
            self.say(f"  {row.words}: {text}")

    def _metrics(self, title: str, columns: Columns) -> None:
        rows = [
            (metric.words, *(number(metrics.get(metric.name), metric.unit) for metrics in columns.values()))
            for metric in PROFIT
        ]
        self._table(title, tuple(columns), rows)
        logger.info("%s: %s", title, {column: dict(metrics) for column, metrics in columns.items()})

    def _table(self, title: str, headings: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
        table = Table(title=title, title_justify="left", box=None, pad_edge=False)
        table.add_column("")
        for heading in headings:
            table.add_column(heading, justify="right")
        for row in rows:
            table.add_row(*map(escape, row))  # a name from outside, or an interval in brackets, is no markup
        (self.out if self.out.is_terminal else wide_console(self.out.quiet)).print(table)

    def __enter__(self) -> "Console":
        logger.addHandler(self.warnings)
        if self.bar is not None:
            self.bar.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        logger.removeHandler(self.warnings)
        if self.bar is not None:
            self.bar.stop()
