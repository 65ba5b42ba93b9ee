"""The folder and the ledger row of what is judged outside a training: backtests, evaluations, ensembles."""

import dataclasses
import hashlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd
import torch

from hftraining.core.bars import Bars
from hftraining.core.endings import in_the_run
from hftraining.core.errors import status_of
from hftraining.core.values import canonical
from hftraining.experiment.conclude import warnings_of_trading
from hftraining.experiment.config import ExperimentConfig
from hftraining.experiment.inherit import signature_of
from hftraining.experiment.judging import Judgement
from hftraining.experiment.ledger_row import open_ledger, remember
from hftraining.experiment.selecting import days_of, decide
from hftraining.market.features.lookup import marks_of, packages_of
from hftraining.reports.report import write_report
from hftraining.runs.code_version import source_digest
from hftraining.runs.identity import manifest
from hftraining.runs.ledger import Ledger
from hftraining.runs.ledger_file import ledger_path
from hftraining.runs.record import RunRecord
from hftraining.runs.result import FinishedRun, RunResult, write_result
from hftraining.runs.trials import Days

PERIOD = "backtest"  # of result.json
ROWS = {"backtests": "backtest", "evaluations": "evaluation", "ensembles": "ensemble"}  # folder -> kind in the ledger
IN_SAMPLE = "in sample: no evidence"  # the verdict on days that the model was trained on


@dataclass(frozen=True)
class Asked:
    """What is to be judged.

    kind: of its folder, one of ROWS. config: its rules and evidence, for config.yaml. bars: of the stocks and days that
    are judged. whole: all bars of these stocks, by which the ledger knows them again; None: bars. made_of: for
    run.json, see runs/manifest.py: the folder of each run with its id and signature, or a file with its sha256.
    further: what beside the config makes it another trial, see signature_of. test_first: the day, ISO, from which on
    days are test days of what it is made of; None: there are none. in_sample: a sentence where the model was trained
    on these days. periods: valid, and perhaps test, with their first and last day, where they are judged apart.
    columns: the features that the forecasts are made of.
    """

    kind: str
    name: str
    config: ExperimentConfig
    bars: Bars
    made_of: Sequence[Mapping[str, str]]
    whole: Bars | None = None
    further: Mapping[str, Any] = field(default_factory=dict)
    test_first: str | None = None
    in_sample: str = ""
    periods: Mapping[str, tuple[str, str]] = field(default_factory=dict)
    columns: Sequence[str] = ()

    @property
    def windows(self) -> dict[str, tuple[str, str]]:
        """The days of its ledger row: all of them as valid, those that are test days as test, too; or the periods."""
        if self.periods:
            return dict(self.periods)
        sessions_T = self.bars.sessions_T
        first, last = str(sessions_T[0]), str(sessions_T[-1])
        if self.test_first is None or last < self.test_first:
            return {"valid": (first, last)}
        return {"valid": (first, last), "test": (max(first, self.test_first), last)}


@dataclass
class Judged:
    """A folder and a ledger row that wait for a judgement. openings: of the test days, this one included; or 0."""

    asked: Asked
    record: RunRecord
    ledger: Ledger
    row: int
    openings: int
    is_done: bool = False

    @property
    def folder(self) -> Path:
        """Of its files."""
        return self.record.folder

    def conclude(
        self, judged: Judgement, warnings: Sequence[str] = (), relative: str | None = None, verdict: str = ""
    ) -> FinishedRun:
        """Decide on a judgement as the best of all that looked at these days, and write everything.

        warnings: sentences, beside those on the rules. relative: of the forecasts, if there are any. verdict: in place
        of the one that the figures would give, where they are no evidence.
        """
        asked, config = self.asked, self.asked.config
        trials = self.ledger.trials(self.row, days_of(judged))
        benchmark = decide(judged, trials, config.evidence, config.seed)
        if asked.in_sample:
            judged.result.verdict = IN_SAMPLE
        elif verdict:
            judged.result.verdict = verdict
        said = [*warnings, *warnings_of_trading(config.profit_tracker, self.openings)]
        if self.ledger.path != ledger_path(None):
            said.append(f"trials and openings are counted in {self.ledger.path} alone (evidence.ledger)")
        if trials.crossed:
            said.append(f"{trials.crossed} of the {trials.count} trials on these days were openings of test days")
        result = RunResult(
            signature=self.record.manifest["signature"],
            relative=relative,
            periods={PERIOD: judged.result},
            n_trials=trials.count,
            deflated_sharpe=benchmark.deflated_sharpe,
            test_openings=self.openings or None,
            verdict=judged.result.verdict,
            in_sample=asked.in_sample or None,
            warnings=said,
        )
        return self.write({PERIOD: judged}, result)

    def write(self, judged: Mapping[str, Judgement], result: RunResult) -> FinishedRun:
        """Write everything of the judged periods, and finish the ledger row."""
        record = self.record
        record.write_equity(_stacked({name: part.equity for name, part in judged.items()}))
        record.write_trades(_stacked({name: part.trades for name, part in judged.items()}))
        record.write_null_band(_stacked({name: part.fan for name, part in judged.items()}))
        days = {name: days_of(part) for name, part in judged.items()}
        first = next(iter(judged))
        test = days.get("test")
        if PERIOD in days and "test" in self.asked.windows:
            test = _since(days[PERIOD], self.asked.windows["test"][0])
        self.ledger.finish(
            self.row,
            status="done",
            valid=days[first],
            test=test if test and len(test.dates) else None,
            sharpe=judged[first].result.profit["sharpe_ratio"],
            result={name: getattr(result, name) for name in ("verdict", "n_trials", "test_openings")},
        )
        self.is_done = True
        write_result(self.folder, result)
        write_report(self.folder)
        return FinishedRun(self.folder, result)


