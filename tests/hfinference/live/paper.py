"""Paper accounts for tests: what a journal holds, and replays in processes of their own that are killed."""

import os
import signal
import sqlite3
import sys
import time
from collections.abc import Callable
from pathlib import Path

from hfinference.live import journal_file
from hfinference.live.journal import Journal
from hfinference.live.trader import LiveTrader, PaperAccount

WRITES = ("BEGIN", "COMMIT", "INSERT", "UPDATE", "DELETE", "CREATE")


def replayed(run, start, end, journal, *words, **settings) -> PaperAccount:
    return LiveTrader(run, words=words, journal=journal, **settings).start_paper_trading((str(start), str(end)))


def content(folder: Path) -> dict[str, list]:
    """All that a journal holds, but for the id that it drew: two replays of the same give the same."""
    with Journal.read(folder) as journal:
        own = journal.id
        journal.check()
        assert journal.last_session().cash_micro == journal.cash()
    connection = sqlite3.connect(folder / "journal.sqlite")
    found = {}
    for table in ("facts", "sessions", "arrays", "orders", "fills", "adjustments", "halts"):
        rows = connection.execute(f"SELECT * FROM {table}").fetchall()
        if table != "facts":
            rows = [tuple(v.replace(own, "ID") if isinstance(v, str) else v for v in row) for row in rows]
        found[table] = sorted(row for row in rows if row[0] != "journal_id")
    connection.close()
    return found


def in_a_child(act: Callable[[], object]) -> int:
    """Start a process that has all that this one has imported and compiled; returns its id."""
    child = os.fork()
    if child:
        return child
    code = 99
    try:
        act()
        code = 0
    except BaseException as error:
        print(repr(error), file=sys.stderr, flush=True)
    finally:
        os._exit(code)


def ends(child: int) -> int:
    """The exit code of a child, negative for a signal."""
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def killed_after(act: Callable[[], object], seconds: float, journal: Path | None = None) -> bool:
    """Whether a child was still at work when it was killed; False where it had ended.

    seconds: from its start, or with the folder of a journal from the first time that it has written there.
    """

    def written() -> int:
        path = journal / "journal.sqlite"
        return path.stat().st_mtime_ns if path.exists() else 0

    before = written() if journal else 0
    child = in_a_child(act)
    deadline = None if journal else time.monotonic() + seconds
    while deadline is None or time.monotonic() < deadline:
        if deadline is None and written() != before:
            deadline = time.monotonic() + seconds
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            assert os.waitstatus_to_exitcode(status) == 0
            return False
        time.sleep(0.0005)
    os.kill(child, signal.SIGKILL)
    code = ends(child)
    assert code in (0, -signal.SIGKILL)
    return code != 0


def kill_at_write(number: int) -> None:
    """In this process, die before the journal's write of a number, the first is 1: no buffer is flushed."""
    left = [number]

    def count(statement: str) -> None:
        if statement.lstrip().upper().startswith(WRITES):
            left[0] -= 1
            if not left[0]:
                os.kill(os.getpid(), signal.SIGKILL)

    class Connections:
        """sqlite3, whose connections count."""

        def __getattr__(self, name):
            return getattr(sqlite3, name)

        def connect(self, *arguments, **settings):
            connection = sqlite3.connect(*arguments, **settings)
            connection.set_trace_callback(count)
            return connection

    journal_file.sqlite3 = Connections()
