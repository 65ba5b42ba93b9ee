"""What the terminal shows: a run while it trains, its numbers at the end, and the tables of other commands."""

import logging
import math
import sys
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from statistics import fmean
from types import TracebackType

from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from hftraining.core.metrics import BY_NAME, LOSS_TAG, PROFIT, Unit
from hftraining.reports import members
from hftraining.reports.format import UNKNOWN, capitalised, filled, interval, number
from hftraining.reports.recommendations import COLUMNS
from hftraining.reports.tables import FOLD_COLUMNS, fold_rows
from hftraining.reports.terminal import Terminal, wide_console
from hftraining.reports.words import alarm_lines, days_of, judged, loss_line, money_line, money_of, with_days
from hftraining.runs.member_results import EnsembleResult
from hftraining.runs.quantities import Estimate, Number
from hftraining.runs.result import PERIODS, PeriodResult, Recommendation, RunResult

logger = logging.getLogger("hftraining")

Columns = Mapping[str, Mapping[str, Number]]  # the metrics by the heading of their column
BAR = 14  # characters; what the bar says beside it fits into a terminal of 80
PLAIN_LINES = 10  # about so many lines replace the progress bar outside a terminal, beside those of the probes
NEXT = "python -m hftraining portfolios {folder}   (other portfolios of these forecasts, without training)"


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


def _training_loss(values: Mapping[str, float]) -> float:
    """The part of the training loss that the validation loss measures: that of the forecasts, if there is one."""
    tags = ("train/forecast_loss", "train/profit_loss", "train/loss")
    return next((values[tag] for tag in tags if tag in values), math.nan)


Cells = Callable[[PeriodResult], tuple[str, str]]  # the model, and holding


def _metric(name: str) -> Cells:
    unit = BY_NAME[name].unit
    return lambda period: (number(period.profit.get(name), unit), number(period.held.get(name), unit))


def _alone(text: Callable[[PeriodResult], str]) -> Cells:
    return lambda period: (text(period), "")


def _ends(found: Callable[[PeriodResult], Estimate | None], unit: Unit) -> Cells:
    def cells(period: PeriodResult) -> tuple[str, str]:
        estimate = found(period) or Estimate()
        return interval(estimate.low, estimate.high, unit), ""

    return cells


def _alpha(period: PeriodResult) -> Estimate | None:
    return period.benchmark.alpha if period.benchmark else None


CLOSING: tuple[tuple[str, Cells], ...] = (  # the rows of the last table
    ("total return", _metric("total_return")),
    ("Sharpe ratio", _metric("sharpe_ratio")),
    ("", _ends(lambda period: Estimate(None, *period.interval), Unit.RATIO)),
    ("  less holding's", _alone(lambda period: number((period.difference or Estimate()).value, Unit.RATIO, True))),
    ("", _ends(lambda period: period.difference, Unit.RATIO)),
    ("alpha a year", _alone(lambda period: number((_alpha(period) or Estimate()).value, Unit.CHANGE))),
    ("", _ends(_alpha, Unit.CHANGE)),
    ("chance of luck, p", _alone(lambda period: number(period.null.p if period.null else None, Unit.SCORE))),
    ("maximum drawdown", _metric("max_drawdown")),
    ("mean exposure", _metric("exposure")),
    ("turnover a year", _metric("turnover")),
    ("costs, of the capital", _metric("costs")),
    ("closed trades", _metric("trade_count")),
)


