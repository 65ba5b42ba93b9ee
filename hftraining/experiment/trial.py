"""A run as a trial: its row in the ledger, the sealed test window, and the verdict on what it found."""

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from statistics import variance
from typing import Any

from hftraining.evidence.deflation import deflated_sharpe
from hftraining.evidence.verdict import verdict
from hftraining.experiment.judging import Judgement
from hftraining.experiment.periods import Period
from hftraining.runs.ledger import LEDGER_FILE, Ledger, trials_of


class Trial:
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

    def verdicts(self, judged: Mapping[str, Judgement], openings: int) -> dict[str, Any]:
        """n_trials, deflated_sharpe, test_openings and the verdict, for result.json.

        The validation Sharpe is deflated by all trials on these data and days, from the ledger. The test days are
        deflated by the number of times that they were opened: that many results could have been picked from. The
        verdict is that on the test days, or on the validation days where the test days stay sealed.
        """
        valid = judged["valid"]
        own = tuple(valid.returns_T.tolist())  # not in the ledger yet
        trials = trials_of(
            [
                replace(entry, valid_returns=own) if entry.id == self.row else entry
                for entry in self.ledger.entries(fingerprint=self.fingerprint, valid_window=self.valid_window)
            ]
        )
        known = sorted(set(trials.sharpes_1d))
        # Of several trials with a single Sharpe between them the spread is unknown: NaN, which is judged as chance.
        spread = variance(known) if len(known) > 1 else math.nan
        deflated = deflated_sharpe(valid.returns_T, trials.count, spread)
        parts = [(valid, deflated, trials.count)]
        if test := judged.get("test"):
            parts.append((test, deflated_sharpe(test.returns_T, openings, spread), openings))
        for part, value, count in parts:
            null = part.result["null"]
            part.result["verdict"] = verdict(
                null["p"], part.difference, deflated_sharpe=value, n_trials=count, reason=null["reason"]
            )
        return {
            "n_trials": trials.count,
            "deflated_sharpe": deflated,
            "test_openings": openings,
            "verdict": parts[-1][0].result["verdict"],
        }

    def done(self, valid: Judgement, result: Mapping[str, Any]) -> None:
        """The run has ended well: its daily validation returns go into the ledger."""
        self.ledger.finish(
            self.row,
            status="done",
            valid_dates=[str(day.date()) for day in valid.equity["date"][1:]],
            valid_returns=valid.returns_T.tolist(),
            sharpe=valid.result["profit"]["sharpe_ratio"],
            result={name: result[name] for name in ("verdict", "n_trials", "test_openings")},
        )


@contextmanager
def in_the_ledger(
    outputs: Path,
    folder: Path,
    facts: Mapping[str, Any],
    periods: Mapping[str, Period],
    resumed: bool,
    endings: Mapping[str, tuple[type[BaseException], ...]],
) -> Iterator[Trial]:
    """The row of a run while it runs. facts: its run.json. What ends the run is written into the row.

    endings: the exceptions that have a status of their own, by status; any other one is a failure.
    """
    windows = {
        name: (str(period.bars.sessions_T[0]), str(period.bars.sessions_T[-1])) for name, period in periods.items()
    }
    ledger = Ledger(outputs / LEDGER_FILE)
    data = facts["data"]
    if resumed:
        row = ledger.resume(folder)
    else:
        row = ledger.begin(
            kind=facts["kind"],
            name=facts["name"],
            folder=folder,
            signature=facts["signature"],
            fingerprint=data["fingerprint"],
            symbols=data["symbols"],
            windows=windows,
            started=facts["started"],
        )
    try:
        look = f"{facts['signature']} {facts['code'].get('digest') or facts['started']}"
        yield Trial(ledger, row, data["fingerprint"], windows["valid"], look)
    except BaseException as end:
        status = next((name for name, kinds in endings.items() if isinstance(end, kinds)), "failed")
        ledger.finish(row, status=status)
        raise
