"""Hindsight: whether a book's weights know what nobody knew at the close that they are dated at.

Three questions, each of them a correlation of the weights with returns:

1. Later prices. Weights dated at the close of t may know nothing of what comes after it. They are held against the
   returns from the next open on over 1, 5 and 21 sessions, from this close to the next, and overnight. Skill is small
   (an information coefficient above 0.06 is an alarm, TRADING 6.7), so what is larger than `least` of its look, and
   cannot be luck, was taken from later bars. The sign does not matter: a book that is reliably wrong about tomorrow
   knows it, too, as a reversal does that is dated a session early.
2. The day from its open. Weights that follow the return from open to close of their own session far more than the gap
   before it or the session before, in either direction: so do decisions that were taken, or sold as taken, at that open
   and dated with the day. Rules that are made of closes follow gap and session alike.
3. The day alone. Weights that are little else than the return of their own session. A one-day momentum decided after
   that close, also one that a model has learned, is the very same numbers as a book that knew the day. No statistic
   tells them apart, so this is a note with both readings and no alarm. A reversal has the other sign and no note.

Each is asked of the weights and, for later prices, of their changes (beyond the drift of prices), twice: across the
stocks of a day (the mean of the daily correlations, Fama and MacBeth 1973), and through time (the book's net weight
against the mean return of the day). What is at least 5 standard errors from zero by Student's t over days counts: in
some 50 looks that comes by luck in less than one of 10,000 books. Returns are in units of each stock's trailing
volatility and cut at 5 of them; returns that overlap are not counted twice.

What it cannot see: foresight so diluted that it is no larger than skill; that of few decisions (below 6, and in
practice below some 20 where it is weak); foresight of single stocks within a book of many; choosing stocks, or rules,
by what they did over the whole period; and a day's return known in part, beside a rule that uses it.

Legend: T sessions, S symbols, D decisions.
"""

import math
from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy.special import ndtri, stdtr

from hftraining.core.bars import Bars

SIGMAS, MOST_SIGMAS = 5.0, 35.0  # beyond the latter, the probability of a t is too small for a float
LEAST_DECISIONS = 6
MOST_UNITS = 5.0  # of volatility that one return counts for
MIN_SYMBOLS = 3  # of a cross-section
LEAST_OPEN, LEAST_DAY = 0.3, 0.5  # of the second and third question
CLEARLY = 2.0  # standard errors, of one look beyond another
BEYOND = 2.0  # times what the session before shows, and what the gap does
NO_CHANGE = 1e-3  # of equity, in all: less is what rounding and costs leave
NO_SPREAD = 1e-8
DECAY, MIN_BARS = 60, 10  # of the volatility: centre of mass in sessions, and bars that it needs


@dataclass(frozen=True)
class Look:
    """A return to hold the weights of session t against: from one price to another, `first` and `last` sessions on."""

    words: str
    start: str  # open or close
    first: int
    end: str
    last: int
    least: float = 0.0  # a correlation below it is not named

    @property
    def sessions(self) -> int:
        """Sessions that it spans, at least 1."""
        return max(1, self.last - self.first)


LATER = (
    Look("from the next open to the open after it", "open", 1, "open", 2, 0.06),
    Look("of the 5 sessions from the next open on", "open", 1, "open", 6, 0.10),
    Look("of the 21 sessions from the next open on", "open", 1, "open", 22, 0.15),
    Look("from this close to the next", "close", 0, "close", 1, 0.10),
    # The nights of some stocks earn more than their days, year for year: a constant book of five shows 0.15.
    Look("from this close to the next open", "close", 0, "open", 1, 0.25),
)
DAY = Look("of the same session, from the close before it", "close", -1, "close", 0)
FROM_OPEN = Look("of the same session from its open on", "open", 0, "close", 0)
GAP = Look("from the close before to that open", "close", -1, "open", 0)
DAY_BEFORE = Look("of the session before", "close", -2, "close", -1)


