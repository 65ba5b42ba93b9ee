"""Ledgers for tests, rows in them, and processes that share one."""

import hashlib
import subprocess
import sys
from pathlib import Path

import numpy as np

from hftraining.runs.ledger import Ledger
from hftraining.runs.trials import Days, Trials
from tests.commands import ROOT

PERIODS = {
    "train": ("2001-01-02", "2010-12-31"),
    "valid": ("2011-01-05", "2012-12-31"),
    "test": ("2013-01-04", "2015-12-31"),
}
HEADER = """
import sys
from pathlib import Path
from hftraining.runs.ledger import Ledger
from hftraining.runs.trials import Days
def begin(ledger, signature):
    return ledger.begin(kind="base", name="n", folder=Path(sys.argv[1]).parent / signature, signature=signature,
        fingerprint="f00d", symbols=["A"], code="c0de",
        windows={"valid": ("2011-01-05", "2012-12-31"), "test": ("2013-01-02", "2015-12-31")})
"""


def new_ledger(folder: Path) -> Ledger:
    return Ledger(folder / "outputs" / "ledger.sqlite")


def begin(ledger: Ledger, signature: str, **others) -> int:
    row = {
        "kind": "base",
        "name": "small",
        "folder": ledger.path.parent / "base" / "small" / signature,
        "signature": signature,
        "fingerprint": "f00d",
        "symbols": ["AAPL", "MSFT"],
        "windows": PERIODS,
        "code": "c0de",
    }
    return ledger.begin(**(row | others))


def days(returns, benchmark=None, first="2011-01-05") -> Days:
    dates = np.datetime64(first) + np.arange(len(returns))
    return Days([str(day) for day in dates], returns, benchmark)


def finish(ledger: Ledger, row: int, returns, status: str = "done", **others) -> None:
    ledger.finish(row, status=status, valid=days(returns), sharpe=1.5, result={"loss": 0.2}, **others)


def any_returns(name: str, n: int = 30) -> list[float]:
    """Returns that only this name has."""
    seed = int.from_bytes(hashlib.sha256(name.encode()).digest()[:4], "big")
    return np.random.default_rng(seed).normal(0, 0.01, n).tolist()


def trials(ledger: Ledger, like: int = 1) -> Trials:
    """The trials that a row counts."""
    return ledger.trials(like)


def python(code: str, path: Path) -> subprocess.Popen:
    command = [sys.executable, "-c", HEADER + code, str(path)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=ROOT)
