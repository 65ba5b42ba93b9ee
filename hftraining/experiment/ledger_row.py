"""The ledger row of a run: begun before its first step, and completed with test openings and verdict at its end."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from hftraining.core.bars import Bars
from hftraining.core.errors import status_of
from hftraining.evidence.config import EvidenceConfig
from hftraining.experiment.judging import Judgement
from hftraining.experiment.periods import Period
from hftraining.experiment.selecting import days_of, decide
from hftraining.runs.ledger import Ledger
from hftraining.runs.ledger_file import ledger_path
from hftraining.runs.month_digests import month_digests
from hftraining.runs.record import RunRecord
from hftraining.runs.result import RunResult
from hftraining.runs.take_over import take_over
from hftraining.runs.trials import Days, Trials


@dataclass
class LedgerRow:
    """One run in the ledger. It counts as a trial from before its first step, however it ends."""

    ledger: Ledger
    row: int
    is_done: bool = False

    def open_test(self) -> int:
        """Count an opening of the sealed test days; returns how often they have been opened so far.

        A run that repeats another one with the same code sees nothing new: that is no new opening.
        """
        return self.ledger.open_test(self.row)

    def trials(self, own: Judgement | None = None) -> Trials:
        """All trials whose symbols and validation days overlap with this run's, its own among them.

        own: this row's, whose returns are not in the ledger yet.
        """
        return self.ledger.trials(self.row, days_of(own) if own else None)

    def trials_before(self) -> Trials:
        """All trials as they were before this run came to a result, which a run that is resumed may have written."""
        return self.ledger.trials(self.row, Days((), ()))

    def openings(self, own: Judgement | None = None) -> Trials:
        """All openings whose symbols and test days overlap with this run's, its own among them."""
        return self.ledger.openings(self.row, days_of(own) if own else None)

    def judge(
        self, result: RunResult, judged: Mapping[str, Judgement], openings: int, evidence: EvidenceConfig, seed: int
    ) -> None:
        """Fill in n_trials, deflated_sharpe, test_openings, the benchmark and the verdicts.

        The validation days are judged as the best of all trials that saw them, the test days as the best of all that
        opened them. The run's verdict is on the test days, or on the validation days if the test days stay sealed.
        """
        valid = judged["valid"]
        trials = self.trials(valid)
        result.n_trials, result.test_openings = trials.count, openings
        result.deflated_sharpe = decide(valid, trials, evidence, seed).deflated_sharpe
        result.verdict = valid.result.verdict
        if self.ledger.path != ledger_path(None):
            result.warnings.append(f"trials and openings are counted in {self.ledger.path} alone (evidence.ledger)")
        if trials.crossed:
            result.warnings.append(
                f"{trials.crossed} of the {trials.count} trials opened test days that are validation days here"
            )
        if test := judged.get("test"):
            looks = self.openings(test)
            decide(test, looks, evidence, seed)
            result.verdict = test.result.verdict
            if looks.crossed:
                result.warnings.append(
                    f"these test days are no first look: {looks.crossed} trials had some of them as validation days"
                )

    def done(self, judged: Mapping[str, Judgement], result: RunResult) -> None:
        """The run is done: write the daily returns of its validation and opened test days into the ledger."""
        self.ledger.finish(
            self.row,
            status="done",
            **{period: days_of(part) for period, part in judged.items()},
            sharpe=judged["valid"].result.profit["sharpe_ratio"],
            result={name: getattr(result, name) for name in ("verdict", "n_trials", "test_openings")},
        )
        self.is_done = True


def open_ledger(evidence: EvidenceConfig, outputs: Path) -> Ledger:
    """The ledger that counts a run: evidence.ledger, else the user's own. What lies in the outputs is taken over.

    Raises LedgerError where it cannot be made or written; no other place is tried.
    """
    ledger = Ledger(ledger_path(evidence.ledger))
    if said := take_over(ledger.path, outputs, keep=evidence.ledger is not None):
        print(said, flush=True)
    return ledger


def remember(ledger: Ledger, bars: Bars, fingerprint: str) -> None:
    """Store the months of bars by which they are known again, once for all runs on them."""
    if not ledger.knows_months(fingerprint):
        ledger.remember(fingerprint, month_digests(bars))


@contextmanager
def in_the_ledger(
    ledger: Ledger,
    record: RunRecord,
    periods: Mapping[str, Period],
    bars: Bars,
    resumed: bool,
    part_of: str | None = None,
) -> Iterator[LedgerRow]:
    """The row of a run while it runs. An exception that ends the run gives the row its status.

    bars: of its symbols over all sessions. A resumed run keeps its row, if the ledger knows it. part_of: see
    Ledger.begin.
    """
    facts = record.manifest
    data, uuid = facts["data"], facts.get("id")
    remember(ledger, bars, data["fingerprint"])
    known = {"signature": facts["signature"], "fingerprint": data["fingerprint"]}
    row = ledger.resume(record.folder, uuid, known) if resumed else None
    if row is None:  # of another ledger, or killed before it had a row
        row = ledger.begin(
            **{name: facts[name] for name in ("kind", "name", "signature", "started")},
            **{name: data[name] for name in ("fingerprint", "symbols")},
            folder=record.folder,
            windows={name: period.window for name, period in periods.items()},
            code=facts["code"].get("digest"),
            uuid=uuid,
            part_of=part_of,
        )
    found = LedgerRow(ledger, row)
    try:
        yield found
    except BaseException as end:
        if not found.is_done:  # what goes wrong after that, a closed pipe for example, changes no result
            ledger.finish(row, status=status_of(end))
        raise