@dataclass(frozen=True)
class Sighting:
    """What a look found. value: a correlation. sigmas: standard errors from zero. decisions: that counted."""

    look: Look
    through_time: bool
    of_changes: bool
    value: float
    sigmas: float
    decisions: int

    @property
    def figures(self) -> str:
        """In words: what, with what, and how sure."""
        what = "changes" if self.of_changes else "weights"
        where = "through time with the mean return" if self.through_time else "across stocks with the return"
        sigmas = f"{abs(self.sigmas):.0f}" if abs(self.sigmas) < MOST_SIGMAS else f"more than {MOST_SIGMAS:.0f}"
        sure = f"{sigmas} standard errors over {self.decisions:,} decisions"
        return f"their {what} correlate {self.value:+.2f} {where} {self.look.words} ({sure})"


@dataclass(frozen=True)
class Hindsight:
    """One sentence with figures for each question that is answered with yes; empty where it is not.

    later: of prices after the decision, with which no account can be believed. own_day: of the day that they are dated
    with from its open on, which an account that fills at a later open gains nothing from. note: of the day alone, which
    may be as it should.
    """

    later: str = ""
    own_day: str = ""
    note: str = ""

    @property
    def sentences(self) -> list[str]:
        """The alarms, which the note is not."""
        return [sentence for sentence in (self.later, self.own_day) if sentence]


def hindsight(weights_TS: np.ndarray, bars: Bars) -> Hindsight:
    """What the weights know that nobody knew.

    weights_TS: decided after each close of the bars, NaN throughout on a session without a decision. bars: also from
    before the first decision, where there are any, since returns are measured in trailing volatility.
    """
    asked = _Asked.of(weights_TS, bars)
    later = [found for look in LATER for found in asked.all_of(look) if abs(found.value) >= look.least]
    later = [found for found in later if abs(found.sigmas) >= SIGMAS]
    most = max(later, key=lambda found: (abs(found.sigmas), abs(found.value)), default=None)
    from_open = asked.from_its_open()
    alone = None if from_open else asked.of_the_day_alone()
    return Hindsight(
        _of_later_prices(most) if most else "",
        _of_their_own_day(from_open) if from_open else "",
        _of_the_day_alone(alone) if alone else "",
    )


def _of_their_own_day(found: Sighting) -> str:
    return (
        f"the weights know their own day from its open on: {found.figures}, but not the gap before it: were they "
        "decided at that open, and are dated as if after the close? Filled at the next open they earn nothing of "
        "that day (a rule that is made of intraday moves looks alike)"
    )


def _of_the_day_alone(found: Sighting) -> str:
    return (
        f"the weights are little else than the return of their own day: {found.figures}; decided after that close "
        "this is a one-day momentum, but if they were meant to earn that very day, they knew it beforehand"
    )


def _of_later_prices(found: Sighting) -> str:
    wrong = "; no rule is so reliably wrong" if found.value < 0.0 else ""
    return (
        f"the weights know later prices: {found.figures}, where skill stays below {found.look.least:.2f}{wrong}: are "
        "they dated before what they were made of was known?"
    )


