"""The ledger row of a run: written before its first step, with the sealed test days and the verdict at its end."""

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from statistics import variance

from hftraining.core.errors import status_of
from hftraining.evidence.deflation import deflated_sharpe
from hftraining.evidence.verdict import verdict
from hftraining.experiment.judging import Judgement
from hftraining.experiment.periods import Period
from hftraining.runs.ledger import LEDGER_FILE, Ledger, Trials, trials_of
from hftraining.runs.record import RunRecord
from hftraining.runs.result import PeriodResult, RunResult


class LedgerRow:
    """One run in the ledger. It counts from before its first step, whatever becomes of it."""

    def __init__(self, ledger: Ledger, row: int, fingerprint: str, valid_window: tuple[str, str], look: str):
        """look: what opens the test window, named by config, seed and code."""
        self.ledger, self.row, self.look = ledger, row, look
        self.fingerprint, self.valid_window = fingerprint, valid_window

    def open_test(self) -> int:
        """Count an opening of the sealed test window; returns how often these days were opened so far.

        A run that repeats another one, with the same code, sees what is known: it is not a new opening.
        """
        return self.ledger.open_test(self.row, self.look)

    def trials(self, own: Judgement | None = None) -> Trials:
        """Every trial on these data and validation days. own: of this row, which has no returns in the ledger yet."""
        entries = self.ledger.entries(fingerprint=self.fingerprint, valid_window=self.valid_window)
        if own is not None:
            returns = tuple(own.returns_T.tolist())
            entries = [replace(entry, valid_returns=returns) if entry.id == self.row else entry for entry in entries]
        return trials_of(entries)

    def judge(self, result: RunResult, judged: Mapping[str, Judgement], openings: int) -> None:
        """Fill in n_trials, deflated_sharpe, test_openings and the verdicts.

        The validation Sharpe ratio is deflated by all trials on these data and days. The test days are deflated by the
        number of times that they were opened: that many results could have been picked from. The run's verdict is
        that on the test days, or on the validation days where the test days stay sealed.
        """
        valid = judged["valid"]
        trials = self.trials(valid)
        known = sorted(set(trials.sharpes_1d))
        # Of several trials with a single Sharpe ratio between them the spread is unknown: NaN, which counts as chance.
        spread = variance(known) if len(known) > 1 else math.nan
        result.n_trials, result.test_openings = trials.count, openings
        result.deflated_sharpe = deflated_sharpe(valid.returns_T, trials.count, spread)
        result.verdict = _say_verdict(valid, result.deflated_sharpe, trials.count)
        if test := judged.get("test"):
            result.verdict = _say_verdict(test, deflated_sharpe(test.returns_T, openings, spread), openings)

    def done(self, valid: Judgement, result: RunResult) -> None:
        """The run has ended well: its daily validation returns go into the ledger."""
        self.ledger.finish(
            self.row,
            status="done",
            valid_dates=[str(day.date()) for day in valid.equity["date"][1:]],
            valid_returns=valid.returns_T.tolist(),
            sharpe=valid.result.profit["sharpe_ratio"],
            result={name: getattr(result, name) for name in ("verdict", "n_trials", "test_openings")},
        )


def _say_verdict(judged: Judgement, deflated: float, count: int) -> str:
    window: PeriodResult = judged.result
    assert window.null is not None and window.null.p is not None
    window.verdict = verdict(
        window.null.p, judged.difference, deflated_sharpe=deflated, n_trials=count, reason=window.null.reason
    )
    return window.verdict


@contextmanager
def in_the_ledger(
    outputs: Path, record: RunRecord, periods: Mapping[str, Period], resumed: bool
) -> Iterator[LedgerRow]:
    """The row of a run while it runs. What ends the run is written into the row."""
    facts = record.manifest
    windows = {name: period.window for name, period in periods.items()}
    ledger, data = Ledger(outputs / LEDGER_FILE), facts["data"]
    if resumed:
        row = ledger.resume(record.folder)
    else:
        row = ledger.begin(
            kind=facts["kind"],
            name=facts["name"],
            folder=record.folder,
            signature=facts["signature"],
            fingerprint=data["fingerprint"],
            symbols=data["symbols"],
            windows=windows,
            started=facts["started"],
        )
    try:
        look = f"{facts['signature']} {facts['code'].get('digest') or facts['started']}"
        yield LedgerRow(ledger, row, data["fingerprint"], windows["valid"], look)
    except BaseException as end:
        ledger.finish(row, status=status_of(end))
        raise
