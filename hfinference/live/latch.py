"""The latch of a paper account: halt, resume and flatten, asked for by hand, also while a trader runs.

A file named HALT in the folder of the journal halts, whoever made it; one named FLATTEN makes the next decision target
nothing. The trader looks for both before it decides and sends, so that neither needs its lock.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from hfinference.live.entries import HaltRow
from hfinference.live.journal import Journal
from hfinference.live.journal_file import FILE, LATCH, REPLAY, latch_of, take_away
from hfinference.live.risk import Halt, RiskLimits, check_clock
from hftraining.core.errors import UserError, in_a_line
from hftraining.core.files import sync, write_text_atomically
from hftraining.core.untrusted import SMALL, Untrusted, is_there, read_text
from hftraining.runs.lock import LOCK_FILE, FolderInUse, is_in_use

FLATTEN = "FLATTEN"
OVER = "note: this is a replay that has ended, of which nothing more is traded: name another account with --journal"
PAPER = "paper"  # the folder of a run in which its paper accounts lie


@dataclass(frozen=True)
class Resumed:
    """What a resume has done. lifted: the halts that lasted. is_flattening: closing orders only are still to come.

    cancelled: what was asked with flatten, and is no more; None otherwise.
    """

    folder: Path
    lifted: list[HaltRow]
    is_flattening: bool = False
    cancelled: str | None = None


def account_folder(run: Path, journal: Path | None = None) -> Path:
    """The folder of a paper account: the one that is named, or of those of a run the one that was traded last.

    Raises UserError where there is none.
    """
    return _named(journal) if journal is not None else max(_accounts(run), key=_last_used)


def account_at_work(run: Path, journal: Path | None = None) -> Path:
    """As account_folder, but for what shall stop trading: a replay that nobody runs comes after all other accounts."""
    if journal is not None:
        return _named(journal)
    return max(_accounts(run), key=lambda folder: (_goes_on(folder), _last_used(folder)))


def account_to_resume(run: Path, journal: Path | None = None) -> Path:
    """As account_at_work, but the one that is halted or asked to flatten. UserError where several of a run are."""
    if journal is not None:
        return _named(journal)
    waiting = sorted(folder for folder in _accounts(run) if _is_stopped(folder))
    if len(waiting) > 1:
        names = ", ".join(map(str, waiting))
        raise UserError(f"{len(waiting)} accounts of {run} are halted or flattening, {names}: name one (--journal)")
    return waiting[0] if waiting else account_at_work(run)


def going_on_beside(folder: Path) -> list[Path]:
    """The other accounts of the same run that go on trading, none for an account that lies elsewhere.

    Those that a trader holds, and all that are no replay, since a cron job may take them up; none that is halted.
    """
    if folder.absolute().parent.name != PAPER:
        return []
    beside = sorted(path.parent for path in folder.parent.glob(f"*/{FILE}") if path.stat().st_size)
    return [other for other in beside if other != folder and _goes_on(other) and not _is_halted(other)]


def is_over(folder: Path) -> bool:
    """Whether an account is a replay that has reached its end, of which nothing more is traded."""
    try:
        with Journal.read(folder) as journal:
            days, last = journal.facts.get(REPLAY), journal.last_session()
    except UserError:
        return False
    return isinstance(days, list) and last is not None and last.day >= str(days[-1])


def _named(journal: Path) -> Path:
    if not is_there(journal / FILE):
        raise UserError(f"{journal} has no journal ({FILE}): give the folder of one, or leave out --journal")
    return journal


def _accounts(run: Path) -> list[Path]:
    """The folders of the paper accounts of a run, at least one. Raises UserError."""
    if not run.is_dir():
        raise UserError(f"{run} does not exist: give a run folder, outputs/base/NAME/DATE_TIME")
    found = [path.parent for path in (run / PAPER).glob(f"*/{FILE}") if path.stat().st_size]  # 0: never begun
    if not found:
        raise UserError(
            f"{run} has no paper account yet: python -m hfinference paper {run} makes one (or name it with --journal)"
        )
    return found


def _goes_on(folder: Path) -> bool:
    """Whether a trader holds an account, or may take it up by itself. A journal that cannot be read may be any."""
    try:
        return is_in_use(folder) or Journal.fact_of(folder, REPLAY) is None
    except UserError:
        return True


def _is_halted(folder: Path) -> bool:
    if latch_of(folder):
        return True
    try:
        return halt_of(folder) is not None
    except UserError:
        return False


def _is_stopped(folder: Path) -> bool:
    return _is_halted(folder) or flatten_asked(folder) is not None


def _last_used(folder: Path) -> float:
    """The latest time at which a trader wrote; whoever only looks, or halts, changes none of these files."""
    files = [folder / FILE, folder / LOCK_FILE]
    return max(path.stat().st_mtime for path in files if is_there(path))


def halt(folder: Path, reason: str = "") -> HaltRow:
    """Halt an account by its file; returns the halt that lasts, which is an earlier one where there is one.

    Raises UserError where the file cannot be made.

    Needs no lock, and room for a file name alone: on a full disk the reason is lost, not the halt.
    """
    if before := latch_of(folder):
        return before
    path = folder / LATCH
    with _by_this_user(path, "NOT halted"):
        try:
            write_text_atomically(path, f"{in_a_line(reason) or 'asked for with the command halt'}\n")
        except OSError:
            path.touch()
            sync(folder)
    found = latch_of(folder)
    assert found is not None
    return found


def halt_of(folder: Path) -> HaltRow | None:
    """The halt of an account that lasts. Raises Halt for a journal that is damaged."""
    with Journal.read(folder) as journal:
        return journal.halted()


def flatten(folder: Path, reason: str = "") -> str:
    """Ask for closing orders only, from the next decision on; returns the reason, the first one where asked before."""
    if before := flatten_asked(folder):
        return before
    with _by_this_user(folder / FLATTEN, "NOT flattened"):
        write_text_atomically(folder / FLATTEN, f"{in_a_line(reason) or 'asked for with the command flatten'}\n")
    return flatten_asked(folder) or ""


@contextmanager
def _by_this_user(path: Path, what: str) -> Iterator[None]:
    """A file that cannot be made is a UserError that says so: the trader may be another user's, and goes on."""
    try:
        yield
    except OSError as error:
        raise UserError(
            f"{what}: {path} cannot be made ({error.strerror}): make it as the user who trades, or end the trader"
        ) from None


