"""Whether a run is finished, and the last of its writes: what a killed process left undone is done here."""

from pathlib import Path

from hftraining.core.errors import ConfigError
from hftraining.core.files import remove_left_over
from hftraining.core.untrusted import refuse_links
from hftraining.evidence.config import EvidenceConfig
from hftraining.reports.report import write_report
from hftraining.runs.folder import CANDIDATES_FOLDER, FOLDS_FOLDER, is_member
from hftraining.runs.ledger import Ledger
from hftraining.runs.ledger_file import ledger_path
from hftraining.runs.lock import FolderLock
from hftraining.runs.record import read_manifest
from hftraining.runs.result import RESULT_FILE, RunResult, read_result

REPORT = "report.html"  # the last file that a run writes
SEALED = "sealed"  # in run.json: whether the test days stay sealed


def is_whole(folder: Path, ledger: Ledger) -> bool:
    """Whether nothing of a run is left to do: its ledger row has its returns, and result and report are written."""
    return (folder / REPORT).is_file() and is_scored(folder, ledger)


def is_scored(folder: Path, ledger: Ledger) -> bool:
    """Whether a run has its result, and the ledger its returns: then nothing of it is calculated again."""
    return (folder / RESULT_FILE).is_file() and ledger.is_done(folder, read_manifest(folder).get("id"))


def finished_result(folder: Path, evidence: EvidenceConfig) -> RunResult | None:
    """The result of a run that is scored, its report written if that is missing; None for any other folder.

    A ledger that does not know the run gets its row when the run is resumed. Raises FolderInUse while another process
    ends the run.
    """
    path = ledger_path(evidence.ledger)
    if not (folder / RESULT_FILE).is_file() or not path.is_file() or not is_scored(folder, Ledger(path)):
        return None
    if not (folder / REPORT).is_file():
        refuse_links(folder)
        lock = FolderLock(folder)
        try:
            remove_left_over(folder)
            write_report(folder)
        finally:
            lock.release()
    return read_result(folder)


def refuse_to_resume(folder: Path, evidence: EvidenceConfig) -> None:
    """Raise ConfigError for a part of a run, and for a run of which nothing is left to do."""
    place = folder.resolve()
    if place.parent.name == FOLDS_FOLDER:
        raise ConfigError(f"{folder} is a fold of a walk-forward: resume the walk-forward, {place.parents[1]}")
    if place.parent.name == CANDIDATES_FOLDER:
        raise ConfigError(f"{folder} is a candidate of a fine-tune: resume the fine-tune, {place.parents[1]}")
    if is_member(folder):
        raise ConfigError(f"{folder} is a member of an ensemble: resume the whole of it, {place.parents[1]}")
    if (folder / REPORT).is_file() and finished_result(folder, evidence):
        raise ConfigError(f"{folder} is finished: there is nothing to resume")


def lost_ledger(evidence: EvidenceConfig) -> str | None:
    """The ledger that the config of a run names, if there is none: a stranger's folder may name any path."""
    return evidence.ledger if evidence.ledger and not ledger_path(evidence.ledger).is_file() else None


def is_sealed(folder: Path) -> bool:
    """Whether the test days of a run stay sealed, as those of a trial of a sweep."""
    facts = read_manifest(folder)
    is_trial = facts.get("kind") == "sweeps" and folder.resolve().name.startswith("trial-")
    return bool(facts.get(SEALED, is_trial))