@dataclass(frozen=True)
class _Asked:
    """The decisions of a book, their changes, and the prices in whose light they are looked at."""

    bars: Bars
    volatility_TS: np.ndarray
    row_D: np.ndarray  # sessions with a decision
    weights_DS: np.ndarray
    changed_D: np.ndarray  # sessions whose decision changes the book
    changes_DS: np.ndarray

    @classmethod
    def of(cls, weights_TS: np.ndarray, bars: Bars) -> "_Asked":
        row_D = np.flatnonzero(np.isfinite(weights_TS).all(axis=1))
        weights_DS = weights_TS[row_D]
        grown_DS = bars.close_TS[row_D[1:]] / bars.close_TS[row_D[:-1]]
        changes_DS = weights_DS[1:] - weights_DS[:-1] * np.where(np.isfinite(grown_DS), grown_DS, 1.0)
        changes = np.abs(changes_DS).sum(axis=1) > NO_CHANGE
        volatility_TS = _volatility(bars.close_TS)
        return cls(bars, volatility_TS, row_D, weights_DS, row_D[1:][changes], changes_DS[changes])

    def all_of(self, look: Look) -> list[Sighting]:
        """What a look finds in weights and changes, across stocks and through time."""
        units_TS, found = self._units(look), []
        for of_changes, row_D, book_DS in (
            (False, self.row_D, self.weights_DS),
            (True, self.changed_D, self.changes_DS),
        ):
            for through_time, daily in ((False, _across), (True, _through)):
                daily_D = daily(book_DS, units_TS[row_D])
                found.append(_sighting(daily_D, look, row_D, through_time, of_changes))
        return found

    def from_its_open(self) -> Sighting | None:
        """The second question: far beyond the session before, and more for each unit of return than the gap."""
        gap_DS, open_DS = self._units(GAP)[self.row_D], self._units(FROM_OPEN)[self.row_D]
        for through_time in (False, True):
            if found := self._beyond(FROM_OPEN, DAY_BEFORE, through_time, LEAST_OPEN):
                by_gap, by_open = _slopes(self.weights_DS, gap_DS, open_DS, through_time)
                if by_open > BEYOND * abs(by_gap):  # a rule of intraday moves seldom leaves the gap out
                    return found
        return None

    def of_the_day_alone(self) -> Sighting | None:
        """The third question: far beyond the session before."""
        for through_time in (False, True):
            if found := self._beyond(DAY, DAY_BEFORE, through_time, LEAST_DAY):
                return found
        return None

    def _beyond(self, look: Look, other: Look, through_time: bool, least: float) -> Sighting | None:
        """What a look finds, if that cannot be luck and is clearly BEYOND times what another one shows; else None."""
        daily = _through if through_time else _across
        ours_D, theirs_D = (daily(self.weights_DS, self._units(one)[self.row_D]) for one in (look, other))
        found = _sighting(ours_D, look, self.row_D, through_time, of_changes=False)
        if not (found.value >= least and found.sigmas >= SIGMAS) or not np.isfinite(theirs_D).any():
            return None
        excess_D = ours_D - BEYOND * math.copysign(1.0, np.nanmean(theirs_D)) * theirs_D
        return found if _mean(excess_D)[1] >= CLEARLY else None

    def _units(self, look: Look) -> np.ndarray:
        """units_TS of a look at each session: its log return over what such a span usually moves, cut; NaN unknown."""
        start_TS, end_TS = (
            _ahead(getattr(self.bars, f"{price}_TS"), sessions)
            for price, sessions in ((look.start, look.first), (look.end, look.last))
        )
        usual_TS = self.volatility_TS * math.sqrt(look.sessions)
        return np.clip(np.log(end_TS / start_TS) / usual_TS, -MOST_UNITS, MOST_UNITS)


def _volatility(close_TS: np.ndarray) -> np.ndarray:
    """Standard deviation of the log returns up to each session, exponentially weighted; NaN before MIN_BARS."""
    change_TS = np.log(close_TS / _ahead(close_TS, -1))
    found_TS = pd.DataFrame(change_TS).ewm(com=DECAY, min_periods=MIN_BARS).std().to_numpy()
    return np.where(found_TS > NO_SPREAD, found_TS, np.nan)


def _ahead(value_TS: np.ndarray, sessions: int) -> np.ndarray:
    """The values of so many sessions later (earlier if negative), NaN beyond the ends."""
    moved_TS, n = np.full(value_TS.shape, np.nan), len(value_TS)
    if abs(sessions) < n:
        moved_TS[max(0, -sessions) : n - max(0, sessions)] = value_TS[max(0, sessions) : n - max(0, -sessions)]
    return moved_TS


def _across(book_DS: np.ndarray, units_DS: np.ndarray) -> np.ndarray:
    """The correlation over the stocks of each decision; NaN with fewer than MIN_SYMBOLS, or without spread."""
    known_DS = np.isfinite(units_DS)
    n_D1 = known_DS.sum(axis=1, keepdims=True)
    x_DS, y_DS = (_centred(part_DS, known_DS, n_D1) for part_DS in (book_DS, units_DS))
    xx_D, yy_D, xy_D = (x_DS**2).sum(axis=1), (y_DS**2).sum(axis=1), (x_DS * y_DS).sum(axis=1)
    fits_D = (n_D1[:, 0] >= MIN_SYMBOLS) & (xx_D > NO_SPREAD**2) & (yy_D > NO_SPREAD**2)
    return np.where(fits_D, xy_D / np.sqrt(np.where(fits_D, xx_D * yy_D, 1.0)), np.nan)