def flatten_asked(folder: Path) -> str | None:
    """Why the next decision is to target nothing, None where it is not. What cannot be read asks for it, too."""
    path = folder / FLATTEN
    if not is_there(path):
        return None
    try:
        return in_a_line(read_text(path, SMALL)) or f"the file {path}"
    except (Untrusted, OSError) as error:
        return in_a_line(str(error))


def end_flatten(journal: Journal) -> None:
    """What a trader does once all is closed: halt, as flatten promises, and forget that it was asked for."""
    if reason := flatten_asked(journal.folder):
        day = journal.last_session()
        said = f"flat, {reason}: resume trades again"
        journal.halt("by_hand", said, day.day if day else "")
        _forget_flatten(journal.folder)


def resume(folder: Path, now: datetime | None = None) -> Resumed:
    """Lift every halt of an account. Where none lasts, what was asked with flatten is cancelled.

    Refuses, in one line, while the cause is still there as far as the journal can know: a damaged journal, a clock
    behind its last entry, an account worth nothing. All others are looked at again when trading goes on.
    """
    now = now or datetime.now(UTC)
    if not is_there(folder / FILE):
        raise UserError(f"{folder} has no journal ({FILE}): there is nothing to resume")
    try:
        journal = Journal.open(folder, {}, now=lambda: now.isoformat(timespec="seconds"))
    except FolderInUse:
        return _resume_beside_a_trader(folder)
    with journal:
        lasting = _lasting(journal)
        if not lasting:
            return Resumed(folder, [], cancelled=_forget_flatten(folder))
        for check in (journal.check, lambda: _check_worth(journal), lambda: _check_time(journal, now)):
            _refuse_while(check)
        if not lasting[0].id:  # by the file alone: the journal shall remember it, too
            journal.halt("by_hand", lasting[0].reason, lasting[0].day)
        journal.lift("resume")
    return Resumed(folder, lasting, is_flattening=flatten_asked(folder) is not None)


def _resume_beside_a_trader(folder: Path) -> Resumed:
    """Take the file away before the trader that runs has seen it. Raises FolderInUse for a halt that it has latched."""
    with Journal.read(folder) as journal:
        lasting = _lasting(journal)
    if any(row.id for row in lasting):
        raise FolderInUse(f"{folder} is in use by a trader that has halted: wait until it ends, then resume")
    if not lasting:
        return Resumed(folder, [], cancelled=_forget_flatten(folder))
    take_away(folder / LATCH)
    return Resumed(folder, lasting, is_flattening=flatten_asked(folder) is not None)


def _lasting(journal: Journal) -> list[HaltRow]:
    """The halts that last, that of the file alone with the id 0."""
    rows = journal.halts("WHERE lifted_at IS NULL")
    latch = latch_of(journal.folder)
    return rows or ([latch] if latch else [])


def _refuse_while(check: Callable[[], None]) -> None:
    try:
        check()
    except Halt as cause:
        raise UserError(f"not resumed, since the cause is still there ({cause.name}): {cause}") from None


def _check_worth(journal: Journal) -> None:
    last = journal.last_session()
    if last and last.equity_micro <= 0:
        raise Halt("bankrupt", "the account is worth nothing: begin another (--journal FOLDER)")


def _check_time(journal: Journal, now: datetime) -> None:
    last = journal.last_session()
    if last:
        check_clock(now, RiskLimits(), last_entry=datetime.fromisoformat(last.at))


def _forget_flatten(folder: Path) -> str | None:
    """Take the file FLATTEN away; returns what it said, None where there is none."""
    asked = flatten_asked(folder)
    take_away(folder / FLATTEN)
    return asked
