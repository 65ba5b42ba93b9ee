"""Decisions that anybody made, in any tool, traded by the one fill engine with the whole evidence.

Legend: T sessions, S symbols.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import date
from pathlib import Path

import numpy as np
import pandas as pd

from hfinference.decisions import Decisions, decisions_on, digest_of, refuse_large_positions, rows_of_frame
from hfinference.hindsight import Hindsight, hindsight
from hfinference.judged import Asked, judged_folder
from hfinference.seen_days import SLACK
from hftraining.core.bars import Bars
from hftraining.core.errors import UserError
from hftraining.core.progress import phase
from hftraining.evidence.alarms import SUSPICION, alarms
from hftraining.evidence.config import EvidenceConfig
from hftraining.experiment.config import ExperimentConfig
from hftraining.experiment.judging import Judgement, estimate_of, judge_book
from hftraining.market.config import StocksConfig
from hftraining.market.frames import bars_of
from hftraining.market.wording import plain
from hftraining.profit_tracker import ProfitTracker
from hftraining.runs.result import FinishedRun
from hftraining.trading.config import ProfitTrackerConfig
from hftraining.trading.strategies import MONTH, STRATEGIES

HINDSIGHT = "hindsight: no evidence"  # the verdict on weights that know later prices
STALE = 2  # times the longest wait between two decisions, and a month: a book that drifts for longer is mentioned


@dataclass(frozen=True)
class Evaluation:
    """What became of somebody's decisions.

    bars: of the days that were traded. weights_TS: as they were traded; of positions, what these were of the equity.
    hindsight: what the weights know that nobody knew. notes: what was moved, left out or scaled. judgement:
    the account beside baselines, null band and intervals.
    """

    bars: Bars
    weights_TS: np.ndarray
    hindsight: Hindsight
    notes: tuple[str, ...]
    judgement: Judgement = field(repr=False)

    @property
    def metrics(self) -> dict[str, float]:
        """As `trading.metrics.summarize`."""
        return self.judgement.report.metrics

    @property
    def trades(self) -> pd.DataFrame:
        """As `Simulation.trades_frame`."""
        return self.judgement.report.trades

    @property
    def equity(self) -> pd.Series:
        """By session, in currency."""
        return self.judgement.report.equity

    @property
    def warnings(self) -> tuple[str, ...]:
        """Hindsight first, then what is too good to be true, then the notes."""
        return (*self.judgement.result.alarms, *self.notes)


def evaluate(
    frame: pd.DataFrame,
    bars: Bars | pd.DataFrame,
    rules: ProfitTrackerConfig | None = None,
    *,
    start: str | None = None,
    end: str | None = None,
    evidence: EvidenceConfig | None = None,
    seed: int = 1,
    outputs: Path | str | None = None,
    name: str = "weights",
) -> Evaluation:
    """Trade decisions over bars, and hold the account against luck, buy and hold, and rules of the literature.

    frame: columns (or index levels) date, symbol, and weight (a signed fraction of equity) or position (signed shares).
    A date names the whole book as decided after the close of that session, which is filled `rules.lag` opens later:
    symbols without a row are flat, and between two dates what is held drifts. bars: Bars, or a frame as of
    market.frames.bars_of; also from before the first decision, which the baselines and hindsight need. rules: fills,
    costs, caps. start, end: ISO dates; by default from the first decision to the last bar.
    evidence: draws, and the baselines, of which those that need no model are traded; seed: of all draws.

    outputs: where to make a folder evaluations/NAME/DATE_TIME with its report, which counts in the ledger as a trial.
    Without it nothing is written or counted, and so the judgement has no verdict: that would be of the best of all
    trials. Raises UserError (a ValueError), in one line, for decisions that cannot be traded as they are: see
    decisions.decisions_on.
    """
    bars = bars_of(bars)
    config = ExperimentConfig(
        stocks=StocksConfig(name="given", source="files", path=bars.source or "bars"),
        profit_tracker=rules or ProfitTrackerConfig(),
        evidence=evidence or EvidenceConfig(),
        seed=seed,
        name=name,
    )
    book = prepared(rows_of_frame(frame), bars, config, start, end)
    return book.judged() if outputs is None else book.recorded(Path(outputs))[0]


def prepared(
    rows: pd.DataFrame, bars: Bars, config: ExperimentConfig, start: str | None = None, end: str | None = None
) -> "Book":
    """Decisions that can be traded. rows: as decisions.read_decisions. Raises UserError for those that cannot."""
    traded = [name for name in config.evidence.baselines if name in STRATEGIES]  # the others learn from features
    config = replace(config, evidence=replace(config.evidence, baselines=traded))
    tracker = ProfitTracker(config.profit_tracker)
    start, end = _day("start", start), _day("end", end)
    _refuse_outside(bars, start, end)
    decisions = decisions_on(rows, bars, tracker.config, start, end)
    window = window_of(decisions, bars, start, end)
    refuse_too_large(decisions, bars, tracker, window, rows.attrs["name"])
    return Book(rows.attrs["name"], digest_of(rows), decisions, bars, window, config)


@dataclass(frozen=True)
class Book:
    """Checked decisions, and all that they are traded with. source: the file or frame. sha256: of what it decides."""

    source: str
    sha256: str
    decisions: Decisions
    bars: Bars
    window: slice
    config: ExperimentConfig

    def judged(self) -> Evaluation:
        """Traded, with the evidence; nothing is written."""
        config = self.config
        tracker = ProfitTracker(config.profit_tracker)
        return judged_decisions(self.decisions, self.bars, tracker, config.evidence, config.seed, self.window)

    def recorded(self, outputs: Path, argv: Sequence[str] | None = None) -> tuple[Evaluation, FinishedRun]:
        """The same, with a folder in outputs and a row in the ledger, which is there before anything is traded."""
        asked = Asked(
            kind="evaluations",
            name=self.config.name,
            config=self.config,
            bars=self.bars.rows(self.window),
            whole=self.bars,
            made_of=[{"folder": self.source, "sha256": self.sha256}],
            further={"decisions.sha256": self.sha256},
        )
        with judged_folder(asked, outputs, argv) as folder:
            found = self.judged()
            verdict = HINDSIGHT if found.hindsight.later else ""
            return found, folder.conclude(found.judgement, [*found.notes, *self.bars.warnings], verdict=verdict)


def window_of(decisions: Decisions, bars: Bars, start: str | None, end: str | None) -> slice:
    """The rows of bars to trade: from the first decision, or start, to the last bar, or end. Raises UserError."""
    days_T = bars.sessions_T.astype("datetime64[D]")
    first = int(np.searchsorted(days_T, np.datetime64(start))) if start else int(decisions.row_D[0])
    last = int(np.searchsorted(days_T, np.datetime64(end), side="right")) if end else len(days_T)
    if last <= first:
        raise UserError(f"there is no trading day between {start or days_T[first]} and {end}")
    if decisions.row_D[0] >= last - 1:
        raise UserError(
            f"the first decision is of {days_T[decisions.row_D[0]]}, the last of these bars: nothing would be filled; "
            "give later bars"
        )
    return slice(first, last)


def refuse_too_large(decisions: Decisions, bars: Bars, tracker: ProfitTracker, window: slice, name: str) -> None:
    """Refuse positions beyond the caps, which shows only in the account that trades them. Raises UserError."""
    if decisions.in_shares:
        days = bars.rows(window)
        cut = Decisions(decisions.book_TS[window], in_shares=True)
        equity_T = tracker.trade(days, cut.book_TS, in_shares=True).simulation.equity_T
        refuse_large_positions(cut, equity_T, days, tracker.config, name)


def judged_decisions(
    decisions: Decisions, bars: Bars, tracker: ProfitTracker, evidence: EvidenceConfig, seed: int, window: slice
) -> Evaluation:
    """The decisions traded over a window of the bars, with the evidence. bars: all that there are."""
    days = bars.rows(window)
    baselines = {name: STRATEGIES[name](bars.close_TS, tracker.config)[window] for name in evidence.baselines}
    span = str(days.sessions_T[0])[:10], str(days.sessions_T[-1])[:10]
    with phase(f"the evidence on {len(days.sessions_T):,} days of {len(days.symbols_S):,} stocks"):
        book_TS = decisions.book_TS[window]
        judged = judge_book(days, book_TS, tracker, baselines, evidence, seed, span, decisions.in_shares)
    weights_TS = np.full(bars.close_TS.shape, np.nan)
    weights_TS[window] = judged.report.weights_TS
    seen = hindsight(weights_TS, bars)
    judged.result.alarms = [*seen.sentences, *alarms({}, estimate_of(judged.interval), SUSPICION)]
    own = [seen.note] if seen.note else []
    notes = (*own, *decisions.notes, *_stale(decisions.row_D, bars.sessions_T[: window.stop]))
    return Evaluation(days, weights_TS[window], seen, notes, judged)


def _stale(row_D: np.ndarray, sessions_T: np.ndarray) -> Sequence[str]:
    """A note where the last decision is long past at the end."""
    after = len(sessions_T) - 1 - int(row_D[-1])
    if len(row_D) < 2 or after <= max(MONTH, STALE * int(np.diff(row_D).max())):
        return []
    return [
        f"the last decision is of {str(sessions_T[row_D[-1]])[:10]}; on the {after:,} sessions after it the book only "
        "drifts: an earlier end leaves them out"
    ]


def _refuse_outside(bars: Bars, start: str | None, end: str | None) -> None:
    """Raise UserError for a start or end that the bars do not reach; a weekend beside them is none."""
    first, last = bars.sessions_T[0].astype("datetime64[D]"), bars.sessions_T[-1].astype("datetime64[D]")
    for name, day in (("start", start), ("end", end)):
        if day and not first - SLACK <= np.datetime64(day) <= last + SLACK:
            raise UserError(f"--{name} {day} lies outside the bars, which run from {first} to {last}")


def _day(name: str, text: str | None) -> str | None:
    """An ISO date, checked, as YYYY-MM-DD: numpy reads 20110103 as a year."""
    if text is None:
        return None
    try:
        return date.fromisoformat(text).isoformat()
    except (ValueError, TypeError):
        raise UserError(f"{name}={plain(text, 60)} is not an ISO date such as 2011-01-03") from None