@contextmanager
def judged_folder(asked: Asked, outputs: Path, argv: Sequence[str] | None = None) -> Iterator[Judged]:
    """The folder outputs/kind/name/date_time and the ledger row of what is about to be judged; then `conclude` it.

    The row is there before anything is traded, and an exception gives it its status. The same again, of the same code
    or other code, is the same row; another setting, other days or other bars are another trial. Days from test_first on
    are an opening of test days. Raises LedgerError and RecordError before anything is written.
    """
    ledger = open_ledger(asked.config.evidence, outputs)
    whole = asked.bars if asked.whole is None else asked.whole
    fingerprint = whole.fingerprint()
    facts, delta = _facts(asked, whole, fingerprint, ledger.path, argv)
    values = dataclasses.asdict(asked.config)
    record = RunRecord.create(outputs, asked.kind, asked.name, values, delta, facts)
    with in_the_run(record.folder), record:
        remember(ledger, whole, fingerprint)
        row = _row(ledger, asked, record.folder, fingerprint)
        openings = ledger.open_test(row) if "test" in asked.windows else 0
        found = Judged(asked, record, ledger, row, openings)
        try:
            yield found
        except BaseException as end:
            if not found.is_done:  # what goes wrong after that changes no result
                ledger.finish(row, status=status_of(end))
            raise


@dataclass
class Counted:
    """A row of the ledger that waits for its returns. openings: of the test days, this one included; or 0."""

    ledger: Ledger
    row: int
    openings: int
    is_done: bool = False

    def finish(self, days: Days, test_first: str | None, sharpe: float) -> None:
        """Write the daily returns, and those of the test days. sharpe: annualised."""
        test = _since(days, test_first) if test_first and self.openings else None
        self.ledger.finish(self.row, status="done", valid=days, test=test, sharpe=sharpe)
        self.is_done = True


@contextmanager
def counted(asked: Asked, folder: Path, outputs: Path) -> Iterator[Counted]:
    """The ledger row of what is about to be traded in a folder of its own: that of judged_folder for the same."""
    ledger, whole = open_ledger(asked.config.evidence, outputs), asked.bars if asked.whole is None else asked.whole
    fingerprint = whole.fingerprint()
    remember(ledger, whole, fingerprint)
    row = _row(ledger, asked, folder, fingerprint)
    found = Counted(ledger, row, ledger.open_test(row) if "test" in asked.windows else 0)
    try:
        yield found
    except BaseException as end:
        if not found.is_done:
            ledger.finish(row, status=status_of(end))
        raise


def _facts(
    asked: Asked, whole: Bars, fingerprint: str, ledger: Path, argv: Sequence[str] | None
) -> tuple[dict[str, Any], dict[str, Any]]:
    """What run.json says, and what differs from the default config."""
    delta, signature, own_id = _identity(asked, fingerprint)
    data = {
        "fingerprint": fingerprint,
        "source": whole.source,
        "symbols": list(whole.symbols_S),
        "first": str(whole.sessions_T[0]),
        "last": str(whole.sessions_T[-1]),
        "snapshot": whole.snapshot,
    }
    seed, threads = asked.config.seed, torch.get_num_threads()
    facts = manifest(signature=signature, seed=seed, threads=threads, data=data, argv=argv)
    facts["versions"] |= packages_of(asked.columns)
    facts["marks"] = marks_of(asked.columns)
    facts["id"] = own_id
    return facts | {"made_of": [dict(source) for source in asked.made_of], "ledger": str(ledger)}, delta


def _identity(asked: Asked, fingerprint: str) -> tuple[dict[str, Any], str, str]:
    """What differs from the default config, its signature, and the id by which the ledger knows the same again."""
    delta, signature = signature_of(asked.config, further=asked.further)
    sources = [source.get("id") or source.get("sha256") or source.get("signature") for source in asked.made_of]
    same = [asked.kind, signature, fingerprint, asked.windows, sources, bool(asked.in_sample)]
    return delta, signature, hashlib.sha256(canonical(same).encode()).hexdigest()[:32]


def _row(ledger: Ledger, asked: Asked, folder: Path, fingerprint: str) -> int:
    """The row of the same judged before, or a new one."""
    _, signature, uuid = _identity(asked, fingerprint)
    same = {"signature": signature, "fingerprint": fingerprint}
    if known := ledger.resume(folder, uuid, same):
        return known
    return ledger.begin(
        kind=ROWS[asked.kind],
        name=asked.name,
        folder=folder,
        symbols=asked.bars.symbols_S,
        windows=asked.windows,
        code=source_digest(),
        uuid=uuid,
        **same,
    )


def _stacked(frames: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
    """One frame of all periods, with a column that names the period."""
    return pd.concat([frame.assign(window=name) for name, frame in frames.items()], ignore_index=True)


def _since(days: Days, first: str) -> Days:
    """The returns of the days from one on."""
    at = next((n for n, day in enumerate(days.dates) if str(day) >= first), len(days.dates))
    benchmark = None if days.benchmark is None else days.benchmark[at:]
    return Days(days.dates[at:], days.returns[at:], benchmark)
