"""The ledger row of a run: begun before its first step, and completed with test openings and verdict at its end."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from hftraining.core.errors import status_of
from hftraining.evidence.deflation import deflated_sharpe
from hftraining.evidence.verdict import verdict
from hftraining.experiment.judging import Judgement
from hftraining.experiment.periods import Period
from hftraining.runs.ledger import LEDGER_FILE, Ledger, Trials, trials_of, variance_of
from hftraining.runs.record import RunRecord
from hftraining.runs.result import RunResult


@dataclass
class LedgerRow:
    """One run in the ledger. It counts as a trial from before its first step, however it ends."""

    ledger: Ledger
    row: int
    fingerprint: str
    valid_window: tuple[str, str]
    look: str  # config, seed and code of the run that opens the test days
    is_done: bool = False

    def open_test(self) -> int:
        """Count an opening of the sealed test days; returns how often they have been opened so far.

        A run that repeats another one with the same code sees nothing new: that is no new opening.
        """
        return self.ledger.open_test(self.row, self.look)

    def trials(self, own: Judgement | None = None) -> Trials:
        """All trials on these data and validation days. own: this row's, whose returns are not in the ledger yet."""
        entries = self.ledger.entries(fingerprint=self.fingerprint, valid_window=self.valid_window)
        if own is not None:
            returns = tuple(own.returns_T.tolist())
            entries = [replace(entry, valid_returns=returns) if entry.id == self.row else entry for entry in entries]
        return trials_of(entries)

    def judge(self, result: RunResult, judged: Mapping[str, Judgement], openings: int) -> None:
        """Fill in n_trials, deflated_sharpe, test_openings and the verdicts.

        The validation Sharpe ratio is deflated by all trials on these data and days, that of the test days by the
        number of their openings: someone could have picked the best of so many results. The run's verdict is on the
        test days, or on the validation days if the test days stay sealed.
        """
        valid = judged["valid"]
        trials = self.trials(valid)
        spread = variance_of(set(trials.sharpes_1d))  # NaN if all trials have the same: that counts as luck
        result.n_trials, result.test_openings = trials.count, openings
        result.deflated_sharpe = deflated_sharpe(valid.returns_T, trials.count, spread)
        result.verdict = _say_verdict(valid, result.deflated_sharpe, trials.count)
        if test := judged.get("test"):
            result.verdict = _say_verdict(test, deflated_sharpe(test.returns_T, openings, spread), openings)

    def done(self, valid: Judgement, result: RunResult) -> None:
        """The run is done: write its daily validation returns into the ledger."""
        self.ledger.finish(
            self.row,
            status="done",
            valid_dates=[str(day.date()) for day in valid.equity["date"][1:]],
            valid_returns=valid.returns_T.tolist(),
            sharpe=valid.result.profit["sharpe_ratio"],
            result={name: getattr(result, name) for name in ("verdict", "n_trials", "test_openings")},
        )
        self.is_done = True


def _say_verdict(judged: Judgement, deflated: float, count: int) -> str:
    null = judged.result.null
    assert null is not None and null.p is not None
    said = verdict(null.p, judged.difference, deflated_sharpe=deflated, n_trials=count, reason=null.reason)
    judged.result.verdict = said
    return said


@contextmanager
def in_the_ledger(
    outputs: Path, record: RunRecord, periods: Mapping[str, Period], resumed: bool
) -> Iterator[LedgerRow]:
    """The row of a run while it runs. An exception that ends the run gives the row its status."""
    facts = record.manifest
    windows = {name: period.window for name, period in periods.items()}
    ledger, data = Ledger(outputs / LEDGER_FILE), facts["data"]
    if resumed:
        row = ledger.resume(record.folder)
    else:
        own = {name: facts[name] for name in ("kind", "name", "signature", "started")}
        bars = {name: data[name] for name in ("fingerprint", "symbols")}
        row = ledger.begin(**own, **bars, folder=record.folder, windows=windows)
    look = f"{facts['signature']} {facts['code'].get('digest') or facts['started']}"
    found = LedgerRow(ledger, row, data["fingerprint"], windows["valid"], look)
    try:
        yield found
    except BaseException as end:
        if not found.is_done:  # what goes wrong after that, a closed pipe for example, changes no result
            ledger.finish(row, status=status_of(end))
        raise
