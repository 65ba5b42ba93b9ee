"""How long the ledger takes with many rows: python experiments/benchmarks/ledger_speed.py.

Rows of 500 validation days and 750 opened test days, a tenth of them killed: one half on overlapping days of 300
symbols, one half on other symbols, of which every second one lies on other days. Best of five, in milliseconds of CPU
time, in new Ledger objects, as each trial of a sweep makes one.
"""

import argparse
import json
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from hftraining.core.bars import Bars
from hftraining.runs.ledger import Ledger, insert, symbol_set
from hftraining.runs.ledger_file import writing
from hftraining.runs.looks import packed
from hftraining.runs.month_digests import month_digests
from hftraining.runs.trials import outcome_of, sharpe_of

VALID, TEST, EARLIER = ("2011-01-05", "2012-12-31"), ("2013-01-04", "2015-12-31"), ("2003-01-06", "2004-12-31")


def bars(n_sessions: int = 3200, n_symbols: int = 300) -> Bars:
    """Random walks."""
    rng = np.random.default_rng(0)
    close_TS = np.exp(np.cumsum(rng.normal(0, 0.02, (n_sessions, n_symbols)), axis=0))
    sessions_T = np.busday_offset(np.datetime64("2003-01-01"), np.arange(n_sessions), roll="forward")
    return Bars(tuple(f"S{s}" for s in range(n_symbols)), sessions_T, *[close_TS] * 5)


def fill(ledger: Ledger, rows: int) -> int:
    """Write the rows in one transaction; returns the last one of the first half."""
    rng, last = np.random.default_rng(1), 0
    with writing(ledger.path) as connection:
        sets = [symbol_set(connection, json.dumps([f"{letter}{s}" for s in range(300)])) for letter in "ST"]
        for number in range(rows):
            ours, signature = number % 2 == 0, f"{number:08x}"
            valid = EARLIER if number % 4 == 3 else VALID
            row: dict[str, Any] = {
                "kind": "sweeps",
                "name": "n",
                "folder": f"/runs/{number}",
                "signature": signature,
                "code": "c0de",
            }
            row |= {"fingerprint": "ours" if ours else "theirs", "symbol_set": sets[not ours], "started": "2026"}
            row |= {"windows": json.dumps({"valid": " to ".join(valid), "test": " to ".join(TEST)}), "status": "done"}
            row |= {"valid_first": valid[0], "valid_last": valid[1], "test_first": TEST[0], "test_last": TEST[1]}
            series: dict[str, np.ndarray] = {}
            if number % 10:
                series = {name: rng.normal(0, 0.01, (2, days)) for name, days in (("valid", 500), ("test", 750))}
            for name, (returns, _) in series.items():
                row |= {f"{name}_outcome": outcome_of(packed(returns)), f"{name}_sharpe_1d": sharpe_of(packed(returns))}
            found = insert(connection, row)
            last = found if ours else last
            connection.execute(
                "INSERT INTO openings (run_id, fingerprint, test_window, opened, look) VALUES (?, '', '', '', ?)",
                (found, f"{signature} c0de"),
            )
            for name, (returns, benchmark) in series.items():
                dates = json.dumps((np.datetime64("2011-01-05") + np.arange(len(returns))).astype(str).tolist())
                values = (found, name, dates, packed(returns), packed(benchmark))
                connection.execute("INSERT INTO series VALUES (?, ?, ?, ?, ?)", values)
    return last


def best(act: Callable[[], object]) -> float:
    """Milliseconds."""
    times = []
    for _ in range(5):
        begin = time.process_time()
        act()
        times.append(time.process_time() - begin)
    return 1e3 * min(times)


def main() -> None:
    """Print the times."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=5_000)
    arguments = parser.parse_args()
    universe = bars()
    print(f"digests of the months of 300 symbols over 3,200 sessions: {best(lambda: month_digests(universe)):.0f} ms")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "ledger.sqlite"
        ledger = Ledger(path)
        row = fill(ledger, arguments.rows)
        ledger.remember("ours", month_digests(universe))
        ledger.remember("theirs", month_digests(universe.rows(slice(0, 2000))))
        found = ledger.trials(row)
        size = path.stat().st_size / 1e6
        print(f"{arguments.rows:,} rows, {size:.0f} MB; N = {found.count:,}, {len(found.known):,} with returns")
        place = ledger.entries()[row - 1].place("valid")
        assert place is not None
        for words, act in (
            ("tries(place): N alone", lambda: Ledger(path).tries(place)),
            ("trials(row): with the returns of all", lambda: Ledger(path).trials(row)),
            ("open_test(row)", lambda: Ledger(path).open_test(row)),
            ("entries(): everything", lambda: Ledger(path).entries()),
            ("entries() for the listing", lambda: Ledger(path).entries(with_days=False)),
        ):
            print(f"{words}: {best(act):.0f} ms")


if __name__ == "__main__":
    main()