def _centred(part_DS: np.ndarray, known_DS: np.ndarray, n_D1: np.ndarray) -> np.ndarray:
    part_DS = np.where(known_DS, part_DS, 0.0)
    return np.where(known_DS, part_DS - part_DS.sum(axis=1, keepdims=True) / np.maximum(n_D1, 1), 0.0)


def _through(book_DS: np.ndarray, units_DS: np.ndarray) -> np.ndarray:
    """A number a decision whose mean is the correlation of the net weight with the mean return; NaN without spread."""
    market_D = _market(book_DS, units_DS)
    known_D = np.isfinite(market_D)
    if known_D.sum() < 2:
        return np.full(len(book_DS), np.nan)
    net_D = book_DS.sum(axis=1)
    net_D = net_D - net_D[known_D].mean()
    spread = math.sqrt((net_D[known_D] ** 2).mean() * (market_D[known_D] ** 2).mean())
    return net_D * market_D / spread if spread > NO_SPREAD else np.full(len(book_DS), np.nan)


def _market(book_DS: np.ndarray, units_DS: np.ndarray) -> np.ndarray:
    """The mean return of the stocks that the book ever holds: of a book of one stock it is that stock's."""
    units_DS = units_DS[:, np.abs(book_DS).sum(axis=0) > 0.0]
    known_DS = np.isfinite(units_DS)
    n_D = known_DS.sum(axis=1)
    return np.where(n_D > 0, np.where(known_DS, units_DS, 0.0).sum(axis=1) / np.maximum(n_D, 1), np.nan)


def _slopes(book_DS: np.ndarray, gap_DS: np.ndarray, open_DS: np.ndarray, through_time: bool) -> tuple[float, float]:
    """What weights gain with each unit of the gap and of the day from its open, the other being equal.

    Least squares over all decisions, each of which counts the same across stocks.
    """
    if through_time:
        parts = [book_DS.sum(axis=1), _market(book_DS, gap_DS), _market(book_DS, open_DS)]
        known = np.isfinite(np.sum(parts, axis=0))
        weight, gap, day = (part[known] - part[known].mean() for part in parts)
    else:
        known_DS = np.isfinite(gap_DS + open_DS)
        n_D1 = known_DS.sum(axis=1, keepdims=True)
        weight_DS, gap, day = (_centred(part, known_DS, n_D1) for part in (book_DS, gap_DS, open_DS))
        size_D1 = np.sqrt((weight_DS**2).sum(axis=1, keepdims=True))
        weight = weight_DS / np.where(size_D1 > NO_SPREAD, size_D1, np.inf)
    columns = np.stack([gap.ravel(), day.ravel()], axis=1)
    by_gap, by_open = np.linalg.lstsq(columns, weight.ravel(), rcond=None)[0]
    return float(by_gap), float(by_open)


def _sighting(daily_D: np.ndarray, look: Look, row_D: np.ndarray, through_time: bool, of_changes: bool) -> Sighting:
    """The mean of a number a decision. Of decisions nearer than the look is long, every so many count."""
    between = float(np.median(np.diff(row_D))) if len(row_D) > 1 else 1.0
    step = max(1, math.ceil(look.sessions / between))
    return Sighting(look, through_time, of_changes, *_mean(daily_D[::step]))


def _mean(daily_D: np.ndarray) -> tuple[float, float, int]:
    """The mean, how many standard errors it lies from zero, and of how many numbers; 0 sigmas for too few.

    The t of few numbers counts as the normal deviate that is as rare.
    """
    known_D = daily_D[np.isfinite(daily_D)]
    n = len(known_D)
    if n < LEAST_DECISIONS:
        return math.nan, 0.0, n
    mean, error = float(known_D.mean()), float(known_D.std(ddof=1)) / math.sqrt(n)
    t = abs(mean) / max(error, NO_SPREAD)
    return mean, math.copysign(-float(ndtri(max(stdtr(n - 1, -t), 1e-300))), mean), n