class Console:
    """A run on the terminal: a progress bar, or plain lines where there is none. Lines also go into train.log.

    quiet: into train.log only.
    """

    def __init__(self, max_steps: int, first_step: int, report_every: int, quiet: bool = False):
        self.out = Terminal(highlight=False, soft_wrap=not sys.stdout.isatty(), quiet=quiet)
        self.max_steps, self.first_step, self.report_every = max_steps, first_step, report_every
        self.line_every = max(1, max_steps // PLAIN_LINES)
        self.probed = ""  # what the last probe found, for the bar
        self.batches: list[Mapping[str, float]] = []  # the training steps since the last probe, unread
        self.refreshed = 0.0  # when the bar's words were last renewed
        self.warnings = logging.StreamHandler(sys.stderr)  # warnings are shown, not only logged
        self.warnings.setLevel(logging.WARNING)
        self.warnings.addFilter(FewOfAKind())
        self.bar: Progress | None = None
        self.started = time.monotonic()
        if self.out.is_terminal and not quiet:
            self.bar = Progress(
                BarColumn(BAR),
                MofNCompleteColumn(),
                TextColumn("{task.fields[said]}"),
                TimeRemainingColumn(compact=True),
                console=self.out,
            )
            self.task = self.bar.add_task("", total=max_steps, completed=first_step, said="")

    def begin(self) -> None:
        """The first step is about to be taken: the rate counts from now."""
        self.started = time.monotonic()

    def say(self, line: str) -> None:
        """Print a line and log it. Markup in it has no effect."""
        self.out.print(line, markup=False)
        logger.info("%s", line)

    def step(self, step: int, values: Mapping[str, float], report: Columns | None, best: bool = False) -> None:
        """Show a step: a probe with a line of its own, the others by the bar or by one line in many.

        values: its logged values. report: the metrics of the last probe, model and buy and hold. best: whether this
        step's probe is the best so far.
        """
        self.batches.append(values)
        rate = (step - self.first_step) / max(1e-9, time.monotonic() - self.started)
        if LOSS_TAG in values:
            self.probed = self._probe(step, values, best)
        elif self.bar is None and step % self.line_every == 0:
            loss = number(_training_loss(values), Unit.LOSS)
            left = (self.max_steps - step) / rate
            self.say(f"step {step}/{self.max_steps}: training loss {loss}  {rate:.1f} steps/s, {left:.0f} s left")
        if self.bar is not None:
            self._move(self.bar, step, values)
        if LOSS_TAG in values:
            self.batches = []
        if report is not None and step % self.report_every == 0:
            self._metrics(f"validation days after step {step}", report)

    def _move(self, bar: Progress, step: int, values: Mapping[str, float]) -> None:
        """Move the bar; its words change twice a second at most, since reading a loss waits for the device."""
        bar.update(self.task, completed=step)
        if LOSS_TAG in values or time.monotonic() > self.refreshed + 0.5 or step == self.max_steps:
            said = f"loss {number(_training_loss(values), Unit.LOSS)}{self.probed}"
            bar.update(self.task, said=said)
            self.refreshed = time.monotonic()

    def _probe(self, step: int, values: Mapping[str, float], best: bool) -> str:
        """Say what a probe found, like with like: the same loss of the batches since the last probe beside it."""
        loss, sharpe = (
            number(values.get(tag), unit) for tag, unit in ((LOSS_TAG, Unit.LOSS), ("profit/sharpe_ratio", Unit.RATIO))
        )
        training = number(fmean(map(_training_loss, self.batches)), Unit.LOSS)
        self.say(
            f"step {step}/{self.max_steps}: {'best so far, ' if best else ''}validation loss {loss} (training "
            f"{training}), Sharpe {sharpe}, return {number(values.get('profit/total_return'), Unit.CHANGE)}"
        )
        return f", validation {loss}, Sharpe {sharpe}"

    def stopped(self, step: int, patience: int) -> None:
        """Say that training stopped early, if it did."""
        if step < self.max_steps:
            probes = "1 probe was" if patience == 1 else f"{patience} probes were"
            self.say(f"  stopped after step {step} of {self.max_steps}: {probes} no better (training.patience)")

    def summary(self, result: RunResult, folder: Path) -> None:
        """Print the result of a run: one table, then the money, the verdict, the losses, alarms, and where to look."""
        self._periods(result)
        if result.folds:
            self._table(
                "folds, each forecast by a model that has not seen its days",
                FOLD_COLUMNS[1:],
                fold_rows(result.folds),
            )
        if result.ensemble:
            self._members(result, result.ensemble, folder)
        self.say(money_line(result) or "finished, without a profit to show")
        opened = f"openings so far: {result.test_openings}, " if result.test_openings else ""
        name = judged(result)
        self.say(
            f"verdict on the {PERIODS[name or 'valid']} days ({opened}trials on these data: "
            f"{result.n_trials}): {result.verdict}"
        )
        for other, period in result.periods.items():
            if other != name and money_of(period):
                self.say(f"{with_days(money_of(period), days_of(other, period))} {capitalised(period.verdict or '')}")
        if losses := loss_line(result):
            self.say(losses)
        if result.in_sample:
            self.say(f"IN SAMPLE: {result.in_sample}")
        for alarm in alarm_lines(result):
            self.say(f"ALARM: {alarm}")
        self.say(f"report: {folder / 'report.html'}")
        if "backtest" not in result.periods and result.steps is not None:
            self.say(f"next: {NEXT.format(folder=folder)}")

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

    def _members(self, result: RunResult, found: EnsembleResult, folder: Path) -> None:
        """A table for each period: the ensemble, and each member by itself."""
        for name in members.periods_of(found):
            rows = [("the ensemble", "", *(text(members.as_row(result, name)) for *_, text in members.COLUMNS))]
            rows += [
                (
                    f"{member.name} ({member.kind})",
                    filled("{:.3f}", member.weight),
                    *(text(member.periods[name]) for *_, text in members.COLUMNS),
                )
                for member in found.members
            ]
            headings = ["weight", *(heading for _, heading, _ in members.COLUMNS)]
            self._table(f"members, on the {PERIODS[name]} days", headings, rows)
        for line in members.sentences(found, members.cpu_seconds(folder, found)):
            self.say(f"  {line}")

    def _periods(self, result: RunResult) -> None:
        """One table of all periods, the model beside holding; the other baselines are in the report."""
        traded = {name: period for name, period in result.periods.items() if period.profit}
        if not traded:
            return
        heads = [head for name in traded for head in (PERIODS[name], "holding")]
        rows = [(words, *(text for period in traded.values() for text in cells(period))) for words, cells in CLOSING]
        known = [row for row in rows if set(row[1:]) - {UNKNOWN, ""}]
        self._table("after all costs, with 95 % intervals", heads, known)
        logger.info("%s", {name: dict(period.profit) for name, period in traded.items()})

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
