"""Trials: what was ever tried on some days and stocks, counted by configuration, code and outcome."""

import hashlib
import math
from array import array
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import variance
from typing import Any


@dataclass(frozen=True)
class Days:
    """Daily net returns of an account and of its benchmark, buy and hold, on the same days; fractions.

    dates: ISO days, or anything that begins with one when written as text. benchmark: None where it is not known, as
    in rows of earlier versions. Sequences of floats; read back from a ledger they are array("d").
    """

    dates: Sequence[Any]
    returns: Sequence[float]
    benchmark: Sequence[float] | None = None

    def __post_init__(self) -> None:
        assert len(self.dates) == len(self.returns), f"{len(self.dates)} days, {len(self.returns)} returns"
        known = self.benchmark
        assert known is None or len(known) == len(self.returns), f"{len(self.returns)} days, {len(known)} of benchmark"


@dataclass(frozen=True)
class Outcome:
    """A distinct result that someone could have chosen. row: its row in the ledger.

    crossed: these days are those of another role: opened test days where trials on validation days are counted, and
    validation days where openings are.
    """

    row: int
    signature: str
    days: Days
    crossed: bool = False


@dataclass(frozen=True)
class Trials:
    """Everything ever tried on stocks and days that overlap with those of a run.

    Sharpe ratios are daily (not annualised), as deflation needs them, of the outcomes that are known and vary.
    variance_1d: over these with ddof 1, NaN for fewer than two.

    Of validation days, `count` is N: distinct pairs of signature and outcome; pruned, failed, killed and running tries
    count too. Of test days, it is the number of openings. In both, tries that saw some of these days in the other role
    are among them, since the best of all these looks could have been picked; `crossed` says how many they are.
    """

    count: int
    sharpes_1d: tuple[float, ...]
    variance_1d: float
    rows: dict[str, tuple[int, ...]]  # signature -> its rows, in the order in which they began; without the crossed
    outcomes: dict[str, int] = field(default_factory=dict)  # signature -> number of its different results
    known: tuple[Outcome, ...] = ()  # all outcomes whose returns are known, those of the crossed last
    crossed: int = 0

    @property
    def direct(self) -> int:
        """How many tries saw these days in the same role: of test days, the openings alone."""
        return self.count - self.crossed


@dataclass(frozen=True)
class Try:
    """What counting needs of a row. same: one text for repetitions of the same config, code and data.

    outcome: see `outcome_of`; empty without returns. sharpe_1d: of these returns, None without variance.
    """

    row: int
    signature: str
    same: str
    outcome: str
    sharpe_1d: float | None = None


def trials_of(
    tries: Sequence[Try],
    crossed: Sequence[Try] = (),
    days_of: Callable[[Sequence[int], bool], Mapping[int, Days]] = lambda rows, is_crossed: {},
) -> Trials:
    """Count these tries, which all saw the same days, and those that saw them in the other role.

    A signature names config and seed: the same run twice is one trial, and two seeds are two trials. One signature with
    two different outcomes was tried under two versions of the code or of the data, and is two trials. A try without an
    outcome (killed, failed, pruned, running) is a trial of its own unless the same config, code and data came to an
    outcome or was counted already. days_of: the returns of rows, given whether these are crossed.
    """
    direct = _distinct(tries)
    # The same try seen in both roles is one look.
    seen, ids = {one.same for one in tries}, {one.row for one in tries}
    others = _distinct([one for one in crossed if one.same not in seen and one.row not in ids])
    counted = [*direct.values(), *others.values()]
    sharpes = tuple(one.sharpe_1d for one in counted if one.outcome and one.sharpe_1d is not None)
    rows: dict[str, dict[int, None]] = {}
    outcomes: dict[str, int] = {}
    for one in tries:
        rows.setdefault(one.signature, {})[one.row] = None
        outcomes.setdefault(one.signature, 0)
    for one in direct.values():
        outcomes[one.signature] += bool(one.outcome)
    known: list[Outcome] = []
    for found, is_crossed in ((direct, False), (others, True)):
        ended = [one for one in found.values() if one.outcome]
        days = days_of([one.row for one in ended], is_crossed) if ended else {}
        known += [Outcome(one.row, one.signature, days[one.row], is_crossed) for one in ended if one.row in days]
    in_order = {signature: tuple(ids) for signature, ids in rows.items()}
    return Trials(len(counted), sharpes, variance_of(sharpes), in_order, outcomes, tuple(known), len(others))


def _distinct(tries: Sequence[Try]) -> dict[tuple[str, str], Try]:
    """One try for each trial, in order; of repetitions the last, whose row may know more, such as its benchmark."""
    found = {(one.signature, one.outcome): one for one in tries if one.outcome}
    ended = {one.same for one in tries if one.outcome}
    return found | {("", one.same): one for one in tries if not one.outcome and one.same not in ended}


def outcome_of(returns: bytes) -> str:
    """16 hex digits for the bits of daily returns; empty for none."""
    return hashlib.sha256(returns).hexdigest()[:16] if returns else ""


def sharpe_of(returns: bytes) -> float | None:
    """`daily_sharpe` of returns as they are stored; None where it is NaN."""
    values = array("d")
    values.frombytes(returns)
    sharpe = daily_sharpe(values)
    return sharpe if math.isfinite(sharpe) else None


def variance_of(sharpes: Collection[float]) -> float:
    """Variance (ddof 1) of the trials' Sharpe ratios; NaN for fewer than two."""
    return variance(sharpes) if len(sharpes) > 1 else math.nan


def daily_sharpe(returns: Sequence[float]) -> float:
    """Mean / standard deviation (ddof 1) of daily returns, not annualised; NaN without variance or with a NaN in it."""
    if len(returns) < 2 or not all(map(math.isfinite, returns)) or min(returns) == max(returns):
        return math.nan
    mean = math.fsum(returns) / len(returns)
    return mean / math.sqrt(math.fsum((value - mean) ** 2 for value in returns) / (len(returns) - 1))
